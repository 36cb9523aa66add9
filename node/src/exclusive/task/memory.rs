//! Which authority this node belongs to, and its seat: found, adopted, left, and remembered.

use std::time::Duration;

use purlin_cluster::exclusive::{AuthorityId, Holder, Situation};
use purlin_proto::{NodeId, NodeName, codec};

use super::{MEMORY, Memory, Task};
use crate::builder::millis;
use crate::exclusive::AGAIN;
use crate::exclusive::seat::{self, Seat};
use crate::exclusive::store::Store;
use crate::exclusive::wire::{Here, Known, Say};

impl Task {
    pub(super) async fn remember(&mut self) {
        let kept = match self.settings.disk.read() {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(%error, "what was promised cannot be read: nothing exclusive runs");
                self.settings.takes_part = false;
                return;
            }
        };
        let Some(bytes) = kept.get(MEMORY).filter(|_| self.settings.takes_part) else { return };
        match codec::from_bytes::<Memory>(bytes, purlin_proto::limits::STATE_BYTES) {
            Ok(memory) => {
                self.kept = memory.clone();
                self.memory = memory;
            }
            Err(error) => {
                tracing::error!(%error, "what was promised is damaged: nothing exclusive runs");
                self.settings.takes_part = false;
                return;
            }
        }
        let Some(authority) = self.memory.authority else { return };
        let us = self.runtime.name();
        self.remembers = true;
        self.hold(authority);
        if let Some(id) = self.memory.seat {
            self.sit(authority, id).await;
            // It may have crashed while it founded.
            let blank = match &self.seat {
                Some(seat) => matches!(seat.raft.is_initialized().await, Ok(false)),
                None => false,
            };
            if blank && authority.founder == us && self.memory.voters == [us] {
                self.initialize().await;
            }
        }
    }

    /// Remembers what is to be remembered now; `false` if that is not possible.
    pub(super) async fn keep(&mut self) -> bool {
        let written = match codec::to_bytes(&self.memory) {
            Ok(bytes) => {
                let change = vec![(MEMORY.to_vec(), Some(bytes.to_vec()))];
                self.settings.disk.write(change).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match &written {
            Ok(()) if self.unwritten => tracing::info!("what is promised is remembered again"),
            Err(error) if !self.unwritten => {
                tracing::error!(%error, "what is promised cannot be remembered");
            }
            _ => {}
        }
        self.unwritten = written.is_err();
        if written.is_ok() {
            self.kept = self.memory.clone();
        }
        written.is_ok()
    }

    /// Makes up for what the disk did not take: remembers, and takes the seat again that it has had.
    pub(super) async fn tend_disk(&mut self, now: Duration) {
        if let Some(error) = self.seat.as_ref().and_then(Seat::failed) {
            tracing::error!(
                error,
                "this node does not vote until it can remember what it promises"
            );
            self.seat = None;
            self.write_at = now + AGAIN;
        }
        let lost_seat = self.seat.is_none() && self.memory.seat.is_some();
        if now < self.write_at || !lost_seat && self.memory == self.kept {
            return;
        }
        self.write_at = now + AGAIN;
        if self.keep().await
            && lost_seat
            && let (Some(authority), Some(id)) = (self.memory.authority, self.memory.seat)
        {
            self.sit(authority, id).await;
        }
    }

    // ----- an authority -----

    /// From now on its leases are this node's, as soon as it has one.
    pub(super) fn hold(&mut self, authority: AuthorityId) {
        let holder = Holder::new(self.runtime.id(), authority, self.times, self.memory.seen);
        self.take(holder);
    }

    pub(super) fn take(&mut self, mut holder: Holder) {
        holder.lapse();
        self.shared.change(|state| state.holder = Some(holder));
        self.runtime.holdings_changed();
        self.leader = None;
        self.renew_at = Duration::ZERO;
    }

    pub(super) async fn adopt(&mut self, known: Known) {
        tracing::info!(authority = %known.id, "knows of an authority");
        self.memory.authority = Some(known.id);
        self.memory.voters = known.voters;
        if self.keep().await {
            self.hold(known.id);
        } else {
            self.memory.authority = None;
        }
    }

    pub(super) async fn found(&mut self) {
        let us = self.runtime.name();
        let authority = AuthorityId {
            founded: millis(&self.settings.clock).max(self.memory.seen),
            founder: us,
        };
        tracing::info!(%authority, "founds an authority");
        self.memory.authority = Some(authority);
        self.memory.voters = vec![us];
        if self.sit_anew(authority).await {
            self.initialize().await;
            self.hold(authority);
        } else {
            self.memory.authority = None;
        }
    }

    /// Makes the log of the authority that this node founds say that it votes alone.
    async fn initialize(&self) {
        let Some(seat) = &self.seat else { return };
        if let Err(error) = seat::found(&seat.raft, seat.id, self.runtime.name()).await {
            tracing::error!(%error, "the authority is not founded");
        }
    }

    /// Takes a seat that nobody has had; it is remembered before anything is promised in it.
    async fn sit_anew(&mut self, authority: AuthorityId) -> bool {
        let wiped = match Store::load(self.settings.disk.clone()) {
            // What a crash has left of an earlier seat.
            Ok(store) => store.wipe().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = wiped {
            tracing::error!(%error, "this node cannot vote");
            return false;
        }
        let id = self.voter_id();
        self.memory.seat = Some(id);
        if !self.keep().await {
            self.memory.seat = None;
            return false;
        }
        self.sit(authority, id).await;
        self.seat.is_some()
    }

    /// A number that no other voter has had.
    pub(super) fn voter_id(&self) -> u64 {
        let NodeId { name, creation } = self.runtime.id();
        let now = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        let text = format!("{name}/{creation}/{now}");
        // Any 8 bytes of it; two voters of a cluster would have to agree in all.
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest.as_ref()[..8]);
        u64::from_le_bytes(bytes)
    }

    pub(super) async fn sit(&mut self, authority: AuthorityId, id: u64) {
        let (disk, mouth, now) = (self.settings.disk.clone(), self.mouth.clone(), self.now());
        let chance = self.chance.clone();
        match Seat::open(authority, id, disk, mouth, &chance, self.times, now).await {
            Ok(seat) => self.seat = Some(seat),
            Err(error) => tracing::error!(%error, "this node cannot vote"),
        }
    }

    /// Gives the seat up, and forgets what it has promised: it is never taken again.
    pub(super) async fn stand_up(&mut self) {
        let Some(seat) = self.seat.take() else { return };
        tracing::info!(authority = %seat.authority, "does not vote any more");
        if let Err(error) = seat.raft.shutdown().await {
            tracing::debug!(%error, "the seat was given up already");
        }
        self.memory.seat = None;
        // As long as it remembers the seat, it must remember what was promised in it.
        if self.keep().await
            && let Err(error) = seat.store.wipe().await
        {
            tracing::error!(%error, "what was promised is not forgotten");
        }
    }

    /// The leader of a senior authority has answered: this node leaves its own.
    pub(super) async fn change_over(&mut self, authority: AuthorityId, voters: Vec<NodeName>) {
        tracing::warn!(%authority, "has found a senior authority, leaving its own");
        self.courting = None;
        self.stand_up().await;
        self.adopt(Known { id: authority, voters }).await;
    }

    pub(super) async fn invited(&mut self, from: NodeId, authority: AuthorityId) {
        if self.authority() != Some(authority) || !self.settings.takes_part || self.left.is_some() {
            return;
        }
        // One that it has lost for a while is taken again (`tend_disk`).
        if self.seat.is_none() && self.memory.seat.is_none() {
            self.sit_anew(authority).await;
        }
        if let Some(seat) = &self.seat {
            let id = seat.id;
            self.say(from.name, Say::Ready(authority, id));
        }
    }

    pub(super) async fn consider_founding(&mut self, now: Duration) {
        let us = self.runtime.id();
        let (live, _) = self.live();
        let others: Vec<NodeId> = live.into_iter().filter(|id| *id != us).collect();
        let mut without = Vec::new();
        let (mut company, mut unclear) = (0, 0);
        for id in others {
            match self.heard.get(&id) {
                Some(Here { takes_part: false, .. }) => company += 1,
                Some(Here { authority: None, .. }) => without.push(id),
                Some(Here { authority: Some(_), .. }) | None => unclear += 1,
            }
        }
        let situation = Situation {
            us,
            seeds: self.settings.seeds,
            remembers: self.remembers,
            expect: self.settings.expect,
            without: &without,
            company,
            unclear,
        };
        if self.founding.look(now, &situation) {
            self.found().await;
        }
    }
}
