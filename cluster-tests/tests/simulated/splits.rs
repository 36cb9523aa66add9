//! Simulated clusters that are split and healed: who keeps what.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Add, Counter, Read};
use purlin::testing::{Cluster, Road};
use purlin::{CallError, Dest, ExitReason, Name, NodeBuilder, NodeId, NodeName, Pid};

const S: Duration = Duration::from_secs(1);

fn cluster(seed: u64, nodes: usize) -> Cluster {
    Cluster::builder(seed).nodes(nodes).with(NodeBuilder::actor::<Counter>).start()
}

fn names(indices: &[usize]) -> Vec<NodeName> {
    indices.iter().map(|index| NodeName::new(&format!("n{index}")).unwrap()).collect()
}

fn ids(cluster: &Cluster, names: &[NodeName]) -> Vec<NodeId> {
    names.iter().map(|&name| cluster.node(name).id().unwrap()).collect()
}

/// The name of the counter that a node has.
fn known_as(node: NodeName) -> Name {
    Name::new(node.as_str()).unwrap()
}

/// A counter that is found by the name of its node, by a global name, and in the group `counters`.
async fn counter(cluster: &Cluster, node: NodeName) -> Pid {
    let pid = cluster.node(node).spawn::<Counter>(None).await.unwrap().pid();
    let known = cluster.node(node).look(|node| {
        let (runtime, name) = (node.runtime(), known_as(node.id().name));
        runtime.register(name.clone(), pid).unwrap();
        runtime.register_global_available(name, pid).unwrap();
        runtime.join("counters", pid).unwrap();
    });
    known.unwrap();
    pid
}

#[test]
fn after_a_split_the_smaller_side_comes_back_and_its_processes_go_on_and_are_found() {
    let cluster = cluster(5, 5);
    cluster.run(async |cluster| {
        let (large, small) = (names(&[0, 1, 2]), names(&[3, 4]));
        let mut old = Vec::new();
        for node in cluster.names() {
            old.push(counter(cluster, node).await);
        }
        let before = (ids(cluster, &large), ids(cluster, &small));
        cluster.advance(2 * S).await;

        cluster.split(&small);
        cluster.advance(20 * S).await;
        for (from, to) in [("n3", "n4"), ("n1", "n2")] {
            let here = cluster.node(from).call(Dest::global(to), Add(1)).await;
            assert_eq!(here, Ok(1), "both sides go on");
        }
        cluster.heal();
        cluster.until_whole(60 * S).await;
        cluster.advance(2 * S).await;

        assert_eq!(ids(cluster, &large), before.0, "the larger side has nothing to take back");
        for (then, now) in before.1.iter().zip(ids(cluster, &small)) {
            assert!(now.creation > then.creation, "{now}");
        }
        for from in cluster.names() {
            for (to, old) in cluster.names().into_iter().zip(&old) {
                let total = i64::from([2, 4].map(|n| names(&[n])[0]).contains(&to));
                let (local, global) = (known_as(to), Dest::Global(known_as(to)));
                let by_name = Dest::Remote(local, to);
                assert_eq!(cluster.node(from).call(by_name, Read).await, Ok(total));
                assert_eq!(cluster.node(from).call(global, Read).await, Ok(total));
                let by_pid = cluster.node(from).call(*old, Read).await;
                match small.contains(&to) && from != to {
                    true => assert_eq!(by_pid, Err(CallError::NoProcess), "{from} to {to}"),
                    false => assert_eq!(by_pid, Ok(total), "{from} to {to}"),
                }
            }
            let members = cluster.node(from).look(|node| node.runtime().members_of("counters"));
            assert_eq!(members.unwrap().len(), 5, "as {from} sees it");
        }
    });
}

#[test]
fn two_members_that_cannot_talk_lose_what_is_between_them_and_get_it_back_anew() {
    let cluster = cluster(3, 4);
    cluster.run(async |cluster| {
        let there = cluster.node("n1").spawn::<Counter>(None).await.unwrap().pid();
        let n0 = cluster.node("n0");
        let down = n0.run(move |node| async move { node.runtime().down(there).await });
        let cut = async {
            cluster.advance(S).await;
            cluster.cut("n0", "n1");
            let cut = cluster.now();
            cluster.advance(S).await;
            n0.send(there, Add(1)).await;
            cut
        };
        let (cut, down) = tokio::join!(cut, down);

        assert_eq!(down.unwrap().reason, ExitReason::NoConnection);
        let took = cluster.now().saturating_sub(cut);
        assert!(took > 4 * S && took < 7 * S, "{took:?}");
        assert_eq!(n0.members().len(), 4, "others reach both");

        cluster.join("n0", "n1");
        cluster.advance(10 * S).await;
        let total = n0.call(there, Read).await;
        assert_eq!(total, Ok(0), "what went the old way never comes");
    });
}

#[test]
fn whoever_leaves_is_a_failure_to_nobody_whatever_the_roads_are_like() {
    for seed in 0..5 {
        let bad = Road { loss: 0.05, jitter: S / 100, ..Road::default() };
        let cluster = Cluster::builder(seed).nodes(5).roads(bad).start();
        cluster.run(async |cluster| {
            cluster.advance(3 * S).await;
            for name in ["n4", "n1", "n3"] {
                cluster.stop(name).await;
                cluster.until_whole(2 * S).await;
            }
        });
        let lines = cluster.log().lines();
        assert!(!lines.iter().any(|line| line.contains("NodeDown")), "seed {seed}");
    }
}
