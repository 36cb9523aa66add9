//! How often a machine says that a port is closed.
//!
//! As Linux does by default (icmp(7), `icmp_ratelimit` 1,000 ms, and six at once after a pause), for
//! each destination. Without that limit a simulated death would be noticed more surely than a real one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// One answer in so long.
const EVERY: Duration = Duration::from_secs(1);

/// So many can be saved up.
const BURST: u32 = 6;

/// A machine whose port is closed.
#[derive(Debug, Default)]
pub(super) struct ClosedPort {
    /// Until when each destination's answers are used up; with less than [`BURST`] of them ahead there
    /// is one left.
    spent: BTreeMap<SocketAddr, Duration>,
}

impl ClosedPort {
    /// Whether a packet of `from` is answered.
    pub(super) fn answers(&mut self, from: SocketAddr, now: Duration) -> bool {
        let spent = self.spent.entry(from).or_default();
        let after = now.max(*spent) + EVERY;
        let answers = after <= now + EVERY * BURST;
        if answers {
            *spent = after;
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_are_answered_at_once_and_then_one_a_second() {
        let mut port = ClosedPort::default();
        let from = SocketAddr::from(([10, 0, 0, 1], 7400));
        let mut answered = |millis: u64| port.answers(from, Duration::from_millis(millis));

        let first = (0..10).filter(|_| answered(5_000)).count();
        let later = (0..100).filter(|tenth| answered(5_000 + 100 * tenth)).count();

        assert_eq!((first, later), (6, 9));
    }
}
