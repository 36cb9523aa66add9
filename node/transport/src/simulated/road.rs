//! What becomes of packets on their way from one address to another.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// The way from one address to another; the way back is another road.
///
/// ```
/// use std::time::Duration;
/// use purlin_transport::simulated::Road;
///
/// let bad = Road { loss: 0.05, jitter: Duration::from_millis(20), ..Road::default() };
/// assert!(!bad.cut);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Road {
    /// Nothing gets through.
    pub cut: bool,
    /// It is open and cut in turn, so long each.
    pub flapping: Option<(Duration, Duration)>,
    /// The share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// The share of packets that arrive twice, 0 to 1.
    pub duplication: f64,
    /// What every packet takes at least.
    pub latency: Duration,
    /// What a packet takes longer than that on average, exponentially distributed; ten times as
    /// much at most. Packets overtake each other where it is larger than the time between them.
    pub jitter: Duration,
    /// Larger payloads are lost.
    pub mtu: usize,
    /// Bytes of payload a second; `None` for as many as come. A packet leaves when those before it
    /// have left, and its latency begins then.
    pub bandwidth: Option<u64>,
    /// Bytes that may wait to leave; a packet that finds no room among them is lost. Without
    /// `bandwidth` nothing waits.
    pub queue: usize,
}

impl Default for Road {
    /// A local network: 200 to 300 µs, Ethernet's packets, nothing lost, room for all.
    fn default() -> Self {
        Self {
            cut: false,
            flapping: None,
            loss: 0.0,
            duplication: 0.0,
            latency: Duration::from_micros(200),
            jitter: Duration::from_micros(20),
            mtu: 1_472,
            bandwidth: None,
            queue: 256 << 10,
        }
    }
}

/// What becomes of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Arrives after this time.
    Arrives(Duration),
    /// Arrives twice.
    Twice(Duration, Duration),
    Lost,
    Cut,
    TooLarge,
    /// Too much waits before it.
    Full,
}

impl Road {
    /// Takes as much from chance whatever the road is like, so that another road leaves the fate of
    /// packets elsewhere as it was. `busy` is until when packets before this one take the road.
    pub(super) fn fate(
        &self,
        now: Duration,
        bytes: usize,
        busy: &mut Duration,
        chance: &mut StdRng,
    ) -> Fate {
        let [lost, twice, first, second] = [(); 4].map(|()| chance.random::<f64>());
        if self.is_cut(now) {
            return Fate::Cut;
        } else if bytes > self.mtu {
            return Fate::TooLarge;
        }
        let Some(waits) = self.queue(now, bytes, busy) else { return Fate::Full };
        if lost < self.loss {
            Fate::Lost
        } else if twice < self.duplication {
            Fate::Twice(waits + self.delay(first), waits + self.delay(second))
        } else {
            Fate::Arrives(waits + self.delay(first))
        }
    }

    /// How long a packet takes to leave; `None` if there is no room for it.
    fn queue(&self, now: Duration, bytes: usize, busy: &mut Duration) -> Option<Duration> {
        let Some(bandwidth) = self.bandwidth else { return Some(Duration::ZERO) };
        let bandwidth = u128::from(bandwidth.max(1));
        let waits = busy.saturating_sub(now);
        let waiting = waits.as_nanos() * bandwidth / 1_000_000_000;
        if waiting + bytes as u128 > self.queue as u128 {
            return None;
        }
        let takes = bytes as u128 * 1_000_000_000 / bandwidth;
        let leaves = waits + Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
        *busy = now + leaves;
        Some(leaves)
    }

    fn is_cut(&self, now: Duration) -> bool {
        let flapped = self.flapping.is_some_and(|(open, cut)| {
            let period = (open + cut).as_nanos().max(1);
            now.as_nanos() % period >= open.as_nanos()
        });
        self.cut || flapped
    }

    fn delay(&self, chance: f64) -> Duration {
        const AT_MOST: f64 = 10.0;
        // The inverse of the exponential distribution; `1 - chance` is above 0.
        let times = -(1.0 - chance).ln();
        self.latency + self.jitter.mul_f64(times.min(AT_MOST))
    }
}
