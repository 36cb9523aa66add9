//! A supervisor restarts no more children within its period than its intensity allows.
//!
//! That it leaves no orphan is what [names](super::names_unique) show while it runs, and the count of
//! processes at the end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use purlin::Pid;

use super::Invariant;
use crate::simulation::record::{Event, Facts};
use crate::simulation::tree::{INTENSITY, PERIOD, ROOT_CHILD};

/// A machine's clock may be so much slower than the world's.
const SLOWEST: f64 = 0.95;

#[derive(Default)]
pub(super) struct Supervisors {
    restarts: BTreeMap<Pid, VecDeque<Duration>>,
}

impl Invariant for Supervisors {
    fn name(&self) -> &'static str {
        "supervisors keep to their intensity"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        let Event::Restarted { supervisor, child } = event else { return Ok(()) };
        if child == ROOT_CHILD {
            return Ok(());
        }
        let restarts = self.restarts.entry(*supervisor).or_default();
        restarts.push_back(facts.now);
        let begin = facts.now.saturating_sub(PERIOD.mul_f64(SLOWEST));
        while restarts.front().is_some_and(|at| *at <= begin) {
            restarts.pop_front();
        }
        match restarts.len() {
            count if count > INTENSITY => Err(format!("{count} restarts within {PERIOD:?}")),
            _ => Ok(()),
        }
    }
}
