//! A message is delivered once or not at all, and only if it was sent.

use std::collections::BTreeSet;

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct AtMostOnce {
    sent: BTreeSet<(Who, Who, u64)>,
    delivered: BTreeSet<(Who, Who, u64)>,
}

impl Invariant for AtMostOnce {
    fn name(&self) -> &'static str {
        "at most once"
    }

    fn see(&mut self, event: &Event, _: &Facts) -> Result<(), String> {
        match *event {
            Event::Sent { from, to, number } => {
                self.sent.insert((from, to, number));
            }
            Event::Delivered { by, from, number, .. } => {
                if !self.sent.contains(&(from, by, number)) {
                    return Err("it was never sent to this one".to_owned());
                }
                if !self.delivered.insert((from, by, number)) {
                    return Err("it came before".to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
