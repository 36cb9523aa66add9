//! Which authorities a node believes, when that changes: the rotation of the authority.
//!
//! It is begun where the authority's key is (`home/rotation.rs`), and told as revocations are
//! (`spread.rs`). A member believes a list with a higher number than it has, signed by an authority
//! that it believes; it writes that down, and has its certificate made anew by the first authority
//! of the list (`renewal/mod.rs`). Connections go on throughout; rotation shuts nobody out who is
//! connected, revoking does.
//!
//! # What if
//!
//! - **The cluster is split, or a member is away**, while both authorities are believed: certificates
//!   of the new one come with one that the old one has signed for it (`cross.pem`), so both sides
//!   believe each other when they meet, and the one that is behind is told. If it is away until the
//!   old one is not believed any more, nobody believes it, and it needs a new token. `--finish`
//!   asks all members first.
//! - **A clock is wrong.** Numbers decide, not times.
//! - **The disk is full.** Where the key is: nothing is begun. At a member: it says so, believes the
//!   list as far as revocations go, and goes on with the certificate and authorities that it has;
//!   it is told again when it is started again.
//! - **Two directories have the key.** One rotates; the other is told as any, and signs no more,
//!   since its key is not the first authority's, until the new one's is copied there. If both begin
//!   at once, the members believe the list that they hear first, and say so of the other.

use bytes::Bytes;
use purlin_proto::trust::SignedTrust;

use super::Known;
use crate::authority;

/// What a list of authorities is to a node.
pub(super) enum Heard {
    News,
    Same,
    Older,
}

impl Known {
    /// The authorities whose signatures are believed.
    pub(super) fn authorities(&self) -> Vec<Bytes> {
        self.authorities.lock().unwrap_or_else(super::PoisonError::into_inner).clone()
    }

    /// What was said last of authorities, if anything ever was.
    pub(crate) fn trust(&self) -> Option<SignedTrust> {
        self.trust.lock().unwrap_or_else(super::PoisonError::into_inner).clone()
    }

    /// Believes a list, if it is news and signed by one that is believed.
    pub(super) fn believe(&self, signed: SignedTrust) -> Result<Heard, String> {
        let before = self.trust();
        let number = before.as_ref().map_or(0, |before| before.trust.number);
        if signed.trust.number < number {
            return Ok(Heard::Older);
        }
        if signed.trust.number == number {
            if before.is_some_and(|before| before.trust != signed.trust) {
                tracing::error!(number, "there are two rotations of the authority at once");
            }
            return Ok(Heard::Same);
        }
        let bytes = signed.trust.signed_bytes().map_err(|error| error.to_string())?;
        let authorities = self.authorities();
        let by = |signature: &[u8]| authority::has_signed(&authorities, &bytes, signature);
        if !signed.is_bounded() || !signed.signatures.iter().any(|signature| by(signature)) {
            return Err("authorities that none of ours has signed".to_owned());
        }
        if !signed.trust.authorities.iter().all(|der| authority::is_authority(der)) {
            return Err("an authority that is none".to_owned());
        }
        let new: Vec<_> =
            signed.trust.authorities.iter().map(|der| Bytes::copy_from_slice(der)).collect();
        // What the old one has revoked it had signed, and nobody believes that any more either.
        self.lock().retain(|one| {
            let bytes = one.revocation.signed_bytes();
            bytes.is_ok_and(|bytes| authority::has_signed(&new, &bytes, &one.signature))
        });
        *self.authorities.lock().unwrap_or_else(super::PoisonError::into_inner) = new;
        *self.trust.lock().unwrap_or_else(super::PoisonError::into_inner) = Some(signed);
        Ok(Heard::News)
    }

    /// Writes down which authorities are believed, beside the node's work; then its own certificate
    /// is looked after.
    pub(super) fn remember_trust(self: &std::sync::Arc<Self>, signed: SignedTrust) {
        let (Some(home), known) = (self.home.clone(), std::sync::Arc::clone(self)) else { return };
        drop(tokio::task::spawn_blocking(move || match home.remember_trust(&signed) {
            Ok(()) => known.changed.notify_one(),
            Err(error) => tracing::error!(%error, "other authorities are not remembered"),
        }));
    }
}
