//! What the runtime holds right now, for those who operate it and for tests that look for leaks.

use purlin_proto::Gauge;
use purlin_proto::limits::OWNED_ENTRIES;

use crate::inflow::SLACK;
use crate::runtime::{Runtime, lock};

impl Runtime {
    /// What is held for processes of this node. Read one small lock at a time: not a snapshot.
    pub fn gauges(&self) -> Vec<Gauge> {
        let shared = &self.0;
        let inflow = lock(&shared.inflows).values().map(|inflow| inflow.used()).max();
        vec![
            Gauge::bounded("processes", shared.table.len(), shared.process_limit),
            Gauge::free("names", self.names().len()),
            Gauge::free("calls.pending", shared.pending.len()),
            Gauge::free("monitors.remote", shared.watched.len()),
            Gauge::free("monitors.remote_by_name", lock(&shared.watched_by_name).len()),
            Gauge::free("processes.related", self.related()),
            Gauge::free("processes.watching_nodes", self.watching_nodes()),
            Gauge::bounded(
                "inflow.bytes",
                inflow.unwrap_or(0),
                shared.inflow_bytes.saturating_add(SLACK),
            ),
            Gauge::free("receivers.stopped", shared.stopped.len()),
            Gauge::bounded("entries.own", shared.entries.own(), OWNED_ENTRIES),
            Gauge::free("keyed", shared.keyed.values().map(|table| table.len()).sum()),
        ]
    }
}
