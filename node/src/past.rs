//! Who owned what until a moment ago: the rings that others have taken the place of lately.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use purlin_cluster::Ring;
use purlin_proto::NodeName;
use tokio::time::Instant;

/// What was sent to a node longer ago has arrived there, or its connection is lost.
const RECENT: Duration = Duration::from_secs(10);

/// Rings that were replaced lately.
pub(crate) struct Past {
    start: Instant,
    /// Milliseconds after the start up to when there are any.
    until_ms: AtomicU64,
    /// Each with the time at which it was replaced, the oldest first.
    rings: Mutex<VecDeque<(Instant, Arc<Ring>)>>,
}

impl Past {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), until_ms: AtomicU64::new(0), rings: Mutex::default() }
    }

    /// To be called before another ring takes the place of this one.
    pub(crate) fn note(&self, ring: Arc<Ring>) {
        let now = Instant::now();
        let mut rings = self.rings(now);
        rings.push_back((now, ring));
        let until = (now - self.start + RECENT).as_millis();
        self.until_ms.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Whether owners have changed lately.
    pub(crate) fn is_new(&self) -> bool {
        let until = self.until_ms.load(Ordering::Acquire);
        // Of most messages no clock is asked.
        until > 0 && self.start.elapsed().as_millis() < u128::from(until)
    }

    /// The owner of a key before the first of those changes.
    pub(crate) fn owner(&self, key: &[u8]) -> Option<NodeName> {
        self.rings(Instant::now()).front()?.1.owner(key)
    }

    fn rings(&self, now: Instant) -> MutexGuard<'_, VecDeque<(Instant, Arc<Ring>)>> {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        while rings.front().is_some_and(|(replaced, _)| now - *replaced >= RECENT) {
            rings.pop_front();
        }
        rings
    }
}
