//! Whoever is told that a process ended has got everything that it sent: a `Down` is a signal of the
//! process like its messages, and comes after them.

use std::collections::{BTreeMap, BTreeSet};

use purlin::{ExitReason, Reference};

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct DownComesLast {
    targets: BTreeMap<(Who, Reference), Who>,
    /// Who knows of whose end.
    told: BTreeSet<(Who, Who)>,
}

impl Invariant for DownComesLast {
    fn name(&self) -> &'static str {
        "Down comes last"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        match event {
            Event::Monitored { watcher, reference, target } => {
                self.targets.insert((*watcher, *reference), *target);
            }
            // `noproc` and `noconnection` are not words of the process itself.
            Event::Down { reason: ExitReason::NoConnection | ExitReason::NoProcess, .. } => {}
            Event::Down { watcher, reference, .. } => {
                if let Some(target) = self.targets.get(&(*watcher, *reference)) {
                    self.told.insert((*watcher, *target));
                }
            }
            Event::Delivered { by, from, .. } if self.told.contains(&(*by, *from)) => {
                return Err(format!("{by} had been told that {from} ended"));
            }
            _ => {}
        }
        Ok(())
    }
}
