//! The leader's side: who may hold a lease, how far the barrier has been passed, and the next view.

use std::collections::{BTreeMap, BTreeSet};

use purlin_proto::limits::CREATION;
use purlin_proto::{NodeId, NodeName};

use super::types::{AuthorityId, Grant, Renewal, RingView, Times};
use crate::membership::Time;

/// Members that ask to be taken in are forgotten when they have not asked again for so many leases.
const FORGET: u32 = 2;

/// What a leader knows during one term; rules 1, 2, 4, 5 and 7 of the [module](super).
///
/// Everything is to be called with the view that is newest in the log, after a majority has
/// confirmed that this node leads.
#[derive(Debug)]
pub struct Keeper {
    authority: AuthorityId,
    times: Times,
    /// From then on no lease of an earlier term is good.
    known_from: Time,
    leases: BTreeMap<NodeId, Lease>,
    /// Taken out of the view, or about to be.
    removing: BTreeSet<NodeId>,
    asking: BTreeMap<NodeName, Asking>,
    /// About to leave, and when each last said so.
    draining: BTreeMap<NodeId, Time>,
    cleared: u64,
    #[cfg(test)]
    pub(super) without_barrier: bool,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    until: Time,
    installed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Asking {
    id: NodeId,
    seen: u64,
    at: Time,
}

impl Keeper {
    /// A leader that was elected at this time, or before.
    pub fn new(authority: AuthorityId, times: Times, since: Time) -> Self {
        Self {
            authority,
            times,
            known_from: since + times.hold(),
            leases: BTreeMap::new(),
            removing: BTreeSet::new(),
            asking: BTreeMap::new(),
            draining: BTreeMap::new(),
            cleared: 0,
            #[cfg(test)]
            without_barrier: false,
        }
    }

    /// The first leader there is: nobody can have a lease of an earlier term.
    #[must_use]
    pub fn founding(mut self) -> Self {
        self.known_from = Time::ZERO;
        self
    }

    /// A life is about to leave: the next view is without it, and it keeps its lease meanwhile. To be
    /// said again with each renewal; whoever falls silent is forgotten after two leases.
    pub fn drains(&mut self, now: Time, id: NodeId) {
        self.draining.insert(id, now);
    }

    /// Those that are about to leave.
    pub fn draining(&self) -> impl Iterator<Item = NodeId> {
        self.draining.keys().copied()
    }

    /// Answers a renewal that came before the majority was asked.
    pub fn answer(&mut self, now: Time, from: NodeId, asked: &Renewal, view: &RingView) -> Grant {
        let drains = self.draining.contains_key(&from);
        let may_have = (view.has(from) || drains) && !self.removing.contains(&from);
        let leased = may_have && !asked.leaving;
        if leased {
            let installed = asked.installed.min(view.epoch);
            let until = now + self.times.hold();
            let lease = self.leases.entry(from).or_insert(Lease { until, installed });
            lease.until = lease.until.max(until);
            lease.installed = lease.installed.max(installed);
        } else if asked.leaving {
            self.leases.insert(from, Lease { until: now, installed: 0 });
            self.draining.remove(&from);
            self.asking.retain(|_, asking| asking.id != from);
            if view.has(from) {
                self.removing.insert(from);
            }
        } else if !view.has(from) {
            let seen = asked.seen.min(CREATION);
            self.asking.insert(from.name, Asking { id: from, seen, at: now });
        }
        let cleared = self.cleared(now, view);
        let newer = asked.known < view.epoch;
        Grant {
            authority: self.authority,
            number: asked.number,
            leased,
            epoch: view.epoch,
            cleared,
            view: newer.then(|| view.clone()),
        }
    }

    /// Whether a life may hold a lease.
    fn may_hold(&self, now: Time, id: NodeId) -> bool {
        match self.leases.get(&id) {
            Some(lease) => now < lease.until,
            None => now < self.known_from,
        }
    }

    /// Whether no lease of an earlier term is good any more.
    fn knows_all(&self, now: Time) -> bool {
        now >= self.known_from
    }

    /// The newest epoch that all who may hold a lease have installed.
    pub fn cleared(&mut self, now: Time, view: &RingView) -> u64 {
        #[cfg(test)]
        if self.without_barrier {
            return view.epoch;
        }
        let behind = |id: NodeId| {
            let installed = self.leases.get(&id).map_or(0, |lease| lease.installed);
            self.may_hold(now, id) && installed < view.epoch
        };
        // One that drains may have a lease of an earlier term and be in no view.
        if self.knows_all(now) && !self.holders(view).into_iter().any(behind) {
            self.cleared = self.cleared.max(view.epoch);
        }
        self.cleared
    }

    /// The members that the barrier waits for, for people.
    pub fn awaited(&self, now: Time, view: &RingView) -> Vec<NodeId> {
        let behind = |id: &NodeId| {
            let installed = self.leases.get(id).map_or(0, |lease| lease.installed);
            self.may_hold(now, *id) && installed < view.epoch
        };
        self.holders(view).into_iter().filter(behind).collect()
    }

    /// Those that have, or had until a moment ago, a lease or the right to one.
    pub fn holders(&self, view: &RingView) -> BTreeSet<NodeId> {
        view.members.iter().chain(self.leases.keys()).copied().collect()
    }

    /// The view that should be next, if it is another one: without those whose life is over (they are
    /// not `live`) or who leave, and whose lease has run out; without those that drain, unless nobody
    /// else would be left; with those who have asked. None as long as leases of an earlier term may
    /// be good: who owns more by the next view could not begin before that.
    pub fn next(
        &mut self,
        now: Time,
        view: &RingView,
        live: &BTreeSet<NodeId>,
    ) -> Option<RingView> {
        let fresh = |at: Time| now < at + FORGET * self.times.lease;
        self.asking.retain(|_, asking| fresh(asking.at) && !view.has(asking.id));
        self.draining.retain(|_, at| fresh(*at));
        self.leases.retain(|id, lease| view.has(*id) || now < lease.until);
        self.removing.retain(|id| view.has(*id));
        if !self.knows_all(now) {
            return None;
        }
        let gone = |id: &NodeId| {
            let over = !live.contains(id) || self.removing.contains(id);
            over && !self.may_hold(now, *id)
        };
        let removed: BTreeSet<_> = view.members.iter().copied().filter(gone).collect();
        let mut members: BTreeMap<_, _> = view
            .members
            .iter()
            .filter(|id| !removed.contains(id))
            .map(|id| (id.name, *id))
            .collect();
        let mut seen = view.epoch;
        let stays = |id: &NodeId| !self.draining.contains_key(id);
        for Asking { id, seen: theirs, .. } in self.asking.values() {
            if live.contains(id) && stays(id) && !members.contains_key(&id.name) {
                members.insert(id.name, *id);
                seen = seen.max(*theirs);
            }
        }
        if members.values().any(stays) {
            members.retain(|_, id| stays(id));
        }
        let members: Vec<_> = members.into_values().collect();
        if members == view.members {
            return None;
        }
        self.removing.extend(removed);
        Some(RingView { epoch: seen + 1, members })
    }
}
