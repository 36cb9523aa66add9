//! Questions and orders about certificates.

use serde::{Deserialize, Serialize};

use crate::join::Admission;
use crate::message::Message;
use crate::revocation::{Revocation, SignedRevocation};
use crate::trust::SignedTrust;

/// Believe these certificates no more, and tell all members. Answered with how many of the
/// revocations were new; an error says why they are not believed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revoke {
    /// Which, signed by the authority.
    pub revocations: Vec<SignedRevocation>,
}
message!(Revoke, "node.revoke", Result<usize, String>);

/// Which revocations does this node know?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListRevocations;
message!(ListRevocations, "node.revocations", Vec<Revocation>);

/// Make this certificate anew, for the same key, role, name and permissions. Whoever has it may ask;
/// an error says why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Renew {
    /// The certificate, as DER; not expired, and not revoked.
    #[serde(with = "serde_bytes")]
    pub certificate: Vec<u8>,
    /// A certification request (PKCS #10, RFC 2986) as DER for the same public key, which shows that
    /// whoever asks has the private one.
    #[serde(with = "serde_bytes")]
    pub request: Vec<u8>,
    /// Whether another member has been asked and asks on; then nobody else is asked.
    pub forwarded: bool,
}
message!(Renew, "node.renew", Result<Admission, String>);

/// Believe these authorities from now on, and tell all members. Answered with whether that was
/// news; an error says why it is not done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Believe {
    /// Which, signed by one that is believed.
    pub trust: SignedTrust,
}
message!(Believe, "node.believe", Result<bool, String>);

/// Which authorities does this node believe?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetTrust;
message!(GetTrust, "node.trust", TrustInfo);

/// Answers [`GetTrust`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustInfo {
    /// The number of the list that it knows; see [`Trust`](crate::trust::Trust).
    pub number: u64,
    /// How many authorities it believes.
    pub authorities: usize,
    /// Whether its own certificate is of the first of them.
    pub renewed: bool,
}
