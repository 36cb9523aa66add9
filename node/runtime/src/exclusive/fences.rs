//! Which owners of exclusive shards have been heard of: what is said in the name of an earlier one is
//! refused.
//!
//! A node that starts a process for an exclusive key asks others to let go of the key, and tells them
//! what they may forget of it. Such a message may be late: its node was frozen, or a road was slow, and
//! meanwhile the shard has had another owner. Leases end what runs on a late node; they do not end what
//! it has sent. If it were heeded, the state of a process that ends just then would be handed to a node
//! that is no owner any more, and be lost; or the only copy of a state would be dropped. So these
//! messages carry the [`Fence`] under which their node holds the key, and each node keeps the highest
//! epoch that it has met of each shard: of messages, and of what it has begun itself.
//!
//! Epochs alone are compared. Under one epoch a shard has one owner, whose processes for the keys in it
//! have their numbers in no particular order.
//!
//! # What carries a fence, and what need not
//!
//! - *taking over a key* (`ReleaseHeldKey`, `DropHeldSnapshot`): checked here.
//! - *telling the new owner of a key, or sending a message on to it* (`TakeKey`, forwarded messages):
//!   whoever gets that looks at its own lease and view before anything begins, and needs no word of the
//!   sender's. So does a node that is asked to host an exclusive child.
//! - *states that old owners hand in* (`KeepSnapshot`): the sender is no owner, so it has no fence; of
//!   two states the newer one is kept.
//! - *orders about cluster children* (`HostChild`, `EndChild`): the child's generation is their token.
//! - *names*: the head of `purlin_cluster::names`, rule 2.
//! - *what an actor says*: its own affair, by [`Context::fence`](crate::Context::fence).
//!
//! # What if
//!
//! - *one is refused*: it is counted (`exclusive.stale`) and logged. Who has sent it asks for the newest
//!   view, and asks again if it holds the key after that; otherwise the process ends without having
//!   begun, and what waits for it is sent on.
//! - *this node has restarted*: it has met nobody, and refuses nobody; what an earlier life was sent does
//!   not reach it.
//! - *versions differ*: an older node does not know the message and says so; it is asked without a
//!   fence, as it was used to. What an older node asks without one is heeded.
//! - *a member lies*: it can keep states from being handed over, by an epoch of the far future. As a
//!   member it could also just ask for them.
//!
//! At most one number for each shard that there can be.

use std::collections::BTreeMap;
use std::sync::Mutex;

use purlin_proto::Fence;

use crate::runtime::{Runtime, lock};

/// The highest epoch that was met of each shard.
#[derive(Debug, Default)]
pub(crate) struct Fences(Mutex<BTreeMap<u16, u64>>);

impl Fences {
    /// Notes an owner; `Err` with the epoch of a later one if there has been one.
    fn meet(&self, fence: Fence) -> Result<(), u64> {
        let mut met = lock(&self.0);
        let newest = met.entry(fence.shard).or_default();
        if fence.epoch < *newest {
            return Err(*newest);
        }
        *newest = fence.epoch;
        Ok(())
    }
}

impl Runtime {
    /// Notes an owner of a shard that has said something, or has begun something here; `Err` with the
    /// epoch of a later one if this node has met it.
    pub(crate) fn meet_owner(&self, fence: Fence) -> Result<(), u64> {
        self.0.exclusive.fences.meet(fence)
    }

    /// As [`meet_owner`](Self::meet_owner), for a question of another node.
    pub(crate) fn heed_owner(&self, fence: Fence, what: &str) -> Result<(), u64> {
        self.meet_owner(fence).inspect_err(|epoch| {
            self.counters().exclusive_stale.add();
            tracing::warn!(%fence, epoch, what, "said in the name of an earlier owner, refused");
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_under_an_older_view_is_refused_and_the_others_of_its_view_are_not() {
        let fences = Fences::default();
        let fence = |epoch, shard, generation| Fence { epoch, shard, generation };

        assert_eq!(fences.meet(fence(3, 7, 40)), Ok(()));
        assert_eq!(fences.meet(fence(3, 7, 12)), Ok(()), "another key of the shard");
        assert_eq!(fences.meet(fence(2, 7, 99)), Err(3));
        assert_eq!(fences.meet(fence(2, 8, 1)), Ok(()), "another shard");
        assert_eq!(fences.meet(fence(4, 7, 1)), Ok(()));
        assert_eq!(fences.meet(fence(3, 7, 41)), Err(4));
    }
}
