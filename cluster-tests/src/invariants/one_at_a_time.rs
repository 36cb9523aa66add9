//! Of what is exclusive one runs at a time, at every instant: none begins while another one runs, its
//! fence is greater than every earlier one, and none acts after a newer one has begun.
//!
//! A machine that was frozen, or is slow, may be late in ending its process; but that does nothing
//! any more.

use std::collections::BTreeMap;

use purlin::Fence;

use super::Invariant;
use crate::simulation::record::{Event, Facts};

#[derive(Default)]
pub(super) struct OneAtATime {
    newest: BTreeMap<String, Fence>,
}

impl Invariant for OneAtATime {
    fn name(&self) -> &'static str {
        "one at a time"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::Begun { who, of, fence: Some(fence) } => {
                let before = self.newest.insert(of.clone(), *fence);
                if let Some(before) = before.filter(|before| before >= fence) {
                    return Err(format!("{before} was before"));
                }
                let on_time = |node| facts.late.get(node).is_none_or(|until| *until < facts.now);
                let other = facts.only.iter().find(|(other, (what, _))| {
                    *other != who && what == of && on_time(&other.node.name)
                });
                match other {
                    Some((other, _)) => Err(format!("{other} runs")),
                    None => Ok(()),
                }
            }
            Event::Acted { of, fence: Some(fence), .. } => match self.newest.get(of) {
                Some(newest) if newest != fence => Err(format!("{newest} has begun")),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
