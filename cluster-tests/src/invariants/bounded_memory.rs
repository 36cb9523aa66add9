//! No mailbox holds more than it may.

use super::Invariant;
use crate::simulation::record::{Event, Facts};

pub(super) struct BoundedMemory;

impl Invariant for BoundedMemory {
    fn name(&self) -> &'static str {
        "memory is bounded"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        match event {
            Event::Waiting { who, messages, limit } if messages > limit => {
                Err(format!("{messages} wait for {who}"))
            }
            _ => Ok(()),
        }
    }
}
