//! Whoever watches nodes sees `Up Down?` of each life, and one life of a node at a time
//! (membership, I1).

use std::collections::BTreeMap;

use purlin::{NodeId, NodeName};

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct LivesOfNodes {
    /// Which life of a node is up for whom, under which creation of its own node.
    up: BTreeMap<(Who, NodeName), (u64, NodeId)>,
}

impl Invariant for LivesOfNodes {
    fn name(&self) -> &'static str {
        "one life of a node at a time"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        match *event {
            Event::NodeUp { at, under, node } => {
                let before = self.up.insert((at, node.name), (under, node));
                match before {
                    // Under a new creation it looks at the others anew.
                    Some((creation, before)) if creation == under => {
                        Err(format!("{before} was still up"))
                    }
                    _ => Ok(()),
                }
            }
            Event::NodeDown { at, node, .. } => {
                self.up.remove(&(at, node.name));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
