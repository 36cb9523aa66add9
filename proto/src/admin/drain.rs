//! Taking a node out of service.

use serde::{Deserialize, Serialize};

use crate::message::Message;
use crate::name::{Name, NodeName};

/// What would move where if this node were drained now?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetDrainPlan;
message!(GetDrainPlan, "node.drain-plan", DrainPlan);

/// Answers [`GetDrainPlan`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainPlan {
    /// The node.
    pub node: NodeName,
    /// What moves, by what it is and where it goes.
    pub moves: Vec<Move>,
    /// For how many seconds it is given time at most.
    pub limit_s: f64,
}

/// Things of one kind that go to one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// What, as `keyed cart`.
    pub what: String,
    /// Where.
    pub to: NodeName,
    /// How many.
    pub count: usize,
}

/// What would end with this node if it were drained now, and what is still out?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetDrainRest;
message!(GetDrainRest, "node.drain-rest", DrainRest);

/// Answers [`GetDrainRest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRest {
    /// The global names that processes of this node have, of either kind, by name; the first
    /// [`PAGE_ENTRIES`](crate::limits::PAGE_ENTRIES) of them.
    pub global: Vec<Name>,
    /// How many there are.
    pub globals: usize,
    /// The names that its processes have on the node, but for the node's own; as many at most.
    pub local: Vec<Name>,
    /// How many there are.
    pub locals: usize,
    /// Calls and spawns to other nodes that are out: of its processes, and of those whose messages it
    /// sends on. They are waited for.
    pub calls: usize,
}

/// Move everything that can move to other members, then leave the cluster and stop. Answered when all
/// has moved, or time is up, just before it leaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Drain;
message!(Drain, "node.drain", Drained);

/// How draining has ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    /// What is still there; 0 unless time was up.
    pub left: usize,
    /// How many seconds it took.
    pub took_s: f64,
}

/// Has this node heard that another is about to leave, and gives it no keys any more?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeesDraining {
    /// Which.
    pub node: NodeName,
}
message!(SeesDraining, "node.sees-draining", bool);
