//! Children of cluster supervisors on simulated machines: each rule by itself.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::testing::Cluster;
use purlin::{
    CallError, ChildPlacement, ClusterChild, ClusterChildError, ClusterChildInfo,
    ClusterChildState, ClusterSupervisor, Dest, ExitReason, NodeName, Restart, StartedChild,
};
use purlin_cluster_tests::jobs::{Do, Fail, Finish, Job, noted, starts};

const S: Duration = Duration::from_secs(1);

fn jobs() -> ClusterSupervisor {
    ClusterSupervisor::new("jobs").available().intensity(3, 10 * S)
}

fn job(name: &str) -> ClusterChild {
    ClusterChild::actor::<Job>(purlin::Key::new(name).unwrap(), name.to_owned())
}

fn dest(name: &str) -> Dest {
    format!("child:jobs/{name}").parse().unwrap()
}

fn cluster(nodes: usize) -> Cluster {
    let cluster = Cluster::builder(11).nodes(nodes);
    cluster.with(|node| node.actor::<Job>().label("disk", "ssd")).start()
}

async fn start(cluster: &Cluster, on: &'static str, child: ClusterChild) -> Started {
    let start = |node: purlin::Node| async move {
        node.cluster_supervisor(jobs()).start_child(child).await
    };
    cluster.node(on).run(start).await.unwrap()
}

type Started = Result<StartedChild, ClusterChildError>;

async fn start_many(cluster: &Cluster, count: usize) {
    for number in 0..count {
        let started = start(cluster, "n0", job(&format!("j{number}"))).await;
        assert_eq!(started, Ok(StartedChild::New));
    }
    cluster.advance(2 * S).await;
}

async fn children(cluster: &Cluster, on: NodeName) -> Vec<ClusterChildInfo> {
    let list = |node: purlin::Node| async move {
        node.cluster_supervisor("jobs").children().await.unwrap()
    };
    cluster.node(on).run(list).await.unwrap()
}

/// Where each child runs, as all running nodes see it, which must be the same.
async fn places(cluster: &Cluster) -> BTreeMap<String, NodeName> {
    let mut views = Vec::new();
    for name in cluster.running() {
        let list = children(cluster, name).await;
        let running = list.iter().map(|info| {
            assert_eq!(info.state, ClusterChildState::Running, "{name}: {info:?}");
            (info.child.child.to_string(), info.pid.unwrap().node.name)
        });
        views.push(running.collect::<BTreeMap<_, _>>());
    }
    assert!(views.iter().all(|view| *view == views[0]), "{views:#?}");
    views.remove(0)
}

async fn state(cluster: &Cluster, name: &'static str) -> ClusterChildState {
    let on = cluster.running()[0];
    let list = children(cluster, on).await;
    list.into_iter().find(|info| info.child.child.as_str() == name).unwrap().state
}

#[test]
fn a_child_runs_once_and_is_reached_from_every_node() {
    cluster(3).run(async |cluster| {
        assert_eq!(start(cluster, "n1", job("a")).await, Ok(StartedChild::New));
        for (done, from) in (1..).zip(["n0", "n1", "n2"]) {
            let (_, count) = cluster.node(from).call(dest("a"), Do).await.unwrap();
            assert_eq!(count, done);
        }
        assert_eq!(noted().len(), 1);
    });
}

#[test]
fn a_child_that_is_there_is_not_started_again() {
    cluster(3).run(async |cluster| {
        start(cluster, "n0", job("a")).await.unwrap();
        cluster.node("n0").call(dest("a"), Do).await.unwrap();
        cluster.advance(S).await;
        for on in ["n0", "n1", "n2"] {
            let again = start(cluster, on, job("a")).await;
            assert_eq!(again, Ok(StartedChild::Present(ClusterChildState::Running)));
            let other = start(cluster, on, job("a").restart(Restart::Temporary)).await;
            assert_eq!(other, Err(ClusterChildError::Differs));
        }
        assert_eq!(noted().len(), 1);
    });
}

#[test]
fn a_child_that_is_stopped_ends_in_good_order_and_is_forgotten() {
    cluster(3).run(async |cluster| {
        start(cluster, "n0", job("a")).await.unwrap();
        cluster.node("n0").call(dest("a"), Do).await.unwrap();
        let stop = |node: purlin::Node| async move {
            let jobs = node.cluster_supervisor("jobs");
            (jobs.stop_child("a").await, jobs.stop_child("b").await)
        };
        let stopped = cluster.node("n2").run(stop).await.unwrap();
        assert_eq!(stopped, (Ok(()), Err(ClusterChildError::NotFound)));
        cluster.advance(S).await;

        let ends: Vec<_> = noted().into_iter().filter_map(|noted| noted.end).collect();
        assert_eq!(ends, [ExitReason::Shutdown]);
        assert_eq!(children(cluster, "n1".into()).await, []);
        assert_eq!(cluster.node("n1").call(dest("a"), Do).await, Err(CallError::NoProcess));
        // And it can be started anew, as another one.
        let other = job("a").restart(Restart::Temporary);
        assert_eq!(start(cluster, "n0", other).await, Ok(StartedChild::New));
        assert!(cluster.node("n1").call(dest("a"), Do).await.is_ok());
    });
}

#[test]
fn one_that_crashes_is_restarted_where_it_was_until_that_is_too_often() {
    cluster(3).run(async |cluster| {
        start(cluster, "n0", job("a")).await.unwrap();
        let (first, _) = cluster.node("n0").call(dest("a"), Do).await.unwrap();
        for crash in 1..=4 {
            cluster.node("n1").call(dest("a"), Fail).await.unwrap_err();
            cluster.advance(S).await;
            let next = cluster.node("n2").call(dest("a"), Do).await;
            match crash {
                4 => assert_eq!(next, Err(CallError::NoProcess)),
                _ => assert_eq!(next, Ok((first, 1))),
            }
        }
        assert_eq!(state(cluster, "a").await, ClusterChildState::GaveUp);
        assert_eq!(noted().len(), 4);

        let restart = |node: purlin::Node| async move {
            node.cluster_supervisor("jobs").restart_child("a").await
        };
        assert_eq!(cluster.node("n1").run(restart).await, Some(Ok(())));
        assert_eq!(cluster.node("n2").call(dest("a"), Do).await.map(|done| done.1), Ok(1));
    });
}

#[test]
fn restarts_are_counted_on_whichever_nodes() {
    cluster(4).run(async |cluster| {
        start(cluster, "n0", job("a")).await.unwrap();
        let (first, _) = cluster.node("n0").call(dest("a"), Do).await.unwrap();
        // Long enough for it not to be taken for the reason.
        cluster.advance(60 * S).await;
        for _ in 0..2 {
            cluster.node(first).call(dest("a"), Fail).await.unwrap_err();
            cluster.advance(S / 10).await;
        }
        cluster.crash(first);
        cluster
            .until(10 * S, "others see that it is down", || {
                cluster.running().iter().all(|&name| cluster.node(name).members().len() == 3)
            })
            .await;
        let from = cluster.running()[0];
        for crash in 3..=4 {
            assert!(cluster.node(from).call(dest("a"), Do).await.is_ok(), "{crash}");
            cluster.node(from).call(dest("a"), Fail).await.unwrap_err();
        }
        cluster.advance(S).await;
        assert_eq!(state(cluster, "a").await, ClusterChildState::GaveUp);
    });
}

#[test]
fn one_that_is_done_stays_done() {
    cluster(3).run(async |cluster| {
        start(cluster, "n0", job("a").restart(Restart::Transient)).await.unwrap();
        cluster.node("n0").call(dest("a"), Fail).await.unwrap_err();
        cluster.advance(S).await;
        cluster.node("n0").call(dest("a"), Finish).await.unwrap();
        cluster.advance(10 * S).await;
        assert_eq!(state(cluster, "a").await, ClusterChildState::Done);
        let again = start(cluster, "n1", job("a").restart(Restart::Transient)).await;
        assert_eq!(again, Ok(StartedChild::Present(ClusterChildState::Done)));
        assert_eq!(starts(&noted())["a"], 2);
    });
}

#[test]
fn when_a_node_dies_each_of_its_children_is_started_once_elsewhere() {
    cluster(5).run(async |cluster| {
        start_many(cluster, 40).await;
        let before = places(cluster).await;
        assert_eq!(before.len(), 40);
        assert!(noted().len() == 40);
        let lost: Vec<_> = before.iter().filter(|(_, at)| **at == "n3".into()).collect();
        assert!(!lost.is_empty());

        cluster.crash("n3");
        cluster.advance(10 * S).await;

        let after = places(cluster).await;
        let noted = noted();
        assert_eq!(noted.len(), lost.len(), "{noted:?}");
        for (name, at) in &before {
            match *at == "n3".into() {
                true => assert_eq!(starts(&noted).get(name.as_str()), Some(&1), "{name}"),
                false => assert_eq!(after[name], *at, "{name}"),
            }
        }
    });
}

#[test]
fn when_a_node_is_back_before_it_was_missed_its_children_run_again() {
    for nodes in [2, 3] {
        cluster(nodes).run(async |cluster| {
            start_many(cluster, 12).await;
            cluster.crash("n1");

            cluster.restart("n1").await;

            cluster.until_whole(20 * S).await;
            cluster.advance(15 * S).await;
            assert_eq!(places(cluster).await.len(), 12, "of {nodes} nodes");
        });
    }
}

#[test]
fn when_a_node_joins_only_what_must_move_moves_and_ends_first() {
    let cluster =
        Cluster::builder(11).nodes(4).with(purlin::NodeBuilder::actor::<Job>).start_apart();
    cluster.run(async |cluster| {
        for name in ["n0", "n1", "n2"] {
            cluster.restart(name).await;
        }
        cluster.until_whole(60 * S).await;
        start_many(cluster, 200).await;
        let before = places(cluster).await;
        noted();

        cluster.restart("n3").await;
        cluster.until_whole(60 * S).await;
        cluster.advance(10 * S).await;

        let after = places(cluster).await;
        let moved: Vec<_> = after.iter().filter(|(name, at)| before[*name] != **at).collect();
        assert!(moved.iter().all(|(_, at)| **at == "n3".into()), "{moved:?}");
        assert!((30..=60).contains(&moved.len()), "{} of 200 have moved", moved.len());
        let noted = noted();
        for (name, _) in moved {
            let of = noted.iter().filter(|noted| noted.job == *name);
            let of: Vec<_> = of.map(|noted| noted.end.clone()).collect();
            assert_eq!(of, [Some(ExitReason::Shutdown), None], "{name}");
        }
    });
}

#[test]
fn when_a_node_leaves_in_good_order_its_children_end_first_and_go_on_elsewhere() {
    cluster(4).run(async |cluster| {
        start_many(cluster, 40).await;
        let before = places(cluster).await;
        noted();
        cluster.stop("n2").await;
        cluster.advance(5 * S).await;

        let after = places(cluster).await;
        assert_eq!(after.len(), 40);
        let noted = noted();
        for (name, _) in before.iter().filter(|(_, at)| **at == "n2".into()) {
            let of = noted.iter().filter(|noted| noted.job == *name);
            let of: Vec<_> = of.map(|noted| noted.end.clone()).collect();
            assert_eq!(of, [Some(ExitReason::Shutdown), None], "{name}");
        }
    });
}

#[test]
fn a_child_with_which_two_nodes_went_down_is_left_alone() {
    cluster(5).run(async |cluster| {
        start_many(cluster, 30).await;
        let (mut at, _) = cluster.node("n0").call(dest("j7"), Do).await.unwrap();
        for deaths in 1..=2 {
            cluster.crash(at);
            cluster.advance(9 * S).await;
            let from = cluster.running()[0];
            match cluster.node(from).call(dest("j7"), Do).await {
                Ok((next, _)) if deaths == 1 => at = next,
                other => assert_eq!((deaths, other), (2, Err(CallError::NoProcess))),
            }
        }
        assert_eq!(state(cluster, "j7").await, ClusterChildState::Poison);
        // Those that were on one of them only go on.
        let from = cluster.running()[0];
        let list = children(cluster, from).await;
        assert!(list.iter().filter(|i| i.state == ClusterChildState::Running).count() > 15);
    });
}

#[test]
fn in_a_split_each_side_has_one_and_after_it_one_is_kept() {
    let cluster = cluster(5);
    cluster.run(async |cluster| {
        start_many(cluster, 30).await;
        cluster.advance(60 * S).await;
        let before = places(cluster).await;
        noted();
        cluster.split(&["n0".into(), "n1".into()]);
        cluster.advance(20 * S).await;
        for from in ["n0", "n1", "n2", "n3", "n4"] {
            for number in 0..30 {
                let done = cluster.node(from).call(dest(&format!("j{number}")), Do).await;
                let (at, _) = done.unwrap_or_else(|error| panic!("{from}, {number}: {error}"));
                let here = |name: NodeName| ["n0", "n1"].map(NodeName::from).contains(&name);
                assert_eq!(here(at), here(from.into()), "its own side's");
            }
        }
        let doubled = noted();
        assert_eq!(doubled.len(), 30, "each side has started what it lacked, once: {doubled:?}");

        cluster.heal();
        cluster.until_whole(60 * S).await;
        cluster.advance(15 * S).await;

        let after = places(cluster).await;
        assert_eq!(after, before, "who started them first saw all");
        let told = noted();
        let ended: Vec<_> = told.iter().filter_map(|noted| noted.end.as_ref()).collect();
        assert_eq!(ended.len(), 30, "{told:?}");
        assert_eq!(told.len(), 30, "none is started any more: {told:?}");
        assert!(ended.iter().all(|reason| reason.to_string().contains("ran twice")), "{ended:?}");
    });
}

#[test]
fn children_go_where_their_labels_are_and_wait_for_them() {
    let cluster =
        Cluster::builder(11).nodes(3).with(purlin::NodeBuilder::actor::<Job>).start_apart();
    cluster.run(async |cluster| {
        cluster.restart("n0").await;
        let child = job("a").on_label("zone", "eu");
        assert_eq!(start(cluster, "n0", child).await, Ok(StartedChild::New));
        cluster.advance(5 * S).await;
        assert_eq!(state(cluster, "a").await, ClusterChildState::Starting);
        let lost = cluster.node("n0").call(dest("a"), Do).await;
        assert_eq!(lost, Err(CallError::NoProcess), "after its timeout");
    });
}

#[test]
fn the_least_loaded_are_chosen() {
    cluster(3).run(async |cluster| {
        for number in 0..30 {
            let child = job(&format!("j{number}")).placement(ChildPlacement::LeastLoaded);
            start(cluster, "n0", child).await.unwrap();
            cluster.advance(S / 4).await;
        }
        cluster.advance(2 * S).await;
        let mut counts = BTreeMap::new();
        for at in places(cluster).await.into_values() {
            *counts.entry(at).or_insert(0) += 1;
        }
        assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
    });
}

#[test]
fn a_singleton_is_one_whoever_asks_for_it_and_outlives_its_node() {
    cluster(3).run(async |cluster| {
        let ask = |node: purlin::Node| async move {
            let supervisor = ClusterSupervisor::new("clock").available();
            let clock = node.singleton::<Job>(supervisor, "clock".to_owned()).await.unwrap();
            clock.call(Do).await.unwrap()
        };
        let mut at = None;
        for (done, from) in (1..).zip(["n0", "n1", "n2"]) {
            let (node, count) = cluster.node(from).run(ask).await.unwrap();
            assert_eq!((count, *at.get_or_insert(node)), (done, node));
        }
        cluster.crash(at.unwrap());
        let from = cluster.running()[0];
        // The calls until the loss is seen are told so; then one waits for the new one.
        cluster.until(10 * S, "it is seen", || cluster.node(from).members().len() == 2).await;
        let next = cluster.node(from).call(Dest::child("clock", "singleton"), Do).await;
        assert_eq!(next.map(|(_, count)| count), Ok(1));
    });
}

#[test]
fn one_that_cannot_be_started_is_given_up_with_the_reason() {
    cluster(3).run(async |cluster| {
        let args = purlin::Payload::encode(purlin::Codec::Json, "x").unwrap();
        let child = ClusterChild::kind("a", "no-such-kind", args);
        assert_eq!(start(cluster, "n0", child).await, Ok(StartedChild::New));
        cluster.advance(5 * S).await;
        let list = children(cluster, "n1".into()).await;
        assert_eq!(list[0].state, ClusterChildState::GaveUp);
        assert!(list[0].why.contains("no-such-kind"), "{}", list[0].why);
    });
}
