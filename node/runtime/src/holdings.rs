//! What the runtime holds right now, for those who operate it and for tests that look for leaks.

use purlin_proto::Holding;
use purlin_proto::limits::OWNED_ENTRIES;

use crate::inflow::SLACK;
use crate::runtime::{Runtime, lock};

impl Runtime {
    /// What is held for processes of this node. Read one small lock at a time: not a snapshot.
    pub fn holdings(&self) -> Vec<Holding> {
        let shared = &self.0;
        let inflow = lock(&shared.inflows).values().map(|inflow| inflow.used()).max();
        vec![
            Holding::bounded("processes", shared.table.len(), shared.process_limit),
            Holding::free("names", self.names().len()),
            Holding::free("calls.pending", shared.pending.len()),
            Holding::free("monitors.remote", shared.watched.len()),
            Holding::free("monitors.remote_by_name", lock(&shared.watched_by_name).len()),
            Holding::free("processes.related", self.related()),
            Holding::free("processes.watching_nodes", self.watching_nodes()),
            Holding::bounded(
                "inflow.bytes",
                inflow.unwrap_or(0),
                shared.inflow_bytes.saturating_add(SLACK),
            ),
            Holding::free("receivers.stopped", shared.stopped.len()),
            Holding::bounded("entries.own", shared.entries.own(), OWNED_ENTRIES),
            Holding::free("keyed", shared.keyed.values().map(|table| table.len()).sum()),
        ]
    }
}
