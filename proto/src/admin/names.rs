//! What the process [`NAMES`] of every node is asked about exclusive global names, by its like on
//! other nodes and by processes that want a name. The rules are at the head of
//! `node/cluster/src/names/mod.rs`.

use serde::{Deserialize, Serialize};

use crate::fence::Fence;
use crate::id::Pid;
use crate::message::Message;
use crate::name::Name;

/// The name of that process, on every node.
pub const NAMES: &str = "purlin.names";

/// Most names in one page of an answer, or in one message.
pub const NAMES_PAGE: usize = 512;

/// What says on the ring which node decides about a name.
pub fn name_key(name: &Name) -> Box<[u8]> {
    ["purlin.global", name.as_str()].join("/").into_bytes().into()
}

/// Who wants, or has, a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The process.
    pub pid: Pid,
    /// Which attempt of its node it is; none is used twice while the node runs.
    pub attempt: u64,
}

/// Why a name is not given, or not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameRefusal {
    /// This process has it.
    Taken(Pid),
    /// The asked node does not decide about it now: another one does, or will.
    NotOwner,
    /// It does not know yet who has it.
    NotYet,
    /// It has as many names as it may.
    Full,
}

/// Give this name to this process. Asking again is as asking once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeName {
    /// Which.
    pub name: Name,
    /// For whom.
    pub claim: Claim,
}
message!(TakeName, "node.name_take", Result<Fence, NameRefusal>);

/// These names are not wanted any more by those who had, or wanted, them. Whether the asked node
/// decides about all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveNames {
    /// Which, at most [`NAMES_PAGE`].
    pub names: Vec<(Name, Claim)>,
}
message!(GiveNames, "node.names_give", bool);

/// The asking node decides about these shards from now on: which names in them has the asked one?
/// From then on it takes none there that was given before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TellNames {
    /// The asking node's newest ring view.
    pub epoch: u64,
    /// The last number of a fence that it has given.
    pub generation: u64,
    /// A bit for each shard, the lowest first.
    pub shards: Vec<u8>,
    /// Only those behind this one.
    pub after: Option<Name>,
}
message!(TellNames, "node.names_tell", Vec<(Name, Claim, Fence)>);

/// Does the asked node still have, or want, this name under this claim?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldsName {
    /// Which.
    pub name: Name,
    /// Whose.
    pub claim: Claim,
}
message!(HoldsName, "node.name_holds", bool);

/// Who has this name, as the node knows that decides about it?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindName {
    /// Which.
    pub name: Name,
}
message!(FindName, "node.name_find", Result<Option<Pid>, NameRefusal>);
