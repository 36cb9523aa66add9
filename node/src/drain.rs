//! Taking a node out of service while everybody goes on: what can move moves to other members first.
//!
//! # Steps
//!
//! 1. The node tells all members that it is about to leave, by an entry of its own. They take it out of
//!    the ring, place nothing on it, and show it as `draining`. Itself it goes on as before: what is
//!    still sent to it for a key is handled here, and whoever asks it to let go of one is told to ask
//!    again.
//! 2. It waits until all members say that they have done so. From then on it can send on whatever comes
//!    for a key, and its receiver takes it.
//! 3. It takes itself out of its own ring: keys move as after any change of members, with their state
//!    (`runtime/keyed/moved.rs`). What is exclusive moves when the voters have agreed on a ring view
//!    without this node; it keeps its lease until all nodes have ended what that view takes from
//!    them, and others have begun ([`purlin_cluster::exclusive`], rule 7). What else is to move is a
//!    [`Mover`]: children of cluster supervisors are taken over by other nodes, with their
//!    state (`children/drained.rs`).
//! 4. It waits until nothing has been sent on for a moment and no call of its own is out.
//!
//! Then it leaves ([`Node::stop`]).
//!
//! # What if
//!
//! - *a member does not answer*: it is waited for, [`HEARD`] at most. A message of it for a key may then
//!   find nobody who takes it, once; its caller is told.
//! - *something does not move in time*: after the limit ([`NodeBuilder::drain_limit`]) it stays and ends
//!   with the node; states are stored here, and move when the node is back.
//! - *there is nobody else*, or all others are about to leave as well: nothing moves, states are stored.
//! - *there is no majority of voters*: what is exclusive stays until the limit. Then it ends, and what
//!   it had saved is on this node's disk, and comes into its own when the node is back.
//! - *a voter drains*: it votes on until it leaves, and hands its vote on then.
//! - *a child may run nowhere else*, since no other member has its labels: it is not waited for and ends
//!   with the node. Should it end before, it is started when a member takes it.
//! - *the node crashes meanwhile*: as any crash. Its next life says nothing of leaving, and owns keys.
//!   What is exclusive waits until its lease has run out.
//! - *two ask at once*: both wait for the same end.
//!
//! [`NodeBuilder::drain_limit`]: crate::NodeBuilder::drain_limit

use std::collections::BTreeMap;
use std::time::Duration;

use purlin_cluster::Ring;
use purlin_proto::admin::{self, CALL_TIMEOUT, DrainPlan, DrainRest, Drained, Move, SeesDraining};
use purlin_proto::limits::PAGE_ENTRIES;
use purlin_proto::{Dest, Name, NodeName};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::children::HostedChildren;
use crate::inputs::Told;
use crate::node::{Node, Shared};

/// How long draining takes at most, unless said otherwise.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How long it waits for members to hear of it; less than new owners of its keys wait for it.
const HEARD: Duration = Duration::from_secs(2);

/// How often it looks, and asks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// If nothing comes for so long, nothing more is on its way.
const QUIET: Duration = Duration::from_millis(100);

/// Something of a node that moves elsewhere when it is drained.
pub(crate) trait Mover: Send + Sync {
    /// What would move where, with this ring of the others.
    fn plan(&self, node: &Shared, others: &Ring) -> Vec<Move>;

    /// Begins to move; the node is out of the ring.
    fn begin(&self, node: &Shared);

    /// How much has not moved yet, at least.
    fn left(&self, node: &Shared) -> usize;
}

/// How far a node has been drained.
pub(crate) struct Draining {
    limit: Duration,
    movers: Vec<Box<dyn Mover>>,
    stage: watch::Sender<Stage>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    InService,
    Moving,
    Done(Drained),
}

impl Draining {
    pub(crate) fn new(limit: Duration) -> Self {
        let children = HostedChildren::default();
        let movers: Vec<Box<dyn Mover>> = vec![Box::new(Lease), Box::new(Keys), Box::new(children)];
        Self { limit, movers, stage: watch::Sender::new(Stage::InService) }
    }
}

impl Shared {
    /// What would move where.
    pub(crate) fn drain_plan(&self) -> DrainPlan {
        let node = self.runtime.name();
        let others = self.directory.ring_without(node);
        let movers = self.drain.movers.iter();
        let moves = movers.flat_map(|mover| mover.plan(self, &others)).collect();
        DrainPlan { node, moves, limit_s: self.drain.limit.as_secs_f64() }
    }

    /// What would end with this node, and what is out.
    pub(crate) fn drain_rest(&self) -> DrainRest {
        let global = self.runtime.own_global_names();
        let own = |name: &Name| name.as_str().split('.').next() == Some(admin::SYSTEM);
        let local: Vec<_> = self.runtime.names().into_iter().map(|(name, _)| name).collect();
        let local: Vec<_> = local.into_iter().filter(|name| !own(name)).collect();
        DrainRest {
            globals: global.len(),
            global: global.into_iter().take(PAGE_ENTRIES).collect(),
            locals: local.len(),
            local: local.into_iter().take(PAGE_ENTRIES).collect(),
            calls: self.runtime.calls_out(),
        }
    }

    /// How much has not moved yet.
    fn left(&self) -> usize {
        self.drain.movers.iter().map(|mover| mover.left(self)).sum()
    }

    /// The ring of those that will hold what this node holds exclusively.
    pub(crate) fn next_holders(&self) -> Ring {
        let us = self.runtime.name();
        self.exclusive.ring_without(&|name| name == us || self.directory.is_draining(name))
    }

    fn others(&self) -> Vec<NodeName> {
        let live = self.directory.live();
        live.into_iter().filter(|name| *name != self.runtime.name()).collect()
    }
}

impl Node {
    /// Takes the node out of service: other members own its keys from now on and get their processes'
    /// state, nothing is placed on it any more, children of cluster supervisors run elsewhere with
    /// theirs, and what is on its way is waited for. What is left stays, and ends with
    /// [`stop`](Self::stop), which is to be called next.
    ///
    /// Takes 20 s at most unless said otherwise ([`NodeBuilder::drain_limit`]). Nothing moves if there
    /// is no other member. Once begun it goes on, also if this is dropped; a second call waits for the
    /// same end.
    ///
    /// ```no_run
    /// # async fn example(node: purlin::Node) {
    /// node.drain().await;
    /// node.stop().await;
    /// # }
    /// ```
    ///
    /// [`NodeBuilder::drain_limit`]: crate::NodeBuilder::drain_limit
    pub async fn drain(&self) -> Drained {
        let stage = &self.0.drain.stage;
        let mut seen = stage.subscribe();
        let first = stage.send_if_modified(|stage| {
            let first = matches!(stage, Stage::InService);
            if first {
                *stage = Stage::Moving;
            }
            first
        });
        if first {
            tokio::spawn(self.clone().drain_within_limit());
        }
        let done = seen.wait_for(|stage| matches!(stage, Stage::Done(_))).await;
        match done.as_deref() {
            Ok(Stage::Done(drained)) => *drained,
            // The sender lives as long as this node.
            _ => Drained { left: self.0.left(), took_s: 0.0 },
        }
    }

    async fn drain_within_limit(self) {
        let (node, begun) = (&self.0, Instant::now());
        let moved = tokio::time::timeout(node.drain.limit, self.move_everything()).await;
        let left = if moved.is_ok() { 0 } else { node.left() };
        let took_s = begun.elapsed().as_secs_f64();
        if moved.is_ok() {
            tracing::info!(took_s, "drained");
        } else {
            tracing::warn!(left, took_s, "not drained in time, leaving all the same");
        }
        node.drain.stage.send_replace(Stage::Done(Drained { left, took_s }));
    }

    async fn move_everything(&self) {
        let node = &self.0;
        if node.others().is_empty() {
            return;
        }
        tracing::info!("draining");
        node.runtime.announce_draining(true);
        // The voters see to it that all know the same; nobody has to have heard of it before.
        node.exclusive.drain().await;
        self.until_heard().await;
        let (done, out_of_ring) = oneshot::channel();
        node.inputs.tell(Told::Draining(done));
        let _ = out_of_ring.await;
        for mover in &node.drain.movers {
            mover.begin(node);
        }
        while node.left() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if tokio::time::timeout(CALL_TIMEOUT, self.until_quiet()).await.is_err() {
            tracing::warn!(calls = node.runtime.calls_out(), "calls are out, leaving all the same");
        }
    }

    /// Waits until all members know that this node is about to leave.
    async fn until_heard(&self) {
        let mut asked = JoinSet::new();
        for other in self.0.others() {
            let runtime = self.0.runtime.clone();
            asked.spawn(async move {
                let system = Dest::Remote(admin::SYSTEM.parse().expect("a name"), other);
                loop {
                    let ask = SeesDraining { node: runtime.name() };
                    match runtime.call_timeout(system.clone(), ask, HEARD).await {
                        Ok(true) => return,
                        Ok(false) | Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                    }
                }
            });
        }
        let all = async { while asked.join_next().await.is_some() {} };
        if tokio::time::timeout(HEARD, all).await.is_err() {
            tracing::warn!("not all members know that this node is about to leave");
        }
    }

    /// Waits until nothing has been sent on for a moment, and no call is out.
    async fn until_quiet(&self) {
        let runtime = &self.0.runtime;
        let mut before = runtime.keys_sent_on();
        loop {
            tokio::time::sleep(QUIET).await;
            let now = runtime.keys_sent_on();
            if now == before && runtime.calls_out() == 0 {
                return;
            }
            before = now;
        }
    }
}

/// What this node holds by its lease: it counts as one thing, until others may have it.
struct Lease;

impl Mover for Lease {
    fn plan(&self, _: &Shared, _: &Ring) -> Vec<Move> {
        Vec::new()
    }

    fn begin(&self, _: &Shared) {
        // The voters have been told.
    }

    fn left(&self, node: &Shared) -> usize {
        let out = node.exclusive.is_out(&|name| node.directory.is_draining(name));
        usize::from(!out)
    }
}

/// Keyed processes.
struct Keys;

impl Mover for Keys {
    fn plan(&self, node: &Shared, others: &Ring) -> Vec<Move> {
        let exclusive = node.next_holders();
        let mut counts = BTreeMap::<(&str, NodeName), usize>::new();
        for (kind, key, _) in node.runtime.keyed_processes() {
            let exclusively = Name::new(kind).is_ok_and(|kind| node.runtime.is_exclusive(&kind));
            let ring = if exclusively { &exclusive } else { others };
            if let Some(to) = ring.owner([kind, key.as_str()].join("/").as_bytes()) {
                *counts.entry((kind, to)).or_default() += 1;
            }
        }
        let moves = counts.into_iter();
        moves.map(|((kind, to), count)| Move { what: format!("keyed {kind}"), to, count }).collect()
    }

    fn begin(&self, _: &Shared) {
        // They have begun with the change of the ring.
    }

    fn left(&self, node: &Shared) -> usize {
        node.runtime.keys_to_move()
    }
}
