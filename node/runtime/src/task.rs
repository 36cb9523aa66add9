//! A future as a process.

use std::future::Future;
use std::sync::Arc;

use purlin_proto::{ExitReason, Pid, SpawnError};
use tokio::sync::oneshot;

use crate::mailbox::Mailbox;
use crate::process::{Address, Class, Process};
use crate::runtime::Runtime;
use crate::spawn::SpawnOptions;

static TASK: Class = Class { kind: "task", messages: &[], mailbox: Mailbox::DEFAULT };

/// A future that runs as a process of its own (Elixir: `Task`).
///
/// It has a pid, is seen by `ps`, can be monitored, linked to and killed. Dropping the handle
/// changes nothing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use purlin_runtime::Runtime;
///
/// let runtime = Runtime::local("a".into());
/// let task = runtime.task(async { 6 * 7 });
/// assert_eq!(task.join().await?, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Task<T> {
    pid: Option<Pid>,
    result: oneshot::Receiver<T>,
    reason: oneshot::Receiver<ExitReason>,
}

/// Why a task has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// It panicked, was killed, or went down with a process it was linked to.
    #[error("the task ended: {0}")]
    Exited(ExitReason),
    /// It was not started.
    #[error("the task was not started: {0}")]
    NotStarted(SpawnError),
}

impl Runtime {
    /// Runs a future as a process, linked to nobody.
    pub fn task<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        Task::start(self, None, future)
    }
}

impl<T: Send + 'static> Task<T> {
    pub(crate) fn start(
        runtime: &Runtime,
        linked_to: Option<&Arc<Process>>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        let (send_result, result) = oneshot::channel();
        let (send_reason, reason) = oneshot::channel();
        let options = SpawnOptions {
            parent: linked_to.map(|process| process.pid()),
            link: linked_to.map(|process| Address::Local(process.serial)),
            ..SpawnOptions::default()
        };
        let launched = runtime.launch(&TASK, options, None, false, |process| async move {
            let mut watch = Watch { process, tell: Some(send_reason) };
            let value = future.await;
            watch.tell = None;
            // Whoever started it may not want the result.
            drop(send_result.send(value));
            ExitReason::Normal
        });
        let pid = match launched {
            Ok(process) => Some(process.pid()),
            Err(_) => None,
        };
        Self { pid, result, reason }
    }

    /// Its pid; `None` if the node would not start it.
    pub fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// Waits for its result.
    pub async fn join(self) -> Result<T, TaskError> {
        if self.pid.is_none() {
            return Err(TaskError::NotStarted(SpawnError::Stopping));
        }
        match self.result.await {
            Ok(value) => Ok(value),
            Err(_) => Err(TaskError::Exited(self.reason.await.unwrap_or(ExitReason::Killed))),
        }
    }
}

/// Tells the reason when the future is dropped before it is done.
struct Watch {
    process: Arc<Process>,
    tell: Option<oneshot::Sender<ExitReason>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            self.process.adopt(Box::new(move |error| {
                let reason = match error {
                    purlin_proto::CallError::Exited(reason) => reason,
                    _ => ExitReason::Killed,
                };
                // Whoever started it may not want to know.
                drop(tell.send(reason));
            }));
        }
    }
}
