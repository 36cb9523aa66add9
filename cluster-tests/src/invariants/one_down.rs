//! A monitor fires once: never twice, never after it was taken back, never while its process runs and
//! can be reached, and always when it has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::{ExitReason, Reference};

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

/// What must be told has been told after this time, with good roads.
const SETTLED: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Eq)]
enum State {
    Active,
    Fired,
    TakenBack,
}

#[derive(Default)]
pub(super) struct OneDown {
    monitors: BTreeMap<(Who, Reference), (Who, State)>,
}

impl Invariant for OneDown {
    fn name(&self) -> &'static str {
        "one Down per monitor"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::Monitored { watcher, reference, target } => {
                self.monitors.insert((*watcher, *reference), (*target, State::Active));
            }
            Event::Demonitored { watcher, reference } => {
                if let Some((_, state)) = self.monitors.get_mut(&(*watcher, *reference)) {
                    *state = State::TakenBack;
                }
            }
            Event::Down { watcher, reference, reason } => {
                let Some((target, state)) = self.monitors.get_mut(&(*watcher, *reference)) else {
                    return Err("there is no such monitor".to_owned());
                };
                if *state != State::Active {
                    return Err(format!("the monitor was {state:?}"));
                }
                *state = State::Fired;
                let guess = matches!(reason, ExitReason::NoConnection | ExitReason::NoProcess);
                if !guess && facts.alive.contains_key(target) {
                    return Err(format!("{target} lives"));
                }
                // Where nothing fails there is no other pid that it had, and no reason to guess.
                if guess && facts.benign && facts.alive.contains_key(target) {
                    return Err(format!("{target} lives, and nothing has failed"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        for ((watcher, reference), (target, state)) in &self.monitors {
            let ended = facts.ended.get(target).is_some_and(|at| *at + SETTLED < facts.now);
            if *state == State::Active && ended && facts.alive.contains_key(watcher) {
                return Err(format!("{watcher} was not told that {target} ended ({reference})"));
            }
        }
        Ok(())
    }
}
