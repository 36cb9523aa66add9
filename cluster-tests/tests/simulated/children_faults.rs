//! Children of cluster supervisors on simulated machines, with faults from a seed: when they are over,
//! each child runs once, all nodes say the same of it, and what was started and ended adds up.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::testing::{Cluster, Road};
use purlin::{ClusterChild, ClusterChildState, ClusterSupervisor, Dest, Key, NodeName};
use purlin_cluster_tests::jobs::{Do, Fail, Job, noted};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const CHILDREN: u64 = 24;
const ROUNDS: usize = 12;
const NODES: [&str; 5] = ["n0", "n1", "n2", "n3", "n4"];
const S: Duration = Duration::from_secs(1);

fn any_node(chance: &mut StdRng) -> &'static str {
    NODES.choose(chance).unwrap()
}

fn supervisor() -> ClusterSupervisor {
    // They are told to fail at any time; this is not to run out.
    ClusterSupervisor::new("jobs").available().intensity(16, S)
}

fn dest(number: u64) -> Dest {
    Dest::child("jobs", number)
}

async fn fault(cluster: &Cluster, chance: &mut StdRng) {
    let (one, other) = (any_node(chance), any_node(chance));
    match chance.random_range(0..7) {
        0 if one != other => cluster.cut(one, other),
        1 => cluster.split(&[one.into()]),
        2 if one != other => cluster.split(&[one.into(), other.into()]),
        3 if cluster.node(one).is_running() => cluster.crash(one),
        4 if cluster.node(one).is_running() => cluster.freeze(one, 8 * S),
        5 if !cluster.node(one).is_running() => cluster.restart(one).await,
        _ => cluster.heal(),
    }
}

/// State and place of each child, as a node sees it.
async fn view(cluster: &Cluster, on: NodeName) -> BTreeMap<Key, (ClusterChildState, NodeName)> {
    let list = |node: purlin::Node| async move {
        node.cluster_supervisor("jobs").children().await.unwrap()
    };
    let list = cluster.node(on).run(list).await.unwrap();
    list.into_iter().map(|i| (i.child.child, (i.state, i.node.unwrap()))).collect()
}

fn schedule(seed: u64) {
    let bad = Road { loss: 0.02, jitter: Duration::from_millis(3), ..Road::default() };
    let cluster = Cluster::builder(seed)
        .nodes(NODES.len())
        .roads(bad)
        .with(purlin::NodeBuilder::actor::<Job>)
        .start();
    let mut chance = StdRng::seed_from_u64(seed);
    cluster.run(async |cluster| {
        for number in 0..CHILDREN {
            let start = move |node: purlin::Node| async move {
                let child = ClusterChild::actor::<Job>(number, number.to_string());
                node.cluster_supervisor(supervisor()).start_child(child).await
            };
            cluster.node("n0").run(start).await.unwrap().unwrap();
        }
        cluster.advance(60 * S).await;
        for _ in 0..ROUNDS {
            fault(cluster, &mut chance).await;
            for _ in 0..4 {
                let (node, number) = (any_node(&mut chance), chance.random_range(0..CHILDREN));
                // Whatever becomes of it.
                match chance.random_range(0..4) {
                    0 => drop(cluster.node(node).call(dest(number), Fail).await),
                    _ => drop(cluster.node(node).call(dest(number), Do).await),
                }
            }
            cluster.advance(S * chance.random_range(0..9)).await;
        }
        cluster.heal();
        for name in NODES {
            if !cluster.node(name).is_running() {
                cluster.restart(name).await;
            }
        }
        cluster.until_whole(120 * S).await;
        cluster.advance(30 * S).await;

        let first = view(cluster, "n0".into()).await;
        for name in NODES {
            assert_eq!(view(cluster, name.into()).await, first, "seed {seed}: {name} and n0");
        }
        let allowed = |state| {
            // A child may have been with two nodes that crashed.
            matches!(state, ClusterChildState::Running | ClusterChildState::Poison)
        };
        assert!(first.values().all(|(state, _)| allowed(*state)), "seed {seed}: {first:#?}");
        assert_eq!(first.len() as u64, CHILDREN, "seed {seed}");
        let processes = processes(cluster);
        let running = first.iter().filter(|(_, (state, _))| *state == ClusterChildState::Running);
        let running: Vec<_> = running.map(|(key, (_, at))| (key.to_string(), *at)).collect();
        assert_eq!(processes.len(), running.len(), "seed {seed}: {running:?} {processes:?}");
        noted();
        for (name, at) in running {
            let dest = Dest::child("jobs", Key::new(&name).unwrap());
            let done = cluster.node("n4").call(dest, Do).await;
            let (there, _) = done.unwrap_or_else(|e| panic!("seed {seed}: {name}: {e}"));
            assert_eq!(there, at, "seed {seed}: {name}");
        }
        // Nothing more is started when all is quiet.
        cluster.advance(60 * S).await;
        assert_eq!(noted(), [], "seed {seed}");
    });
}

/// All processes that run a job, on all nodes.
fn processes(cluster: &Cluster) -> Vec<NodeName> {
    let mut all = Vec::new();
    for name in NODES {
        let node = cluster.node(name);
        let here = node.look(|node| {
            let list = node.runtime().processes_after(0);
            list.iter().filter(|process| process.kind == "job").count()
        });
        all.extend(std::iter::repeat_n(NodeName::from(name), here.unwrap()));
    }
    all
}

/// As many as `PURLIN_SEEDS` says, from `PURLIN_SEED` on.
#[test]
fn after_random_faults_each_child_runs_once_and_all_agree() {
    let number = |name: &str, or| std::env::var(name).map_or(or, |text| text.parse().unwrap());
    let (first, count) = (number("PURLIN_SEED", 1), number("PURLIN_SEEDS", 6));
    for seed in first..first + count {
        schedule(seed);
    }
}
