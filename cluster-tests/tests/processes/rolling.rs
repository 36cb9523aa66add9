//! Five real nodes are restarted one after the other, under load: nobody elsewhere notices more than
//! that one has left and come again.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use purlin::kinds::Add;
use purlin::proto::Dest;
use purlin::{NodeEvent, Received};
use purlin_cluster_tests::memory::until_sees;
use purlin_cluster_tests::probe::Probe;
use purlin_cluster_tests::process::{Cluster, Node};
use serde_json::Value;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(20);
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn hits(on: &str) -> Dest {
    format!("hits@{on}").parse().unwrap()
}

/// Starts a node, and a process on it.
fn start(cluster: &Cluster, name: &str, seeds: &[String]) -> Node {
    let seeds: Vec<_> = seeds.iter().flat_map(|seed| ["--seed", seed]).collect();
    let seeds = [&["--detect-in", "10"], &seeds[..]].concat();
    let node = cluster.start(name, &seeds);
    cluster.ok(&node, &["spawn", "counter", "--name", "hits", "--timeout", "20"]);
    node
}

/// Calls a process again and again, and counts answers.
async fn load(node: purlin::Node, to: Dest, answered: Arc<AtomicU64>) {
    loop {
        if node.call(to.clone(), Add(1)).await.is_ok() {
            answered.fetch_add(1, Ordering::Relaxed);
        }
        // Some thousand calls a second in all: on two busy cores, with nodes that are not optimised,
        // more would be a test of who gets to run.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_is_a_failure_to_nobody() {
    let cluster = Cluster::default();
    let observer = purlin::Node::builder().name("z").data_dir(cluster.data_dir());
    let observer =
        observer.listen("127.0.0.1:0").detect_in(Duration::from_secs(10)).start().await.unwrap();
    let seed = observer.address().to_string();
    let mut nodes: BTreeMap<_, _> = NAMES
        .iter()
        .map(|name| (*name, start(&cluster, name, std::slice::from_ref(&seed))))
        .collect();
    until_sees(&observer, 6).await;
    let watch = cluster.watch_at(&seed, &[]);
    let mut members = Probe::start(&observer, |ctx| ctx.monitor_nodes());
    let watching = |name: &str| {
        let target = hits(name);
        Probe::start(&observer, |ctx| {
            ctx.monitor(target);
        })
    };
    let mut watchers: BTreeMap<_, _> = NAMES.iter().map(|name| (*name, watching(name))).collect();
    let answered: BTreeMap<_, _> =
        NAMES.iter().map(|name| (*name, Arc::new(AtomicU64::new(0)))).collect();
    let mut callers = JoinSet::new();
    for name in NAMES.iter().flat_map(|name| [name; 4]) {
        callers.spawn(load(observer.clone(), hits(name), Arc::clone(&answered[name])));
    }

    for name in NAMES {
        let mut old = nodes.remove(name).unwrap();
        cluster.ok(&old, &["leave", "--timeout", "20"]);
        assert!(old.wait(SOON).success());
        let down = watchers.get_mut(name).unwrap().down().await;
        assert!(down.target.to_string().contains(name) || down.target == hits(name), "{down:?}");
        let Received::Node(NodeEvent::Down { node, left: true }) = members.next().await else {
            panic!("{name} has left")
        };
        assert_eq!(node.name.as_str(), name);

        let others: Vec<_> = nodes.values().map(|node| node.address.clone()).collect();
        nodes.insert(name, start(&cluster, name, &others));
        for node in nodes.values() {
            cluster.until_up(node, 6, SOON);
        }
        let Received::Node(NodeEvent::Up { node, .. }) = members.next().await else {
            panic!("{name} is there again")
        };
        assert_eq!(node.name.as_str(), name);
        watchers.insert(name, watching(name));
        let before = answered[name].load(Ordering::Relaxed);
        let again = async {
            while answered[name].load(Ordering::Relaxed) < before + 100 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, again).await.expect("its new life answers");
        for (other, watcher) in &mut watchers {
            assert!(watcher.has_nothing(), "nothing happened to what runs on {other}");
        }
    }

    assert!(members.has_nothing(), "each has left and come once");
    let events = watch.so_far();
    let bad = ["node_down", "node_suspect"];
    let is_bad = |event: &&Value| bad.contains(&event["event"].as_str().unwrap());
    let listed: Vec<_> = events.iter().map(ToString::to_string).collect();
    assert!(!events.iter().any(|event| is_bad(&event)), "{}", listed.join("\n"));
    callers.shutdown().await;
    observer.stop().await;
}
