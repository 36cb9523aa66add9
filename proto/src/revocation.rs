//! Certificates that are not believed any more, and how nodes tell each other of them.
//!
//! Each revocation is signed by the authority by itself, so nobody can take one back, a set is
//! merged with another by taking both, and whoever holds the authority's key can revoke without
//! asking others who do. A revocation ends when no certificate that it covers is valid any more.

use serde::{Deserialize, Serialize};

use crate::codec::{self, EncodeError};
use crate::hello::Role;
use crate::limits::REVOCATIONS;
use crate::name::NodeName;
use crate::serial::Serial;
use crate::trust::SignedTrust;

/// What is signed begins so, that it cannot be taken for anything else.
const CONTEXT: &[u8] = b"purlin-revocation/1\0";

/// Which certificates are not believed any more, and since when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revocation {
    /// Which certificates.
    pub what: Revoked,
    /// When it was revoked, in milliseconds since 1970 by the clock of who signed it.
    pub at_ms: u64,
    /// When all of them will have expired, with a margin; then it is forgotten.
    pub until_ms: u64,
}

/// What can be revoked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Revoked {
    /// One certificate.
    Serial(Serial),
    /// All of one holder that were made before or at a time.
    Holder {
        /// What they let it be.
        role: Role,
        /// Whose they are.
        name: NodeName,
        /// In milliseconds since 1970, compared with [`Serial::made_ms`]. A certificate whose number
        /// does not say when it was made is from before numbers did.
        made_until_ms: u64,
    },
}

/// A revocation with the authority's signature.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SignedRevocation {
    /// What is signed.
    pub revocation: Revocation,
    /// Of [`Revocation::signed_bytes`], by the authority's key: ECDSA as ASN.1, or Ed25519.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

impl Revocation {
    /// The bytes that are signed.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        Ok([CONTEXT, &codec::to_bytes(self)?].concat())
    }

    /// Whether a certificate is among those that are revoked.
    pub fn covers(&self, role: Role, name: NodeName, serial: &Serial) -> bool {
        match &self.what {
            Revoked::Serial(revoked) => revoked == serial,
            Revoked::Holder { role: of, name: whose, made_until_ms } => {
                let made = serial.made_ms();
                *of == role && *whose == name && made.is_none_or(|made| made <= *made_until_ms)
            }
        }
    }
}

impl std::fmt::Display for Revoked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "{serial}"),
            Self::Holder { role, name, .. } => write!(f, "{}:{name}", role.word()),
        }
    }
}

/// What nodes say to each other of certificates: the body of a frame `0x36`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Saying {
    /// What the sender knows, in short. Whoever knows other ones answers with them, and with this
    /// if it is not an answer itself.
    Know {
        /// Of all signatures that it has, each hashed, together.
        digest: u64,
        /// Whether this answers another.
        answer: bool,
    },
    /// Revocations; some of them may be known.
    These(Vec<SignedRevocation>),
    /// The sender has a new certificate, while the connection has begun with the one before.
    Renewed {
        /// When it expires, in milliseconds since 1970.
        expires_ms: u64,
    },
    /// Other authorities are believed than the cluster has begun with. Whoever knows of a higher
    /// number answers with that.
    Trusted(SignedTrust),
}

impl Saying {
    /// Whether it is within bounds.
    pub fn is_bounded(&self) -> bool {
        match self {
            Self::Know { .. } | Self::Renewed { .. } => true,
            Self::These(all) => all.len() <= REVOCATIONS,
            Self::Trusted(signed) => signed.is_bounded(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(made_until_ms: u64) -> Revocation {
        let what = Revoked::Holder { role: Role::Client, name: "c".into(), made_until_ms };
        Revocation { what, at_ms: 5, until_ms: 9 }
    }

    #[test]
    fn a_holders_certificates_are_revoked_up_to_a_time_and_its_later_ones_are_not() {
        let revocation = holder(1_000);
        let covers = |role, name: &'static str, serial: &Serial| {
            revocation.covers(role, name.into(), serial)
        };
        assert!(covers(Role::Client, "c", &Serial::new(1_000, [0; 10])));
        assert!(!covers(Role::Client, "c", &Serial::new(1_001, [0; 10])));
        assert!(covers(Role::Client, "c", &Serial::of(&[1, 2, 3])), "of before numbers had times");
        assert!(!covers(Role::Client, "d", &Serial::new(1, [0; 10])));
        assert!(!covers(Role::Node, "c", &Serial::new(1, [0; 10])));
    }

    #[test]
    fn one_certificate_is_revoked_by_its_number() {
        let serial = Serial::new(7, [1; 10]);
        let what = Revoked::Serial(serial.clone());
        let revocation = Revocation { what, at_ms: 5, until_ms: 9 };
        assert!(revocation.covers(Role::Node, "a".into(), &serial));
        assert!(!revocation.covers(Role::Node, "a".into(), &Serial::new(7, [2; 10])));
    }

    #[test]
    fn the_bytes_of_revocations_are_what_they_always_were() {
        let text = |bytes: &[u8]| {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
        };
        let serial = Revoked::Serial(Serial::new(7, [1; 10]));
        let serial = Revocation { what: serial, at_ms: 5, until_ms: 9 };
        let signed = SignedRevocation { revocation: holder(1), signature: vec![3; 4] };
        let know = codec::to_bytes(&Saying::Know { digest: 8, answer: true }).expect("plain");
        let these = codec::to_bytes(&Saying::These(vec![signed])).expect("plain");
        insta::assert_snapshot!(
            [
                text(&holder(1_000).signed_bytes().expect("plain")),
                text(&serial.signed_bytes().expect("plain")),
                text(&know),
                text(&these),
                text(&codec::to_bytes(&Saying::Renewed { expires_ms: 9 }).expect("plain")),
            ]
            .join("\n")
        );
    }
}
