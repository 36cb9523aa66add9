//! What groups, topics and global names cost on three nodes over real sockets on loopback.
//!
//! `cargo bench -p purlin-cluster-tests --bench entries [-- NAME…]`. The nodes share this process, so
//! counts of deliveries are one atomic number.
//!
//! - `publish`: 64-byte messages to 1, 10 and 1,000 subscribers, spread over the nodes; one at a time
//!   (how long until the last has it), and 100 under way (how many are delivered a second).
//! - `join`: 10,000 processes of one node join a group; until all nodes see them (OTP's `pg` took
//!   2.6 s; the goal is 500 ms).
//! - `names`: 100,000 global names registered on three nodes; until all see all (goal: 50,000/s), and
//!   how long a look-up takes (goal: 1 µs).

#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin::{Message, Name, Node, Pid, RawKind, Received};
use purlin_cluster_tests::memory::until_sees;
use purlin_cluster_tests::sockets::Home;
use serde::{Deserialize, Serialize};

/// As the stock binary has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static READER: RawKind = RawKind::new("reader");

const MEASURED: Duration = Duration::from_secs(2);
const UNDER_WAY: u64 = 100;
const JOINING: usize = 10_000;
const NAMES: usize = 100_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct News([u64; 8]);

impl Message for News {
    const NAME: &'static str = "bench.news";
    type Reply = ();
}

/// A process that counts what it gets.
fn reader(node: &Node, delivered: &Arc<AtomicU64>) -> Pid {
    let delivered = Arc::clone(delivered);
    let body = |mut ctx: purlin::RawContext| async move {
        loop {
            if let Received::Message(_) = ctx.receive().await? {
                delivered.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    node.runtime().spawn_raw(&READER, body).unwrap()
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

/// Publishes rounds of so many messages for a while; how many rounds, and the median of their times.
async fn rounds(
    node: &Node,
    topic: &Name,
    delivered: &AtomicU64,
    each: u64,
    of: u64,
) -> (u64, Duration) {
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < MEASURED {
        let (before, started) = (delivered.load(Ordering::Relaxed), Instant::now());
        for number in 0..of {
            node.publish(topic.clone(), News([number; 8]));
        }
        until(|| delivered.load(Ordering::Relaxed) == before + of * each).await;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    (took.len() as u64, took[took.len() / 2])
}

async fn publish(nodes: &[Node; 3]) {
    for subscribers in [1, 10, 1_000] {
        let topic = Name::new(&format!("topic-{subscribers}")).unwrap();
        let delivered = Arc::new(AtomicU64::new(0));
        // The only one is on another node than the publisher.
        for number in 0..subscribers {
            let node = &nodes[(number + 1) % 3];
            node.runtime().subscribe(topic.clone(), reader(node, &delivered)).unwrap();
        }
        let interested = subscribers.min(2);
        until(|| {
            let infos = nodes[0].runtime().topic_infos(None);
            infos.iter().any(|info| info.topic == topic && info.nodes.len() == interested)
        })
        .await;
        let each = subscribers as u64;
        let (_, alone) = rounds(&nodes[0], &topic, &delivered, each, 1).await;
        let (count, _) = rounds(&nodes[0], &topic, &delivered, each, UNDER_WAY).await;
        let seconds = MEASURED.as_secs_f64();
        let published = (count * UNDER_WAY) as f64 / seconds;
        println!(
            "publish to {subscribers:>5}: {published:>10.0} published/s {:>12.0} delivered/s, \
             alone {alone:>8.1?} to the last",
            published * each as f64
        );
    }
}

async fn join(nodes: &[Node; 3]) {
    let nobody = Arc::new(AtomicU64::new(0));
    let pids: Vec<_> = (0..JOINING).map(|_| reader(&nodes[0], &nobody)).collect();
    let begun = Instant::now();
    for pid in &pids {
        nodes[0].runtime().join("bench", *pid).unwrap();
    }
    let here = begun.elapsed();
    let seen = |node: &Node| node.runtime().group_infos(None).iter().any(|g| g.members == JOINING);
    until(|| nodes.iter().all(seen)).await;
    println!("join: {JOINING} here in {here:.1?}, seen by all in {:.1?}", begun.elapsed());
}

async fn names(nodes: &[Node; 3]) {
    let nobody = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let holders: Vec<_> = nodes.iter().map(|node| reader(node, &nobody)).collect();
    let names: Vec<_> =
        (0..NAMES).map(|number| Name::new(&format!("name-{number}")).unwrap()).collect();
    for (number, name) in names.iter().enumerate() {
        let at = number % 3;
        nodes[at].runtime().register_global_available(name.clone(), holders[at]).unwrap();
    }
    // Each node's last name comes after all its others.
    let known =
        |node: &Node| names[NAMES - 3..].iter().all(|n| node.whereis_global(n.clone()).is_some());
    until(|| nodes.iter().all(known)).await;
    let all = begun.elapsed();
    let begun = Instant::now();
    for name in &names {
        assert!(nodes[0].runtime().whereis_global(name).is_some());
    }
    println!(
        "names: {NAMES} known by all in {all:.1?} ({:.0}/s), look-up {:.0?}",
        NAMES as f64 / all.as_secs_f64(),
        begun.elapsed() / u32::try_from(NAMES).unwrap()
    );
}

async fn run(wanted: &[String], name: &str, bench: impl Future<Output = ()>) {
    if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
        bench.await;
    }
}

#[tokio::main]
async fn main() {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let home = Home::default();
    let a = home.builder("a").start().await.unwrap();
    let seed = a.address().to_string();
    let b = home.builder("b").seed(seed.clone()).start().await.unwrap();
    let c = home.builder("c").seed(seed).start().await.unwrap();
    let nodes = [a, b, c];
    for node in &nodes {
        until_sees(node, 3).await;
    }
    run(&wanted, "publish", publish(&nodes)).await;
    run(&wanted, "join", join(&nodes)).await;
    run(&wanted, "names", names(&nodes)).await;
    for node in &nodes {
        node.stop().await;
    }
}
