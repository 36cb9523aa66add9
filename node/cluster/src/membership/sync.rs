//! Anti-entropy: full states on a new link, and digests from time to time.
//!
//! A state is not taken across a split: if it disputes lives (live at one, over at the other) and
//! the two views have less than half in common, it comes from the other side, and one of the sides
//! must come back; see [`super::heal`]. A node that has taken no state yet takes the first it gets,
//! and so decides for a side.

use std::collections::BTreeMap;

use purlin_proto::limits::{MEMBERS, STATE_BYTES};
use purlin_proto::{NodeId, codec, hello};
use rand::seq::IteratorRandom;

use super::Membership;
use super::config::{COMPARE_EVERY, SYNC_AFTER_CHANGE};
use super::table::{LabelsFrom, view_of};
use super::types::{Event, Output, State, Time};
use super::wire::{Known, Life, Said};

impl Membership {
    pub(super) fn say(&mut self, to: NodeId, said: &Said) {
        match codec::to_bytes(said) {
            Ok(bytes) if bytes.len() <= STATE_BYTES => {
                self.outputs.push_back(Output::State { to, bytes });
            }
            Ok(bytes) => tracing::error!(bytes = bytes.len(), "membership state too large"),
            Err(error) => tracing::error!(%error, "membership state not encodable"),
        }
    }

    pub(super) fn say_full(&mut self, to: NodeId, answer: bool) {
        let of_foca: BTreeMap<_, _> =
            self.foca.iter_membership_state().map(|member| (member.id().id, member)).collect();
        let known = self.table.entries().map(|entry| {
            let member = &entry.member;
            let (incarnation, state) = match of_foca.get(&member.id) {
                Some(found) if found.state() == foca::State::Suspect => {
                    (found.incarnation(), State::Suspect)
                }
                Some(found) => (found.incarnation(), member.state),
                None => (0, member.state),
            };
            let labels = (entry.labels_from != LabelsFrom::Nobody).then(|| member.labels.clone());
            let life = Life { id: member.id, address: member.address };
            Known { life, incarnation, state, labels }
        });
        let members = known.collect();
        self.say(to, &Said::Full { members, answer });
    }

    pub(super) fn state(&mut self, now: Time, from: NodeId, bytes: &[u8]) {
        if self.table.is_over(from) {
            self.disconnect(from);
            return;
        }
        self.heard(now, from);
        match codec::from_bytes::<Said>(bytes, STATE_BYTES) {
            Ok(Said::Full { members, .. }) if members.len() > MEMBERS => {
                let many = members.len();
                self.violation(from, format!("{many} members, {MEMBERS} are the most"));
            }
            Ok(Said::Full { members, answer }) => self.full(now, from, &members, answer),
            Ok(Said::Digest(theirs)) => self.compare(now, from, theirs),
            Ok(Said::Leaving) => self.leaving(now, from),
            Ok(Said::Suspected(incarnation)) => self.refute(now, from, incarnation),
            Ok(Said::Refuted(incarnation)) => self.refuted(now, from, incarnation),
            Err(error) => self.violation(from, format!("membership state: {error}")),
        }
    }

    /// A digest costs its answer: one that comes too soon after the last one gets none. Who asks in
    /// earnest asks again.
    fn compare(&mut self, now: Time, from: NodeId, theirs: u64) {
        let Some(entry) = self.table.get_mut(from).filter(|entry| entry.compare_at <= now) else {
            return;
        };
        entry.compare_at = now + COMPARE_EVERY;
        if theirs != self.table.digest() {
            self.say_full(from, true);
        }
    }

    fn full(&mut self, now: Time, from: NodeId, members: &[Known], answer: bool) {
        let live = || members.iter().filter(|known| known.state.is_live());
        let ids = live().map(|known| known.life.id).filter(|&id| id != from);
        let view = view_of(ids.chain([from])).unwrap_or_else(|| self.table.view());
        let me = self.me.id;
        if members.iter().any(|known| known.life.id == me && !known.state.is_live()) {
            self.declared_down(now, from, None, &view);
            return;
        }
        let disputed = members.iter().any(|known| match known.state.is_live() {
            true => self.table.is_over(known.life.id),
            false => self.table.is_live(known.life.id),
        });
        if disputed && self.synced && !self.takes_disputed(&view) {
            tracing::debug!(%from, "a state from the other side of a split");
            return;
        }
        self.synced = true;
        let left = members.iter().filter(|known| known.state == State::Left);
        for known in left {
            self.leaving(now, known.life.id);
        }
        self.apply(now, members.iter().map(Known::update));
        self.learn_labels(from, members);
        if answer {
            self.say_full(from, false);
        }
        if self.meeting.take().is_some() {
            self.join(now);
        }
    }

    /// Labels are what a life says of itself; what others say of it counts until then.
    fn learn_labels(&mut self, from: NodeId, members: &[Known]) {
        for known in members {
            let id = known.life.id;
            let Some(labels) = &known.labels else { continue };
            if id == self.me.id || hello::check_labels(labels).is_err() {
                continue;
            }
            let by_itself = id == from;
            let Some(entry) = self.table.get_mut(id) else { continue };
            if entry.labels_from != LabelsFrom::Nobody && !by_itself {
                continue;
            }
            entry.labels_from = if by_itself { LabelsFrom::Itself } else { LabelsFrom::Others };
            if entry.member.labels != *labels {
                entry.member.labels = labels.clone();
                self.outputs.push_back(Output::Event(Event::Labels(id)));
            }
        }
    }

    pub(super) fn sync_soon(&mut self, now: Time) {
        self.sync_due.get_or_insert(now + SYNC_AFTER_CHANGE);
    }

    /// Compares states with so many random members.
    pub(super) fn sync(&mut self, with: usize) {
        let others = self.table.others().map(|member| member.id);
        for chosen in IteratorRandom::sample(others, &mut self.chance, with) {
            self.say_digest(chosen);
        }
    }

    pub(super) fn say_digest(&mut self, to: NodeId) {
        self.say(to, &Said::Digest(self.table.digest()));
    }
}
