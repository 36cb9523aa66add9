//! What a node is there for: trees that start and stop with it (OTP: applications, `permanent`).
//!
//! Started in the order they were given, each when the one before runs; stopped in reverse. When one
//! ends by itself, because its root has given up, the node has lost its purpose: whoever owns it is
//! told, and `purlin start` stops it and exits with 1.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use purlin_proto::{ExitReason, Name, Pid, SpawnError};
use purlin_runtime::{Outcome, RawContext, RawKind, Received, Runtime, Supervisor};
use tokio::sync::{oneshot, watch};

static APPLICATION: RawKind = RawKind::new("application");

/// The applications of a node that runs.
pub(crate) struct Applications {
    /// The processes that each tree hangs from.
    running: Mutex<Vec<Pid>>,
    ended: watch::Sender<Option<Ended>>,
}

/// An application that has ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the application {name} has ended: {reason}")]
pub struct Ended {
    /// Its name.
    pub name: Name,
    /// The reason its root ended with.
    pub reason: ExitReason,
}

impl Applications {
    pub(crate) fn new() -> Self {
        Self { running: Mutex::default(), ended: watch::Sender::new(None) }
    }

    /// Starts them in order; an error names the one that did not start.
    pub(crate) async fn start(
        &self,
        runtime: &Runtime,
        applications: Vec<(Name, Supervisor)>,
    ) -> Result<(), (Name, SpawnError)> {
        for (name, root) in applications {
            let (tell, told) = oneshot::channel();
            let ended = self.ended.clone();
            let own = name.clone();
            let body = |ctx| hold(ctx, own, root, tell, ended);
            let pid = runtime.spawn_raw(&APPLICATION, body).map_err(|e| (name.clone(), e))?;
            self.lock().push(pid);
            let started = told.await.unwrap_or(Err(SpawnError::Stopping));
            started.map_err(|error| (name, error))?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when one has ended by itself.
    pub(crate) async fn ended(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        let found = ended.wait_for(Option::is_some).await.map(|ended| ended.clone());
        match found {
            Ok(Some(ended)) => ended,
            // The sender lives as long as this.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Stops them in reverse order, all within a limit.
    pub(crate) async fn stop(&self, runtime: &Runtime, limit: Duration) {
        let running = std::mem::take(&mut *self.lock());
        let all = async {
            for pid in running.into_iter().rev() {
                runtime.exit(pid, ExitReason::Shutdown);
                runtime.down(pid).await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("applications did not stop in time");
        }
    }
}

/// The process that a tree hangs from: it starts the root, and ends with it.
async fn hold(
    mut ctx: RawContext,
    name: Name,
    root: Supervisor,
    tell: oneshot::Sender<Result<(), SpawnError>>,
    ended: watch::Sender<Option<Ended>>,
) -> Outcome {
    ctx.trap_exits(true);
    let started = ctx.supervise_link(root).await;
    let (root, started) = match started {
        Ok(root) => (Some(root), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // Whoever starts the node may have stopped waiting.
    drop(tell.send(started));
    let Some(root) = root else { return Ok(()) };
    let mut asked = false;
    loop {
        match ctx.receive().await? {
            Received::LinkDown(link) if ctx.runtime().is_same(link.pid, root.pid()) => {
                if !asked {
                    let reason = link.reason;
                    tracing::error!(application = %name, %reason, "application ended");
                    ended.send_replace(Some(Ended { name, reason }));
                }
                return Ok(());
            }
            Received::Exit { reason, .. } => {
                asked = true;
                root.exit(reason);
            }
            _ => {}
        }
    }
}
