//! Certificates that are not believed any more.
//!
//! `purlin cert revoke` signs a revocation where the authority's key is, and hands it to a member.
//! Members tell each other on their control streams (`spread.rs`): whoever learns of one closes the
//! connections that it covers, at once, refuses them from then on with [`Refusal::Revoked`], and
//! tells all others. Whoever is refused says so in its log.
//!
//! # What if
//!
//! - **A node is away, or the cluster is split.** It believes the certificate until it has a
//!   connection to a member that knows better; both compare what they know when they connect. It
//!   remembers on disk (`revoked.json`), so a restart forgets nothing.
//! - **Two directories hold the authority's key.** Each revocation is signed by itself and all are
//!   kept, so there is nothing to agree on.
//! - **Clocks differ**, by an hour or more. What is revoked of a holder is compared with the time in
//!   the certificate's number, both by the clock of whoever holds the key; there it never goes back
//!   (`Home::stamp`). Where two machines hold the key, a certificate that the one whose clock is
//!   ahead has made just before may escape the other: revoke it by its number. A revocation is
//!   forgotten a day after the last certificate it covers has expired.
//! - **The disk is full.** `purlin cert revoke` fails and nothing is revoked. A member that cannot
//!   remember says so, and heeds it as long as it runs.
//! - **The one that is revoked is the one that is asked to tell.** It tells, or not; any other member
//!   can be asked (`--at`).
//! - **The one that is revoked goes on running.** It holds all others for down, since nobody lets it in;
//!   they dial it now and then, to see whether it is back, and hear nothing of what it says to that
//!   ([`Events::believe`](purlin_transport::Events::believe)).
//! - **A member is of a version without revocations.** It ends the connection on the first frame of
//!   this kind, and believes the certificate. Nodes say nothing of revocations while there are none.
//!
//! Clients are not told: one that dials a revoked node believes it.

pub(crate) mod spread;
pub(crate) mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use purlin_proto::limits::REVOCATIONS;
use purlin_proto::revocation::{Revocation, SignedRevocation};
use purlin_proto::trust::SignedTrust;
use purlin_proto::{NodeName, Refusal, Role, Serial};
use purlin_transport::{Certified, Peer};
use tokio::sync::Notify;

use crate::authority;
use crate::builder::{WallClock, millis};
use crate::home::Home;

/// The revocations that a node knows.
pub(crate) struct Known {
    signed: Mutex<BTreeSet<SignedRevocation>>,
    /// Where they are remembered; nowhere if the node was given its credentials.
    home: Option<Home>,
    /// Certificates, as DER, whose keys may revoke.
    authorities: Mutex<Vec<Bytes>>,
    /// What was said last of authorities; see `trust.rs`.
    trust: Mutex<Option<SignedTrust>>,
    /// Whether the node was told that its own certificate is revoked.
    pub(crate) shut_out: AtomicBool,
    /// Wakes whoever looks after the node's own certificate.
    pub(crate) changed: Notify,
    clock: WallClock,
    /// When certificates expire that members have got since they were connected.
    expiries: Mutex<BTreeMap<NodeName, u64>>,
}

/// A revocation that its authority has not signed, or more than there may be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotBelieved {
    #[error("the revocation of {0} is not signed by our authority")]
    Signature(String),
    #[error("there are {REVOCATIONS} revocations already")]
    Full,
}

/// What became of revocations that somebody has said.
struct Added {
    new: Vec<SignedRevocation>,
    /// How many our authorities have not signed.
    unsigned: u32,
    result: Result<(), NotBelieved>,
}

impl Known {
    /// Begins with those that are remembered.
    pub(crate) fn new(
        home: Option<Home>,
        remembered: Vec<SignedRevocation>,
        trust: Option<SignedTrust>,
        authorities: Vec<Bytes>,
        clock: WallClock,
    ) -> Arc<Self> {
        let known = Self {
            signed: Mutex::default(),
            home,
            authorities: Mutex::new(authorities),
            trust: Mutex::new(trust),
            shut_out: AtomicBool::new(false),
            changed: Notify::new(),
            clock,
            expiries: Mutex::default(),
        };
        for one in remembered {
            // Of an authority of before, whose certificates nobody believes.
            if let Err(error) = known.add_one(one) {
                tracing::debug!(%error, "a remembered revocation is over");
            }
        }
        Arc::new(known)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<SignedRevocation>> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a peer is refused, if its certificate is revoked.
    pub(crate) fn refusal(&self, certified: &Certified) -> Option<Refusal> {
        let (identity, serial) = (certified.identity, &certified.serial);
        let (role, name) = (identity.role, identity.name);
        self.is_revoked(role, name, serial).then(|| Refusal::Revoked { serial: serial.clone() })
    }

    pub(crate) fn is_revoked(&self, role: Role, name: NodeName, serial: &Serial) -> bool {
        self.lock().iter().any(|one| one.revocation.covers(role, name, serial))
    }

    /// Takes over what is new and signed by an authority that is believed; the error tells of one that
    /// was left out.
    fn add(&self, all: Vec<SignedRevocation>) -> Added {
        let mut added = Added { new: Vec::new(), unsigned: 0, result: Ok(()) };
        for one in all {
            match self.add_one(one.clone()) {
                Ok(true) => added.new.push(one),
                Ok(false) => {}
                Err(error) => {
                    added.unsigned += u32::from(matches!(error, NotBelieved::Signature(_)));
                    added.result = Err(error);
                }
            }
        }
        added
    }

    /// Whether it was new.
    fn add_one(&self, one: SignedRevocation) -> Result<bool, NotBelieved> {
        if self.lock().contains(&one) {
            return Ok(false);
        }
        let what = &one.revocation.what;
        let signed = one.revocation.signed_bytes();
        let good = signed.is_ok_and(|signed| {
            authority::has_signed(&self.authorities(), &signed, &one.signature)
        });
        if !good {
            return Err(NotBelieved::Signature(what.to_string()));
        }
        let now = millis(&self.clock);
        if one.revocation.until_ms <= now {
            return Ok(false);
        }
        let mut signed = self.lock();
        signed.retain(|one| one.revocation.until_ms > now);
        if signed.len() >= REVOCATIONS {
            return Err(NotBelieved::Full);
        }
        Ok(signed.insert(one))
    }

    /// The data directory, if the node has one.
    pub(crate) fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    /// A member has a new certificate; or a new connection, on which its certificate is seen.
    fn note_expiry(&self, member: NodeName, expires_ms: Option<u64>) {
        let mut expiries = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        match expires_ms {
            Some(expires_ms) => drop(expiries.insert(member, expires_ms)),
            None => drop(expiries.remove(&member)),
        }
    }

    /// When the certificate of a peer expires, in milliseconds since 1970.
    pub(crate) fn expiry(&self, peer: &Peer) -> Option<u64> {
        let expiries = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = expiries.get(&peer.name).copied();
        renewed.or_else(|| authority::expires_ms(&peer.certified.der))
    }

    /// All of them, by what is revoked.
    pub(crate) fn list(&self) -> Vec<Revocation> {
        self.lock().iter().map(|one| one.revocation.clone()).collect()
    }

    fn all(&self) -> Vec<SignedRevocation> {
        self.lock().iter().cloned().collect()
    }

    /// Tells sets apart; 0 is the empty one.
    fn digest(&self) -> u64 {
        let of = |one: &SignedRevocation| {
            let hash = digest(&SHA256, &one.signature);
            u64::from_be_bytes(hash.as_ref()[..8].try_into().expect("SHA-256 has more"))
        };
        self.lock().iter().map(of).fold(0, u64::wrapping_add)
    }

    /// Writes down what is new, beside the node's work.
    fn remember(&self, new: Vec<SignedRevocation>) {
        let Some(home) = self.home.clone() else { return };
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = home.remember_revocations(new) {
                tracing::error!(%error, "revocations are not remembered over a restart");
            }
        }));
    }
}

#[cfg(test)]
mod tests;
