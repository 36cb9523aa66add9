//! The processes of children that owners have placed here: started linked to `purlin.children`,
//! watched, ended as their plans say. What runs, and how it has ended, is said in entries; nothing is
//! decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use purlin_proto::admin::children::{EndChild, HostChild, HostRefusal};
use purlin_proto::child::{ChildEnd, ChildPlan, ChildRun, Desired, RunState};
use purlin_proto::supervision::Shutdown;
use purlin_proto::{ChildId, ExitReason, LinkDown, Mode, Pid, SpawnError};
use purlin_runtime::{Answer, Holding, HostedChild, Left, RawContext};
use tokio::time::Instant;

use super::owner::ring_key;
use super::release::{Release, Releases};
use super::take::{Behind, Taking};
use crate::builder::{WallClock, millis};

/// How long a killed process may take to be gone before it is given up.
const KILL_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Host {
    pub(super) children: BTreeMap<ChildId, Hosted>,
    by_serial: BTreeMap<u64, ChildId>,
    /// Those that have ended before their start was known here.
    early: BTreeMap<u64, ExitReason>,
    starting: usize,
    pub(super) limits: BTreeSet<(Instant, ChildId)>,
    pub(super) releases: Releases,
    clock: WallClock,
}

pub(super) struct Hosted {
    pub(super) plan: ChildPlan,
    pub(super) generation: u64,
    view: u32,
    pub(super) state: State,
    pub(super) ending: Option<Ending>,
    /// It is to run elsewhere.
    pub(super) release: Option<Release>,
    /// What it has left.
    pub(super) left: Left,
    /// Whether it has turned out to run elsewhere already, if it was to be taken over.
    behind: Option<Behind>,
    /// What was here of an earlier generation; it is again if this one does not start.
    earlier: Option<Box<Self>>,
}

pub(super) enum State {
    Starting(Vec<Answer<Result<(), HostRefusal>>>),
    Running(u64),
    Ended,
}

/// It is to end.
pub(super) struct Ending {
    reason: ExitReason,
    pub(super) answers: Vec<Answer<()>>,
    killed: bool,
}

impl Ending {
    pub(super) fn new(reason: ExitReason) -> Self {
        Self { reason, answers: Vec::new(), killed: false }
    }
}

/// How a start has ended.
pub(super) struct Started {
    child: ChildId,
    generation: u64,
    result: Result<Pid, SpawnError>,
}

impl Host {
    pub(super) fn new(clock: WallClock) -> Self {
        Self {
            children: BTreeMap::new(),
            by_serial: BTreeMap::new(),
            early: BTreeMap::new(),
            starting: 0,
            limits: BTreeSet::new(),
            releases: Releases::default(),
            clock,
        }
    }

    /// Somebody wants a child to run here; what is to be awaited for that, if it is new. It begins when it
    /// has been taken over, if that is given.
    pub(super) fn host(
        &mut self,
        ctx: &RawContext,
        ask: HostChild,
        taking: Option<Taking>,
        answer: Answer<Result<(), HostRefusal>>,
    ) -> Option<impl Future<Output = Started> + Send + use<>> {
        if ask.on != ctx.runtime().id() {
            let detail = format!("this is {}", ctx.runtime().id());
            answer.send(Err(HostRefusal::No { detail }));
            return None;
        }
        let newest = newest(ctx, &ask.child);
        if ask.generation < newest {
            tracing::warn!(child = %ask.child, generation = ask.generation, newest, "an old order, refused");
            answer.send(Err(HostRefusal::Stale { newest }));
            return None;
        }
        if self.has_lost(ctx, &ask.child) {
            // It keeps what the child has left for the node that may run it.
            let detail = "another node is to run it".to_owned();
            answer.send(Err(HostRefusal::No { detail }));
            return None;
        }
        let plan = self.begin(&ask, answer)?;
        self.starting += 1;
        let (before, behind) = taking.map(|taking| (taking.before, taking.behind)).unzip();
        let hosted = HostedChild { child: ask.child.clone(), mode: plan.mode, before };
        let (started, left) = ctx.spawn_child_link(plan.kind.as_str(), plan.args.clone(), hosted);
        if let Some(hosted) = self.children.get_mut(&ask.child) {
            hosted.left = left;
            hosted.behind = behind;
        }
        let (child, generation) = (ask.child, ask.generation);
        Some(async move { Started { child, generation, result: started.await } })
    }

    /// Notes it; what is to be started, if it is new.
    fn begin(
        &mut self,
        ask: &HostChild,
        answer: Answer<Result<(), HostRefusal>>,
    ) -> Option<ChildPlan> {
        match self.children.get_mut(&ask.child) {
            Some(hosted) if hosted.generation == ask.generation => match &mut hosted.state {
                State::Starting(answers) => answers.push(answer),
                State::Running(_) | State::Ended => answer.send(Ok(())),
            },
            Some(hosted) if !matches!(hosted.state, State::Ended) => {
                let generation = hosted.generation;
                answer.send(Err(HostRefusal::Other { generation }));
            }
            _ => {
                let earlier = self.children.remove(&ask.child).map(Box::new);
                let hosted = Hosted {
                    plan: ask.plan.clone(),
                    generation: ask.generation,
                    view: ask.view,
                    state: State::Starting(vec![answer]),
                    ending: None,
                    release: None,
                    left: Left::default(),
                    behind: None,
                    earlier,
                };
                self.releases.forget(&ask.child);
                self.children.insert(ask.child.clone(), hosted);
                return Some(ask.plan.clone());
            }
        }
        None
    }

    /// A start is over.
    pub(super) fn started(&mut self, ctx: &RawContext, started: Started) {
        let Started { child, generation, result } = started;
        self.starting -= 1;
        let current = self.children.get_mut(&child).filter(|h| h.generation == generation);
        let hosted = current.expect("it stays until its start is over");
        let State::Starting(answers) = std::mem::replace(&mut hosted.state, State::Ended) else {
            unreachable!("a start is over once");
        };
        let elsewhere = hosted.behind.take().and_then(|behind| behind.get().copied());
        let refused = match (&result, elsewhere) {
            (Err(_), Some(generation)) => Some(HostRefusal::Other { generation }),
            (Err(error), None)
                if matches!(error, SpawnError::Stopping | SpawnError::Overloaded)
                    || may_not_run(ctx, &hosted.plan, &child) =>
            {
                Some(HostRefusal::No { detail: error.to_string() })
            }
            _ => None,
        };
        if let Some(refusal) = refused {
            self.not_started(ctx, &child);
            for answer in answers {
                answer.send(Err(refusal.clone()));
            }
            return;
        }
        hosted.earlier = None;
        let (serial, ended) = match result {
            Ok(pid) => match self.early.remove(&pid.serial) {
                None => {
                    hosted.state = State::Running(pid.serial);
                    self.by_serial.insert(pid.serial, child.clone());
                    (pid.serial, None)
                }
                Some(reason) => (pid.serial, Some(ChildEnd::from(&reason))),
            },
            Err(SpawnError::Ignored) => (0, Some(ChildEnd::from(&ExitReason::Normal))),
            Err(SpawnError::Start(reason)) => (0, Some(ChildEnd::from(&reason))),
            Err(error) => (0, Some(ChildEnd::from(&ExitReason::error(error.to_string())))),
        };
        if self.starting == 0 {
            self.early.clear();
        }
        let run = ChildRun {
            generation,
            serial,
            view: hosted.view,
            since_ms: millis(&self.clock),
            state: ended.map_or(RunState::Live, RunState::Ended),
        };
        let (is_ended, ending) = (!run.is_live(), hosted.ending.is_some());
        let releasing = hosted.release.is_some();
        say(ctx, &child, Some(run));
        for answer in answers {
            answer.send(Ok(()));
        }
        match (is_ended, ending) {
            (true, true) => self.ended_as_asked(ctx, &child),
            (false, true) => self.ask_to_end(ctx, &child),
            (true, false) if releasing => self.has_let_go(ctx, &child),
            (false, false) if releasing => self.retire(ctx, &child),
            (_, false) => {}
        }
    }

    /// What was here before is here again, unless it is to end. Whoever has asked for what has not
    /// started is told by the dropped answers, and asks again.
    fn not_started(&mut self, ctx: &RawContext, child: &ChildId) {
        let Some(hosted) = self.children.remove(child) else { return };
        match (hosted.ending, hosted.earlier) {
            (None, None) => ctx.runtime().child_closed(child),
            (None, Some(earlier)) => {
                if earlier.release.is_some() {
                    self.releases.linger(child);
                }
                match earlier.release.as_ref().and_then(|release| release.to) {
                    Some(to) => ctx.runtime().child_moves(child, to.name),
                    None => ctx.runtime().child_closed(child),
                }
                self.children.insert(child.clone(), *earlier);
                self.seen(ctx, child);
            }
            (Some(ending), _) => {
                ctx.runtime().child_closed(child);
                say(ctx, child, None);
                ending.answers.into_iter().for_each(|answer| answer.send(()));
            }
        }
    }

    /// A process that this one is linked to has ended; whether it was a child.
    pub(super) fn link_down(&mut self, ctx: &RawContext, down: LinkDown) -> bool {
        let Some(child) = self.by_serial.remove(&down.pid.serial) else {
            if self.starting > 0 {
                self.early.insert(down.pid.serial, down.reason);
            }
            return false;
        };
        let hosted = self.children.get_mut(&child).expect("its serial was known");
        hosted.state = State::Ended;
        if self.is_released(ctx, &child) {
            self.has_let_go(ctx, &child);
            return true;
        }
        let hosted = &self.children[&child];
        if hosted.ending.is_some() || may_not_run(ctx, &hosted.plan, &child) {
            self.ended_as_asked(ctx, &child);
        } else if let Some(run) = ctx.runtime().children().own_run(&child) {
            let state = RunState::Ended(ChildEnd::from(&down.reason));
            say(ctx, &child, Some(ChildRun { state, ..run }));
        }
        true
    }

    /// Somebody wants a child not to run here any more.
    pub(super) fn end(&mut self, ctx: &RawContext, ask: &EndChild, answer: Answer<()>) {
        let current = self.children.get_mut(&ask.child);
        let Some(hosted) = current.filter(|hosted| hosted.generation <= ask.generation) else {
            return answer.send(());
        };
        let reason = match ask.kept {
            None => ExitReason::Shutdown,
            Some(kept) => {
                let why =
                    format!("the cluster was split and {} ran twice; {kept} is kept", ask.child);
                ExitReason::ShutdownWith(why.into())
            }
        };
        match &mut hosted.ending {
            // It has been asked already.
            Some(ending) => return ending.answers.push(answer),
            None => {
                hosted.ending = Some(Ending { reason, answers: vec![answer], killed: false });
            }
        }
        match hosted.state {
            State::Starting(_) => {}
            State::Running(_) => self.ask_to_end(ctx, &ask.child),
            State::Ended => self.ended_as_asked(ctx, &ask.child),
        }
    }

    pub(super) fn ask_to_end(&mut self, ctx: &RawContext, child: &ChildId) {
        let Some(Hosted { plan, state: State::Running(serial), ending: Some(ending), .. }) =
            self.children.get_mut(child)
        else {
            return;
        };
        let pid = ctx.runtime().id().pid(*serial);
        let (reason, limit) = match plan.shutdown {
            Shutdown::BrutalKill => (ExitReason::Kill, Some(KILL_WAIT)),
            Shutdown::Timeout(limit) => (ending.reason.clone(), Some(limit)),
            Shutdown::Infinity => (ending.reason.clone(), None),
        };
        ending.killed = reason == ExitReason::Kill;
        // What is too far away to be told is not waited for.
        let limit = limit.and_then(|limit| Instant::now().checked_add(limit));
        limit.map(|limit| self.limits.insert((limit, child.clone())));
        ctx.runtime().exit(pid, reason);
    }

    pub(super) fn ended_as_asked(&mut self, ctx: &RawContext, child: &ChildId) {
        say(ctx, child, None);
        self.releases.forget(child);
        ctx.runtime().child_closed(child);
        let hosted = self.children.remove(child);
        let answers = hosted.and_then(|hosted| hosted.ending).into_iter().flat_map(|e| e.answers);
        answers.for_each(|answer| answer.send(()));
        self.limits.retain(|(_, limited)| limited != child);
    }

    /// When [`overdue`](Self::overdue) is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.limits.first().map(|(at, _)| *at).into_iter().chain(self.releases.due()).min()
    }

    /// Kills those that have not ended in time, and does what else is due.
    pub(super) fn overdue(&mut self, ctx: &RawContext) {
        self.tend(ctx);
        let now = Instant::now();
        while self.limits.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, child)) = self.limits.pop_first() else { return };
            let Some(Hosted { state: State::Running(serial), ending: Some(ending), .. }) =
                self.children.get_mut(&child)
            else {
                continue;
            };
            let pid = ctx.runtime().id().pid(*serial);
            if ending.killed {
                tracing::error!(%child, %pid, "child does not yield and cannot be ended");
                self.by_serial.remove(serial);
                self.ended_as_asked(ctx, &child);
            } else {
                ending.killed = true;
                ctx.runtime().exit(pid, ExitReason::Kill);
                self.limits.insert((now + KILL_WAIT, child));
            }
        }
    }

    /// Ends all of them; those that wait for a start are ended when it is over.
    pub(super) fn end_all(&mut self, ctx: &RawContext) {
        let all: Vec<_> = self.children.keys().cloned().collect();
        for child in all {
            let Some(hosted) = self.children.get_mut(&child) else { continue };
            if hosted.ending.is_none() {
                let reason = ExitReason::Shutdown;
                hosted.ending = Some(Ending { reason, answers: Vec::new(), killed: false });
            }
            match hosted.state {
                State::Starting(_) => {}
                State::Running(_) => self.ask_to_end(ctx, &child),
                State::Ended => self.ended_as_asked(ctx, &child),
            }
        }
    }

    /// Whether one of them runs. Those that have not begun end with this process, being linked.
    pub(super) fn has_running(&self) -> bool {
        !self.by_serial.is_empty()
    }
}

/// The oldest generation of a child that may be started, as far as this node knows: an order may be
/// late, from an owner that was frozen or far away, when others have decided since.
fn newest(ctx: &RawContext, child: &ChildId) -> u64 {
    let runtime = ctx.runtime();
    let Some(record) = runtime.children().see(child, runtime.id()).record else { return 0 };
    match record.placed.filter(|_| record.desired == Desired::Run) {
        Some(placed) => placed.generation,
        None => record.generation.saturating_add(1),
    }
}

/// Whether a child is exclusive, and this node may not run it: then that it ends is no fault of it.
fn may_not_run(ctx: &RawContext, plan: &ChildPlan, child: &ChildId) -> bool {
    plan.mode == Mode::Exclusive
        && !matches!(ctx.runtime().holding(&ring_key(child)), Holding::Yes { .. })
}

/// Says what runs of a child here.
pub(super) fn say(ctx: &RawContext, child: &ChildId, run: Option<ChildRun>) {
    if let Err(error) = ctx.runtime().children().set_run(child, run) {
        // It runs all the same, but its owner does not see it and will ask again and again.
        tracing::error!(%child, %error, "nobody can be told of a child");
    }
}
