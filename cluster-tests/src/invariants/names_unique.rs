//! On one node a name leads to one process at a time; so a supervised child has one instance.

use std::collections::BTreeMap;

use purlin::NodeName;

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct NamesUnique {
    holders: BTreeMap<(NodeName, String), Who>,
}

impl Invariant for NamesUnique {
    fn name(&self) -> &'static str {
        "names are unique"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        let Event::Born { who, name: Some(name) } = event else { return Ok(()) };
        let before = self.holders.insert((who.node.name, name.clone()), *who);
        match before.filter(|before| facts.alive.contains_key(before)) {
            Some(before) => Err(format!("{before} has the name {name}")),
            None => Ok(()),
        }
    }
}
