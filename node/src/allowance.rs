//! How often each of many may do something that costs others.
//!
//! Everyone has a number of turns, and gets one back after a while. What is remembered is bounded:
//! beyond [`KNOWN`], whoever has the most turns left is forgotten, and has all of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Who are remembered.
const KNOWN: usize = 4_096;

/// The turns that are left of everyone.
#[derive(Debug)]
pub(crate) struct Allowances<K> {
    turns: u32,
    every: Duration,
    /// When who has used some has all of them again.
    known: Mutex<BTreeMap<K, Instant>>,
}

impl<K: Ord + Clone> Allowances<K> {
    /// So many turns each, and one more after each such time.
    pub(crate) fn new(turns: u32, every: Duration) -> Self {
        Self { turns, every, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Instant>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a turn, if there is one left.
    pub(crate) fn take(&self, who: K, now: Instant) -> bool {
        let left = self.is_left(&who, now);
        if left {
            self.charge(who, 1, now);
        }
        left
    }

    /// Whether there is a turn left.
    pub(crate) fn is_left(&self, who: &K, now: Instant) -> bool {
        let full = self.lock().get(who).copied().unwrap_or(now).max(now);
        full + self.every <= now + self.turns * self.every
    }

    /// Takes so many turns, also more than are left.
    pub(crate) fn charge(&self, who: K, turns: u32, now: Instant) {
        let mut known = self.lock();
        let full = known.get(&who).copied().unwrap_or(now).max(now);
        if known.len() >= KNOWN && !known.contains_key(&who) {
            known.retain(|_, full| *full > now);
        }
        if known.len() >= KNOWN && !known.contains_key(&who) {
            let most = known.iter().min_by_key(|(_, full)| **full).map(|(who, _)| who.clone());
            most.map(|most| known.remove(&most));
        }
        known.insert(who, full + turns * self.every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn turns_are_used_up_and_come_back_one_by_one_and_others_have_their_own() {
        let turns = Allowances::new(3, EVERY);
        let take = |who: &'static str| turns.take(who, Instant::now());
        assert_eq!([take("a"), take("a"), take("a"), take("a")], [true, true, true, false]);
        assert!(take("b"));

        tokio::time::advance(EVERY).await;
        assert_eq!([take("a"), take("a")], [true, false]);

        tokio::time::advance(10 * EVERY).await;
        assert_eq!([take("a"), take("a"), take("a"), take("a")], [true, true, true, false]);

        turns.charge("c", 10, Instant::now());
        tokio::time::advance(7 * EVERY).await;
        assert!(!turns.is_left(&"c", Instant::now()));
        tokio::time::advance(EVERY).await;
        assert!(turns.is_left(&"c", Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_who_has_used_most_is_remembered() {
        let turns = Allowances::new(2, EVERY);
        assert!(turns.take(0, Instant::now()) && turns.take(0, Instant::now()));
        for who in 1..2 * KNOWN {
            assert!(turns.take(who, Instant::now()));
        }

        assert_eq!(turns.known.lock().expect("whole").len(), KNOWN);
        assert!(!turns.take(0, Instant::now()));
    }
}
