//! What is said in the name of an earlier owner and comes late, on simulated machines: it is refused, and
//! neither states nor children come to harm.
//!
//! The messages are those that an owner sends; they are sent here by hand, with what it would have known
//! when it was the owner. A late one of a node that is down never arrives, and a lease that has run out
//! ends what runs, so such a message has to come from a node that is well, over a road that is slow.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Add, Counter};
use purlin::proto::admin::children::{CHILDREN, HostChild, HostRefusal};
use purlin::proto::admin::{DropHeldSnapshot, GetExclusive, ReleaseHeldKey, Released, SYSTEM};
use purlin::proto::child::ChildPlan;
use purlin::testing::Cluster;
use purlin::{
    ClusterChild, ClusterSupervisor, Dest, Fence, Key, Keyed, Name, Node, NodeName, Ring,
};
use purlin_cluster_tests::jobs::{Do, Job, noted};
use tokio::sync::oneshot;

const S: Duration = Duration::from_secs(1);
const KEYS: u64 = 24;
const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];

fn of(name: &str, node: &'static str) -> Dest {
    Dest::Remote(name.parse().unwrap(), node.into())
}

async fn add_to_all(cluster: &Cluster, total: i64) {
    for key in 0..KEYS {
        let added = cluster.node("n0").call(Dest::key("counter", key), Add(1)).await;
        assert_eq!(added, Ok(total), "{key}");
    }
}

/// Four nodes that hold what is exclusive, and have come one after the other: the ring view has a
/// number that is high enough for there to be earlier ones.
async fn until_all_hold(cluster: &Cluster) {
    for name in NODES {
        loop {
            let info = cluster.node(name).call(of(SYSTEM, name), GetExclusive).await.unwrap();
            if info.members.len() == NODES.len() {
                break;
            }
            cluster.advance(S / 10).await;
        }
    }
}

/// What the owner of a key has held it under, one view before.
async fn late_fence(cluster: &Cluster, key: u64) -> (NodeName, Fence) {
    let ring_key = format!("counter/{key}");
    let shard = Ring::shard_of(ring_key.as_bytes());
    let info = cluster.node("n0").call(of(SYSTEM, "n0"), GetExclusive).await.unwrap();
    let find = move |node: Node| async move {
        node.runtime().exclusive_owner(ring_key.as_bytes()).unwrap()
    };
    let owner = cluster.node("n0").run(find).await.unwrap();
    (owner, Fence { epoch: info.epoch - 1, shard, generation: 1 })
}

fn keyed(keyed: Keyed) -> Cluster {
    let with = move |node: purlin::NodeBuilder| node.stateful::<Counter>(keyed);
    Cluster::builder(5).nodes(NODES.len()).with(with).start()
}

#[test]
fn a_late_owner_is_not_given_the_state_of_a_key_that_moves() {
    keyed(Keyed::new()).run(async |cluster| {
        until_all_hold(cluster).await;
        add_to_all(cluster, 1).await;
        let mut late = Vec::new();
        for key in 0..KEYS {
            let (owner, fence) = late_fence(cluster, key).await;
            if owner == NodeName::from("n1") {
                let kind = Name::new("counter").unwrap();
                late.push(ReleaseHeldKey { kind, key: Key::from(key), fence });
            }
        }
        assert!(late.len() >= 3, "{}", late.len());
        let ask = move |node: Node| async move {
            let (mut refused, mut others) = (0, Vec::new());
            // As long as n1 drains, and longer.
            for _ in 0..300 {
                for late in &late {
                    match node.call(of(SYSTEM, "n1"), late.clone()).await {
                        Ok(Released::Stale { epoch }) if epoch > late.fence.epoch => refused += 1,
                        answer => others.push(answer),
                    }
                }
                tokio::time::sleep(S / 100).await;
            }
            (refused, others)
        };
        let (tell, drained) = oneshot::channel();
        let drain = |node: Node| async move {
            tokio::spawn(async move { tell.send(node.drain().await.left).unwrap() });
        };

        cluster.node("n1").run(drain).await.unwrap();
        let (refused, others) = cluster.node("n3").run(ask).await.unwrap();

        assert_eq!(cluster.node("n1").run(|_| drained).await.unwrap(), Ok(0));
        assert_eq!((refused > 100, others), (true, Vec::new()));
        add_to_all(cluster, 2).await;
    });
}

#[test]
fn a_late_owner_does_not_drop_the_state_of_a_key() {
    keyed(Keyed::new().passivate_after(S)).run(async |cluster| {
        until_all_hold(cluster).await;
        add_to_all(cluster, 1).await;
        cluster.advance(3 * S).await;
        for key in 0..KEYS {
            let (owner, fence) = late_fence(cluster, key).await;
            let (kind, key) = (Name::new("counter").unwrap(), Key::from(key));
            let late = DropHeldSnapshot { kind, key, at: u64::MAX, fence };
            let to = Dest::Remote(SYSTEM.parse().unwrap(), owner);
            assert_eq!(cluster.node("n0").call(to, late).await, Ok(false));
        }

        add_to_all(cluster, 2).await;
    });
}

#[test]
fn a_late_order_to_start_a_child_is_refused() {
    let with = |node: purlin::NodeBuilder| node.actor::<Job>();
    Cluster::builder(6).nodes(3).with(with).start().run(async |cluster| {
        let child = || ClusterChild::actor::<Job>(Key::new("j").unwrap(), "j".to_owned());
        let start = move |node: Node| async move {
            let jobs = ClusterSupervisor::new("jobs").available();
            node.cluster_supervisor(jobs).start_child(child()).await.unwrap()
        };
        cluster.node("n0").run(start).await.unwrap();
        cluster.advance(2 * S).await;
        let to: Dest = "child:jobs/j".parse().unwrap();
        let (before, _) = cluster.node("n0").call(to.clone(), Do).await.unwrap();
        cluster.node(before).run(async |node: Node| node.drain().await).await.unwrap();
        cluster.advance(2 * S).await;
        let (after, _) = cluster.node("n0").call(to.clone(), Do).await.unwrap();
        assert_ne!(before, after);
        noted();
        let third = NODES[..3].iter().map(|name| NodeName::from(*name));
        let third = third.into_iter().find(|name| *name != before && *name != after).unwrap();
        let plan = async |cluster: &Cluster| -> (ChildPlan, u64) {
            let see = |node: Node| async move {
                let (child, us) = ("jobs/j".parse().unwrap(), node.id());
                let record = node.runtime().children().see(&child, us).record.unwrap();
                (record.plan, record.generation)
            };
            cluster.node(third).run(see).await.unwrap()
        };
        let order = async |cluster: &Cluster, plan: ChildPlan, generation: u64| {
            let on = cluster.node(third).run(async |node: Node| node.id()).await.unwrap();
            let child = "jobs/j".parse().unwrap();
            let late = HostChild { on, child, plan, generation, view: 3 };
            let to = Dest::Remote(CHILDREN.parse().unwrap(), third);
            cluster.node("n0").call(to, late).await.unwrap()
        };

        let (known, generation) = plan(cluster).await;
        let refused = order(cluster, known.clone(), generation - 1).await;
        assert_eq!(refused, Err(HostRefusal::Stale { newest: generation }));

        let stop = |node: Node| async move {
            let jobs = ClusterSupervisor::new("jobs").available();
            node.cluster_supervisor(jobs).stop_child("j").await.unwrap();
        };
        cluster.node("n0").run(stop).await.unwrap();
        cluster.advance(S).await;
        noted();
        let refused = order(cluster, known, generation).await;
        assert_eq!(refused, Err(HostRefusal::Stale { newest: generation + 1 }));
        cluster.advance(5 * S).await;
        assert_eq!(noted(), [], "nothing was started");
    });
}
