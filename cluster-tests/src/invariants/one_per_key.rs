//! On one node a key never has two processes; after healing it has one in the whole cluster, and that
//! answers whoever calls it.

use std::collections::BTreeMap;

use super::Invariant;
use crate::simulation::record::{Event, Facts};

pub(super) struct OnePerKey;

impl Invariant for OnePerKey {
    fn name(&self) -> &'static str {
        "a key has one process"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        let Event::Activated { who, key } = event else { return Ok(()) };
        let here = facts
            .keys
            .iter()
            .find(|(other, of)| *other != who && *of == key && other.node.name == who.node.name);
        match here {
            Some((other, _)) => Err(format!("{other} is the process of {key}")),
            None => Ok(()),
        }
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        let mut running = BTreeMap::new();
        for (key, pid) in facts.views.values().flat_map(|view| &view.keys) {
            if let Some(other) = running.insert(key, pid) {
                return Err(format!("{key} has {pid} and {other}"));
            }
        }
        let mut known = BTreeMap::new();
        for (node, view) in &facts.views {
            for (key, answer) in &view.answers {
                let Ok(who) = answer else {
                    return Err(format!("{node} asks {key} and gets {answer:?}"));
                };
                if known.insert(key, who).is_some_and(|before| before != who) {
                    return Err(format!("{node} is answered by {who} for {key}, others not"));
                }
            }
        }
        Ok(())
    }
}
