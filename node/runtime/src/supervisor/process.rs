//! The process of a supervisor with a list of children.
//!
//! A raw process that traps exits. A restart that has to wait, for its backoff or because the try
//! before has failed, lies among the pending ones; meanwhile the supervisor answers and does
//! whatever else comes (OTP: a failed restart is a message to itself).

use std::sync::Arc;
use std::time::Duration;

use purlin_proto::supervision::{ChildCounts, ChildError, ChildInfo, ChildKey, ChildState};
use purlin_proto::{ExitReason, LinkDown, Pid, SpawnError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Restart;
use super::backoff::Backoff;
use super::hand::{Hand, Next};
use super::history::{Exit, History};
use super::intensity::Intensity;
use super::reference::Asked;
use super::spec::{AutoShutdown, ChildSpec, Strategy, Supervisor};
use crate::actor::{Interrupt, Outcome};
use crate::process::Process;
use crate::raw::{RawContext, Received};
use crate::runtime::Runtime;
use crate::spawn::{RawKind, SpawnOptions};

pub(super) static SUPERVISOR: RawKind = RawKind::new("supervisor");

/// Starts a supervisor; returns when all its children have started.
pub(crate) async fn start(
    runtime: &Runtime,
    spec: Supervisor,
    options: SpawnOptions,
) -> Result<Arc<Process>, SpawnError> {
    spec.check().map_err(|detail| SpawnError::Start(ExitReason::error(detail)))?;
    let (tell, told) = oneshot::channel();
    let parent = options.parent;
    let process = runtime.launch_raw(&SUPERVISOR, options, true, move |ctx| {
        Supervising::new(spec, ctx, parent).run(tell)
    })?;
    match told.await {
        Ok(Ok(())) => Ok(process),
        Ok(Err(reason)) => Err(SpawnError::Start(reason)),
        Err(_) => Err(SpawnError::Start(ExitReason::Killed)),
    }
}

struct Supervising {
    hand: Hand,
    parent: Option<Pid>,
    strategy: Strategy,
    intensity: Intensity,
    auto_shutdown: AutoShutdown,
    backoff: Option<Backoff>,
    children: Vec<Child>,
    /// Restarts that wait for their time.
    pending: Vec<Pending>,
}

struct Child {
    spec: ChildSpec,
    state: ChildState,
    pid: Option<Pid>,
    history: History,
    /// When its present or last process was started.
    started: Instant,
    /// Crashes in a row, for the backoff.
    crashes: u32,
}

struct Pending {
    due: Instant,
    id: Arc<str>,
    reason: ExitReason,
}

/// The supervisor ends with this reason, its children already stopped.
struct GiveUp(ExitReason);

/// What a child was asked to do, and what came of it.
type Done<T> = Result<T, ChildError>;

impl Child {
    fn new(spec: ChildSpec) -> Self {
        Self {
            spec,
            state: ChildState::Stopped,
            pid: None,
            history: History::default(),
            started: Instant::now(),
            crashes: 0,
        }
    }

    fn note_exit(&mut self, reason: &ExitReason) -> Duration {
        let lived = self.started.elapsed();
        let exit = Exit { pid: self.pid, reason: reason.clone(), at: Instant::now(), lived };
        self.history.ended(exit);
        self.pid = None;
        self.state = ChildState::Stopped;
        lived
    }

    fn info(&self) -> ChildInfo {
        ChildInfo {
            id: Some(self.spec.id.to_string()),
            pid: self.pid,
            state: self.state,
            supervisor: self.spec.is_supervisor,
            restarts: self.history.restarts(),
            exits: self.history.exits(),
        }
    }
}

impl Supervising {
    fn new(spec: Supervisor, ctx: RawContext, parent: Option<Pid>) -> Self {
        Self {
            hand: Hand::new(ctx),
            parent,
            strategy: spec.strategy,
            intensity: Intensity::new(spec.intensity, spec.period),
            auto_shutdown: spec.auto_shutdown,
            backoff: spec.backoff,
            children: spec.children.into_iter().map(Child::new).collect(),
            pending: Vec::new(),
        }
    }

    async fn run(mut self, started: oneshot::Sender<Result<(), ExitReason>>) -> Outcome {
        let mut index = 0;
        while index < self.children.len() {
            match self.start_child(index).await {
                Ok(None) if self.children[index].spec.restart == Restart::Temporary => {
                    self.children.remove(index);
                }
                Ok(_) => index += 1,
                Err(error) => {
                    let id = &self.children[index].spec.id;
                    let reason =
                        ExitReason::error(format!("failed to start child {id:?}: {error}"));
                    self.stop_from(0).await?;
                    // Told before the exit, so that the starter gets the error and not an exit
                    // signal.
                    if let Some(parent) = self.parent {
                        self.hand.ctx.unlink(parent);
                    }
                    // The starter may have been killed meanwhile.
                    drop(started.send(Err(reason)));
                    return Err(Interrupt::exit(ExitReason::Shutdown));
                }
            }
        }
        // The starter may have been killed meanwhile; then the link ends this process.
        drop(started.send(Ok(())));
        loop {
            let due = self.pending.iter().map(|pending| pending.due).min();
            let done = match self.hand.next(due).await? {
                Next::Received(received) => self.handle(received).await?,
                Next::Due => self.restart_due().await?,
            };
            if let Err(GiveUp(reason)) = done {
                return Err(Interrupt::exit(reason));
            }
        }
    }

    async fn handle(&mut self, received: Received) -> Outcome<Result<(), GiveUp>> {
        match received {
            Received::LinkDown(LinkDown { pid, reason }) => {
                if let Some(index) = self.position_of(pid) {
                    return self.child_ended(index, reason).await;
                }
                if self.hand.is_parent(self.parent, pid) {
                    self.stop_from(0).await?;
                    return Ok(Err(GiveUp(reason)));
                }
            }
            Received::Exit { reason, .. } => {
                self.stop_from(0).await?;
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

    // ----- restarting -----

    async fn child_ended(
        &mut self,
        index: usize,
        reason: ExitReason,
    ) -> Outcome<Result<(), GiveUp>> {
        let child = &mut self.children[index];
        let lived = child.note_exit(&reason);
        if child.spec.restart.follows(&reason) {
            return self.restart_later(index, reason, lived).await;
        }
        let significant = child.spec.significant;
        if child.spec.restart == Restart::Temporary {
            self.children.remove(index);
        }
        let ends = significant
            && match self.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => !self
                    .children
                    .iter()
                    .any(|c| c.spec.significant && c.state != ChildState::Stopped),
            };
        if ends {
            self.stop_from(0).await?;
            return Ok(Err(GiveUp(ExitReason::Shutdown)));
        }
        Ok(Ok(()))
    }

    /// Restarts a child now, or when its backoff is over.
    async fn restart_later(
        &mut self,
        index: usize,
        reason: ExitReason,
        lived: Duration,
    ) -> Outcome<Result<(), GiveUp>> {
        let Some(backoff) = self.backoff else { return self.restart(index, reason).await };
        let child = &mut self.children[index];
        child.crashes = backoff.crashes(child.crashes, lived);
        let delay = self.delay(index);
        let from = self.first_to_restart(index);
        if from != index || self.strategy == Strategy::OneForAll {
            // The siblings wait with it.
            self.stop_from(from).await?;
        } else if self.strategy == Strategy::RestForOne {
            self.stop_from(index).await?;
        }
        self.put_off(index, reason, delay);
        Ok(Ok(()))
    }

    fn delay(&self, index: usize) -> Duration {
        let child = &self.children[index];
        let chance = self.hand.ctx.pid().serial ^ self.hand.ctx.runtime().reference().0 << 20;
        self.backoff.map_or(Duration::ZERO, |backoff| backoff.delay(child.crashes, chance))
    }

    fn put_off(&mut self, index: usize, reason: ExitReason, delay: Duration) {
        let child = &mut self.children[index];
        child.state = ChildState::Restarting;
        let id = Arc::clone(&child.spec.id);
        self.pending.push(Pending { due: Instant::now() + delay, id, reason });
    }

    async fn restart_due(&mut self) -> Outcome<Result<(), GiveUp>> {
        let now = Instant::now();
        let due = self.pending.iter().position(|pending| pending.due <= now);
        let Some(pending) = due.map(|index| self.pending.swap_remove(index)) else {
            return Ok(Ok(()));
        };
        match self.position(&pending.id) {
            Some(index) if self.children[index].state == ChildState::Restarting => {
                self.restart(index, pending.reason).await
            }
            // Stopped, started or forgotten by request meanwhile.
            Some(_) | None => Ok(Ok(())),
        }
    }

    fn first_to_restart(&self, index: usize) -> usize {
        if self.strategy == Strategy::OneForAll { 0 } else { index }
    }

    /// Restarts as the strategy says, and counts it. A start that fails is tried again later.
    async fn restart(&mut self, index: usize, reason: ExitReason) -> Outcome<Result<(), GiveUp>> {
        let id = Arc::clone(&self.children[index].spec.id);
        if !self.intensity.allows(Instant::now()) {
            tracing::error!(
                supervisor = %self.hand.ctx.pid(), child = %id, %reason,
                "too many restarts, the supervisor gives up"
            );
            self.stop_from(0).await?;
            return Ok(Err(GiveUp(ExitReason::Shutdown)));
        }
        let tried = match self.strategy {
            Strategy::OneForOne => self.restart_one(index, &reason).await,
            Strategy::OneForAll | Strategy::RestForOne => {
                let from = self.first_to_restart(index);
                self.stop_from(from).await?;
                self.forget_temporary(from);
                self.restart_from(from, &id, &reason).await
            }
        };
        if let Err(error) = tried
            && let Some(index) = self.position(&id)
        {
            let reason = ExitReason::error(error.to_string());
            let child = &mut self.children[index];
            child.started = Instant::now();
            child.note_exit(&reason);
            child.crashes = child.crashes.saturating_add(1);
            let delay = self.delay(index);
            self.put_off(index, reason, delay);
        }
        Ok(Ok(()))
    }

    async fn restart_one(&mut self, index: usize, reason: &ExitReason) -> Result<(), SpawnError> {
        let restarts = self.children[index].history.restarted();
        if let Some(pid) = self.start_child(index).await? {
            self.hand.report_restart(&self.children[index].spec.id, pid, restarts, reason);
        }
        Ok(())
    }

    async fn restart_from(
        &mut self,
        from: usize,
        failed: &str,
        reason: &ExitReason,
    ) -> Result<(), SpawnError> {
        let sibling = ExitReason::ShutdownWith(format!("{failed:?} ended").into());
        for index in from..self.children.len() {
            let own = *self.children[index].spec.id == *failed;
            self.restart_one(index, if own { reason } else { &sibling }).await?;
        }
        Ok(())
    }

    /// Temporary children are stopped with their siblings and not started again.
    fn forget_temporary(&mut self, from: usize) {
        let mut index = 0;
        self.children.retain(|child| {
            index += 1;
            index <= from || child.spec.restart != Restart::Temporary
        });
    }

    // ----- children -----

    fn position(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|child| *child.spec.id == *id)
    }

    fn find(&self, key: &ChildKey) -> Option<usize> {
        match key {
            ChildKey::Id(id) => self.position(id),
            ChildKey::Pid(pid) => self.position_of(*pid),
        }
    }

    fn position_of(&self, pid: Pid) -> Option<usize> {
        let runtime = self.hand.ctx.runtime();
        let is_it = |child: &Child| child.pid.is_some_and(|own| runtime.is_same(own, pid));
        self.children.iter().position(is_it)
    }

    async fn start_child(&mut self, index: usize) -> Result<Option<Pid>, SpawnError> {
        let child = &mut self.children[index];
        let pid = self.hand.start(&child.spec, &child.history).await?;
        child.pid = pid;
        child.started = Instant::now();
        child.state = if pid.is_some() { ChildState::Running } else { ChildState::Stopped };
        Ok(pid)
    }

    /// Stops the children from this one on, in reverse order.
    async fn stop_from(&mut self, from: usize) -> Outcome {
        for index in (from..self.children.len()).rev() {
            self.stop_child(index).await?;
        }
        Ok(())
    }

    async fn stop_child(&mut self, index: usize) -> Outcome {
        let child = &mut self.children[index];
        let shutdown = child.spec.shutdown;
        if let Some(pid) = child.pid {
            child.note_exit(&ExitReason::Shutdown);
            self.hand.stop(pid, shutdown).await?;
        }
        let id = Arc::clone(&self.children[index].spec.id);
        self.children[index].state = ChildState::Stopped;
        self.pending.retain(|pending| pending.id != id);
        Ok(())
    }

    // ----- answering -----

    async fn answer(&mut self, asked: Asked) -> Outcome {
        match asked {
            Asked::Start(start) => {
                let started = self.add(start.child).await;
                // Whoever asked may have gone; the child stays.
                drop(start.answer.send(started));
            }
            Asked::Terminate(key, to) => match self.find(&key) {
                Some(index) => {
                    self.stop_child(index).await?;
                    if self.children[index].spec.restart == Restart::Temporary {
                        self.children.remove(index);
                    }
                    to.send(Ok(()));
                }
                None => to.send(Err(ChildError::NotFound)),
            },
            Asked::Restart(id, to) => to.send(self.start_again(&id).await),
            Asked::Delete(id, to) => to.send(self.delete(&id)),
            Asked::Which(to) => to.send(self.children.iter().rev().map(Child::info).collect()),
            Asked::Count(to) => to.send(self.count()),
        }
        Ok(())
    }

    async fn add(&mut self, spec: ChildSpec) -> Done<Option<Pid>> {
        if let Some(index) = self.position(&spec.id) {
            let running = self.children[index].pid.map(ChildError::AlreadyStarted);
            return Err(running.unwrap_or(ChildError::AlreadyPresent));
        }
        spec.check(self.auto_shutdown).map_err(|detail| ChildError::Spec { detail })?;
        let temporary = spec.restart == Restart::Temporary;
        self.children.push(Child::new(spec));
        let index = self.children.len() - 1;
        let started = self.start_child(index).await;
        if started.is_err() || (temporary && started == Ok(None)) {
            self.children.pop();
        }
        started.map_err(ChildError::Start)
    }

    /// Where a child is that does not run.
    fn at_rest(&self, id: &str) -> Done<usize> {
        let index = self.position(id).ok_or(ChildError::NotFound)?;
        match self.children[index].state {
            ChildState::Running => Err(ChildError::Running),
            ChildState::Restarting => Err(ChildError::Restarting),
            ChildState::Stopped => Ok(index),
        }
    }

    async fn start_again(&mut self, id: &str) -> Done<Option<Pid>> {
        let index = self.at_rest(id)?;
        self.start_child(index).await.map_err(ChildError::Start)
    }

    fn delete(&mut self, id: &str) -> Done<()> {
        let index = self.at_rest(id)?;
        self.children.remove(index);
        Ok(())
    }

    fn count(&self) -> ChildCounts {
        let mut counts = ChildCounts { specs: self.children.len(), ..ChildCounts::default() };
        for child in &self.children {
            counts.active += usize::from(child.state == ChildState::Running);
            counts.restarting += usize::from(child.state == ChildState::Restarting);
            counts.supervisors += usize::from(child.spec.is_supervisor);
        }
        counts.workers = counts.specs - counts.supervisors;
        counts
    }
}
