//! Which authorities are believed, when that changes.
//!
//! A cluster begins with one authority, whose certificate everybody has. When it gets another, all
//! members are told the authorities that are believed from then on, signed by one that they believe
//! already. The number rises with each change; a higher one takes the place of a lower one.

use serde::{Deserialize, Serialize};
pub use serde_bytes::ByteBuf;

use crate::codec::{self, EncodeError};
use crate::limits::{AUTHORITIES, AUTHORITY_BYTES};

/// What is signed begins so, that it cannot be taken for anything else.
const CONTEXT: &[u8] = b"purlin-trust/1\0";

/// The authorities that are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Above that of every list before it; 0 is that of a cluster that has only had one authority.
    pub number: u64,
    /// Their certificates, as DER; the one that signs new certificates is the first.
    pub authorities: Vec<ByteBuf>,
}

/// The same with the signatures of authorities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTrust {
    /// What is signed.
    pub trust: Trust,
    /// Of [`Trust::signed_bytes`]; who believes the key of one of them, believes the list.
    pub signatures: Vec<ByteBuf>,
}

impl Trust {
    /// The bytes that are signed.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        Ok([CONTEXT, &codec::to_bytes(self)?].concat())
    }
}

impl SignedTrust {
    /// Whether it is within bounds, and names any authority.
    pub fn is_bounded(&self) -> bool {
        let authorities = &self.trust.authorities;
        let fits = |all: &[ByteBuf]| {
            all.len() <= AUTHORITIES && all.iter().all(|one| one.len() <= AUTHORITY_BYTES)
        };
        !authorities.is_empty() && fits(authorities) && fits(&self.signatures)
    }
}
