//! Random runs of whole clusters, each from a seed: a workload, faults, and what must hold all the same.
//!
//! Nodes, quinn and rustls are real; machines, time, network and chance are `purlin::testing`'s. A
//! seed says everything: how many nodes, what is done to them ([`schedule`]), what their processes do
//! to each other ([`worker`], [`shared`], [`only`], [`tree`]). They tell what they see ([`record`]); each invariant
//! ([`crate::invariants`]) looks at that as it comes, and at the end, when all is healed and quiet
//! ([`after`]). Nothing in a run may panic but a process, and none of these does ([`panics`]).

pub mod after;
pub mod leaving;
pub mod only;
pub mod panics;
pub mod record;
pub mod schedule;
pub mod shared;
pub mod tree;
pub mod views;
pub mod worker;

use std::collections::BTreeSet;
use std::time::Duration;

use purlin::proto::admin::What;
use purlin::testing::{Cluster, Digest};
use purlin::{Keyed, Node, NodeBuilder, NodeName};

use self::record::{Event, Violation};
use self::schedule::{Fault, Part, Schedule};
use self::shared::{IDLE, Keeper};
use self::worker::{DEAF_LIMIT, Deaf, Worker};

/// For so long faults befall a cluster.
const LENGTH: Duration = Duration::from_secs(15);

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// All know of the authority so long after they know each other.
const FOUNDED: Duration = Duration::from_secs(3);

/// After a freeze a machine has caught up.
const THAW: Duration = Duration::from_secs(10);

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
    pub violations: Vec<Violation>,
    /// How long it was, in its own time.
    pub length: Duration,
}

/// The one line that does the run of a seed again.
pub fn replay(seed: u64) -> String {
    format!(
        "PURLIN_SEED={seed} cargo test -p purlin-cluster-tests --test simulated simulation::replay"
    )
}

impl Run {
    /// The first violation of each invariant, in order.
    pub fn first(&self) -> Vec<&Violation> {
        let mut seen = BTreeSet::new();
        self.violations.iter().filter(|violation| seen.insert(violation.invariant)).collect()
    }

    /// # Panics
    ///
    /// If an invariant was violated: with what it was, and the line that does it again.
    pub fn check(&self) {
        let Self { seed, violations, .. } = self;
        let first: Vec<_> = self.first().into_iter().map(ToString::to_string).collect();
        let (first, replay) = (first.join("\n  "), replay(*seed));
        assert!(violations.is_empty(), "seed {seed}:\n  {first}\n\nonce more:\n\n  {replay}\n");
    }
}

/// One run. Nothing but the seed has a say in it.
pub fn run(seed: u64) -> Run {
    run_schedule(seed, Schedule::of(seed, LENGTH))
}

/// A run with this schedule in place of the seed's own. It ends where something panics, with a
/// violation that says so.
pub fn run_schedule(seed: u64, schedule: Schedule) -> Run {
    let Schedule { nodes, benign, part, faults } = schedule;
    let kinds = move |node: NodeBuilder| {
        let keyed = Keyed::available().passivate_after(IDLE);
        let node = node.actor::<Worker>().actor::<Deaf>().keyed::<Keeper>(keyed);
        let node = only::kinds(part, node);
        let node = match benign {
            // What is full drops what is sent; and nothing is to be lost.
            true => node,
            false => node.inflow_bytes(INFLOW_BYTES).lane_bytes(LANE_BYTES),
        };
        node.application("tree", tree::tree())
    };
    let cluster = Cluster::builder(seed).nodes(nodes).with(kinds).on_event(told).start_apart();
    record::begin(seed, benign, part, cluster.names(), cluster.log());
    let run = || {
        cluster.run(async |cluster| act(cluster, benign, faults).await);
    };
    panics::contained(run);
    let violations = record::violations();
    let (log, digest, length) = (cluster.log().lines(), cluster.digest(), cluster.now());
    Run { seed, log, digest, violations, length }
}
/// Lets all that happen, and looks at what has come of it.
async fn act(cluster: &Cluster, benign: bool, faults: Vec<(Duration, Fault)>) {
    for name in cluster.names() {
        start(cluster, name).await;
    }
    let part = record::part();
    if benign || part != Part::None {
        // Who does not know a node yet cannot reach it.
        cluster.until_whole(Duration::from_mins(1)).await;
    }
    if part != Part::None {
        // Nodes that have never met found an authority each, and what runs under both is not one.
        cluster.advance(FOUNDED).await;
    }
    record::act(true);
    for (wait, fault) in faults {
        let until = cluster.now() + wait;
        while cluster.now() < until {
            let left = until.saturating_sub(cluster.now());
            cluster.advance(LOOK_EVERY.min(left)).await;
            look(cluster);
            leaving::stop(cluster, false).await;
        }
        befall(cluster, fault).await;
    }
    after::check(cluster).await;
}

/// Starts a node that does not run.
pub async fn start(cluster: &Cluster, name: NodeName) {
    record::starts(name);
    cluster.restart(name).await;
    if record::part() == Part::Children {
        only::start_children(cluster, name).await;
    }
}

async fn befall(cluster: &Cluster, fault: Fault) {
    match fault {
        Fault::Crash(node) | Fault::Kill(node) | Fault::Bounce(node) => {
            record::tell(&Event::Crashed { node });
        }
        Fault::Freeze(node, span) => {
            record::tell(&Event::Late { node, until: cluster.now() + span + THAW });
        }
        Fault::Slow(node, _) => record::tell(&Event::Late { node, until: Duration::MAX }),
        _ => {}
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
        if let Some(gauges) = cluster.node(name).look(Node::gauges) {
            record::look(name, &gauges);
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
