//! Coming into the cluster, and leaving it in good order.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use purlin_proto::{NodeId, Refusal};
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::config::{HEAL_DIALS, HEAL_EVERY, JOIN_EVERY};
use super::jobs::Job;
use super::types::{Event, Output, State, Time};
use super::wire::{Life, Said, Update};
use super::{Happened, Membership};

impl Membership {
    /// Whether a life that says hello may connect.
    pub fn admit(&self, id: NodeId, address: SocketAddr) -> Result<(), Refusal> {
        if self.meeting.as_ref().is_some_and(|meeting| meeting.with.name != id.name) {
            return Err(Refusal::Joining);
        }
        match self.table.named(id.name) {
            Some(known) if known.id.creation > id.creation => {
                Err(Refusal::Superseded { newest: known.id.creation })
            }
            Some(known) if known.id == id && !known.state.is_live() => Err(self.refusal(id)),
            Some(known)
                if known.id != id && known.state == State::Up && known.address != address =>
            {
                Err(Refusal::NameTaken { name: id.name, address: known.address })
            }
            None if self.table.room() == 0 => Err(Refusal::Busy),
            Some(_) | None => Ok(()),
        }
    }

    /// What a life is told that is over.
    pub fn refusal(&self, peer: NodeId) -> Refusal {
        let view = Box::new(self.table.view());
        Refusal::DeclaredDown { creation: peer.creation, by: self.me.id, view }
    }

    /// What a life is told in return that has refused this one: that it is over as well, if it is.
    /// Where it cannot dial us nothing else tells it, and it may be the one that must come back.
    pub fn answer(&self, refusal: &Refusal) -> Option<Refusal> {
        match refusal {
            Refusal::DeclaredDown { creation, by, .. } => {
                let mutual = *creation == self.me.id.creation && self.table.is_over(*by);
                mutual.then(|| self.refusal(*by))
            }
            _ => None,
        }
    }

    pub(super) fn join(&mut self, now: Time) {
        self.jobs.retain(|job| !matches!(job, Job::Join));
        if let Some(meeting) = self.meeting.as_ref().filter(|meeting| now < meeting.until) {
            self.outputs.push_back(Output::Dial { address: meeting.at });
            self.jobs.schedule(meeting.until, Job::Join);
            return;
        }
        self.meeting = None;
        let live: BTreeSet<_> = self.table.live().map(|member| member.address).collect();
        let down = self.table.iter().filter(|member| member.state == State::Down);
        let down = down.map(|member| member.address);
        let mut candidates: BTreeSet<_> =
            IteratorRandom::sample(down, &mut self.chance, HEAL_DIALS).into_iter().collect();
        candidates.extend(&self.seeds);
        candidates.extend(&self.contacts);
        if self.synced {
            self.contacts.clear();
        }
        for address in candidates.into_iter().filter(|address| !live.contains(address)) {
            self.outputs.push_back(Output::Dial { address });
        }
        let jitter = self.chance.random_range(0.8..1.2);
        let every = if live.len() <= 1 { JOIN_EVERY } else { HEAL_EVERY };
        self.jobs.schedule(now + every.mul_f64(jitter), Job::Join);
    }

    pub(super) fn connected(&mut self, now: Time, life: Life) {
        if self.table.is_over(life.id) {
            self.disconnect(life.id);
            return;
        }
        self.heard(now, life.id);
        self.history.note(now, life.id.name, Happened::Connected);
        let known = self.synced && self.table.is_live(life.id);
        // The certificate proves that this life lives: an older one is over.
        self.apply(now, std::iter::once(Update::alive(life)));
        if !known {
            self.say_full(life.id, true);
        } else if self.me.id.name < life.id.name {
            // To one who knows us as well, one digest is enough for both.
            self.say_digest(life.id);
        }
        self.accuse(life.id);
    }

    /// Tells everyone; nothing that comes later counts.
    pub(super) fn leave(&mut self) {
        self.left = true;
        for id in self.table.others().map(|member| member.id).collect::<Vec<_>>() {
            self.say(id, &Said::Leaving);
        }
        // foca's own farewell would come first, as gossip, and look like any other death.
        self.jobs.retain(|_| false);
    }

    /// A life leaves in good order. Not gossiped: gossip cannot tell leaving from dying, and would
    /// overtake the farewell, which everyone gets from the node itself or with the next state.
    pub(super) fn leaving(&mut self, now: Time, id: NodeId) {
        let Some(entry) = self.table.get_mut(id).filter(|_| id != self.me.id) else { return };
        let was_live = entry.member.state.is_live();
        entry.member.state = State::Left;
        if !was_live {
            return;
        }
        entry.member.since = now;
        self.history.note(now, id.name, Happened::Left);
        let life = Life { id, address: entry.member.address };
        self.confirming.remove(&id.name);
        self.outputs.push_back(Output::Event(Event::Left(id)));
        self.with_foca(now, |foca, wishes| {
            foca.apply_many(std::iter::once(Update::down(life)), false, wishes)
        });
        self.sync_soon(now);
        self.forget(now);
    }
}
