//! The product's cryptography with chance from a seed.
//!
//! aws-lc-rs draws the private keys of a key exchange from the system, whatever it is handed; so the
//! exchange is X25519 of another crate (RFC 7748), its secrets from the seed. Signatures must be
//! Ed25519, which leave nothing to chance; the certificates see to that.

use std::sync::{Arc, Mutex, PoisonError};

use rand::Rng;
use rand::rngs::StdRng;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

#[derive(Debug, Clone)]
struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

impl SecureRandom for Chance {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        Self::fill(self, bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct Group(Chance);

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; 32];
        self.0.fill(&mut secret);
        Ok(Box::new(Exchange { secret, public: x25519(secret, X25519_BASEPOINT_BYTES) }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: [u8; 32],
    public: [u8; 32],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let theirs = theirs.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        Ok(SharedSecret::from(x25519(self.secret, theirs).as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// Two of the same seed make the same handshakes.
pub(super) fn provider(chance: StdRng) -> CryptoProvider {
    let chance = Chance(Arc::new(Mutex::new(chance)));
    let group: &'static dyn SupportedKxGroup = Box::leak(Box::new(Group(chance.clone())));
    CryptoProvider {
        kx_groups: vec![group],
        secure_random: Box::leak(Box::new(chance)),
        ..rustls::crypto::aws_lc_rs::default_provider()
    }
}
