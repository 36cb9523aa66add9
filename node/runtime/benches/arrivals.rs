//! What messages of another node cost here: into the mailbox, and out of it through the handler;
//! time and allocations.
//!
//! `cargo bench -p purlin-runtime --bench arrivals`. Messages of 64 bytes, as they lie in their
//! frames, are given to `Inbound::messages` in batches; when 128 lie there, the processes run until
//! they have handled them. All on one thread, so that the two do not overlap: the first line of each
//! pair is what the network's thread has to do, the second what the processes have.
//!
//! The allocator is the system's and counts, unlike the stock binary's: the first line says what an
//! allocation adds to the times. Machines differ: compare lines of one run.

#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use purlin_proto::{Direct, DirectKind, MessageRef, Target};
use purlin_runtime::{Actor, Context, Handler, Message, NodeId, Outcome, Runtime};
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// So many lie in mailboxes before any is handled.
const WAITING: usize = 128;
const ROUNDS: usize = 8_000;
const WARM_UP: usize = 1_000;

static HANDLED: AtomicUsize = AtomicUsize::new(0);

/// 64 bytes, and nothing in it that has to be allocated.
#[derive(Debug, Serialize, Deserialize)]
struct Sample([u64; 8]);

impl Message for Sample {
    const NAME: &'static str = "bench.sample";
    type Reply = ();
}

struct Counter {
    total: u64,
}

impl Actor for Counter {
    const KIND: &'static str = "counter";
    type Args = ();
    type Messages = (Sample,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { total: 0 })
    }
}

impl Handler<Sample> for Counter {
    async fn handle(&mut self, Sample(numbers): Sample, _: &mut Context<Self>) -> Outcome {
        self.total = self.total.wrapping_add(numbers[0]);
        HANDLED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What something cost.
#[derive(Default)]
struct Cost {
    took: Duration,
    allocations: usize,
    bytes: usize,
}

/// Begins to measure.
fn begin() -> (Instant, Stats) {
    (Instant::now(), ALLOCATOR.stats())
}

impl Cost {
    fn add(&mut self, (begun, before): (Instant, Stats)) {
        self.took += begun.elapsed();
        let made = ALLOCATOR.stats() - before;
        self.allocations += made.allocations + made.reallocations;
        self.bytes += made.bytes_allocated;
    }

    fn line(&self, name: &str, count: usize) {
        let of_each = |sum: f64| sum / count as f64;
        println!(
            "{name:<40} {:>8.1} ns {:>8.2} allocations {:>8.1} bytes",
            of_each(self.took.as_secs_f64() * 1e9),
            of_each(self.allocations as f64),
            of_each(self.bytes as f64),
        );
    }
}

async fn arrivals(batch: usize, processes: usize) {
    let runtime = Runtime::local("a".into());
    let mut frames = Vec::new();
    for _ in 0..processes {
        let to = Target::pid(runtime.spawn::<Counter>(()).await.unwrap().pid());
        let (what, value) = (DirectKind::Send(Sample::NAME), &Sample([7; 8]));
        let mut frame = BytesMut::new();
        Direct { to: &to, from: 1, what, value }.encode(&mut frame).unwrap();
        frames.push(frame.freeze());
    }
    let read = |frame| MessageRef::read(frame, "").unwrap().unwrap();
    // To one process after the other, and enough to begin with any of them.
    let messages: Vec<_> =
        frames.iter().cycle().take(processes + WAITING).map(|frame| read(frame)).collect();
    let inbound = runtime.inbound(NodeId::new("b".into(), 1));

    HANDLED.store(0, Ordering::Relaxed);
    let (mut arriving, mut handling) = (Cost::default(), Cost::default());
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            (arriving, handling) = (Cost::default(), Cost::default());
        }
        let next = &messages[round * WAITING % processes..][..WAITING];
        let begun = begin();
        for batch in next.chunks(batch) {
            inbound.messages(black_box(batch)).unwrap();
        }
        arriving.add(begun);
        let begun = begin();
        while HANDLED.load(Ordering::Relaxed) < (round + 1) * WAITING {
            tokio::task::yield_now().await;
        }
        handling.add(begun);
    }
    let to = if processes == 1 { "one process".into() } else { format!("{processes} in turn") };
    arriving.line(&format!("batches of {batch}, to {to}"), ROUNDS * WAITING);
    handling.line("  taken and handled", ROUNDS * WAITING);
}

fn main() {
    let mut cost = Cost::default();
    let begun = begin();
    (0..1_000_000).for_each(|_| drop(black_box(Box::new(7_u64))));
    cost.add(begun);
    cost.line("an allocation and its end, counted", 1_000_000);

    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for processes in [1, 100] {
        for batch in [1, 16, 128] {
            executor.block_on(arrivals(batch, processes));
        }
    }
}
