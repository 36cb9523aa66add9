//! Groups, topics and global names of the available kind, between nodes: on the network in memory and
//! on paused time.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Add, Counter, Read};
use purlin::{
    CallError, Dest, ExitReason, GlobalError, Group, GroupEvent, Name, NameConflict, Node,
    NodeBuilder, NodeEvent, Pick, Pid, Received, Resolver,
};
use purlin_cluster_tests::memory::{Cluster, until_sees};
use purlin_cluster_tests::probe::Probe;

fn kinds(builder: NodeBuilder) -> NodeBuilder {
    builder.actor::<Counter>()
}

/// Lets what is on its way arrive.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A process that is in a group.
async fn member(node: &Node, group: &'static str) -> Pid {
    let pid = node.spawn::<Counter>(None).await.unwrap().pid();
    node.runtime().join(group, pid).unwrap();
    pid
}

async fn total(node: &Node, pid: Pid) -> i64 {
    node.call(pid, Read).await.unwrap()
}

async fn group_event(probe: &mut Probe) -> GroupEvent {
    match probe.next().await {
        Received::Group(event) => event,
        other => panic!("{other:?}"),
    }
}

async fn conflict(probe: &mut Probe) -> NameConflict {
    match probe.next().await {
        Received::NameConflict(conflict) => conflict,
        other => panic!("{other:?}"),
    }
}

/// The nodes of a list of pids.
fn nodes(pids: &[Pid]) -> Vec<String> {
    pids.iter().map(|pid| pid.node.name.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn members_are_seen_at_once_here_and_soon_everywhere() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };

    let one = member(a, "workers").await;
    assert_eq!(a.members_of("workers"), [one], "at once");
    let two = member(b, "workers").await;
    settle().await;

    let mut both = [one, two];
    both.sort();
    for node in [a, b, c] {
        assert_eq!(node.members_of("workers"), both);
        assert_eq!(node.runtime().groups(), [Group::new("workers")]);
    }
    assert_eq!(c.runtime().local_members_of("workers"), []);
    assert_eq!(a.members_of("other/workers"), [], "scopes are apart");
}

#[tokio::test(start_paused = true)]
async fn a_process_is_in_a_group_as_often_as_it_has_joined() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let pid = member(a, "workers").await;
    a.runtime().join("workers", pid).unwrap();
    settle().await;
    assert_eq!(b.members_of("workers"), [pid, pid]);

    assert!(a.runtime().leave("workers", pid));
    settle().await;
    assert_eq!(b.members_of("workers"), [pid]);
    assert!(!b.runtime().leave("workers", pid), "only on its own node");
    assert!(a.runtime().leave("workers", pid));
    assert!(!a.runtime().leave("workers", pid));
    settle().await;
    assert_eq!((a.members_of("workers"), b.members_of("workers")), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn who_ends_has_left_before_anybody_is_told_of_it() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let pid = member(a, "workers").await;
    a.runtime().register_global_available("hits", pid).unwrap();
    a.runtime().subscribe("news", pid).unwrap();
    settle().await;
    assert_eq!(b.whereis_global("hits"), Some(pid));

    let down = a.runtime().down(pid);
    let (_, ()) = tokio::join!(down, async { a.exit(pid, ExitReason::Kill) });

    assert_eq!(a.members_of("workers"), []);
    assert_eq!((a.whereis_global("hits"), a.runtime().topics().len()), (None, 0));
    settle().await;
    assert_eq!(b.members_of("workers"), []);
    assert_eq!((b.whereis_global("hits"), b.runtime().topics().len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_group_goes_to_each_process_once_and_a_call_to_one() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let mut members = Vec::new();
    for node in [a, b, b, c] {
        members.push(member(node, "workers").await);
    }
    b.runtime().join("workers", members[1]).unwrap();
    settle().await;

    a.send(Dest::group("workers"), Add(1));
    settle().await;
    for pid in &members {
        assert_eq!(total(a, *pid).await, 1, "{pid}");
    }
    for _ in 0..200 {
        a.call(Dest::group("workers"), Add(1)).await.unwrap();
    }
    let mut sum = 0;
    for pid in &members {
        let called = total(a, *pid).await - 1;
        assert!((20..100).contains(&called), "{pid}: {called} of 200");
        sum += called;
    }
    assert_eq!(sum, 200);
    let nobody = a.call(Dest::group("nobody"), Read).await;
    assert_eq!(nobody, Err(CallError::NoProcess));
    let topic = a.call(Dest::topic("news"), Read).await;
    assert!(matches!(topic, Err(CallError::NotUnderstood { .. })), "{topic:?}");
}

#[tokio::test(start_paused = true)]
async fn one_is_picked_in_turn_by_nearness_or_by_a_key() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let (here, there) = (member(a, "workers").await, member(b, "workers").await);
    settle().await;

    for _ in 0..10 {
        a.send(Dest::one_of("workers", Pick::RoundRobin), Add(1));
    }
    settle().await;
    assert_eq!((total(a, here).await, total(a, there).await), (5, 5));
    for _ in 0..10 {
        a.call("group:workers:nearest", Add(10)).await.unwrap();
    }
    assert_eq!((total(a, here).await, total(a, there).await), (105, 5));

    // Whoever asks finds the same one, and all of a node's keys on that node.
    let mut owners = Vec::new();
    for number in 0..60 {
        let to = || Dest::one_of("workers", Pick::Key(format!("user:{number}")));
        let before = total(a, here).await;
        for node in [a, b, c] {
            node.call(to(), Add(1000)).await.unwrap();
        }
        let rise = total(a, here).await - before;
        assert!(rise == 0 || rise == 3000, "{rise}");
        let owner = a.ring().owner(format!("user:{number}").as_bytes()).unwrap();
        if owner == a.id().name || owner == b.id().name {
            assert_eq!(rise == 3000, owner == a.id().name);
        }
        owners.push(rise);
    }
    assert!(owners.contains(&0) && owners.contains(&3000), "keys are spread");
}

#[tokio::test(start_paused = true)]
async fn a_monitor_tells_who_was_there_and_then_who_joins_and_leaves() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let first = member(a, "workers").await;
    settle().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut watcher = Probe::start(b, |ctx| {
        tell.send(ctx.monitor_group("workers")).unwrap();
    });
    let (reference, members) = told.recv().await.unwrap();
    assert_eq!(members, [first]);

    let second = member(a, "workers").await;
    let event = group_event(&mut watcher).await;
    assert_eq!((event.reference, &event.joined[..]), (reference, &[second][..]));
    a.exit(first, ExitReason::Kill);
    assert_eq!(group_event(&mut watcher).await.left, [first]);
    member(a, "others").await;
    assert!(watcher.is_quiet().await, "of another group it is not told");
}

#[tokio::test(start_paused = true)]
async fn the_monitor_of_a_scope_tells_of_all_its_groups() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut watcher = Probe::start(b, |ctx| {
        let (_, groups) = ctx.monitor_scope("jobs");
        assert!(groups.is_empty());
    });

    let one = member(a, "jobs/fast").await;
    let event = group_event(&mut watcher).await;
    assert_eq!((event.group, event.joined), (Group::scoped("jobs", "fast"), vec![one]));
    member(a, "fast").await;
    let two = member(b, "jobs/slow").await;
    let event = group_event(&mut watcher).await;
    assert_eq!((event.group, event.joined), (Group::scoped("jobs", "slow"), vec![two]));
    assert!(watcher.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn members_of_a_node_that_is_down_vanish_in_one_step_and_before_the_node_is_told_of() {
    let mut cluster = Cluster::start(3, kinds).await;
    let c = cluster.nodes.remove(2);
    for _ in 0..100 {
        member(&c, "workers").await;
    }
    settle().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    assert_eq!(b.members_of("workers").len(), 100);
    let mut watcher = Probe::start(a, |ctx| {
        ctx.monitor_group("workers");
        ctx.monitor_nodes();
    });

    cluster.network.kill(c.address());
    drop(c);

    assert_eq!(group_event(&mut watcher).await.left.len(), 100);
    assert!(matches!(watcher.next().await, Received::Node(NodeEvent::Down { .. })));
    until_sees(b, 2).await;
    assert_eq!(b.members_of("workers"), []);
}

#[tokio::test(start_paused = true)]
async fn a_late_joiner_gets_everything() {
    let mut cluster = Cluster::start(2, kinds).await;
    for node in &cluster.nodes {
        for _ in 0..1_000 {
            member(node, "workers").await;
        }
    }
    let late = cluster.join("n2", kinds).await;
    cluster.until_all_see(3).await;
    settle().await;

    assert_eq!(late.members_of("workers"), cluster.nodes[0].members_of("workers"));
    assert_eq!(late.members_of("workers").len(), 2_000);
}

#[tokio::test(start_paused = true)]
async fn each_side_of_a_split_goes_on_and_all_agree_when_it_heals() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let there = member(c, "workers").await;
    settle().await;
    cluster.cut(a, c);
    cluster.cut(b, c);
    until_sees(a, 2).await;
    until_sees(c, 1).await;
    assert_eq!(a.members_of("workers"), []);

    member(a, "workers").await;
    member(c, "workers").await;
    settle().await;
    assert_eq!(nodes(&b.members_of("workers")), ["n0"]);
    assert_eq!(nodes(&c.members_of("workers")), ["n2", "n2"]);
    cluster.heal(a, c);
    cluster.heal(b, c);
    cluster.until_all_see(3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    for node in [a, b, c] {
        assert_eq!(nodes(&node.members_of("workers")), ["n0", "n2", "n2"]);
        assert_eq!(node.members_of("workers"), a.members_of("workers"));
    }
    assert!(c.id().creation > there.node.creation, "under its new creation");
    a.send(Dest::group("workers"), Add(1));
    settle().await;
    assert_eq!(total(a, c.id().pid(there.serial)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_comes_to_every_subscriber_in_order_and_as_one_copy_for_each_node() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let mut probes = Vec::new();
    for node in [a, b, b, b] {
        let probe = Probe::start(node, |_| {});
        node.runtime().subscribe("news", probe.pid).unwrap();
        node.runtime().subscribe("news", probe.pid).unwrap();
        probes.push(probe);
    }
    settle().await;
    assert_eq!(c.runtime().topic_infos(None)[0].nodes.len(), 2);

    for number in 0..50 {
        c.publish("news", Add(number));
    }
    a.send(Dest::topic("news"), Add(50));

    for probe in &mut probes {
        let mut numbers = Vec::new();
        for _ in 0..51 {
            let Received::Message(message) = probe.next().await else { panic!("no message") };
            let (Add(number), _) = message.take::<Add>().unwrap().unwrap();
            numbers.push(number);
        }
        numbers.retain(|number| *number != 50);
        assert_eq!(numbers, (0..50).collect::<Vec<_>>());
        assert!(probe.has_nothing(), "once each");
    }
    let gone = probes.remove(0).pid;
    assert!(a.runtime().unsubscribe("news", gone));
    settle().await;
    assert_eq!(c.runtime().topic_infos(None)[0].nodes, [b.id().name]);
}

#[tokio::test(start_paused = true)]
async fn a_global_name_is_found_from_everywhere_and_moves_with_its_holder() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let hits = b.spawn::<Counter>(Some(1)).await.unwrap();
    b.runtime().register_global_available("hits", hits.pid()).unwrap();
    assert_eq!(b.whereis_global("hits"), Some(hits.pid()), "at once");
    settle().await;

    assert_eq!(a.call(Dest::global("hits"), Add(4)).await, Ok(5));
    let other = c.spawn::<Counter>(None).await.unwrap().pid();
    let taken = GlobalError::Taken { name: name("hits"), holder: hits.pid() };
    assert_eq!(c.runtime().register_global_available("hits", other), Err(taken));
    let mut watcher = Probe::start(c, |ctx| {
        ctx.monitor(Dest::global("hits"));
        ctx.monitor(Dest::global("nobody"));
    });
    assert_eq!(watcher.down().await.reason, ExitReason::NoProcess);

    hits.exit(ExitReason::Shutdown);
    assert_eq!(watcher.down().await.target, Dest::global("hits"));
    settle().await;
    assert_eq!(a.call(Dest::global("hits"), Read).await, Err(CallError::NoProcess));
    c.runtime().register_global_available("hits", other).unwrap();
    settle().await;
    assert_eq!(a.call(Dest::global("hits"), Read).await, Ok(0));
}

/// Both sides of a split give a name; how it ends with this resolver, seen by all nodes.
async fn conflict_after_a_split(resolver: Resolver) -> (Pid, [Probe; 2], Cluster) {
    let kinds = |builder: NodeBuilder| builder.actor::<Counter>().resolver(resolver.clone());
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    cluster.cut(a, c);
    cluster.cut(b, c);
    until_sees(a, 2).await;
    until_sees(c, 1).await;
    let older = Probe::start(c, |_| {});
    c.runtime().register_global_available("hits", older.pid).unwrap();
    // By the system's clock, which is not paused.
    std::thread::sleep(Duration::from_millis(5));
    let newer = Probe::start(a, |_| {});
    a.runtime().register_global_available("hits", newer.pid).unwrap();

    cluster.heal(a, c);
    cluster.heal(b, c);
    cluster.until_all_see(3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let winner = a.whereis_global("hits").unwrap();
    for node in [b, c] {
        assert_eq!(node.whereis_global("hits").map(|pid| pid.serial), Some(winner.serial));
        assert_eq!(node.runtime().global_infos(None).len(), 1);
    }
    (winner, [older, newer], cluster)
}

#[tokio::test(start_paused = true)]
async fn of_two_holders_the_oldest_is_kept_and_the_other_told_once() {
    let (winner, [mut older, mut newer], cluster) =
        conflict_after_a_split(Resolver::KeepOldest).await;
    assert_eq!(winner, cluster.nodes[2].id().pid(older.pid.serial));
    let lost = conflict(&mut newer).await;
    assert_eq!((lost.name, lost.winner), (name("hits"), winner));
    assert!(newer.is_quiet().await && older.is_quiet().await, "once, and only the loser");
}

#[tokio::test(start_paused = true)]
async fn of_two_holders_the_newest_is_kept_if_so_wanted() {
    let (winner, [mut older, mut newer], _cluster) =
        conflict_after_a_split(Resolver::KeepNewest).await;
    assert_eq!(winner, newer.pid);
    assert_eq!(conflict(&mut older).await.winner, winner);
    assert!(newer.is_quiet().await && older.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn of_two_holders_the_program_may_choose_and_is_asked_once() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let resolver = Resolver::With(std::sync::Arc::new(move |conflict| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(conflict.older.since_ms <= conflict.newer.since_ms);
        purlin::Keep::Newer
    }));
    let (winner, [mut older, newer], _cluster) = conflict_after_a_split(resolver).await;
    assert_eq!(winner, newer.pid);
    assert_eq!(conflict(&mut older).await.winner, winner);
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn global_names_of_a_node_that_is_down_are_free() {
    let mut cluster = Cluster::start(2, kinds).await;
    let b = cluster.nodes.remove(1);
    let hits = b.spawn::<Counter>(None).await.unwrap().pid();
    b.runtime().register_global_available("hits", hits).unwrap();
    settle().await;
    let a = &cluster.nodes[0];
    assert_eq!(a.whereis_global("hits"), Some(hits));

    cluster.network.kill(b.address());
    drop(b);
    until_sees(a, 1).await;

    assert_eq!(a.whereis_global("hits"), None);
    let again = a.spawn::<Counter>(None).await.unwrap().pid();
    a.runtime().register_global_available("hits", again).unwrap();
}
