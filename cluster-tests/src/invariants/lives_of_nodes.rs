//! Whoever watches nodes sees `Up Down?` of each life, and one life of a node at a time
//! (membership, I1).

use std::collections::BTreeMap;

use purlin::{NodeId, NodeName};

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct LivesOfNodes {
    /// Which life of a node is up for whom.
    up: BTreeMap<(Who, NodeName), NodeId>,
}

impl Invariant for LivesOfNodes {
    fn name(&self) -> &'static str {
        "one life of a node at a time"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        match *event {
            Event::NodeUp { at, node } => match self.up.insert((at, node.name), node) {
                Some(before) => Err(format!("{before} was still up")),
                None => Ok(()),
            },
            Event::NodeDown { at, node } => match self.up.remove(&(at, node.name)) {
                Some(before) if before != node => Err(format!("{before} was up")),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
