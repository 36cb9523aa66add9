//! What happened in a run, in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What happened in a simulated cluster: faults, what its nodes told, and what the test has added.
///
/// Cheap to clone; all clones are the same log. Actors and checkers may hold one.
#[derive(Clone, Default)]
pub struct Log(Arc<Inner>);

#[derive(Default)]
struct Inner {
    now: AtomicU64,
    lines: Mutex<Vec<String>>,
}

impl Log {
    /// The time since the cluster's beginning.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.0.now.load(Ordering::Relaxed))
    }

    pub(super) fn set_now(&self, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.0.now.store(nanos, Ordering::Relaxed);
    }

    /// Adds a line, with the time before it.
    pub fn note(&self, what: impl std::fmt::Display) {
        let line = format!("{:>12.6} {what}", self.now().as_secs_f64());
        tracing::debug!("{line}");
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("now", &self.now()).finish_non_exhaustive()
    }
}
