//! What `purlin.children` is asked: by programs and the command line of this node, and by its like on
//! others.

use std::collections::BTreeMap;
use std::sync::Weak;

use purlin_cluster::Ring;
use purlin_proto::admin::children::{
    CHILDREN_PAGE, ClusterChildError, ClusterChildInfo, ClusterChildState, ClusterChildWhy,
    EndChild, GetClusterChild, HandOverChildren, HandedOver, HostChild, HostRefusal, KeepChildren,
    ListClusterChildren, ReleaseChild, RestartClusterChild, StartClusterChild, StartedChild,
    StopClusterChild, TakeChild,
};
use purlin_proto::child::{Cause, ChildPlan, ChildRecord, Desired, Mode};
use purlin_proto::{ChildId, NodeId, NodeName};
use purlin_runtime::{Answer, ChildSeen, Untyped};

use super::WAITING;
use super::owner::{owner_of, ring_key};
use super::past::{describe, why};
use super::process::{Children, Done, at};
use super::take::{Taker, let_go, take_back};
use crate::builder::millis;
use crate::node::Shared;
use crate::system::{reply, take};

/// Something that only the owner of a child can do.
pub(super) struct Request {
    child: ChildId,
    what: Wish,
    forwarded: bool,
}

enum Wish {
    Start(Box<ChildPlan>, Answer<Result<StartedChild, ClusterChildError>>),
    Stop(Answer<Result<(), ClusterChildError>>),
    Restart(Answer<Result<(), ClusterChildError>>),
}

impl Wish {
    fn refuse(self, error: ClusterChildError) {
        match self {
            Self::Start(_, answer) => answer.send(Err(error)),
            Self::Stop(answer) | Self::Restart(answer) => answer.send(Err(error)),
        }
    }

    fn done(self) {
        match self {
            Self::Start(_, answer) => answer.send(Ok(StartedChild::New)),
            Self::Stop(answer) | Self::Restart(answer) => answer.send(Ok(())),
        }
    }
}

/// Requests that wait.
#[derive(Default)]
pub(super) struct Waiting {
    /// Until all nodes have handed over.
    pub(super) held: Vec<Request>,
    /// Until there are copies of this version.
    open: BTreeMap<ChildId, Vec<(u64, Wish)>>,
    count: usize,
}

impl Waiting {
    pub(super) fn has(&self, child: &ChildId) -> bool {
        self.open.contains_key(child)
    }

    fn wait(&mut self, child: &ChildId, version: u64, wish: Wish) {
        if self.count >= WAITING {
            return wish.refuse(ClusterChildError::Overloaded);
        }
        self.count += 1;
        self.open.entry(child.clone()).or_default().push((version, wish));
    }

    /// A version has its copies.
    pub(super) fn copied(&mut self, child: &ChildId, version: u64) {
        let Some(open) = self.open.remove(child) else { return };
        let (done, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|(v, _)| *v <= version);
        self.count -= done.len();
        for (_, wish) in done {
            wish.done();
        }
        if !rest.is_empty() {
            self.open.insert(child.clone(), rest);
        }
    }

    /// Another node decides about it now.
    pub(super) fn refuse(&mut self, child: &ChildId, node: NodeName) {
        let open = self.open.remove(child).unwrap_or_default();
        self.count -= open.len();
        for (_, wish) in open {
            wish.refuse(ClusterChildError::NotOwner { node });
        }
    }
}

impl Children {
    pub(super) fn asked(&mut self, message: Untyped) {
        let Some(node) = self.node.upgrade() else { return };
        let draining = node.directory.is_draining(node.runtime.name());
        let message = take(Some(message), |ask: HostChild, answer| {
            self.host_child(draining, ask, None, answer);
        });
        let message = take(message, |ask: TakeChild, answer| {
            self.host_child(draining, ask.host, Some(ask.from), answer);
        });
        let message = take(message, |ask: ReleaseChild, answer| {
            self.host.release(&self.ctx, ask, answer);
        });
        let message = take(message, |ask: EndChild, answer| self.host.end(&self.ctx, &ask, answer));
        let message = reply(message, |ask: KeepChildren| {
            for (child, record) in ask.records {
                node.runtime.children().keep(&child, record);
            }
        });
        let message = reply(message, |ask: HandOverChildren| self.hand_over(&node, &ask));
        let message = take(message, |ask: StartClusterChild, answer| {
            let what = Wish::Start(Box::new(ask.plan), answer);
            self.request(Request { child: ask.child, what, forwarded: ask.forwarded });
        });
        let message = take(message, |ask: StopClusterChild, answer| {
            let what = Wish::Stop(answer);
            self.request(Request { child: ask.child, what, forwarded: ask.forwarded });
        });
        let message = take(message, |ask: RestartClusterChild, answer| {
            let what = Wish::Restart(answer);
            self.request(Request { child: ask.child, what, forwarded: ask.forwarded });
        });
        let message = reply(message, |ask: ListClusterChildren| list(&node, &ask));
        let message = reply(message, |ask: GetClusterChild| self.why(&node, &ask.child));
        if let Some(message) = message {
            message.refuse("purlin.children");
        }
    }

    fn host_child(
        &mut self,
        draining: bool,
        ask: HostChild,
        from: Option<NodeId>,
        answer: Answer<Result<(), HostRefusal>>,
    ) {
        // An exclusive one that was placed here may run nowhere else yet.
        if draining && ask.plan.mode == Mode::Available {
            let detail = "the node is about to leave".to_owned();
            return answer.send(Err(HostRefusal::No { detail }));
        }
        let taking = from.map(|from| {
            let (node, us) = (Weak::clone(&self.node), self.ctx.runtime().id());
            let taker = Taker { child: ask.child.clone(), us, generation: ask.generation };
            if from == us {
                let (has, left) = self.host.left_here(&ask.child);
                return take_back(node, has, left, taker);
            }
            let_go(node, from, taker)
        });
        if let Some(start) = self.host.host(&self.ctx, ask, taking, answer) {
            self.tasks.spawn(async move { Done::Started(start.await) });
        }
    }

    /// Nothing new is begun; whoever asks for something else has no answer.
    pub(super) fn asked_while_stopping(&mut self, message: Untyped) {
        let message = reply(Some(message), |_: HostChild| {
            Err(HostRefusal::No { detail: "the node is stopping".to_owned() })
        });
        let message = reply(message, |_: TakeChild| {
            Err(HostRefusal::No { detail: "the node is stopping".to_owned() })
        });
        let message = take(message, |ask: ReleaseChild, answer| {
            self.host.release(&self.ctx, ask, answer);
        });
        take(message, |ask: EndChild, answer| self.host.end(&self.ctx, &ask, answer));
    }

    fn hand_over(&self, node: &Shared, ask: &HandOverChildren) -> HandedOver {
        let (ring, children, us) =
            (node.directory.ring(), node.runtime.children(), node.runtime.id());
        let has_read = node.directory.find(ask.to).is_some_and(|place| place.has_read);
        if !has_read || !ring.members().contains(&ask.to) {
            return HandedOver::NotYet;
        }
        // Whoever tells it: that node may have been lost with the one that asks, and not be missed yet.
        let theirs = |child: &ChildId| owner_of(&ring, child, us.name) == ask.to;
        let all = children.after(ask.after.as_ref(), usize::MAX);
        let mut page = Vec::new();
        for child in all.into_iter().filter(theirs) {
            if self.owner.is_busy(&child) || self.owner.copies.has(&child) {
                return HandedOver::NotYet;
            }
            page.extend(children.see(&child, us).record.map(|record| (child, record)));
            if page.len() >= CHILDREN_PAGE {
                break;
            }
        }
        HandedOver::Page(page)
    }

    pub(super) fn request(&mut self, request: Request) {
        let Some(node) = self.node.upgrade() else { return };
        let ring = node.directory.ring();
        let us = node.runtime.name();
        let owner = owner_of(&ring, &request.child, us);
        if owner != us {
            return match request.forwarded {
                true => request.what.refuse(ClusterChildError::NotOwner { node: us }),
                false => self.forward(&node, owner, request),
            };
        }
        if !self.owner.is_settled() {
            return match self.owner.waiting.held.len() < WAITING {
                true => self.owner.waiting.held.push(request),
                false => request.what.refuse(ClusterChildError::Overloaded),
            };
        }
        self.decide_request(&node, &ring, request);
    }

    fn forward(&mut self, node: &Shared, owner: NodeName, request: Request) {
        if self.tasks.len() >= WAITING {
            return request.what.refuse(ClusterChildError::Overloaded);
        }
        let (runtime, to, child) = (node.runtime.clone(), at(owner), request.child);
        let forwarded = true;
        self.tasks.spawn(async move {
            match request.what {
                Wish::Start(plan, answer) => {
                    let asked = StartClusterChild { child, plan: *plan, forwarded };
                    let answered = runtime.call(to, asked).await;
                    answer.send(answered.unwrap_or_else(|e| Err(ClusterChildError::NoAnswer(e))));
                }
                Wish::Stop(answer) => {
                    let answered = runtime.call(to, StopClusterChild { child, forwarded }).await;
                    answer.send(answered.unwrap_or_else(|e| Err(ClusterChildError::NoAnswer(e))));
                }
                Wish::Restart(answer) => {
                    let asked = RestartClusterChild { child, forwarded };
                    let answered = runtime.call(to, asked).await;
                    answer.send(answered.unwrap_or_else(|e| Err(ClusterChildError::NoAnswer(e))));
                }
            }
            Done::Forwarded
        });
    }

    fn decide_request(&mut self, node: &Shared, ring: &Ring, request: Request) {
        let Request { child, what, .. } = request;
        let seen = node.runtime.children().see(&child, node.runtime.id());
        let known = seen.record.as_ref();
        let known = known.filter(|record| !matches!(record.desired, Desired::Stopped(_)));
        let next = match &what {
            Wish::Start(plan, _) => start(&child, plan, known, &seen, node),
            Wish::Stop(_) => match known {
                None => Err(Verdict::Refused(ClusterChildError::NotFound)),
                Some(record) => {
                    let desired = Desired::Stopped(millis(&node.clock));
                    Ok(ChildRecord { desired, ..record.clone() })
                }
            },
            Wish::Restart(_) => match known {
                None => Err(Verdict::Refused(ClusterChildError::NotFound)),
                Some(ChildRecord { desired: Desired::Run, .. }) => {
                    Err(Verdict::Refused(ClusterChildError::Running))
                }
                Some(record) => Ok(afresh(record.clone())),
            },
        };
        match next {
            Err(Verdict::Refused(error)) => what.refuse(error),
            Err(Verdict::Present(state)) => {
                if let Wish::Start(_, answer) = what {
                    answer.send(Ok(StartedChild::Present(state)));
                }
            }
            Ok(mut record) => {
                (record.version, record.by) =
                    (record.version.saturating_add(1), node.runtime.name());
                let version = record.version;
                node.runtime.children().keep(&child, record.clone());
                if node.runtime.children().tell(&child).is_err() {
                    node.runtime.children().forget(&child);
                    return what.refuse(ClusterChildError::Full);
                }
                self.owner.waiting.wait(&child, version, what);
                match record.desired {
                    // What comes next, its place, has the same copies.
                    Desired::Run => self.owner.look_at(child),
                    _ => self.write(node, ring, &child, record),
                }
            }
        }
    }

    fn why(&self, node: &Shared, child: &ChildId) -> Option<ClusterChildWhy> {
        let seen = node.runtime.children().see(child, node.runtime.id());
        let record = seen.record.as_ref()?;
        let placement = record.plan.placement.to_string();
        let (seen_by, events) = (node.runtime.name(), self.past.events(child));
        Some(ClusterChildWhy { info: info(node, child, &seen)?, placement, seen_by, events })
    }
}

/// Why a record does not change.
enum Verdict {
    Refused(ClusterChildError),
    Present(ClusterChildState),
}

fn start(
    child: &ChildId,
    plan: &ChildPlan,
    known: Option<&ChildRecord>,
    seen: &ChildSeen,
    node: &Shared,
) -> Result<ChildRecord, Verdict> {
    match known {
        Some(record) if record.plan == *plan => {
            return Err(Verdict::Present(state(record, seen)));
        }
        Some(_) => return Err(Verdict::Refused(ClusterChildError::Differs)),
        None => {}
    }
    plan.check(child).map_err(|detail| Verdict::Refused(ClusterChildError::Plan { detail }))?;
    let authority = || node.runtime.exclusive_owner(&ring_key(child)).is_some();
    if plan.mode == Mode::Exclusive && !authority() {
        return Err(Verdict::Refused(ClusterChildError::NoAuthority));
    }
    let new = ChildRecord {
        version: 0,
        by: node.runtime.name(),
        plan: plan.clone(),
        desired: Desired::Run,
        generation: 0,
        placed: None,
        cause: Cause::Asked,
        restarts: 0,
        crashes: Vec::new(),
        deaths: Vec::new(),
    };
    // One that was stopped goes on counting, so that what is left of it is told apart.
    Ok(match &seen.record {
        Some(stopped) => {
            let (version, generation) = (stopped.version, stopped.generation);
            ChildRecord { version, generation, ..new }
        }
        None => new,
    })
}

/// With nothing held against it.
fn afresh(record: ChildRecord) -> ChildRecord {
    ChildRecord {
        desired: Desired::Run,
        placed: None,
        cause: Cause::Asked,
        crashes: Vec::new(),
        deaths: Vec::new(),
        ..record
    }
}

fn list(node: &Shared, ask: &ListClusterChildren) -> Vec<ClusterChildInfo> {
    let children = node.runtime.children();
    let wanted = |child: &ChildId| ask.supervisor.as_ref().is_none_or(|s| child.supervisor == *s);
    let all = children.after(ask.after.as_ref(), usize::MAX).into_iter().filter(wanted);
    let known = |child: ChildId| info(node, &child, &children.see(&child, node.runtime.id()));
    all.filter_map(known).take(CHILDREN_PAGE).collect()
}

fn state(record: &ChildRecord, seen: &ChildSeen) -> ClusterChildState {
    let live = || seen.runs.iter().filter(|(_, run)| run.is_live());
    let there = record.placed.is_some_and(|placed| live().any(|(on, _)| *on == placed.node));
    // For a moment its old host says so as well, to send on what comes.
    let is_old = |on: NodeId| there && record.cause == Cause::Moved(on);
    let running = live().filter(|(on, _)| !is_old(*on)).count();
    match (&record.desired, running) {
        (Desired::Run, 0) => ClusterChildState::Starting,
        (Desired::Run, 1) => ClusterChildState::Running,
        (Desired::Run, _) => ClusterChildState::Twice,
        (Desired::Stopped(_), _) => ClusterChildState::Stopped,
        (Desired::Done(_), _) => ClusterChildState::Done,
        (Desired::GaveUp(_), _) => ClusterChildState::GaveUp,
        (Desired::Poison, _) => ClusterChildState::Poison,
    }
}

/// A child in a line; `None` if it was stopped and is gone.
fn info(node: &Shared, child: &ChildId, seen: &ChildSeen) -> Option<ClusterChildInfo> {
    let record = seen.record.as_ref()?;
    let live = seen.runs.iter().find(|(_, run)| run.is_live());
    if live.is_none() && matches!(record.desired, Desired::Stopped(_)) {
        return None;
    }
    let pid = node.runtime.whereis_child(child);
    let since_ms = live.map(|(_, run)| millis(&node.clock).saturating_sub(run.since_ms));
    let owner = owner_of(&node.directory.ring(), child, node.runtime.name());
    Some(ClusterChildInfo {
        child: child.clone(),
        kind: record.plan.kind.to_string(),
        state: state(record, seen),
        pid,
        node: pid.map(|pid| pid.node.name).or(record.placed.map(|placed| placed.node.name)),
        since_s: std::time::Duration::from_millis(since_ms.unwrap_or(0)).as_secs_f64(),
        restarts: record.restarts,
        generation: record.generation,
        mode: record.plan.mode,
        owner,
        why: match record.desired {
            Desired::Run => why(&record.cause),
            _ => describe(record),
        },
    })
}
