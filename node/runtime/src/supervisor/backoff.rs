//! How long to wait before a restart. OTP has nothing of the kind.

use std::time::Duration;

/// Doubles the time before each restart of a child that goes on crashing, with jitter, so that many
/// children whose common need is gone do not come back all at once.
///
/// While a restart waits it counts for nothing; when it is made it counts for the intensity like any
/// other. So a backoff whose longest wait is longer than the period never exhausts an intensity of
/// one or more.
///
/// ```
/// use std::time::Duration;
/// use purlin_runtime::Backoff;
///
/// let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(30))
///     .reset_after(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    reset_after: Duration,
}

impl Backoff {
    /// At most `first` before the first restart, twice as long each time, at most `longest`; the
    /// wait itself is between half of that and all of it. A child that has lived for `longest`
    /// begins anew.
    pub const fn exponential(first: Duration, longest: Duration) -> Self {
        Self { first, longest, reset_after: longest }
    }

    /// A child that has lived for so long begins anew.
    #[must_use]
    pub const fn reset_after(mut self, lived: Duration) -> Self {
        self.reset_after = lived;
        self
    }

    /// How many crashes in a row it is with this one, after a life of this length.
    pub(super) fn crashes(&self, before: u32, lived: Duration) -> u32 {
        if lived >= self.reset_after { 1 } else { before.saturating_add(1) }
    }

    /// How long to wait after so many crashes in a row; `chance` is any number.
    pub(super) fn delay(&self, crashes: u32, chance: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(crashes.saturating_sub(1).min(31));
        let most = self.first.saturating_mul(doubled).min(self.longest);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = mix(chance) as f64 / u64::MAX as f64;
        most.mul_f64(0.5 + share / 2.0)
    }
}

/// Spreads a number over all 64 bits (the last step of `SplitMix64`).
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff =
        Backoff::exponential(Duration::from_millis(100), Duration::from_secs(10));

    #[test]
    fn the_wait_doubles_up_to_the_longest_with_jitter_of_a_half() {
        for (crashes, most) in [(1, 100), (2, 200), (4, 800), (8, 10_000), (100, 10_000)] {
            let most = Duration::from_millis(most);
            for chance in 0..50 {
                let delay = BACKOFF.delay(crashes, chance * 7_919);
                assert!(delay >= most / 2 && delay <= most, "{crashes}: {delay:?}");
            }
        }
    }

    #[test]
    fn a_long_life_begins_anew() {
        assert_eq!(BACKOFF.crashes(5, Duration::from_secs(1)), 6);
        assert_eq!(BACKOFF.crashes(5, Duration::from_secs(10)), 1);
    }
}
