//! The processes of one keyed kind on this node, by key.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use purlin_proto::{Key, Name, SpawnError};
use rustc_hash::{FxBuildHasher, FxHashMap};
use tokio::time::Instant;

use super::{Declared, Launch};
use crate::process::Process;
use crate::registry::Cleanup;
use crate::runtime::{Runtime, lock};

/// Locks of a table, and the parts in which it is looked through.
const SHARDS: usize = 16;

pub(crate) struct Table {
    kind: &'static str,
    pub(super) passivate_after: Option<Duration>,
    pub(super) exclusive: bool,
    launch: Launch,
    shards: [Mutex<FxHashMap<Key, Entry>>; SHARDS],
}

struct Entry {
    process: Arc<Process>,
    slot: Arc<Slot>,
    /// How many messages it had handled when it was last looked at, and since when it is so.
    handled: u64,
    since: Instant,
}

/// What the processes that a key has one after the other share.
pub(crate) struct Slot {
    table: Weak<Table>,
    pub(super) key: Key,
    pub(super) exclusive: bool,
    /// Held by the one that runs: the next one waits for its end.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

impl Table {
    pub(super) fn new(kind: &'static str, declared: Declared) -> Arc<Self> {
        let Declared { keyed, launch } = declared;
        let (passivate_after, exclusive) = (keyed.passivate_after, keyed.exclusive);
        Arc::new(Self { kind, passivate_after, exclusive, launch, shards: Default::default() })
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, FxHashMap<Key, Entry>> {
        let hash = FxBuildHasher.hash_one(key);
        // The map takes the low and the highest bits.
        let index = usize::try_from((hash >> 32) % SHARDS as u64).expect("less than SHARDS");
        lock(&self.shards[index])
    }

    /// How many keys have a process, be it one that is ending.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// The process of a key; started if there is none, or it is ending.
    pub(super) fn activate(
        self: &Arc<Self>,
        runtime: &Runtime,
        key: &Key,
    ) -> Result<Arc<Process>, SpawnError> {
        let mut shard = self.shard(key);
        let slot = match shard.get(key) {
            Some(entry) if !entry.process.is_ending() => return Ok(Arc::clone(&entry.process)),
            Some(entry) => Arc::clone(&entry.slot),
            None => {
                let table = Arc::downgrade(self);
                let (key, exclusive) = (key.clone(), self.exclusive);
                Arc::new(Slot { table, key, exclusive, turn: Arc::default() })
            }
        };
        let process = (self.launch)(runtime, &slot)?;
        let weak = Arc::downgrade(&slot);
        // Unless it has ended already.
        let before = if process.clean_up_with(weak) {
            let (handled, since) = (process.handled(), Instant::now());
            let entry = Entry { process: Arc::clone(&process), slot, handled, since };
            shard.insert(key.clone(), entry)
        } else {
            None
        };
        drop(shard);
        drop(before);
        runtime.counters().keyed_started.add();
        tracing::debug!(kind = self.kind, %key, pid = %process.pid(), "keyed process");
        Ok(process)
    }

    /// The process of a key, if it has one that is not ending.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Process>> {
        self.entry(key).filter(|process| !process.is_ending())
    }

    /// The last process of a key, also if it is ending.
    pub(super) fn entry(&self, key: &Key) -> Option<Arc<Process>> {
        self.shard(key).get(key).map(|entry| Arc::clone(&entry.process))
    }

    /// Those of one part of the table that have handled nothing for so long.
    pub(super) fn idle(&self, part: usize, after: Duration) -> Vec<Arc<Process>> {
        let now = Instant::now();
        let mut shard = lock(&self.shards[part % SHARDS]);
        let idle = shard.values_mut().filter_map(|entry| {
            let handled = entry.process.handled();
            if entry.handled != handled {
                (entry.handled, entry.since) = (handled, now);
            }
            (now - entry.since >= after).then(|| Arc::clone(&entry.process))
        });
        idle.collect()
    }

    /// Those of one part of the table whose keys have another owner now, and that are not ending.
    /// Exclusive ones are ended elsewhere ([`Runtime::settle`]).
    pub(super) fn not_owned(&self, runtime: &Runtime, part: usize) -> Vec<Arc<Process>> {
        if self.exclusive {
            return Vec::new();
        }
        let Ok(kind) = Name::new(self.kind) else { return Vec::new() };
        let moved = |(key, process): (Key, Arc<Process>)| {
            let here = runtime.key_owner(&kind, &key) == runtime.name() || process.is_ending();
            (!here).then_some(process)
        };
        self.part(part).into_iter().filter_map(moved).collect()
    }

    /// One part of the table.
    pub(super) fn part(&self, part: usize) -> Vec<(Key, Arc<Process>)> {
        let shard = lock(&self.shards[part % SHARDS]);
        shard.iter().map(|(key, entry)| (key.clone(), Arc::clone(&entry.process))).collect()
    }

    /// How many parts there are.
    pub(super) const fn parts() -> usize {
        SHARDS
    }
}

impl Cleanup for Slot {
    fn ended(&self, serial: u64) {
        let Some(table) = self.table.upgrade() else { return };
        let mut shard = table.shard(&self.key);
        let present = shard.get(&self.key).is_some_and(|entry| entry.process.serial == serial);
        let entry = present.then(|| shard.remove(&self.key));
        drop(shard);
        drop(entry);
    }
}
