//! What a client may do: permissions, in its certificate or granted by a node, and how a request is
//! judged by them.
//!
//! Permissions only add: without one a client may connect and nothing else. An operator is not
//! judged by them. The node that a client is connected to judges each request before it does
//! anything for it; what it then sends on to other nodes is its own.
//!
//! # Grammar
//!
//! ```text
//! permission = "read"                          ask nodes how they are: what the command line shows
//!            | "call:" target                  call, send to and monitor
//!            | "send:" target                  send to and monitor
//!            | "exit:" target                  ask to end
//!            | "spawn:" kind [ "@" node ]      start processes of a kind
//!            | "subscribe:" topic              get what is published to a topic
//! target     = name [ "@" node ]               a name registered on a node; on any, if none is said
//!            | "global:" name
//!            | "group:" [ scope "/" ] name     in the default scope, if none is said
//!            | "topic:" name                   to publish
//!            | "key:" kind "/" key             keyed processes
//!            | "kind:" kind                    processes of a kind, addressed by their pid
//!            | "pid:" node                     any process of a node, addressed by its pid
//! ```
//!
//! All words in small letters but `read` are patterns: a `*` stands for any characters, also none;
//! everything else for itself. There is no way to forbid what another permission allows.
//!
//! Messages named `node.…` and `purlin.…` are Purlin's own: whatever else a client may send to, of
//! those it may send what `read` covers, look up what it may send to, and subscribe itself to what it
//! may subscribe to. All others are an operator's.
//!
//! # In a certificate
//!
//! Each permission is a URI, `purlin-may:` and its text, percent-encoded (RFC 3986, section 2.1). A
//! permission that a node does not understand, since it is of a newer version, allows nothing there.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use crate::group::Group;
use crate::key::Key;
use crate::limits::{NODE_NAME_BYTES, PERMISSION_BYTES, PERMISSIONS};
use crate::name::{Name, NameError};

mod granted;
mod judge;
mod pattern;

pub use granted::GrantedPermissions;
pub use judge::{Asker, Verdict};
use pattern::Pattern;

/// What stands before a permission in a certificate.
const URI: &str = "purlin-may:";

/// One thing that a client may do; its text is described at the head of `permission.rs`, and in
/// `PROTOCOL.md`.
///
/// ```
/// use purlin_proto::Permission;
///
/// let may: Permission = "call:global:shop-*".parse()?;
/// assert_eq!(may.to_string(), "call:global:shop-*");
/// assert!("call:nonsense:x".parse::<Permission>().is_err());
/// # Ok::<(), purlin_proto::PermissionError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    text: Arc<str>,
    rule: Rule,
}

/// A permission, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Read,
    Call(Target),
    Send(Target),
    Exit(Target),
    Spawn { kind: Pattern, node: Pattern },
    Subscribe(Pattern),
}

/// Whom a permission is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Name { name: Pattern, node: Pattern },
    Global(Pattern),
    Group { scope: Pattern, name: Pattern },
    Topic(Pattern),
    Key { kind: Pattern, key: Pattern },
    Kind(Pattern),
    Pid { node: Pattern },
}

/// All that a client may do, in any order.
///
/// Cheap to clone. Empty by default, which allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    known: Arc<[Permission]>,
    partial: bool,
}

/// Why a text is not a permission, or there are too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PermissionError {
    /// It begins as none.
    #[error(
        "{text:?} is not a permission: those are read, call:TARGET, send:TARGET, exit:TARGET, \
         spawn:KIND and subscribe:TOPIC, as in call:hits, send:topic:news"
    )]
    Verb {
        /// What was given.
        text: String,
    },
    /// What it is about is none of the forms that there are.
    #[error(
        "{text:?} is not a permission: a target is NAME, NAME@NODE, global:NAME, group:NAME, \
         topic:NAME, key:KIND/KEY, kind:KIND or pid:NODE, each with * for any characters"
    )]
    Target {
        /// What was given.
        text: String,
    },
    /// A name in it cannot be one.
    #[error("{text:?} is not a permission: {source}")]
    Name {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A certificate has no room for it.
    #[error("a permission has at most {PERMISSION_BYTES} bytes, percent-encoded")]
    TooLong,
    /// A certificate has room for less.
    #[error("a client has at most {PERMISSIONS} permissions: use patterns, as in call:shop-*")]
    TooMany,
}

impl FromStr for Permission {
    type Err = PermissionError;

    fn from_str(text: &str) -> Result<Self, PermissionError> {
        let rule = Rule::parse(text)?;
        let permission = Self { text: text.into(), rule };
        match permission.to_uri().len() - URI.len() {
            0..=PERMISSION_BYTES => Ok(permission),
            _ => Err(PermissionError::TooLong),
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Permission {
    /// The URI that a certificate carries for it.
    pub fn to_uri(&self) -> String {
        let mut uri = URI.to_owned();
        for byte in self.text.bytes() {
            let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte);
            // Writing to a String cannot fail.
            let _ =
                if plain { uri.write_char(char::from(byte)) } else { write!(uri, "%{byte:02X}") };
        }
        uri
    }

    /// Reads a URI of a certificate: `None` if it is about something else, an error if it is a
    /// permission that is not understood.
    pub fn from_uri(uri: &str) -> Option<Result<Self, PermissionError>> {
        let encoded = uri.strip_prefix(URI)?;
        if encoded.len() > PERMISSION_BYTES {
            return Some(Err(PermissionError::TooLong));
        }
        let verb = || PermissionError::Verb { text: encoded.to_owned() };
        Some(decode(encoded).ok_or_else(verb).and_then(|text| text.parse()))
    }
}

fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(16 * high + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

impl Rule {
    fn parse(text: &str) -> Result<Self, PermissionError> {
        let verb = || PermissionError::Verb { text: text.to_owned() };
        if text == "read" {
            return Ok(Self::Read);
        }
        let bad = |source| PermissionError::Name { text: text.to_owned(), source };
        let (word, rest) = text.split_once(':').ok_or_else(verb)?;
        let target = || Target::parse(rest, text);
        match word {
            "call" => Ok(Self::Call(target()?)),
            "send" => Ok(Self::Send(target()?)),
            "exit" => Ok(Self::Exit(target()?)),
            "subscribe" => Ok(Self::Subscribe(name(rest).map_err(bad)?)),
            "spawn" => {
                let (kind, at) = rest.split_once('@').unwrap_or((rest, "*"));
                let (kind, node) = (name(kind).map_err(bad)?, node(at).map_err(bad)?);
                Ok(Self::Spawn { kind, node })
            }
            _ => Err(verb()),
        }
    }
}

impl Target {
    fn parse(target: &str, text: &str) -> Result<Self, PermissionError> {
        let bad = |source| PermissionError::Name { text: text.to_owned(), source };
        let unknown = || PermissionError::Target { text: text.to_owned() };
        let Some((form, rest)) = target.split_once(':') else {
            let (named, at) = target.split_once('@').unwrap_or((target, "*"));
            return Ok(Self::Name {
                name: name(named).map_err(bad)?,
                node: node(at).map_err(bad)?,
            });
        };
        Ok(match form {
            "global" => Self::Global(name(rest).map_err(bad)?),
            "topic" => Self::Topic(name(rest).map_err(bad)?),
            "kind" => Self::Kind(name(rest).map_err(bad)?),
            "pid" => Self::Pid { node: node(rest).map_err(bad)? },
            "group" => {
                let default = Group::default_scope();
                let (scope, named) = rest.split_once('/').unwrap_or((default.as_str(), rest));
                Self::Group { scope: name(scope).map_err(bad)?, name: name(named).map_err(bad)? }
            }
            "key" => {
                let (kind, key) = rest.split_once('/').ok_or_else(unknown)?;
                Key::new(key).map_err(bad)?;
                Self::Key { kind: name(kind).map_err(bad)?, key: Pattern::new(key) }
            }
            _ => return Err(unknown()),
        })
    }
}

/// A pattern of names: a name may have a `*` itself.
fn name(text: &str) -> Result<Pattern, NameError> {
    Name::check(text)?;
    Ok(Pattern::new(text))
}

/// A pattern of node names.
fn node(text: &str) -> Result<Pattern, NameError> {
    const WHAT: &str = "pattern of node names";
    match text.len() {
        0 => return Err(NameError::Empty),
        len if len > NODE_NAME_BYTES => {
            return Err(NameError::TooLong { what: WHAT, limit: NODE_NAME_BYTES, len });
        }
        _ => {}
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-*".contains(*c))) {
        None => Ok(Pattern::new(text)),
        Some(found) => {
            let allowed = "letters, digits, '.', '_', '-' and '*'";
            Err(NameError::BadCharacter { what: WHAT, found, allowed })
        }
    }
}

impl Permissions {
    /// All of these.
    pub fn new(permissions: Vec<Permission>) -> Result<Self, PermissionError> {
        match permissions.len() {
            0..=PERMISSIONS => Ok(Self { known: permissions.into(), partial: false }),
            _ => Err(PermissionError::TooMany),
        }
    }

    /// Those in the URIs of a certificate. What is not understood allows nothing; too many are an
    /// error.
    pub fn from_uris<'a>(uris: impl Iterator<Item = &'a str>) -> Result<Self, PermissionError> {
        let (mut known, mut count) = (Vec::new(), 0);
        for permission in uris.filter_map(Permission::from_uri) {
            count += 1;
            if count > PERMISSIONS {
                return Err(PermissionError::TooMany);
            }
            known.extend(permission.ok());
        }
        let partial = known.len() < count;
        Ok(Self { known: known.into(), partial })
    }

    /// Those that these texts say, as they are told to a client. What is not understood allows
    /// nothing.
    pub fn from_texts<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let (known, unknown): (Vec<_>, Vec<_>) = texts.map(str::parse).partition(Result::is_ok);
        Self { known: known.into_iter().flatten().collect(), partial: !unknown.is_empty() }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Permission> {
        self.known.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether there are others that are not understood here; a newer node may.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.known.iter().map(|permission| &permission.rule)
    }
}

#[cfg(test)]
mod tests;
