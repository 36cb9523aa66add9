//! Keys that have another owner now: their processes here end, and what is known of them goes along.
//!
//! A process without state ends when it is idle ([`Process::retire`]), so nothing that has reached it
//! is lost; the new owner's begins with the next message. Of a kind with state the new owner is told
//! to start the process ([`TakeKey`]); that one asks this node to let go of the key (`release.rs`), and
//! gets the state. What comes for the key here meanwhile is sent on, and waits there. Then what is only
//! stored here goes the same way, without a process ([`KeepSnapshot`]).
//!
//! Of an exclusive kind the process has ended before anybody else may begin one (`exclusive.rs`). Where
//! it had a state the new owner is told to start the next, and finds the state stored here.
//!
//! At most [`KEYS_IN_MOTION`] are handed over at once, so that many that move do not all wait for one
//! disk, and their callers with them.
//!
//! # What if
//!
//! - *the new owner does not see it so*: it is asked again until it does, or the key is here again.
//! - *the new owner cannot be reached, or nothing comes of it in time*: after
//!   [`Keyed::handoff_timeout`] the process ends all the same and its state is stored here, where the
//!   new owner looks for it; counted (`keyed.handoff_timeout`).
//! - *owners change while keys move*: who owns a key is looked up for each, when its turn comes.
//!
//! [`Process::retire`]: crate::process::Process::retire
//! [`Keyed::handoff_timeout`]: super::Keyed::handoff_timeout

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use purlin_proto::admin::{DropHeldSnapshot, KeepSnapshot, TakeKey};
use purlin_proto::{CallError, Key, Message, Name, NodeName};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::release::system;
use super::table::Table;
use crate::process::Process;
use crate::runtime::{Runtime, Shared, lock};

/// How many keys a node hands over at once.
pub const KEYS_IN_MOTION: usize = 32;

/// So many processes without state are ended before a pause.
const AT_ONCE: usize = 64;

/// The pause.
const PAUSE: Duration = Duration::from_millis(1);

/// How long those that are busy are left alone, and nodes that see it otherwise.
const BUSY: Duration = Duration::from_millis(50);

/// The moves of one node.
pub(crate) struct Moves {
    changed: Arc<Notify>,
    /// Wakes what keeps remembered keys running.
    pub(super) remembered: Arc<Notify>,
    in_motion: Arc<Semaphore>,
    /// Keys with state whose exclusive processes have ended here since others own them.
    to_start: Mutex<Vec<(&'static str, Key)>>,
    /// How often owners have changed, and after which change all was where it belongs.
    changes: AtomicU64,
    settled: AtomicU64,
    /// Keys that were still to be moved when it was last looked.
    left: AtomicUsize,
    /// Whether this node tells others that it is about to leave.
    announced: AtomicBool,
    /// Whether it owns no keys any more.
    draining: AtomicBool,
}

impl Moves {
    pub(crate) fn new(in_motion: usize) -> Self {
        let in_motion = Arc::new(Semaphore::new(in_motion.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            changed: Arc::default(),
            remembered: Arc::default(),
            in_motion,
            to_start: Mutex::default(),
            changes: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            announced: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }
}

impl Runtime {
    /// Members have come or gone, so keys may have other owners. To be called by the owner of the
    /// runtime when [`Remote::key_owner`](crate::Remote::key_owner) answers anew; returns at once.
    pub fn owners_changed(&self) {
        self.forget_switches();
        if !self.0.keyed.is_empty() {
            self.0.moves.changes.fetch_add(1, Ordering::AcqRel);
            self.0.moves.changed.notify_one();
            self.0.moves.remembered.notify_one();
        }
    }

    /// How many keys this node has still to hand over after a change of owners, as far as it has
    /// looked; 0 when all are where they belong.
    pub fn keys_to_move(&self) -> usize {
        let moves = &self.0.moves;
        let settled = moves.settled.load(Ordering::Acquire);
        match settled == moves.changes.load(Ordering::Acquire) {
            true => 0,
            false => moves.left.load(Ordering::Acquire).max(1),
        }
    }

    /// How many messages for keys this node has sent on to their owners.
    pub fn keys_sent_on(&self) -> u64 {
        self.counters().keyed_forwarded.value()
    }

    /// Says that this node is about to leave, and owns no keys any more: what comes for a key is sent
    /// on to the owner, also if it has been sent on before.
    pub fn set_draining(&self, draining: bool) {
        self.0.moves.draining.store(draining, Ordering::Release);
    }

    pub(crate) fn say_draining(&self, draining: bool) {
        self.0.moves.announced.store(draining, Ordering::Release);
    }

    pub(crate) fn says_draining(&self) -> bool {
        self.0.moves.announced.load(Ordering::Acquire)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.moves.draining.load(Ordering::Acquire)
    }

    /// Starts what ends the processes of keys that have moved.
    pub(crate) fn begin_moving(&self) {
        if !self.0.keyed.is_empty() {
            let changed = Arc::clone(&self.0.moves.changed);
            self.0.executor.spawn(move_keys(Arc::downgrade(&self.0), changed));
        }
    }

    /// Has a key that this node does not own any more started at its owner: what [`TakeKey`] asks.
    pub fn take_key(&self, kind: &Name, key: &Key) -> bool {
        let ours = self.key_owner(kind, key) == self.name();
        // If it cannot be started, the old owner ends its process in time all the same.
        ours && self.activate(kind, key).is_ok()
    }

    /// Keeps the state of a key for the node that had it, unless this one has a newer: what
    /// [`KeepSnapshot`] asks.
    pub async fn keep_snapshot(&self, ask: KeepSnapshot) -> Result<bool, String> {
        let KeepSnapshot { kind, key, snapshot } = ask;
        if self.key_owner(&kind, &key) != self.name() {
            return Ok(false);
        }
        let saved = self.0.store.save(kind.as_str(), &key, snapshot).await;
        saved.map(|_| true).map_err(|error| error.to_string())
    }

    /// Forgets what is stored of a key up to then, since it is safe elsewhere.
    pub async fn drop_snapshot(&self, kind: &Name, key: &Key, at: u64) {
        let dropped = self.0.store.delete(kind.as_str(), key, at).await;
        if let Err(error) = dropped {
            // It is the older one, and found out to be so.
            tracing::warn!(%kind, %key, %error, "a state that has moved is not forgotten");
        }
    }

    /// As [`drop_snapshot`](Self::drop_snapshot), for a node that holds the key: what
    /// [`DropHeldSnapshot`] asks. `false` if there has been a later owner.
    pub async fn drop_held_snapshot(&self, ask: &DropHeldSnapshot) -> bool {
        let heeded = self.heed_owner(ask.fence, DropHeldSnapshot::NAME).is_ok();
        if heeded {
            self.drop_snapshot(&ask.kind, &ask.key, ask.at).await;
        }
        heeded
    }

    /// An exclusive process has been ended because this node does not hold its key: if it had a state
    /// it is started where the key belongs now.
    pub(crate) fn start_elsewhere(&self, process: &Process, ring_key: &[u8]) {
        let kind = process.class.kind;
        let key = ring_key.strip_prefix(kind.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
        let key = key.and_then(|key| Key::new(std::str::from_utf8(key).ok()?).ok());
        let (Some(table), Some(key)) = (self.0.keyed.get(kind), key) else { return };
        let is_its = |(other, _): (Arc<Process>, _)| other.serial == process.serial;
        if table.stateful && table.entry(&key).is_some_and(is_its) {
            lock(&self.0.moves.to_start).push((table.kind, key));
            self.owners_changed();
        }
    }

    /// Has those started that have ended here; how many are left.
    async fn start_all_elsewhere(&self, table: &Table) -> usize {
        let Ok(kind) = Name::new(table.kind) else { return 0 };
        let ended: Vec<_> =
            lock(&self.0.moves.to_start).extract_if(.., |(of, _)| *of == table.kind).collect();
        let mut starting = JoinSet::new();
        for (of, key) in ended {
            let owner = self.key_owner(&kind, &key);
            if owner == self.name() {
                continue;
            }
            let in_motion = Arc::clone(&self.0.moves.in_motion).acquire_owned().await;
            let (runtime, limit) = (self.clone(), table.handoff_timeout);
            let take = TakeKey { kind: kind.clone(), key: key.clone() };
            let ask = async move {
                let _in_motion = in_motion;
                // One that does not answer finds the key when somebody uses it.
                let later = runtime.ask(owner, take, limit).await == Ok(false);
                later.then_some((of, key))
            };
            starting.spawn_on(ask, &self.0.executor);
        }
        let again: Vec<_> = starting.join_all().await.into_iter().flatten().collect();
        let left = again.len();
        lock(&self.0.moves.to_start).extend(again);
        left
    }

    async fn ask<M: Message>(
        &self,
        node: NodeName,
        message: M,
        limit: Duration,
    ) -> Result<M::Reply, CallError> {
        self.call_timeout(system(node), message, limit).await
    }

    /// Ends those without state that are idle; how many are left.
    async fn end_moved(&self, table: &Table) -> usize {
        let (mut left, mut at_once) = (0, 0);
        for part in 0..Table::parts() {
            for (_, process) in table.not_owned(self, part) {
                if process.retire() {
                    self.counters().keyed_moved.add();
                    at_once += 1;
                } else {
                    left += 1;
                }
                if at_once >= AT_ONCE {
                    at_once = 0;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        left
    }

    /// Hands over those with state; how many are left.
    async fn hand_over_all(&self, table: &Arc<Table>) -> usize {
        let mut moving = JoinSet::new();
        let mut left = 0;
        for part in 0..Table::parts() {
            for (key, process) in table.not_owned(self, part) {
                let in_motion = Arc::clone(&self.0.moves.in_motion).acquire_owned().await;
                let (runtime, table) = (self.clone(), Arc::clone(table));
                moving.spawn_on(
                    async move {
                        let _in_motion = in_motion;
                        runtime.hand_over_one(&table, &key, &process).await
                    },
                    &self.0.executor,
                );
                while let Some(moved) = moving.try_join_next() {
                    left += usize::from(!moved.unwrap_or(false));
                }
            }
        }
        while let Some(moved) = moving.join_next().await {
            left += usize::from(!moved.unwrap_or(false));
        }
        left
    }

    /// Whether the process has ended.
    async fn hand_over_one(&self, table: &Table, key: &Key, process: &Process) -> bool {
        let Ok(kind) = Name::new(table.kind) else { return true };
        let owner = self.key_owner(&kind, key);
        if owner == self.name() || process.is_ending() {
            return true;
        }
        let limit = table.handoff_timeout;
        let handed_over = async {
            let take = TakeKey { kind, key: key.clone() };
            if let Ok(false) = self.ask(owner, take, limit).await {
                return false;
            }
            self.down(process.pid()).await;
            true
        };
        match tokio::time::timeout(limit, handed_over).await {
            Ok(handed_over) => handed_over,
            Err(_) => {
                self.counters().keyed_handoff_timeout.add();
                tracing::warn!(kind = table.kind, %key, node = %owner, "not handed over in time");
                process.retire()
            }
        }
    }

    /// Sends on what is stored here of keys that others own; how many are left.
    async fn send_stored(&self, table: &Arc<Table>) -> usize {
        let store = &self.0.store;
        let Some(kind) = Name::new(table.kind).ok().filter(|_| !store.is_shared()) else {
            return 0;
        };
        let (mut left, mut after) = (0, None);
        let mut moving = JoinSet::new();
        loop {
            let keys = match store.keys(table.kind, after.as_ref()).await {
                Ok(keys) => keys,
                Err(error) => {
                    tracing::warn!(%kind, %error, "what is stored cannot be moved");
                    return left + 1;
                }
            };
            let Some(last) = keys.last().cloned() else { break };
            after = Some(last);
            for key in keys {
                let owner = self.key_owner(&kind, &key);
                if owner == self.name() || table.find(&key).is_some() {
                    continue;
                }
                let in_motion = Arc::clone(&self.0.moves.in_motion).acquire_owned().await;
                let (runtime, kind, limit) = (self.clone(), kind.clone(), table.handoff_timeout);
                moving.spawn_on(
                    async move {
                        let _in_motion = in_motion;
                        runtime.send_one_stored(owner, kind, key, limit).await
                    },
                    &self.0.executor,
                );
                while let Some(sent) = moving.try_join_next() {
                    left += usize::from(!sent.unwrap_or(false));
                }
            }
        }
        while let Some(sent) = moving.join_next().await {
            left += usize::from(!sent.unwrap_or(false));
        }
        left
    }

    async fn send_one_stored(
        &self,
        owner: NodeName,
        kind: Name,
        key: Key,
        limit: Duration,
    ) -> bool {
        let snapshot = match self.0.store.load(kind.as_str(), &key).await {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) => return true,
            Err(error) => {
                tracing::warn!(%kind, %key, %error, "what is stored cannot be moved");
                return false;
            }
        };
        let at = snapshot.at;
        let keep = KeepSnapshot { kind: kind.clone(), key: key.clone(), snapshot };
        match self.ask(owner, keep, limit).await {
            Ok(Ok(true)) => {
                self.drop_snapshot(&kind, &key, at).await;
                true
            }
            Ok(Ok(false)) | Err(_) => false,
            Ok(Err(error)) => {
                tracing::warn!(%kind, %key, node = %owner, error, "what is stored is not taken");
                false
            }
        }
    }
}

async fn move_keys(runtime: Weak<Shared>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        loop {
            let Some(runtime) = runtime.upgrade().map(Runtime) else { return };
            let mut left = 0;
            let change = runtime.0.moves.changes.load(Ordering::Acquire);
            for table in runtime.0.keyed.values() {
                left += match table.stateful {
                    false => runtime.end_moved(table).await,
                    true => {
                        let running = runtime.hand_over_all(table).await;
                        let ended = runtime.start_all_elsewhere(table).await;
                        running + ended + runtime.send_stored(table).await
                    }
                };
            }
            runtime.0.moves.left.store(left, Ordering::Release);
            if left == 0 {
                runtime.0.moves.settled.store(change, Ordering::Release);
                break;
            }
            drop(runtime);
            tokio::time::sleep(BUSY).await;
        }
    }
}
