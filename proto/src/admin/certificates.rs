//! Questions and orders about certificates.

use serde::{Deserialize, Serialize};

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
