//! A node's side: its lease, the views that it knows, and the shards that it holds.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use purlin_proto::{NodeId, NodeName};

use super::types::{AuthorityId, Grant, Renewal, RingView, Times};
use crate::membership::Time;
use crate::names::Shards;
use crate::ring::{Ring, SHARDS};

/// So many renewals may be unanswered; the oldest are given up.
const OUTSTANDING: usize = 32;

/// What a node holds; rules 1, 3, 4 and 6 of the [module](super).
#[derive(Debug)]
pub struct Holder {
    me: NodeId,
    times: Times,
    authority: AuthorityId,
    /// From the newest view that is cleared here, if one is, to the newest that is known.
    chain: Vec<Arc<Known>>,
    /// Whether the first of the chain is cleared: what this node owns in all of it is held.
    based: bool,
    /// What it owns in all of the chain; worked out when it is asked for after the chain has changed,
    /// for that takes a look at each shard.
    owned: OnceLock<Shards>,
    /// When each renewal was sent.
    sent: BTreeMap<u64, Time>,
    next: u64,
    until: Option<Time>,
    /// The lease has run out and what ran under it may not have ended yet.
    lapsed: bool,
    installed: u64,
    seen: u64,
    /// When the newest renewal was sent after whose answer nothing newer was known to anybody.
    fresh: Option<Time>,
    ring_of: RingOf,
    #[cfg(test)]
    pub(super) without_epoch: bool,
}

#[derive(Debug)]
struct Known {
    view: RingView,
    ring: Arc<Ring>,
}

/// Builds the ring of these members. The tests of whole clusters keep those that they have.
pub(super) type RingOf = fn(&[NodeId]) -> Arc<Ring>;

fn build(members: &[NodeId]) -> Arc<Ring> {
    Arc::new(Ring::new(members.iter().map(|member| member.name)))
}

/// What a node has to do with a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shard {
    /// It holds it.
    Held {
        /// The newest view under which it does.
        epoch: u64,
    },
    /// It will hold it, or it has no lease.
    NotYet,
    /// Another node owns it.
    Elsewhere,
}

impl Holder {
    /// A node that has no lease of this authority. `seen` is the highest epoch that anything of it
    /// has ever run under.
    pub fn new(me: NodeId, authority: AuthorityId, times: Times, seen: u64) -> Self {
        Self {
            me,
            times,
            authority,
            chain: Vec::new(),
            based: false,
            owned: OnceLock::new(),
            sent: BTreeMap::new(),
            next: 1,
            until: None,
            lapsed: false,
            installed: 0,
            seen,
            fresh: None,
            ring_of: build,
            #[cfg(test)]
            without_epoch: false,
        }
    }

    #[cfg(test)]
    pub(super) fn with_rings(mut self, ring_of: RingOf) -> Self {
        self.ring_of = ring_of;
        self
    }

    /// Which life it holds for.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Something may still run here under an earlier lease, or another authority's: nothing is
    /// renewed before it is [`settled`](Self::settled).
    pub fn lapse(&mut self) {
        self.lapsed = true;
    }

    /// Whether the lease has run out and what ran under it may not have ended.
    pub fn is_lapsed(&self) -> bool {
        self.lapsed
    }

    /// Of which authority.
    pub fn authority(&self) -> AuthorityId {
        self.authority
    }

    /// The newest view that it knows.
    pub fn view(&self) -> Option<&RingView> {
        self.chain.last().map(|known| &known.view)
    }

    /// The ring of that view.
    pub fn ring(&self) -> Option<&Arc<Ring>> {
        self.chain.last().map(|known| &known.ring)
    }

    /// The newest view's number; 0 for none.
    pub fn epoch(&self) -> u64 {
        self.view().map_or(0, |view| view.epoch)
    }

    /// The highest epoch that anything here has run under.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The newest epoch for which all that was to end has ended.
    pub fn installed(&self) -> u64 {
        self.installed
    }

    /// What it knows of views is no older than what any node knew at this time, when it asked.
    pub fn fresh(&self) -> Option<Time> {
        self.fresh
    }

    /// Whether its newest view is as new as this one, and behind the barrier as far as that is.
    pub fn is_up_to_date(&self, epoch: u64, cleared: u64) -> bool {
        self.epoch() >= epoch && self.passed() >= cleared.min(self.epoch())
    }

    /// The newest view that is cleared here; 0 for none.
    fn passed(&self) -> u64 {
        self.chain.first().filter(|_| self.based).map_or(0, |known| known.view.epoch)
    }

    /// Whether this life is out of the newest view, has ended all that it had to give up, and others
    /// may have begun it.
    pub fn is_out(&self) -> bool {
        self.view().is_some_and(|view| !view.has(self.me) && self.passed() == view.epoch)
            && !self.is_settling()
    }

    /// Until when its lease is good; `None` without one.
    pub fn good_until(&self) -> Option<Time> {
        self.until
    }

    /// Until when anything may run under it.
    pub fn runs_until(&self) -> Option<Time> {
        self.until.map(|until| until + self.times.stop_within())
    }

    /// Notices that the lease has run out; `true` if it just has. To be called when it is due
    /// ([`good_until`](Self::good_until)) and before any other use at a later time.
    pub fn tick(&mut self, now: Time) -> bool {
        if self.until.is_none_or(|until| now < until) {
            return false;
        }
        self.until = None;
        self.lapsed = true;
        self.based = false;
        // An answer to what was sent before must not bring it back.
        self.sent.clear();
        let newest = self.chain.pop();
        self.chain = newest.into_iter().collect();
        self.owned = OnceLock::new();
        true
    }

    /// The next renewal to be sent now; `None` while what ran under the last lease is ending.
    pub fn renew(&mut self, now: Time) -> Option<Renewal> {
        self.tick(now);
        if self.lapsed {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.sent.insert(number, now);
        if self.sent.len() > OUTSTANDING {
            self.sent.pop_first();
        }
        Some(self.renewal(number, false))
    }

    /// Gives the lease back: everything exclusive has ended here, and nothing will start.
    pub fn leave(&mut self) -> Renewal {
        self.until = None;
        self.based = false;
        self.sent.clear();
        self.renewal(0, true)
    }

    fn renewal(&self, number: u64, leaving: bool) -> Renewal {
        Renewal {
            authority: self.authority,
            number,
            known: self.epoch(),
            installed: self.installed,
            seen: self.seen,
            leaving,
        }
    }

    /// Takes an answer; `true` if other shards may be held now.
    pub fn granted(&mut self, now: Time, grant: &Grant) -> bool {
        let mut changed = self.tick(now);
        if grant.authority != self.authority {
            return changed;
        }
        let Some(sent) = self.sent.remove(&grant.number) else { return changed };
        #[cfg(test)]
        let install = !self.without_epoch;
        #[cfg(not(test))]
        let install = true;
        if let Some(view) = grant.view.as_ref().filter(|_| install) {
            changed |= self.install(view);
        }
        if install && self.epoch() < grant.epoch {
            // It knows that there is a newer view than it knows, so it may not act.
            return changed;
        }
        self.fresh = self.fresh.max(Some(sent));
        if grant.leased {
            let until = sent + self.times.good();
            // Sent so long ago that it is over.
            if until <= now {
                return changed;
            }
            changed |= self.until.is_none();
            self.until = Some(self.until.map_or(until, |before| before.max(until)));
            self.seen = self.seen.max(self.epoch());
        }
        changed | self.clear(grant.cleared)
    }

    /// Takes a newer view.
    pub(super) fn install(&mut self, view: &RingView) -> bool {
        if view.epoch <= self.epoch() {
            return false;
        }
        let ring = (self.ring_of)(&view.members);
        let known = Arc::new(Known { view: view.clone(), ring });
        if !self.based {
            self.chain.clear();
        }
        self.chain.push(known);
        self.owned = OnceLock::new();
        true
    }

    /// The barrier has been passed up to an epoch.
    fn clear(&mut self, cleared: u64) -> bool {
        let passed = self.chain.iter().rposition(|known| known.view.epoch <= cleared);
        let Some(passed) = passed else { return false };
        if self.based && passed == 0 {
            return false;
        }
        self.chain.drain(..passed);
        self.owned = OnceLock::new();
        self.based = true;
        true
    }

    /// All processes of shards that are not held have ended, as it was when `epoch` was the newest.
    pub fn settled(&mut self, epoch: u64) {
        if self.epoch() == epoch {
            self.installed = epoch;
            self.lapsed = false;
        }
    }

    /// Whether something may have to end: a view is not installed yet, or the lease has run out.
    pub fn is_settling(&self) -> bool {
        self.lapsed || self.installed < self.epoch()
    }

    /// What this node has to do with a shard.
    pub fn shard(&self, now: Time, shard: u16) -> Shard {
        let Some(newest) = self.chain.last() else { return Shard::NotYet };
        let ours = |known: &Arc<Known>| known.ring.owner_of(shard) == Some(self.me.name);
        if !ours(newest) {
            return Shard::Elsewhere;
        }
        if self.until.is_none_or(|until| until <= now) || !self.based || !newest.view.has(self.me) {
            return Shard::NotYet;
        }
        if self.chain.iter().all(ours) {
            Shard::Held { epoch: newest.view.epoch }
        } else {
            Shard::NotYet
        }
    }

    /// All shards that this node holds. Cheap while nothing changes.
    pub fn held(&self, now: Time) -> Shards {
        let Some(newest) = self.chain.last() else { return Shards::default() };
        let leased = self.until.is_some_and(|until| now < until);
        if !leased || !self.based || !newest.view.has(self.me) {
            return Shards::default();
        }
        self.owned.get_or_init(|| self.owned()).clone()
    }

    fn owned(&self) -> Shards {
        let ours = |shard: &u16| {
            self.chain.iter().all(|known| known.ring.owner_of(*shard) == Some(self.me.name))
        };
        (0..SHARDS).filter(ours).collect()
    }

    /// The owner of a key under the newest view.
    pub fn owner(&self, key: &[u8]) -> Option<NodeName> {
        self.ring()?.owner(key)
    }
}
