//! Keys that have another owner now: their processes here end.
//!
//! Each ends when it is idle ([`Process::retire`]), so nothing that has reached it is lost; what comes
//! for its key meanwhile is sent on to the new owner, whose process waits for this one's end
//! (`release.rs`). What it knew and has not saved is gone with it.
//!
//! Few are ended at a time, lest many that save their state in [`Actor::stop`] do so at once.
//!
//! [`Process::retire`]: crate::process::Process::retire
//! [`Actor::stop`]: crate::actor::Actor::stop

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::table::Table;
use crate::runtime::{Runtime, Shared};

/// So many processes are ended before a pause.
const AT_ONCE: usize = 64;

/// The pause.
const PAUSE: Duration = Duration::from_millis(1);

/// How long those that are busy are left alone.
const BUSY: Duration = Duration::from_millis(50);

impl Runtime {
    /// Members have come or gone, so keys may have other owners. To be called by the owner of the
    /// runtime when [`Remote::key_owner`](crate::Remote::key_owner) answers anew; returns at once.
    pub fn owners_changed(&self) {
        self.0.owners_changed.notify_one();
    }

    /// Starts what ends the processes of keys that have moved.
    pub(crate) fn begin_moving(&self) {
        if !self.0.keyed.is_empty() {
            let changed = Arc::clone(&self.0.owners_changed);
            self.0.executor.spawn(end_moved(Arc::downgrade(&self.0), changed));
        }
    }

    /// Ends some of one part of a table, those that are idle; how many are left, and how many it has
    /// ended.
    fn end_part(&self, table: &Table, part: usize) -> (usize, usize) {
        let moved = table.not_owned(self, part);
        let ended = moved.iter().filter(|process| process.retire()).take(AT_ONCE).count();
        self.counters().keyed_moved.add_many(ended as u64);
        (moved.len() - ended, ended)
    }
}

async fn end_moved(runtime: Weak<Shared>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        loop {
            let (mut busy, mut at_once) = (0, 0);
            let Some(tables) = runtime.upgrade().map(|shared| shared.keyed.clone()) else { return };
            for (table, part) in
                tables.values().flat_map(|t| (0..Table::parts()).map(move |p| (t, p)))
            {
                let Some(shared) = runtime.upgrade() else { return };
                let (left, ended) = Runtime(shared).end_part(table, part);
                busy += left;
                at_once += ended;
                if at_once >= AT_ONCE {
                    at_once = 0;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if busy == 0 {
                break;
            }
            tokio::time::sleep(BUSY).await;
        }
    }
}
