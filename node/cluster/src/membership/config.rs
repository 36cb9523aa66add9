//! The times of membership, all from one setting.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;
use purlin_proto::limits::DATAGRAM_BYTES;

/// How membership is tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Within this time a silent member is declared down; 5 s unless said otherwise, 1 s at least.
    pub detect_in: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { detect_in: Duration::from_secs(5) }
    }
}

/// Shares of `detect_in`, measured for 5 s with 200 nodes, 20 killed at once and 5 % loss, in 5 runs:
/// p50 2.9 to 3.0 s, p99 4.1 to 5.3 s. With a probe period of 0.1 one run in ten has a p99 above 5.5 s:
/// the victim that nobody happens to probe for three seconds. See `tests/simulated/figures.rs`.
const PROBE_PERIOD: f64 = 0.08;
const PROBE_RTT: f64 = 0.03;
const SUSPICION: f64 = 0.4;
const GOSSIP: f64 = 0.02;

/// With this a node that hears nothing is still within `detect_in`, and the others are before it.
const DOUBT: f64 = 0.25;

impl Config {
    fn share(&self, share: f64) -> Duration {
        self.detect_in.max(Duration::from_secs(1)).mul_f64(share)
    }

    /// A node whose own timers come later than this accuses nobody until it has caught up.
    pub(super) fn lag_limit(&self) -> Duration {
        2 * self.share(PROBE_RTT)
    }

    /// How long a member is suspected before it is declared down.
    pub(super) fn suspicion(&self) -> Duration {
        self.share(SUSPICION)
    }

    /// How much longer it is, by a node that hears nobody.
    pub(super) fn doubt(&self) -> Duration {
        self.share(DOUBT)
    }

    pub(super) fn foca(&self) -> foca::Config {
        let three = NonZeroUsize::new(3).expect("3");
        foca::Config {
            probe_period: self.share(PROBE_PERIOD),
            probe_rtt: self.share(PROBE_RTT),
            num_indirect_probes: three,
            max_transmissions: NonZeroU8::new(12).expect("12"),
            suspect_to_down_after: self.suspicion(),
            remove_down_after: Some(FORGET_AFTER),
            // Less the frame number in front.
            max_packet_size: NonZeroUsize::new(DATAGRAM_BYTES - 1).expect("more than one"),
            // foca would also tell a member that has refuted its suspicion; we tell who is down
            // ourselves, with the close of its connection.
            notify_down_members: false,
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(PeriodicParams {
                frequency: self.share(GOSSIP),
                num_members: three,
            }),
        }
    }
}

/// How often seeds are dialed while this node is alone.
pub(super) const JOIN_EVERY: Duration = Duration::from_secs(1);

/// How often seeds and members that are down are dialed otherwise: it heals partitions.
pub(super) const HEAL_EVERY: Duration = Duration::from_secs(5);

/// How often states are compared with a random member.
pub(super) const SYNC_EVERY: Duration = Duration::from_secs(30);

/// How soon after a change they are.
pub(super) const SYNC_AFTER_CHANGE: Duration = Duration::from_secs(2);

/// How often states are compared with one member at its request, at most.
pub(super) const COMPARE_EVERY: Duration = Duration::from_millis(50);

/// How often suspicions are looked for.
pub(super) const SCAN_EVERY: Duration = Duration::from_millis(100);

/// So often this many random members are made to send a packet. Somebody is soon among them whose
/// port has just been closed, and its host says so: with three for every node, a killed process is
/// noticed within a quarter of a second in a cluster of any size.
pub(super) const PROVOKE_EVERY: Duration = Duration::from_millis(200);
pub(super) const PROVOKED: usize = 3;

/// A hint is confirmed by this many probes, so far apart; a member that stays silent for all of
/// them, while the system goes on saying that its port is closed, is down.
pub(super) const CONFIRM_PROBES: u32 = 3;
pub(super) const CONFIRM_EVERY: Duration = Duration::from_millis(120);

/// Members that are down are dialed again, so many at a time.
pub(super) const HEAL_DIALS: usize = 8;

/// A node that comes back waits so long for the state of the one it yielded to.
pub(super) const MEETING: Duration = Duration::from_secs(2);

/// Members that are down or have left are forgotten when there are more.
pub(super) const REMEMBERED: usize = 1_000;

/// Or after so long.
pub(super) const FORGET_AFTER: Duration = Duration::from_hours(24);

/// Seeds at most.
pub(super) const SEEDS: usize = 1_000;
