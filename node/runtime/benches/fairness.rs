//! What the polite have to wait while others flood, or compute without yielding.
//!
//! `cargo bench -p purlin-runtime --bench fairness [-- NAME…]`, on two workers as the goal says. Each
//! line shows how long the calls of 10,000 processes took, in pairs, and Purlin's goal (issue
//! "Fairness and isolation"). `busy`: each calls again at once, so 5,000 calls are always out;
//! `paced`: each pauses for 10 to 100 ms between two calls, so that the two cores are not worn out by
//! the polite alone; counted from when the pause should have ended, of which tokio's timer takes up
//! to 1 ms.

#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use purlin_runtime::{
    Actor, Context, Handler, Message, Outcome, Pid, RawContext, RawKind, Received, Ref, Runtime,
};
use serde::{Deserialize, Serialize};

/// As the stock binary has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static RAW: RawKind = RawKind::new("bench");

/// From which instants are counted that are sent.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

const WORKERS: usize = 2;
const PAIRS: u64 = 5_000;
const FLOODED: usize = 8;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);

#[derive(Debug, Serialize, Deserialize)]
struct Ping(u64);

impl Message for Ping {
    const NAME: &'static str = "fair.ping";
    type Reply = u64;
}

#[derive(Debug, Serialize, Deserialize)]
struct Compute {
    millis: u64,
    /// Sent a [`Late`] each time, before it computes.
    tells: Pid,
}

impl Message for Compute {
    const NAME: &'static str = "fair.compute";
    type Reply = ();
}

/// Tells when it was sent.
#[derive(Debug, Serialize, Deserialize)]
struct Late {
    /// After [`EPOCH`].
    sent: Duration,
}

impl Message for Late {
    const NAME: &'static str = "fair.late";
    type Reply = ();
}

struct Counter {
    total: u64,
}

impl Actor for Counter {
    const KIND: &'static str = "counter";
    type Args = ();
    type Messages = (Ping, Compute);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { total: 0 })
    }
}

impl Handler<Ping> for Counter {
    async fn handle(&mut self, Ping(n): Ping, _: &mut Context<Self>) -> Outcome<u64> {
        self.total += n;
        Ok(self.total)
    }
}

impl Handler<Compute> for Counter {
    async fn handle(&mut self, compute: Compute, ctx: &mut Context<Self>) -> Outcome {
        let begun = Instant::now();
        ctx.send(compute.tells, Late { sent: EPOCH.elapsed() });
        let until = begun + Duration::from_millis(compute.millis);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        ctx.me().send(compute);
        Ok(())
    }
}

/// Durations by size: within each power of two, 16 steps, so that a figure is 6 % off at most.
struct Histogram {
    counts: Vec<AtomicU64>,
    longest: AtomicU64,
}

const STEPS: u64 = 16;

impl Histogram {
    fn new() -> Self {
        let counts = (0..64 * STEPS).map(|_| AtomicU64::new(0)).collect();
        Self { counts, longest: AtomicU64::new(0) }
    }

    fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap().max(STEPS);
        let power = u64::from(nanos.ilog2());
        let step = (nanos >> (power - 4)) & (STEPS - 1);
        let slot = usize::try_from(power * STEPS + step).unwrap();
        self.counts[slot].fetch_add(1, Ordering::Relaxed);
        self.longest.fetch_max(nanos, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// In milliseconds, the upper end of the step it lies in.
    fn quantile(&self, part: f64) -> f64 {
        let wanted = self.count() as f64 * part;
        let mut seen = 0;
        for (slot, count) in (0_u64..).zip(&self.counts) {
            seen += count.load(Ordering::Relaxed);
            if seen as f64 >= wanted {
                let (power, step) = (slot / STEPS, slot % STEPS);
                return (((STEPS + step + 1) << power) / STEPS) as f64 / 1e6;
            }
        }
        0.0
    }
}

/// What goes on in one measurement.
struct Stage {
    runtime: Runtime,
    took: Arc<Histogram>,
    /// What a process that computes has sent.
    late: Arc<Histogram>,
    measuring: Arc<AtomicBool>,
    flooded: Mutex<Vec<Ref<Counter>>>,
}

impl Stage {
    fn new() -> Self {
        let measuring = Arc::new(AtomicBool::new(false));
        let (took, late) = (Arc::new(Histogram::new()), Arc::new(Histogram::new()));
        let runtime = Runtime::local("a".into());
        watch(&runtime);
        Self { runtime, took, late, measuring, flooded: Mutex::default() }
    }

    /// Two processes of which one calls the other, for ever.
    async fn pair(&self, number: u64, paced: bool) {
        let callee = self.runtime.spawn::<Counter>(()).await.unwrap();
        let (took, measuring) = (Arc::clone(&self.took), Arc::clone(&self.measuring));
        let body = move |_: RawContext| async move {
            let mut pause = number;
            loop {
                let mut begun = Instant::now();
                if paced {
                    // No two pairs in step, and the same in every run.
                    pause = pause.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number | 1);
                    begun += Duration::from_millis(10 + (pause >> 33) % 90);
                    tokio::time::sleep_until(begun.into()).await;
                }
                let Ok(_) = callee.call(Ping(1)).await else { return Ok(()) };
                if measuring.load(Ordering::Relaxed) {
                    took.record(begun.elapsed());
                }
            }
        };
        self.runtime.spawn_raw(&RAW, body).unwrap();
    }

    /// A process with a full mailbox and those who keep it full.
    async fn flooded(&self, senders: usize) {
        let flooded = self.runtime.spawn::<Counter>(()).await.unwrap();
        for _ in 0..senders {
            let to = flooded.clone();
            let body = move |_: RawContext| async move {
                while to.is_alive() {
                    to.send_wait(Ping(1)).await;
                }
                Ok(())
            };
            self.runtime.spawn_raw(&RAW, body).unwrap();
        }
        self.flooded.lock().unwrap().push(flooded);
    }

    /// A process that computes without ever yielding, and one that it sends to: how late is that?
    async fn computes(&self, millis: u64) {
        let late = Arc::clone(&self.late);
        let body = |mut ctx: RawContext| async move {
            loop {
                let Received::Message(message) = ctx.receive().await? else { continue };
                if let Ok(Ok((Late { sent }, _))) = message.take::<Late>() {
                    late.record(EPOCH.elapsed().saturating_sub(sent));
                }
            }
        };
        let tells = self.runtime.spawn_raw(&RAW, body).unwrap();
        let computes = self.runtime.spawn::<Counter>(()).await.unwrap();
        computes.send(Compute { millis, tells });
    }

    fn flood(&self) -> (u64, usize) {
        let of = |flooded: &Ref<Counter>| {
            let detail = self.runtime.process_detail(&flooded.into()).unwrap();
            (detail.handled, detail.mailbox)
        };
        let all: Vec<_> = self.flooded.lock().unwrap().iter().map(of).collect();
        (all.iter().map(|(handled, _)| handled).sum(), all.iter().map(|(_, len)| len).sum())
    }

    async fn measure(self, name: &str, goal: &str) {
        tokio::time::sleep(WARM_UP).await;
        let (before, _) = self.flood();
        self.measuring.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        tokio::time::sleep(MEASURED).await;
        self.measuring.store(false, Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        let (after, waiting) = self.flood();
        let took = &self.took;
        let calls = took.count() as f64 / seconds;
        let longest = took.longest.load(Ordering::Relaxed) as f64 / 1e6;
        let [median, high] = [0.5, 0.99].map(|part| took.quantile(part));
        println!(
            "{name:<34} p50 {median:>8.2} ms  p99 {high:>8.2} ms  max {longest:>8.2} ms  goal \
             {goal:<14} {calls:>9.0} calls/s, flood {:>10.0} messages/s, {waiting} waiting",
            (after - before) as f64 / seconds,
        );
        if self.late.count() > 0 {
            let longest = self.late.longest.load(Ordering::Relaxed) as f64 / 1e6;
            let median = self.late.quantile(0.5);
            println!(
                "  told by the computing              p50 {median:>8.2} ms  max {longest:.2} ms"
            );
        }
        self.runtime.shutdown(Duration::from_secs(1)).await;
    }
}

async fn polite(
    paced: bool,
    flooded: usize,
    senders: usize,
    computes: usize,
    millis: u64,
) -> Stage {
    let stage = Stage::new();
    for number in 0..PAIRS {
        stage.pair(number, paced).await;
    }
    for _ in 0..flooded {
        stage.flooded(senders).await;
    }
    for _ in 0..computes {
        stage.computes(millis).await;
    }
    stage
}

/// Looks at the workers as a node does, from a thread of its own, as long as anything runs.
fn watch(runtime: &Runtime) {
    let runtime = runtime.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        while runtime.process_count() > 0 {
            runtime.check_workers();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wants = |name: &str| arguments.is_empty() || arguments.iter().any(|a| a == name);
    let run = |name: &str, stage: std::pin::Pin<Box<dyn Future<Output = Stage> + Send>>, goal| {
        if !wants(name.split(',').next().unwrap()) {
            return;
        }
        // A new executor each, so that nothing is left of the last.
        let mut executor = tokio::runtime::Builder::new_multi_thread();
        let executor = executor.worker_threads(WORKERS).enable_all().build().unwrap();
        let name = name.to_owned();
        executor.block_on(async move {
            tokio::spawn(async move { stage.await.measure(&name, goal).await }).await.unwrap();
        });
        executor.shutdown_background();
    };
    let stage = |paced, flooded, senders, computes, millis| {
        Box::pin(polite(paced, flooded, senders, computes, millis))
    };
    run("busy", stage(false, 0, 0, 0, 0), "");
    run("busy, 8 flooded by 1 each", stage(false, FLOODED, 1, 0, 0), "p99 < 10 ms");
    run("busy, 8 flooded by 4 each", stage(false, FLOODED, 4, 0, 0), "p99 < 10 ms");
    run("paced", stage(true, 0, 0, 0, 0), "");
    run("paced, 8 flooded by 1 each", stage(true, FLOODED, 1, 0, 0), "p99 < 10 ms");
    run("paced, 8 flooded by 4 each", stage(true, FLOODED, 4, 0, 0), "p99 < 10 ms");
    run("computing, 1 for 200 ms each time", stage(true, 0, 0, 1, 200), "none");
    run("computing, 1 and 8 flooded", stage(true, FLOODED, 4, 1, 200), "none");
    // As many as workers: between two handlers of one process others should come to run.
    run("captured, 2 for 20 ms each time", stage(true, 0, 0, 2, 20), "none");
}
