//! A node that runs and can be reached is not declared down, at moderate loss (membership, I4).

use super::Invariant;
use crate::simulation::record::{Event, Facts};

pub(super) struct NoFalseAlarm;

impl Invariant for NoFalseAlarm {
    fn name(&self) -> &'static str {
        "no false alarm"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::NodeDown { node, .. } if facts.benign => Err(format!("{node} ran all along")),
            _ => Ok(()),
        }
    }
}
