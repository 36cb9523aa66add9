//! When two lives cannot both go on: which of them comes back under a new creation.
//!
//! A life that is declared down stays down for whoever declared it, so one of the two must become
//! another life. Both see the same two [`View`]s and come to the same answer:
//!
//! - **The views share at least half**: one cluster, in which somebody was thought dead and is not.
//!   Whoever was declared down comes back; if both were by each other, the lesser one.
//! - **They share less**: two sides of a split meet. The node of the lesser side comes back, whoever
//!   has declared whom down, and the other holds that life for dead from then on.
//!
//! The lesser view has fewer members; of two equal ones, the greater first name; of two views with
//! that in common too, the greater own name decides.
//!
//! A node that comes back takes the full state of the one it yielded to, its dead included, before
//! it talks to anyone else ([`Meeting`]): so it cannot carry what its former side thought into the
//! side that goes on.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use purlin_proto::limits::{CREATION, VIEW_SAMPLE};
use purlin_proto::{NodeId, Refusal, View};

use super::config::MEETING;
use super::health::Health;
use super::jobs::Job;
use super::table::Table;
use super::types::{Event, Output, State, Time, Why};
use super::wire::Life;
use super::{Happened, Membership, new_foca};

/// Coming back, a node first meets the one it yielded to.
#[derive(Debug)]
pub(super) struct Meeting {
    pub(super) with: NodeId,
    pub(super) at: SocketAddr,
    /// After that it joins whoever is there.
    pub(super) until: Time,
}

/// Whether two views have at least half of their members in common, judged by their samples: the
/// smallest hashes of both together are a fair sample of both together.
pub(super) fn share_a_cluster(one: &View, other: &View) -> bool {
    let sample =
        |view: &View| -> BTreeSet<u64> { view.sample.iter().copied().take(VIEW_SAMPLE).collect() };
    let (one, other) = (sample(one), sample(other));
    let both: Vec<_> = one.union(&other).take(VIEW_SAMPLE).collect();
    let shared = both.iter().filter(|hash| one.contains(hash) && other.contains(hash)).count();
    2 * shared >= both.len()
}

/// Which rule decides; all but the first are known to fail, and kept to show that tests see it.
#[cfg(test)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// As the head says.
    #[default]
    Right,
    /// The lesser view always yields, whoever was declared down by whom: a false alarm in one
    /// cluster brings down the other of the two.
    SizeAlone,
    /// Whoever was declared down comes back, or the lesser one if both were, also if two sides of a
    /// split meet; and states are taken across it.
    Unguarded,
}

impl Membership {
    /// Whether it is one cluster in which somebody was thought dead, not two sides of a split.
    fn one_cluster(&self, theirs: &View) -> bool {
        #[cfg(test)]
        match self.rule {
            Rule::Right => {}
            Rule::SizeAlone => return false,
            Rule::Unguarded => return true,
        }
        share_a_cluster(&self.table.view(), theirs)
    }

    /// Whether a state that disputes lives may be taken from who has this view.
    pub(super) fn takes_disputed(&self, theirs: &View) -> bool {
        #[cfg(test)]
        if self.rule == Rule::Unguarded {
            return true;
        }
        share_a_cluster(&self.table.view(), theirs)
    }

    /// `by` holds this life for dead.
    pub(super) fn declared_down(
        &mut self,
        now: Time,
        by: NodeId,
        at: Option<SocketAddr>,
        theirs: &View,
    ) {
        if self.reincarnating {
            return;
        }
        let at = at.or_else(|| self.table.named(by.name).map(|member| member.address));
        let ours = self.table.view();
        let lesser = {
            let rank = |view: &View, name| (view.members, Reverse(view.first), Reverse(name));
            rank(&ours, self.me.id.name) < rank(theirs, by.name)
        };
        let one_cluster = self.one_cluster(theirs);
        let mutual = self.table.is_over(by);
        tracing::debug!(%by, one_cluster, mutual, lesser, "declared down");
        self.history.note(now, self.me.id.name, Happened::DeclaredDown { by });
        if lesser || (one_cluster && !mutual) {
            let until = now + MEETING;
            self.meeting = at.map(|at| Meeting { with: by, at, until });
            self.reincarnate(self.me.id.creation + 1);
        } else if let Some(address) = at {
            self.declare_down(now, Life { id: by, address }, Why::OtherSide);
        }
    }

    /// A newer life of this node is known, as far as that can be.
    pub(super) fn superseded(&mut self, newest: u64) {
        if newest >= CREATION {
            tracing::warn!(newest, "a creation that cannot be is said to be ours");
        } else if newest > self.me.id.creation {
            self.reincarnate(newest + 1);
        }
    }

    pub(super) fn reincarnate(&mut self, at_least: u64) {
        if !self.reincarnating {
            self.reincarnating = true;
            self.outputs.push_back(Output::Reincarnate { at_least });
        }
    }

    /// This node has a new creation; it sees everyone anew, and joins again.
    pub fn reincarnated(&mut self, now: Time, id: NodeId) {
        self.contacts = self.table.iter().map(|member| member.address).collect();
        self.contacts.remove(&self.me.address);
        for member in self.table.others() {
            let down = Event::Down { id: member.id, why: Why::Rejoining };
            self.outputs.push_back(Output::Event(down));
        }
        self.history.note(now, id.name, Happened::Returned { creation: id.creation });
        self.me.id = id;
        self.table = Table::new(self.me.member(now));
        self.foca = new_foca(&self.config, &self.me, &mut self.chance);
        self.jobs.retain(|job| !matches!(job, Job::Foca(_) | Job::Verdict(_)));
        self.confirming.clear();
        self.suspects.clear();
        self.health = Health::new(now);
        (self.reincarnating, self.synced) = (false, false);
        self.join(now);
    }

    /// Makes foca hold a life for dead, and everyone it talks to.
    pub(super) fn declare_down(&mut self, now: Time, life: Life, why: Why) {
        self.why = Some(why);
        self.apply(now, std::iter::once(foca::Member::down(life)));
        self.why = None;
    }

    /// A life is over.
    pub(super) fn over(&mut self, now: Time, id: NodeId, why: Why) {
        let Some(entry) = self.table.get_mut(id).filter(|e| e.member.state.is_live()) else {
            return;
        };
        (entry.member.state, entry.member.since) = (State::Down, now);
        self.history.note(now, id.name, Happened::Down(why));
        self.confirming.remove(&id.name);
        self.outputs.push_back(Output::Event(Event::Down { id, why }));
        self.disconnect(id);
        self.sync_soon(now);
        self.forget(now);
    }

    pub(super) fn disconnect(&mut self, peer: NodeId) {
        self.outputs.push_back(Output::Disconnect { peer, why: self.refusal(peer) });
    }

    /// A peer says what no node says.
    pub(super) fn violation(&mut self, peer: NodeId, detail: String) {
        tracing::warn!(%peer, detail, "protocol violation");
        self.outputs.push_back(Output::Disconnect { peer, why: Refusal::Protocol { detail } });
    }
}
