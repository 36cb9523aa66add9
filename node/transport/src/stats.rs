//! What an endpoint refused or lost, counted; and how good the way to a peer is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the endpoint was bound.
#[derive(Debug, Default)]
pub struct Stats {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) handshakes_retried: AtomicU64,
    pub(crate) handshakes_ignored: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) joins_rejected: AtomicU64,
}

impl Stats {
    /// All counts, by name.
    pub fn snapshot(&self) -> [(&'static str, u64); 7] {
        [
            ("connections.accepted", self.accepted.load(Ordering::Relaxed)),
            ("connections.refused", self.refused.load(Ordering::Relaxed)),
            ("connections.handshake_failed", self.handshakes_failed.load(Ordering::Relaxed)),
            ("handshakes.retried", self.handshakes_retried.load(Ordering::Relaxed)),
            ("handshakes.ignored", self.handshakes_ignored.load(Ordering::Relaxed)),
            ("connections.dial_failed", self.dials_failed.load(Ordering::Relaxed)),
            ("joins.rejected", self.joins_rejected.load(Ordering::Relaxed)),
        ]
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How good the way to a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// How long a packet takes there and back, smoothed (RFC 9002, section 5).
    pub rtt: Duration,
    /// Packets sent since the connection was made.
    pub sent: u64,
    /// How many of them were lost, as far as can be told.
    pub lost: u64,
}

impl Path {
    /// The part that was lost, 0 to 1.
    pub fn loss(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = self.lost as f64 / self.sent.max(1) as f64;
        share
    }
}
