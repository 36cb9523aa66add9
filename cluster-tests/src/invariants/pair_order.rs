//! What one process sends to another arrives in the order in which it was sent.

use std::collections::BTreeMap;

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct PairOrder {
    /// The last number that came, from whom to whom.
    last: BTreeMap<(Who, Who), u64>,
}

impl Invariant for PairOrder {
    fn name(&self) -> &'static str {
        "pair order"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        let Event::Delivered { by, from, number, .. } = *event else { return Ok(()) };
        match self.last.insert((from, by), number) {
            Some(last) if last > number => Err(format!("after {last}")),
            _ => Ok(()),
        }
    }
}
