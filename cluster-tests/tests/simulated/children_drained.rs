//! Children of cluster supervisors when a node is drained, on simulated machines: each is ended there
//! and runs elsewhere before the node leaves.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::proto::admin::{GetDrainPlan, SYSTEM};
use purlin::testing::Cluster;
use purlin::{ClusterChild, ClusterSupervisor, Dest, ExitReason, Key, NodeName};
use purlin_cluster_tests::jobs::{Do, Job, Noted, noted};

const S: Duration = Duration::from_secs(1);
const LEAVES: &str = "n1";

fn cluster() -> Cluster {
    let with = |node: purlin::NodeBuilder| node.actor::<Job>();
    Cluster::builder(12).nodes(3).with(with).start()
}

async fn start(cluster: &Cluster, child: ClusterChild) {
    let start = |node: purlin::Node| async move {
        let jobs = ClusterSupervisor::new("jobs").available();
        node.cluster_supervisor(jobs).start_child(child).await.unwrap()
    };
    cluster.node("n0").run(start).await.unwrap();
}

fn job(name: &str) -> ClusterChild {
    ClusterChild::actor::<Job>(Key::new(name).unwrap(), name.to_owned())
}

/// Where each runs, by what it says itself.
async fn places(cluster: &Cluster, from: &'static str) -> BTreeMap<String, NodeName> {
    let mut places = BTreeMap::new();
    for number in 0..60 {
        let name = format!("j{number}");
        let to: Dest = format!("child:jobs/{name}").parse().unwrap();
        let (at, _) = cluster.node(from).call(to, Do).await.unwrap();
        places.insert(name, at);
    }
    places
}

fn of<'a>(noted: &'a [Noted], name: &str) -> Vec<&'a Noted> {
    noted.iter().filter(|noted| noted.job == name).collect()
}

#[test]
fn a_node_that_is_drained_leaves_when_all_its_children_run_elsewhere() {
    cluster().run(async |cluster| {
        for number in 0..60 {
            start(cluster, job(&format!("j{number}"))).await;
        }
        cluster.advance(5 * S).await;
        let before = places(cluster, "n0").await;
        let leaving = NodeName::from(LEAVES);
        let there = before.values().filter(|at| **at == leaving).count();
        assert!(there > 5, "{there}");
        noted();
        let system = Dest::Remote(SYSTEM.parse().unwrap(), leaving);
        let plan = cluster.node("n0").call(system, GetDrainPlan).await.unwrap();
        assert!(plan.moves.iter().all(|moved| moved.what == "children of jobs"), "{plan:?}");
        assert_eq!(plan.moves.iter().map(|moved| moved.count).sum::<usize>(), there);
        assert_eq!(noted(), [], "it is only a plan");

        let drained = cluster.node(LEAVES).run(async |node| node.drain().await).await.unwrap();

        assert_eq!(drained.left, 0);
        assert!(drained.took_s < 10.0, "{drained:?}");
        let told = noted();
        assert_eq!(told.len(), 2 * there, "no other one has moved: {told:?}");
        for (name, _) in before.iter().filter(|(_, at)| **at == leaving) {
            let [ended, begun] = of(&told, name)[..] else { panic!("{name}: {told:?}") };
            assert_eq!((ended.node, &ended.end), (leaving, &Some(ExitReason::Shutdown)), "{name}");
            assert!(begun.node != leaving && begun.end.is_none(), "{name}: {begun:?}");
        }
        for moved in &plan.moves {
            let there = told.iter().filter(|n| n.end.is_none() && n.node == moved.to).count();
            assert_eq!(there, moved.count, "as planned: {plan:?}");
        }
        // It is still a member, and reaches them where they are.
        let after = places(cluster, LEAVES).await;
        assert!(after.values().all(|at| *at != leaving), "{after:?}");

        cluster.stop(LEAVES).await;
        cluster.advance(10 * S).await;
        assert_eq!(noted(), [], "nothing is left to be done");
        assert_eq!(places(cluster, "n2").await, after);
    });
}
