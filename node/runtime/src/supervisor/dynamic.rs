//! Supervisors of children that come and go (OTP: `simple_one_for_one`, Elixir:
//! `DynamicSupervisor`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::supervision::{ChildCounts, ChildError, ChildInfo, ChildKey, ChildState};
use purlin_proto::{ExitReason, LinkDown, Pid, SpawnError};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::hand::{Hand, Next};
use super::history::{Exit, History};
use super::intensity::Intensity;
use super::process::SUPERVISOR;
use super::reference::{Asked, SupervisorRef};
use super::spec::{AutoShutdown, ChildSpec};
use crate::actor::{Interrupt, Outcome};
use crate::process::Process;
use crate::raw::{RawContext, Received};
use crate::runtime::Runtime;
use crate::spawn::SpawnOptions;

/// A supervisor that has no children when it starts, any number later, each known by its pid alone.
///
/// Children are restarted one by one, as their specs say, and forgotten when they end for good. When
/// it ends all are stopped at once. Starting, ending and finding a child takes the same time however
/// many there are.
///
/// ```
/// # use purlin_runtime::{Actor, ChildSpec, Context, Outcome, Restart, Runtime};
/// use purlin_runtime::DynamicSupervisor;
/// # struct Session;
/// # impl Actor for Session {
/// #     const KIND: &'static str = "session";
/// #     type Args = u32;
/// #     type Messages = ();
/// #     async fn start(_: u32, _: &mut Context<Self>) -> Outcome<Self> { Ok(Self) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::local("a".into());
/// let sessions = runtime.supervise_dynamic(DynamicSupervisor::new().max_children(1_000))?;
/// let spec = ChildSpec::actor::<Session>("session", 7).restart(Restart::Temporary);
/// let pid = sessions.start_child(spec).await?;
/// assert!(pid.is_some_and(|pid| runtime.is_alive(pid)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct DynamicSupervisor {
    intensity: usize,
    period: Duration,
    max_children: usize,
    backoff: Option<Backoff>,
}

impl Default for DynamicSupervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl DynamicSupervisor {
    /// One that allows three restarts in five seconds, as Elixir's does, and any number of children.
    pub const fn new() -> Self {
        let period = Duration::from_secs(5);
        Self { intensity: 3, period, max_children: usize::MAX, backoff: None }
    }

    /// Allows at most `restarts` within `period`, of all children together; one more and it gives
    /// up.
    #[must_use]
    pub const fn intensity(mut self, restarts: usize, period: Duration) -> Self {
        (self.intensity, self.period) = (restarts, period);
        self
    }

    /// At most so many children, those that wait for a restart included.
    #[must_use]
    pub const fn max_children(mut self, most: usize) -> Self {
        self.max_children = most;
        self
    }

    /// Waits before each restart; does not unless said otherwise.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }
}

impl Runtime {
    /// Starts a dynamic supervisor.
    pub fn supervise_dynamic(
        &self,
        supervisor: DynamicSupervisor,
    ) -> Result<SupervisorRef, SpawnError> {
        let process = start(self, supervisor, SpawnOptions::default())?;
        Ok(SupervisorRef::from_pid(self, process.pid()))
    }
}

pub(super) fn start(
    runtime: &Runtime,
    spec: DynamicSupervisor,
    options: SpawnOptions,
) -> Result<Arc<Process>, SpawnError> {
    let parent = options.parent;
    runtime.launch_raw(&SUPERVISOR, options, true, move |ctx| Dynamic::new(spec, ctx, parent).run())
}

struct Dynamic {
    hand: Hand,
    spec: DynamicSupervisor,
    parent: Option<Pid>,
    intensity: Intensity,
    /// By serial, the order of starts; with the pid that each was started under.
    running: BTreeMap<u64, (Pid, Child)>,
    /// By when they are due.
    waiting: BTreeMap<(Instant, u64), (Child, ExitReason)>,
}

struct Child {
    spec: ChildSpec,
    history: History,
    started: Instant,
    crashes: u32,
}

struct GiveUp(ExitReason);

impl Dynamic {
    fn new(spec: DynamicSupervisor, ctx: RawContext, parent: Option<Pid>) -> Self {
        Self {
            hand: Hand::new(ctx),
            parent,
            intensity: Intensity::new(spec.intensity, spec.period),
            spec,
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    async fn run(mut self) -> Outcome {
        loop {
            let due = self.waiting.keys().next().map(|(due, _)| *due);
            let done = match self.hand.next(due).await? {
                Next::Received(received) => self.handle(received).await?,
                Next::Due => match self.waiting.pop_first() {
                    Some((_, (child, reason))) => self.restart(child, reason).await?,
                    None => Ok(()),
                },
            };
            if let Err(GiveUp(reason)) = done {
                return Err(Interrupt::exit(reason));
            }
        }
    }

    async fn handle(&mut self, received: Received) -> Outcome<Result<(), GiveUp>> {
        match received {
            Received::LinkDown(LinkDown { pid, reason }) => {
                if let Some((pid, child)) = self.take(pid) {
                    return self.child_ended(pid, child, reason).await;
                }
                if self.hand.is_parent(self.parent, pid) {
                    self.stop_all().await?;
                    return Ok(Err(GiveUp(reason)));
                }
            }
            Received::Exit { reason, .. } => {
                self.stop_all().await?;
                return Ok(Err(GiveUp(reason)));
            }
            Received::Message(message) => {
                if let Some(asked) = Asked::of(message) {
                    self.answer(asked).await?;
                }
            }
            Received::Down(_)
            | Received::Node(_)
            | Received::Group(_)
            | Received::NameConflict(_) => {}
        }
        Ok(Ok(()))
    }

    /// Takes out the child that has this pid, under whichever creation of the node.
    fn take(&mut self, pid: Pid) -> Option<(Pid, Child)> {
        let serial = self.hand.ctx.runtime().own_serial(&pid)?;
        self.running.remove(&serial)
    }

    async fn child_ended(
        &mut self,
        pid: Pid,
        mut child: Child,
        reason: ExitReason,
    ) -> Outcome<Result<(), GiveUp>> {
        if !child.spec.restart.follows(&reason) {
            return Ok(Ok(()));
        }
        let lived = child.started.elapsed();
        let (pid, at) = (Some(pid), Instant::now());
        child.history.ended(Exit { pid, reason: reason.clone(), at, lived });
        match self.spec.backoff {
            None => self.restart(child, reason).await,
            Some(backoff) => {
                child.crashes = backoff.crashes(child.crashes, lived);
                self.put_off(child, reason);
                Ok(Ok(()))
            }
        }
    }

    fn put_off(&mut self, child: Child, reason: ExitReason) {
        let number = self.hand.ctx.runtime().reference().0;
        let delay = self.spec.backoff.map(|backoff| backoff.delay(child.crashes, number << 20));
        let due = Instant::now() + delay.unwrap_or_default();
        self.waiting.insert((due, number), (child, reason));
    }

    async fn restart(
        &mut self,
        mut child: Child,
        reason: ExitReason,
    ) -> Outcome<Result<(), GiveUp>> {
        if !self.intensity.allows(Instant::now()) {
            tracing::error!(
                supervisor = %self.hand.ctx.pid(), child = %child.spec.id, %reason,
                "too many restarts, the supervisor gives up"
            );
            self.stop_all().await?;
            return Ok(Err(GiveUp(ExitReason::Shutdown)));
        }
        let restarts = child.history.restarted();
        child.started = Instant::now();
        match self.hand.start(&child.spec, &child.history).await {
            Ok(Some(pid)) => {
                self.hand.report_restart(&child.spec.id, pid, restarts, &reason);
                self.running.insert(pid.serial, (pid, child));
            }
            Ok(None) => {}
            Err(error) => {
                let reason = ExitReason::error(error.to_string());
                let (at, lived) = (Instant::now(), Duration::ZERO);
                child.history.ended(Exit { pid: None, reason: reason.clone(), at, lived });
                child.crashes = child.crashes.saturating_add(1);
                self.put_off(child, reason);
            }
        }
        Ok(Ok(()))
    }

    async fn stop_all(&mut self) -> Outcome {
        self.waiting.clear();
        let running = std::mem::take(&mut self.running);
        let all = running.into_values().map(|(pid, child)| (pid, child.spec.shutdown));
        self.hand.stop_all(all.collect()).await
    }

    async fn answer(&mut self, asked: Asked) -> Outcome {
        match asked {
            Asked::Start(start) => {
                let started = self.add(start.child).await;
                // Whoever asked may have gone; the child stays.
                drop(start.answer.send(started));
            }
            Asked::Terminate(ChildKey::Pid(pid), to) => match self.take(pid) {
                Some((pid, child)) => {
                    self.hand.stop(pid, child.spec.shutdown).await?;
                    to.send(Ok(()));
                }
                None => to.send(Err(ChildError::NotFound)),
            },
            Asked::Terminate(ChildKey::Id(_), to) | Asked::Delete(_, to) => {
                to.send(Err(ChildError::Dynamic));
            }
            Asked::Restart(_, to) => to.send(Err(ChildError::Dynamic)),
            Asked::Which(to) => to.send(self.which()),
            Asked::Count(to) => to.send(self.count()),
        }
        Ok(())
    }

    async fn add(&mut self, spec: ChildSpec) -> Result<Option<Pid>, ChildError> {
        let limit = self.spec.max_children;
        if self.running.len() + self.waiting.len() >= limit {
            return Err(ChildError::MaxChildren { limit });
        }
        spec.check(AutoShutdown::Never).map_err(|detail| ChildError::Spec { detail })?;
        let (history, started) = (History::default(), Instant::now());
        let pid = self.hand.start(&spec, &history).await.map_err(ChildError::Start)?;
        if let Some(pid) = pid {
            let child = Child { spec, history, started, crashes: 0 };
            self.running.insert(pid.serial, (pid, child));
        }
        Ok(pid)
    }

    fn which(&self) -> Vec<ChildInfo> {
        let waiting = self.waiting.values().map(|(child, _)| (None, ChildState::Restarting, child));
        let running = self.running.values().rev();
        let running = running.map(|(pid, child)| (Some(*pid), ChildState::Running, child));
        let info = |(pid, state, child): (_, _, &Child)| ChildInfo {
            id: None,
            pid,
            state,
            supervisor: child.spec.is_supervisor,
            restarts: child.history.restarts(),
            exits: child.history.exits(),
        };
        waiting.chain(running).map(info).collect()
    }

    fn count(&self) -> ChildCounts {
        let waiting = self.waiting.values().map(|(child, _)| child);
        let running = self.running.values().map(|(_, child)| child);
        let supervisors = running.chain(waiting).filter(|child| child.spec.is_supervisor).count();
        let specs = self.running.len() + self.waiting.len();
        ChildCounts {
            specs,
            active: self.running.len(),
            restarting: self.waiting.len(),
            supervisors,
            workers: specs - supervisors,
        }
    }
}
