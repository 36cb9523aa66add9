//! A sender that is faster than its receiver on another node: slowed or dropped and counted, within
//! bounded memory, and nobody else notices.
//!
//! On the network in memory and on paused time, and once over real sockets with the memory that it
//! takes.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use purlin::prelude::*;
use purlin::{Mailbox, RawKind, Received, WhenFull};
use purlin_cluster_tests::memory::{Cluster, until_sees};
use purlin_cluster_tests::sockets::Home;
use tokio::sync::watch;

static SENDER: RawKind = RawKind::new("sender");
/// Its mailbox holds a hundred messages.
static SMALL: RawKind = RawKind::new("small").mailbox(Mailbox::bounded(100, WhenFull::Wait));
static LATEST: RawKind = RawKind::new("latest").mailbox(Mailbox::bounded(5, WhenFull::DropOldest));
static LARGE: RawKind = RawKind::new("large");

/// A number and some bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Item(u64, #[serde(with = "serde_bytes")] Vec<u8>);

impl Message for Item {
    const NAME: &'static str = "sink.item";
    type Reply = u64;
}

/// What all nodes' messages may take up here.
const INFLOW: usize = 16 << 20;

const LANE: usize = 256 << 10;

/// More than the lanes between two nodes hold.
const LANES: u64 = 4 * 5 * LANE as u64;

async fn cluster() -> Cluster {
    Cluster::start(2, |builder| builder.inflow_bytes(INFLOW).lane_bytes(LANE)).await
}

/// A process that reads only while it is let, and remembers what.
struct Sink {
    pid: Pid,
    reads: watch::Sender<bool>,
    read: watch::Receiver<Vec<u64>>,
}

impl Sink {
    fn start(node: &Node, kind: &'static RawKind) -> Self {
        let (reads, mut may_read) = watch::channel(false);
        let (tell, read) = watch::channel(Vec::new());
        let body = |mut ctx: purlin::RawContext| async move {
            loop {
                // Ends with the test.
                if may_read.wait_for(|reads| *reads).await.is_err() {
                    return Ok(());
                }
                if let Received::Message(message) = ctx.receive().await?
                    && let Ok(Ok((Item(number, _), reply))) = message.take::<Item>()
                {
                    tell.send_modify(|read: &mut Vec<u64>| read.push(number));
                    reply.send(number);
                }
            }
        };
        let pid = node.runtime().spawn_raw(kind, body).unwrap();
        Self { pid, reads, read }
    }

    async fn until(&mut self, count: usize) -> Vec<u64> {
        let read = self.read.wait_for(|read| read.len() >= count);
        tokio::time::timeout(Duration::from_mins(5), read)
            .await
            .expect("all of them")
            .unwrap()
            .clone()
    }
}

/// Sends as many as it can with `send_wait`; tells how many have been taken.
fn push(node: &Node, to: impl Into<Dest>, count: u64, size: usize) -> Arc<AtomicU64> {
    let (to, sent) = (to.into(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&sent);
    let body = move |ctx: purlin::RawContext| async move {
        for number in 0..count {
            ctx.runtime().send_wait(to.clone(), Item(number, vec![7; size])).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    node.runtime().spawn_raw(&SENDER, body).unwrap();
    sent
}

/// Until it stays as it is for a while.
async fn at_rest(count: &AtomicU64) -> u64 {
    loop {
        let before = count.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if count.load(Ordering::Relaxed) == before {
            return before;
        }
    }
}

fn dropped(node: &Node, name: &str) -> u64 {
    let counters = node.runtime().counters().snapshot();
    counters.iter().find(|counter| counter.name == name).unwrap().count
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_slowed_by_a_full_mailbox_and_loses_nothing() {
    let cluster = cluster().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut sink = Sink::start(b, &SMALL);
    b.runtime().register("sink".parse().unwrap(), sink.pid).unwrap();

    for to in [Dest::from(sink.pid), "sink@n1".parse().unwrap()] {
        let count = 100_000;
        let before = sink.read.borrow().len();
        sink.reads.send_replace(false);
        let sent = push(a, to, count, 8);

        assert!(at_rest(&sent).await < count, "it is held back");

        sink.reads.send_replace(true);
        let read = sink.until(before + usize::try_from(count).unwrap()).await;
        assert_eq!(read[before..], (0..count).collect::<Vec<_>>());
    }
    for node in [a, b] {
        assert_eq!(dropped(node, "dropped.mailbox_full"), 0);
        assert_eq!(dropped(node, "dropped.link_full"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_send_to_a_full_mailbox_is_dropped_and_counted() {
    let cluster = cluster().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut sink = Sink::start(b, &SMALL);
    let to = sink.pid;
    let body = move |ctx: purlin::RawContext| async move {
        for number in 0..200_000 {
            ctx.runtime().send(to, Item(number, vec![7; 8]));
            tokio::task::consume_budget().await;
        }
        Ok(())
    };
    let sender = a.runtime().spawn_raw(&SENDER, body).unwrap();
    b.runtime().down(sender).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(dropped(a, "dropped.mailbox_full") > 0, "the sending node knows");

    sink.reads.send_replace(true);
    let read = sink.until(100).await.len();
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert_eq!(sink.read.borrow().len(), read, "what the mailbox held");
    let lost = [(a, "dropped.mailbox_full"), (a, "dropped.link_full"), (b, "dropped.mailbox_full")];
    let lost: u64 = lost.iter().map(|(node, name)| dropped(node, name)).sum();
    assert_eq!(lost + read as u64, 200_000, "every one is accounted for");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_room_until_its_deadline() {
    let cluster = cluster().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut sink = Sink::start(b, &SMALL);
    let sent = push(a, sink.pid, 200_000, 8);
    at_rest(&sent).await;

    let called = a.runtime().call(sink.pid, Item(1, Vec::new())).await;
    assert_eq!(called, Err(CallError::Overloaded));

    let runtime = a.runtime().clone();
    let to = sink.pid;
    let timeout = Duration::from_mins(10);
    let call =
        tokio::spawn(async move { runtime.call_timeout(to, Item(7, Vec::new()), timeout).await });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!call.is_finished(), "it waits");
    sink.reads.send_replace(true);
    assert_eq!(call.await.unwrap(), Ok(7));
    sink.until(200_001).await;
}

#[tokio::test(start_paused = true)]
async fn the_oldest_go_where_only_the_latest_matter() {
    let cluster = cluster().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut sink = Sink::start(b, &LATEST);
    let sent = push(a, sink.pid, 10_000, 8);
    assert_eq!(at_rest(&sent).await, 10_000, "nobody waits");

    sink.reads.send_replace(true);
    let read = sink.until(5).await;

    // Besides those that were in its hands before the first was dropped.
    assert_eq!(read[read.len() - 5..], (9_995..10_000).collect::<Vec<_>>());
    assert_eq!(dropped(b, "dropped.mailbox_full") + read.len() as u64, 10_000);
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_that_does_not_read_may_hold_is_bounded_and_others_go_on() {
    let cluster = cluster().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let size = 16 << 10;
    let stuck: Vec<_> = (0..20).map(|_| Sink::start(b, &LARGE)).collect();
    let pushed: Vec<_> = stuck.iter().map(|sink| push(a, sink.pid, 2_000, size)).collect();
    let mut taken = 0;
    for sent in &pushed {
        taken += at_rest(sent).await;
    }
    // 650 MB were to be sent.
    let bound = INFLOW as u64 + LANES;
    assert!(taken * (size as u64) < bound, "{} MB", taken * size as u64 / 1_000_000);

    let mut free = Sink::start(b, &LARGE);
    free.reads.send_replace(true);
    let count = 2_000;
    let sent = push(a, free.pid, count, size);
    free.until(2_000).await;
    assert_eq!(sent.load(Ordering::Relaxed), count);
    let called = a.runtime().call(free.pid, Item(9, vec![7; size])).await;
    assert_eq!(called, Ok(9));

    // They were held back, not lost: some of each have come before.
    for mut sink in stuck {
        sink.reads.send_replace(true);
        let read = sink.until(800).await;
        assert_eq!(read[..800], (0..800).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_used_up_everything_stops_as_a_whole_and_goes_on() {
    let cluster = cluster().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    // One message each is within every share.
    let size = 60 << 10;
    let stuck: Vec<_> = (0..1_000).map(|_| Sink::start(b, &LARGE)).collect();
    let pushed: Vec<_> = stuck.iter().map(|sink| push(a, sink.pid, 3, size)).collect();
    for sent in &pushed[990..] {
        at_rest(sent).await;
    }
    let taken: u64 = pushed.iter().map(|sent| sent.load(Ordering::Relaxed)).sum();
    assert!(taken * (size as u64) < INFLOW as u64 + LANES, "{taken}");
    assert!(taken < 3_000);

    for sink in &stuck {
        sink.reads.send_replace(true);
    }
    for mut sink in stuck {
        assert_eq!(sink.until(3).await, [0, 1, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_let_go_when_the_receiver_ends_or_its_node_is_gone() {
    let cluster = cluster().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let count = 100_000;
    let sink = Sink::start(b, &SMALL);
    let sent = push(a, sink.pid, count, 8);
    assert!(at_rest(&sent).await < count);
    b.runtime().exit(sink.pid, ExitReason::Kill);
    assert_eq!(at_rest(&sent).await, count, "what is sent to the dead is counted there");
    assert!(dropped(b, "dropped.no_process") > 0);

    let sink = Sink::start(b, &SMALL);
    let sent = push(a, sink.pid, count, 8);
    assert!(at_rest(&sent).await < count);
    cluster.cut(a, b);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(at_rest(&sent).await, count);
    assert!(dropped(a, "dropped.no_connection") > 0);
}

#[tokio::test(start_paused = true)]
async fn callers_whose_calls_wait_in_a_process_that_ends_are_told_why() {
    let cluster = cluster().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    for taken in [false, true] {
        let sink = Sink::start(b, &LARGE);
        let calls: Vec<_> = (0..100)
            .map(|number| {
                let (runtime, to) = (a.runtime().clone(), sink.pid);
                tokio::spawn(async move {
                    let timeout = Duration::from_hours(1);
                    runtime.call_timeout(to, Item(number, vec![7; 8]), timeout).await
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        if taken {
            // It takes all there is, and answers some before it is stopped.
            sink.reads.send_replace(true);
            sink.read.clone().wait_for(|read| !read.is_empty()).await.unwrap();
        }
        b.runtime().exit(sink.pid, ExitReason::Kill);
        for (number, call) in (0..).zip(calls) {
            let answer = tokio::time::timeout(Duration::from_mins(1), call).await;
            let answer = answer.expect("nobody is forgotten").unwrap();
            let killed = Err(CallError::Exited(ExitReason::Killed));
            assert!(answer == killed || (taken && answer == Ok(number)), "{answer:?}");
        }
    }
}

/// What this process has in memory, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_for_one_that_does_not_read_takes_bounded_memory_over_real_sockets() {
    let home = Home::default();
    // In default settings, but for the time in which a busy machine is taken for a dead one.
    let builder = |name| home.builder(name).detect_in(Duration::from_secs(10));
    let b = builder("b").start().await.unwrap();
    let a = builder("a").seed(b.listen_address().to_string()).start().await.unwrap();
    until_sees(&a, 2).await;
    until_sees(&b, 2).await;
    let mut neighbour = Sink::start(&b, &LARGE);
    neighbour.reads.send_replace(true);
    let before = resident();

    // Small, middle and large messages: a gigabyte of each.
    let sizes = [1 << 10, 60 << 10, 1 << 20];
    let stuck: Vec<_> = sizes.iter().map(|_| Sink::start(&b, &LARGE)).collect();
    let pushed: Vec<_> = stuck
        .iter()
        .zip(sizes)
        .map(|(sink, size)| push(&a, sink.pid, (1 << 30) / size as u64, size))
        .collect();
    let mut taken = 0;
    for (sent, size) in pushed.iter().zip(sizes) {
        taken += at_rest(sent).await * size as u64;
    }
    let grown = resident().saturating_sub(before);
    println!("{} MB taken, {} MB more in memory", taken >> 20, grown >> 20);
    // A quarter, an eighth and a sixteenth of 256 MiB, and what the lanes hold.
    assert!(taken < (112 + 64) << 20);
    assert!(grown < 320 << 20, "on both sides and in between");

    let begun = std::time::Instant::now();
    push(&a, neighbour.pid, 2_000, 1 << 10);
    neighbour.until(2_000).await;
    println!("a neighbour has 2,000 messages in {:?}", begun.elapsed());
    for node in [&a, &b] {
        assert_eq!(dropped(node, "dropped.mailbox_full"), 0);
    }
    tokio::join!(a.stop(), b.stop());
}
