//! A network of UDP packets in memory, for the real QUIC to run over; behind the feature `simulated`.
//!
//! quinn and rustls are the real ones: handshakes, losses found and sent again, congestion, keys. What
//! is made up is below them: [`Network`] carries packets over [`Road`]s that lose, repeat, delay and
//! reorder them, have room for only so many, or are cut, one way or both. Everything that is left to chance comes from a seed, so
//! the same seed gives the same packets, byte for byte; [`Network::digest`] tells whether it did.
//!
//! # Time
//!
//! The network has no clock of its own. Whoever runs it asks for the [`next`](Network::next) arrival
//! and says what time it is ([`Network::advance`]); `purlin::testing` does. Endpoints take their time
//! from the tokio runtime that they run on, whose clock must be paused.
//!
//! # Closed ports
//!
//! An address without a socket is silent, as a machine is that has lost its power. After
//! [`Network::refuse`] the machine is there and its port is closed: it answers a packet with ICMP
//! port unreachable, no more often than Linux does, and that comes back over a road as packets do.
//!
//! # Absent on purpose
//!
//! What roads share: each has its own bandwidth. A full buffer at the sender: a packet that finds
//! no room on its road is lost there, as at a router.

mod crypto;
mod icmp;
mod network;
mod road;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

pub use self::network::{Digest, Network};
pub use self::road::Road;
pub use self::socket::Socket;
use crate::{Environment, ErrorQueue};

/// Tells the time of day, as the time since 1970.
pub type WallClock = Arc<dyn Fn() -> Duration + Send + Sync>;

struct Clock(WallClock);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch((self.0)()))
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// The surroundings of an endpoint that is bound to a socket of a simulated network.
///
/// Keeps a few hundred bytes for ever: rustls wants its sources of chance so.
pub fn environment(socket: Arc<Socket>, clock: WallClock, chance: u64) -> Environment {
    let mut chance = StdRng::seed_from_u64(chance);
    let mut seed = [0; 32];
    chance.fill_bytes(&mut seed);
    Environment {
        runtime: Arc::new(quinn::TokioRuntime),
        time: Arc::new(Clock(clock)),
        crypto: Arc::new(crypto::provider(chance)),
        seed: Some(seed),
        errors: Some(Arc::clone(&socket) as Arc<dyn ErrorQueue>),
        socket: Some(socket),
        executor: None,
    }
}
