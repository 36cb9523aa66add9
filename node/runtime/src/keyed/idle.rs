//! Passivation: idle processes end, and the next message starts them anew.
//!
//! One task for each kind looks at a part of the table at a time, so that a process costs nothing
//! while it runs. Whether one is idle is decided under its own lock ([`Process::retire`]): from that
//! moment its mailbox takes nothing more, and what comes goes to the next process of the key.
//!
//! [`Process::retire`]: crate::process::Process::retire

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::table::Table;
use crate::runtime::{Runtime, Shared};

/// How often the whole table is looked through while a process becomes idle.
const ROUNDS: u32 = 4;

impl Runtime {
    /// Starts what ends idle processes.
    pub(crate) fn begin_passivation(&self) {
        for table in self.0.keyed.values() {
            if let Some(after) = table.passivate_after {
                let (runtime, table) = (Arc::downgrade(&self.0), Arc::clone(table));
                self.0.executor.spawn(passivate(runtime, table, after));
            }
        }
    }
}

async fn passivate(runtime: Weak<Shared>, table: Arc<Table>, after: Duration) {
    let parts = u32::try_from(Table::parts()).expect("few");
    let step = (after / (ROUNDS * parts)).max(Duration::from_millis(1));
    for part in (0..Table::parts()).cycle() {
        tokio::time::sleep(step).await;
        let Some(shared) = runtime.upgrade() else { return };
        let runtime = Runtime(shared);
        for process in table.idle(part, after) {
            if process.retire() {
                runtime.counters().keyed_passivated.add();
            }
        }
    }
}
