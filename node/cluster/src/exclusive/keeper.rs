//! The leader's side: who may hold a lease, how far the barrier has been passed, and the next view.

use std::collections::{BTreeMap, BTreeSet};

use purlin_proto::limits::CREATION;
use purlin_proto::{NodeId, NodeName};

use super::types::{AuthorityId, Grant, Renewal, RingView, Times};
use crate::membership::Time;

/// Members that ask to be taken in are forgotten when they have not asked again for so many leases.
const FORGET: u32 = 2;

/// What a leader knows during one term; rules 1, 2, 4 and 5 of the [module](super).
///
/// Everything is to be called with the view that is newest in the log, after a majority has
/// confirmed that this node leads.
#[derive(Debug)]
pub struct Keeper {
    authority: AuthorityId,
    times: Times,
    /// When this leader was elected, or later.
    since: Time,
    leases: BTreeMap<NodeId, Lease>,
    /// Taken out of the view, or about to be.
    removing: BTreeSet<NodeId>,
    asking: BTreeMap<NodeName, Asking>,
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
            since,
            leases: BTreeMap::new(),
            removing: BTreeSet::new(),
            asking: BTreeMap::new(),
            cleared: 0,
            #[cfg(test)]
            without_barrier: false,
        }
    }

    /// Answers a renewal that came before the majority was asked.
    pub fn answer(&mut self, now: Time, from: NodeId, asked: &Renewal, view: &RingView) -> Grant {
        let leased = view.has(from) && !self.removing.contains(&from) && !asked.leaving;
        if leased {
            let installed = asked.installed.min(view.epoch);
            let until = now + self.times.hold();
            let lease = self.leases.entry(from).or_insert(Lease { until, installed });
            lease.until = lease.until.max(until);
            lease.installed = lease.installed.max(installed);
        } else if asked.leaving {
            self.leases.insert(from, Lease { until: now, installed: 0 });
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
            None => now < self.since + self.times.hold(),
        }
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
        let mut holders = view.members.iter().chain(self.leases.keys()).copied();
        if !holders.any(behind) {
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
        view.members.iter().copied().filter(behind).collect()
    }

    /// The view that should be next, if it is another one: without those whose life is over (they are
    /// not `live`) or who leave, and whose lease has run out; with those who have asked.
    pub fn next(
        &mut self,
        now: Time,
        view: &RingView,
        live: &BTreeSet<NodeId>,
    ) -> Option<RingView> {
        self.asking.retain(|_, asking| now < asking.at + FORGET * self.times.lease);
        self.leases.retain(|id, lease| view.has(*id) || now < lease.until);
        self.removing.retain(|id| view.has(*id));
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
        let mut added = false;
        for Asking { id, seen: theirs, .. } in self.asking.values() {
            if live.contains(id) && !members.contains_key(&id.name) {
                members.insert(id.name, *id);
                seen = seen.max(*theirs);
                added = true;
            }
        }
        if removed.is_empty() && !added {
            return None;
        }
        self.removing.extend(removed);
        Some(RingView { epoch: seen + 1, members: members.into_values().collect() })
    }
}
