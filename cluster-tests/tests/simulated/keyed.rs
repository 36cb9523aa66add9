//! Keyed processes of the available kind on simulated machines, with faults from a seed: every call
//! ends, and when the faults are over each key has one process again.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::kinds::{Add, Counter};
use purlin::testing::{Cluster, Road};
use purlin::{CallError, Dest, Key, Keyed, NodeBuilder, NodeName};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const KEYS: u64 = 12;
const ROUNDS: usize = 12;
const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const IDLE: Duration = Duration::from_secs(7);

fn any_node(chance: &mut StdRng) -> &'static str {
    NODES.choose(chance).unwrap()
}

fn key(number: u64) -> Dest {
    Dest::key("counter", number)
}

/// Each node adds one to each key, and each key counts all of them.
async fn count_all(cluster: &Cluster, seed: u64) {
    for number in 0..KEYS {
        let first = cluster.node("n0").call(key(number), Add(1)).await;
        let first = first.unwrap_or_else(|error| panic!("seed {seed}, {number}: {error}"));
        for (after, node) in (1..).zip(&NODES[1..]) {
            let total = cluster.node(*node).call(key(number), Add(1)).await;
            assert_eq!(total, Ok(first + after), "seed {seed}, key {number} from {node}");
        }
    }
}

/// Where the keys have processes.
async fn running(cluster: &Cluster) -> BTreeMap<Key, Vec<NodeName>> {
    let mut running = BTreeMap::<Key, Vec<NodeName>>::new();
    for name in NODES {
        let node = cluster.node(name);
        let list = node.run(|node| async move { node.runtime().keyed_processes() }).await;
        for (_, key, pid) in list.unwrap() {
            running.entry(key).or_default().push(pid.node.name);
        }
    }
    running
}

async fn fault(cluster: &Cluster, chance: &mut StdRng) {
    let (one, other) = (any_node(chance), any_node(chance));
    match chance.random_range(0..6) {
        0 if one != other => cluster.cut(one, other),
        1 => cluster.split(&[one.into()]),
        2 if cluster.node(one).is_running() => cluster.crash(one),
        3 if cluster.node(one).is_running() => cluster.freeze(one, Duration::from_secs(8)),
        4 if !cluster.node(one).is_running() => cluster.restart(one).await,
        _ => cluster.heal(),
    }
}

/// What a call may end with while nodes come and go; nothing else, and never nothing.
fn is_loud(error: &CallError) -> bool {
    matches!(
        error,
        CallError::NoConnection
            | CallError::Timeout
            | CallError::NotOwner { .. }
            | CallError::NoProcess
            | CallError::Exited(_)
    )
}

fn schedule(seed: u64) {
    let bad = Road { loss: 0.02, jitter: Duration::from_millis(3), ..Road::default() };
    let keyed = Keyed::available().passivate_after(IDLE);
    let cluster = Cluster::builder(seed)
        .nodes(NODES.len())
        .roads(bad)
        .with(move |node| node.keyed::<Counter>(keyed))
        .start();
    let mut chance = StdRng::seed_from_u64(seed);
    cluster.run(async |cluster| {
        count_all(cluster, seed).await;
        for _ in 0..ROUNDS {
            fault(cluster, &mut chance).await;
            for _ in 0..6 {
                let (node, number) = (any_node(&mut chance), chance.random_range(0..KEYS));
                if let Err(error) = cluster.node(node).call(key(number), Add(1)).await {
                    assert!(is_loud(&error), "seed {seed}: {error:?}");
                }
            }
            cluster.advance(Duration::from_secs(chance.random_range(0..9))).await;
        }
        cluster.heal();
        for name in NODES {
            if !cluster.node(name).is_running() {
                cluster.restart(name).await;
            }
        }
        cluster.until_whole(Duration::from_mins(2)).await;
        cluster.advance(Duration::from_secs(1)).await;

        count_all(cluster, seed).await;
        for (key, at) in running(cluster).await {
            assert_eq!(at.len(), 1, "seed {seed}: {key} at {at:?}");
        }
        cluster.advance(2 * IDLE).await;
        assert!(running(cluster).await.is_empty(), "seed {seed}: idle ones have ended");
    });
}

#[test]
fn whatever_happens_every_call_ends_and_each_key_has_one_process_again() {
    (1..=3).for_each(schedule);
}

#[test]
fn remembered_keys_of_a_node_that_is_back_before_it_was_missed_run_again() {
    for keyed in [Keyed::available(), Keyed::new()] {
        let kinds = move |node: NodeBuilder| node.stateful::<Counter>(keyed.remember());
        Cluster::builder(3).nodes(NODES.len()).with(kinds).start().run(async |cluster| {
            cluster.advance(Duration::from_secs(20)).await;
            count_all(cluster, 3).await;
            cluster.advance(Duration::from_secs(2)).await;

            cluster.crash("n1");
            cluster.restart("n1").await;

            cluster.until_whole(Duration::from_mins(1)).await;
            cluster.advance(Duration::from_secs(30)).await;
            let running = running(cluster).await;
            assert_eq!(running.len() as u64, KEYS, "{keyed:?}: {running:?}");
            assert!(running.values().all(|at| at.len() == 1), "{keyed:?}: {running:?}");
        });
    }
}
