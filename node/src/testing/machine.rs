//! One machine of a simulated cluster: a tokio runtime that runs only when it is told to, with a
//! clock of its own.
//!
//! Everything that a node does, and all that its actors spawn, runs on the machine's runtime. So a
//! crash is the end of that runtime, a freeze is not running it, and a clock that runs fast is one
//! that is advanced by more. A turn runs it until nothing can go on without time passing or a packet
//! coming: the hook that tokio calls before it would park the thread tells that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::{Builder, Handle, Runtime};

pub(super) struct Machine {
    runtime: Runtime,
    idle: Arc<Idle>,
    clock: Clock,
}

/// The clocks of one machine.
struct Clock {
    /// When its rate was last set, in the world's time, and what it showed then.
    since: (Duration, Duration),
    /// How much time it counts in one second of the world.
    rate: f64,
    shown: Duration,
    wall: Arc<WallClock>,
}

/// What the machine holds for the time of day, in nanoseconds since 1970.
pub(super) struct WallClock(AtomicU64);

impl WallClock {
    pub(super) fn since_1970(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.since_1970()
    }
}

/// Ends a turn when the runtime has nothing to do.
#[derive(Default)]
struct Idle(Mutex<Turn>);

#[derive(Default)]
enum Turn {
    #[default]
    None,
    Running(Waker),
    Over,
}

impl Idle {
    /// Called whenever the runtime has nothing to do.
    fn reached(&self) {
        let mut turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Turn::Running(waker) = &*turn {
            let waker = waker.clone();
            *turn = Turn::Over;
            drop(turn);
            waker.wake();
        }
    }

    async fn wait(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Turn::None;
        std::future::poll_fn(|cx| {
            let mut turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match *turn {
                Turn::Over => Poll::Ready(()),
                _ => {
                    *turn = Turn::Running(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

impl Machine {
    /// Switches a machine on.
    pub(super) fn new(born: Duration, rate: f64, wall: Duration) -> std::io::Result<Self> {
        let idle = Arc::new(Idle::default());
        let hook = Arc::clone(&idle);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || hook.reached())
            .build()?;
        let nanos = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        let wall = Arc::new(WallClock(AtomicU64::new(nanos)));
        let since = (born, Duration::ZERO);
        let clock = Clock { since, rate, shown: Duration::ZERO, wall };
        Ok(Self { runtime, idle, clock })
    }

    pub(super) fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Lets its clocks run at another rate from now on.
    pub(super) fn set_rate(&mut self, now: Duration, rate: f64) {
        self.clock.set_rate(now, rate);
    }

    pub(super) fn wall_clock(&self) -> Arc<WallClock> {
        Arc::clone(&self.clock.wall)
    }

    /// Whether something from outside waits to be run.
    pub(super) fn is_woken(&self) -> bool {
        self.runtime.handle().metrics().global_queue_depth() > 0
    }

    /// Runs everything that can go on at this time of the world.
    pub(super) fn turn(&mut self, now: Duration) {
        let passed = self.clock.advance(now);
        let idle = &self.idle;
        self.runtime.block_on(async {
            if passed > Duration::ZERO {
                tokio::time::advance(passed).await;
            }
            idle.wait().await;
        });
    }

    /// Switches it off: every task is dropped, and nothing more runs.
    pub(super) fn crash(self) {
        self.runtime.shutdown_background();
    }
}

impl Clock {
    /// Follows the world's time; returns how far it went on.
    fn advance(&mut self, now: Duration) -> Duration {
        let (since, shown) = self.since;
        let shown = shown + now.saturating_sub(since).mul_f64(self.rate);
        let passed = shown.saturating_sub(self.shown);
        self.shown += passed;
        let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        self.wall.0.fetch_add(nanos, Ordering::Relaxed);
        passed
    }

    fn set_rate(&mut self, now: Duration, rate: f64) {
        let (since, shown) = self.since;
        self.since = (now, shown + now.saturating_sub(since).mul_f64(self.rate));
        self.rate = rate;
    }
}
