//! A new owner waits until the old one has let go of the key, and gets the state from it.
//!
//! When members have changed, the process of a key may still run where the key was before. So for some
//! time after that a process that starts asks the nodes that may have had its key
//! ([`Remote::earlier_owners`]) to end theirs, and begins when they have: with the state that the
//! answer brings, or with what the old one has saved at its end. Its mailbox fills meanwhile.
//!
//! Of a kind with state the nodes next to the owner on the ring are asked at any time
//! ([`Remote::neighbours`]), unless the store is shared: they may have had the key when it was used
//! last, and what they know lies on their disks. What the new owner gets it stores first, and then
//! tells the others that theirs can go. Of several states the newest is taken.
//!
//! The old owner works off what has reached its process before it ends; what comes for the key
//! afterwards it sends on, since it knows a new member before it hears anything from it.
//!
//! # What if
//!
//! - *the old owner does not answer*, because its process is busy: after [`Keyed::handoff_timeout`]
//!   the new one begins all the same, and it is counted (`keyed.handoff_timeout`). Until the old one
//!   ends the key has two processes; its state is stored where it was.
//! - *the old owner is lost*: the new one begins with what else there is, as after any crash.
//! - *the old owner's answer is lost on the way*, with the connection: so is the state, as after a
//!   crash of the old owner, but for what was saved before.
//! - *the old owner cannot read what it has*: the start fails and says so.
//! - *the old owner takes itself for the owner still*, since it is being drained or has not heard of a
//!   change: it is asked again until it has, or time is up.
//! - *one of those that are asked does not answer*, and no other has just had the process: it may have
//!   the state, so it is waited for as long; callers may give up before.
//! - *a node has not found the others yet*: it takes itself for the owner of all keys, as in a split; the
//!   newer of two states is kept when they meet. A node that must not do that waits for others before
//!   it uses keys.
//! - *who asks is no owner any more*: it ends without having begun, and what waits for it is sent on.
//! - *who has asked is no owner any more when that arrives*: of an exclusive kind it is refused
//!   (`exclusive/fences.rs`); of an available one the newer of two states is kept when they meet.
//!
//! [`Remote::earlier_owners`]: crate::Remote::earlier_owners
//! [`Remote::neighbours`]: crate::Remote::neighbours
//! [`Keyed::handoff_timeout`]: super::Keyed::handoff_timeout

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use purlin_proto::admin::{
    self, DropHeldSnapshot, DropSnapshot, ReleaseHeldKey, ReleaseKey, Released,
};
use purlin_proto::{
    CallError, Codec, Dest, ExitReason, Fence, Key, Message, MessageName, Name, NodeName, Payload,
    Snapshot,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::deliver::ring_key;
use super::table::Table;
use crate::exclusive::Holding;
use crate::process::Process;
use crate::runtime::{Runtime, lock};

/// How long a busy process is left alone.
const BUSY: Duration = Duration::from_millis(5);

/// How long until a node that takes itself for the owner is asked again.
const STILL_OWNER: Duration = Duration::from_millis(20);

/// What there is of a key when its process begins.
pub(super) enum Found {
    /// Nothing runs elsewhere; this is the newest state, if there is one.
    Free(Option<Snapshot>),
    /// This node does not own the key.
    NotOwner,
}

impl Runtime {
    /// Ends the process of a key as soon as it is idle, for another node that owns the key now, and
    /// returns its state, or what is stored of it; `None` if that takes longer than
    /// [`Keyed::handoff_timeout`](super::Keyed::handoff_timeout). When it is dropped before, the process
    /// goes on unless it is ending already; then its state is stored.
    pub async fn release_key(&self, kind: &Name, key: &Key) -> Option<Released> {
        self.let_go(kind, key, None).await
    }

    /// As [`release_key`](Self::release_key), for a node that holds the key, unless there has been a
    /// later owner: what [`ReleaseHeldKey`] asks.
    pub async fn release_held_key(&self, ask: &ReleaseHeldKey) -> Option<Released> {
        self.let_go(&ask.kind, &ask.key, Some(ask.fence)).await
    }

    async fn let_go(&self, kind: &Name, key: &Key, holds: Option<Fence>) -> Option<Released> {
        let Some(table) = self.0.keyed.get(kind.as_str()) else { return Some(Released::Nothing) };
        let released = async {
            loop {
                // A later owner may come while the process of an earlier one is busy.
                if let Some(fence) = holds
                    && let Err(epoch) = self.heed_owner(fence, ReleaseHeldKey::NAME)
                {
                    return Released::Stale { epoch };
                }
                if self.key_owner(kind, key) == self.name() {
                    return Released::Owner;
                }
                match self.hand_over(table, key, holds.is_some()).await {
                    HandedOver::Gone => return self.at_rest(table, key).await,
                    HandedOver::State(state) => return Released::State(state),
                    HandedOver::Busy => tokio::time::sleep(BUSY).await,
                }
            }
        };
        tokio::time::timeout(table.handoff_timeout, released).await.ok()
    }

    async fn hand_over(&self, table: &Table, key: &Key, held: bool) -> HandedOver {
        let Some((process, slot)) = table.entry(key) else { return HandedOver::Gone };
        if process.is_ending() {
            if held {
                // Whoever waits for the state has asked before; who holds the key has it from here.
                *lock(&slot.taker) = None;
            }
            self.down(process.pid()).await;
            return HandedOver::Gone;
        }
        let (taker, state) = oneshot::channel();
        *lock(&slot.taker) = table.stateful.then_some(taker);
        if !process.retire() {
            *lock(&slot.taker) = None;
            return HandedOver::Busy;
        }
        self.counters().keyed_moved.add();
        self.down(process.pid()).await;
        match state.await {
            Ok(state) => {
                self.counters().keyed_handed_over.add();
                HandedOver::State(state)
            }
            // It has none, or has crashed at its end.
            Err(_) => HandedOver::Gone,
        }
    }

    /// What this node has stored of a key.
    async fn at_rest(&self, table: &Table, key: &Key) -> Released {
        if !table.stateful || self.0.store.is_shared() {
            return Released::Nothing;
        }
        match self.0.store.load(table.kind, key).await {
            Ok(Some(snapshot)) => Released::Stored(snapshot),
            Ok(None) => Released::Nothing,
            Err(error) => Released::Failed { detail: error.to_string() },
        }
    }

    /// Waits until those that may have had a key before have let go of it, and finds its state, for
    /// the process with this serial.
    pub(super) async fn find_key(
        &self,
        kind: &'static str,
        key: &Key,
        serial: u64,
    ) -> Result<Found, ExitReason> {
        let (Some(table), Ok(kind)) = (self.0.keyed.get(kind), Name::new(kind)) else {
            return Ok(Found::Free(None));
        };
        if self.key_owner(&kind, key) != self.name() {
            return Ok(Found::NotOwner);
        }
        let others = self.others(table, key);
        let wanted = Wanted { table, kind: &kind, key, serial };
        let Some(elsewhere) = self.ask_all(&wanted, &others).await? else {
            return Ok(Found::NotOwner);
        };
        if !table.stateful {
            return Ok(Found::Free(None));
        }
        let fails = |detail: String| {
            self.counters().keyed_not_restored.add();
            ExitReason::error(format!("the state of {kind}/{key} cannot be loaded: {detail}"))
        };
        let own = self.0.store.load(table.kind, key).await;
        let own = own.map_err(|error| fails(error.to_string()))?;
        let newest = elsewhere.iter().map(|(_, found)| found).max_by_key(|found| found.at).cloned();
        let newest = match (own, newest) {
            (Some(own), Some(other)) if own.at >= other.at => own,
            (own, other) => match other.or(own) {
                Some(newest) => newest,
                None => return Ok(Found::Free(None)),
            },
        };
        if !elsewhere.is_empty() && !self.0.store.is_shared() {
            self.settle_states(&wanted, &newest, &elsewhere).await;
        }
        Ok(Found::Free(Some(newest)))
    }

    /// Stores what was found elsewhere, and lets it go there.
    async fn settle_states(
        &self,
        wanted: &Wanted<'_>,
        newest: &Snapshot,
        elsewhere: &[(NodeName, Snapshot)],
    ) {
        let Wanted { table, kind, key, .. } = *wanted;
        if let Err(error) = self.0.store.save(table.kind, key, newest.clone()).await {
            // The process has it all the same; what others have stays.
            return tracing::warn!(%kind, %key, %error, "what was handed over is not stored");
        }
        let (kind, key, at) = (kind.clone(), key.clone(), newest.at);
        for (node, _) in elsewhere {
            let (to, kind, key) = (system(*node), kind.clone(), key.clone());
            match (table.exclusive, self.fence_under(wanted)) {
                (false, _) => self.send(to, DropSnapshot { kind, key, at }),
                // One that does not know this keeps an older state, and it is found out to be so.
                (true, Some(fence)) => self.send(to, DropHeldSnapshot { kind, key, at, fence }),
                // It is not ours to say any more.
                (true, None) => {}
            }
        }
    }

    /// The nodes that may have something of a key.
    fn others(&self, table: &Table, key: &Key) -> Vec<NodeName> {
        let Some(remote) = self.0.remote.get() else { return Vec::new() };
        let bytes = ring_key(table.kind, key);
        match table.stateful && !self.0.store.is_shared() {
            true => remote.neighbours(&bytes),
            // That nobody else runs it any more is seen to by the view barrier.
            false if table.exclusive => Vec::new(),
            false => remote.earlier_owners(&bytes),
        }
    }

    /// Asks all of them at once, and waits until the one whose process has just ended has answered, or
    /// all have; `None` if this node turns out not to be the owner.
    async fn ask_all(
        &self,
        wanted: &Wanted<'_>,
        others: &[NodeName],
    ) -> Result<Option<Vec<(NodeName, Snapshot)>>, ExitReason> {
        let deadline = Instant::now() + wanted.table.handoff_timeout;
        let ask = |node: &NodeName| {
            let node = *node;
            async move { (node, self.ask_until(node, wanted, deadline).await) }
        };
        // Tasks would cost more than what is asked for.
        let mut asked: FuturesUnordered<_> = others.iter().map(ask).collect();
        let mut found = Vec::new();
        while let Some((node, answer)) = asked.next().await {
            match self.heard(wanted, node, answer, &mut found)? {
                Heard::More => {}
                Heard::Enough => break,
                Heard::NotOwner => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// Notes what one of those that were asked has found.
    fn heard(
        &self,
        wanted: &Wanted<'_>,
        node: NodeName,
        answer: Result<Released, CallError>,
        found: &mut Vec<(NodeName, Snapshot)>,
    ) -> Result<Heard, ExitReason> {
        let Wanted { kind, key, .. } = *wanted;
        match answer {
            Ok(Released::State(state)) => {
                found.push((node, state));
                return Ok(Heard::Enough);
            }
            Ok(Released::Stored(state)) => found.push((node, state)),
            Ok(Released::Nothing) => {}
            Ok(Released::Owner) => return Ok(Heard::NotOwner),
            Ok(Released::Stale { epoch }) => {
                let what = format!("{kind}/{key} has had an owner under view {epoch}");
                return Err(ExitReason::error(what));
            }
            Ok(Released::Failed { detail }) => {
                self.counters().keyed_not_restored.add();
                let what = format!("the state of {kind}/{key} on {node}: {detail}");
                return Err(ExitReason::error(what));
            }
            Err(error) => {
                // Others have not answered in time, or have given up themselves.
                let lost = matches!(error, CallError::NoConnection | CallError::NoProcess);
                match lost {
                    true => self.counters().keyed_not_released.add(),
                    false => self.counters().keyed_handoff_timeout.add(),
                }
                tracing::warn!(%kind, %key, %node, %error, "not released");
            }
        }
        Ok(Heard::More)
    }

    /// Asks one again and again while it takes itself for the owner, or says that there has been a later
    /// one; that is its answer when this node sees it so as well, or time is up.
    async fn ask_until(
        &self,
        node: NodeName,
        wanted: &Wanted<'_>,
        deadline: Instant,
    ) -> Result<Released, CallError> {
        loop {
            let fence = self.fence_under(wanted);
            if wanted.table.exclusive && fence.is_none() {
                return Ok(Released::Owner);
            }
            let answer = self.ask_release(node, wanted, fence, deadline).await;
            match answer {
                Ok(Released::Owner) => {
                    if self.key_owner(wanted.kind, wanted.key) != self.name() {
                        return answer;
                    }
                    if Instant::now() >= deadline {
                        return Err(CallError::Timeout);
                    }
                }
                Ok(Released::Stale { .. }) => {
                    self.refresh_holdings().await;
                    if Instant::now() >= deadline {
                        return answer;
                    }
                }
                answer => return answer,
            }
            tokio::time::sleep(STILL_OWNER).await;
        }
    }

    /// What this node asks under, if it is for an exclusive key and that is held here.
    fn fence_under(&self, wanted: &Wanted<'_>) -> Option<Fence> {
        let Wanted { table, key, serial: generation, .. } = *wanted;
        let held = table.exclusive.then(|| self.holding(&ring_key(table.kind, key)))?;
        let Holding::Yes { epoch, shard } = held else { return None };
        Some(Fence { epoch, shard, generation })
    }

    async fn ask_release(
        &self,
        node: NodeName,
        wanted: &Wanted<'_>,
        fence: Option<Fence>,
        deadline: Instant,
    ) -> Result<Released, CallError> {
        let (kind, key) = (wanted.kind.clone(), wanted.key.clone());
        if let Some(fence) = fence {
            let release = ReleaseHeldKey { kind: kind.clone(), key: key.clone(), fence };
            let answer = self.ask_one(node, release, deadline).await;
            if !matches!(answer, Err(CallError::NotUnderstood { .. })) {
                return answer;
            }
            // It is of a version without fences.
        }
        self.ask_one(node, ReleaseKey { kind, key }, deadline).await
    }

    async fn ask_one<M: Message<Reply = Released>>(
        &self,
        node: NodeName,
        release: M,
        deadline: Instant,
    ) -> Result<Released, CallError> {
        let payload = Payload::encode(Codec::Bincode, &release).expect("texts and numbers");
        let (to, name) = (system(node), MessageName::of::<M>());
        let left = deadline.saturating_duration_since(Instant::now());
        let reply = self.request_encoded(&to, name, payload, left).await?;
        reply.decode().map_err(|error| CallError::Decode { detail: error.to_string() })
    }

    pub(super) fn is_ours(&self, kind: &str, key: &Key) -> bool {
        Name::new(kind).is_ok_and(|kind| self.key_owner(&kind, key) == self.name())
    }

    /// Ends a process that has not begun, since this node does not own its key: what waits for it is
    /// sent on.
    pub(super) fn not_ours(&self, kind: &'static str, process: &Process, key: &Key) -> ExitReason {
        process.set_ignored();
        let mut waiting = process.evict();
        if let Ok(kind) = Name::new(kind) {
            while let Some(item) = waiting.pop(process) {
                match self.key_owner(&kind, key) {
                    owner if owner == self.name() => self.deliver_key(&kind, key, item),
                    // As if it had been sent on before: once must do.
                    owner => self.send_on(owner, &kind, key, item),
                }
            }
        }
        ExitReason::Shutdown
    }
}

/// A key that is asked for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    table: &'a Arc<Table>,
    kind: &'a Name,
    key: &'a Key,
    /// Of the process that is to begin.
    serial: u64,
}

/// What an answer comes to.
enum Heard {
    /// Others may know more.
    More,
    /// This was the process that had the key last.
    Enough,
    /// This node turns out not to be the owner.
    NotOwner,
}

enum HandedOver {
    /// There is no process.
    Gone,
    State(Snapshot),
    Busy,
}

pub(super) fn system(node: NodeName) -> Dest {
    Dest::Remote(admin::SYSTEM.parse().expect("a name"), node)
}
