//! ND: nodes that come and go, and who is told. Always two nodes or more.

use std::time::Duration;

use purlin::proto::Role;
use purlin::{Dest, ExitReason, Name, Node, NodeEvent, NodeName, Received};
use purlin_cluster_tests::memory::{Cluster, until_sees};
use tokio::time::Instant;

use crate::hand::{Got, Hand, Number};
use crate::place::{Place, count, kinds, places, run_on, settle};

/// A hand here that is told of nodes.
async fn node_watcher(place: &Place) -> Hand {
    let watcher = Hand::start(&place.here);
    watcher.does(|ctx| ctx.monitor_nodes()).await;
    watcher
}

/// Cuts the two nodes off until both have given each other up, and lets them find each other again.
async fn part_and_meet(place: &Place) {
    place.cut();
    until_sees(&place.here, 1).await;
    until_sees(&place.there, 1).await;
    place.heal();
    place.cluster.until_all_see(2).await;
    settle().await;
}

async fn nd_2_who_asks_twice_for_nodes_is_told_once(place: Place) {
    let mut watcher = node_watcher(&place).await;
    watcher.does(|ctx| ctx.monitor_nodes()).await;

    place.cut();

    let node = place.there.id();
    assert_eq!(watcher.next().await, Got::Node(NodeEvent::Down { node, left: false }));
    assert!(watcher.is_quiet().await);
}

async fn nd_3_up_comes_before_and_down_after_all_signals_of_that_life(place: Place) {
    let (mut watcher, here) = (node_watcher(&place).await, place.here.id().name);
    place.here.runtime().register(Name::new("watcher").unwrap(), watcher.pid).unwrap();
    for spammer in 0..64 {
        let there = place.there.clone();
        tokio::spawn(async move {
            run_on(&there, move |ctx| async move {
                for _ in 0..3000 {
                    let to = Dest::Remote(Name::new("watcher").unwrap(), here);
                    ctx.runtime().send(to, Number(spammer));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
        });
    }
    settle().await;

    part_and_meet(&place).await;

    let got = watcher.rest();
    let events: Vec<_> = (0..got.len()).filter(|&at| matches!(got[at], Got::Node(_))).collect();
    let [down, up] = events[..] else { panic!("{events:?}") };
    assert!(matches!(got[down], Got::Node(NodeEvent::Down { .. })));
    assert!(matches!(got[up], Got::Node(NodeEvent::Up { .. })));
    assert_eq!(up, down + 1, "nothing of it comes while it is down");
    assert!(down > 64 && got.len() - up > 64, "and much before and after");
}

async fn nd_4_the_ends_of_links_and_monitors_come_before_the_nodes(place: Place) {
    let mut watcher = node_watcher(&place).await;
    let targets = [(); 20].map(|()| Hand::start(&place.there).pid);
    watcher
        .does(move |ctx| {
            ctx.trap_exits(true);
            for pid in targets {
                ctx.link(pid);
                ctx.monitor(pid);
            }
        })
        .await;
    settle().await;

    place.cut();
    until_sees(&place.here, 1).await;
    settle().await;

    let got = watcher.rest();
    assert_eq!(got.len(), 41);
    for got in &got[..40] {
        match got {
            Got::Down(down) => assert_eq!(down.reason, ExitReason::NoConnection),
            Got::LinkDown(down) => assert_eq!(down.reason, ExitReason::NoConnection),
            got => panic!("{got:?}"),
        }
    }
    assert!(matches!(got[40], Got::Node(NodeEvent::Down { .. })), "{:?}", got[40]);
}

async fn nd_6_who_is_told_of_a_node_finds_the_members_so(place: Place) {
    let (node, name) = (place.here.clone(), place.there.id().name);
    let seen = run_on(&place.here, move |mut ctx| async move {
        ctx.monitor_nodes();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let up = match ctx.receive().await.unwrap() {
                Received::Node(NodeEvent::Up { .. }) => true,
                Received::Node(NodeEvent::Down { .. }) => false,
                received => panic!("{received:?}"),
            };
            seen.push((up, node.members().contains(&name)));
        }
        seen
    });

    let (seen, ()) = tokio::join!(seen, async {
        settle().await;
        part_and_meet(&place).await;
    });

    assert_eq!(seen, [(false, false), (true, true)]);
}

async fn nd_7_who_left_is_told_apart_from_who_was_lost(place: Place) {
    let mut watcher = node_watcher(&place).await;
    let node = place.there.id();

    place.there.stop().await;

    assert_eq!(watcher.next().await, Got::Node(NodeEvent::Down { node, left: true }));
}

async fn nd_8_a_silent_node_is_found_within_the_time_that_is_set(place: Place) {
    let mut watcher = node_watcher(&place).await;
    settle().await;
    let begun = Instant::now();

    place.cluster.network.kill(place.there.address());

    assert!(matches!(watcher.next().await, Got::Node(NodeEvent::Down { .. })));
    let after = begun.elapsed();
    assert!(after <= Duration::from_secs(5), "the default of detect_in: {after:?}");
}

async fn nd_11_nodes_that_join_through_one_find_the_others(mut place: Place) {
    let third = place.cluster.join("third", kinds).await;
    place.cluster.until_all_see(3).await;
    let mut receiver = Hand::named(&place.there, "receiver");
    let sender = Hand::start(&third);
    let to = Dest::Remote(Name::new("receiver").unwrap(), place.there.id().name);

    sender.does(move |ctx| ctx.runtime().send(to, Number(3))).await;

    assert_eq!(receiver.next().await, Got::Number(3));
}

/// Starts two nodes at the same moment, each of which has the other for its seed.
async fn two_at_once(cluster: &mut Cluster) -> (Node, Node) {
    let names = ["east", "west"].map(|name| NodeName::new(name).unwrap());
    let addresses = [cluster.next_address(), cluster.next_address()];
    let start = |me: usize| {
        let credentials = cluster.credentials(names[me], Role::Node);
        kinds(Node::builder())
            .name(names[me])
            .memory(cluster.network.clone(), addresses[me], credentials)
            .seed(addresses[1 - me].to_string())
            .start()
    };
    let (east, west) = tokio::join!(start(0), start(1));
    (east.unwrap(), west.unwrap())
}

async fn nd_14_two_nodes_that_connect_at_once_are_connected_once(_: Place) {
    for _ in 0..10 {
        let mut cluster = Cluster::empty();
        let (east, west) = two_at_once(&mut cluster).await;
        let mut watchers = [&east, &west].map(|node| Hand::begin(node, |ctx| ctx.monitor_nodes()));
        until_sees(&east, 2).await;
        until_sees(&west, 2).await;

        let pids = watchers.each_ref().map(|watcher| watcher.pid);
        for (watcher, to) in watchers.iter().zip([pids[1], pids[0]]) {
            watcher.does(move |ctx| ctx.runtime().send(to, Number(1))).await;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;

        for watcher in &mut watchers {
            let got = watcher.rest();
            let [Got::Node(NodeEvent::Up { .. }), Got::Number(1)] = &got[..] else {
                panic!("{got:?}")
            };
        }
    }
}

async fn nd_15_a_node_that_restarts_at_once_is_down_before_it_is_up_again(mut place: Place) {
    let mut watcher = node_watcher(&place).await;
    let (address, old) = (place.there.address(), place.there.id());

    place.cluster.network.kill(address);
    place.cluster.nodes.truncate(1);
    let again = place.cluster.join_at(old.name.as_str(), address, kinds).await;
    place.cluster.until_all_see(2).await;
    settle().await;

    let got = watcher.rest();
    let [Got::Node(NodeEvent::Down { node: lost, .. }), Got::Node(NodeEvent::Up { node, .. })] =
        &got[..]
    else {
        panic!("{got:?}")
    };
    assert_eq!((*lost, *node), (old, again.id()));
}

async fn nd_16_a_second_node_of_a_living_name_does_not_get_in(mut place: Place) {
    let mut watcher = node_watcher(&place).await;
    let old = place.there.id();

    let second = place.cluster.join(old.name.as_str(), kinds).await;
    tokio::time::sleep(Duration::from_secs(30)).await;

    assert_eq!(second.members(), [old.name], "it sees nobody but itself");
    assert_eq!(watcher.rest(), [], "and nobody saw it");
    assert_eq!(place.there.id(), old);
}

async fn nd_18_a_watcher_of_nodes_that_ends_is_forgotten(place: Place) {
    let watcher = node_watcher(&place).await;
    let mut other = node_watcher(&place).await;
    watcher.end(ExitReason::Normal);
    settle().await;
    let before = count(&place.here, "dropped.no_process");

    part_and_meet(&place).await;

    assert_eq!(other.rest().len(), 2);
    assert_eq!(count(&place.here, "dropped.no_process"), before);
}

places! {
    both {}
    local {}
    remote {
        nd_2_who_asks_twice_for_nodes_is_told_once
        nd_3_up_comes_before_and_down_after_all_signals_of_that_life
        nd_4_the_ends_of_links_and_monitors_come_before_the_nodes
        nd_6_who_is_told_of_a_node_finds_the_members_so
        nd_7_who_left_is_told_apart_from_who_was_lost
        nd_8_a_silent_node_is_found_within_the_time_that_is_set
        nd_11_nodes_that_join_through_one_find_the_others
        nd_14_two_nodes_that_connect_at_once_are_connected_once
        nd_15_a_node_that_restarts_at_once_is_down_before_it_is_up_again
        nd_16_a_second_node_of_a_living_name_does_not_get_in
        nd_18_a_watcher_of_nodes_that_ends_is_forgotten
    }
}
