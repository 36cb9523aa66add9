//! What a node says of its own processes to all others: who is in a group, which topics are wanted,
//! who has a global name, which children of cluster supervisors are wanted and which run; and of
//! itself: that it is about to leave.
//!
//! An entry is a key and a value. Processes are serials: which life of which node they belong to is
//! said by whose entry it is, so that all of them stay true when a node comes back under a new
//! creation. Kinds of entries that a node does not know it passes on and otherwise ignores.

use serde::{Deserialize, Serialize};

use crate::child::{ChildId, ChildRecord, ChildRun};
use crate::fence::Fence;
use crate::group::Group;
use crate::id::NodeId;
use crate::key::Key;
use crate::name::Name;

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryKey {
    /// A process is in a group; [`EntryValue::Joined`].
    Member(Group, u64),
    /// The node has subscribers of a topic; [`EntryValue::Wanted`].
    Topic(Name),
    /// A process has a global name; [`EntryValue::Held`].
    Global(Name),
    /// What is wanted of a child of a cluster supervisor; [`EntryValue::Child`].
    Child(ChildId),
    /// A process of such a child; [`EntryValue::ChildRun`].
    ChildRun(ChildId),
    /// The node itself; [`EntryValue::Draining`].
    Node,
    /// A key of a keyed kind whose process is to be running; [`EntryValue::Remembered`].
    Key(Name, Key),
    /// A process has a global name of the exclusive kind; [`EntryValue::Given`].
    Exclusive(Name),
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryValue {
    /// How often it has joined.
    Joined(u32),
    /// Nothing more.
    Wanted,
    /// How a name is held.
    Held(Held),
    /// What is wanted of a child.
    Child(Box<ChildRecord>),
    /// What runs of it.
    ChildRun(ChildRun),
    /// It is about to leave: it is to own no keys, and nothing is to be placed on it.
    Draining,
    /// The node runs it, or saw to it that somebody does.
    Remembered,
    /// How a name was given.
    Given(Given),
}

/// How a global name of the exclusive kind is held on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// By which process.
    pub serial: u64,
    /// Since when, in milliseconds since 1970 by its node's clock.
    pub since_ms: u64,
    /// Of two that are heard of at the same time the one with the greater token has it.
    pub fence: Fence,
}

/// How a global name is held on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// By which process.
    pub serial: u64,
    /// Since when, in milliseconds since 1970 by its node's clock.
    pub since_ms: u64,
    /// Holders on other nodes that have lost the name to this one, and since when they had it.
    pub over: Vec<(NodeId, u64)>,
}
