//! After healing a global name has one holder, the same for all nodes; whoever has lost it to another
//! is told so once (membership, I17).

use std::collections::BTreeMap;

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct OneHolder {
    /// How often a process has got a name, less how often it has given it up or lost it.
    held: BTreeMap<(&'static str, Who), usize>,
}

impl Invariant for OneHolder {
    fn name(&self) -> &'static str {
        "a global name has one holder"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        match *event {
            Event::Named { who, name } => *self.held.entry((name, who)).or_default() += 1,
            Event::Unnamed { who, name } | Event::NameLost { who, name } => {
                match self.held.get_mut(&(name, who)) {
                    Some(held) if *held > 0 => *held -= 1,
                    _ => return Err(format!("{who} did not hold {name}")),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        let holds = |((name, who), held): (&(&'static str, Who), &usize)| {
            let pid = facts.alive.get(who).filter(|_| *held > 0)?;
            Some((*name, *pid, *held))
        };
        let mut wanted = BTreeMap::new();
        for (name, pid, held) in self.held.iter().filter_map(holds) {
            if held > 1 {
                return Err(format!("{pid} has got {name} {held} times"));
            }
            if let Some(other) = wanted.insert(name, pid) {
                return Err(format!(
                    "{pid} and {other} hold {name}, and neither was told otherwise"
                ));
            }
        }
        for (node, view) in &facts.views {
            if view.names != wanted {
                return Err(format!("{node} sees {:?}, there are {wanted:?}", view.names));
            }
        }
        Ok(())
    }

    fn gone(&mut self, facts: &Facts) -> Result<(), String> {
        match facts.views.iter().find(|(_, view)| !view.names.is_empty()) {
            Some((node, view)) => Err(format!("{node} sees {:?}, and all have ended", view.names)),
            None => Ok(()),
        }
    }
}
