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
//!
//! [`Remote::earlier_owners`]: crate::Remote::earlier_owners
//! [`Remote::neighbours`]: crate::Remote::neighbours
//! [`Keyed::handoff_timeout`]: super::Keyed::handoff_timeout

use std::time::Duration;

use purlin_proto::admin::{self, DropSnapshot, ReleaseKey, Released};
use purlin_proto::{
    CallError, Codec, Dest, ExitReason, Key, MessageName, Name, NodeName, Payload, Snapshot,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::deliver::ring_key;
use super::table::Table;
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
        let Some(table) = self.0.keyed.get(kind.as_str()) else { return Some(Released::Nothing) };
        let released = async {
            loop {
                if self.key_owner(kind, key) == self.name() {
                    return Released::Owner;
                }
                match self.hand_over(table, key).await {
                    HandedOver::Gone => return self.at_rest(table, key).await,
                    HandedOver::State(state) => return Released::State(state),
                    HandedOver::Busy => tokio::time::sleep(BUSY).await,
                }
            }
        };
        tokio::time::timeout(table.handoff_timeout, released).await.ok()
    }

    async fn hand_over(&self, table: &Table, key: &Key) -> HandedOver {
        let Some((process, slot)) = table.entry(key) else { return HandedOver::Gone };
        if process.is_ending() {
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

    /// Waits until those that may have had a key before have let go of it, and finds its state.
    pub(super) async fn find_key(
        &self,
        kind: &'static str,
        key: &Key,
    ) -> Result<Found, ExitReason> {
        let (Some(table), Ok(kind)) = (self.0.keyed.get(kind), Name::new(kind)) else {
            return Ok(Found::Free(None));
        };
        if self.key_owner(&kind, key) != self.name() {
            return Ok(Found::NotOwner);
        }
        let others = self.others(table, key);
        let Some(elsewhere) = self.ask_all(table, &kind, key, &others).await? else {
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
            self.settle_states(table, &kind, key, &newest, &elsewhere).await;
        }
        Ok(Found::Free(Some(newest)))
    }

    /// Stores what was found elsewhere, and lets it go there.
    async fn settle_states(
        &self,
        table: &Table,
        kind: &Name,
        key: &Key,
        newest: &Snapshot,
        elsewhere: &[(NodeName, Snapshot)],
    ) {
        if let Err(error) = self.0.store.save(table.kind, key, newest.clone()).await {
            // The process has it all the same; what others have stays.
            return tracing::warn!(%kind, %key, %error, "what was handed over is not stored");
        }
        for (node, _) in elsewhere {
            let drop = DropSnapshot { kind: kind.clone(), key: key.clone(), at: newest.at };
            self.send(system(*node), drop);
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
        table: &Table,
        kind: &Name,
        key: &Key,
        others: &[NodeName],
    ) -> Result<Option<Vec<(NodeName, Snapshot)>>, ExitReason> {
        let deadline = Instant::now() + table.handoff_timeout;
        let mut asked = JoinSet::new();
        for node in others {
            let (runtime, node) = (self.clone(), *node);
            let release = ReleaseKey { kind: kind.clone(), key: key.clone() };
            let ask = async move { (node, runtime.ask_until(node, &release, deadline).await) };
            asked.spawn_on(ask, &self.0.executor);
        }
        let mut found = Vec::new();
        while let Some(Ok((node, answer))) = asked.join_next().await {
            match answer {
                Ok(Released::State(state)) => {
                    found.push((node, state));
                    break;
                }
                Ok(Released::Stored(state)) => found.push((node, state)),
                Ok(Released::Nothing) => {}
                Ok(Released::Owner) => return Ok(None),
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
        }
        Ok(Some(found))
    }

    /// Asks one again and again while it takes itself for the owner; that is its answer when this node
    /// sees it so as well.
    async fn ask_until(
        &self,
        node: NodeName,
        release: &ReleaseKey,
        deadline: Instant,
    ) -> Result<Released, CallError> {
        loop {
            let answer = self.ask_release(node, release, deadline).await;
            if answer != Ok(Released::Owner) {
                return answer;
            }
            if self.key_owner(&release.kind, &release.key) != self.name() {
                return answer;
            }
            if Instant::now() >= deadline {
                return Err(CallError::Timeout);
            }
            tokio::time::sleep(STILL_OWNER).await;
        }
    }

    fn ask_release(
        &self,
        node: NodeName,
        release: &ReleaseKey,
        deadline: Instant,
    ) -> impl Future<Output = Result<Released, CallError>> + use<> {
        let payload = Payload::encode(Codec::Bincode, release).expect("two texts");
        let (to, name) = (system(node), MessageName::of::<ReleaseKey>());
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = self.request_encoded(&to, name, payload, left);
        async move {
            let reply = asked.await?;
            reply.decode().map_err(|error| CallError::Decode { detail: error.to_string() })
        }
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
                    owner => self.forward(owner, &kind, key, true, item),
                }
            }
        }
        ExitReason::Shutdown
    }
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
