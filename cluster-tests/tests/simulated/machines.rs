//! What `purlin::testing` promises of its machines, roads and clocks.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Add, Counter, Kv, Put, Read};
use purlin::proto::admin::GetStatus;
use purlin::testing::{Cluster, DiskState, Road};
use purlin::{CallError, Dest, ExitReason, Keyed, NodeBuilder};
use tokio::time::Instant;

const S: Duration = Duration::from_secs(1);

fn kinds(node: NodeBuilder) -> NodeBuilder {
    node.actor::<Counter>().actor::<Kv>()
}

fn cluster(seed: u64, nodes: usize) -> Cluster {
    Cluster::builder(seed).nodes(nodes).with(kinds).start()
}

#[test]
fn another_seed_gives_another_run_and_the_same_one_the_same() {
    let run = |seed| {
        let cluster = cluster(seed, 3);
        cluster.run(async |cluster| cluster.advance(5 * S).await);
        (cluster.digest(), cluster.log().lines())
    };

    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn whoever_watches_a_process_is_told_when_its_machine_crashes_and_not_before_it_is_seen() {
    cluster(1, 3).run(async |cluster| {
        let counter = cluster.node("n1").spawn::<Counter>(None).await.unwrap().pid();
        let n0 = cluster.node("n0");
        let down = n0.run(move |node| async move { node.runtime().down(counter).await });
        let crash = async {
            cluster.advance(S).await;
            cluster.crash("n1");
            cluster.now()
        };
        let (crashed, down) = tokio::join!(crash, down);

        assert_eq!(down.unwrap().reason, ExitReason::NoConnection);
        let took = cluster.now().saturating_sub(crashed);
        assert!(took > S && took < 6 * S, "{took:?}");
        let lost = cluster.node("n2").call(counter, Read).await;
        assert_eq!(lost, Err(CallError::NoConnection));
    });
}

#[test]
fn nothing_is_left_of_a_node_whose_machine_has_crashed_nor_of_a_cluster() {
    let cluster = cluster(1, 3);
    let runtimes = cluster.run(async |cluster| {
        let runtimes = ["n0", "n1", "n2"]
            .map(|name| cluster.node(name).look(|node| node.runtime().downgrade()).unwrap());
        // What they have to do with each other is to go as well.
        cluster
            .node("n0")
            .call(Dest::Remote("purlin".into(), "n1".into()), GetStatus)
            .await
            .unwrap();

        cluster.crash("n1");

        assert!(runtimes[0].upgrade().is_some());
        assert!(runtimes[1].upgrade().is_none());
        runtimes
    });
    drop(cluster);
    assert!(runtimes.iter().all(|runtime| runtime.upgrade().is_none()));
}

#[test]
fn a_machine_that_was_switched_off_says_nothing_more() {
    cluster(1, 2).run(async |cluster| {
        let (n0, n1) = (cluster.node("n0"), cluster.node("n1"));
        let counter = n1.spawn::<Counter>(None).await.unwrap();
        let task = n0.run(|_| tokio::time::sleep(S));
        let crash = async {
            cluster.advance(S / 2).await;
            cluster.crash("n0");
        };
        let (over, ()) = tokio::join!(task, crash);
        let (before, packets) = (n1.members(), cluster.digest().packets);
        cluster.advance(S / 2).await;

        assert_eq!(over, None);
        assert_eq!(n1.members(), before, "nobody has told it");
        assert!(cluster.digest().packets > packets, "it goes on asking");
        assert_eq!(n0.call(&counter, Read).await.unwrap_err(), CallError::NoConnection);
    });
}

#[test]
fn a_node_comes_back_under_its_next_creation_at_its_old_address() {
    cluster(1, 3).run(async |cluster| {
        let before = cluster.node("n2").id().unwrap();
        cluster.crash("n2");
        cluster.restart("n2").await;
        cluster.until_whole(60 * S).await;

        let after = cluster.node("n2").id().unwrap();
        assert!(after.creation > before.creation);
    });
}

#[test]
fn a_node_that_stops_in_good_order_is_not_taken_for_dead() {
    let cluster = cluster(1, 3);
    cluster.run(async |cluster| {
        cluster.advance(3 * S).await;
        cluster.stop("n1").await;
        cluster.until_whole(S).await;
    });
    let lines = cluster.log().lines();
    assert!(lines.iter().any(|line| line.contains("NodeLeft")));
    assert!(!lines.iter().any(|line| line.contains("NodeDown")), "{lines:#?}");
}

#[test]
fn a_frozen_machine_does_nothing_and_is_late_for_everything() {
    cluster(1, 2).run(async |cluster| {
        let n1 = cluster.node("n1");
        let nap = n1.run(|_| async {
            let begun = Instant::now();
            tokio::time::sleep(S).await;
            begun.elapsed()
        });
        let freeze = async {
            cluster.advance(S / 2).await;
            cluster.freeze("n1", 2 * S);
        };
        let ((), slept) = tokio::join!(freeze, nap);

        let slept = slept.unwrap();
        assert!(slept >= 2 * S + S / 2, "{slept:?}");
        cluster.until_whole(10 * S).await;
    });
}

#[test]
fn clocks_run_as_fast_as_they_are_told_to() {
    cluster(1, 2).run(async |cluster| {
        cluster.skew("n1", 1.5);
        let hour = |name: &'static str| cluster.node(name).look(|_| Instant::now()).unwrap();
        let before = ["n0", "n1"].map(hour);
        cluster.advance(10 * S).await;
        let [right, wrong] = ["n0", "n1"].map(hour);

        assert_eq!(right - before[0], 10 * S);
        let fast = (wrong - before[1]).as_secs_f64();
        assert!((fast - 15.0).abs() < 0.01, "{fast}");
    });
}

#[test]
fn roads_are_as_bad_as_they_are_made_one_way_at_a_time() {
    cluster(1, 2).run(async |cluster| {
        let counter = cluster.node("n1").spawn::<Counter>(None).await.unwrap();
        let took = async || {
            let begun = cluster.now();
            cluster.node("n0").call(&counter, Read).await.unwrap();
            cluster.now().saturating_sub(begun)
        };
        assert!(took().await < Duration::from_millis(3));

        cluster.set_road("n0", "n1", Road { latency: S / 10, ..Road::default() });
        let one_way = took().await;
        assert!(one_way >= S / 10 && one_way < S / 5, "{one_way:?}");

        cluster.set_road("n0", "n1", Road { loss: 0.3, duplication: 0.3, ..Road::default() });
        for _ in 0..50 {
            took().await;
        }
    });
}

#[test]
fn a_process_that_is_killed_is_missed_at_once_since_its_machine_says_so() {
    cluster(1, 5).run(async |cluster| {
        let counter = cluster.node("n1").spawn::<Counter>(None).await.unwrap().pid();
        let n0 = cluster.node("n0");
        let down = n0.run(move |node| async move { node.runtime().down(counter).await });
        let kill = async {
            cluster.advance(S).await;
            cluster.kill("n1");
            cluster.now()
        };
        let (killed, down) = tokio::join!(kill, down);

        assert_eq!(down.unwrap().reason, ExitReason::NoConnection);
        let took = cluster.now().saturating_sub(killed);
        assert!(took < S, "{took:?}");

        cluster.restart("n1").await;
        cluster.until_whole(10 * S).await;
    });
}

#[test]
fn a_narrow_road_delays_what_waits_and_loses_what_has_no_room() {
    cluster(1, 2).run(async |cluster| {
        let (n0, n1) = (cluster.node("n0"), cluster.node("n1"));
        let kv = n1.spawn::<Kv>(()).await.unwrap();
        let took = async |bytes: usize| {
            let begun = cluster.now();
            let put = Put { key: "k".into(), value: "x".repeat(bytes) };
            n0.call(&kv, put).await.unwrap();
            cluster.now().saturating_sub(begun)
        };
        assert!(took(500_000).await < S / 10);

        let narrow = Road { bandwidth: Some(200_000), ..Road::default() };
        cluster.set_road("n0", "n1", narrow.clone());
        let slow = took(500_000).await;
        assert!(slow > 2 * S && slow < 4 * S, "{slow:?}");

        // QUIC sends again what found no room.
        cluster.set_road("n0", "n1", Road { queue: 6_000, ..narrow });
        let slower = took(500_000).await;
        assert!(slower > 2 * S && slower < 5 * S, "{slower:?}");
        assert_eq!(n0.members(), n1.members());
    });
}

#[test]
fn states_survive_a_crash_on_the_disk_and_what_it_has_no_room_for_is_lost_and_counted() {
    let keyed = Keyed::available().passivate_after(S);
    let stateful = move |node: NodeBuilder| node.stateful::<Counter>(keyed);
    let cluster = Cluster::builder(21).nodes(1).with(stateful).start();
    let add = async |cluster: &Cluster, number| {
        cluster.node("n0").call(Dest::key("counter", 1), Add(number)).await
    };
    cluster.run(async |cluster| {
        assert_eq!(add(cluster, 5).await, Ok(5));
        cluster.advance(10 * S).await;
        cluster.crash("n0");
        cluster.restart("n0").await;
        assert_eq!(add(cluster, 2).await, Ok(7));

        cluster.set_disk("n0", DiskState::Full);
        cluster.advance(120 * S).await;
        let counted = cluster.node("n0").look(|node| node.runtime().counters().snapshot()).unwrap();
        let lost = counted.into_iter().find(|counter| counter.name == "keyed.not_saved").unwrap();
        assert_eq!(lost.count, 1);
        cluster.set_disk("n0", DiskState::Slow(S));
        assert_eq!(add(cluster, 1).await, Ok(6), "what was saved before");
        cluster.advance(10 * S).await;
        assert_eq!(add(cluster, 1).await, Ok(7), "what was saved slowly");
    });
}
