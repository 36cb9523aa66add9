//! How somebody without a certificate is taken in: one [`JoinRequest`], one [`JoinAnswer`].
//!
//! Both travel on a connection of their own (`PROTOCOL.md`, Joining), and between members in
//! [`admin::TakeIn`](crate::admin::TakeIn), when the one that was asked does not know the token.
//! The private key of whoever joins stays with it; that of the authority stays where it is.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::hello::Role;
use crate::name::{Name, NodeName};

/// Tells a token from others; not a secret. Prints in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub u64);

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for TokenId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hexadecimal = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = hexadecimal.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or_else(|| "a token's id has 16 hexadecimal digits".to_owned())
    }
}

/// What a token's bearer knows; never printed.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; 16]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Asks for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The cluster that is meant.
    pub cluster: Name,
    /// The token that allows it.
    pub token: TokenId,
    /// Proves that it is borne.
    pub secret: Secret,
    /// What is to be joined as; the token must be for that.
    pub role: Role,
    /// The name that the certificate is to have.
    pub name: NodeName,
    /// A certification request (PKCS #10, RFC 2986) as DER: the public key, signed by its private
    /// key. Whatever else it asks for is not heeded.
    #[serde(with = "serde_bytes")]
    pub request: Vec<u8>,
}

/// What becomes of it.
pub type JoinAnswer = Result<Admission, JoinRefusal>;

/// Taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The certificate, as PEM.
    pub certificate: String,
    /// The authority's, as PEM. Whoever joins checks its fingerprint.
    pub authority: String,
}

/// Why somebody is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum JoinRefusal {
    /// No member that holds the authority's key knows it, or the secret is not the token's.
    #[error("no member knows this token{}: `purlin token list`, where it was made, tells whether it \
        still exists and a node runs there", unanswered(*silent))]
    UnknownToken {
        /// Members that should have been asked but did not answer.
        silent: u32,
    },
    /// Its time is over, by the clock of the member that made it.
    #[error("the token expired {ago_s} s ago: make a new one with `purlin token create`")]
    Expired {
        /// For how many seconds.
        ago_s: u64,
    },
    /// It was revoked.
    #[error("the token was revoked: make a new one with `purlin token create`")]
    Revoked,
    /// It has let in as many as it may.
    #[error(
        "the token is used up, it was good for {uses}: make a new one with `purlin token create`"
    )]
    UsedUp {
        /// How many.
        uses: u32,
    },
    /// It is for something else.
    #[error("the token is for {}, not for something else", role.article())]
    Role {
        /// What it is for.
        role: Role,
    },
    /// Another cluster.
    #[error("it belongs to cluster {theirs:?}: check --cluster and the seed addresses")]
    Cluster {
        /// The cluster of the refusing side.
        theirs: Name,
    },
    /// A live member has this name.
    #[error("the name {name} is taken by a live member at {address}: choose another --name")]
    NameTaken {
        /// The name.
        name: NodeName,
        /// Where its holder is.
        address: SocketAddr,
    },
    /// The certification request is none, or of a kind of key that is not signed.
    #[error("the certification request cannot be signed: {detail}")]
    Request {
        /// What is wrong with it.
        detail: String,
    },
    /// The member that made the token could not do its part; the token is as it was, or has one use
    /// less for the same key.
    #[error("the member that made the token could not do its part: {detail}")]
    Failed {
        /// What went wrong.
        detail: String,
    },
    /// Too many ask at once.
    #[error("too many join at once: try again")]
    Busy,
}

fn unanswered(members: u32) -> String {
    match members {
        0 => String::new(),
        members => format!(" ({members} did not answer)"),
    }
}

impl Role {
    /// How people call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }

    /// The same with its article.
    pub fn article(self) -> &'static str {
        match self {
            Self::Node => "a node",
            Self::Client => "a client",
            Self::Operator => "an operator",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let printed = format!("{:?}", Secret([b's'; 16]));
        assert_eq!(printed, "Secret(…)");
    }

    #[test]
    fn an_id_is_read_as_it_is_printed() {
        let id = TokenId(0x00ab_cdef_0123_4567);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", "+0abcdef01234567", "00abcdef012345678", "00abcdeg01234567"] {
            assert!(bad.parse::<TokenId>().is_err(), "{bad}");
        }
    }
}
