//! A future as a process.
//!
//! What a handle can do besides waiting (stop it, wait for a while) and who runs tasks for others is
//! in `task_supervisor.rs`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use purlin_proto::{ExitReason, Pid, SpawnError};
use tokio::sync::oneshot;

use crate::mailbox::Mailbox;
use crate::process::{Class, Process};
use crate::relations::Address;
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
    pub(crate) runtime: Runtime,
    started: Result<Pid, SpawnError>,
    stage: Stage,
    result: oneshot::Receiver<T>,
    reason: oneshot::Receiver<ExitReason>,
}

/// How far the waiting for a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// It has no result; its exit reason is still to come.
    Failed,
    /// Its outcome has been handed out.
    Joined,
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
    /// It took longer than it was given, and was killed; see
    /// [`TaskStream`](crate::TaskStream).
    #[error("the task was killed because its time was over")]
    Timeout,
    /// Its outcome has been handed out before, by [`Task::join_timeout`].
    #[error("the outcome of the task has been handed out before")]
    Joined,
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
        let options = SpawnOptions {
            parent: linked_to.map(|process| process.pid()),
            link: linked_to.map(|process| Address::Local(process.serial)),
            ..SpawnOptions::default()
        };
        Self::launch(runtime, options, |_| future)
    }

    /// Makes the future of a process that exists and does not run yet.
    pub(crate) fn launch<F: Future<Output = T> + Send + 'static>(
        runtime: &Runtime,
        options: SpawnOptions,
        future: impl FnOnce(&Arc<Process>) -> F,
    ) -> Self {
        let (send_result, result) = oneshot::channel();
        let (send_reason, reason) = oneshot::channel();
        let launched = runtime.launch(&TASK, options, None, false, |process| {
            let future = future(&process);
            let watch = Watch { process, tell: Some(send_reason) };
            async move {
                let value = future.await;
                watch.forget();
                // Whoever started it may not want the result.
                drop(send_result.send(value));
                ExitReason::Normal
            }
        });
        let started = launched.map(|process| process.pid());
        Self { runtime: runtime.clone(), started, stage: Stage::Running, result, reason }
    }

    /// A task that there is not, for whoever asks for its outcome.
    pub(crate) fn not_started(runtime: &Runtime, error: SpawnError) -> Self {
        let (result, reason) = (oneshot::channel().1, oneshot::channel().1);
        Self { runtime: runtime.clone(), started: Err(error), stage: Stage::Joined, result, reason }
    }

    /// Its pid; `None` if the node would not start it.
    pub fn pid(&self) -> Option<Pid> {
        self.started.as_ref().ok().copied()
    }

    /// Waits for its result, for as long as it takes. When this is dropped, the task goes on.
    pub async fn join(mut self) -> Result<T, TaskError> {
        poll_fn(|cx| self.poll_join(cx)).await
    }

    pub(crate) fn started(&self) -> Result<Pid, SpawnError> {
        self.started.clone()
    }

    /// Its outcome, handed out once.
    pub(crate) fn poll_join(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<T, TaskError>> {
        if let Err(error) = &self.started {
            return Poll::Ready(Err(TaskError::NotStarted(error.clone())));
        }
        if self.stage == Stage::Joined {
            return Poll::Ready(Err(TaskError::Joined));
        }
        if self.stage == Stage::Running {
            match ready!(Pin::new(&mut self.result).poll(cx)) {
                Ok(value) => {
                    self.stage = Stage::Joined;
                    return Poll::Ready(Ok(value));
                }
                Err(_) => self.stage = Stage::Failed,
            }
        }
        let reason = ready!(Pin::new(&mut self.reason).poll(cx)).unwrap_or(ExitReason::Killed);
        self.stage = Stage::Joined;
        Poll::Ready(Err(TaskError::Exited(reason)))
    }
}

/// Tells the reason when the future is dropped before it is done.
struct Watch {
    process: Arc<Process>,
    tell: Option<oneshot::Sender<ExitReason>>,
}

impl Watch {
    /// It is done, there is no reason to tell.
    fn forget(mut self) {
        self.tell = None;
    }
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
