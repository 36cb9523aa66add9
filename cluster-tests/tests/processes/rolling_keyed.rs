//! Five real nodes are restarted one after the other under load on keyed processes with state, of an
//! available kind and of an exclusive one, which is the default: no call fails, and no counter goes
//! back.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin::kinds::{Add, Counter, Read};
use purlin::{Keyed, Node as Observer};
use purlin_cluster_tests::process::{Cluster, Node};
use purlin_cluster_tests::rolling::{Five, SOON};
use tokio::task::JoinSet;

/// Keys that are used all the time, by so many callers of ten keys each, from 100 on.
const CALLERS: u64 = 8;

/// Keys that are used once before, and once after, from 0 on.
const ONCE: u64 = 50;

/// Adds one to its keys again and again: each answer is one more than the last.
async fn count(node: Observer, caller: u64, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    let mut totals = [0; 10];
    while !stop.load(Ordering::Relaxed) {
        for (total, key) in totals.iter_mut().zip(0..) {
            let key = 100 + 10 * caller + key;
            let begun = Instant::now();
            let now = node.keyed::<Counter>(key).call(Add(1)).await;
            let took = begun.elapsed();
            *total += 1;
            assert_eq!(now, Ok(*total), "{key} after {took:?}");
            answered.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_no_call_to_a_key_and_no_state() {
    rolling(Keyed::available(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_to_a_key_that_has_one_process_at_every_instant() {
    rolling(Keyed::new(), true).await;
}

async fn rolling(keyed: Keyed, exclusive: bool) {
    let cluster = Cluster::default();
    let observer = Observer::builder().name("z").data_dir(cluster.data_dir());
    let observer = observer.stateful::<Counter>(keyed).listen("127.0.0.1:0");
    let observer = observer.detect_in(Duration::from_secs(10)).start().await.unwrap();
    // Where counters are of this kind.
    let program: fn(&Cluster) -> Command = match exclusive {
        false => |cluster| cluster.example("my_app"),
        true => Cluster::purlin,
    };
    let mut five = Five::start(cluster, &observer, program, exclusive).await;
    for key in 0..ONCE {
        let once = observer.keyed::<Counter>(key).call(Add(7)).await;
        assert_eq!(once, Ok(7), "{key}");
    }
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        callers.spawn(count(observer.clone(), caller, stop, answered));
    }

    let before_drain = |cluster: &Cluster, other: &Node, name: &str| {
        let plan = cluster.ok(other, &["drain", "--node", name, "--dry-run"]);
        assert!(plan.contains("keyed counter"), "{plan}");
    };
    five.restart_all(&mut callers, &answered, before_drain).await;

    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    for key in 0..ONCE {
        let once = observer.keyed::<Counter>(key).call(Read).await;
        assert_eq!(once, Ok(7), "{key}");
    }
    // Nodes are asked one after the other, and the last one may still get its keys.
    let begun = Instant::now();
    loop {
        let shown =
            five.cluster.json(five.nodes.values().next().unwrap(), &["keyed", "counter", "--all"]);
        let shown = shown.as_array().unwrap();
        let keys: BTreeSet<_> = shown.iter().map(|key| key["key"].as_str().unwrap()).collect();
        if (shown.len(), keys.len() as u64) == (keys.len(), CALLERS * 10 + ONCE) {
            break;
        }
        assert!(begun.elapsed() < SOON, "{} processes of {} keys", shown.len(), keys.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{} calls", answered.load(Ordering::Relaxed));
    observer.stop().await;
}
