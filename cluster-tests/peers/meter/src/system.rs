//! What a system must be able to do to be measured.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;

use crate::sides::{Ground, Kill};
use crate::workload::Task;

/// The system cannot do what a workload needs. Not a failure: it is shown as a dash and the reason.
#[derive(Debug)]
pub struct Missing(pub &'static str);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Missing {}

/// When the watchers of a killed process were told.
#[derive(Debug, Clone, Copy)]
pub struct Fired {
    /// When it was killed.
    pub killed: Instant,
    /// When the first was told.
    pub first: Instant,
    /// When the last was told.
    pub last: Instant,
}

/// The near side of a system, connected to the far side.
pub trait System: Sized + Send + Sync + 'static {
    /// A process of the far side, as the near side addresses it.
    type Target: Target;

    /// Whether a sender waits when it is too fast for the wire. If not, the loops let it wait for
    /// confirmations, so that no queue grows without end.
    const SENDERS_WAIT: bool;

    /// Messages between two confirmations of a system whose senders do not wait, for all senders
    /// together.
    const WINDOW: u64 = 10_000;

    /// Settings that are worth knowing, in one line.
    fn about() -> String;

    /// Refuses what cannot be done before anything is started.
    fn supports(task: Task) -> Result<(), Missing> {
        match task.loss {
            Some(_) => Err(Missing("over TCP")),
            None => Ok(()),
        }
    }

    /// The far side: calls `tell` once with how it is reached, and serves until it is killed.
    fn serve(
        ground: Ground,
        tell: impl FnOnce(String) + Send,
    ) -> impl Future<Output = Result<()>> + Send;

    /// The near side.
    fn join(ground: Ground, contact: String) -> impl Future<Output = Result<Self>> + Send;

    /// Processes of the far side; each counts what it is sent and answers calls.
    fn targets(&self, count: usize) -> impl Future<Output = Result<Vec<Self::Target>>> + Send;

    /// Runs a body the way a program of this system does: as a process of it.
    fn run<T: Send + 'static>(
        &self,
        body: impl Future<Output = Result<T>> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send + 'static {
        let task = tokio::spawn(body);
        async move { task.await? }
    }

    /// Sends one message to each.
    fn fan_out(
        &self,
        targets: &mut Vec<Self::Target>,
        message: &Bytes,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            for target in targets {
                target.send(message).await?;
            }
            Ok(())
        }
    }

    /// Lets so many processes watch one of the far side, which is then killed.
    fn monitors(
        self: Arc<Self>,
        watchers: u64,
        kill: Kill,
    ) -> impl Future<Output = Result<Fired>> + Send {
        let _ = (watchers, kill);
        async { Err(Missing("it has no remote monitors").into()) }
    }

    /// Starts a process on the far side that ends; returns when this side knows it.
    fn spawn_exit(&self) -> impl Future<Output = Result<()>> + Send {
        async { Err(Missing("it starts no processes on other nodes").into()) }
    }
}

/// A process of the far side.
pub trait Target: Clone + Send + Sync + 'static {
    /// Sends a message that the far side counts.
    fn send(&mut self, message: &Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Sends a message, without waiting, that the process takes 1 ms for.
    fn flood(&mut self, message: &Bytes) -> impl Future<Output = Result<()>> + Send {
        let _ = message;
        async { Err(Missing("not written for it").into()) }
    }

    /// Sends a message that comes back; its length.
    fn call(&mut self, message: &Bytes) -> impl Future<Output = Result<usize>> + Send;

    /// How many messages this process was sent. Asked in order with what was sent before.
    fn count(&mut self) -> impl Future<Output = Result<u64>> + Send;

    /// How many messages all processes of the far side were sent.
    fn total(&mut self) -> impl Future<Output = Result<u64>> + Send;
}

impl Fired {
    /// From the kill to the first notice.
    pub fn noticed(&self) -> Duration {
        self.first.saturating_duration_since(self.killed)
    }

    /// From the first notice to the last.
    pub fn took(&self) -> Duration {
        self.last.saturating_duration_since(self.first)
    }
}
