//! What QUIC leaves to chance, from a seed: keys, connection ids, its own generator.
//!
//! Two endpoints of the same seed that meet the same packets at the same times send the same bytes.
//! Without a seed all of it is the system's.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{hkdf, hmac};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::environment::Environment;

/// As long as quinn's own.
const ID_BYTES: usize = 8;

/// At least 8 bytes (RFC 9000, section 7.2); at most 20.
const FIRST_ID_BYTES: usize = 20;

/// Each use of the seed has a stream of its own.
#[derive(Clone, Copy)]
enum Use {
    Reset = 1,
    Ids = 2,
    Token = 3,
    FirstIds = 4,
}

fn chance(mut seed: [u8; 32], what: Use) -> StdRng {
    seed[31] ^= what as u8;
    StdRng::from_seed(seed)
}

fn bytes(chance: &mut StdRng) -> [u8; 32] {
    let mut bytes = [0; 32];
    chance.fill_bytes(&mut bytes);
    bytes
}

struct Ids(StdRng);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.0.fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

pub(super) fn endpoint(environment: &Environment) -> quinn::EndpointConfig {
    let Some(seed) = environment.seed else { return quinn::EndpointConfig::default() };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes(&mut chance(seed, Use::Reset)));
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    config.rng_seed(Some(seed)).cid_generator(move || Box::new(Ids(chance(seed, Use::Ids))));
    config
}

pub(super) fn server(config: &mut quinn::ServerConfig, environment: &Environment) {
    let Some(seed) = environment.seed else { return };
    let secret = bytes(&mut chance(seed, Use::Token));
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret);
    config.token_key(Arc::new(key));
}

pub(super) fn client(config: &mut quinn::ClientConfig, environment: &Environment) {
    let Some(seed) = environment.seed else { return };
    let chance = Mutex::new(chance(seed, Use::FirstIds));
    config.initial_dst_cid_provider(Arc::new(move || {
        let mut id = [0; FIRST_ID_BYTES];
        chance.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut id);
        ConnectionId::new(&id)
    }));
}
