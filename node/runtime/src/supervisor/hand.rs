//! What every supervisor does with its children: starts one, stops one or many, waits.
//!
//! While it waits for the end of a child, what else arrives is kept and handled after.

use std::collections::{BTreeMap, VecDeque};

use purlin_proto::admin::What;
use purlin_proto::{ExitReason, Pid, Reference, SpawnError};
use tokio::time::{Duration, Instant};

use super::Shutdown;
use super::history::History;
use super::spec::ChildSpec;
use crate::actor::Outcome;
use crate::raw::{RawContext, Received};
use crate::relations::{Address, ChildMark};
use crate::spawn::SpawnOptions;

/// How long a killed child may take to be gone: it ends at its next `await`, and one that never
/// comes to it must not hold its supervisor for ever.
const KILL_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Hand {
    pub(super) ctx: RawContext,
    kept: VecDeque<Received>,
    /// Whether something went before what was due.
    waited: bool,
}

/// What a supervisor is to do next.
pub(super) enum Next {
    Received(Received),
    /// The time that was asked for has come.
    Due,
}

impl Hand {
    pub(super) fn new(ctx: RawContext) -> Self {
        Self { ctx, kept: VecDeque::new(), waited: false }
    }

    /// The next thing to do. What is due waits at most for one thing that has arrived.
    pub(super) async fn next(&mut self, due: Option<Instant>) -> Outcome<Next> {
        let overdue = due.is_some_and(|due| due <= Instant::now());
        if overdue && std::mem::take(&mut self.waited) {
            return Ok(Next::Due);
        }
        self.waited = overdue;
        if let Some(kept) = self.kept.pop_front() {
            return Ok(Next::Received(kept));
        }
        let Some(due) = due else { return Ok(Next::Received(self.ctx.receive().await?)) };
        match tokio::time::timeout_at(due, self.ctx.receive()).await {
            Ok(received) => Ok(Next::Received(received?)),
            Err(_) => Ok(Next::Due),
        }
    }

    /// Starts a child, linked to this supervisor; `None` if its start chose not to run.
    pub(super) async fn start(
        &mut self,
        spec: &ChildSpec,
        history: &History,
    ) -> Result<Option<Pid>, SpawnError> {
        let options = SpawnOptions {
            name: spec.name.clone(),
            parent: Some(self.ctx.pid()),
            link: Some(Address::Local(self.ctx.process().serial)),
            ..SpawnOptions::default()
        };
        let process = match (spec.start)(self.ctx.runtime().clone(), options).await {
            Ok(process) => process,
            Err(SpawnError::Ignored) => return Ok(None),
            Err(error) => return Err(error),
        };
        process.mark(ChildMark { id: spec.id.clone(), history: history.clone() });
        Ok(Some(process.pid()))
    }

    /// Whether it was the parent that has ended.
    pub(super) fn is_parent(&self, parent: Option<Pid>, ended: Pid) -> bool {
        parent.is_some_and(|parent| self.ctx.runtime().is_same(parent, ended))
    }

    /// Stops a child and waits for its end.
    pub(super) async fn stop(&mut self, pid: Pid, shutdown: Shutdown) -> Outcome {
        self.stop_all(vec![(pid, shutdown)]).await
    }

    /// Stops many at once and waits until all have ended.
    pub(super) async fn stop_all(&mut self, children: Vec<(Pid, Shutdown)>) -> Outcome {
        // A child may have unlinked itself, so its end is watched by a monitor.
        let mut ending: BTreeMap<Reference, Pid> = BTreeMap::new();
        let mut limits: BTreeMap<(Instant, Reference), Limit> = BTreeMap::new();
        let runtime = self.ctx.runtime().clone();
        for (pid, shutdown) in children {
            let monitor = self.ctx.monitor(pid);
            ending.insert(monitor, pid);
            let now = Instant::now();
            match shutdown {
                Shutdown::BrutalKill => {
                    runtime.exit(pid, ExitReason::Kill);
                    limits.insert((now + KILL_WAIT, monitor), Limit::GivenUp);
                }
                Shutdown::Timeout(limit) => {
                    runtime.exit(pid, ExitReason::Shutdown);
                    limits.insert((now + limit, monitor), Limit::Killed);
                }
                Shutdown::Infinity => runtime.exit(pid, ExitReason::Shutdown),
            }
        }
        while !ending.is_empty() {
            let limit = limits.keys().next().map(|(at, _)| *at);
            match self.wait(limit).await? {
                Next::Received(Received::Down(down)) if ending.contains_key(&down.reference) => {
                    ending.remove(&down.reference);
                }
                // Of one that is being stopped; the monitor tells it as well.
                Next::Received(Received::LinkDown(link))
                    if ending.values().any(|&pid| runtime.is_same(pid, link.pid)) => {}
                Next::Received(other) => self.kept.push_back(other),
                Next::Due => {
                    let Some(((_, monitor), limit)) = limits.pop_first() else { continue };
                    let Some(&pid) = ending.get(&monitor) else { continue };
                    match limit {
                        Limit::Killed => {
                            runtime.exit(pid, ExitReason::Kill);
                            let until = Instant::now() + KILL_WAIT;
                            limits.insert((until, monitor), Limit::GivenUp);
                        }
                        Limit::GivenUp => {
                            tracing::error!(%pid, "child does not yield and cannot be stopped");
                            ending.remove(&monitor);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn wait(&mut self, until: Option<Instant>) -> Outcome<Next> {
        let Some(until) = until else { return Ok(Next::Received(self.ctx.receive().await?)) };
        match tokio::time::timeout_at(until, self.ctx.receive()).await {
            Ok(received) => Ok(Next::Received(received?)),
            Err(_) => Ok(Next::Due),
        }
    }

    /// Tells of a restart.
    pub(super) fn report_restart(&self, id: &str, pid: Pid, restarts: u64, reason: &ExitReason) {
        let supervisor = self.ctx.pid();
        let runtime = self.ctx.runtime();
        runtime.counters().restarted.add();
        if let Some(suppressed) = runtime.may_report() {
            tracing::warn!(
                %supervisor, child = id, %pid, restarts, %reason, suppressed, "child restarted"
            );
        }
        runtime.observe(|| What::ChildRestarted {
            supervisor,
            child: id.to_owned(),
            pid,
            restarts,
            reason: reason.to_string(),
        });
    }
}

/// What happens to a child that has not ended by then.
enum Limit {
    Killed,
    GivenUp,
}
