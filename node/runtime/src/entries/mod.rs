//! What all nodes know of processes of all nodes: groups, topics, global names, children of cluster
//! supervisors.
//!
//! Each is a table of its own ([`groups`], [`topics`], [`globals`], [`exclusive_names`],
//! [`children`]) with what this node's processes
//! have said, true at once, and what other nodes have said of theirs, true when it arrives. How it
//! travels is the owner's affair: it asks for what has changed here ([`Runtime::take_entries`]) and
//! hands in what has changed elsewhere ([`Runtime::entries_changed`], [`Runtime::entries_vanished`]).
//!
//! # Border
//!
//! What has changed here is kept as a set of keys, and the values are read when the owner asks: a key
//! that changes a thousand times in between is one entry, and the set is never larger than the tables.
//! A key is put into the set after its table has changed, so whoever takes it out sees that change or
//! a later one.
//!
//! # Locks
//!
//! Each table has one, a leaf but for this: while a process is put into a table, the process's own
//! lock is taken within, to have its end take it out again. As for a registry (`registry.rs`), the
//! end runs before anybody is told of it; so whoever gets a `Down` finds the process in no table of
//! this node.
//!
//! # What if
//!
//! - *the process ends, or its node goes down*: its entries go, here at once, and all that there is
//!   of a node in one step.
//! - *this node comes back under a new creation*: the tables hold serials of its own processes, so
//!   all stay where they are, under new pids for others.
//! - *a message is picked for a process that has ended meanwhile*: it is dropped and counted, or its
//!   caller told, as for any pid.

pub(crate) mod children;
pub(crate) mod context;
pub(crate) mod exclusive_names;
pub(crate) mod forward;
pub(crate) mod globals;
pub(crate) mod groups;
mod info;
pub(crate) mod members;
pub(crate) mod monitors;
pub(crate) mod send;
pub(crate) mod topics;
pub(crate) mod ways;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use purlin_proto::limits::OWNED_ENTRIES;
use purlin_proto::{EntryKey, EntryValue, NodeId};
use tokio::sync::Notify;

use crate::runtime::{Runtime, lock};
use children::ChildTable;
use exclusive_names::ExclusiveNames;
use globals::{Globals, Resolver};
use groups::Groups;
use topics::Topics;
use ways::Ways;

/// Why a process was not put into a group or among the subscribers of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// It is dead, or runs on another node.
    #[error("no such process on this node")]
    NoProcess,
    /// This node says as much of its processes as it may.
    #[error(
        "the node has {OWNED_ENTRIES} entries of groups, topics, global names and children already"
    )]
    Full,
}

/// The tables of one node.
pub(crate) struct Entries {
    pub(crate) groups: Arc<Groups>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) globals: Arc<Globals>,
    pub(crate) exclusive_names: Arc<ExclusiveNames>,
    pub(crate) children: ChildTable,
    pub(crate) ways: Ways,
    pub(crate) news: Arc<News>,
    chance: AtomicU64,
}

impl Entries {
    pub(crate) fn new(id: NodeId, resolver: Resolver, left: Arc<Notify>) -> Self {
        let news = Arc::new(News::default());
        Self {
            groups: Arc::new(Groups::new(Arc::clone(&news))),
            topics: Arc::new(Topics::new(Arc::clone(&news))),
            globals: Arc::new(Globals::new(Arc::clone(&news), resolver)),
            exclusive_names: Arc::new(ExclusiveNames::new(Arc::clone(&news), left)),
            children: ChildTable::new(Arc::clone(&news)),
            ways: Ways::default(),
            news,
            chance: AtomicU64::new(id.creation),
        }
    }

    /// How many entries this node has about its own processes.
    pub(crate) fn own(&self) -> usize {
        self.news.entries.load(Ordering::Relaxed)
    }

    /// A number by chance, good enough to spread messages (splitmix64).
    pub(crate) fn chance(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        mix(self.chance.fetch_add(STEP, Ordering::Relaxed))
    }
}

pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// An index below `len`, which is not 0.
pub(crate) fn below(number: u64, len: usize) -> usize {
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    usize::try_from(number % len).expect("less than a length")
}

/// What has changed of this node's own entries.
#[derive(Default)]
pub(crate) struct News {
    keys: Mutex<BTreeSet<EntryKey>>,
    /// How many there are in all tables.
    entries: AtomicUsize,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("News").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl News {
    /// Takes room for an entry.
    pub(crate) fn reserve(&self) -> Result<(), EntryError> {
        let room = |entries| (entries < OWNED_ENTRIES).then_some(entries + 1);
        let reserved = self.entries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        reserved.map(drop).map_err(|_| EntryError::Full)
    }

    pub(crate) fn release(&self, entries: usize) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
    }

    /// Notes keys whose entries have changed; under no lock.
    pub(crate) fn note(&self, keys: impl IntoIterator<Item = EntryKey>) {
        let mut set = lock(&self.keys);
        let before = set.len();
        set.extend(keys);
        let first = before == 0 && !set.is_empty();
        drop(set);
        if let Some(wake) = self.wake.get().filter(|_| first) {
            wake();
        }
    }
}

impl Runtime {
    /// Has this called when this node's entries have changed; only the first time counts. Not again
    /// until they have been taken. It is called by whoever changes them, so it must not block.
    pub fn on_entries(&self, wake: impl Fn() + Send + Sync + 'static) {
        let news = &self.0.entries.news;
        // A second one would hear of half of what happens.
        drop(news.wake.set(Box::new(wake)));
        if let Some(wake) = news.wake.get().filter(|_| !lock(&news.keys).is_empty()) {
            wake();
        }
    }

    /// Tells the other nodes that this one is about to leave, or takes it back.
    pub fn announce_draining(&self, draining: bool) {
        self.say_draining(draining);
        self.0.entries.news.note([EntryKey::Node]);
    }

    /// Takes the entries of this node that have changed since this was last called, each as it is
    /// now; `None` if it is gone.
    pub fn take_entries(&self) -> Vec<(EntryKey, Option<EntryValue>)> {
        let keys = std::mem::take(&mut *lock(&self.0.entries.news.keys));
        keys.into_iter()
            .map(|key| {
                let value = self.own_entry(&key);
                (key, value)
            })
            .collect()
    }

    fn own_entry(&self, key: &EntryKey) -> Option<EntryValue> {
        let entries = &self.0.entries;
        match key {
            EntryKey::Member(group, serial) => {
                entries.groups.joined(group, *serial).map(EntryValue::Joined)
            }
            EntryKey::Topic(name) => entries.topics.is_wanted(name).then_some(EntryValue::Wanted),
            EntryKey::Global(name) => entries.globals.held(name).map(EntryValue::Held),
            EntryKey::Exclusive(name) => entries.exclusive_names.given(name).map(EntryValue::Given),
            EntryKey::Child(child) => {
                entries.children.told(child).map(|record| EntryValue::Child(Box::new(record)))
            }
            EntryKey::ChildRun(child) => entries.children.own_run(child).map(EntryValue::ChildRun),
            EntryKey::Key(kind, key) => self.remembers(kind, key).then_some(EntryValue::Remembered),
            EntryKey::Node => self.says_draining().then_some(EntryValue::Draining),
        }
    }

    /// Entries of another node have changed. What its values do not fit is ignored.
    pub fn entries_changed(&self, of: NodeId, changes: Vec<(EntryKey, Option<EntryValue>)>) {
        let mut members = Vec::new();
        for (key, value) in changes {
            match (key, value) {
                (EntryKey::Member(group, serial), Some(EntryValue::Joined(count))) => {
                    members.push((group, serial, count));
                }
                (EntryKey::Member(group, serial), None) => members.push((group, serial, 0)),
                (EntryKey::Topic(name), value) => {
                    self.0.entries.topics.wanted_by(of, name, value.is_some());
                }
                (EntryKey::Global(name), Some(EntryValue::Held(held))) => {
                    self.global_held(of, &name, Some(held));
                }
                (EntryKey::Global(name), None) => self.global_held(of, &name, None),
                (EntryKey::Exclusive(name), Some(EntryValue::Given(given))) => {
                    self.exclusive_said(of, &name, Some(given));
                }
                (EntryKey::Exclusive(name), None) => self.exclusive_said(of, &name, None),
                (EntryKey::Child(child), Some(EntryValue::Child(record))) => {
                    self.children().record_told(of, &child, Some(*record));
                }
                (EntryKey::Child(child), None) => self.children().record_told(of, &child, None),
                (EntryKey::ChildRun(child), Some(EntryValue::ChildRun(run))) => {
                    self.children().run_told(of, &child, Some(run));
                }
                (EntryKey::ChildRun(child), None) => self.children().run_told(of, &child, None),
                (EntryKey::Key(kind, key), value) => {
                    self.remembered_by(of, &kind, key, value.is_some());
                }
                // Its owner's affair, as all that has to do with members.
                (EntryKey::Node, _) => {}
                (key, value) => tracing::debug!(%of, ?key, ?value, "an entry that makes no sense"),
            }
        }
        self.0.entries.groups.changed(of, members);
    }

    /// A node is down: everything that it has said is gone.
    pub fn entries_vanished(&self, of: NodeId) {
        self.0.entries.groups.vanished(of);
        self.0.entries.topics.vanished(of);
        self.globals_vanished(of);
        self.exclusive_vanished(of);
        self.children().vanished(of);
        self.remembered_vanished(of);
    }
}
