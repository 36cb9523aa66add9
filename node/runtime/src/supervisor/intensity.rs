//! How many restarts are too many.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Counts restarts within a sliding period (OTP: `intensity` and `period`).
#[derive(Debug)]
pub(super) struct Intensity {
    most: usize,
    period: Duration,
    restarts: VecDeque<Instant>,
}

impl Intensity {
    pub(super) fn new(most: usize, period: Duration) -> Self {
        Self { most, period, restarts: VecDeque::new() }
    }

    /// Counts one more; `false` if that is one too many.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if self.most == usize::MAX {
            return true;
        }
        let period = self.period;
        while self.restarts.front().is_some_and(|&at| now.duration_since(at) > period) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        self.restarts.len() <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_restart_more_than_the_intensity_within_the_period_is_too_many() {
        let start = Instant::now();
        let mut intensity = Intensity::new(2, Duration::from_secs(5));
        assert!(intensity.allows(start));
        assert!(intensity.allows(start + Duration::from_secs(1)));
        assert!(!intensity.allows(start + Duration::from_secs(2)));
    }

    #[test]
    fn restarts_older_than_the_period_do_not_count() {
        let start = Instant::now();
        let mut intensity = Intensity::new(1, Duration::from_secs(5));
        assert!(intensity.allows(start));
        assert!(intensity.allows(start + Duration::from_secs(6)));
    }
}
