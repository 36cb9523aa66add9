//! Five real nodes are restarted one after the other under load on children of cluster supervisors, of the
//! exclusive kind, which is the default, and of the available one: no call fails, and no counter goes back.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin::kinds::{Add, Counter};
use purlin::{ClusterChild, ClusterSupervisor, Dest, Key, Node as Observer};
use purlin_cluster_tests::process::{Cluster, Node};
use purlin_cluster_tests::rolling::Five;
use tokio::task::JoinSet;

/// So many callers of so many children each.
const CALLERS: usize = 8;
const EACH: usize = 5;

fn name(caller: usize, child: usize) -> Key {
    format!("c{caller}-{child}").parse().unwrap()
}

/// Adds one to its children again and again: each answer is one more than the last.
async fn count(node: Observer, caller: usize, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    let mut totals = [0; EACH];
    while !stop.load(Ordering::Relaxed) {
        for (total, child) in totals.iter_mut().zip(0..) {
            let to: Dest = format!("child:tally/{}", name(caller, child)).parse().unwrap();
            let begun = Instant::now();
            let now = node.call(to, Add(1)).await;
            let took = begun.elapsed();
            *total += 1;
            assert_eq!(now, Ok(*total), "{} after {took:?}", name(caller, child));
            answered.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_no_call_to_a_child_and_no_state() {
    rolling(ClusterSupervisor::new("tally").available(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_to_a_child_of_which_there_is_one_at_every_instant() {
    rolling(ClusterSupervisor::new("tally"), true).await;
}

async fn rolling(tally: ClusterSupervisor, exclusive: bool) {
    let cluster = Cluster::default();
    let observer = Observer::builder().name("z").data_dir(cluster.data_dir());
    let observer = observer.movable::<Counter>().exclusive().listen("127.0.0.1:0");
    let observer = observer.detect_in(Duration::from_secs(10)).start().await.unwrap();
    let mut five = Five::start(cluster, &observer, Cluster::purlin, exclusive).await;
    five.until_all_hold().await;
    let tally = observer.cluster_supervisor(tally);
    for (caller, child) in (0..CALLERS).flat_map(|caller| (0..EACH).map(move |n| (caller, n))) {
        let child = ClusterChild::actor::<Counter>(name(caller, child), None);
        tally.start_child(child).await.unwrap();
    }
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        callers.spawn(count(observer.clone(), caller, stop, answered));
    }

    let before_drain = |cluster: &Cluster, other: &Node, name: &str| {
        let named = format!("local-{name}");
        cluster.ok(other, &["spawn", "counter", "--name", &named, "--on", name]);
        let plan = cluster.ok(other, &["drain", "--node", name, "--dry-run"]);
        let moves = format!("names that end with {name} (1): {named}");
        assert!(plan.contains("children of tally") && plan.contains(&moves), "{plan}");
        let out = format!("calls and spawns that are out from {name}: ");
        assert!(plan.contains(&out), "{plan}");
    };
    five.restart_all(&mut callers, &answered, before_drain).await;

    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    println!("{} calls", answered.load(Ordering::Relaxed));
    observer.stop().await;
}
