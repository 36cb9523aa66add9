//! Keyed processes with state on simulated machines that are taken out of service and come back, one
//! after the other, on lossy roads: no call fails and nothing is lost, whatever the seed.
//!
//! A few seeds in the gate, more with `PURLIN_SEEDS`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Add, Counter};
use purlin::proto::admin::{ExclusiveInfo, GetExclusive, SYSTEM};
use purlin::testing::{Cluster, Road};
use purlin::{Dest, Keyed, Node};
use tokio::sync::oneshot;

const KEYS: usize = 24;
const ROUNDS: usize = 4;
const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const IDLE: Duration = Duration::from_secs(7);

/// Numbers by chance (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

/// What each key should have.
struct Totals {
    seed: u64,
    chance: Chance,
    expected: [i64; KEYS],
}

impl Totals {
    /// Adds to some keys from nodes other than this one.
    async fn add(&mut self, cluster: &Cluster, but: &str, calls: usize) {
        for _ in 0..calls {
            let from = NODES[self.chance.below(NODES.len())];
            if from == but {
                continue;
            }
            let key = self.chance.below(KEYS);
            self.expected[key] += 1;
            let dest = Dest::key("counter", key as u64);
            let total = cluster.node(from).call(dest, Add(1)).await;
            let (seed, at) = (self.seed, cluster.now());
            assert_eq!(total, Ok(self.expected[key]), "seed {seed}, {key} from {from} at {at:?}");
        }
    }
}

/// What a node knows of leases.
async fn exclusive(cluster: &Cluster, at: &'static str) -> ExclusiveInfo {
    let system = Dest::Local(SYSTEM.parse().unwrap());
    cluster.node(at).call(system, GetExclusive).await.unwrap()
}

/// Waits until all are in the ring view, and three of them vote.
async fn until_all_hold(cluster: &Cluster) {
    let end = cluster.now() + Duration::from_mins(1);
    for name in NODES {
        loop {
            let info = exclusive(cluster, name).await;
            if info.members.len() == NODES.len() && info.voters.len() == 3 {
                break;
            }
            assert!(cluster.now() < end, "seed {}, {name}: {info:?}", cluster.seed());
            cluster.advance(Duration::from_millis(100)).await;
        }
    }
}

fn schedule(seed: u64, keyed: Keyed) {
    let bad = Road { loss: 0.01, jitter: Duration::from_millis(3), ..Road::default() };
    let keyed = keyed.passivate_after(IDLE);
    let cluster = Cluster::builder(seed)
        .nodes(NODES.len())
        .roads(bad)
        .with(move |node| node.stateful::<Counter>(keyed))
        .start();
    let mut totals = Totals { seed, chance: Chance(seed), expected: [0; KEYS] };
    cluster.run(async |cluster| {
        if exclusive(cluster, NODES[0]).await.takes_part {
            until_all_hold(cluster).await;
        }
        totals.add(cluster, "", 3 * KEYS).await;
        for _ in 0..ROUNDS {
            let leaves = NODES[totals.chance.below(NODES.len())];
            let (tell, drained) = oneshot::channel();
            let begin = |node: Node| async move {
                tokio::spawn(async move { tell.send(node.drain().await.left).unwrap() });
            };
            cluster.node(leaves).run(begin).await.unwrap();
            totals.add(cluster, leaves, 2 * KEYS).await;
            let left = cluster.node(leaves).run(|_| drained).await.unwrap();
            assert_eq!(left, Ok(0), "seed {seed}");
            totals.add(cluster, leaves, KEYS).await;
            cluster.stop(leaves).await;
            totals.add(cluster, leaves, KEYS).await;
            if totals.chance.below(2) == 0 {
                // What is idle is only stored.
                cluster.advance(2 * IDLE).await;
            }
            cluster.restart(leaves).await;
            totals.add(cluster, leaves, 2 * KEYS).await;
            cluster.until_whole(Duration::from_mins(1)).await;
            totals.add(cluster, "", KEYS).await;
        }
    });
}

fn for_all_seeds(keyed: Keyed) {
    let last = std::env::var("PURLIN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    (1..=last).for_each(|seed| schedule(seed, keyed));
}

#[test]
fn nodes_that_leave_and_come_back_cost_no_call_and_no_state() {
    for_all_seeds(Keyed::available());
}

#[test]
fn the_same_holds_for_what_runs_at_most_once() {
    for_all_seeds(Keyed::new());
}
