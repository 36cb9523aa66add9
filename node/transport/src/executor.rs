//! The executor of the network: workers poll its tasks, and a thread of its own looks after it.
//!
//! What a process sends should leave from the thread that the process runs on, and what arrives
//! should be read on the thread that will handle it: waking another thread takes longer than making
//! a packet. So the tasks of the network are polled by the workers that run processes, as any task
//! is. But no process may stop heartbeats by holding its worker; so a thread of the network's own
//! comes by, and polls what no worker has.
//!
//! # When a task is polled
//!
//! A task that is woken joins one queue, whoever wakes it and wherever. If that is a process, a
//! worker polls the queue when all that is ready on it has run, or 61 tasks of it: what the processes
//! of a worker say one after another leaves together. If it is the socket, at once. If it is the
//! network's thread, with a timer or a heartbeat, that thread polls it itself.
//!
//! One thread at a time polls; whoever finds another at it leaves its task to it. So nobody waits
//! for a lock of a thread that has been interrupted.
//!
//! # When workers are held
//!
//! The network's thread comes by each [`BEAT`] while there is something to do, each [`PAUSE`]
//! otherwise. If no worker has polled since the last time, it does, and reads the socket, of which
//! held workers tell nothing. So user code that holds all workers delays the network by as much, at
//! most, and then not at all.
//!
//! # Before a worker sleeps
//!
//! It looks for packets a little longer: see `busy.rs`. One that a process holds does not.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use quinn::{AsyncTimer, AsyncUdpSocket};
use tokio::runtime::{EnterGuard, Handle};
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;

use crate::busy::Busy;

const BEAT: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Polls before other tasks of the same thread get their turn.
const AT_ONCE: usize = 64;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls the tasks of one network.
#[derive(Debug)]
pub(crate) struct Executor {
    network: Handle,
    workers: Handle,
    thread: OnceLock<ThreadId>,
    queue: Mutex<Queue>,
    /// Some thread polls.
    polling: AtomicBool,
    /// A worker is to poll; the network's thread is.
    calls: [Arc<Notify>; 2],
    /// No worker came the last time; so nothing tells whether the socket is ready.
    held: Arc<AtomicBool>,
    /// Reads the socket.
    reader: OnceLock<Weak<Task>>,
}

#[derive(Debug, Default)]
struct Queue {
    tasks: VecDeque<Arc<Task>>,
    /// One of them was not woken by a process.
    urgent: bool,
    /// How often a task was woken, and how often a worker came.
    woken: u64,
    came: u64,
}

const BY_WORKER: usize = 0;
const BY_NETWORK: usize = 1;

thread_local! {
    /// The executor whose tasks this thread polls, by its address.
    static POLLING: Cell<usize> = const { Cell::new(0) };
}

impl Executor {
    /// Its own thread is that of `network`; ends when the last clone is dropped. Workers look for
    /// packets so long before they sleep.
    pub(crate) fn new(network: &Handle, workers: &Handle, busy_wait: Duration) -> Arc<Self> {
        let executor = Arc::new(Self {
            network: network.clone(),
            workers: workers.clone(),
            thread: OnceLock::new(),
            queue: Mutex::default(),
            polling: AtomicBool::new(false),
            calls: Default::default(),
            held: Arc::default(),
            reader: OnceLock::new(),
        });
        let busy = Arc::new(Busy::new(busy_wait));
        // One for each worker: a task that is woken waits for the worker it was woken on.
        for _ in 0..workers.metrics().num_workers() {
            let call = Arc::clone(&executor.calls[BY_WORKER]);
            let visits = visit_by_worker(Arc::downgrade(&executor), call, Arc::clone(&busy));
            workers.spawn(unconstrained(visits));
        }
        let call = Arc::clone(&executor.calls[BY_NETWORK]);
        network.spawn(unconstrained(visit_by_network(Arc::downgrade(&executor), call)));
        network.spawn(unconstrained(look_after(Arc::downgrade(&executor))));
        executor
    }

    /// Where a task's end is waited for, and where it is aborted.
    pub(crate) fn network(&self) -> &Handle {
        &self.network
    }

    /// Lets what is registered for readiness be told to workers.
    pub(crate) fn enter_workers(&self) -> EnterGuard<'_> {
        self.workers.enter()
    }

    /// Whether the socket may be ready without anybody being told.
    pub(crate) fn held(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.held)
    }

    /// Stands for a future that the executor polls: ends with it, and ends it when dropped.
    pub(crate) fn run(self: &Arc<Self>, work: Work) -> impl Future<Output = ()> + Send + use<> {
        Running(self.task(work))
    }

    fn task(self: &Arc<Self>, work: Work) -> Arc<Task> {
        Arc::new(Task {
            state: Mutex::new(State::Going(work)),
            queued: AtomicBool::new(false),
            waiter: OnceLock::new(),
            executor: Arc::downgrade(self),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn push(&self, task: Arc<Task>) {
        if task.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queue = self.queue();
        queue.tasks.push_back(task);
        queue.woken += 1;
        queue.urgent |= tokio::task::try_id().is_none();
        drop(queue);
        if POLLING.get() != self.address() {
            self.call();
        }
    }

    /// Calls whoever is to poll.
    fn call(&self) {
        let here = self.thread.get().is_some_and(|network| *network == thread::current().id());
        self.calls[usize::from(here)].notify_one();
    }

    /// Polls what is woken, unless another thread does; that one will see what has come since. Whether
    /// something is left, for which somebody has been called.
    fn poll(&self) -> bool {
        while !self.queue().tasks.is_empty() && !self.polling.swap(true, Ordering::AcqRel) {
            let polling = Polling::begin(self);
            for _ in 0..AT_ONCE {
                let Some(task) = self.next() else { break };
                task.poll();
            }
            drop(polling);
            if !self.queue().tasks.is_empty() {
                self.call();
                return true;
            }
        }
        false
    }

    fn next(&self) -> Option<Arc<Task>> {
        self.queue().tasks.pop_front()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // They find that it is gone.
        self.calls.iter().for_each(|call| call.notify_one());
    }
}

/// This thread polls, until it is dropped, also by a panic.
struct Polling<'a>(&'a Executor);

impl<'a> Polling<'a> {
    fn begin(executor: &'a Executor) -> Self {
        POLLING.set(executor.address());
        Self(executor)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        POLLING.set(0);
        self.0.polling.store(false, Ordering::Release);
    }
}

/// Polls on a worker when that is called.
async fn visit_by_worker(executor: Weak<Executor>, call: Arc<Notify>, busy: Arc<Busy>) {
    loop {
        {
            let mut called = std::pin::pin!(call.notified());
            if !busy.look(called.as_mut()).await {
                called.await;
            }
        }
        let Some(present) = executor.upgrade() else {
            // The next one ends as well.
            call.notify_one();
            return;
        };
        busy.resumed(Instant::now());
        let urgent = std::mem::take(&mut present.queue().urgent);
        if !urgent {
            // Comes back when all that is ready on this worker has run.
            tokio::task::yield_now().await;
        }
        present.queue().came += 1;
        present.held.store(false, Ordering::Relaxed);
        let more = present.poll();
        drop(present);
        busy.paused(Instant::now());
        if more {
            // Whoever floods the network is not to stop what else this thread has to do.
            tokio::task::yield_now().await;
        }
    }
}

/// Polls on the network's thread when that is called.
async fn visit_by_network(executor: Weak<Executor>, call: Arc<Notify>) {
    loop {
        call.notified().await;
        let Some(present) = executor.upgrade() else { return };
        let more = present.poll();
        drop(present);
        if more {
            tokio::task::yield_now().await;
        }
    }
}

/// Polls on the network's thread when no worker does.
async fn look_after(executor: Weak<Executor>) {
    let (mut woken, mut came) = (0, 0);
    let mut pause = BEAT;
    loop {
        tokio::time::sleep(pause).await;
        let Some(present) = executor.upgrade() else { return };
        present.thread.get_or_init(|| thread::current().id());
        let mut before = woken;
        if present.queue().came == came {
            present.held.store(true, Ordering::Relaxed);
            if let Some(reader) = present.reader.get().and_then(Weak::upgrade) {
                present.push(reader);
                before += 1;
            }
            present.poll();
        }
        let queue = present.queue();
        pause = if queue.woken == before { PAUSE } else { BEAT };
        (woken, came) = (queue.woken, queue.came);
    }
}

struct Task {
    state: Mutex<State>,
    queued: AtomicBool,
    /// Waits for its end.
    waiter: OnceLock<Waker>,
    executor: Weak<Executor>,
}

enum State {
    Going(Work),
    Done,
    /// With what it panicked.
    Panicked(Box<dyn Any + Send>),
}

impl Task {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(self: Arc<Self>) {
        self.queued.store(false, Ordering::Release);
        let mut state = self.state();
        let State::Going(work) = &mut *state else { return };
        let waker = Waker::from(Arc::clone(&self));
        let mut cx = Context::from_waker(&waker);
        // Whoever polls is not to suffer; whoever waits is.
        *state = match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx))) {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(())) => State::Done,
            Err(panic) => State::Panicked(panic),
        };
        drop(state);
        if let Some(waiter) = self.waiter.get() {
            waiter.wake_by_ref();
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if let Some(executor) = self.executor.upgrade() {
            executor.push(self);
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

struct Running(Arc<Task>);

impl Future for Running {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = &self.0;
        if task.waiter.get().is_none() {
            task.waiter.get_or_init(|| cx.waker().clone());
            Arc::clone(task).wake();
        }
        let mut state = task.state();
        if matches!(*state, State::Going(_)) {
            return Poll::Pending;
        }
        match std::mem::replace(&mut *state, State::Done) {
            State::Panicked(panic) => resume_unwind(panic),
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may still be queued, but nothing may live on in it.
        *self.0.state() = State::Done;
    }
}

/// The executor as quinn wants it: its timers on the network's thread, its socket where workers
/// wait.
#[derive(Debug)]
pub(crate) struct QuinnRuntime(pub(crate) Arc<Executor>);

impl quinn::Runtime for QuinnRuntime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let _network = self.0.network.enter();
        quinn::TokioRuntime.new_timer(deadline)
    }

    fn spawn(&self, future: Work) {
        let task = self.0.task(future);
        // An endpoint's first task reads its socket.
        self.0.reader.get_or_init(|| Arc::downgrade(&task));
        self.0.network.spawn(Running(task));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _workers = self.0.enter_workers();
        quinn::TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        quinn::TokioRuntime.now()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::busy::BUSY_WAIT;

    const SOON: Duration = Duration::from_secs(5);

    struct World {
        executor: Option<Arc<Executor>>,
        workers: Runtime,
        network: Runtime,
    }

    impl World {
        fn new() -> Self {
            let one = |name: &str| {
                let mut threads = Builder::new_multi_thread();
                threads.worker_threads(1).thread_name(name).enable_all().build().unwrap()
            };
            let (workers, network) = (one("worker"), one("network"));
            let executor = Some(Executor::new(network.handle(), workers.handle(), BUSY_WAIT));
            Self { executor, workers, network }
        }

        /// A task that tells which thread polls it, whenever it is woken.
        fn teller(&self) -> (Arc<Notify>, Receiver<String>, tokio::task::JoinHandle<()>) {
            let woken = Arc::new(Notify::new());
            let (tell, told) = channel();
            let waits = Arc::clone(&woken);
            let work = async move {
                loop {
                    tell_thread(&tell);
                    waits.notified().await;
                }
            };
            let task = self.executor.as_ref().unwrap().run(Box::pin(work));
            let task = self.network.spawn(task);
            told.recv_timeout(SOON).unwrap();
            (woken, told, task)
        }
    }

    fn tell_thread(tell: &Sender<String>) {
        // The test may have ended.
        drop(tell.send(thread::current().name().unwrap_or_default().to_owned()));
    }

    #[test]
    fn what_never_rests_leaves_others_on_its_thread_their_turn() {
        let world = World::new();
        let endless = std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        let executor = world.executor.as_ref().unwrap();
        let _task = world.network.spawn(executor.run(Box::pin(endless)));
        let turn = |on: &Runtime| {
            let (tell, told) = channel();
            on.spawn(async move { tell.send(()).unwrap() });
            told.recv_timeout(SOON)
        };
        turn(&world.workers).expect("a process has its turn");

        let (go_on, held) = channel::<()>();
        world.workers.spawn(async move { held.recv() });
        // The network's thread comes by soon, and takes over.
        thread::sleep(10 * BEAT);
        for _ in 0..10 {
            turn(&world.network).expect("a heartbeat has its turn");
        }
        go_on.send(()).unwrap();
    }

    #[test]
    fn what_a_process_wakes_is_polled_where_processes_run() {
        let world = World::new();
        let (woken, told, _task) = world.teller();
        // The network's thread may come by in between, and a busy machine lets it.
        let by_workers = (0..100)
            .filter(|_| {
                let woken = Arc::clone(&woken);
                world.workers.spawn(async move { woken.notify_one() });
                told.recv_timeout(SOON).unwrap() == "worker"
            })
            .count();
        assert!(by_workers > 50, "{by_workers} of 100");
    }

    #[test]
    fn what_the_network_wakes_it_polls_itself() {
        let world = World::new();
        let (woken, told, _task) = world.teller();
        let executor = world.executor.as_ref().unwrap();
        while executor.thread.get().is_none() {
            thread::yield_now();
        }
        let again = Arc::clone(&woken);
        world.network.spawn(async move { again.notify_one() });
        assert_eq!(told.recv_timeout(SOON).unwrap(), "network");
    }

    #[test]
    fn the_network_takes_over_from_workers_that_are_held() {
        let world = World::new();
        let (woken, told, _task) = world.teller();
        let (holds, held) = channel();
        let (release, released) = channel::<()>();
        let wakes = Arc::clone(&woken);
        world.workers.spawn(async move {
            wakes.notify_one();
            holds.send(()).unwrap();
            // Released, or the test is over.
            let _ = released.recv();
        });
        held.recv_timeout(SOON).unwrap();
        for _ in 0..10 {
            assert_eq!(told.recv_timeout(SOON).unwrap(), "network");
            woken.notify_one();
        }
        drop(release);
    }

    #[test]
    fn a_task_that_wakes_itself_leaves_others_their_turn() {
        let world = World::new();
        let endless = std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        world.network.spawn(world.executor.as_ref().unwrap().run(Box::pin(endless)));
        let (woken, told, _task) = world.teller();
        let (done, is_done) = channel();
        world.workers.spawn(async move {
            woken.notify_one();
            tokio::task::yield_now().await;
            done.send(()).unwrap();
        });
        told.recv_timeout(SOON).unwrap();
        is_done.recv_timeout(SOON).unwrap();
    }

    #[test]
    fn a_task_ends_where_it_is_waited_for_and_lives_no_longer_than_that() {
        let world = World::new();
        let executor = world.executor.as_ref().unwrap();
        let ends = world.network.spawn(executor.run(Box::pin(tokio::task::yield_now())));
        world.workers.block_on(ends).unwrap();

        let (_woken, told, task) = world.teller();
        task.abort();
        assert!(world.workers.block_on(task).unwrap_err().is_cancelled());
        assert!(told.recv_timeout(SOON).is_err(), "its future is gone, and what it held");
    }

    #[test]
    fn one_that_panics_does_so_where_it_is_waited_for_and_workers_go_on() {
        let world = World::new();
        let executor = world.executor.as_ref().unwrap();
        let panics = world.network.spawn(executor.run(Box::pin(async { panic!("for the test") })));
        let panic = world.workers.block_on(panics).unwrap_err();
        assert_eq!(panic.into_panic().downcast_ref(), Some(&"for the test"));

        let came = executor.queue().came;
        let (woken, told, _task) = world.teller();
        let until = Instant::now() + SOON;
        // The network's thread may be first, now and then.
        while executor.queue().came == came {
            assert!(Instant::now() < until, "no worker comes any more");
            let woken = Arc::clone(&woken);
            world.workers.spawn(async move { woken.notify_one() });
            told.recv_timeout(SOON).unwrap();
        }
    }

    #[test]
    fn it_ends_with_its_last_clone() {
        let mut world = World::new();
        let weak = Arc::downgrade(&world.executor.take().unwrap());
        let until = Instant::now() + SOON;
        while weak.strong_count() > 0 || world.workers.metrics().num_alive_tasks() > 0 {
            assert!(Instant::now() < until, "{} alive", world.workers.metrics().num_alive_tasks());
            thread::sleep(Duration::from_millis(1));
        }
    }
}
