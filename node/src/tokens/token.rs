//! A join token, and its text.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use purlin_proto::Role;
use purlin_proto::join::{Secret, TokenId};
use purlin_transport::Fingerprint;

/// Bytes of the text: id, secret, fingerprint, checksum.
const BYTES: usize = 8 + 16 + 32 + CHECKSUM;
const CHECKSUM: usize = 4;

/// What lets a node or a client in, made by `purlin token create`.
///
/// Whoever has it can join until it is used up, over or revoked: keep it as a password. Its text is
/// `purlin-node-`, `purlin-client-` or `purlin-operator-` and 80 letters, digits, `-` and `_`; the last of them are a
/// checksum, so that a typo is told from a token that is refused. Its `Debug` hides the secret.
///
/// ```
/// let typo = "purlin-node-AAAA".parse::<purlin::Token>();
/// assert_eq!(typo, Err(purlin::TokenError::Damaged));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub(crate) role: Role,
    pub(crate) id: TokenId,
    pub(crate) secret: Secret,
    /// Of the authority's certificate.
    pub(crate) authority: Fingerprint,
}

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It begins as none.
    #[error(
        "this is not a join token: those begin with purlin-node-, purlin-client- or purlin-operator-"
    )]
    Foreign,
    /// It is too short or long, or its checksum is wrong.
    #[error("the join token is cut off or has a typo: copy it again")]
    Damaged,
}

fn prefix(role: Role) -> &'static str {
    match role {
        Role::Node => "purlin-node-",
        Role::Client => "purlin-client-",
        Role::Operator => "purlin-operator-",
    }
}

/// Of the role as well, which is only in the prefix.
fn checksum(role: Role, bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = digest(&SHA256, &[prefix(role).as_bytes(), bytes].concat());
    digest.as_ref()[..CHECKSUM].try_into().expect("SHA-256 has more")
}

impl Token {
    /// What it lets its bearer be.
    pub fn role(&self) -> Role {
        self.role
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [&self.id.0.to_be_bytes()[..], &self.secret.0, &self.authority.0].concat();
        bytes.extend(checksum(self.role, &bytes));
        write!(f, "{}{}", prefix(self.role), BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let of = |role| text.trim().strip_prefix(prefix(role)).map(|rest| (role, rest));
        let roles = [Role::Node, Role::Client, Role::Operator];
        let (role, rest) = roles.into_iter().find_map(of).ok_or(TokenError::Foreign)?;
        let bytes = BASE64URL_NOPAD.decode(rest.as_bytes()).map_err(|_| TokenError::Damaged)?;
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| TokenError::Damaged)?;
        let (bytes, sum) = bytes.split_at(BYTES - CHECKSUM);
        if sum != checksum(role, bytes) {
            return Err(TokenError::Damaged);
        }
        let (id, rest) = bytes.split_at(8);
        let (secret, authority) = rest.split_at(16);
        Ok(Self {
            role,
            id: TokenId(u64::from_be_bytes(id.try_into().expect("8 bytes"))),
            secret: Secret(secret.try_into().expect("16 bytes")),
            authority: Fingerprint(authority.try_into().expect("32 bytes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> impl Strategy<Value = Token> {
        let roles = prop::sample::select(vec![Role::Node, Role::Client, Role::Operator]);
        (roles, any::<u64>(), any::<[u8; 16]>(), any::<[u8; 32]>()).prop_map(
            |(role, id, secret, authority)| Token {
                role,
                id: TokenId(id),
                secret: Secret(secret),
                authority: Fingerprint(authority),
            },
        )
    }

    proptest! {
        #[test]
        fn a_token_is_read_as_it_is_printed(token in tokens()) {
            let text = token.to_string();
            prop_assert_eq!(text.parse(), Ok(token.clone()));
            prop_assert_eq!(format!(" {text}\n").parse(), Ok(token));
        }

        #[test]
        fn a_typo_is_told(token in tokens(), at in 0_usize..96, other in "[a-zA-Z0-9_-]") {
            let text = token.to_string();
            let mut typo = text.clone();
            let at = at.min(text.len() - 1);
            typo.replace_range(at..=at, &other);
            prop_assume!(typo != text);
            prop_assert!(typo.parse::<Token>().is_err(), "{}", typo);
        }

        #[test]
        fn a_part_of_a_token_is_damaged_and_nothing_panics(token in tokens(), end in 16_usize..96) {
            let text = token.to_string();
            let cut = &text[..end.min(text.len() - 1)];
            prop_assert!(cut.parse::<Token>().is_err());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            prop_assert!(text.parse::<Token>().is_err());
        }
    }

    #[test]
    fn a_tokens_text_stays_what_it_is() {
        let token = Token {
            role: Role::Client,
            id: TokenId(1),
            secret: Secret([2; 16]),
            authority: Fingerprint([3; 32]),
        };
        insta::assert_snapshot!(token.to_string());
    }

    #[test]
    fn one_role_is_not_made_of_the_other() {
        let token = Token {
            role: Role::Client,
            id: TokenId(1),
            secret: Secret([2; 16]),
            authority: Fingerprint([3; 32]),
        };
        let forged = token.to_string().replace("purlin-client-", "purlin-node-");
        assert_eq!(forged.parse::<Token>(), Err(TokenError::Damaged));
    }
}
