//! Nodes that are taken out of service and come back while counters are added to, each in its turn: what
//! is common to tests of keyed processes and of children. On simulated machines; on real ones it is
//! [`rolling`](crate::rolling).

use std::time::Duration;

use purlin::kinds::Add;
use purlin::proto::admin::{ExclusiveInfo, GetExclusive, SYSTEM};
use purlin::testing::Cluster;
use purlin::{Dest, Node};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

pub const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];

/// What each counter should have.
pub struct Totals {
    seed: u64,
    chance: StdRng,
    counter: fn(usize) -> Dest,
    expected: Vec<i64>,
}

impl Totals {
    pub fn new(seed: u64, counters: usize, counter: fn(usize) -> Dest) -> Self {
        let chance = StdRng::seed_from_u64(seed);
        Self { seed, chance, counter, expected: vec![0; counters] }
    }

    pub fn node(&mut self) -> &'static str {
        NODES.choose(&mut self.chance).unwrap()
    }

    pub fn heads(&mut self) -> bool {
        self.chance.random()
    }

    /// Adds to some counters from nodes other than this one: to so many as there are, `times` over.
    pub async fn add(&mut self, cluster: &Cluster, but: &str, times: usize) {
        for _ in 0..times * self.expected.len() {
            let from = self.node();
            if from == but {
                continue;
            }
            let number = self.chance.random_range(0..self.expected.len());
            self.expected[number] += 1;
            let total = cluster.node(from).call((self.counter)(number), Add(1)).await;
            let (seed, at) = (self.seed, cluster.now());
            let expected = Ok(self.expected[number]);
            assert_eq!(total, expected, "seed {seed}, {number} from {from} at {at:?}");
        }
    }

    /// Takes a node out of service, and adds meanwhile and after.
    pub async fn drain(&mut self, cluster: &Cluster, leaves: &'static str) {
        let (tell, drained) = oneshot::channel();
        let begin = |node: Node| async move {
            tokio::spawn(async move { tell.send(node.drain().await.left).unwrap() });
        };
        cluster.node(leaves).run(begin).await.unwrap();
        self.add(cluster, leaves, 2).await;
        let left = cluster.node(leaves).run(|_| drained).await.unwrap();
        assert_eq!(left, Ok(0), "seed {}", self.seed);
        self.add(cluster, leaves, 1).await;
    }

    /// Has a node that has left come back, and adds meanwhile and after.
    pub async fn bring_back(&mut self, cluster: &Cluster, left: &'static str) {
        cluster.restart(left).await;
        self.add(cluster, left, 2).await;
        cluster.until_whole(Duration::from_mins(1)).await;
        self.add(cluster, "", 1).await;
    }
}

/// What a node knows of leases.
pub async fn exclusive(cluster: &Cluster, at: &'static str) -> ExclusiveInfo {
    let system = Dest::Local(SYSTEM.parse().unwrap());
    cluster.node(at).call(system, GetExclusive).await.unwrap()
}

/// Waits until all are in the ring view, and three of them vote.
pub async fn until_all_hold(cluster: &Cluster) {
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
