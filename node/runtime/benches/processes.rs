//! What processes cost, on one node: bytes, starts, messages, calls, restarts, notices.
//!
//! `cargo bench -p purlin-runtime [-- NAME…]`, or `-- idle 10000000` for a number of idle processes.
//! Each line shows the figure, Purlin's goal, and what others were measured at on a machine of the
//! same kind (DESIGN §7). Machines differ: compare lines of one run.

#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin_runtime::{
    Actor, ChildSpec, Context, Down, ExitReason, Handler, Message, NodeId, Outcome, Peer, Priority,
    RawKind, Received, Ref, Remote, Runtime, Sent, Strategy, Supervisor,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// As the stock binary has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static RAW: RawKind = RawKind::new("bench");

#[derive(Debug, Serialize, Deserialize)]
struct Add(u64);

impl Message for Add {
    const NAME: &'static str = "bench.add";
    type Reply = u64;
}

/// Tells when it has handled so many.
struct Counter {
    total: u64,
    handled: u64,
}

static DONE: Notify = Notify::const_new();
static HANDLED: AtomicU64 = AtomicU64::new(0);

impl Actor for Counter {
    const KIND: &'static str = "counter";
    type Args = u64;
    type Messages = (Add,);

    async fn start(handled: u64, _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { total: 0, handled })
    }
}

impl Handler<Add> for Counter {
    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Outcome<u64> {
        self.total += n;
        self.handled = self.handled.wrapping_sub(1);
        if self.handled == 0 {
            HANDLED.fetch_add(1, Ordering::Relaxed);
            DONE.notify_one();
        }
        Ok(self.total)
    }
}

/// Eight bytes of state and nothing to do.
struct Idle {
    _state: u64,
}

impl Actor for Idle {
    const KIND: &'static str = "idle";
    type Args = u64;
    type Messages = (Add,);

    async fn start(state: u64, _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { _state: state })
    }
}

impl Handler<Add> for Idle {
    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Outcome<u64> {
        Ok(n)
    }
}

/// Crashes whenever it is told to.
struct Crasher;

#[derive(Debug, Serialize, Deserialize)]
struct Crash;

impl Message for Crash {
    const NAME: &'static str = "bench.crash";
    type Reply = ();
}

impl Actor for Crasher {
    const KIND: &'static str = "crasher";
    type Args = ();
    type Messages = (Crash,);

    async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
        HANDLED.fetch_add(1, Ordering::Relaxed);
        ctx.me().send(Crash);
        Ok(Self)
    }
}

impl Handler<Crash> for Crasher {
    async fn handle(&mut self, _: Crash, _: &mut Context<Self>) -> Outcome {
        Err("again".into())
    }
}

fn line(name: &str, figure: f64, unit: &str, goal: &str, others: &str) {
    println!("{name:<34} {figure:>12.0} {unit:<8} goal {goal:<12} {others}");
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096.0
}

async fn idle(count: u64) {
    let runtime = Runtime::local("a".into());
    let before = resident();
    let begun = Instant::now();
    let mut last = None;
    for number in 0..count {
        last = Some(runtime.spawn::<Idle>(number).await.unwrap());
    }
    let took = begun.elapsed();
    let each = (resident() - before) / count as f64;
    assert_eq!(last.unwrap().call(Add(7)).await, Ok(7));
    assert_eq!(runtime.process_count() as u64, count);
    line(&format!("idle process, of {count}"), each, "bytes", "<= 600", "OTP 2692, actix 823");
    line("  started one after the other", rate(count, took), "/s", "", "");
    let begun = Instant::now();
    runtime.shutdown(Duration::from_mins(1)).await;
    line("  all shut down", rate(count, begun.elapsed()), "/s", "", "");
}

/// As the children of one supervisor, whose side of the links is counted too.
async fn linked() {
    const COUNT: u64 = 200_000;
    let runtime = Runtime::local("a".into());
    let body = |ctx: purlin_runtime::RawContext| async move {
        let before = resident();
        for number in 0..COUNT {
            ctx.spawn_link::<Idle>(number).await?;
        }
        let each = (resident() - before) / COUNT as f64;
        line("idle process, linked to one other", each, "bytes", "", "");
        DONE.notify_one();
        std::future::pending().await
    };
    runtime.spawn_raw(&RAW, body).unwrap();
    DONE.notified().await;
    runtime.shutdown(Duration::from_mins(1)).await;
}

async fn spawn_exit() {
    const COUNT: u64 = 1_000_000;
    let runtime = Runtime::local("a".into());
    let begun = Instant::now();
    for _ in 0..COUNT {
        black_box(runtime.spawn_raw(&RAW, |_| async { Ok(()) }).unwrap());
    }
    while runtime.process_count() > 0 {
        tokio::task::yield_now().await;
    }
    let took = begun.elapsed();
    line("spawn + exit", rate(COUNT, took), "/s", ">= 1.5 M", "OTP 672 k, actix 1.6 M");
}

async fn send(pairs: u64, count: u64) {
    let runtime = Runtime::local("a".into());
    let each = count / pairs;
    HANDLED.store(0, Ordering::Relaxed);
    let mut receivers: Vec<Ref<Counter>> = Vec::new();
    for _ in 0..pairs {
        receivers.push(runtime.spawn::<Counter>(each).await.unwrap());
    }
    let begun = Instant::now();
    for receiver in receivers {
        let body = move |_| async move {
            for n in 0..each {
                receiver.send_wait(Add(n)).await;
            }
            Ok(())
        };
        runtime.spawn_raw(&RAW, body).unwrap();
    }
    while HANDLED.load(Ordering::Relaxed) < pairs {
        DONE.notified().await;
    }
    let took = begun.elapsed();
    let name = format!("send {pairs} -> {pairs}");
    line(&name, rate(count, took), "/s", ">= 10 M", "OTP 4.4 M, actix 14 M, ractor 3.2 M");
}

async fn call() {
    const COUNT: u64 = 1_000_000;
    let runtime = Runtime::local("a".into());
    let callee = runtime.spawn::<Counter>(0).await.unwrap();
    let task = runtime.task(async move {
        let begun = Instant::now();
        for n in 0..COUNT {
            black_box(callee.call(Add(n)).await.unwrap());
        }
        begun.elapsed()
    });
    let took = task.join().await.unwrap();
    line("call, one caller", rate(COUNT, took), "/s", ">= 1.2 M", "OTP 511 k, actix 1.56 M");
}

async fn supervised() {
    let runtime = Runtime::local("a".into());
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut supervisor = Supervisor::new(Strategy::OneForOne);
        for number in 0..1_000_u64 {
            supervisor = supervisor.child(ChildSpec::actor::<Idle>(number.to_string(), number));
        }
        let begun = Instant::now();
        let root = runtime.supervise(supervisor).await.unwrap();
        best = best.min(begun.elapsed());
        runtime.exit(&root, ExitReason::Shutdown);
        while runtime.process_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    line("1,000 supervised children start", best.as_secs_f64() * 1e6, "us", "< 5,000", "");
}

async fn restarts() {
    let runtime = Runtime::local("a".into());
    HANDLED.store(0, Ordering::Relaxed);
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .intensity(usize::MAX, Duration::from_secs(1))
        .child(ChildSpec::actor::<Crasher>("crasher", ()));
    let begun = Instant::now();
    let root = runtime.supervise(supervisor).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let count = HANDLED.load(Ordering::Relaxed);
    line(
        "restarts of a crashing child",
        rate(count, begun.elapsed()),
        "/s",
        ">= 100 k",
        "OTP 6.1 k",
    );
    runtime.exit(&root, ExitReason::Kill);
}

async fn monitors() {
    const COUNT: u64 = 100_000;
    let runtime = Runtime::local("a".into());
    let target = runtime.spawn::<Idle>(0).await.unwrap().pid();
    let fired = Arc::new(AtomicU64::new(0));
    for _ in 0..COUNT {
        let fired = Arc::clone(&fired);
        let body = move |mut ctx: purlin_runtime::RawContext| async move {
            ctx.monitor(target);
            fired.fetch_add(1, Ordering::Relaxed);
            let Received::Down(Down { .. }) = ctx.receive().await? else { return Ok(()) };
            if fired.fetch_sub(1, Ordering::Relaxed) == 1 {
                DONE.notify_one();
            }
            Ok(())
        };
        runtime.spawn_raw(&RAW, body).unwrap();
    }
    while fired.load(Ordering::Relaxed) < COUNT {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    runtime.exit(target, ExitReason::Kill);
    while fired.load(Ordering::Relaxed) > 0 {
        DONE.notified().await;
    }
    line("100,000 monitors fire", begun.elapsed().as_secs_f64() * 1e3, "ms", "< 50", "OTP 60");
}

/// Takes everything for another node, and does nothing with it.
struct Nowhere;

impl Remote for Nowhere {
    fn send_large(
        &self,
        to: Peer,
        from: u64,
        priority: Priority,
        frame: purlin_proto::Pieces,
    ) -> Sent {
        self.send(to, from, priority, &mut |out| {
            out.extend_from_slice(&frame.clone().into_bytes());
            true
        })
    }

    fn tell(&self, _: purlin_proto::NodeName, _: &purlin_proto::Frame) {}

    fn send(
        &self,
        _: Peer,
        _: u64,
        _: Priority,
        encode: &mut dyn FnMut(&mut bytes::BytesMut) -> bool,
    ) -> Sent {
        black_box(encode(&mut bytes::BytesMut::new()));
        Sent::Accepted
    }

    fn ready(&self, _: Peer, _: u64) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// The processor time that this program has had.
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    Duration::from_nanos(tasks.map(of).sum())
}

/// Watchers of one process elsewhere, when the connection to its node is lost.
async fn lost() {
    const COUNT: u64 = 100_000;
    let runtime = Runtime::local("a".into());
    runtime.set_remote(Arc::new(Nowhere));
    let target = NodeId::new("b".into(), 1).pid(1);
    let waiting = Arc::new(AtomicU64::new(0));
    for _ in 0..COUNT {
        let waiting = Arc::clone(&waiting);
        let body = move |mut ctx: purlin_runtime::RawContext| async move {
            ctx.monitor(target);
            waiting.fetch_add(1, Ordering::Relaxed);
            loop {
                ctx.receive().await?;
                if waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
                    DONE.notify_one();
                }
            }
        };
        runtime.spawn_raw(&RAW, body).unwrap();
    }
    while waiting.load(Ordering::Relaxed) < COUNT {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (begun, before) = (Instant::now(), processor_time());
    runtime.connection_lost("b".into());
    while waiting.load(Ordering::Relaxed) > 0 {
        DONE.notified().await;
    }
    let (took, busy) = (begun.elapsed(), processor_time().saturating_sub(before));
    line("100,000 remote monitors are lost", took.as_secs_f64() * 1e3, "ms", "< 60", "OTP TLS 81");
    line("  processor time", busy.as_secs_f64() * 1e3, "ms", "", "");
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wants = |name: &str| arguments.is_empty() || arguments.iter().any(|a| a == name);
    let number = arguments.iter().find_map(|a| a.parse().ok());
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    executor.block_on(async {
        let run = async |name: &str, bench: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            if wants(name) {
                tokio::spawn(bench).await.unwrap();
            }
        };
        run("idle", Box::pin(idle(number.unwrap_or(1_000_000)))).await;
        run("linked", Box::pin(linked())).await;
        run("spawn", Box::pin(spawn_exit())).await;
        run("send", Box::pin(send(1, 10_000_000))).await;
        run("send", Box::pin(send(100, 10_000_000))).await;
        run("call", Box::pin(call())).await;
        run("supervised", Box::pin(supervised())).await;
        run("restarts", Box::pin(restarts())).await;
        run("monitors", Box::pin(monitors())).await;
        run("lost", Box::pin(lost())).await;
    });
    executor.shutdown_background();
}
