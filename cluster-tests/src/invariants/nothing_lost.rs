//! Loss has a reason: where no machine and no road fails, whoever lives and listens gets everything.
//!
//! Packets may be lost, repeated, late and out of order, and clocks differ; QUIC sees to that.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

#[derive(Default)]
pub(super) struct NothingLost {
    /// What is on its way, to whom.
    sent: BTreeMap<Who, BTreeSet<(Who, u64)>>,
}

impl Invariant for NothingLost {
    fn name(&self) -> &'static str {
        "nothing lost without a reason"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match *event {
            Event::Sent { from, to, number } if facts.benign => {
                self.sent.entry(to).or_default().insert((from, number));
            }
            Event::Delivered { by, from, number, .. } if facts.benign => {
                self.sent.entry(by).or_default().remove(&(from, number));
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        let listening = |who: &Who| facts.alive.contains_key(who) && !facts.deaf.contains(who);
        for (to, lost) in &self.sent {
            if listening(to) && !lost.is_empty() {
                return Err(format!("{to} did not get {lost:?}"));
            }
        }
        Ok(())
    }
}
