//! What a message to a process on another node costs: two OS processes, real sockets on loopback,
//! beside bare quinn in the same run.
//!
//! `cargo bench -p purlin-cluster-tests --bench remote [-- NAME…]`. Each line shows the figure,
//! Purlin's goal and what others were measured at on a machine of the same kind (DESIGN §7).
//! Machines differ: compare lines of one run.

#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "remote/bare.rs"]
mod bare;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin::prelude::*;
use purlin::{RawKind, Received};
use tokio::sync::Notify;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static BENCH: RawKind = RawKind::new("bench");

/// Counts what it gets, and answers with the count.
struct Sink {
    count: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Item(#[serde(with = "serde_bytes")] Vec<u8>);

impl Message for Item {
    const NAME: &'static str = "sink.item";
    type Reply = ();
}

#[derive(Serialize, Deserialize)]
struct Count;

impl Message for Count {
    const NAME: &'static str = "sink.count";
    type Reply = u64;
}

#[derive(Serialize, Deserialize)]
struct Echo(#[serde(with = "serde_bytes")] Vec<u8>);

impl Message for Echo {
    const NAME: &'static str = "sink.echo";
    type Reply = serde_bytes::ByteBuf;
}

impl Actor for Sink {
    const KIND: &'static str = "sink";
    type Args = ();
    type Messages = (Item, Count, Echo);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { count: 0 })
    }
}

impl Handler<Item> for Sink {
    async fn handle(&mut self, _: Item, _: &mut Context<Self>) -> Outcome {
        self.count += 1;
        Ok(())
    }
}

impl Handler<Count> for Sink {
    async fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Outcome<u64> {
        Ok(self.count)
    }
}

impl Handler<Echo> for Sink {
    async fn handle(
        &mut self,
        Echo(bytes): Echo,
        _: &mut Context<Self>,
    ) -> Outcome<serde_bytes::ByteBuf> {
        Ok(bytes.into())
    }
}

fn line(name: &str, figure: f64, unit: &str, goal: &str, others: &str) {
    println!("{name:<44} {figure:>12.1} {unit:<6} goal {goal:<14} {others}");
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// The middle and the 99th of a hundred, in microseconds.
fn quantiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}

/// The other node, as a process of its own.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // It may have been killed already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start_other(role: &str, home: &std::path::Path) -> (Other, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env("PURLIN_BENCH_ROLE", role)
        .env("PURLIN_HOME", home)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    (Other(child), address.trim().to_owned())
}

async fn serve() {
    let builder = Node::builder().name("b").listen("127.0.0.1:0").actor::<Sink>();
    let node = builder.start().await.unwrap();
    println!("{}", node.address());
    std::future::pending::<()>().await;
}

/// A node `a` that has found `b`.
struct Pair {
    a: Node,
    other: Option<Other>,
    _home: tempfile::TempDir,
}

impl Pair {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("home");
        let (other, address) = start_other("node", &dir);
        let builder = Node::builder().name("a").listen("127.0.0.1:0").data_dir(&dir);
        let a = builder.actor::<Sink>().seed(address).start().await.unwrap();
        while a.members().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { a, other: Some(other), _home: home }
    }

    async fn sinks(&self, count: usize) -> Vec<Ref<Sink>> {
        let mut sinks = Vec::new();
        for _ in 0..count {
            sinks.push(self.a.spawn_on::<Sink>(&"b".into(), ()).await.unwrap());
        }
        sinks
    }

    /// Runs a future as a process of node `a`.
    async fn run<T: Send + 'static>(&self, body: impl Future<Output = T> + Send + 'static) -> T {
        self.a.runtime().task(body).join().await.unwrap()
    }

    async fn round_trip(&self, calls: usize) -> (f64, f64) {
        let sink = self.sinks(1).await.remove(0);
        let times = self.run(async move {
            let mut times = Vec::with_capacity(calls);
            for _ in 0..calls {
                let begun = Instant::now();
                sink.call(Echo(vec![7; 64])).await.unwrap();
                times.push(begun.elapsed());
            }
            times
        });
        quantiles(times.await)
    }

    async fn one_way(&self, pairs: usize, messages: u64, size: usize) -> f64 {
        let sinks = self.sinks(pairs).await;
        let each = messages / pairs as u64;
        let left = Arc::new((AtomicU64::new(pairs as u64), Notify::new()));
        let begun = Instant::now();
        for sink in sinks {
            let left = Arc::clone(&left);
            let body = move |_| async move {
                for _ in 0..each {
                    sink.send_wait(Item(vec![7; size])).await;
                }
                let mut got = 0;
                while got < each {
                    got = sink.call_timeout(Count, Duration::from_mins(1)).await?;
                }
                if left.0.fetch_sub(1, Ordering::SeqCst) == 1 {
                    left.1.notify_one();
                }
                Ok(())
            };
            self.a.runtime().spawn_raw(&BENCH, body).unwrap();
        }
        left.1.notified().await;
        rate(each * pairs as u64, begun.elapsed())
    }

    async fn calls(&self, callers: usize, calls: u64) -> f64 {
        let sinks = self.sinks(callers.min(64)).await;
        let each = calls / callers as u64;
        let left = Arc::new((AtomicU64::new(callers as u64), Notify::new()));
        let begun = Instant::now();
        for caller in 0..callers {
            let (sink, left) = (sinks[caller % sinks.len()].clone(), Arc::clone(&left));
            let body = move |_| async move {
                for _ in 0..each {
                    sink.call_timeout(Count, Duration::from_mins(1)).await?;
                }
                if left.0.fetch_sub(1, Ordering::SeqCst) == 1 {
                    left.1.notify_one();
                }
                Ok(())
            };
            self.a.runtime().spawn_raw(&BENCH, body).unwrap();
        }
        left.1.notified().await;
        rate(each * callers as u64, begun.elapsed())
    }

    /// Messages of 1 KiB from one process to each of many, so many times: one by one, then to all at
    /// once. Each from the first send until one in a hundred has said that it has them all.
    async fn fan_out(&self, receivers: usize, times: u64) -> (f64, f64) {
        let (one, all) = (self.sinks(receivers).await, self.sinks(receivers).await);
        let runtime = self.a.runtime().clone();
        self.run(async move {
            let item = || Item(vec![7; 1 << 10]);
            let begun = Instant::now();
            for _ in 0..times {
                for sink in &one {
                    sink.send_wait(item()).await;
                }
            }
            until_have(one.iter().step_by(100), times).await;
            let one_by_one = begun.elapsed();
            let begun = Instant::now();
            for _ in 0..times {
                runtime.send_all(&all, item());
            }
            until_have(all.iter().step_by(100), times).await;
            let at_once = begun.elapsed();
            until_have(one.iter().chain(&all), times).await;
            let count = times * receivers as u64;
            (rate(count, one_by_one), rate(count, at_once))
        })
        .await
    }

    /// Round trips while large messages stream between others.
    async fn beside_bulk(&self) -> (f64, f64, f64) {
        let sink = self.sinks(1).await.remove(0);
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        let streams = move |_| async move {
            loop {
                sink.send_wait(Item(vec![7; 8 << 20])).await;
                counted.fetch_add(8 << 20, Ordering::Relaxed);
            }
        };
        let pid = self.a.runtime().spawn_raw(&BENCH, streams).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (begun, before) = (Instant::now(), sent.load(Ordering::Relaxed));
        let (middle, most) = self.round_trip(5_000).await;
        let bulk = rate(sent.load(Ordering::Relaxed) - before, begun.elapsed()) / 1e6;
        self.a.runtime().exit(pid, ExitReason::Kill);
        tokio::time::sleep(Duration::from_secs(1)).await;
        (middle, most, bulk)
    }

    /// From the first notice of a killed node to the last, with so many monitors.
    async fn monitors(&mut self, count: u64) -> (Duration, Duration) {
        let target = self.sinks(1).await.remove(0).pid();
        let waiting = Arc::new(AtomicU64::new(0));
        let (first, last) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        for _ in 0..count {
            let (waiting, first, last) = (waiting.clone(), first.clone(), last.clone());
            let body = move |mut ctx: purlin::RawContext| async move {
                ctx.monitor(target);
                waiting.fetch_add(1, Ordering::SeqCst);
                while !matches!(ctx.receive().await?, Received::Down(_)) {}
                first.notify_one();
                if waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
                    last.notify_one();
                }
                Ok(())
            };
            self.a.runtime().spawn_raw(&BENCH, body).unwrap();
        }
        while waiting.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // For what is on its way to the other node.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        drop(self.other.take());
        first.notified().await;
        let noticed = begun.elapsed();
        last.notified().await;
        (noticed, begun.elapsed().saturating_sub(noticed))
    }
}

/// Waits until each has so many; nothing may have been dropped.
async fn until_have(sinks: impl Iterator<Item = &Ref<Sink>>, count: u64) {
    for sink in sinks {
        let mut got = 0;
        while got < count {
            got = sink.call_timeout(Count, Duration::from_mins(1)).await.unwrap();
        }
    }
}

fn main() {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match std::env::var("PURLIN_BENCH_ROLE").as_deref() {
        Ok("node") => executor.block_on(serve()),
        Ok("bare") => executor.block_on(bare::serve()),
        _ => executor.block_on(measure()),
    }
    executor.shutdown_background();
}

async fn measure() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wants = |name: &str| arguments.is_empty() || arguments.iter().any(|a| a == name);
    if wants("bare") {
        let home = tempfile::tempdir().unwrap();
        let (_other, address) = start_other("bare", home.path());
        let bare = bare::connect(&address).await;
        let (middle, most) = quantiles(bare::echo(&bare, 20_000).await);
        line("bare quinn: round trip p50", middle, "us", "", "");
        line("bare quinn: round trip p99", most, "us", "", "");
        line("bare quinn: stream", bare::stream(&bare, 2 << 30).await / 1e6, "MB/s", "", "");
    }
    let mut pair = Pair::start().await;
    if wants("round-trip") {
        // To warm up.
        pair.round_trip(2_000).await;
        let (middle, most) = pair.round_trip(20_000).await;
        line("round trip p50", middle, "us", "<= 1.2 x bare", "OTP TLS 55, kameo 100, coerce 19");
        line("round trip p99", most, "us", "", "");
    }
    if wants("one-way") {
        let one = pair.one_way(1, 5_000_000, 64).await;
        line("one-way 1 -> 1, 64 B", one / 1e3, "k/s", ">= 5,000", "OTP TLS 378, coerce 224");
        let many = pair.one_way(100, 10_000_000, 64).await;
        line("one-way 100 -> 100, 64 B", many / 1e3, "k/s", ">= 6,000", "OTP TLS 252, coerce 234");
    }
    if wants("calls") {
        let calls = pair.calls(64, 1_000_000).await;
        line("calls, 64 callers", calls / 1e3, "k/s", ">= 500", "OTP TLS 84, coerce 185");
        let calls = pair.calls(1_000, 1_000_000).await;
        line("calls, 1,000 callers", calls / 1e3, "k/s", ">= 600", "OTP TLS 84, coerce 242");
    }
    if wants("large") {
        let large = pair.one_way(4, 20_000, 64 << 10).await * 65_536.0 / 1e6;
        line("one-way 64 KiB", large, "MB/s", ">= 0.9 x bare", "OTP TLS 110, coerce 1,536");
        let huge = pair.one_way(4, 1_000, 1 << 20).await * 1_048_576.0 / 1e6;
        line("one-way 1 MiB", huge, "MB/s", "", "");
    }
    if wants("bulk") {
        let (middle, most, bulk) = pair.beside_bulk().await;
        line("round trip p50 beside 8 MiB messages", middle, "us", "", "");
        line("round trip p99 beside 8 MiB messages", most, "us", "<= 1,000", "OTP TLS 46,000+");
        line("  the bulk meanwhile", bulk, "MB/s", "", "");
    }
    if wants("fan-out") {
        let (one_by_one, at_once) = pair.fan_out(10_000, 50).await;
        line("1 KiB to 10,000, one by one", one_by_one / 1e3, "k/s", "", "");
        line("1 KiB to 10,000, send_all", at_once / 1e3, "k/s", "", "");
    }
    if wants("monitors") {
        let (noticed, took) = pair.monitors(100_000).await;
        line("kill -9 noticed", noticed.as_secs_f64() * 1e3, "ms", "< 1,000", "kameo 14,000");
        let took = took.as_secs_f64() * 1e3;
        line("100,000 remote monitors fire", took, "ms", "<= 60", "OTP TLS 81");
    }
    pair.a.stop().await;
}
