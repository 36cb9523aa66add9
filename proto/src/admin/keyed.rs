//! Questions about keyed processes, and what their nodes tell each other when keys move.

use serde::{Deserialize, Serialize};

use crate::fence::Fence;
use crate::id::Pid;
use crate::key::Key;
use crate::message::Message;
use crate::name::{Name, NodeName};
use crate::snapshot::Snapshot;

/// End the process of a key that has another owner now, and hand over its state. Answered when it has
/// ended, at once if there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseKey {
    /// The keyed kind.
    pub kind: Name,
    /// The key.
    pub key: Key,
}
message!(ReleaseKey, "node.release_key", Released);

/// Answers [`ReleaseKey`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Released {
    /// It has no process here, and no state.
    Nothing,
    /// Its process here has just ended; this is its state, and nobody has a newer one.
    State(Snapshot),
    /// It had no process here; this is what is stored of it.
    Stored(Snapshot),
    /// The asked node takes itself for the owner still: it is to be asked again.
    Owner,
    /// It has a state here that cannot be read.
    Failed {
        /// Why.
        detail: String,
    },
    /// Only answers [`ReleaseHeldKey`]: the asked node has heard from a later owner, or is one.
    Stale {
        /// The ring view under which that holds the key's shard.
        epoch: u64,
    },
}

/// As [`ReleaseKey`], of a key of an exclusive kind, in the name of a process that this node has begun
/// to start for it. Refused if the shard has had a later owner ([`Released::Stale`]): the answer could
/// hand the state to one that is none any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseHeldKey {
    /// The keyed kind.
    pub kind: Name,
    /// The key.
    pub key: Key,
    /// Under which the asking node holds the key.
    pub fence: Fence,
}
message!(ReleaseHeldKey, "node.release_held_key", Released);

/// Start the process of a key that the asking node has had so far. Whoever starts it asks for the
/// state by [`ReleaseKey`]. `false` if the asked node is not the owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakeKey {
    /// The keyed kind.
    pub kind: Name,
    /// The key.
    pub key: Key,
}
message!(TakeKey, "node.take_key", bool);

/// Answer when everything that came before for a key, and was sent on to its owner, has arrived there:
/// `false` if that cannot be said. It comes behind what its sender had sent to the key by then, and the
/// asked node asks the owner in turn, by [`TakeKey`], behind what it has sent on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FollowKey {
    /// The keyed kind.
    pub kind: Name,
    /// The key.
    pub key: Key,
}
message!(FollowKey, "node.follow_key", bool);

/// Keep the state of a key that has no process now; `false` if the asked node is not the owner. An
/// older one than it has is not kept, and need not be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeepSnapshot {
    /// The keyed kind.
    pub kind: Name,
    /// The key.
    pub key: Key,
    /// The state.
    pub snapshot: Snapshot,
}
message!(KeepSnapshot, "node.keep_snapshot", Result<bool, String>);

/// The state of a key is safe elsewhere: what there is of it here up to then can go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DropSnapshot {
    /// The keyed kind.
    pub kind: Name,
    /// The key.
    pub key: Key,
    /// The newest that can go; see [`Snapshot::at`].
    pub at: u64,
}
message!(DropSnapshot, "node.drop_snapshot", ());

/// As [`DropSnapshot`], of a key of an exclusive kind. Nothing is dropped if the shard has had a later
/// owner; `false` then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DropHeldSnapshot {
    /// The keyed kind.
    pub kind: Name,
    /// The key.
    pub key: Key,
    /// The newest that can go; see [`Snapshot::at`].
    pub at: u64,
    /// Under which the asking node holds the key.
    pub fence: Fence,
}
message!(DropHeldSnapshot, "node.drop_held_snapshot", bool);

/// Which keyed processes run on this node?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListKeyed {
    /// Of this kind only.
    pub kind: Option<Name>,
    /// Only those behind this one, by kind and key.
    pub after: Option<(Name, Key)>,
}
message!(ListKeyed, "node.keyed", Vec<KeyedInfo>);

/// One of them, in a line. At most [`PAGE_ENTRIES`](crate::limits::PAGE_ENTRIES) a page, by kind and
/// key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyedInfo {
    /// The keyed kind.
    pub kind: Name,
    /// The key.
    pub key: Key,
    /// Its process.
    pub pid: Pid,
    /// The node it runs on.
    pub node: NodeName,
    /// Messages waiting for it.
    pub mailbox: usize,
    /// Messages it has handled.
    pub handled: u64,
    /// For how many seconds it has handled nothing, as far as anybody has looked.
    pub idle_s: f64,
}
