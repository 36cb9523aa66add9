//! Exclusive global names on simulated machines: at most one holder, at every instant.
//!
//! Each holder says when it has the name, when it does something and when it is gone: `witness.rs`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::prelude::*;
use purlin::testing::Cluster;
use purlin::{Fence, GlobalError, Name, NodeBuilder};

use crate::chance::Chance;
use crate::witness::{Place, check, forget};

const STEP: Duration = Duration::from_millis(50);
const NAMES: usize = 5;

struct Holder {
    place: Place,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Whose;
impl Message for Whose {
    const NAME: &'static str = "holder.whose";
    type Reply = String;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Again;
impl Message for Again {
    const NAME: &'static str = "holder.again";
    type Reply = ();
}

impl Actor for Holder {
    const KIND: &'static str = "holder";
    type Args = Name;
    type Messages = (Whose, Again);

    async fn start(name: Name, ctx: &mut Context<Self>) -> Outcome<Self> {
        let fence = ctx.register_global(name.clone()).await?;
        let place = Place::begin(name.as_str(), ctx.pid().node.name, fence);
        ctx.send_after(STEP, Again);
        Ok(Self { place })
    }
}

impl Handler<Whose> for Holder {
    async fn handle(&mut self, _: Whose, _: &mut Context<Self>) -> Outcome<String> {
        self.place.act();
        Ok(self.place.node().to_string())
    }
}

impl Handler<Again> for Holder {
    async fn handle(&mut self, _: Again, ctx: &mut Context<Self>) -> Outcome {
        self.place.act();
        // Half of it later, as work that a freeze may interrupt.
        tokio::time::sleep(STEP / 2).await;
        self.place.act();
        ctx.send_after(STEP / 2, Again);
        Ok(())
    }
}

/// Does nothing, and has what name a test gives it.
struct Idle;

impl Actor for Idle {
    const KIND: &'static str = "idle";
    type Args = ();
    type Messages = ();

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

fn holders(builder: NodeBuilder) -> NodeBuilder {
    builder.actor::<Holder>().actor::<Idle>().exclusive()
}

fn name(test: &str, number: usize) -> Name {
    format!("{test}.{number}").parse().unwrap()
}

/// Has each of these nodes start a holder of each name, all at once; how many have the name.
async fn all_want(cluster: &Cluster, from: &[NodeName], test: &'static str) -> usize {
    let wants = from.iter().map(|node| {
        let node = cluster.node(*node);
        let want_all = move |node: Node| async move {
            let want = |number| {
                let node = node.clone();
                tokio::spawn(async move { node.spawn::<Holder>(name(test, number)).await })
            };
            let mut have = 0;
            for want in (0..NAMES).map(want).collect::<Vec<_>>() {
                have += usize::from(want.await.unwrap().is_ok());
            }
            have
        };
        async move { node.run(want_all).await }
    });
    futures_all(wants).await.into_iter().map(Option::unwrap_or_default).sum()
}

/// All of them at once.
async fn futures_all<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(|one| (Some(Box::pin(one)), None)).collect();
    std::future::poll_fn(|cx| {
        for (waiting, done) in &mut all {
            if let Some(future) = waiting
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                (*waiting, *done) = (None, Some(value));
            }
        }
        match all.iter().all(|(waiting, _)| waiting.is_none()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all.into_iter().map(|(_, done)| done.expect("all are done")).collect()
}

/// Gives a name to a new process of a node.
async fn take(cluster: &Cluster, from: &'static str, name: Name) -> Result<Fence, GlobalError> {
    let node = cluster.node(from);
    let took = node.run(move |node: Node| async move {
        let pid = node.spawn::<Idle>(()).await.unwrap().pid();
        node.runtime().register_global(name, pid).await
    });
    took.await.unwrap()
}

async fn find(cluster: &Cluster, from: NodeName, name: Name) -> Option<Pid> {
    let node = cluster.node(from);
    node.run(move |node: Node| async move { node.find_global(name).await }).await.unwrap().unwrap()
}

/// Until a node can give names.
async fn until_decided(cluster: &Cluster, from: &'static str, limit: Duration) {
    let end = cluster.now() + limit;
    loop {
        let took = take(cluster, from, "probe".into()).await;
        if matches!(took, Ok(_) | Err(GlobalError::Taken { .. })) {
            return;
        }
        assert!(cluster.now() < end, "{took:?} after {limit:?}, seed {}", cluster.seed());
    }
}

const SOON: Duration = Duration::from_secs(30);
const FAILOVER: Duration = Duration::from_secs(14);

#[test]
fn a_lone_node_gives_names_at_once() {
    let cluster = Cluster::builder(1).nodes(1).with(holders).start();
    cluster.run(async |cluster| {
        until_decided(cluster, "n0", Duration::from_secs(5)).await;
        assert_eq!(all_want(cluster, &["n0".into()], "lone").await, NAMES);
        assert_eq!(all_want(cluster, &["n0".into()], "lone").await, 0);
    });
    check("lone", true);
}

#[test]
fn of_many_that_want_a_name_at_once_one_has_it_and_all_find_that_one() {
    let cluster = Cluster::builder(2).nodes(3).with(holders).start();
    cluster.run(async |cluster| {
        for from in ["n0", "n1", "n2"] {
            until_decided(cluster, from, SOON).await;
        }
        let names = cluster.names();
        assert_eq!(all_want(cluster, &names, "many").await, NAMES, "each name once");
        for number in 0..NAMES {
            let one = find(cluster, names[0], name("many", number)).await;
            assert!(one.is_some());
            for from in &names {
                assert_eq!(find(cluster, *from, name("many", number)).await, one);
            }
        }
    });
    check("many", true);
}

#[test]
fn a_name_is_free_when_its_holder_has_ended_or_gives_it_up() {
    let cluster = Cluster::builder(3).nodes(3).with(holders).start();
    cluster.run(async |cluster| {
        until_decided(cluster, "n0", SOON).await;
        until_decided(cluster, "n1", SOON).await;
        let hits: Name = "hits".into();
        let first = take(cluster, "n0", hits.clone()).await.unwrap();
        let holder = find(cluster, "n1".into(), hits.clone()).await.unwrap();
        let taken = GlobalError::Taken { name: hits.clone(), holder };
        assert_eq!(take(cluster, "n1", hits.clone()).await, Err(taken));

        cluster
            .node("n0")
            .run(move |node| async move { node.exit(holder, ExitReason::Kill) })
            .await;
        let second = take(cluster, "n1", hits.clone()).await.unwrap();
        assert!(second > first, "{second} after {first}");

        let (given, node) = (hits.clone(), cluster.node("n1"));
        let gives = move |node: Node| async move { node.runtime().unregister_global(given) };
        assert_eq!(node.run(gives).await, Some(true));
        let third = take(cluster, "n2", hits).await.unwrap();
        assert!(third > second, "{third} after {second}");
    });
}

#[test]
fn a_message_finds_a_name_that_has_just_moved() {
    let cluster = Cluster::builder(7).nodes(3).with(holders).start();
    cluster.run(async |cluster| {
        for from in ["n0", "n1", "n2"] {
            until_decided(cluster, from, SOON).await;
        }
        let (names, hits) = (cluster.names(), name("moves", 0));
        for turn in 0..12 {
            let (at, from) = (names[turn % 3], names[(turn + 1) % 3]);
            let wanted = hits.clone();
            let spawns = move |node: Node| async move { node.spawn::<Holder>(wanted).await };
            let pid = cluster.node(at).run(spawns).await.unwrap().unwrap().pid();
            // Nobody else has heard of it.
            let whose = cluster.node(from).call(Dest::global(hits.clone()), Whose).await;
            assert_eq!(whose, Ok(at.to_string()), "turn {turn}");
            if turn % 2 == 0 {
                // Else the one of before is heard of, and is gone.
                cluster.advance(Duration::from_millis(500)).await;
            }
            cluster.node(at).run(move |node| async move { node.exit(pid, ExitReason::Kill) }).await;
        }
    });
    check("moves", true);
}

#[test]
fn when_any_node_is_lost_names_of_the_others_stay_and_its_own_are_free() {
    for lost in ["n0", "n1", "n2"] {
        let cluster = Cluster::builder(4).nodes(3).with(holders).start();
        cluster.run(async |cluster| {
            for from in ["n0", "n1", "n2"] {
                until_decided(cluster, from, SOON).await;
            }
            // All are voters by then.
            cluster.advance(Duration::from_secs(5)).await;
            let names = cluster.names();
            let mut had = 0;
            for (at, node) in names.iter().enumerate() {
                let test = ["lost-a", "lost-b", "lost-c"][at];
                had += all_want(cluster, &[*node], test).await;
            }
            assert_eq!(had, 3 * NAMES);

            cluster.crash(lost);
            let left: Vec<NodeName> = cluster.running();
            cluster.advance(FAILOVER).await;
            for (at, node) in names.iter().enumerate() {
                let test = ["lost-a", "lost-b", "lost-c"][at];
                let again = all_want(cluster, &left, test).await;
                assert_eq!(again, if node.as_str() == lost { NAMES } else { 0 }, "of {node}");
            }
        });
        for test in ["lost-a", "lost-b", "lost-c"] {
            check(test, false);
            forget(test);
        }
    }
}

#[test]
fn a_minority_gives_nothing_and_its_holders_end() {
    let cluster = Cluster::builder(5).nodes(3).with(holders).start();
    cluster.run(async |cluster| {
        for from in ["n0", "n1", "n2"] {
            until_decided(cluster, from, SOON).await;
        }
        cluster.advance(Duration::from_secs(5)).await;
        assert_eq!(all_want(cluster, &["n0".into()], "minority").await, NAMES);

        cluster.split(&["n0".into()]);
        cluster.advance(FAILOVER).await;
        let refused = take(cluster, "n0", "other".into()).await;
        assert!(matches!(refused, Err(GlobalError::Undecided { .. })), "{refused:?}");
        assert_eq!(all_want(cluster, &["n0".into()], "minority").await, 0);
        let others: [NodeName; 2] = ["n1".into(), "n2".into()];
        assert_eq!(all_want(cluster, &others, "minority").await, NAMES, "they are free");

        cluster.heal();
        cluster.until_whole(Duration::from_mins(1)).await;
        cluster.advance(Duration::from_secs(10)).await;
        until_decided(cluster, "n0", SOON).await;
        assert_eq!(all_want(cluster, &["n0".into()], "minority").await, 0, "they are taken");
    });
    check("minority", true);
}

#[test]
fn a_node_that_takes_no_part_says_so() {
    let plain = |builder: NodeBuilder| builder.actor::<Idle>();
    let cluster = Cluster::builder(6).nodes(1).with(plain).start();
    cluster.run(async |cluster| {
        assert_eq!(take(cluster, "n0", "hits".into()).await, Err(GlobalError::NoPart));
    });
}

/// Faults by chance while all nodes want all names, then health: each name has one holder.
fn schedule(seed: u64, nodes: usize, test: &'static str, rounds: usize) -> String {
    forget(test);
    let cluster = Cluster::builder(seed).nodes(nodes).with(holders).start();
    let mut chance = Chance::new(seed);
    let mut silent = false;
    let digest = cluster.run(async |cluster| {
        until_decided(cluster, "n0", SOON).await;
        for _ in 0..rounds {
            let names = cluster.names();
            let name = names[usize::try_from(chance.below(nodes as u64)).unwrap()];
            let running = cluster.node(name).is_running();
            match chance.below(7) {
                0 if running => cluster.crash(name),
                1 | 2 if !running => cluster.restart(name).await,
                3 => cluster.split(&names[..usize::try_from(1 + chance.below(2)).unwrap()]),
                4 if running => {
                    silent = true;
                    cluster.freeze(name, Duration::from_millis(1_000 * (1 + chance.below(8))));
                }
                5 => cluster.skew(name, [0.97, 1.03][usize::try_from(chance.below(2)).unwrap()]),
                _ => cluster.heal(),
            }
            // Some fail now; what counts is who has one.
            all_want(cluster, &cluster.running(), test).await;
            cluster.advance(Duration::from_millis(500 * (1 + chance.below(8)))).await;
        }
        cluster.heal();
        for name in cluster.names() {
            if !cluster.node(name).is_running() {
                cluster.restart(name).await;
            }
        }
        cluster.until_whole(Duration::from_mins(2)).await;
        cluster.advance(Duration::from_secs(10)).await;
        until_decided(cluster, "n0", SOON).await;
        let names = cluster.names();
        all_want(cluster, &names, test).await;
        for number in 0..NAMES {
            let one = find(cluster, names[0], name(test, number)).await;
            assert!(one.is_some(), "{number} has a holder, seed {seed}");
            for from in &names {
                assert_eq!(find(cluster, *from, name(test, number)).await, one, "seed {seed}");
            }
        }
        format!("{:?}", cluster.digest())
    });
    check(test, !silent);
    digest
}

#[test]
fn whatever_happens_no_name_has_two_holders_at_an_instant() {
    for seed in 0..schedules() {
        schedule(seed, 5, "random", 6);
    }
}

#[test]
fn a_run_depends_on_its_seed_alone() {
    let [one, two] = ["same", "same"].map(|test| schedule(78, 3, test, 2));
    assert_eq!(one, two);
}

/// How many schedules; as many as `PURLIN_SCHEDULES` says, for a longer run.
fn schedules() -> u64 {
    std::env::var("PURLIN_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}
