//! What an endpoint refused or lost, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the endpoint was bound.
#[derive(Debug, Default)]
pub struct Stats {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
}

impl Stats {
    /// All counts, by name.
    pub fn snapshot(&self) -> [(&'static str, u64); 4] {
        [
            ("connections.accepted", self.accepted.load(Ordering::Relaxed)),
            ("connections.refused", self.refused.load(Ordering::Relaxed)),
            ("connections.handshake_failed", self.handshakes_failed.load(Ordering::Relaxed)),
            ("connections.dial_failed", self.dials_failed.load(Ordering::Relaxed)),
        ]
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
