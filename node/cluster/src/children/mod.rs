//! What is to be done about a child of a cluster supervisor: decisions as values.
//!
//! The owner of a child's shard asks [`decide`] again and again, with what is wanted ([`ChildRecord`])
//! and what runs ([`ChildRun`]) as it sees them by then, and does the one thing that this answers. So
//! nothing depends on how things came to be so: what was missed, or lost on the way, is seen the next
//! time. No clock, no state, no I/O here.
//!
//! # The rules
//!
//! - Before a start the record says where and as which generation ([`Step::Write`]), and only then is
//!   it asked for ([`Step::Start`]). Whoever owns the shard next reads the same, and asks the same
//!   node for the same generation, which does nothing twice.
//! - A child that has ended by itself is started again where it was, as its restart type says, unless
//!   that was too often: then it is given up. These restarts are counted in the record, so on all
//!   nodes together.
//! - When its node is gone it is placed anew. This counts for nothing, unless the node went down
//!   within 30 s of the start: after two different nodes it is [`Poison`](purlin_proto::child::Desired::Poison).
//! - When its place is another one, that one takes it over: it goes on where it is until then.
//! - When a node has let go of it ([`LetGo`](purlin_proto::child::RunState::LetGo)) and it is placed
//!   there still, or again, that node takes it back, unless who has asked for it is a member.
//! - When it runs twice, as after a split, the one whose starter saw more members is kept, then the
//!   one of the higher generation, then that of the smaller node name; the others are ended. What a
//!   node has let go of does not run.
//! - What contradicts the record might only not have arrived yet, so for [`SETTLE`] nothing is done
//!   about it.

mod decide;
mod pace;
mod place;

use std::collections::BTreeMap;
use std::time::Duration;

use purlin_proto::child::{ChildRecord, ChildRun};
use purlin_proto::{Labels, NodeId, NodeName};

pub use decide::decide;
pub use pace::Pace;
pub use place::place;

/// How long what nodes say may contradict the record before it is taken for true.
pub const SETTLE: Duration = Duration::from_secs(2);

/// A node that goes down so soon after a child was started on it may have gone down by it.
pub const YOUNG: Duration = Duration::from_secs(30);

/// So many such nodes make a child poison.
pub const DEATHS: usize = 2;

/// The members as a node sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// This node.
    pub me: NodeName,
    /// Those that are live, this one included.
    pub live: BTreeMap<NodeName, Host>,
    /// How long it takes to notice that one is down.
    pub detect_in: Duration,
}

/// A member, as one that children can be placed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its present life.
    pub id: NodeId,
    /// What it says about itself.
    pub labels: Labels,
    /// How many children run there or are about to.
    pub children: usize,
    /// Whether it takes children: not if it is about to leave. What runs on it then is moved.
    pub takes: bool,
}

impl Members {
    /// Whether this life of a node is live.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.live.get(&id.name).is_some_and(|host| host.id == id)
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }
}

/// A child as the owner of its shard sees it.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// What is wanted.
    pub record: &'a ChildRecord,
    /// What runs, on live nodes.
    pub runs: &'a [(NodeId, ChildRun)],
    /// The members.
    pub members: &'a Members,
    /// Where the ring has it.
    pub owner: NodeName,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// For how long what runs, and nothing else, has contradicted the record.
    pub odd_for: Duration,
    /// Whether the node that it was placed on has left in good order, if it is gone.
    pub left: bool,
    /// Restarts of other children of the same supervisor within its period.
    pub others: u32,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing; all is as it should be.
    Rest,
    /// Nothing now: what is seen contradicts itself. Look again when it has done so for [`SETTLE`].
    Settle,
    /// Nothing now: no member takes it. Look again when members change.
    Nowhere,
    /// The record is to be this one.
    Write(Box<ChildRecord>),
    /// Have the node that the record says start it.
    Start,
    /// Have a node end it.
    End {
        /// Which.
        on: NodeId,
        /// No later generation than this.
        generation: u64,
        /// Why.
        why: End,
    },
}

/// Why a process of a child is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is not wanted any more.
    Unwanted,
    /// Its place is another one.
    Moved,
    /// It has ended already, and that has been dealt with.
    Dealt,
    /// Another one is kept: on this node, with this serial.
    Twice(NodeId, u64),
}

#[cfg(test)]
mod tests;
