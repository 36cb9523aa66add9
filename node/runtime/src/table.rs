//! The processes of a node by serial.
//!
//! Sharded, so that processes that start, end and send on many threads seldom meet at one lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustc_hash::FxHashMap;

use crate::process::Process;

/// A power of two.
const SHARDS: usize = 32;

/// Serials are made here, so nobody can choose them to collide.
type Shard = RwLock<FxHashMap<u64, Arc<Process>>>;

#[derive(Default)]
pub(crate) struct Table {
    shards: [Shard; SHARDS],
    len: AtomicUsize,
}

impl Table {
    fn shard(&self, serial: u64) -> &Shard {
        let index = usize::try_from(serial % SHARDS as u64).expect("less than SHARDS");
        &self.shards[index]
    }

    pub(crate) fn insert(&self, process: Arc<Process>) {
        let mut shard = self.shard(process.serial).write().unwrap_or_else(PoisonError::into_inner);
        shard.insert(process.serial, process);
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, serial: u64) {
        let mut shard = self.shard(serial).write().unwrap_or_else(PoisonError::into_inner);
        if shard.remove(&serial).is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn find(&self, serial: u64) -> Option<Arc<Process>> {
        let shard = self.shard(serial).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&serial).map(Arc::clone)
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Every process with a larger serial, by serial.
    pub(crate) fn after(&self, serial: u64) -> Vec<Arc<Process>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.values().filter(|p| p.serial > serial).map(Arc::clone));
        }
        all.sort_by_key(|process| process.serial);
        all
    }
}
