//! A suspicion is told to its subject face to face, and the answer ends it.
//!
//! foca leaves both to gossip, and drops the subject when the answer has not found its way to who
//! suspects in time: in a young cluster, where every packet is full of newcomers and most links are
//! still being made, that costs live nodes their lives. Here it takes one round trip on the control
//! stream, which loses nothing; Lifeguard's buddy system has the same aim.

use foca::Timer;
use purlin_proto::NodeId;

use super::types::Time;
use super::wire::{Life, Said, Update};
use super::{Happened, Membership};

/// Whom foca has just come to suspect by itself: only then it waits for this.
pub(super) fn suspected(timer: &Timer<Life>) -> Option<NodeId> {
    match timer {
        Timer::ChangeSuspectToDown { member_id, .. } => Some(member_id.id),
        _ => None,
    }
}

/// Whom others are asked to probe when this timer is due, unless it has answered by then.
pub(super) fn asked_again(timer: &Timer<Life>) -> Option<NodeId> {
    match timer {
        Timer::SendIndirectProbe { probed_id, .. } => Some(probed_id.id),
        _ => None,
    }
}

impl Membership {
    /// Tells a member that it is suspected, if it is.
    pub(super) fn accuse(&mut self, id: NodeId) {
        let suspect =
            self.foca.iter_members().find(|m| m.id().id == id && m.state() == foca::State::Suspect);
        if let Some(incarnation) = suspect.map(Update::incarnation) {
            self.say(id, &Said::Suspected(incarnation));
        }
    }

    /// This node is suspected in that incarnation, so it takes the next.
    pub(super) fn refute(&mut self, now: Time, to: NodeId, incarnation: u16) {
        self.history.note(now, self.me.id.name, Happened::Accused { by: to });
        self.health.worse();
        let me = Life { id: self.me.id, address: self.me.address };
        self.apply(now, std::iter::once(Update::new(me, incarnation, foca::State::Suspect)));
        // Without a next one it comes back under a new creation.
        if let Some(next) = incarnation.checked_add(1) {
            self.say(to, &Said::Refuted(next));
        }
    }

    /// A node says of itself that it is alive.
    pub(super) fn refuted(&mut self, now: Time, by: NodeId, incarnation: u16) {
        let Some(member) = self.table.get(by).filter(|member| member.state.is_live()) else {
            return;
        };
        let life = Life { id: by, address: member.address };
        self.health.worse();
        self.apply(now, std::iter::once(Update::new(life, incarnation, foca::State::Alive)));
    }
}
