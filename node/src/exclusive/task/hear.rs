//! What other nodes say, and this node to itself.

use std::time::Duration;

use purlin_cluster::exclusive::{Grant, Holder, Renewal};
use purlin_proto::{NodeId, NodeName};
use purlin_runtime::mutant::is_planted;

use super::{Done, Task, UNWANTED};
use crate::exclusive::seat::{self, Seat};
use crate::exclusive::wire::{Ask, Here, Known, Say};

impl Task {
    pub(super) async fn hear(&mut self, from: NodeId, said: Say) {
        let now = self.now();
        match said {
            Say::Here(here) => self.heard_here(from, here).await,
            Say::Renew(renewal) => self.asked(from, renewal),
            Say::Granted(grant, voters) => self.granted(now, from, grant, voters).await,
            Say::Elsewhere(known, leader) if Some(known.id) == self.authority() => {
                if leader.is_some() && leader != self.leader {
                    self.leader = leader;
                    // Not at once: of two voters each may take another one for the leader.
                    let soon = now + self.times.renew_every() / 8;
                    self.renew_at = self.renew_at.min(soon);
                }
            }
            Say::Elsewhere(..) => {}
            Say::Invite(_) if is_planted("panic") => panic!("planted"),
            Say::Invite(authority) => self.invited(from, authority).await,
            Say::Ready(authority, voter) => {
                if let Some(seat) = self.seat.as_mut().filter(|s| s.authority == authority) {
                    seat.ready.insert(from.name, voter);
                }
            }
            Say::Ask(Ask { number, authority, voter, question }) => {
                let ours = |seat: &&mut Seat| seat.authority == authority && seat.id == voter;
                let Some(seat) = self.seat.as_mut().filter(ours) else {
                    let none = Err("that voter is not here".to_owned());
                    return self.say(from.name, Say::Answer(number, none));
                };
                seat.asked_at = now;
                let (raft, store) = (seat.raft.clone(), seat.store.clone());
                let mouth = self.mouth.clone();
                self.spawn(async move {
                    let answer = seat::answer(raft, &store, question).await;
                    mouth.say(from.name, &Say::Answer(number, answer));
                    Done::Nothing
                });
            }
            Say::Answer(number, answer) => self.mouth.answered(from.name, number, answer),
            Say::Drains(authority) => {
                let seat = self.seat.as_mut().filter(|seat| seat.authority == authority);
                if let Some((_, keeper)) = seat.and_then(|seat| seat.leading.as_mut()) {
                    keeper.drains(now, from);
                }
            }
            Say::News(authority, epoch, cleared) => {
                let holder = self.shared.read();
                let knows = |holder: &Holder| {
                    holder.authority() != authority || holder.is_up_to_date(epoch, cleared)
                };
                if !holder.holder.as_ref().is_none_or(knows) {
                    drop(holder);
                    self.renew_at = now;
                }
            }
        }
    }

    pub(super) async fn heard_here(&mut self, from: NodeId, here: Here) {
        self.heard.insert(from, here.clone());
        let Some(known) = here.authority.filter(|_| self.settings.takes_part) else { return };
        match self.authority() {
            None => self.adopt(known).await,
            Some(ours) if known.id < ours => {
                let better = |(holder, _): &(Holder, _)| known.id < holder.authority();
                if self.courting.as_ref().is_none_or(better) {
                    let (us, seen) = (self.runtime.id(), self.memory.seen);
                    let holder = Holder::new(us, known.id, self.times, seen);
                    self.courting = Some((holder, known.voters));
                }
            }
            // Whom it takes for voters is one more opinion (`perhaps_voters`).
            Some(_) => {}
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.now() < self.answered_at + 3 * self.times.renew_every()
    }

    pub(super) fn asked(&mut self, from: NodeId, renewal: Renewal) {
        let Some(seat) = &mut self.seat else { return };
        if seat.authority != renewal.authority {
            return;
        }
        if seat.leading.is_some() {
            seat.pending.insert(from.name, (from, renewal));
            return;
        }
        let (id, leader) = (seat.authority, seat.leader());
        let voters = seat.voters().into_keys().collect();
        self.say(from.name, Say::Elsewhere(Known { id, voters }, leader));
    }

    pub(super) async fn granted(
        &mut self,
        now: Duration,
        from: NodeId,
        grant: Grant,
        voters: Vec<NodeName>,
    ) {
        if let Some((holder, _)) = &self.courting
            && holder.authority() == grant.authority
        {
            return self.change_over(grant.authority, voters).await;
        }
        if Some(grant.authority) != self.authority() {
            return;
        }
        self.leader = Some(from.name);
        self.answered_at = now;
        self.note_earlier_life(&grant);
        let (changed, seen, fresh) = self.shared.change(|state| {
            let Some(holder) = &mut state.holder else { return (false, 0, None) };
            let changed = holder.granted(now, &grant);
            // Before anybody can see that something is held.
            if let Some(until) = holder.runs_until() {
                self.runtime.extend_lease(self.shared.start + until);
            }
            (changed, holder.seen(), holder.fresh())
        });
        let remembered = self.memory.clone();
        self.memory.seen = self.memory.seen.max(seen);
        if !voters.is_empty() {
            self.memory.voters = voters;
        }
        if self.memory != remembered {
            self.keep().await;
        }
        if changed {
            self.runtime.holdings_changed();
            self.runtime.owners_changed();
        }
        self.shared.freshen(fresh);
        let votes = self.memory.voters.contains(&self.runtime.name());
        if self.seat.as_mut().is_some_and(|seat| seat.is_unwanted(now, votes, UNWANTED)) {
            self.stand_up().await;
        }
    }

    /// Says, once, that this node has to wait for the lease of its own earlier life, which did not
    /// give it back.
    fn note_earlier_life(&mut self, grant: &Grant) {
        let us = self.runtime.id();
        let earlier = grant.view.as_ref().and_then(|view| view.named(us.name));
        if let Some(earlier) = earlier.filter(|id| *id != us && !grant.leased) {
            let at_most_s = self.times.hold().as_secs_f64();
            tracing::info!(%earlier, at_most_s, "waits until the lease of its earlier life is over");
        }
    }
}
