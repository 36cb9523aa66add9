//! Busy waiting: a worker looks for packets a little longer before it sleeps.
//!
//! To wake a thread that sleeps, its waker interrupts another core, and some 20 to 40 µs pass: more
//! than all else that a small message costs. So a worker that has found nothing more to do goes on
//! looking for a while, as OTP's schedulers do (`erl +sbwt`) and hypervisors for their guests (the
//! kernel's `halt_poll_ns`). With every look it offers its core to whoever else wants to run there.
//!
//! That pays where the next packet is near, and else costs power. So it is done while half of the
//! last [`REMEMBERED`] pauses were short; a node that hears something now and then sleeps in between.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

/// How long a worker looks for packets, unless said otherwise: a little more than it takes to wake it.
pub const BUSY_WAIT: Duration = Duration::from_micros(50);

/// Pauses that are remembered.
const REMEMBERED: u32 = u8::BITS;

/// How the workers of one network wait.
#[derive(Debug)]
pub(crate) struct Busy {
    limit: Duration,
    /// Some worker looks; one is enough.
    looking: AtomicBool,
    pauses: Mutex<Pauses>,
}

#[derive(Debug)]
struct Pauses {
    /// When the present one began.
    since: Instant,
    /// Somebody has looked in vain in it.
    missed: bool,
    /// A bit for each of the last: whether it was short.
    short: u8,
}

impl Busy {
    /// Looks for so long; not at all if that is zero.
    pub(crate) fn new(limit: Duration) -> Self {
        let pauses = Pauses { since: Instant::now(), missed: false, short: 0 };
        Self { limit, looking: AtomicBool::new(false), pauses: Mutex::new(pauses) }
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to do again.
    pub(crate) fn resumed(&self, now: Instant) {
        if self.limit.is_zero() {
            return;
        }
        let mut pauses = self.pauses();
        // Who has slept comes later than who has looked.
        let short = !pauses.missed && now.saturating_duration_since(pauses.since) <= 2 * self.limit;
        pauses.short = pauses.short << 1 | u8::from(short);
        pauses.missed = false;
    }

    /// There is nothing more to do.
    pub(crate) fn paused(&self, now: Instant) {
        if !self.limit.is_zero() {
            self.pauses().since = now;
        }
    }

    /// Looks until something has come, if that pays; `false` if nothing has, and the thread should
    /// sleep.
    pub(crate) async fn look(&self, mut come: Pin<&mut impl Future<Output = ()>>) -> bool {
        let Some(_looking) = self.begin() else { return false };
        while self.goes_on(Instant::now()) {
            if std::future::poll_fn(|cx| Poll::Ready(come.as_mut().poll(cx).is_ready())).await {
                return true;
            }
            thread::yield_now();
            // The worker comes back here when it has looked at the socket, and done what there is.
            tokio::task::yield_now().await;
        }
        false
    }

    fn begin(&self) -> Option<Looking<'_>> {
        let pays = !self.limit.is_zero() && self.pauses().short.count_ones() >= REMEMBERED / 2;
        (pays && !self.looking.swap(true, Ordering::Relaxed)).then_some(Looking(self))
    }

    fn goes_on(&self, now: Instant) -> bool {
        let mut pauses = self.pauses();
        let goes_on = now.saturating_duration_since(pauses.since) < self.limit;
        pauses.missed |= !goes_on;
        goes_on
    }
}

/// Until it is dropped, nobody else looks.
struct Looking<'a>(&'a Busy);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.looking.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = BUSY_WAIT;

    /// Pauses of these lengths, one after another; whether somebody would look in the next.
    fn pays_after(pauses: impl IntoIterator<Item = u64>) -> bool {
        let busy = Busy::new(LIMIT);
        let mut now = Instant::now();
        for micros in pauses {
            busy.paused(now);
            let looks = busy.begin().is_some();
            now += Duration::from_micros(micros);
            if looks {
                busy.goes_on(now);
            }
            busy.resumed(now);
        }
        busy.begin().is_some()
    }

    #[test]
    fn it_pays_to_look_where_packets_follow_each_other() {
        assert!(!pays_after([]));
        assert!(pays_after([20; 8]));
        assert!(pays_after([80; 4]), "a pause in which it slept takes longer");
        assert!(pays_after([20, 10_000].repeat(8)), "half of them");
    }

    #[test]
    fn who_hears_something_now_and_then_sleeps_in_between() {
        assert!(!pays_after([1_000; 100]));
        assert!(!pays_after([[20; 8], [1_000; 8]].concat()));
        assert!(!pays_after([20, 1_000, 1_000].repeat(10)));
    }

    #[test]
    fn who_looks_in_vain_stops() {
        let looked = (1..200).filter(|&count| pays_after(vec![80; count])).count();
        assert!((50..150).contains(&looked), "{looked} of 200 pauses a little too long");
    }

    #[test]
    fn nobody_looks_where_it_is_turned_off_nor_two_at_once() {
        let (off, on) = (Busy::new(Duration::ZERO), Busy::new(LIMIT));
        let now = Instant::now();
        for busy in [&off, &on] {
            for _ in 0..8 {
                busy.paused(now);
                busy.resumed(now);
            }
        }
        assert!(off.begin().is_none());
        let one = on.begin();
        assert!(one.is_some() && on.begin().is_none());
        drop(one);
        assert!(on.begin().is_some());
    }

    #[tokio::test]
    async fn who_looks_sees_what_comes_or_that_nothing_has() {
        let busy = Busy::new(Duration::from_mins(1));
        for _ in 0..8 {
            busy.paused(Instant::now());
            busy.resumed(Instant::now());
        }
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let told = std::pin::pin!(async { drop(told.await) });
        let telling = tokio::spawn(async move { tell.send(()) });
        assert!(busy.look(told).await);
        assert!(telling.await.is_ok_and(|told| told.is_ok()));

        let long_ago = Instant::now().checked_sub(Duration::from_secs(61));
        busy.paused(long_ago.unwrap_or_else(Instant::now));
        assert!(!busy.look(std::pin::pin!(std::future::pending())).await);
    }
}
