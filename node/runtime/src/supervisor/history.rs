//! What became of a child before: shown by `purlin why` and `purlin tree`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use purlin_proto::supervision::PastExit;
use purlin_proto::{ExitReason, Pid};
use tokio::time::Instant;

/// Ends that are remembered of each child.
const EXITS: usize = 8;

/// Shared by a child's supervisor and its present process.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(Arc<Mutex<Past>>);

#[derive(Debug, Default)]
struct Past {
    restarts: u64,
    exits: VecDeque<Exit>,
}

/// One end of a process, as it is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    pub(crate) pid: Option<Pid>,
    pub(crate) reason: ExitReason,
    pub(crate) at: Instant,
    pub(crate) lived: Duration,
}

impl History {
    fn with<T>(&self, look: impl FnOnce(&mut Past) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.with(|past| past.restarts)
    }

    /// Counts a restart; the number of all.
    pub(super) fn restarted(&self) -> u64 {
        self.with(|past| {
            past.restarts += 1;
            past.restarts
        })
    }

    pub(super) fn ended(&self, exit: Exit) {
        self.with(|past| {
            past.exits.push_front(exit);
            past.exits.truncate(EXITS);
        });
    }

    /// The latest first.
    pub(crate) fn exits(&self) -> Vec<PastExit> {
        self.with(|past| past.exits.iter().map(Exit::told).collect())
    }
}

impl Exit {
    pub(crate) fn told(&self) -> PastExit {
        PastExit {
            pid: self.pid,
            reason: self.reason.to_string(),
            ago_s: self.at.elapsed().as_secs_f64(),
            lived_s: self.lived.as_secs_f64(),
        }
    }
}
