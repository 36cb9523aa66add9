//! A registrar: the names of the shards that a node holds, and what it still has to gather.

use std::collections::{BTreeMap, BTreeSet};

use purlin_proto::admin::names::{Claim, NameRefusal};
use purlin_proto::{Fence, Name, NodeId, NodeName, Pid};

use super::Shards;
use crate::exclusive::RingView;

/// Most names that one registrar gives.
const NAMES: usize = 1 << 21;

/// See the [module](super).
#[derive(Debug, Default)]
pub struct Registrar {
    members: Vec<NodeId>,
    /// What the node held when it was last looked, and under which view.
    looked: Option<(Shards, Option<u64>)>,
    /// Those whose names are known.
    ready: Shards,
    gatherings: Vec<Gathering>,
    names: BTreeMap<Name, Taken>,
    /// The last number of a fence.
    generation: u64,
    gathered: u64,
}

/// Shards that the node has come to hold at the same time.
#[derive(Debug)]
struct Gathering {
    number: u64,
    epoch: u64,
    generation: u64,
    shards: Shards,
    /// Who has not told all of its names in them.
    awaited: BTreeSet<NodeName>,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    claim: Claim,
    fence: Fence,
}

/// Members to be asked, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gather {
    /// Comes back with the answers.
    pub number: u64,
    /// Of the view under which they are asked.
    pub epoch: u64,
    /// No fence of this registrar that has been given before has a greater number.
    pub generation: u64,
    /// The names of these shards.
    pub shards: Shards,
    /// Who is to be asked.
    pub awaited: BTreeSet<NodeName>,
}

impl Registrar {
    /// Notices what the node holds now, and the newest view. To be called before anything else
    /// whenever that changes; whatever is not held is forgotten.
    pub fn look(&mut self, held: &Shards, view: Option<&RingView>) {
        let now = (held, view.map(|view| view.epoch));
        if self.looked.as_ref().is_some_and(|(held, epoch)| (held, *epoch) == now) {
            return;
        }
        self.looked = Some((held.clone(), now.1));
        let mut known = self.ready.clone();
        for gathering in &self.gatherings {
            known.add(&gathering.shards);
        }
        let (mut lost, mut gained) = (known.clone(), held.clone());
        lost.take_out(held);
        gained.take_out(&known);
        if !lost.is_empty() {
            self.ready.take_out(&lost);
            for gathering in &mut self.gatherings {
                gathering.shards.take_out(&lost);
            }
            self.names.retain(|_, taken| !lost.has(taken.fence.shard));
        }
        if let Some(view) = view {
            self.members_are(&view.members);
            if !gained.is_empty() {
                self.gathered += 1;
                self.gatherings.push(Gathering {
                    number: self.gathered,
                    epoch: view.epoch,
                    generation: self.generation,
                    shards: gained,
                    awaited: view.members.iter().map(|member| member.name).collect(),
                });
            }
        }
        self.finish();
    }

    fn members_are(&mut self, members: &[NodeId]) {
        if self.members == members {
            return;
        }
        self.members = members.to_vec();
        for gathering in &mut self.gatherings {
            gathering.awaited.retain(|name| members.iter().any(|member| member.name == *name));
        }
        self.names.retain(|_, taken| {
            let holder = taken.claim.pid.node;
            let present = members.iter().find(|member| member.name == holder.name);
            present.is_some_and(|present| present.creation <= holder.creation)
        });
    }

    fn finish(&mut self) {
        for gathering in &self.gatherings {
            if gathering.awaited.is_empty() {
                self.ready.add(&gathering.shards);
            }
        }
        self.gatherings
            .retain(|gathering| !gathering.awaited.is_empty() && !gathering.shards.is_empty());
    }

    /// Who is to be asked, and not only once: until they have answered.
    pub fn gathers(&self) -> Vec<Gather> {
        let gather = |gathering: &Gathering| Gather {
            number: gathering.number,
            epoch: gathering.epoch,
            generation: gathering.generation,
            shards: gathering.shards.clone(),
            awaited: gathering.awaited.clone(),
        };
        self.gatherings.iter().map(gather).collect()
    }

    /// A member has told some of its names, the last of them or not. What was asked for is in
    /// `number`; nothing if that is over.
    pub fn told(
        &mut self,
        number: u64,
        by: NodeName,
        names: Vec<(Name, Claim, Fence)>,
        last: bool,
    ) {
        let asked = |gathering: &&mut Gathering| gathering.number == number;
        let Some(gathering) = self.gatherings.iter_mut().find(asked) else { return };
        if !gathering.awaited.contains(&by) {
            return;
        }
        for (name, claim, fence) in names {
            // Nobody speaks for others. A holder that is ending may have a successor already.
            let older = || self.names.get(&name).is_none_or(|known| known.fence < fence);
            if claim.pid.node.name == by && gathering.shards.has(fence.shard) && older() {
                self.names.insert(name, Taken { claim, fence });
            }
        }
        if last {
            gathering.awaited.remove(&by);
        }
        self.finish();
    }

    /// Gives a name of a shard that is held under this epoch, unless somebody else has it. Giving it
    /// again under the same claim is as giving it once.
    ///
    /// # Errors
    ///
    /// `NotYet` while the shard is gathered, or this registrar does not know that the claiming node
    /// is a member.
    pub fn take(
        &mut self,
        name: &Name,
        claim: Claim,
        (epoch, shard): (u64, u16),
    ) -> Result<Fence, NameRefusal> {
        if !self.ready.has(shard) || !self.members.contains(&claim.pid.node) {
            return Err(NameRefusal::NotYet);
        }
        match self.names.get(name) {
            Some(taken) if taken.claim == claim => return Ok(taken.fence),
            Some(taken) => return Err(NameRefusal::Taken(taken.claim.pid)),
            None if self.names.len() >= NAMES => return Err(NameRefusal::Full),
            None => {}
        }
        self.generation += 1;
        let fence = Fence { epoch, shard, generation: self.generation };
        self.names.insert(name.clone(), Taken { claim, fence });
        Ok(fence)
    }

    /// Who has a name of a shard that is held.
    ///
    /// # Errors
    ///
    /// `NotYet` while that is not known.
    pub fn find(&self, name: &Name, shard: u16) -> Result<Option<Pid>, NameRefusal> {
        match self.names.get(name) {
            Some(taken) => Ok(Some(taken.claim.pid)),
            None if self.ready.has(shard) => Ok(None),
            None => Err(NameRefusal::NotYet),
        }
    }

    /// Under which claim a name is taken.
    pub fn claim(&self, name: &Name) -> Option<Claim> {
        Some(self.names.get(name)?.claim)
    }

    /// A name is free again, if it is taken under this claim. Whether that has settled it: the
    /// shard is known here.
    pub fn give(&mut self, name: &Name, claim: Claim, shard: u16) -> bool {
        if self.claim(name) == Some(claim) {
            self.names.remove(name);
        }
        self.ready.has(shard)
    }

    /// How many names it has given.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether it has given none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
