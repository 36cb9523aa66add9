//! Messages that come later.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::item::Item;
use crate::process::Process;

/// A delay beyond what the clock can count never comes; thirty years are as good.
const LONGEST: Duration = Duration::from_hours(30 * 365 * 24);

/// A message on its way to the process that asked for it; see
/// [`Context::send_after`](crate::Context::send_after).
///
/// Dropping it changes nothing; the message comes all the same.
#[derive(Debug)]
pub struct Timer {
    process: Weak<Process>,
    number: u64,
    due: Instant,
}

impl Timer {
    pub(crate) fn start(process: &Arc<Process>, delay: Duration, item: Item) -> Self {
        let number = process.runtime.reference().0;
        let due = Instant::now() + delay.min(LONGEST);
        let weak = Arc::downgrade(process);
        let target = Weak::clone(&weak);
        // Noted before it can fire: the task takes the note away under the same lock.
        let executor = process.runtime.0.executor.clone();
        process.relations(|relations| {
            let task = executor.spawn(async move {
                tokio::time::sleep_until(due).await;
                if let Some(process) = target.upgrade() {
                    let waiting = process.relations(|r| r.timers.remove(&number).is_some());
                    if waiting == Some(true) {
                        let runtime = process.runtime.clone();
                        runtime.deliver(Some(&process), item);
                    }
                }
            });
            relations.timers.insert(number, task.abort_handle());
        });
        Self { process: weak, number, due }
    }

    /// Cancels it and tells what was left; `None` if it has fired, or its process is gone.
    ///
    /// After `None` the message may still lie unread in the mailbox.
    pub fn cancel(self) -> Option<Duration> {
        let process = self.process.upgrade()?;
        let task =
            process.relations(|relations| relations.timers.remove(&self.number)).flatten()?;
        task.abort();
        Some(self.due.saturating_duration_since(Instant::now()))
    }
}
