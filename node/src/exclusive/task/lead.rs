//! What a voter that leads does: it answers renewals, and changes the view and the voters.

use std::time::Duration;

use purlin_cluster::exclusive::{Renewal, RingView};
use purlin_proto::NodeId;

use super::{Done, INVITE_EVERY, Task};
use crate::exclusive::seat;
use crate::exclusive::wire::Say;

impl Task {
    /// As a voter: has a majority confirm that it leads, if somebody waits for that.
    pub(super) fn lead(&mut self, now: Duration) {
        let Some(seat) = &mut self.seat else { return };
        seat.look(now);
        if seat.stands(now) {
            let raft = seat.raft.clone();
            self.spawn(async move {
                if let Err(error) = raft.trigger().elect().await {
                    tracing::debug!(%error, "does not stand for election");
                }
                Done::Nothing
            });
            return;
        }
        if seat.leading.is_none() || seat.confirming || seat.pending.is_empty() {
            return;
        }
        seat.confirming = true;
        let batch = std::mem::take(&mut seat.pending).into_values().collect();
        let (voter, raft, store) = (seat.id, seat.raft.clone(), seat.store.clone());
        self.spawn(async move {
            let term = seat::confirm(raft, store).await;
            Done::Confirmed { voter, term, batch }
        });
    }

    /// A majority has confirmed that this voter leads: those who asked before are answered.
    pub(super) fn confirmed(
        &mut self,
        voter: u64,
        term: Option<u64>,
        batch: Vec<(NodeId, Renewal)>,
    ) {
        let now = self.now();
        let (live, zones) = self.live();
        let us = self.runtime.id();
        let Some(seat) = self.seat.as_mut().filter(|seat| seat.id == voter) else { return };
        seat.confirming = false;
        seat.look(now);
        let view = seat.store.view();
        let voters: Vec<_> = seat.voters().into_keys().collect();
        let Some((leads, keeper)) = &mut seat.leading else { return };
        if term != Some(*leads) {
            return;
        }
        let term = *leads;
        let mut answers = Vec::new();
        for (from, renewal) in batch {
            let grant = keeper.answer(now, from, &renewal, &view);
            answers.push((from.name, Say::Granted(grant, voters.clone())));
        }
        let mut next = None;
        if !seat.writing {
            next = match view.epoch {
                0 => Some(RingView { epoch: seat.authority.founded.max(1), members: vec![us] }),
                _ => keeper.next(now, &view, &live),
            };
        }
        let newest = (view.epoch, keeper.cleared(now, &view));
        let told = (newest != seat.told).then(|| keeper.holders(&view));
        seat.told = newest;
        let (invite, change) = seat.change(us.name, &view, &zones);
        let change = change.filter(|_| !seat.changing && view.epoch > 0);
        seat.writing |= next.is_some();
        seat.changing |= change.is_some();
        let (raft, authority) = (seat.raft.clone(), seat.authority);
        for (to, answer) in answers {
            self.say(to, answer);
        }
        for holder in told.into_iter().flatten() {
            self.say(holder.name, Say::News(authority, newest.0, newest.1));
        }
        if let Some(next) = next {
            tracing::info!(epoch = next.epoch, members = ?next.members, "next ring view");
            let raft = raft.clone();
            self.spawn(async move {
                seat::write(raft, term, next).await;
                Done::Written { voter }
            });
        }
        if now >= self.invite_at {
            self.invite_at = now + INVITE_EVERY;
            for name in invite {
                self.say(name, Say::Invite(authority));
            }
        }
        if let Some(change) = change {
            self.spawn(async move {
                seat::change(raft, change).await;
                Done::Changed { voter }
            });
        }
    }
}
