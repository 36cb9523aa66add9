//! After a process has been told that a life of a node is over, nothing of that life reaches it.
//!
//! But where its own node has been declared down and has come back, that looks at all others anew: for
//! its processes they were down, and are up again.

use std::collections::BTreeSet;
use std::time::Duration;

use purlin::NodeId;

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

/// A process may be so late in learning that its own node has come back.
const LATE: Duration = Duration::from_secs(15);

#[derive(Default)]
pub(super) struct DeadIncarnation {
    /// Who knows of whose end.
    over: BTreeSet<(Who, NodeId)>,
}

impl Invariant for DeadIncarnation {
    fn name(&self) -> &'static str {
        "a dead incarnation is silent"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match *event {
            Event::NodeDown { at, node } => {
                self.over.insert((at, node));
            }
            Event::NodeUp { at, node } => {
                let anew = facts.creations.get(&at.node.name);
                let anew = anew.is_some_and(|(_, since)| *since + LATE >= facts.now);
                if self.over.remove(&(at, node)) && !anew {
                    return Err(format!("{node} was down for good"));
                }
            }
            Event::Delivered { by, pid, .. } if self.over.contains(&(by, pid.node)) => {
                return Err(format!("{} is over", pid.node));
            }
            _ => {}
        }
        Ok(())
    }
}
