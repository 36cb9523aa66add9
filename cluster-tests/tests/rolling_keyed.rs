//! Five real nodes are restarted one after the other under load on keyed processes with state, of an
//! available kind and of an exclusive one, which is the default: no call fails, and no counter goes
//! back.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin::kinds::{Add, Counter, Read};
use purlin::proto::admin::{GetExclusive, SYSTEM};
use purlin::{Dest, Keyed, Node as Observer};
use purlin_cluster_tests::memory::until_sees;
use purlin_cluster_tests::process::{Cluster, Node};
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(40);
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Keys that are used all the time, by so many callers of ten keys each, from 100 on.
const CALLERS: u64 = 8;

/// Keys that are used once before, and once after, from 0 on.
const ONCE: u64 = 50;

/// The program in which counters are of this kind.
fn program(cluster: &Cluster, exclusive: bool) -> Command {
    match exclusive {
        false => cluster.example("my_app"),
        true => cluster.purlin(),
    }
}

fn start(cluster: &Cluster, exclusive: bool, name: &str, seeds: &[String]) -> Node {
    let seeds: Vec<_> = seeds.iter().flat_map(|seed| ["--seed", seed]).collect();
    let more = [&["--detect-in", "10"], &seeds[..]].concat();
    Cluster::start_with(program(cluster, exclusive), name, "127.0.0.1:0", &more)
}

/// Waits until all six are in the ring view.
async fn until_all_hold(observer: &Observer) {
    let begun = Instant::now();
    loop {
        let system = Dest::Local(SYSTEM.parse().unwrap());
        let info = observer.call(system, GetExclusive).await.unwrap();
        if info.members.len() == 6 && info.voters.len() == 5 {
            return;
        }
        assert!(begun.elapsed() < SOON, "{info:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

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
    let seed = observer.address().to_string();
    let mut nodes: BTreeMap<_, _> = NAMES
        .iter()
        .map(|name| (*name, start(&cluster, exclusive, name, std::slice::from_ref(&seed))))
        .collect();
    until_sees(&observer, 6).await;
    if exclusive {
        until_all_hold(&observer).await;
    }
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

    for (name, how) in NAMES.into_iter().zip(["drain", "term", "leave", "drain", "term"]) {
        let before = answered.load(Ordering::Relaxed);
        let mut old = nodes.remove(name).unwrap();
        let other = nodes.values().next().unwrap();
        match how {
            "drain" => {
                let plan = cluster.ok(other, &["drain", "--node", name, "--dry-run"]);
                assert!(plan.contains("keyed counter"), "{plan}");
                let said = cluster.ok(other, &["drain", "--node", name, "--timeout", "30"]);
                assert!(said.contains("drained in"), "{said}");
            }
            "leave" => drop(cluster.ok(other, &["leave", "--on", name])),
            _ => old.signal("TERM"),
        }
        assert!(old.wait(SOON).success());
        let others: Vec<_> = nodes.values().map(|node| node.address.clone()).collect();
        nodes.insert(name, start(&cluster, exclusive, name, &others));
        for node in nodes.values() {
            cluster.until_up(node, 6, SOON);
        }
        assert!(answered.load(Ordering::Relaxed) > before, "the load went on");
        while let Some(failed) = callers.try_join_next() {
            failed.unwrap();
        }
    }

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
        let shown = cluster.json(nodes.values().next().unwrap(), &["keyed", "counter", "--all"]);
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
