//! Children of cluster supervisors whose nodes are taken out of service and come back, one after the
//! other, on simulated machines with lossy roads: no call fails, and each child keeps its state and the
//! order of what it is told, whatever the seed.
//!
//! A few seeds in the gate, more with `PURLIN_SEEDS`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Add, Counter};
use purlin::prelude::*;
use purlin::proto::admin::children::{
    self, ChildReleased, EndChild, HostChild, HostRefusal, ReleaseChild, TakeChild,
};
use purlin::proto::child::{Cause, ChildPlan, Intensity};
use purlin::proto::{Codec, NodeId, Payload};
use purlin::testing::{Cluster, Road};
use purlin::{ChildId, ChildPlacement, Mode, NodeBuilder};
use purlin_cluster_tests::planned::{NODES, Totals, until_all_hold};
use tokio::sync::oneshot;

const CHILDREN: usize = 24;
const ROUNDS: usize = 4;

/// Counts what has begun with a state on all nodes.
async fn restored(cluster: &Cluster) -> u64 {
    let mut restored = 0;
    for name in NODES {
        let count = |node: Node| async move {
            let counters = node.runtime().counters().snapshot();
            counters.into_iter().find(|counter| counter.name == "children.restored").unwrap().count
        };
        restored += cluster.node(name).run(count).await.unwrap();
    }
    restored
}

fn cluster(seed: u64, with: fn(NodeBuilder) -> NodeBuilder) -> Cluster {
    let bad = Road { loss: 0.01, jitter: Duration::from_millis(3), ..Road::default() };
    Cluster::builder(seed).nodes(NODES.len()).roads(bad).with(with).start()
}

async fn start(cluster: &Cluster, mode: Mode) {
    if mode == Mode::Exclusive {
        until_all_hold(cluster).await;
    }
    let start = move |node: Node| async move {
        let tally = ClusterSupervisor::new("tally");
        let tally = if mode == Mode::Available { tally.available() } else { tally };
        let tally = node.cluster_supervisor(tally);
        for number in 0..CHILDREN {
            let child = ClusterChild::actor::<Counter>(number as u64, None);
            tally.start_child(child).await.unwrap();
        }
    };
    cluster.node("n0").run(start).await.unwrap();
    // Who has asked knows of them, and those that decide about them; the others hear of it.
    let end = cluster.now() + Duration::from_secs(10);
    for name in NODES {
        let known = |node: Node| async move {
            node.cluster_supervisor("tally").children().await.unwrap().len()
        };
        while cluster.node(name).run(known).await.unwrap() < CHILDREN {
            assert!(cluster.now() < end, "{name} does not know all children");
            cluster.advance(Duration::from_millis(50)).await;
        }
    }
}

fn schedule(seed: u64, mode: Mode) {
    let cluster = cluster(seed, |node| node.movable::<Counter>().exclusive());
    let mut totals = Totals::new(seed, CHILDREN, |child| Dest::child("tally", child as u64));
    cluster.run(async |cluster| {
        start(cluster, mode).await;
        totals.add(cluster, "", 3).await;
        let mut moved = 0;
        for _ in 0..ROUNDS {
            let leaves = totals.node();
            totals.drain(cluster, leaves).await;
            moved += restored(cluster).await;
            cluster.stop(leaves).await;
            totals.add(cluster, leaves, 1).await;
            totals.bring_back(cluster, leaves).await;
        }
        assert!(moved >= 5, "seed {seed}: {moved}");
    });
}

/// What has been told this first takes a while to be restored.
const SLOW: u32 = 77;

/// Has what it is told.
#[derive(Default)]
struct Ledger {
    told: Vec<u32>,
}

/// Write this down.
#[derive(Debug, Serialize, Deserialize)]
struct Note(u32);
impl Message for Note {
    const NAME: &'static str = "ledger.note";
    type Reply = ();
}

/// What has been written down?
#[derive(Debug, Serialize, Deserialize)]
struct Told;
impl Message for Told {
    const NAME: &'static str = "ledger.told";
    type Reply = Vec<u32>;
}

impl Actor for Ledger {
    const KIND: &'static str = "ledger";
    type Args = ();
    type Messages = (Note, Told, Toil);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self::default())
    }
}

impl Stateful for Ledger {
    type State = Vec<u32>;

    fn snapshot(&self) -> Vec<u32> {
        self.told.clone()
    }

    async fn restore(told: Vec<u32>, (): (), _: &mut Context<Self>) -> Outcome<Self> {
        if told.first() == Some(&SLOW) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(Self { told })
    }
}

impl Handler<Note> for Ledger {
    async fn handle(&mut self, Note(number): Note, _: &mut Context<Self>) -> Outcome {
        // Long enough for others to wait.
        tokio::time::sleep(Duration::from_micros(500)).await;
        self.told.push(number);
        Ok(())
    }
}

impl Handler<Told> for Ledger {
    async fn handle(&mut self, _: Told, _: &mut Context<Self>) -> Outcome<Vec<u32>> {
        Ok(self.told.clone())
    }
}

fn nothing_that_is_sent_is_lost(seed: u64, mode: Mode) {
    const NOTES: u32 = 6_000;
    let to = || -> Dest { "child:books/main".parse().unwrap() };
    cluster(seed, |node| node.movable::<Ledger>().exclusive()).run(async |cluster| {
        until_all_hold(cluster).await;
        let start = move |node: Node| async move {
            let books = ClusterSupervisor::new("books");
            let books = if mode == Mode::Available { books.available() } else { books };
            let child = ClusterChild::actor::<Ledger>("main".parse::<Key>().unwrap(), ());
            node.cluster_supervisor(books).start_child(child).await.unwrap();
        };
        cluster.node("n0").run(start).await.unwrap();
        let at = move |node: Node| async move {
            let none: Vec<u32> = Vec::new();
            assert_eq!(node.call(to(), Told).await, Ok(none));
            node.runtime().whereis_child(&"books/main".parse().unwrap()).unwrap().node.name
        };
        let before = cluster.node("n0").run(at).await.unwrap();
        let from = NODES.map(NodeName::from).into_iter().find(|name| *name != before).unwrap();
        let send = move |node: Node| async move {
            for number in 0..NOTES {
                node.send(to(), Note(number));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (tell, drained) = oneshot::channel();
        let drain = |node: Node| async move {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                tell.send(node.drain().await.left).unwrap();
            });
        };
        cluster.node(before).run(drain).await.unwrap();

        cluster.node(from).run(send).await.unwrap();

        assert_eq!(cluster.node(before).run(|_| drained).await.unwrap(), Ok(0));
        cluster.advance(Duration::from_secs(1)).await;
        let told = cluster.node(from).call(to(), Told).await.unwrap();
        let after = |node: Node| async move {
            node.runtime().whereis_child(&"books/main".parse().unwrap()).unwrap().node.name
        };
        assert_ne!(before, cluster.node(from).run(after).await.unwrap());
        assert_eq!(told, (0..NOTES).collect::<Vec<_>>(), "seed {seed}: each once, in order");
    });
}

#[test]
fn nothing_that_is_sent_to_a_child_while_it_moves_is_lost() {
    for_all_seeds(|seed| nothing_that_is_sent_is_lost(seed, Mode::Available));
}

#[test]
fn nor_what_is_sent_to_one_of_which_there_is_one_at_most() {
    for_all_seeds(|seed| nothing_that_is_sent_is_lost(seed, Mode::Exclusive));
}

/// Is busy for a while.
#[derive(Debug, Serialize, Deserialize)]
struct Toil(Duration);
impl Message for Toil {
    const NAME: &'static str = "ledger.toil";
    type Reply = ();
}

impl Handler<Toil> for Ledger {
    async fn handle(&mut self, Toil(span): Toil, _: &mut Context<Self>) -> Outcome {
        tokio::time::sleep(span).await;
        Ok(())
    }
}

#[test]
fn one_that_is_busy_is_waited_for_as_long_as_it_may_take_to_stop_and_then_ended() {
    let to = || -> Dest { "child:books/main".parse().unwrap() };
    cluster(3, NodeBuilder::movable::<Ledger>).run(async |cluster| {
        let start = move |node: Node| async move {
            let books = ClusterSupervisor::new("books").available();
            let child = ClusterChild::actor::<Ledger>("main".parse::<Key>().unwrap(), ());
            let child = child.shutdown(Shutdown::Timeout(Duration::from_secs(2)));
            node.cluster_supervisor(books).start_child(child).await.unwrap();
            node.call(to(), Note(1)).await.unwrap();
            node.runtime().whereis_child(&"books/main".parse().unwrap()).unwrap().node.name
        };
        let mut at = cluster.node("n0").run(start).await.unwrap();
        for (busy, kept) in [(1, true), (30, false)] {
            let from = NODES.map(NodeName::from).into_iter().find(|name| *name != at).unwrap();
            let (tell, worked) = oneshot::channel();
            let toil = move |node: Node| async move {
                let toil = Toil(Duration::from_secs(busy));
                let work = node.runtime().clone();
                tokio::spawn(async move {
                    let worked = work.call_timeout(to(), toil, Duration::from_mins(1)).await;
                    tell.send(worked).unwrap();
                });
                tokio::time::sleep(Duration::from_millis(100)).await;
            };
            cluster.node(from).run(toil).await.unwrap();

            let drained =
                cluster.node(at).run(async |node: Node| node.drain().await).await.unwrap();

            assert_eq!(drained.left, 0);
            assert!(drained.took_s < 8.0, "{drained:?}");
            let worked = cluster.node(from).run(|_| worked).await.unwrap().unwrap();
            assert_eq!(worked.is_ok(), kept, "{worked:?}");
            let told = cluster.node(from).call(to(), Told).await.unwrap();
            assert_eq!(told.len(), usize::from(kept), "it had to be killed, so its state is lost");
            let after = |node: Node| async move {
                node.runtime().whereis_child(&"books/main".parse().unwrap()).unwrap().node.name
            };
            let after = cluster.node(from).run(after).await.unwrap();
            assert_ne!(after, at);
            cluster.stop(at).await;
            at = after;
        }
    });
}

/// A child that moves to a node which is back, and is lost before it has it.
fn its_old_host_takes_it_back(mode: Mode) {
    let child = || -> ChildId { "books/main".parse().unwrap() };
    let to = move || Dest::Child(child());
    cluster(5, |node| node.movable::<Ledger>().exclusive()).run(async |cluster| {
        until_all_hold(cluster).await;
        let start = move |node: Node| async move {
            let books = ClusterSupervisor::new("books");
            let books = if mode == Mode::Available { books.available() } else { books };
            let main = ClusterChild::actor::<Ledger>("main".parse::<Key>().unwrap(), ());
            let main = main.shutdown(Shutdown::Infinity);
            node.cluster_supervisor(books).start_child(main).await.unwrap();
            node.call(to(), Note(1)).await.unwrap();
        };
        cluster.node("n0").run(start).await.unwrap();
        let place = |on: NodeName| {
            let place = |node: &Node| node.runtime().whereis_child(&child());
            cluster.node(on).look(place).flatten().map(|pid| pid.node.name)
        };
        let lost = place("n0".into()).unwrap();
        cluster.node(lost).run(async |node: Node| node.drain().await).await.unwrap();
        cluster.stop(lost).await;
        let from = NODES.map(NodeName::from).into_iter().find(|name| *name != lost).unwrap();
        let told = cluster.node(from).call(to(), Told).await.unwrap();
        assert_eq!(told, [1], "it has moved with its state");
        let before = place(from).unwrap();
        cluster.restart(lost).await;
        let toil = Toil(Duration::from_secs(8));
        cluster.node(from).send(to(), toil).await;
        let asks = || {
            let look = |node: &Node| node.runtime().children().see(&child(), node.runtime().id());
            let record = cluster.node(before).look(look).unwrap().record.unwrap();
            record.placed.is_some_and(|placed| placed.node.name == lost)
        };
        cluster.until(Duration::from_secs(30), "it is to move", asks).await;
        cluster.advance(Duration::from_millis(200)).await;
        let runs = |node: &Node| node.runtime().children().own_run(&child()).is_some();
        assert_eq!(cluster.node(lost).look(runs), Some(false), "it has not been taken over");

        cluster.crash(lost);

        let end = cluster.now() + Duration::from_secs(25);
        let told = loop {
            match cluster.node(from).call(to(), Told).await {
                Ok(told) => break told,
                Err(error) => assert!(cluster.now() < end, "{error}"),
            }
        };
        assert_eq!(told, [1]);
        assert_eq!(place(from), Some(before));
    });
}

#[test]
fn a_child_whose_next_host_is_lost_is_taken_back_with_its_state() {
    its_old_host_takes_it_back(Mode::Available);
}

#[test]
fn so_is_one_of_which_there_is_one_at_most() {
    its_old_host_takes_it_back(Mode::Exclusive);
}

/// The nodes that this one is not.
fn others(than: NodeId) -> (&'static str, &'static str) {
    let mut others = NODES.into_iter().filter(|name| *name != than.name.to_string());
    (others.next().unwrap(), others.next().unwrap())
}

/// Asks a node to take a child over from another, as an owner would. What that comes to is seen by what
/// has been told in the end.
async fn have_taken(
    cluster: &Cluster,
    on: &'static str,
    from: NodeId,
    (child, plan, generation): (ChildId, ChildPlan, u64),
) {
    let ask = move |node: Node| async move {
        let on = node.runtime().id();
        let host = HostChild { on, child, plan, generation, view: 4 };
        let host_of = Dest::Local(children::CHILDREN.parse().unwrap());
        tokio::spawn(async move {
            drop(node.runtime().call(host_of, TakeChild { host, from }).await);
        });
    };
    cluster.node(on).run(ask).await.unwrap();
}

/// Two nodes that know different members have a child moved from the same node, to one each: the later
/// one as this generation, so much later, while what the child does takes so long.
fn two_have_it_moved(second: u64, later: Duration, busy: Duration) {
    let child = || -> ChildId { "books/main".parse().unwrap() };
    let to = move || Dest::Child(child());
    cluster(7, NodeBuilder::movable::<Ledger>).run(async |cluster| {
        let start = move |node: Node| async move {
            let books = ClusterSupervisor::new("books").available();
            let main = ClusterChild::actor::<Ledger>("main".parse::<Key>().unwrap(), ());
            node.cluster_supervisor(books).start_child(main).await.unwrap();
            node.call(to(), Note(1)).await.unwrap();
            node.send(to(), Toil(busy));
            let record = node.runtime().children().see(&child(), node.runtime().id()).record;
            record.unwrap()
        };
        let record = cluster.node("n0").run(start).await.unwrap();
        let from = record.placed.unwrap().node;
        let (first_host, second_host) = others(from);

        have_taken(cluster, first_host, from, (child(), record.plan.clone(), 2)).await;
        if busy.is_zero() {
            let has = || {
                let run = |node: &Node| node.runtime().children().own_run(&child());
                cluster.node(first_host).look(run).flatten().is_some()
            };
            cluster.until(Duration::from_secs(1), "it has been taken over", has).await;
        }
        cluster.node(first_host).call(to(), Note(2)).await.unwrap();
        cluster.advance(later).await;
        have_taken(cluster, second_host, from, (child(), record.plan, second)).await;
        for number in 3..=20 {
            cluster.node("n0").call(to(), Note(number)).await.unwrap();
            cluster.advance(Duration::from_millis(200)).await;
        }

        let live = NODES.map(|name| {
            let run = |node: &Node| node.runtime().children().own_run(&child());
            cluster.node(name).look(run).flatten().is_some_and(|run| run.is_live())
        });
        assert_eq!(live.into_iter().filter(|live| *live).count(), 1);
        let told = cluster.node("n0").call(to(), Told).await.unwrap();
        assert_eq!(told, (1..=20).collect::<Vec<_>>());
    });
}

#[test]
fn who_asks_for_a_child_that_another_node_has_taken_over_meanwhile_gets_its_last_state() {
    for second in [2, 3] {
        // The old host remembers who has asked, and does not any more.
        for later in [0, 1_000] {
            two_have_it_moved(second, Duration::from_millis(later), Duration::ZERO);
        }
    }
}

#[test]
fn of_two_that_ask_for_a_busy_child_at_once_one_gets_it() {
    for second in [2, 3] {
        two_have_it_moved(second, Duration::ZERO, Duration::from_secs(1));
    }
}

#[test]
fn who_is_behind_does_not_take_a_child_from_one_that_has_not_begun_yet() {
    let child = || -> ChildId { "books/main".parse().unwrap() };
    let to = move || Dest::Child(child());
    cluster(7, NodeBuilder::movable::<Ledger>).run(async |cluster| {
        let start = move |node: Node| async move {
            let books = ClusterSupervisor::new("books").available();
            let main = ClusterChild::actor::<Ledger>("main".parse::<Key>().unwrap(), ());
            let main = main.restart(Restart::Temporary).placement(ChildPlacement::LeastLoaded);
            node.cluster_supervisor(books).start_child(main).await.unwrap();
            node.call(to(), Note(SLOW)).await.unwrap();
            node.runtime().children().see(&child(), node.runtime().id()).record.unwrap()
        };
        let mut record = cluster.node("n0").run(start).await.unwrap();
        let mut placed = record.placed.unwrap();
        let from = placed.node;
        let (first, second) = others(from);
        let id = |name: &'static str| cluster.node(name).look(|node| node.runtime().id()).unwrap();
        have_taken(cluster, first, from, (child(), record.plan.clone(), 2)).await;
        let has_gone = || {
            let run = |node: &Node| node.runtime().children().own_run(&child());
            cluster.node(from.name).look(run).flatten().is_none_or(|run| !run.is_live())
        };
        cluster.until(Duration::from_secs(1), "it is let go", has_gone).await;

        // What the owner has decided.
        (placed.node, placed.generation) = (id(second), 2);
        record.version += 1;
        (record.generation, record.placed, record.cause) = (2, Some(placed), Cause::Moved(from));
        for name in NODES {
            let keep = |node: &Node| node.runtime().children().keep(&child(), record.clone());
            assert_eq!(cluster.node(name).look(keep), Some(true));
        }
        for number in 1..=20 {
            cluster.node("n0").call(to(), Note(number)).await.unwrap();
            cluster.advance(Duration::from_millis(200)).await;
        }

        let told = cluster.node("n0").call(to(), Told).await.unwrap();
        assert_eq!(told, [SLOW].into_iter().chain(1..=20).collect::<Vec<_>>());
    });
}

/// What a node has of a child that nobody has written down, so that nobody decides about it.
async fn asked_to_host(node: &Node, generation: u64, mode: Mode) -> Result<(), HostRefusal> {
    let plan = ChildPlan {
        kind: "ledger".into(),
        args: Payload { codec: Codec::Json, bytes: "null".into() },
        restart: Restart::Permanent,
        shutdown: Shutdown::Infinity,
        placement: ChildPlacement::Ring,
        mode,
        intensity: Intensity { restarts: 3, period: Duration::from_secs(5) },
        supervisor_intensity: None,
    };
    let (on, child) = (node.runtime().id(), "books/main".parse().unwrap());
    let ask = HostChild { on, child, plan, generation, view: 1 };
    node.call(Dest::Local(children::CHILDREN.parse().unwrap()), ask).await.unwrap()
}

#[test]
fn a_start_that_is_refused_leaves_what_was_there_of_an_earlier_one() {
    cluster(5, |node| node.movable::<Ledger>().exclusive()).run(async |cluster| {
        until_all_hold(cluster).await;
        let other = |node: &Node| {
            let owner = node.ring().owner(b"books/main");
            owner.is_some_and(|owner| owner != node.runtime().name())
        };
        let at = NODES.into_iter().find(|name| cluster.node(*name).look(other) == Some(true));
        let refused = |node: Node| async move {
            let child: ChildId = "books/main".parse().unwrap();
            let host_of = || Dest::Local(children::CHILDREN.parse().unwrap());
            let own_run = || node.runtime().children().own_run(&child);
            let child_of = child.clone();
            let release = |life, generation| {
                let (child, to, but) = (child_of.clone(), NodeId::new("n9".into(), life), vec![]);
                node.call(host_of(), ReleaseChild { child, to, generation, but })
            };
            asked_to_host(&node, 1, Mode::Available).await.unwrap();
            node.call(Dest::Child(child.clone()), Note(7)).await.unwrap();
            let left = release(1, 2).await.unwrap();
            assert!(matches!(left, ChildReleased::Free(Some(_))), "{left:?}");

            asked_to_host(&node, 3, Mode::Exclusive).await.unwrap_err();

            assert_eq!(release(1, 4).await.unwrap(), left);
            assert_eq!(release(2, 5).await.unwrap(), left, "who has asked may be back by now");
            asked_to_host(&node, 6, Mode::Available).await.unwrap();
            let pid = node.runtime().whereis_child(&child).unwrap();
            node.runtime().exit(pid, ExitReason::Kill);
            while own_run().is_some_and(|run| run.is_live()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }

            asked_to_host(&node, 7, Mode::Exclusive).await.unwrap_err();

            assert!(own_run().unwrap().ended().is_some(), "its owner may not have seen that");
            let end = EndChild { child: child.clone(), generation: 6, kept: None };
            node.call(host_of(), end).await.unwrap();
            assert_eq!(own_run(), None);
        };
        cluster.node(at.unwrap()).run(refused).await.unwrap();
    });
}

#[test]
fn a_node_that_is_back_hears_of_its_children_though_who_told_of_them_is_just_lost() {
    for seed in 1..=5 {
        cluster(seed, NodeBuilder::movable::<Counter>).run(async |cluster| {
            start(cluster, Mode::Available).await;
            cluster.stop("n1").await;
            // Others decide about its children by now, and tell of them.
            cluster.advance(Duration::from_secs(5)).await;
            cluster.crash("n2");
            cluster.restart("n1").await;

            // As a program does when it starts; and then each is stopped.
            let start_and_stop = |node: Node| async move {
                while node.members().len() < NODES.len() - 1 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let tally = node.cluster_supervisor(ClusterSupervisor::new("tally").available());
                for number in 0..CHILDREN as u64 {
                    let child = || ClusterChild::actor::<Counter>(number, None);
                    // Its owner may not be there yet.
                    while tally.start_child(child()).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    while tally.stop_child(number).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            };
            cluster.node("n1").run(start_and_stop).await.unwrap();
            cluster.restart("n2").await;
            cluster.advance(Duration::from_secs(30)).await;

            for name in NODES {
                for child in 0..CHILDREN {
                    let child: ChildId = format!("tally/{child}").parse().unwrap();
                    let run = |node: &Node| node.runtime().children().own_run(&child);
                    let run = cluster.node(name).look(run).flatten();
                    assert_eq!(run, None, "seed {seed}: {child} on {name}");
                }
            }
        });
    }
}

#[test]
fn a_node_that_has_just_come_up_can_call_each_child_at_once() {
    for seed in 1..=5 {
        cluster(seed, NodeBuilder::movable::<Counter>).run(async |cluster| {
            start(cluster, Mode::Available).await;
            cluster.stop("n1").await;
            cluster.restart("n1").await;
            let call_all = move |node: Node| async move {
                while node.members().len() < NODES.len() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                for child in 0..CHILDREN as u64 {
                    let called = node.call(Dest::child("tally", child), Add(1)).await;
                    assert_eq!(called, Ok(1), "seed {seed}, child {child}");
                }
            };
            cluster.node("n1").run(call_all).await.unwrap();
        });
    }
}

fn for_all_seeds(run: impl Fn(u64)) {
    let last = std::env::var("PURLIN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    (1..=last).for_each(run);
}

#[test]
fn nodes_that_leave_and_come_back_cost_no_call_to_a_child_and_no_state() {
    for_all_seeds(|seed| schedule(seed, Mode::Available));
}

#[test]
fn the_same_holds_for_children_of_which_there_is_one_at_most() {
    for_all_seeds(|seed| schedule(seed, Mode::Exclusive));
}
