//! A supervisor restarts no more children within its period than its intensity allows; a cluster
//! supervisor no exclusive child more often than it may, whichever nodes it has run on.
//!
//! That it leaves no orphan is what [names](super::names_unique) show while it runs, and the count of
//! processes at the end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use purlin::Pid;

use super::Invariant;
use crate::simulation::only;
use crate::simulation::record::{Event, Facts};
use crate::simulation::schedule::Part;
use crate::simulation::tree::{INTENSITY, PERIOD, ROOT_CHILD};

/// A machine's clock may be so much slower than the world's.
const SLOWEST: f64 = 0.95;

#[derive(Default)]
pub(super) struct Supervisors {
    restarts: BTreeMap<Pid, VecDeque<Duration>>,
    /// When children have failed. Parts of a split count for themselves, so only exclusive ones.
    failed: BTreeMap<String, VecDeque<Duration>>,
}

/// Forgets what is longer ago than a period, by a slow clock; how much is left.
fn within(period: Duration, times: &mut VecDeque<Duration>, now: Duration) -> usize {
    let begin = now.saturating_sub(period.mul_f64(SLOWEST));
    while times.front().is_some_and(|at| *at <= begin) {
        times.pop_front();
    }
    times.len()
}

impl Invariant for Supervisors {
    fn name(&self) -> &'static str {
        "supervisors keep to their intensity"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::Restarted { supervisor, child } if child != ROOT_CHILD => {
                let restarts = self.restarts.entry(*supervisor).or_default();
                restarts.push_back(facts.now);
                match within(PERIOD, restarts, facts.now) {
                    count if count > INTENSITY => {
                        Err(format!("{count} restarts within {PERIOD:?}"))
                    }
                    _ => Ok(()),
                }
            }
            Event::Failed { of, .. } => {
                self.failed.entry(of.clone()).or_default().push_back(facts.now);
                Ok(())
            }
            Event::Begun { of, fence: Some(_), .. } if facts.part == Part::Children => {
                let failed = self.failed.entry(of.clone()).or_default();
                match within(only::PERIOD, failed, facts.now) {
                    count if count > only::INTENSITY as usize => {
                        Err(format!("{of} has failed {count} times within {:?}", only::PERIOD))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
