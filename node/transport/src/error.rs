//! How binding and dialing can fail.

use std::net::SocketAddr;

use purlin_proto::{NodeName, Refusal};

/// Why an endpoint was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program has the address.
    #[error("{0} is in use: choose another address, or port 0 for any free one")]
    InUse(SocketAddr),
    /// The address cannot be had for another reason.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address asked for.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// The credentials cannot be used.
    #[error("the credentials cannot be used: {0}")]
    Credentials(String),
}

/// Why there is no connection to an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nothing answered in time.
    #[error("no answer: is a node running there, and may UDP pass?")]
    NoAnswer,
    /// The far end's certificate is not good for us.
    #[error("the certificate of the far end is refused: {0}")]
    TheirCertificate(String),
    /// The far end refused our certificate.
    #[error("the far end refuses our certificate: {0}")]
    OurCertificate(String),
    /// The far end refused us after it knew who we are.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// We refused the far end.
    #[error("the far end is not acceptable: {0}")]
    Unacceptable(Refusal),
    /// The endpoint has dialed itself.
    #[error("it is this node itself")]
    Itself,
    /// Another node than the expected one answers there.
    #[error("{found} answers there, not {expected}")]
    Unexpected {
        /// Who was expected.
        expected: NodeName,
        /// Who answers.
        found: NodeName,
    },
    /// The connection was lost while it was made.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The endpoint is closed.
    #[error("this endpoint is closed")]
    Closed,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// Silence, or a reset: the far end may be dead, or cut off.
    Lost(String),
    /// The far end ended it and said why.
    Remote(Refusal),
    /// We ended it.
    Local(Refusal),
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(detail) => write!(f, "lost: {detail}"),
            Self::Remote(refusal) => write!(f, "closed by the far end: {refusal}"),
            Self::Local(refusal) => write!(f, "closed here: {refusal}"),
        }
    }
}

/// Why a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream ended: {0}")]
pub(crate) struct StreamEnded(pub(crate) String);
