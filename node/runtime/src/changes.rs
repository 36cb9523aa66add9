//! Word of a change, for those who wait for it: they are woken in the order they came in.
//!
//! The waiters of a tokio `watch` are woken in an order of chance, on which a simulated cluster's
//! run would depend besides its seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// What changes, and how often it has.
#[derive(Debug, Default)]
pub(crate) struct Changing {
    count: AtomicU64,
    waiting: Notify,
}

impl Changing {
    pub(crate) fn changed(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.waiting.notify_waiters();
    }
}

/// Hears of each change since it was made, several at once if they come fast.
///
/// ```
/// use purlin_runtime::{Config, NodeId, Runtime};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let runtime = Runtime::new(Config::new(NodeId::new("a".into(), 1)));
/// let mut holdings = runtime.watch_holdings();
/// runtime.holdings_changed();
/// holdings.changed().await;
/// # }
/// ```
#[derive(Debug)]
pub struct Changes {
    of: Arc<Changing>,
    seen: u64,
}

impl Changes {
    pub(crate) fn of(changing: &Arc<Changing>) -> Self {
        Self { of: Arc::clone(changing), seen: changing.count.load(Ordering::Acquire) }
    }

    /// Returns when there has been a change that this has not returned for. Cancel safe.
    pub async fn changed(&mut self) {
        loop {
            let mut change = std::pin::pin!(self.of.waiting.notified());
            change.as_mut().enable();
            let count = self.of.count.load(Ordering::Acquire);
            if count != self.seen {
                self.seen = count;
                return;
            }
            change.await;
        }
    }
}
