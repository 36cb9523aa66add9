//! The loops, the same for all systems: warm up, measure for a time, let the receivers confirm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use crate::report::{Cpu, Metric, Report};
use crate::sides::{Clocks, Kill, Spent};
use crate::system::{System, Target};
use crate::workload::{GRACE, Task, Workload};

/// What small messages are.
const SMALL: usize = 64;

/// What large messages beside them are.
const BULK: usize = 8 << 20;

/// Bytes between two confirmations of a system whose senders do not wait, and the fewest messages.
const WINDOW_BYTES: u64 = 16 << 20;
const WINDOW_LEAST: u64 = 4;

/// A run of one workload.
struct Run<S: System> {
    system: Arc<S>,
    length: Duration,
    clocks: Clocks,
}

/// What was counted between two moments.
#[derive(Default)]
struct Counted {
    sent: u64,
    received: u64,
    took: Duration,
}

pub(crate) async fn run<S: System>(
    system: Arc<S>,
    task: Task,
    length: Duration,
    clocks: Clocks,
    kill: Kill,
) -> Result<Report> {
    let run = Run { system, length, clocks };
    let mut report = match task.workload {
        Workload::RoundTrip => run.round_trip().await,
        Workload::OneWay { size, pairs } => run.one_way(size, pairs).await,
        Workload::Calls { callers } => run.calls(callers).await,
        Workload::BesideBulk { both } => run.beside_bulk(both).await,
        Workload::Overload => run.overload().await,
        Workload::Monitors => return monitors(run.system, task, kill).await,
        Workload::SpawnExit => run.spawn_exit().await,
        Workload::FanOut => run.fan_out().await,
    }?;
    report.workload = task.to_string();
    Ok(report)
}

fn small() -> Bytes {
    Bytes::from(vec![7; SMALL])
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The middle, the 99th of a hundred and the 999th of a thousand, in microseconds.
fn quantiles(mut times: Vec<Duration>) -> Result<Vec<Metric>> {
    ensure!(!times.is_empty(), "nothing came back");
    times.sort_unstable();
    let at = |share: usize| micros(times[(times.len() * share / 1_000).min(times.len() - 1)]);
    let named = [("p50", 500), ("p99", 990), ("p99.9", 999)];
    Ok(named.map(|(name, share)| Metric::new(name, at(share), "µs")).to_vec())
}

impl<S: System> Run<S> {
    fn warm(&self) -> Duration {
        (self.length / 3).max(Duration::from_millis(200))
    }

    fn report(&self, metrics: Vec<Metric>, counted: &Counted, before: Spent) -> Result<Report> {
        let after = self.clocks.read()?;
        let each = |spent: Duration| spent.as_nanos() as f64 / counted.received.max(1) as f64;
        Ok(Report {
            workload: String::new(),
            metrics,
            sent: counted.sent,
            received: counted.received,
            cpu_ns_per_msg: Some(Cpu {
                client: each(after.near.saturating_sub(before.near)),
                server: each(after.far.saturating_sub(before.far)),
            }),
        })
    }

    async fn one_target(&self) -> Result<S::Target> {
        Ok(self.system.targets(1).await?.remove(0))
    }

    async fn round_trip(&self) -> Result<Report> {
        let target = self.one_target().await?;
        self.system.run(echo(target.clone(), self.warm())).await?;
        let before = self.clocks.read()?;
        let times = self.system.run(echo(target, self.length)).await?;
        let count = times.len() as u64;
        let counted = Counted { sent: count, received: count, took: self.length };
        self.report(quantiles(times)?, &counted, before)
    }

    async fn one_way(&self, size: usize, pairs: usize) -> Result<Report> {
        let targets = self.system.targets(pairs).await?;
        let window = (!S::SENDERS_WAIT).then(|| {
            let of_bytes = WINDOW_BYTES / (size * pairs) as u64;
            let of_messages = S::WINDOW / pairs as u64;
            of_bytes.max(WINDOW_LEAST).min(of_messages.max(1))
        });
        self.stream(&targets, size, window, self.warm()).await?;
        let before = self.clocks.read()?;
        let counted = self.stream(&targets, size, window, self.length).await?;
        let speed = rate(counted.received, counted.took);
        let messages = Metric::new("rate", speed, "msg/s");
        let bytes = Metric::new("bytes", speed * size as f64 / 1e6, "MB/s");
        let metrics = if size < 65_536 { vec![messages, bytes] } else { vec![bytes, messages] };
        self.report(metrics, &counted, before)
    }

    /// One sender to each target, all at once.
    async fn stream(
        &self,
        targets: &[S::Target],
        size: usize,
        window: Option<u64>,
        length: Duration,
    ) -> Result<Counted> {
        let begun = Instant::now();
        let body = |target: &S::Target| stream(target.clone(), size, window, begun + length);
        let tasks: Vec<_> = targets.iter().map(|target| self.system.run(body(target))).collect();
        let mut counted = Counted::default();
        for task in tasks {
            let (sent, received, last) = task.await?;
            counted.sent += sent;
            counted.received += received;
            counted.took = counted.took.max(last.saturating_duration_since(begun));
        }
        Ok(counted)
    }

    async fn calls(&self, callers: usize) -> Result<Report> {
        let targets = self.system.targets(callers.min(64)).await?;
        self.call_all(&targets, callers, self.warm()).await?;
        let before = self.clocks.read()?;
        let counted = self.call_all(&targets, callers, self.length).await?;
        let speed = rate(counted.received, counted.took);
        self.report(vec![Metric::new("rate", speed, "calls/s")], &counted, before)
    }

    async fn call_all(
        &self,
        targets: &[S::Target],
        callers: usize,
        length: Duration,
    ) -> Result<Counted> {
        let begun = Instant::now();
        let end = begun + length;
        let body = |caller: usize| {
            let mut target = targets[caller % targets.len()].clone();
            async move {
                let message = small();
                let mut done = 0_u64;
                while Instant::now() < end {
                    ensure!(target.call(&message).await? == SMALL, "another answer");
                    done += 1;
                }
                Ok(done)
            }
        };
        let tasks: Vec<_> = (0..callers).map(|caller| self.system.run(body(caller))).collect();
        let mut done = 0;
        for task in tasks {
            done += task.await?;
        }
        Ok(Counted { sent: done, received: done, took: begun.elapsed() })
    }

    async fn beside_bulk(&self, both: bool) -> Result<Report> {
        let mut targets = self.system.targets(3).await?;
        let target = targets.remove(0);
        self.system.run(echo(target.clone(), self.warm())).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let mut streams = Vec::new();
        if both {
            // What is called with 8 MiB answers with as much.
            for target in targets {
                streams.push(tokio::spawn(self.system.run(call_bulk(target, Arc::clone(&stop)))));
            }
        } else {
            let target = targets.remove(0);
            let wait = S::SENDERS_WAIT;
            streams.push(tokio::spawn(self.system.run(send_bulk(target, Arc::clone(&stop), wait))));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = self.clocks.read()?;
        let times = self.system.run(echo(target, self.length)).await;
        stop.store(true, Ordering::Relaxed);
        let times = times.context("the small pair")?;
        let count = times.len() as u64;
        let counted = Counted { sent: count, received: count, took: self.length };
        let mut metrics = quantiles(times)?;
        metrics.rotate_left(1);
        let mut report = self.report(metrics, &counted, before)?;
        let mut bulk = 0;
        for stream in streams {
            bulk += stream.await??;
        }
        let bulk = rate(bulk * BULK as u64, begun.elapsed()) / 1e6;
        report.metrics.push(Metric::new("bulk", bulk, "MB/s"));
        Ok(report)
    }

    async fn overload(&self) -> Result<Report> {
        let mut targets = self.system.targets(2).await?;
        let (slow, target) = (targets.remove(0), targets.remove(0));
        self.system.run(echo(target.clone(), self.warm())).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let small = self.clocks.memory()?;
        let begun = Instant::now();
        let flood = tokio::spawn(self.system.run(flood(slow, Arc::clone(&stop))));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = self.clocks.read()?;
        let times = self.system.run(echo(target, self.length)).await;
        stop.store(true, Ordering::Relaxed);
        let large = self.clocks.memory()?;
        let flooded = rate(flood.await??, begun.elapsed());
        let times = times.context("the small pair")?;
        let count = times.len() as u64;
        let counted = Counted { sent: count, received: count, took: self.length };
        let mut metrics = quantiles(times)?;
        metrics.rotate_left(1);
        let grown = large.saturating_sub(small) as f64 / 1e6;
        metrics.push(Metric::new("memory of both, grown by", grown, "MB"));
        metrics.push(Metric::new("flood", flooded, "msg/s"));
        self.report(metrics, &counted, before)
    }

    async fn spawn_exit(&self) -> Result<Report> {
        let one = |length| {
            let system = Arc::clone(&self.system);
            async move {
                let end = Instant::now() + length;
                let mut times = Vec::new();
                while Instant::now() < end {
                    let begun = Instant::now();
                    system.spawn_exit().await?;
                    times.push(begun.elapsed());
                }
                Ok(times)
            }
        };
        self.system.run(one(self.warm())).await?;
        let times = self.system.run(one(self.length / 2)).await?;
        let (before, begun) = (self.clocks.read()?, Instant::now());
        let tasks: Vec<_> = (0..64).map(|_| self.system.run(one(self.length / 2))).collect();
        let mut done = 0;
        for task in tasks {
            done += task.await?.len() as u64;
        }
        let counted = Counted { sent: done, received: done, took: begun.elapsed() };
        let mut metrics = vec![Metric::new("rate, 64 at once", rate(done, counted.took), "/s")];
        metrics.extend(quantiles(times)?.into_iter().take(2));
        self.report(metrics, &counted, before)
    }

    async fn fan_out(&self) -> Result<Report> {
        let mut targets = self.system.targets(Task::AUDIENCE).await?;
        let system = Arc::clone(&self.system);
        let (warm, length, clocks) = (self.warm(), self.length, self.clocks);
        let ran = self.system.run(async move {
            let mut asked = targets[0].clone();
            let base = asked.total().await?;
            fan_out(&*system, &mut targets, &mut asked, base, warm).await?;
            let (before, base) = (clocks.read()?, asked.total().await?);
            let ran = fan_out(&*system, &mut targets, &mut asked, base, length).await?;
            Ok((ran.0, ran.1, before))
        });
        let (counted, times, before) = ran.await?;
        let mut metrics = vec![Metric::new("rate", rate(counted.received, counted.took), "msg/s")];
        metrics.extend(quantiles(times)?.into_iter().take(1).map(|mut middle| {
            "one fan-out, p50".clone_into(&mut middle.name);
            middle
        }));
        self.report(metrics, &counted, before)
    }
}

/// Fans out again and again, each time until all have it.
async fn fan_out<S: System>(
    system: &S,
    targets: &mut Vec<S::Target>,
    asked: &mut S::Target,
    base: u64,
    length: Duration,
) -> Result<(Counted, Vec<Duration>)> {
    let message = Bytes::from(vec![7; 1_024]);
    let begun = Instant::now();
    let mut counted = Counted::default();
    let mut times = Vec::new();
    while begun.elapsed() < length {
        let started = Instant::now();
        system.fan_out(targets, &message).await?;
        counted.sent += targets.len() as u64;
        let sent = counted.sent;
        let got = confirmed(asked, Whose::All, base, sent).await?;
        counted.received = got;
        if got < sent {
            break;
        }
        times.push(started.elapsed());
    }
    counted.took = begun.elapsed();
    Ok((counted, times))
}

/// Whose messages are counted.
#[derive(Clone, Copy)]
enum Whose {
    Own,
    All,
}

async fn ask<T: Target>(target: &mut T, whose: Whose) -> Result<u64> {
    match whose {
        Whose::Own => target.count().await,
        Whose::All => target.total().await,
    }
}

/// Asks until as many are there as were sent, or no more come.
async fn confirmed<T: Target>(target: &mut T, whose: Whose, base: u64, sent: u64) -> Result<u64> {
    let (mut got, mut progress) = (ask(target, whose).await? - base, Instant::now());
    while got < sent && progress.elapsed() < GRACE {
        tokio::time::sleep(Duration::from_micros(200)).await;
        let now = ask(target, whose).await? - base;
        if now > got {
            (got, progress) = (now, Instant::now());
        }
    }
    Ok(got)
}

/// Sends until a time and has it confirmed: how many were sent, how many received, until when.
async fn stream<T: Target>(
    mut target: T,
    size: usize,
    window: Option<u64>,
    end: Instant,
) -> Result<(u64, u64, Instant)> {
    let message = Bytes::from(vec![7; size]);
    let base = target.count().await?;
    let every = if size < 65_536 { 64 } else { 1 };
    let (mut sent, mut lost) = (0_u64, 0_u64);
    while Instant::now() < end {
        for _ in 0..every {
            target.send(&message).await?;
            sent += 1;
            if window.is_some_and(|window| sent.is_multiple_of(window)) {
                let expected = sent - lost;
                let got = confirmed(&mut target, Whose::Own, base, expected).await?;
                lost += expected.saturating_sub(got);
            }
        }
    }
    let expected = sent - lost;
    let got = confirmed(&mut target, Whose::Own, base, expected).await?;
    let mut last = Instant::now();
    if got < expected {
        // The wait for what never came is not the system's time.
        last = last.checked_sub(GRACE).unwrap_or(last);
    }
    Ok((sent, got, last))
}

async fn echo<T: Target>(mut target: T, length: Duration) -> Result<Vec<Duration>> {
    let message = small();
    let end = Instant::now() + length;
    let mut times = Vec::with_capacity(100_000);
    loop {
        let begun = Instant::now();
        if begun >= end {
            return Ok(times);
        }
        ensure!(target.call(&message).await? == SMALL, "another answer");
        times.push(begun.elapsed());
    }
}

/// Streams large messages until it is told to stop; how many have arrived.
async fn send_bulk<T: Target>(mut target: T, stop: Arc<AtomicBool>, waits: bool) -> Result<u64> {
    let message = Bytes::from(vec![7; BULK]);
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        target.send(&message).await.context("the bulk pair")?;
        sent += 1;
        if !waits && sent % WINDOW_LEAST == 0 {
            confirmed(&mut target, Whose::Own, 0, sent).await?;
        }
    }
    confirmed(&mut target, Whose::Own, 0, sent).await
}

/// Sends without waiting until it is told to stop; how many.
async fn flood<T: Target>(mut target: T, stop: Arc<AtomicBool>) -> Result<u64> {
    let message = small();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..64 {
            target.flood(&message).await?;
            sent += 1;
        }
        // Others of this side have their turn.
        tokio::task::yield_now().await;
    }
    Ok(sent)
}

async fn call_bulk<T: Target>(mut target: T, stop: Arc<AtomicBool>) -> Result<u64> {
    let message = Bytes::from(vec![7; BULK]);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        ensure!(target.call(&message).await.context("the bulk pair")? == BULK, "another answer");
        done += 1;
    }
    Ok(done)
}

async fn monitors<S: System>(system: Arc<S>, task: Task, kill: Kill) -> Result<Report> {
    let fired = system.monitors(Task::WATCHERS, kill).await?;
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Report {
        workload: task.to_string(),
        metrics: vec![
            Metric::new("first to last notice", millis(fired.took()), "ms"),
            Metric::new("kill -9 noticed", millis(fired.noticed()), "ms"),
        ],
        sent: Task::WATCHERS,
        received: Task::WATCHERS,
        cpu_ns_per_msg: None,
    })
}
