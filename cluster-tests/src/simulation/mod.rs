//! Random runs of whole clusters, each from a seed: a workload, faults, and what must hold all the same.
//!
//! Nodes, quinn and rustls are real; machines, time, network and chance are `purlin::testing`'s. A
//! seed says everything: how many nodes, what is done to them ([`schedule`]), what their processes do
//! to each other ([`worker`], [`shared`], [`tree`]). They tell what they see ([`record`]); each invariant
//! ([`crate::invariants`]) looks at that as it comes, and at the end, when all is healed and quiet
//! ([`after`]).

pub mod after;
pub mod record;
pub mod schedule;
pub mod shared;
pub mod tree;
pub mod views;
pub mod worker;

use std::time::Duration;

use purlin::proto::admin::What;
use purlin::testing::{Cluster, Digest};
use purlin::{Keyed, Node, NodeBuilder, NodeName};

use self::record::Event;
use self::schedule::{Fault, Schedule};
use self::shared::{IDLE, Keeper};
use self::worker::{DEAF_LIMIT, Deaf, Worker};

/// For so long faults befall a cluster.
const LENGTH: Duration = Duration::from_secs(15);

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Small bounds, so that they are reached. Mailboxes take what one other node sends up to this,
pub const INFLOW_BYTES: usize = 512 << 10;

/// and a lane so much.
pub const LANE_BYTES: usize = 64 << 10;

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    pub seed: u64,
    pub log: Vec<String>,
    pub digest: Digest,
    pub violations: Vec<String>,
    /// How long it was, in its own time.
    pub length: Duration,
}

impl Run {
    /// The one line that does it again.
    pub fn replay(&self) -> String {
        let seed = self.seed;
        format!("PURLIN_SEED={seed} cargo test -p purlin-cluster-tests --test simulation replay")
    }

    /// # Panics
    ///
    /// If an invariant was violated: with what it was, and the line that does it again.
    pub fn check(&self) {
        let Self { seed, violations, .. } = self;
        let first = violations.iter().take(5).cloned().collect::<Vec<_>>().join("\n  ");
        let replay = self.replay();
        assert!(violations.is_empty(), "seed {seed}:\n  {first}\n\nonce more:\n\n  {replay}\n");
    }
}

/// One run. Nothing but the seed has a say in it.
pub fn run(seed: u64) -> Run {
    let Schedule { nodes, benign, faults } = Schedule::of(seed, LENGTH);
    let kinds = move |node: NodeBuilder| {
        let keyed = Keyed::available().passivate_after(IDLE);
        let node = node.actor::<Worker>().actor::<Deaf>().keyed::<Keeper>(keyed);
        let node = match benign {
            // What is full drops what is sent; and nothing is to be lost.
            true => node,
            false => node.inflow_bytes(INFLOW_BYTES).lane_bytes(LANE_BYTES),
        };
        node.application("tree", tree::tree())
    };
    let cluster = Cluster::builder(seed).nodes(nodes).with(kinds).on_event(told).start_apart();
    record::begin(seed, benign, cluster.names(), cluster.log());
    let violations = cluster.run(async |cluster| {
        for name in cluster.names() {
            cluster.restart(name).await;
        }
        if benign {
            // Who does not know a node yet cannot reach it.
            cluster.until_whole(Duration::from_mins(1)).await;
        }
        record::act(true);
        for (wait, fault) in faults {
            let until = cluster.now() + wait;
            while cluster.now() < until {
                let left = until.saturating_sub(cluster.now());
                cluster.advance(LOOK_EVERY.min(left)).await;
                look(cluster);
            }
            befall(cluster, fault).await;
        }
        after::check(cluster).await
    });
    let (log, digest, length) = (cluster.log().lines(), cluster.digest(), cluster.now());
    Run { seed, log, digest, violations, length }
}

async fn befall(cluster: &Cluster, fault: Fault) {
    if let Fault::Crash(node) | Fault::Kill(node) = fault {
        record::tell(&Event::Crashed { node });
    }
    fault.befall(cluster).await;
}

/// What a node tells of its own.
fn told(_: NodeName, what: &What) {
    if let What::ChildRestarted { supervisor, child, .. } = what {
        let (supervisor, child) = (*supervisor, child.clone());
        record::tell(&Event::Restarted { supervisor, child });
    }
}

/// Looks at mailboxes, and at what nodes hold.
fn look(cluster: &Cluster) {
    for name in cluster.names() {
        if let Some(holdings) = cluster.node(name).look(Node::holdings) {
            record::look(name, &holdings);
        }
        let waiting = cluster.node(name).look(|node| {
            let mut all = node.runtime().processes_after(0);
            all.retain(|process| process.kind == <Deaf as purlin::Actor>::KIND);
            all
        });
        for process in waiting.into_iter().flatten().filter(|process| process.mailbox > 0) {
            let (who, messages) = (process.pid, process.mailbox);
            record::tell(&Event::Waiting { who, messages, limit: DEAF_LIMIT });
        }
    }
}
