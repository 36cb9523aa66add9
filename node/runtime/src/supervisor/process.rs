//! The process of a supervisor.
//!
//! A raw process that traps exits. While it starts or stops a child it waits for that child alone;
//! what else arrives meanwhile is kept and handled after.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::admin::What;
use purlin_proto::{ExitReason, LinkDown, Pid, SpawnError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::intensity::Intensity;
use super::spec::{ChildSpec, Restart, Shutdown, Strategy, Supervisor};
use crate::actor::{Interrupt, Outcome};
use crate::process::{Address, ChildMark, Process};
use crate::raw::{RawContext, Received};
use crate::runtime::Runtime;
use crate::spawn::{RawKind, SpawnOptions};

static SUPERVISOR: RawKind = RawKind::new("supervisor");

/// How long a killed child may take to be gone: it ends at its next `await`, and one that never
/// comes to it must not hold its supervisor for ever.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// Starts a supervisor; returns when all its children have started.
pub(super) async fn start(
    runtime: &Runtime,
    spec: Supervisor,
    options: SpawnOptions,
) -> Result<Arc<Process>, SpawnError> {
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
    ctx: RawContext,
    parent: Option<Pid>,
    strategy: Strategy,
    intensity: Intensity,
    children: Vec<Child>,
    /// Arrived while a child was waited for.
    kept: VecDeque<Received>,
}

struct Child {
    spec: ChildSpec,
    pid: Option<Pid>,
    restarts: u64,
}

/// The supervisor ends with this reason, its children already stopped.
struct GiveUp(ExitReason);

impl Supervising {
    fn new(spec: Supervisor, ctx: RawContext, parent: Option<Pid>) -> Self {
        let child = |spec| Child { spec, pid: None, restarts: 0 };
        Self {
            ctx,
            parent,
            strategy: spec.strategy,
            intensity: Intensity::new(spec.intensity, spec.period),
            children: spec.children.into_iter().map(child).collect(),
            kept: VecDeque::new(),
        }
    }

    async fn run(mut self, started: oneshot::Sender<Result<(), ExitReason>>) -> Outcome {
        for index in 0..self.children.len() {
            if let Err(error) = self.start_child(index).await {
                let id = &self.children[index].spec.id;
                let reason = ExitReason::error(format!("failed to start child {id:?}: {error}"));
                self.stop_from(0).await?;
                // Told before the exit, so that the starter gets the error and not an exit signal.
                if let Some(parent) = self.parent {
                    self.ctx.unlink(parent);
                }
                // The starter may have been killed meanwhile.
                drop(started.send(Err(reason)));
                return Err(Interrupt::exit(ExitReason::Shutdown));
            }
        }
        // The starter may have been killed meanwhile; then the link ends this process.
        drop(started.send(Ok(())));
        loop {
            let received = match self.kept.pop_front() {
                Some(kept) => kept,
                None => self.ctx.receive().await?,
            };
            if let Err(GiveUp(reason)) = self.handle(received).await? {
                return Err(Interrupt::exit(reason));
            }
        }
    }

    async fn handle(&mut self, received: Received) -> Outcome<Result<(), GiveUp>> {
        match received {
            Received::LinkDown(LinkDown { pid, reason }) => {
                if let Some(index) = self.children.iter().position(|c| c.pid == Some(pid)) {
                    return self.child_ended(index, reason).await;
                }
                if self.parent == Some(pid) {
                    self.stop_from(0).await?;
                    return Ok(Err(GiveUp(reason)));
                }
            }
            Received::Exit { reason, .. } => {
                self.stop_from(0).await?;
                return Ok(Err(GiveUp(reason)));
            }
            Received::Message(message) => message.refuse("supervisor"),
            Received::Down(_) | Received::Node(_) => {}
        }
        Ok(Ok(()))
    }

    async fn child_ended(
        &mut self,
        index: usize,
        reason: ExitReason,
    ) -> Outcome<Result<(), GiveUp>> {
        self.children[index].pid = None;
        let restart = match self.children[index].spec.restart {
            Restart::Permanent => true,
            Restart::Transient => !reason.is_orderly(),
            Restart::Temporary => false,
        };
        if !restart {
            if self.children[index].spec.restart == Restart::Temporary {
                self.children.remove(index);
            }
            return Ok(Ok(()));
        }
        self.restart(index, reason).await
    }

    /// Restarts as the strategy says. A start that fails is tried again, each try counted.
    async fn restart(
        &mut self,
        failed: usize,
        mut reason: ExitReason,
    ) -> Outcome<Result<(), GiveUp>> {
        let id = self.children[failed].spec.id.clone();
        loop {
            if !self.intensity.allows(Instant::now()) {
                tracing::error!(
                    supervisor = %self.ctx.pid(), child = id, %reason,
                    "too many restarts, the supervisor gives up"
                );
                self.stop_from(0).await?;
                return Ok(Err(GiveUp(ExitReason::Shutdown)));
            }
            let from = match self.strategy {
                Strategy::OneForOne => None,
                Strategy::OneForAll => Some(0),
                Strategy::RestForOne => self.position(&id),
            };
            let tried = match from {
                None => self.restart_one(&id, &reason).await,
                Some(from) => {
                    self.stop_from(from).await?;
                    self.forget_temporary(from);
                    self.restart_from(from, &id, &reason).await
                }
            };
            match tried {
                Ok(()) => return Ok(Ok(())),
                Err(error) => reason = ExitReason::error(error.to_string()),
            }
            // Others must get their turn when a start fails at once, time after time.
            tokio::task::yield_now().await;
        }
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|child| child.spec.id == id)
    }

    async fn restart_one(&mut self, id: &str, reason: &ExitReason) -> Result<(), SpawnError> {
        let Some(index) = self.position(id) else { return Ok(()) };
        self.children[index].restarts += 1;
        self.start_child(index).await?;
        self.report_restart(index, reason);
        Ok(())
    }

    async fn restart_from(
        &mut self,
        from: usize,
        failed: &str,
        reason: &ExitReason,
    ) -> Result<(), SpawnError> {
        for index in from..self.children.len() {
            self.children[index].restarts += 1;
            self.start_child(index).await?;
            let sibling = ExitReason::ShutdownWith(format!("{failed:?} ended").into());
            let own = self.children[index].spec.id == failed;
            self.report_restart(index, if own { reason } else { &sibling });
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

    fn report_restart(&self, index: usize, reason: &ExitReason) {
        let child = &self.children[index];
        let Some(pid) = child.pid else { return };
        let (supervisor, restarts) = (self.ctx.pid(), child.restarts);
        let id = child.spec.id.as_str();
        self.ctx.runtime().counters().restarted.add();
        tracing::warn!(%supervisor, child = id, %pid, restarts, %reason, "child restarted");
        self.ctx.runtime().observe(|| What::ChildRestarted {
            supervisor,
            child: id.to_owned(),
            pid,
            restarts,
            reason: reason.to_string(),
        });
    }

    async fn start_child(&mut self, index: usize) -> Result<(), SpawnError> {
        let child = &mut self.children[index];
        let options = SpawnOptions {
            name: child.spec.name.clone(),
            parent: Some(self.ctx.pid()),
            link: Some(Address::Local(self.ctx.process().serial)),
            monitor: None,
        };
        let runtime = self.ctx.runtime().clone();
        let pid = (child.spec.start)(runtime, options).await?.pid();
        child.pid = Some(pid);
        let mark = ChildMark { id: child.spec.id.clone(), restarts: child.restarts };
        self.ctx.mark_child(pid.serial, mark);
        Ok(())
    }

    /// Stops the children from this one on, in reverse order.
    async fn stop_from(&mut self, from: usize) -> Outcome {
        for index in (from..self.children.len()).rev() {
            if let Some(pid) = self.children[index].pid.take() {
                let shutdown = self.children[index].spec.shutdown;
                self.stop_child(pid, shutdown).await?;
            }
        }
        Ok(())
    }

    async fn stop_child(&mut self, pid: Pid, shutdown: Shutdown) -> Outcome {
        let runtime = self.ctx.runtime().clone();
        // A child may have unlinked itself, so its end is watched by a monitor.
        let monitor = self.ctx.monitor(pid);
        let limit = match shutdown {
            Shutdown::BrutalKill => None,
            Shutdown::Timeout(limit) => Some(limit),
            Shutdown::Infinity => Some(Duration::MAX),
        };
        let mut ended = false;
        if let Some(limit) = limit {
            runtime.exit(pid, ExitReason::Shutdown);
            ended = self.wait_for_end(pid, monitor, limit).await?;
        }
        if !ended {
            runtime.exit(pid, ExitReason::Kill);
            if !self.wait_for_end(pid, monitor, KILL_WAIT).await? {
                tracing::error!(%pid, "child does not yield and cannot be stopped");
            }
        }
        Ok(())
    }

    /// Waits for the end of a child, keeping what else arrives.
    async fn wait_for_end(
        &mut self,
        pid: Pid,
        monitor: purlin_proto::Reference,
        limit: Duration,
    ) -> Outcome<bool> {
        let wait = async {
            loop {
                match self.ctx.receive().await? {
                    Received::Down(down) if down.reference == monitor => return Outcome::Ok(()),
                    Received::LinkDown(link_down) if link_down.pid == pid => {}
                    other => self.kept.push_back(other),
                }
            }
        };
        let ended = if limit == Duration::MAX {
            wait.await.map(|()| true)
        } else {
            match tokio::time::timeout(limit, wait).await {
                Ok(done) => done.map(|()| true),
                Err(_) => Ok(false),
            }
        };
        // The exit signal comes after the notice of the monitor, or before it; either way it is of
        // a child that is no longer known.
        ended
    }
}
