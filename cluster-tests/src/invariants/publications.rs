//! What one process publishes comes to a subscriber in its order, and no piece of it twice
//! (membership, I16).

use std::collections::BTreeMap;

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct Publications {
    /// The last number that came, from whom to whom, by topic.
    last: BTreeMap<(Who, Who, String), u64>,
}

impl Invariant for Publications {
    fn name(&self) -> &'static str {
        "publications in order"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        let Event::Heard { by, from, topic, number } = event else { return Ok(()) };
        match self.last.insert((*from, *by, topic.clone()), *number) {
            Some(last) if last >= *number => Err(format!("after {last}")),
            _ => Ok(()),
        }
    }
}
