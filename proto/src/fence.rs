//! Fencing tokens: they tell an old owner of something from a newer one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number that rises each time something exclusive is started, wherever that happens.
///
/// Of two for the same key the greater one belongs to the later process. A process that has been
/// frozen for longer than its node's lease may still finish the step it was in; whoever keeps the
/// greatest token that it has seen, a database or another process, and refuses smaller ones, is safe
/// from that.
///
/// # Text form
///
/// `epoch.shard.generation`; [`number`](Self::number) is for stores that compare numbers.
///
/// ```
/// use purlin_proto::Fence;
///
/// let before = Fence { epoch: 3, shard: 7, generation: 40 };
/// let after = Fence { epoch: 4, shard: 7, generation: 12 };
/// assert!(after > before && after.number() > before.number());
/// assert_eq!(after.to_string(), "4.7.12");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The ring view under which the owner holds the shard.
    pub epoch: u64,
    /// The shard; the same for each process of a key.
    pub shard: u16,
    /// Rises with each start on one node.
    pub generation: u64,
}

impl Fence {
    /// The token as one number of the same order; of tokens of one key.
    pub fn number(&self) -> u128 {
        u128::from(self.epoch) << 64 | u128::from(self.generation)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, shard, generation } = self;
        write!(f, "{epoch}.{shard}.{generation}")
    }
}
