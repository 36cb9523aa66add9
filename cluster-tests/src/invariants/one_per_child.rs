//! After healing a child of a cluster supervisor has one process in the whole cluster, where all nodes
//! say that it runs; one that is given up has none.

use std::collections::BTreeMap;

use purlin::ClusterChildState;

use super::Invariant;
use crate::simulation::record::{Event, Facts};
use crate::simulation::schedule::Part;

pub(super) struct OnePerChild;

impl Invariant for OnePerChild {
    fn name(&self) -> &'static str {
        "a child has one process"
    }

    fn see(&mut self, _: &Event, _: &Facts) -> Result<(), String> {
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        if facts.part != Part::Children {
            return Ok(());
        }
        let mut running = BTreeMap::new();
        for (who, (of, _)) in &facts.only {
            if let Some(other) = running.insert(of.clone(), who.node.name) {
                return Err(format!("{of} runs as {who} and on {other}"));
            }
        }
        for (node, view) in &facts.views {
            let runs = view.children.iter().filter(|(_, (s, _))| *s == ClusterChildState::Running);
            let runs: BTreeMap<_, _> =
                runs.filter_map(|(child, (_, at))| Some((child.clone(), (*at)?))).collect();
            if runs != running {
                return Err(format!("{node} sees {runs:?}, there are {running:?}"));
            }
        }
        Ok(())
    }

    fn gone(&mut self, facts: &Facts) -> Result<(), String> {
        match facts.only.first_key_value() {
            Some((who, (of, _))) => Err(format!("{who} still runs for {of}")),
            None => Ok(()),
        }
    }
}
