//! How fast children are started: a bucket of starts that fills steadily.

use std::time::Duration;

use crate::membership::Time;

/// So many at once, so many a second.
#[derive(Debug)]
pub struct Pace {
    at_once: usize,
    every: Duration,
    under_way: usize,
    /// When the next one is due; behind the present by a burst at most.
    next: Time,
}

impl Pace {
    /// At most so many under way, and `per_second` of them a second.
    pub fn new(at_once: usize, per_second: u32) -> Self {
        let every = Duration::from_secs(1) / per_second.max(1);
        Self { at_once, every, under_way: 0, next: Time::ZERO }
    }

    /// Whether one more may begin; counts it if so.
    pub fn begin(&mut self, now: Time) -> bool {
        if self.under_way >= self.at_once || self.next > now {
            return false;
        }
        // What was not used within a tenth of a second is lost.
        let burst = now.saturating_sub(Duration::from_millis(100));
        self.next = self.next.max(burst) + self.every;
        self.under_way += 1;
        true
    }

    /// One that has begun is over.
    pub fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// When one more may begin; `None` if one has to end first.
    pub fn due(&self) -> Option<Time> {
        (self.under_way < self.at_once).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_begin_at_once_and_in_a_second_than_it_says() {
        let mut pace = Pace::new(64, 500);
        let mut begun = 0;
        for millisecond in 0..3_000 {
            while pace.begin(Duration::from_mins(1) + Duration::from_millis(millisecond)) {
                begun += 1;
                pace.end();
            }
        }
        assert!((1_450..=1_560).contains(&begun), "{begun}");

        let mut pace = Pace::new(64, 1_000_000);
        let at_once = (0..100).filter(|_| pace.begin(Duration::from_mins(1))).count();
        assert_eq!((at_once, pace.due()), (64, None));
        pace.end();
        assert!(pace.begin(Duration::from_mins(1)));
    }
}
