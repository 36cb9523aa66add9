//! After healing all nodes have the same members in every group: those who have joined and live, as
//! often as they have; and none who has ended (membership, I15).

use std::collections::BTreeMap;

use purlin::Pid;

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct GroupsEqual {
    joined: BTreeMap<(&'static str, Who), usize>,
}

impl GroupsEqual {
    /// Who is in which group, as all nodes are to see it.
    fn wanted(&self, facts: &Facts) -> BTreeMap<String, Vec<Pid>> {
        let mut groups = BTreeMap::<_, Vec<Pid>>::new();
        for ((group, who), times) in &self.joined {
            if let Some(pid) = facts.alive.get(who) {
                let members = groups.entry((*group).to_owned()).or_default();
                members.extend(std::iter::repeat_n(*pid, *times));
                members.sort_unstable();
            }
        }
        groups.retain(|_, members| !members.is_empty());
        groups
    }
}

impl Invariant for GroupsEqual {
    fn name(&self) -> &'static str {
        "groups are equal after healing"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        match *event {
            Event::Joined { who, group } => *self.joined.entry((group, who)).or_default() += 1,
            Event::Left { who, group } => *self.joined.entry((group, who)).or_default() -= 1,
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        let wanted = self.wanted(facts);
        for (node, view) in &facts.views {
            if view.groups != wanted {
                return Err(format!("{node} sees {:?}, there are {wanted:?}", view.groups));
            }
        }
        Ok(())
    }

    fn gone(&mut self, facts: &Facts) -> Result<(), String> {
        match facts.views.iter().find(|(_, view)| !view.groups.is_empty()) {
            Some((node, view)) => Err(format!("{node} sees {:?}, and all have ended", view.groups)),
            None => Ok(()),
        }
    }
}
