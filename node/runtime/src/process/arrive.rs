//! What a mailbox does with messages of other nodes; see `inflow.rs`.

use purlin_proto::{MessageRef, Target};

use super::{Phase, Process, State};
use crate::inflow::{Inbound, Inflow, Stop};
use crate::item::Item;
use crate::mailbox::WhenFull;

/// What became of messages of another node.
#[derive(Default)]
pub(crate) struct Arrived {
    /// The process takes nothing any more.
    pub(crate) dead: bool,
    /// Which were not taken, because it has no room.
    pub(crate) refused: Vec<usize>,
    /// What was dropped to make room.
    pub(crate) oldest: Vec<Item>,
    /// Whether it has no room, and senders can wait.
    full: bool,
    /// To be told to the node that they came from.
    pub(crate) stop: Option<Stop>,
}

impl Process {
    /// Puts messages of another node into the mailbox, as far as there is room; see `inflow.rs`.
    pub(crate) fn arrive(&self, inbound: &Inbound, messages: &[MessageRef<'_>]) -> Arrived {
        let mut arrived = Arrived::default();
        let mut state = self.lock();
        if state.phase == Phase::Dead || state.exit.is_some() {
            arrived.dead = true;
            return arrived;
        }
        for (index, message) in messages.iter().enumerate() {
            if self.admit(&mut state, &inbound.inflow, message.waits, &mut arrived) {
                state.mailbox.arrive(inbound.from, &inbound.inflow, message);
            } else {
                arrived.refused.push(index);
            }
        }
        if arrived.full {
            let target = Target::Serial(self.serial);
            arrived.stop = state.stop(Stop::new(&inbound.inflow, target));
        }
        Self::wake_receiver(state);
        arrived
    }

    /// As [`arrive`](Self::arrive), for one message that is an item of its own; it is handed back if
    /// it is not taken.
    pub(crate) fn arrive_alone(
        &self,
        inbound: &Inbound,
        target: &Target,
        waits: bool,
        item: Item,
    ) -> (Arrived, Option<Item>) {
        let mut arrived = Arrived::default();
        let mut state = self.lock();
        if state.phase == Phase::Dead || state.exit.is_some() {
            arrived.dead = true;
            return (arrived, Some(item));
        }
        let admitted = self.admit(&mut state, &inbound.inflow, waits, &mut arrived);
        if arrived.full {
            arrived.stop = state.stop(Stop::new(&inbound.inflow, target.clone()));
        }
        if !admitted {
            return (arrived, Some(item));
        }
        Self::enqueue(state, item);
        (arrived, None)
    }

    /// Whether a message of another node is taken: there is room, or its policy makes some, or it
    /// was on its way from a sender that waits.
    fn admit(
        &self,
        state: &mut State,
        inflow: &Inflow,
        waits: bool,
        arrived: &mut Arrived,
    ) -> bool {
        let waiting = state.mailbox.len() + self.taken();
        let bytes = state.mailbox.bytes() + state.taken_bytes;
        let full = waiting >= self.limit() || (bytes > 0 && bytes >= inflow.share());
        if !full {
            return true;
        }
        match self.class.mailbox.when_full() {
            WhenFull::Wait => {
                arrived.full = true;
                waits
            }
            WhenFull::DropNewest => false,
            WhenFull::DropOldest => {
                let oldest = state.mailbox.pop_message(self);
                let dropped = oldest.is_some();
                arrived.oldest.extend(oldest);
                dropped
            }
        }
    }

    /// Whether a node that has just been told to stop may go on after all.
    pub(crate) fn has_gone_on(&self, stop: &Stop) -> bool {
        let state = self.lock();
        let relations = state.relations.as_ref();
        !relations.is_some_and(|relations| relations.stopped.iter().any(|told| told.is(stop)))
    }
}

impl State {
    /// Notes that a node is to stop sending to the process; returned if it is to be told.
    fn stop(&mut self, stop: Stop) -> Option<Stop> {
        let stopped = &mut self.relations.get_or_insert_with(Box::default).stopped;
        let known = stopped.iter().any(|told| told.is(&stop));
        (!known).then(|| {
            stopped.push(stop.clone());
            stop
        })
    }
}
