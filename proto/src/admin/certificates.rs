//! Questions and orders about certificates.

use serde::{Deserialize, Serialize};

use crate::join::Admission;
use crate::message::Message;
use crate::revocation::{Revocation, SignedRevocation};

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
