//! After a process has been told that a life of a node is over, nothing of that life reaches it.

use std::collections::BTreeSet;

use purlin::NodeId;

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct DeadIncarnation {
    /// Who, under which creation of its own node, has seen whose beginning.
    up: BTreeSet<(Who, u64, NodeId)>,
    /// And whose end. A node under a new creation looks at the others anew: an end that is told then,
    /// of one that was not up since, was that of the old view.
    over: BTreeSet<(Who, u64, NodeId)>,
}

impl Invariant for DeadIncarnation {
    fn name(&self) -> &'static str {
        "a dead incarnation is silent"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        match *event {
            Event::NodeDown { at, under, node } => {
                let life = (at, under, node);
                if under == at.node.creation || self.up.contains(&life) {
                    self.over.insert(life);
                }
            }
            Event::NodeUp { at, under, node } => {
                if self.over.contains(&(at, under, node)) {
                    return Err(format!("{node} was down for good"));
                }
                self.up.insert((at, under, node));
            }
            Event::Delivered { by, under, pid, .. } => {
                if self.over.contains(&(by, under, pid.node)) {
                    return Err(format!("{} is over", pid.node));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
