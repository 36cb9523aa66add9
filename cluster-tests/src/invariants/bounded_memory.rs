//! No queue holds more than it may, at any time: mailboxes, what one other node has in them, lanes,
//! what waits for a dial, what arrives in pieces.

use purlin::{Gauge, NodeName};

use super::Invariant;
use crate::simulation::record::{Event, Facts};
use crate::simulation::{INFLOW_BYTES, LANE_BYTES};

/// What may come of a node after it was told to stop, in these runs: what its four lanes hold, small
/// and large, and what QUIC has under way; far less than the gigabyte that breaks the protocol.
const UNDER_WAY: usize = 4 * (5 * LANE_BYTES + (200 << 10)) + (2 << 20);

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

    fn look(&mut self, node: NodeName, gauges: &[Gauge], facts: &Facts) -> Result<(), String> {
        for Gauge { what, now, bound } in gauges {
            let bound = match *what {
                "inflow.bytes" if !facts.benign => Some(INFLOW_BYTES + UNDER_WAY),
                _ => *bound,
            };
            if let Some(bound) = bound.filter(|bound| now > bound) {
                return Err(format!("{node} holds {now} of {what}, and may hold {bound}"));
            }
        }
        Ok(())
    }
}
