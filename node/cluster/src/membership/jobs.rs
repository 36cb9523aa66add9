//! What is to be done later.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::Timer;
use purlin_proto::NodeName;

use super::types::Time;
use super::wire::Life;

#[derive(Debug)]
pub(super) enum Job {
    Foca(Timer<Life>),
    /// The same of a suspicion that has been held for longer.
    Verdict(Timer<Life>),
    Join,
    Sync,
    Scan,
    Provoke,
    /// The number tells it from jobs of an earlier confirmation.
    Confirm(NodeName, u64),
}

/// Jobs by the time they are due; of equal times the older first.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    queue: BTreeMap<(Time, u64), Job>,
    number: u64,
}

impl Jobs {
    pub(super) fn schedule(&mut self, due: Time, job: Job) {
        let number = self.next_number();
        self.queue.insert((due, number), job);
    }

    /// A number that no job and nothing else has.
    pub(super) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.queue.keys().next().map(|(due, _)| *due)
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<Job> {
        let first = self.queue.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Does everything that waits so much later.
    pub(super) fn put_off(&mut self, lag: Duration) {
        let late = std::mem::take(&mut self.queue);
        self.queue = late.into_iter().map(|((due, n), job)| ((due + lag, n), job)).collect();
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Job) -> bool) {
        self.queue.retain(|_, job| keep(job));
    }
}
