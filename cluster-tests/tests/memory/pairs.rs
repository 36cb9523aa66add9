//! Two nodes that cannot talk while others reach both: membership keeps both, and whoever watches
//! across the gap is told.
//!
//! On the network in memory and on paused time.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::{ExitReason, LinkDown, Node, NodeBuilder, Ref};
use purlin_cluster_tests::memory::Cluster;
use purlin_cluster_tests::numbered::{Numbered, Receiver, Report};
use purlin_cluster_tests::probe::Probe;
use tokio::time::Instant;

const DETECT_IN: Duration = Duration::from_secs(5);

fn kinds(builder: NodeBuilder) -> NodeBuilder {
    builder.actor::<Receiver>()
}

/// Waits until a process answers, and says how long that took.
async fn until_answers(from: &Node, to: &Ref<Receiver>) -> Duration {
    let begun = Instant::now();
    while from.call(to, Report).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "still no answer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    begun.elapsed()
}

/// Cuts two of four nodes from each other for a minute, and looks what becomes of what there is
/// between them. What the first sends gets to the other up to this number.
async fn a_pair_is_cut(last: u64, cut: impl Fn(&Cluster, &Node, &Node)) {
    let cluster = Cluster::start(4, kinds).await;
    let [a, b, c, _] = &cluster.nodes[..] else { unreachable!() };
    let at_b = b.spawn::<Receiver>(()).await.unwrap();
    let (target, other) = (Probe::start(b, |_| {}).pid, Probe::start(b, |_| {}).pid);
    let mut watcher = Probe::start(a, |ctx| {
        ctx.monitor(target);
        ctx.monitor_nodes();
    });
    let mut linked = Probe::start(a, |ctx| {
        ctx.trap_exits(true);
        ctx.link(other);
    });
    let mut elsewhere = Probe::start(c, |ctx| {
        ctx.monitor(target);
        ctx.monitor_nodes();
    });
    for number in 0..10 {
        a.send(&at_b, Numbered::new(number, 8));
    }
    assert_eq!(a.call(&at_b, Report).await, Ok(vec![(0, 9)]));
    let ids: Vec<_> = cluster.nodes.iter().map(Node::id).collect();

    cut(&cluster, a, b);
    let begun = Instant::now();
    for number in 10..20 {
        a.send(&at_b, Numbered::new(number, 8));
    }
    assert_eq!(watcher.down().await.reason, ExitReason::NoConnection);
    let took = begun.elapsed();
    let gone = LinkDown { pid: other, reason: ExitReason::NoConnection };
    assert_eq!(linked.link_down().await, gone);
    // Less than a look and the time between two packets; the far side may have to tell.
    let within = DETECT_IN.mul_f64(0.8)..DETECT_IN.mul_f64(1.1);
    assert!(within.contains(&took), "noconnection after {took:?}");
    for number in 20..30 {
        a.send(&at_b, Numbered::new(number, 8));
    }
    tokio::time::sleep(Duration::from_mins(1)).await;

    for node in &cluster.nodes {
        assert_eq!(node.members().len(), 4, "{} still sees all", node.id());
    }
    assert!(watcher.has_nothing(), "one notice, and no node is down");
    assert!(elsewhere.has_nothing(), "whoever has a connection notices nothing");
    assert_eq!(c.call(&at_b, Report).await, Ok(vec![(0, last)]), "nothing crosses the gap");

    cluster.heal(a, b);
    let took = until_answers(a, &at_b).await;
    assert!(took < Duration::from_secs(15), "talking again after {took:?}");
    for number in 30..40 {
        a.send(&at_b, Numbered::new(number, 8));
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let came = a.call(&at_b, Report).await.unwrap();
    assert_eq!(came, [(0, last), (30, 39)], "nothing of the old association comes later");
    assert!(watcher.has_nothing() && linked.has_nothing() && elsewhere.has_nothing());
    let now: Vec<_> = cluster.nodes.iter().map(Node::id).collect();
    assert_eq!(now, ids, "nobody has a new creation");
}

#[tokio::test(start_paused = true)]
async fn who_watches_across_a_gap_between_two_members_is_told_noconnection() {
    a_pair_is_cut(9, Cluster::cut).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_one_direction_is_a_gap_for_both() {
    a_pair_is_cut(9, |cluster, a, b| cluster.network.cut_one_way(a.address(), b.address())).await;
}

#[tokio::test(start_paused = true)]
async fn and_so_is_one_in_the_other() {
    a_pair_is_cut(19, |cluster, a, b| cluster.network.cut_one_way(b.address(), a.address())).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_uses_stays() {
    let cluster = Cluster::start(4, kinds).await;
    let [a, b, ..] = &cluster.nodes[..] else { unreachable!() };
    let target = Probe::start(b, |_| {}).pid;
    let mut watcher = Probe::start(a, |ctx| {
        ctx.monitor(target);
    });
    cluster.network.set_loss(0.05);

    tokio::time::sleep(Duration::from_mins(30)).await;

    assert!(watcher.has_nothing());
}
