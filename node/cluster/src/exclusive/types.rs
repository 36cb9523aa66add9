//! What nodes and voters say to each other, and how long things take.

use std::time::Duration;

use purlin_proto::{NodeId, NodeName};
use serde::{Deserialize, Serialize};

/// Which authority. Of two the smaller one, that was founded first, stays when they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AuthorityId {
    /// When, in milliseconds since 1970 by the founder's clock; its epochs count from there, so those
    /// of a later authority are higher.
    pub founded: u64,
    /// By whom.
    pub founder: NodeName,
}

impl std::fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.founder, self.founded)
    }
}

/// The nodes among which the ring shares the shards out, under a number that rises.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RingView {
    /// Its number.
    pub epoch: u64,
    /// One life of each node, by name.
    pub members: Vec<NodeId>,
}

impl RingView {
    /// Whether this life is in it.
    pub fn has(&self, id: NodeId) -> bool {
        self.members.contains(&id)
    }

    /// The life of a node that is in it.
    pub fn named(&self, name: NodeName) -> Option<NodeId> {
        self.members.iter().copied().find(|member| member.name == name)
    }
}

/// How long things may take, all from one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// A lease, as its giver counts it.
    pub lease: Duration,
    /// How long what is exclusive may take to stop after it.
    pub stop: Duration,
}

/// The shortest lease, however fast nodes are to be declared down.
const LEAST_LEASE: Duration = Duration::from_secs(2);

/// How long processes may take to stop.
const STOP: Duration = Duration::from_secs(1);

impl Times {
    /// The lease is three fifths of the time in which a lost node is noticed, so that it has run out
    /// by then; 2 s at least.
    pub fn new(detect_in: Duration) -> Self {
        Self { lease: detect_in.mul_f64(0.6).max(LEAST_LEASE), stop: STOP }
    }

    /// For so long a lease is good, as its holder counts it.
    pub fn good(&self) -> Duration {
        self.lease.mul_f64(0.9)
    }

    /// For so long after that processes may run, as the holder counts it.
    pub fn stop_within(&self) -> Duration {
        self.stop.mul_f64(0.9)
    }

    /// For so long after an answer something may run under it, as the giver counts it.
    pub fn hold(&self) -> Duration {
        self.lease + self.stop
    }

    /// How often a lease is renewed.
    pub fn renew_every(&self) -> Duration {
        self.lease / 6
    }
}

/// A node asks the leader for a lease, or to be taken into the view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Of which authority.
    pub authority: AuthorityId,
    /// Tells its answer from those to others.
    pub number: u64,
    /// The newest view that it knows; 0 for none.
    pub known: u64,
    /// The newest view for which everything has ended that it had to give up.
    pub installed: u64,
    /// The highest epoch that anything here has run under, under whichever authority.
    pub seen: u64,
    /// It has ended everything and gives its lease back.
    pub leaving: bool,
}

/// The leader's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of which authority.
    pub authority: AuthorityId,
    /// The number of the renewal.
    pub number: u64,
    /// Whether there is a lease; none for a node that is not in the view yet.
    pub leased: bool,
    /// The newest view's number.
    pub epoch: u64,
    /// The newest epoch behind the barrier.
    pub cleared: u64,
    /// The newest view, unless the node knows it.
    pub view: Option<RingView>,
}
