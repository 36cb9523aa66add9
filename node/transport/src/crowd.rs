//! Who may begin a handshake: what strangers may cost us before they have proved anything.
//!
//! A handshake costs its receiver a signature, a key exchange and some kilobytes for a few seconds,
//! and its first packet may come from anywhere, in anybody's name. So
//!
//! - [`AT_ONCE`] go on at once, whoever they are of; what comes beyond is not heard, and may try
//!   again, as QUIC does by itself after a second;
//! - while [`CROWDED`] or more go on, or handshakes have failed lately without it, an address must
//!   be proved first: a Retry (RFC 9000, section 8.1.2), which costs us no memory and whoever dials
//!   in good faith one round trip. So handshakes in others' names, and those never gone on with, use
//!   up no more than [`CROWDED`] places;
//! - of one source (an IPv4 address, or an IPv6 network of 64 bits) with a proved address
//!   [`FROM_ONE_SOURCE`] go on at once;
//! - a source whose handshakes fail (no certificate, one of another authority or that is revoked,
//!   never finished) has [`FAILURES`] of them, which come back at one each [`FAILURE_COSTS`]; then it
//!   is not heard. Only what came from a proved address counts, or others could be shut out in their
//!   names. Handshakes that succeed cost a source nothing.
//!
//! What is remembered of sources is bounded by [`SOURCES`]: beyond it, whoever owes least is
//! forgotten.
//!
//! It does not help against more sources than a machine can answer, each with addresses of its own.
//! Connections that exist are not concerned by any of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Handshakes that go on at once.
const AT_ONCE: usize = 256;

/// From so many on, who begins one must prove its address.
const CROWDED: usize = 32;

/// And of one proved source.
const FROM_ONE_SOURCE: usize = 64;

/// A source may fail so often in a row,
const FAILURES: u32 = 64;

/// and once more after each such time.
const FAILURE_COSTS: Duration = Duration::from_micros(62_500);

/// Sources that are remembered.
const SOURCES: usize = 4_096;

/// What is to become of somebody who wants to begin a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Enter,
    /// It is to prove its address first.
    Prove,
    /// It gets no answer.
    Ignore,
}

/// Counts who is there, and who has failed.
#[derive(Default)]
pub(crate) struct Crowd(Mutex<State>);

#[derive(Default)]
struct State {
    inside: usize,
    /// Failures from addresses that were not proved.
    unproved: Debt,
    sources: BTreeMap<IpAddr, Source>,
}

#[derive(Default)]
struct Source {
    inside: usize,
    debt: Debt,
}

/// Failures, as the time by which they are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Debt(Option<Instant>);

impl Debt {
    fn add(&mut self, now: Instant) {
        self.0 = Some(self.0.map_or(now, |until| until.max(now)) + FAILURE_COSTS);
    }

    fn is_full(self, now: Instant) -> bool {
        self.0.is_some_and(|until| until >= now + FAILURES * FAILURE_COSTS)
    }

    fn is_paid(self, now: Instant) -> bool {
        self.0.is_none_or(|until| until <= now)
    }
}

/// A place among those whose handshake goes on, until it is dropped.
pub(crate) struct Place<'a> {
    crowd: &'a Crowd,
    source: IpAddr,
    proved: bool,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about one who has sent a first packet. [`Verdict::Enter`] takes a place, which is to be
    /// [claimed](Self::place).
    pub(crate) fn judge(&self, address: IpAddr, proved: bool, now: Instant) -> Verdict {
        let mut state = self.lock();
        if state.inside >= AT_ONCE {
            return Verdict::Ignore;
        }
        let source = source_of(address);
        let known = state.sources.get(&source);
        let failing = known.is_some_and(|known| known.debt.is_full(now));
        if !proved {
            let crowded = state.inside >= CROWDED || state.unproved.is_full(now);
            if crowded || failing {
                return Verdict::Prove;
            }
        } else if failing || known.is_some_and(|known| known.inside >= FROM_ONE_SOURCE) {
            return Verdict::Ignore;
        } else {
            state.source(source, now).inside += 1;
        }
        state.inside += 1;
        Verdict::Enter
    }

    /// The place of one that has been let in.
    pub(crate) fn place(&self, address: IpAddr, proved: bool) -> Place<'_> {
        Place { crowd: self, source: source_of(address), proved }
    }
}

impl State {
    /// What is known of a source; makes room for it.
    fn source(&mut self, source: IpAddr, now: Instant) -> &mut Source {
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, known| known.inside > 0 || !known.debt.is_paid(now));
        }
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            let idle = self.sources.iter().filter(|(_, known)| known.inside == 0);
            let least = idle.min_by_key(|(_, known)| known.debt).map(|(source, _)| *source);
            least.map(|least| self.sources.remove(&least));
        }
        self.sources.entry(source).or_default()
    }
}

impl Place<'_> {
    /// Its handshake has failed; `proved` if it has got so far that its address must be its own.
    pub(crate) fn failed(&self, proved: bool, now: Instant) {
        let mut state = self.crowd.lock();
        match proved || self.proved {
            true => state.source(self.source, now).debt.add(now),
            false => state.unproved.add(now),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.crowd.lock();
        state.inside -= 1;
        if !self.proved {
            return;
        }
        if let Some(source) = state.sources.get_mut(&self.source) {
            source.inside -= 1;
            if source.inside == 0 && source.debt == Debt::default() {
                state.sources.remove(&self.source);
            }
        }
    }
}

/// Whoever has an IPv6 address has at least 64 bits of them.
pub(crate) fn source_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(host: usize) -> IpAddr {
        let [high, low] = u16::try_from(host).expect("small").to_be_bytes();
        IpAddr::from([10, 1, high, low])
    }

    /// As many places as are to be had, of so many tries of one host.
    fn enter(
        crowd: &Crowd,
        host: usize,
        proved: bool,
        tries: usize,
    ) -> (Vec<Place<'_>>, Vec<Verdict>) {
        let (mut places, mut refused) = (Vec::new(), Vec::new());
        for _ in 0..tries {
            match crowd.judge(from(host), proved, Instant::now()) {
                Verdict::Enter => places.push(crowd.place(from(host), proved)),
                other => refused.push(other),
            }
        }
        (places, refused)
    }

    #[test]
    fn a_crowd_must_prove_its_addresses_and_then_there_is_room() {
        let crowd = Crowd::default();
        let (unproved, refused) = enter(&crowd, 1, false, 1_000);
        assert_eq!(unproved.len(), CROWDED);
        assert!(refused.iter().all(|verdict| *verdict == Verdict::Prove));

        let (proved, refused) = enter(&crowd, 2, true, 1_000);
        assert_eq!(proved.len(), FROM_ONE_SOURCE, "one source has its share");
        assert!(refused.iter().all(|verdict| *verdict == Verdict::Ignore));
        assert_eq!(enter(&crowd, 3, true, 1).0.len(), 1, "another finds room");

        drop((unproved, proved));
        let state = crowd.lock();
        assert_eq!((state.inside, state.sources.len()), (0, 0));
    }

    #[test]
    fn all_together_are_bounded() {
        let crowd = Crowd::default();
        let inside: Vec<_> = (0..1_000).map(|host| enter(&crowd, host, true, 1).0).collect();
        assert_eq!(inside.iter().flatten().count(), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_is_not_heard_for_a_while_and_others_are() {
        let crowd = Crowd::default();
        for _ in 0..FAILURES {
            let (places, _) = enter(&crowd, 1, true, 1);
            places[0].failed(true, Instant::now());
        }

        assert_eq!(enter(&crowd, 1, true, 1).1, [Verdict::Ignore]);
        assert_eq!(enter(&crowd, 1, false, 1).1, [Verdict::Prove], "it may be in its name");
        assert_eq!(enter(&crowd, 2, false, 1).0.len(), 1);

        tokio::time::advance(FAILURE_COSTS).await;
        assert_eq!(enter(&crowd, 1, true, 1).0.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_shut_out_by_failures_in_its_name() {
        let crowd = Crowd::default();
        for _ in 0..10 * FAILURES {
            for place in enter(&crowd, 1, false, 1).0 {
                place.failed(false, Instant::now());
            }
        }

        assert_eq!(enter(&crowd, 1, false, 1).1, [Verdict::Prove]);
        assert_eq!(enter(&crowd, 1, true, 1).0.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_who_failed_most_is_remembered() {
        let crowd = Crowd::default();
        let fail = |host| enter(&crowd, host, true, 1).0[0].failed(true, Instant::now());
        fail(0);
        fail(0);
        for host in 1..2 * SOURCES {
            fail(host);
        }

        let state = crowd.lock();
        assert_eq!(state.sources.len(), SOURCES);
        assert!(state.sources.contains_key(&from(0)));
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let one: IpAddr = "2001:db8:0:1::1".parse().expect("an address");
        let same: IpAddr = "2001:db8:0:1:ffff::2".parse().expect("an address");
        let other: IpAddr = "2001:db8:0:2::1".parse().expect("an address");
        assert_eq!(source_of(one), source_of(same));
        assert_ne!(source_of(one), source_of(other));
    }
}
