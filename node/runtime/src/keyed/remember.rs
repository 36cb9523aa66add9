//! Keys that are to be running once they have been used, whatever becomes of their nodes.
//!
//! Of a kind that is remembered ([`Keyed::remember`](super::Keyed::remember)) the node that runs a key
//! says so to all others, by an entry of its own ([`EntryKey::Key`]), and notes it in its own store. One
//! task compares, again and again, what should run with what runs:
//!
//! - a key of this node's entries that it owns, and that has no process, is started;
//! - one that another node owns by now is started there ([`TakeKey`]); when that node takes it, the
//!   entry here goes;
//! - entries of a node that is down are kept until another node has them: the new owner takes each.
//!
//! An entry goes for good when its process ends itself on purpose, with the reason `Normal`.
//!
//! # What if
//!
//! - *many have to be started*: a few at a time ([`AT_ONCE`]).
//! - *one crashes again and again*: it is started once a second at most.
//! - *two nodes go down at once*, the second before it has taken what the first had: whoever owns a key
//!   then has kept the entries of both.
//! - *the cluster splits*: each part starts what the other has; this is the available kind. When it
//!   heals, a key's process goes to its owner as after any change of members.
//! - *all nodes restart*: each reads its store, after it has found others or waited for [`ALONE`]. A
//!   store that all share is not asked.
//! - *a key ended itself while a node that had it before was down*: that one does not know, and has it
//!   started once more when it is back. Who has ended for good says so in its state.
//! - *a node has no room for more entries*: the key is not remembered, which is logged and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use purlin_proto::admin::TakeKey;
use purlin_proto::{EntryKey, ExitReason, Key, Name, NodeId, Snapshot};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::table::Table;
use crate::process::Process;
use crate::runtime::{Runtime, Shared, lock};

/// So many are started, or asked to be, before a pause.
const AT_ONCE: usize = 32;

/// The pause.
const PAUSE: Duration = Duration::from_millis(20);

/// It is compared so often at most.
const AGAIN: Duration = Duration::from_secs(1);

/// And so often at least.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a node that finds nobody waits until it takes itself for the only one.
const ALONE: Duration = Duration::from_secs(5);

/// So many are read or written before the answers are waited for.
const TOGETHER: usize = 256;

/// How long another node may take to start one.
const TAKE: Duration = Duration::from_secs(5);

/// What one kind has to keep running.
#[derive(Default)]
pub(crate) struct Remembered {
    own: Mutex<BTreeSet<Key>>,
    /// What is to be noted in the store, or forgotten there.
    unsaved: Mutex<BTreeMap<Key, bool>>,
    /// By the node that says so.
    others: Mutex<BTreeMap<NodeId, BTreeSet<Key>>>,
    /// Of nodes that are down, and of no other node yet.
    orphans: Mutex<BTreeSet<Key>>,
}

impl Remembered {
    fn is_elsewhere(&self, key: &Key) -> bool {
        lock(&self.others).values().any(|keys| keys.contains(key))
    }
}

fn store_kind(kind: &str) -> String {
    // No kind has this name: a name has no blank.
    format!("remembered {kind}")
}

impl Runtime {
    pub(crate) fn remembers(&self, kind: &Name, key: &Key) -> bool {
        let table = self.0.keyed.get(kind.as_str());
        let remembered = table.and_then(|table| table.remembered.as_ref());
        remembered.is_some_and(|remembered| lock(&remembered.own).contains(key))
    }

    /// A key is used here: it is to be running from now on.
    pub(super) fn remember(&self, table: &Table, key: &Key) {
        let (Some(remembered), Ok(kind)) = (&table.remembered, Name::new(table.kind)) else {
            return;
        };
        if lock(&remembered.own).contains(key) {
            return;
        }
        if let Err(error) = self.0.entries.news.reserve() {
            self.counters().keyed_not_remembered.add();
            return tracing::warn!(%kind, %key, %error, "not remembered");
        }
        if lock(&remembered.own).insert(key.clone()) {
            lock(&remembered.unsaved).insert(key.clone(), true);
            self.0.entries.news.note([EntryKey::Key(kind, key.clone())]);
            self.0.moves.remembered.notify_one();
        } else {
            self.0.entries.news.release(1);
        }
    }

    fn forget(&self, table: &Table, key: &Key) {
        let (Some(remembered), Ok(kind)) = (&table.remembered, Name::new(table.kind)) else {
            return;
        };
        if lock(&remembered.own).remove(key) {
            lock(&remembered.unsaved).insert(key.clone(), false);
            self.0.entries.news.release(1);
            self.0.entries.news.note([EntryKey::Key(kind, key.clone())]);
            self.0.moves.remembered.notify_one();
        }
    }

    /// The process of a key has ended.
    pub(super) fn ended(&self, table: &Table, key: &Key, process: &Process) {
        if table.remembered.is_none() {
            return;
        }
        match process.exit_reason() {
            Some(ExitReason::Normal) => self.forget(table, key),
            _ => self.0.moves.remembered.notify_one(),
        }
    }

    /// Another node runs a key, or does not any more.
    pub(crate) fn remembered_by(&self, of: NodeId, kind: &Name, key: Key, runs: bool) {
        let Some(table) = self.0.keyed.get(kind.as_str()) else { return };
        let Some(remembered) = &table.remembered else { return };
        let mut others = lock(&remembered.others);
        let keys = others.entry(of).or_default();
        if runs {
            keys.insert(key);
        } else {
            keys.remove(&key);
        }
    }

    /// A node is down: what it ran is nobody's.
    pub(crate) fn remembered_vanished(&self, of: NodeId) {
        for table in self.0.keyed.values() {
            let Some(remembered) = &table.remembered else { continue };
            let keys = lock(&remembered.others).remove(&of);
            lock(&remembered.orphans).extend(keys.unwrap_or_default());
        }
        self.0.moves.remembered.notify_one();
    }

    /// Starts what keeps remembered keys running.
    pub(crate) fn begin_remembering(&self) {
        if self.0.keyed.values().any(|table| table.remembered.is_some()) {
            let changed = Arc::clone(&self.0.moves.remembered);
            self.0.executor.spawn(keep_running(Arc::downgrade(&self.0), changed));
        }
    }

    /// Reads from the store what ran here before.
    async fn recall(&self, table: &Table) {
        let store = &self.0.store;
        if store.is_shared() || table.remembered.is_none() {
            return;
        }
        let (kind, mut after) = (store_kind(table.kind), None);
        loop {
            let keys = match store.keys(&kind, after.as_ref()).await {
                Ok(keys) => keys,
                Err(error) => {
                    return tracing::error!(kind = table.kind, %error, "what ran is not known");
                }
            };
            for key in &keys {
                self.remember(table, key);
            }
            match keys.last() {
                Some(last) => after = Some(last.clone()),
                None => return,
            }
        }
    }

    /// Notes in the store what is to be running.
    async fn note_remembered(&self, table: &Table, remembered: &Remembered) {
        if self.0.store.is_shared() {
            return lock(&remembered.unsaved).clear();
        }
        let unsaved = std::mem::take(&mut *lock(&remembered.unsaved));
        let kind = store_kind(table.kind);
        let mut saving = JoinSet::new();
        for (key, runs) in unsaved {
            let (store, kind, at) = (Arc::clone(&self.0.store), kind.clone(), self.wall_ms());
            let save = async move {
                let noted = match runs {
                    true => {
                        let note = Snapshot { at, version: 0, state: bytes::Bytes::new() };
                        store.save(&kind, &key, note).await.map(drop)
                    }
                    false => store.delete(&kind, &key, u64::MAX).await,
                };
                if let Err(error) = noted {
                    tracing::warn!(kind, %key, %error, "not noted whether it is to be running");
                }
            };
            saving.spawn_on(save, &self.0.executor);
            if saving.len() >= TOGETHER {
                while saving.join_next().await.is_some() {}
            }
        }
        while saving.join_next().await.is_some() {}
    }

    /// Compares once what should run with what runs.
    async fn run_remembered(&self, table: &Arc<Table>) {
        let (Some(remembered), Ok(kind)) = (&table.remembered, Name::new(table.kind)) else {
            return;
        };
        let orphans: Vec<_> = lock(&remembered.orphans).iter().cloned().collect();
        for key in orphans {
            let ours = self.key_owner(&kind, &key) == self.name();
            if ours {
                self.remember(table, &key);
            }
            if ours || remembered.is_elsewhere(&key) {
                lock(&remembered.orphans).remove(&key);
            }
        }
        self.note_remembered(table, remembered).await;
        let own: Vec<_> = lock(&remembered.own).iter().cloned().collect();
        let mut at_once = 0;
        for key in own {
            if table.entry(&key).is_some() {
                continue;
            }
            let owner = self.key_owner(&kind, &key);
            if owner == self.name() {
                if let Err(error) = self.activate(&kind, &key) {
                    tracing::warn!(%kind, %key, %error, "a remembered key is not started");
                }
            } else {
                let take = TakeKey { kind: kind.clone(), key: key.clone() };
                let taken = self.call_timeout(super::release::system(owner), take, TAKE).await;
                if taken == Ok(true) {
                    self.forget(table, &key);
                }
            }
            at_once += 1;
            if at_once >= AT_ONCE {
                at_once = 0;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn keep_running(runtime: Weak<Shared>, changed: Arc<Notify>) {
    // So that a node that has just begun does not take all keys for its own.
    drop(tokio::time::timeout(ALONE, changed.notified()).await);
    if let Some(runtime) = runtime.upgrade().map(Runtime) {
        for table in runtime.0.keyed.values() {
            runtime.recall(table).await;
        }
    }
    loop {
        {
            let Some(runtime) = runtime.upgrade().map(Runtime) else { return };
            for table in runtime.0.keyed.values() {
                runtime.run_remembered(table).await;
            }
        }
        tokio::time::sleep(AGAIN).await;
        drop(tokio::time::timeout(LOOK_EVERY, changed.notified()).await);
    }
}
