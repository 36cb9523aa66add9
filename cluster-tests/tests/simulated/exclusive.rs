//! Exclusive keyed processes on simulated machines: at most one of a key, at every instant.
//!
//! Each process says when it begins, when it does something and when it is gone: `witness.rs`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use purlin::prelude::*;
use purlin::proto::admin::GetExclusive;
use purlin::testing::{Cluster, DiskState};
use purlin::{Dest, Name, NodeBuilder};

use crate::chance::Chance;
use crate::witness::{Place, check, fences, forget};

const KEYS: usize = 9;
const STEP: Duration = Duration::from_millis(50);

struct Sentry {
    place: Place,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Watch;
impl Message for Watch {
    const NAME: &'static str = "sentry.watch";
    type Reply = String;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Again;
impl Message for Again {
    const NAME: &'static str = "sentry.again";
    type Reply = ();
}

impl Actor for Sentry {
    const KIND: &'static str = "sentry";
    type Args = Key;
    type Messages = (Watch, Again);

    async fn start(key: Key, ctx: &mut Context<Self>) -> Outcome<Self> {
        let fence = ctx.fence().expect("it is exclusive");
        let place = Place::begin(key.as_str(), ctx.pid().node.name, fence);
        ctx.send_after(STEP, Again);
        Ok(Self { place })
    }
}

impl KeyedActor for Sentry {
    fn args(key: &Key) -> Key {
        key.clone()
    }
}

impl Handler<Watch> for Sentry {
    async fn handle(&mut self, _: Watch, _: &mut Context<Self>) -> Outcome<String> {
        self.place.act();
        Ok(self.place.node().to_string())
    }
}

impl Handler<Again> for Sentry {
    async fn handle(&mut self, _: Again, ctx: &mut Context<Self>) -> Outcome {
        self.place.act();
        // Half of it later, as work that a freeze may interrupt.
        tokio::time::sleep(STEP / 2).await;
        self.place.act();
        ctx.send_after(STEP / 2, Again);
        Ok(())
    }
}

fn sentry(builder: NodeBuilder) -> NodeBuilder {
    builder.keyed::<Sentry>(Keyed::exclusive())
}

fn key(test: &str, number: usize) -> Key {
    format!("{test}/{number}").parse().unwrap()
}

/// Calls every key from a node, and says how many have answered.
async fn call_all(cluster: &Cluster, from: NodeName, test: &'static str) -> usize {
    let calls = move |node: Node| async move {
        let call = |number| {
            let keyed = node.keyed::<Sentry>(key(test, number));
            tokio::spawn(async move { keyed.call(Watch).await })
        };
        let mut answered = 0;
        for call in (0..KEYS).map(call).collect::<Vec<_>>() {
            answered += usize::from(call.await.unwrap().is_ok());
        }
        answered
    };
    cluster.node(from).run(calls).await.unwrap_or_default()
}

/// Calls until all answer.
async fn until_all_run(cluster: &Cluster, from: NodeName, test: &'static str, limit: Duration) {
    let end = cluster.now() + limit;
    loop {
        let answered = call_all(cluster, from, test).await;
        if answered == KEYS {
            return;
        }
        let at = cluster.now();
        assert!(at < end, "{answered} of {KEYS} run after {limit:?}, seed {}", cluster.seed());
        cluster.advance(Duration::from_millis(200)).await;
    }
}

const SOON: Duration = Duration::from_secs(30);
const FAILOVER: Duration = Duration::from_secs(14);

#[test]
fn a_lone_node_runs_its_keys_at_once() {
    let cluster = Cluster::builder(1).nodes(1).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "lone", Duration::from_secs(2)).await;
    });
    check("lone", true);
}

#[test]
fn three_nodes_share_the_keys_out() {
    let cluster = Cluster::builder(2).nodes(3).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "three", SOON).await;
    });
    let acts = check("three", true);
    assert!(acts > 0);
}

#[test]
fn when_a_node_is_lost_its_keys_run_elsewhere() {
    for lost in ["n0", "n1", "n2"] {
        let cluster = Cluster::builder(3).nodes(3).with(sentry).start();
        cluster.run(async |cluster| {
            until_all_run(cluster, "n0".into(), lost, SOON).await;
            // All are voters by then.
            cluster.advance(Duration::from_secs(5)).await;
            cluster.crash(lost);
            let from = if lost == "n0" { "n1" } else { "n0" };
            until_all_run(cluster, from.into(), lost, FAILOVER).await;
        });
        check(lost, false);
    }
}

#[test]
fn a_minority_that_is_cut_off_stops_and_comes_back() {
    let cluster = Cluster::builder(4).nodes(3).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "minority", SOON).await;
        cluster.advance(Duration::from_secs(5)).await;
        cluster.split(&["n0".into()]);
        until_all_run(cluster, "n1".into(), "minority", FAILOVER).await;
        let alone = call_all(cluster, "n0".into(), "minority").await;
        assert_eq!(alone, 0, "nothing exclusive runs on the smaller side");
        cluster.heal();
        cluster.advance(Duration::from_secs(20)).await;
        until_all_run(cluster, "n0".into(), "minority", SOON).await;
    });
    check("minority", true);
}

#[test]
fn one_that_was_frozen_for_longer_than_its_lease_does_nothing_more() {
    let cluster = Cluster::builder(5).nodes(5).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "frozen", SOON).await;
        cluster.advance(Duration::from_secs(5)).await;
        cluster.freeze("n3", Duration::from_secs(12));
        until_all_run(cluster, "n0".into(), "frozen", FAILOVER).await;
        cluster.advance(Duration::from_secs(15)).await;
        until_all_run(cluster, "n3".into(), "frozen", SOON).await;
    });
    check("frozen", false);
}

#[test]
fn a_sole_voter_that_leaves_hands_its_vote_on() {
    let cluster = Cluster::builder(6).nodes(2).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "leaves", SOON).await;
        cluster.advance(Duration::from_secs(5)).await;
        // The older one votes, alone.
        cluster.stop("n0").await;
        until_all_run(cluster, "n1".into(), "leaves", Duration::from_secs(5)).await;
    });
    check("leaves", true);
}

/// Calls every key from each of these nodes again and again while another is drained and leaves;
/// says how often, and for how long one has waited at most.
async fn load(node: Node, test: &'static str, stop: Arc<AtomicBool>) -> (usize, Duration) {
    let (mut calls, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        for number in 0..KEYS {
            let begun = tokio::time::Instant::now();
            let answer = node.keyed::<Sentry>(key(test, number)).call(Watch).await;
            assert!(answer.is_ok(), "{number} from {} is answered {answer:?}", node.id());
            longest = longest.max(begun.elapsed());
            calls += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (calls, longest)
}

/// Of so many nodes these drain at once, under load from the others, and leave.
fn drained(test: &'static str, nodes: usize, leaving: &'static [&'static str]) {
    let cluster = Cluster::builder(8).nodes(nodes).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), test, SOON).await;
        cluster.advance(Duration::from_secs(10)).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut loads = Vec::new();
        for name in cluster.names() {
            let stop = Arc::clone(&stop);
            let begin = move |node: Node| async move { (tokio::spawn(load(node, test, stop)),) };
            let (load,) = cluster.node(name).run(begin).await.unwrap();
            loads.push((name, load));
        }
        cluster.advance(Duration::from_millis(500)).await;
        for name in leaving {
            drain(cluster, (*name).into()).await;
        }
        cluster.advance(Duration::from_secs(5)).await;
        for name in leaving {
            let left = |node: Node| async move { node.drain().await };
            let drained = cluster.node(*name).run(left).await.unwrap();
            assert_eq!(drained.left, 0, "{name}");
            // Calls of its own are waited for, and it makes some all the time.
            assert!(drained.took_s < 7.0, "{name}: {drained:?}");
        }
        stop.store(true, Ordering::Relaxed);
        for (name, load) in loads {
            let (calls, longest) =
                cluster.node(name).run(|_| async { load.await.unwrap() }).await.unwrap();
            assert!(
                calls > 100 && longest < Duration::from_secs(2),
                "{name}: {calls}, {longest:?}"
            );
        }
        for name in leaving {
            cluster.stop(*name).await;
        }
        let stays = *cluster.running().first().unwrap();
        assert_eq!(call_all(cluster, stays, test).await, KEYS, "without a pause");
    });
    check(test, true);
}

#[test]
fn a_node_that_is_drained_costs_no_call() {
    drained("drained", 3, &["n1"]);
}

#[test]
fn nor_does_the_leader_of_the_voters() {
    drained("leader", 3, &["n0"]);
}

#[test]
fn nor_do_two_at_once() {
    drained("two", 5, &["n0", "n3"]);
}

#[test]
fn a_sole_voter_that_is_drained_hands_all_on() {
    drained("sole", 2, &["n0"]);
}

#[test]
fn the_last_node_has_nobody_to_drain_to_and_says_so_at_once() {
    let cluster = Cluster::builder(9).nodes(1).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "last", SOON).await;
        let drained = cluster.node("n0").run(async |node| node.drain().await).await.unwrap();
        assert_eq!((drained.left, drained.took_s < 1.0), (0, true), "{drained:?}");
        assert_eq!(
            call_all(cluster, "n0".into(), "last").await,
            KEYS,
            "it goes on until it leaves"
        );
    });
    check("last", true);
}

#[test]
fn one_that_crashes_while_it_drains_is_followed_when_its_lease_is_over() {
    let cluster = Cluster::builder(10).nodes(3).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "halfway", SOON).await;
        cluster.advance(Duration::from_secs(10)).await;
        drain(cluster, "n1".into()).await;
        cluster.advance(Duration::from_millis(30)).await;
        cluster.crash("n1");
        until_all_run(cluster, "n0".into(), "halfway", FAILOVER).await;
        cluster.restart("n1").await;
        until_all_run(cluster, "n1".into(), "halfway", SOON).await;
    });
    check("halfway", false);
}

#[test]
fn a_voter_that_comes_back_with_old_news_does_not_lead_the_others_astray() {
    let cluster = Cluster::builder(8).nodes(2).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "astray", SOON).await;
        cluster.advance(Duration::from_secs(5)).await;
        // From now on the other one votes, alone. It has not been answered for a while when it hears
        // from the old voter, who remembers itself.
        cluster.stop("n0").await;
        cluster.freeze("n1", Duration::from_secs(6));
        cluster.restart("n0").await;
        cluster.until_whole(Duration::from_mins(1)).await;
        until_all_run(cluster, "n1".into(), "astray", FAILOVER).await;
        until_all_run(cluster, "n0".into(), "astray", FAILOVER).await;
    });
    check("astray", false);
}

#[test]
fn two_voters_that_leave_and_come_back_vote_again() {
    let cluster = Cluster::builder(11).nodes(3).with(sentry).start_apart();
    cluster.run(async |cluster| {
        // The first leads, and knows the others as voters.
        cluster.restart("n0").await;
        cluster.advance(Duration::from_secs(5)).await;
        for name in ["n1", "n2"] {
            cluster.restart(name).await;
        }
        cluster.until_whole(Duration::from_mins(1)).await;
        until_all_run(cluster, "n0".into(), "back", SOON).await;
        cluster.advance(Duration::from_secs(5)).await;
        assert_eq!(voters(cluster, "n0").await.0.len(), 3);
        // Alone with the first, the second gives up its seat as well.
        cluster.stop("n1").await;
        cluster.advance(Duration::from_secs(30)).await;
        cluster.stop("n2").await;
        cluster.advance(Duration::from_secs(2)).await;
        for name in ["n1", "n2"] {
            cluster.restart(name).await;
        }
        cluster.until_whole(Duration::from_mins(1)).await;
        // Longer than a lease.
        cluster.advance(Duration::from_secs(15)).await;
        until_all_run(cluster, "n0".into(), "back", SOON).await;
        assert_eq!(voters(cluster, "n0").await.0.len(), 3);
        cluster.crash("n0");
        until_all_run(cluster, "n1".into(), "back", FAILOVER).await;
    });
    check("back", false);
}

/// Who votes, as a node sees it; and whether it does itself.
async fn voters(cluster: &Cluster, on: &'static str) -> (Vec<NodeName>, bool) {
    let ask =
        |node: Node| async move { node.call(Dest::Local("purlin".into()), GetExclusive).await };
    let info = cluster.node(on).run(ask).await.unwrap().unwrap();
    (info.voters, info.votes)
}

/// Three voters and one that is not there yet, so that there is something to write when it comes.
fn three_and_one(seed: u64) -> Cluster {
    let cluster = Cluster::builder(seed).nodes(4).with(sentry).start_apart();
    cluster.run(async |cluster| {
        for name in ["n0", "n1", "n2"] {
            cluster.restart(name).await;
        }
        cluster.until_whole(Duration::from_mins(1)).await;
        cluster.advance(Duration::from_secs(10)).await;
    });
    cluster
}

#[test]
fn a_voter_whose_disk_is_full_does_not_vote_and_votes_again_when_there_is_room() {
    for state in [DiskState::Full, DiskState::ReadOnly] {
        let cluster = three_and_one(9);
        let test = if state == DiskState::Full { "full" } else { "read-only" };
        cluster.run(async |cluster| {
            until_all_run(cluster, "n0".into(), test, SOON).await;
            cluster.set_disk("n0", state);
            cluster.restart("n3").await;
            cluster.until_whole(Duration::from_mins(1)).await;
            until_all_run(cluster, "n3".into(), test, SOON).await;
            let (_, votes) = voters(cluster, "n0").await;
            assert!(!votes, "it promises nothing that it may forget");

            cluster.set_disk("n0", DiskState::Sound);
            cluster.advance(Duration::from_secs(15)).await;
            let (all, votes) = voters(cluster, "n0").await;
            assert!(votes && all.len() == 3, "{all:?}");
            // Two of three voters are needed: it is one of them.
            cluster.crash(all[1]);
            cluster.advance(FAILOVER).await;
            until_all_run(cluster, "n0".into(), test, SOON).await;
        });
        check(test, false);
    }
}

#[test]
fn when_no_voter_can_write_what_runs_goes_on_and_nothing_new_is_decided() {
    let cluster = three_and_one(10);
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "unwritable", SOON).await;
        for name in ["n0", "n1", "n2"] {
            cluster.set_disk(name, DiskState::Full);
        }
        cluster.advance(Duration::from_secs(30)).await;
        let running = call_all(cluster, "n0".into(), "unwritable").await;
        assert_eq!(running, KEYS, "leases go on without anything to write");

        // Now a view is to be written, and voters stop one after the other.
        cluster.restart("n3").await;
        cluster.advance(Duration::from_secs(30)).await;
        let running = call_all(cluster, "n0".into(), "unwritable").await;
        assert_eq!(running, 0, "nobody can confirm a lease");

        for name in ["n0", "n1", "n2"] {
            cluster.set_disk(name, DiskState::Sound);
        }
        cluster.advance(FAILOVER).await;
        until_all_run(cluster, "n3".into(), "unwritable", SOON).await;
    });
    check("unwritable", true);
}

#[test]
fn slow_disks_make_it_slow_and_nothing_else() {
    let cluster = three_and_one(11);
    cluster.run(async |cluster| {
        for name in cluster.names() {
            cluster.set_disk(name, DiskState::Slow(Duration::from_millis(300)));
        }
        until_all_run(cluster, "n0".into(), "slow", SOON).await;
        cluster.restart("n3").await;
        cluster.until_whole(Duration::from_mins(1)).await;
        cluster.crash("n1");
        cluster.advance(FAILOVER).await;
        until_all_run(cluster, "n0".into(), "slow", SOON).await;
    });
    check("slow", false);
}

#[test]
fn what_waits_for_a_process_to_begin_goes_along_when_its_key_does() {
    let cluster = Cluster::builder(11).nodes(3).with(sentry).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "along", SOON).await;
        cluster.advance(Duration::from_secs(10)).await;
        let before = owners(cluster, "along");
        // Nothing that moves begins before this one has heard of it.
        cluster.freeze("n2", Duration::from_millis(1_500));
        drain(cluster, "n1".into()).await;
        cluster.advance(Duration::from_millis(300)).await;
        let between = owners(cluster, "along");
        let begin = |node: Node| async move { (tokio::spawn(load_once(node, "along")),) };
        let (calls,) = cluster.node("n0").run(begin).await.unwrap();
        cluster.advance(Duration::from_millis(200)).await;
        // What was n1's and has not begun here goes on to the one that is left.
        drain(cluster, "n0".into()).await;
        let answered = cluster.node("n0").run(|_| async { calls.await.unwrap() }).await.unwrap();
        let mut waited = 0;
        for (number, answer) in answered.into_iter().enumerate() {
            let by = answer.unwrap_or_else(|error| panic!("{number}: {error}"));
            if (before[number], between[number]) == ("n1".into(), "n0".into()) {
                waited += 1;
                assert_eq!(by, "n2", "{number}");
            }
        }
        assert!(waited > 0, "{before:?}, {between:?}");
    });
    check("along", false);
}

/// Who owns each key by the view that the first node knows.
fn owners(cluster: &Cluster, test: &str) -> Vec<NodeName> {
    let kind = Name::new(Sentry::KIND).unwrap();
    let owner = |node: &Node, number| node.runtime().key_owner(&kind, &key(test, number));
    (0..KEYS).map(|n| cluster.node("n0").look(|node| owner(node, n)).unwrap()).collect()
}

/// Calls each key once, all at the same time.
async fn load_once(node: Node, test: &'static str) -> Vec<Result<String, CallError>> {
    let call = |number| {
        let keyed = node.keyed::<Sentry>(key(test, number));
        tokio::spawn(async move { keyed.call(Watch).await })
    };
    let mut answers = Vec::new();
    for call in (0..KEYS).map(call).collect::<Vec<_>>() {
        answers.push(call.await.unwrap());
    }
    answers
}

fn remembered(builder: NodeBuilder) -> NodeBuilder {
    builder.keyed::<Sentry>(Keyed::exclusive().remember())
}

/// How many keys of a test run, without asking them anything.
fn running(cluster: &Cluster) -> usize {
    let count = |node: &Node| node.runtime().keyed_processes().len();
    let all = cluster.running().into_iter();
    all.filter_map(|name| cluster.node(name).look(count)).sum()
}

#[test]
fn remembered_keys_run_again_without_a_message_under_greater_fences() {
    let cluster = Cluster::builder(12).nodes(3).with(remembered).start();
    cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), "kept", SOON).await;
        cluster.advance(Duration::from_secs(10)).await;
        let before = fences("kept");
        cluster.crash("n1");
        cluster.advance(FAILOVER).await;
        assert_eq!(running(cluster), KEYS, "after a crash");
        drain(cluster, "n2".into()).await;
        cluster.advance(Duration::from_secs(5)).await;
        cluster.stop("n2").await;
        cluster.advance(Duration::from_secs(10)).await;
        assert_eq!(running(cluster), KEYS, "after a node has left");
        let after = fences("kept");
        let moved = before.iter().filter(|(key, before)| after[*key] > **before).count();
        assert!(moved > 0 && after.iter().all(|(key, after)| *after >= before[key]));
        assert_eq!(call_all(cluster, "n0".into(), "kept").await, KEYS);
    });
    check("kept", false);
}

#[test]
fn of_two_clusters_that_meet_the_junior_one_joins_the_other() {
    let cluster = Cluster::builder(7).nodes(4).with(sentry).start_apart();
    cluster.run(async |cluster| {
        cluster.split(&["n0".into(), "n1".into()]);
        for name in ["n0", "n1", "n2", "n3"] {
            cluster.restart(name).await;
        }
        until_all_run(cluster, "n0".into(), "senior", SOON).await;
        until_all_run(cluster, "n2".into(), "junior", SOON).await;
        cluster.heal();
        cluster.until_whole(Duration::from_mins(1)).await;
        cluster.advance(Duration::from_secs(15)).await;
        for from in cluster.names() {
            until_all_run(cluster, from, "senior", SOON).await;
            until_all_run(cluster, from, "junior", SOON).await;
        }
    });
    // Keys that only one of them has used are never twice, tokens rise, also for the other's.
    check("senior", true);
    check("junior", true);
}

/// A node begins to drain; how that ends is not waited for.
async fn drain(cluster: &Cluster, name: NodeName) {
    let begin = |node: Node| async move { drop(tokio::spawn(async move { node.drain().await })) };
    cluster.node(name).run(begin).await;
}

/// Faults by chance, then health: all keys run again.
fn schedule(seed: u64, nodes: usize, test: &'static str, rounds: usize) -> String {
    forget(test);
    let cluster = Cluster::builder(seed).nodes(nodes).with(sentry).start();
    let mut chance = Chance::new(seed);
    let mut frozen = false;
    let digest = cluster.run(async |cluster| {
        until_all_run(cluster, "n0".into(), test, SOON).await;
        for _ in 0..rounds {
            let names = cluster.names();
            let name = names[usize::try_from(chance.below(nodes as u64)).unwrap()];
            let running = cluster.node(name).is_running();
            match chance.below(9) {
                0 if running => cluster.crash(name),
                1 | 2 if !running => cluster.restart(name).await,
                3 => cluster.split(&names[..usize::try_from(1 + chance.below(2)).unwrap()]),
                4 if running => {
                    frozen = true;
                    cluster.freeze(name, Duration::from_millis(1_000 * (1 + chance.below(8))));
                }
                7 if running => drain(cluster, name).await,
                8 if running => cluster.stop(name).await,
                5 => cluster.skew(name, [0.97, 1.03][usize::try_from(chance.below(2)).unwrap()]),
                _ => cluster.heal(),
            }
            let running = cluster.running();
            let from = running.first().copied().unwrap_or(name);
            // Some may fail now; what counts is who runs.
            call_all(cluster, from, test).await;
            cluster.advance(Duration::from_millis(500 * (1 + chance.below(12)))).await;
        }
        cluster.heal();
        for name in cluster.names() {
            let drains = |node: &Node| !node.ring().members().contains(&node.id().name);
            if cluster.node(name).look(drains) == Some(true) {
                cluster.stop(name).await;
            }
            if !cluster.node(name).is_running() {
                cluster.restart(name).await;
            }
        }
        cluster.until_whole(Duration::from_mins(2)).await;
        cluster.advance(Duration::from_secs(10)).await;
        until_all_run(cluster, "n0".into(), test, SOON).await;
        format!("{:?}", cluster.digest())
    });
    check(test, !frozen);
    digest
}

#[test]
fn whatever_happens_no_key_has_two_at_an_instant() {
    for seed in 0..schedules() {
        schedule(seed, 5, "random", 6);
    }
}

#[test]
fn a_run_depends_on_its_seed_alone() {
    let [one, two] = ["same", "same"].map(|test| schedule(77, 3, test, 3));
    assert_eq!(one, two);
}

/// How many schedules; as many as `PURLIN_SCHEDULES` says, for a longer run.
fn schedules() -> u64 {
    std::env::var("PURLIN_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
