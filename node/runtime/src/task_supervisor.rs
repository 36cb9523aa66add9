//! Who runs tasks for others (Elixir: `Task.Supervisor`), and what the handle of a task can do.
//!
//! A [`TaskSupervisor`] is a process that tasks are linked to, so that none outlives it; it takes no
//! part in starting them. Who starts a task takes a slot, launches it, and has it admitted before it
//! runs; so the bound holds whoever starts, and nothing is admitted once the supervisor is closing.
//!
//! Absent on purpose: restarts. A future cannot be run again; what is to be, is a child of a
//! [`Supervisor`](crate::Supervisor).

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use purlin_proto::{ExitReason, Name, Pid, SpawnError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actor::{Interrupt, Outcome};
use crate::current;
use crate::item::BoxFuture;
use crate::process::Process;
use crate::raw::{RawContext, Received};
use crate::relations::Address;
use crate::runtime::{PROCESS_LIMIT, Runtime, lock};
use crate::spawn::{RawKind, SpawnOptions};
use crate::task::{Task, TaskError};

static TASK_SUPERVISOR: RawKind = RawKind::new("task-supervisor");

/// How long a task may take to be gone once it is killed: it ends at its next `await`, and one that
/// never comes to it must hold nobody for ever.
const KILL_WAIT: Duration = Duration::from_secs(5);

// ----- the handle of a task -----

impl<T: Send + 'static> Task<T> {
    /// Waits a while for its outcome; `None` if there is none yet, and the task goes on (Elixir:
    /// `Task.yield`).
    ///
    /// The outcome is handed out once; after that this is [`TaskError::Joined`]. Cancel safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use purlin_runtime::Runtime;
    ///
    /// let runtime = Runtime::local("a".into());
    /// let (tell, told) = tokio::sync::oneshot::channel();
    /// let mut task = runtime.task(told);
    /// assert_eq!(task.join_timeout(Duration::from_millis(10)).await, None);
    /// let _ = tell.send(42);
    /// assert_eq!(task.join_timeout(Duration::from_secs(5)).await, Some(Ok(Ok(42))));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn join_timeout(&mut self, limit: Duration) -> Option<Result<T, TaskError>> {
        tokio::time::timeout(limit, poll_fn(|cx| self.poll_join(cx))).await.ok()
    }

    /// Asks it to end and waits until it has; after `limit` it is killed (Elixir: `Task.shutdown`).
    ///
    /// `None` if it ended as asked; else its outcome, which it had, or came to, before it could be
    /// stopped. A task ends at its next `await`; one that never comes to it is waited for another
    /// 5 s and left behind with a word in the log. When this is dropped, the task still ends.
    pub async fn shutdown(mut self, limit: Duration) -> Option<Result<T, TaskError>> {
        self.ask_to_end(ExitReason::Shutdown);
        match self.join_timeout(limit).await {
            Some(Err(TaskError::Exited(ExitReason::Shutdown))) => None,
            Some(outcome) => Some(outcome),
            None => self.kill().await,
        }
    }

    /// As [`shutdown`](Self::shutdown), but it is killed at once (Elixir: `:brutal_kill`).
    pub async fn kill(mut self) -> Option<Result<T, TaskError>> {
        self.ask_to_end(ExitReason::Kill);
        match self.join_timeout(KILL_WAIT).await {
            // A shutdown that came before keeps its reason.
            Some(Err(TaskError::Exited(ExitReason::Killed | ExitReason::Shutdown))) => None,
            Some(outcome) => Some(outcome),
            None => {
                let pid = self.pid().map(tracing::field::display);
                tracing::error!(pid, "task does not yield and cannot be stopped");
                None
            }
        }
    }
}

impl<T: Send + 'static> Task<T> {
    fn ask_to_end(&self, reason: ExitReason) {
        if let Some(pid) = self.pid() {
            self.runtime.exit(pid, reason);
        }
    }
}

// ----- the supervisor -----

/// A process under which tasks run (Elixir: `Task.Supervisor`).
///
/// Cheap to clone; dropping the handle changes nothing. The tasks are linked to the supervisor and
/// to nobody else: a task that crashes hurts neither the supervisor nor the one who started it, and
/// a task goes on when the one who started it ends.
///
/// # Its end
///
/// When it is asked to end ([`stop`](Self::stop), [`Runtime::exit`], the end of a linked parent, the
/// shutdown of the node), nothing is started any more, every task is asked to end, and after
/// [`TaskSupervisorOptions::shutdown`] killed; only then does the supervisor end, so that no task
/// outlives it. If it is killed itself, its tasks are by their links, each at its next `await`.
///
/// # Under a parent
///
/// It is nobody's child by itself. A process that starts one and links to it with
/// [`Context::link`](crate::Context::link) takes it along when it ends, for whatever reason, and is
/// told if it ends.
///
/// # Example
///
/// ```
/// use purlin_runtime::{Runtime, TaskError, TaskSupervisor, TaskSupervisorOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::local("a".into());
/// let tasks = TaskSupervisor::start(&runtime, TaskSupervisorOptions::default())?;
///
/// assert_eq!(tasks.async_nolink(async { 6 * 7 })?.join().await?, 42);
///
/// let stuck = tasks.async_nolink(std::future::pending::<()>())?;
/// tasks.start_child(std::future::pending::<()>())?;
/// assert_eq!(tasks.children().len(), 2);
/// tasks.stop().await;
/// assert!(matches!(stuck.join().await, Err(TaskError::Exited(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TaskSupervisor {
    process: Arc<Process>,
    shared: Arc<Shared>,
}

/// What a [`TaskSupervisor`] is made of.
///
/// ```
/// use purlin_runtime::TaskSupervisorOptions;
///
/// let few = TaskSupervisorOptions { max_children: 10, ..Default::default() };
/// assert_eq!(few.shutdown.as_secs(), 5);
/// ```
#[derive(Debug, Clone)]
pub struct TaskSupervisorOptions {
    /// Its name on its node; none unless said otherwise.
    pub name: Option<Name>,
    /// How many tasks run at once at most; [`PROCESS_LIMIT`] unless said otherwise.
    pub max_children: usize,
    /// How long tasks may take to end before they are killed, all together; 5 s unless said
    /// otherwise, zero to kill at once.
    pub shutdown: Duration,
}

impl Default for TaskSupervisorOptions {
    fn default() -> Self {
        Self { name: None, max_children: PROCESS_LIMIT, shutdown: Duration::from_secs(5) }
    }
}

/// Why a task was not started; its future was dropped and has not run.
///
/// ```
/// # use purlin_runtime::{Runtime, TaskStartError, TaskSupervisor, TaskSupervisorOptions};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let runtime = Runtime::local("a".into());
/// let one = TaskSupervisorOptions { max_children: 1, ..Default::default() };
/// let tasks = TaskSupervisor::start(&runtime, one)?;
/// tasks.start_child(std::future::pending::<()>())?;
/// assert_eq!(tasks.start_child(async {}), Err(TaskStartError::Full { max_children: 1 }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskStartError {
    /// As many tasks run as may. There is room as soon as the outcome of one is known.
    #[error("as many tasks run as may: {max_children}")]
    Full {
        /// How many may run.
        max_children: usize,
    },
    /// The supervisor has ended, or is about to.
    #[error("the task supervisor has ended")]
    Ended,
    /// The node would not start it.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

struct Shared {
    max_children: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Tasks that run or are about to.
    slots: usize,
    /// Tasks whose future has not ended.
    running: BTreeSet<u64>,
    /// Tasks whose end the supervisor has not been told yet.
    linked: BTreeSet<u64>,
}

impl TaskSupervisor {
    /// Starts one. Its parent, for the tree of processes, is the process that calls this.
    ///
    /// # Errors
    ///
    /// [`SpawnError::NameTaken`], or the node is full or stopping.
    pub fn start(runtime: &Runtime, options: TaskSupervisorOptions) -> Result<Self, SpawnError> {
        let TaskSupervisorOptions { name, max_children, shutdown } = options;
        let shared = Arc::new(Shared { max_children, state: Mutex::default() });
        let parent = Some(runtime.sender()).filter(|&serial| serial != 0);
        let parent = parent.map(|serial| runtime.id().pid(serial));
        let options = SpawnOptions { name, parent, ..SpawnOptions::default() };
        let closing = Closing(Arc::clone(&shared));
        let process = runtime.launch_raw(&TASK_SUPERVISOR, options, true, |ctx| {
            Supervising { ctx, parent, shutdown, closing }.run()
        })?;
        Ok(Self { process, shared })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Runs a future as a process under the supervisor (Elixir: `async_nolink`).
    ///
    /// Whatever becomes of it is told by the [`Task`] and hurts nobody else.
    pub fn async_nolink<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<Task<T>, TaskStartError> {
        let runtime = &self.process.runtime;
        let slot = self.shared.reserve()?;
        let options = SpawnOptions {
            parent: Some(self.pid()),
            link: Some(Address::Local(self.process.serial)),
            ..SpawnOptions::default()
        };
        let mut admitted = false;
        let task = Task::launch(runtime, options, |process| {
            let slot = slot.admit(process.serial);
            admitted = slot.is_some();
            let work = slot.map(|slot| (slot, future));
            async move {
                let Some((slot, future)) = work else { return pending().await };
                let value = future.await;
                // Before the outcome is known, so that there is room for another.
                drop(slot);
                value
            }
        });
        let pid = task.started()?;
        if !admitted {
            runtime.exit(pid, ExitReason::Kill);
            return Err(TaskStartError::Ended);
        }
        Ok(task)
    }

    /// Runs a future for its effects; nobody waits for it (Elixir: `start_child`, temporary).
    pub fn start_child<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<Pid, TaskStartError> {
        let task = self.async_nolink(future)?;
        Ok(task.started()?)
    }

    /// The tasks that run, oldest first.
    pub fn children(&self) -> Vec<Pid> {
        let id = self.process.runtime.id();
        lock(&self.shared.state).running.iter().map(|serial| id.pid(*serial)).collect()
    }

    /// Ends it and all its tasks, and returns when that is done (Elixir: `Supervisor.stop`).
    ///
    /// See [its end](Self#its-end). Returns at once if it has ended. When this is dropped it ends
    /// all the same. A task that calls this is ended by it.
    pub async fn stop(&self) {
        let (tell, ended) = oneshot::channel();
        // Told when all about its end has been told, or at once.
        self.process.adopt(Box::new(move |_| {
            let _ = tell.send(());
        }));
        self.process.runtime.exit(self.pid(), ExitReason::Shutdown);
        // An error is an end as well.
        drop(ended.await);
    }

    /// Runs `work` for every item, a few at a time, each as a task of this supervisor (Elixir:
    /// `async_stream_nolink`).
    ///
    /// Nothing runs before the stream is asked; see [`TaskStream`].
    pub fn stream<'a, I, F, Fut, T>(
        &self,
        items: I,
        options: StreamOptions,
        mut work: F,
    ) -> TaskStream<'a, T>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        F: FnMut(I::Item) -> Fut + Send + 'a,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let mut items = items.into_iter();
        let source = move || {
            let future: BoxFuture<'static, T> = Box::pin(work(items.next()?));
            Some(future)
        };
        TaskStream {
            supervisor: self.clone(),
            options,
            source: Some(Box::new(source)),
            running: VecDeque::new(),
        }
    }

    fn has_room(&self) -> bool {
        lock(&self.shared.state).slots < self.shared.max_children
    }
}

impl fmt::Debug for TaskSupervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskSupervisor").field(&self.pid()).finish()
    }
}

impl Shared {
    fn reserve(self: &Arc<Self>) -> Result<Slot, TaskStartError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(TaskStartError::Ended);
        }
        if state.slots >= self.max_children {
            return Err(TaskStartError::Full { max_children: self.max_children });
        }
        state.slots += 1;
        Ok(Slot { shared: Arc::clone(self), serial: None })
    }

    /// Nothing is admitted from now on; what is to end.
    fn close(&self) -> Vec<u64> {
        let mut state = lock(&self.state);
        state.closed = true;
        state.linked.iter().copied().collect()
    }
}

/// The right of a task to run; given back when its future has ended, however that is.
struct Slot {
    shared: Arc<Shared>,
    serial: Option<u64>,
}

impl Slot {
    /// Names the task, which is linked to the supervisor already; `None` if that is closing.
    fn admit(mut self, serial: u64) -> Option<Self> {
        let mut state = lock(&self.shared.state);
        if state.closed {
            return None;
        }
        state.running.insert(serial);
        state.linked.insert(serial);
        drop(state);
        self.serial = Some(serial);
        Some(self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.slots -= 1;
        if let Some(serial) = self.serial {
            state.running.remove(&serial);
        }
    }
}

/// Closes when the supervisor ends, also when it is killed.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Supervising {
    ctx: RawContext,
    parent: Option<Pid>,
    shutdown: Duration,
    closing: Closing,
}

impl Supervising {
    async fn run(mut self) -> Outcome {
        let reason = loop {
            match self.ctx.receive().await? {
                Received::LinkDown(down) if !self.has_ended(down.pid) => {
                    if self.parent.is_some_and(|own| self.ctx.runtime().is_same(own, down.pid)) {
                        break down.reason;
                    }
                }
                Received::Exit { reason, .. } => break reason,
                Received::Message(message) => message.refuse(TASK_SUPERVISOR.0.kind),
                Received::LinkDown(_)
                | Received::Down(_)
                | Received::Node(_)
                | Received::Group(_)
                | Received::NameConflict(_) => {}
            }
        };
        self.stop_all().await?;
        Err(Interrupt::exit(reason))
    }

    /// Whether it was a task; it is forgotten.
    fn has_ended(&self, pid: Pid) -> bool {
        self.ctx.runtime().is_own(&pid) && lock(&self.closing.0.state).linked.remove(&pid.serial)
    }

    async fn stop_all(&mut self) -> Outcome {
        let steps = [(ExitReason::Shutdown, self.shutdown), (ExitReason::Kill, KILL_WAIT)];
        for (reason, limit) in steps {
            let runtime = self.ctx.runtime().clone();
            for serial in self.closing.0.close() {
                runtime.exit(runtime.id().pid(serial), reason.clone());
            }
            if let Ok(done) = tokio::time::timeout(limit, self.wait_for_all()).await {
                return done;
            }
        }
        let left = self.closing.0.close().len();
        tracing::error!(supervisor = %self.ctx.pid(), left, "tasks do not yield and cannot be stopped");
        Ok(())
    }

    async fn wait_for_all(&mut self) -> Outcome {
        while !lock(&self.closing.0.state).linked.is_empty() {
            if let Received::LinkDown(down) = self.ctx.receive().await? {
                self.has_ended(down.pid);
            }
        }
        Ok(())
    }
}

// ----- many tasks, a few at a time -----

/// How a [`TaskStream`] runs its tasks.
///
/// ```
/// use purlin_runtime::StreamOptions;
///
/// let options = StreamOptions { ordered: false, ..Default::default() };
/// assert_eq!(options.timeout.map(|limit| limit.as_secs()), Some(5));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct StreamOptions {
    /// How many tasks are out at once at most, results that wait for their turn among them; as many
    /// as there are processors unless said otherwise. Zero is taken for one.
    pub max_concurrency: usize,
    /// How long each task may take from its start; 5 s unless said otherwise, `None` for ever.
    pub timeout: Option<Duration>,
    /// Whether results come in the order of the items (the default), or of their ends.
    pub ordered: bool,
    /// What becomes of the stream when a task has taken too long.
    pub on_timeout: OnTimeout,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            max_concurrency: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            timeout: Some(Duration::from_secs(5)),
            ordered: true,
            on_timeout: OnTimeout::default(),
        }
    }
}

/// What becomes of a [`TaskStream`] when a task has taken too long. The task is killed either way.
///
/// ```
/// use purlin_runtime::{OnTimeout, StreamOptions};
///
/// let patient = StreamOptions { on_timeout: OnTimeout::KillTask, ..Default::default() };
/// assert_ne!(patient.on_timeout, OnTimeout::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTimeout {
    /// [`TaskError::Timeout`] is the last thing that the stream gives: all other tasks are killed
    /// (Elixir ends the caller, which here is for the caller to decide).
    #[default]
    Exit,
    /// [`TaskError::Timeout`] is that task's result, and the stream goes on.
    KillTask,
}

/// The results of many tasks, of which a few run at a time (Elixir: `Task.async_stream`).
///
/// Made by [`TaskSupervisor::stream`]. Tasks are started when a result is asked for, as many as
/// [`StreamOptions::max_concurrency`] allows and the supervisor has room for, and then run by
/// themselves. Ordered, a slow task holds back those after it and with them the starting of new
/// ones, so that no more results wait than that. Dropping the stream kills what still runs.
///
/// A task over its time is killed at its next `await`, also while nobody asks. One that never comes
/// to it gives its `Timeout` all the same and is left behind.
///
/// ```
/// use purlin_runtime::{Runtime, StreamOptions, TaskSupervisor, TaskSupervisorOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::local("a".into());
/// let tasks = TaskSupervisor::start(&runtime, TaskSupervisorOptions::default())?;
///
/// let mut squares = tasks.stream(1..=3, StreamOptions::default(), |n| async move { n * n });
/// let mut sum = 0;
/// while let Some(square) = squares.next().await {
///     sum += square?;
/// }
/// assert_eq!(sum, 14);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing runs before a result is asked for"]
pub struct TaskStream<'a, T: Send + 'static> {
    supervisor: TaskSupervisor,
    options: StreamOptions,
    /// `None` when there are no more items.
    source: Option<Box<dyn FnMut() -> Option<BoxFuture<'static, T>> + Send + 'a>>,
    /// Oldest first.
    running: VecDeque<Running<T>>,
}

struct Running<T> {
    task: Task<T>,
    deadline: Option<Instant>,
    /// Set by the task when it is its time that ends it.
    expired: Arc<AtomicBool>,
}

impl<T: Send + 'static> TaskStream<'_, T> {
    /// The next result; `None` when all have been given, again and again.
    ///
    /// An item whose task crashed is [`TaskError::Exited`]; one that could not be started, because
    /// the supervisor is full of others' tasks, or has ended, is [`TaskError::NotStarted`] with
    /// [`Overloaded`](SpawnError::Overloaded) or [`Stopping`](SpawnError::Stopping).
    ///
    /// Cancel safe: when dropped, the tasks go on, and no result is lost.
    pub async fn next(&mut self) -> Option<Result<T, TaskError>> {
        self.fill();
        if self.running.is_empty() {
            return None;
        }
        let (index, outcome) = match self.deadline() {
            None => poll_fn(|cx| self.poll_ready(cx)).await,
            Some((index, deadline)) => {
                let ready = poll_fn(|cx| self.poll_ready(cx));
                let timeout = |_| (index, Err(TaskError::Timeout));
                tokio::time::timeout_at(deadline, ready).await.unwrap_or_else(timeout)
            }
        };
        let done = self.running.remove(index).expect("the one that was looked at");
        if matches!(outcome, Err(TaskError::Timeout)) {
            done.task.ask_to_end(ExitReason::Kill);
            if self.options.on_timeout == OnTimeout::Exit {
                self.end();
            }
        }
        Some(outcome)
    }

    fn fill(&mut self) {
        let most = self.options.max_concurrency.max(1);
        while self.running.len() < most && (self.running.is_empty() || self.supervisor.has_room()) {
            let Some(future) = self.source.as_mut().and_then(|source| source()) else {
                self.source = None;
                return;
            };
            let running = self.start(future);
            self.running.push_back(running);
        }
    }

    fn start(&self, future: BoxFuture<'static, T>) -> Running<T> {
        let limit = self.options.timeout;
        let expired = Arc::new(AtomicBool::new(false));
        let task = match limit {
            None => self.supervisor.async_nolink(future),
            Some(limit) => {
                self.supervisor.async_nolink(end_after(limit, Arc::clone(&expired), future))
            }
        };
        let task = task.unwrap_or_else(|error| {
            let error = match error {
                TaskStartError::Full { .. } => SpawnError::Overloaded,
                TaskStartError::Ended => SpawnError::Stopping,
                TaskStartError::Spawn(error) => error,
            };
            Task::not_started(&self.supervisor.process.runtime, error)
        });
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        Running { task, deadline, expired }
    }

    /// Which of the tasks that are waited for is the first to be late, and when.
    fn deadline(&self) -> Option<(usize, Instant)> {
        // All have the same limit, so the oldest is the first.
        self.running.front().and_then(|running| running.deadline).map(|deadline| (0, deadline))
    }

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<(usize, Result<T, TaskError>)> {
        let waited_for = if self.options.ordered { 1 } else { self.running.len() };
        for (index, running) in self.running.iter_mut().take(waited_for).enumerate() {
            if let Poll::Ready(outcome) = running.task.poll_join(cx) {
                let killed = matches!(outcome, Err(TaskError::Exited(ExitReason::Killed)));
                if killed && running.expired.load(Ordering::Relaxed) {
                    return Poll::Ready((index, Err(TaskError::Timeout)));
                }
                return Poll::Ready((index, outcome));
            }
        }
        Poll::Pending
    }

    fn end(&mut self) {
        self.source = None;
        for running in self.running.drain(..) {
            running.task.ask_to_end(ExitReason::Kill);
        }
    }
}

/// Kills the process that runs it when the future has taken too long.
async fn end_after<T>(
    limit: Duration,
    expired: Arc<AtomicBool>,
    future: BoxFuture<'static, T>,
) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => {
            expired.store(true, Ordering::Relaxed);
            current::with(|process| process.runtime.exit(process.pid(), ExitReason::Kill));
            pending().await
        }
    }
}

impl<T: Send + 'static> Drop for TaskStream<'_, T> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<T: Send + 'static> fmt::Debug for TaskStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskStream")
            .field("supervisor", &self.supervisor)
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_comes_when_the_supervisor_is_closing_is_not_admitted() {
        let shared = Arc::new(Shared { max_children: 2, state: Mutex::default() });
        let Ok(slot) = shared.reserve() else { panic!("there is room") };

        assert!(shared.close().is_empty());

        assert!(slot.admit(1).is_none());
        assert!(matches!(shared.reserve(), Err(TaskStartError::Ended)));
        let state = lock(&shared.state);
        assert_eq!((state.slots, state.running.len(), state.linked.len()), (0, 0, 0));
    }
}
