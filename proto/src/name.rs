//! Names: of nodes (inline and `Copy`, because every pid carries one) and of everything else.
//!
//! Both are checked when they are made, from text or from the wire; a value of these types is
//! always valid.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{NAME_BYTES, NODE_NAME_BYTES};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than the kind of name allows.
    #[error("a {what} has at most {limit} bytes, this one has {len}")]
    TooLong {
        /// What kind of name was asked for.
        what: &'static str,
        /// The most bytes it may have.
        limit: usize,
        /// The bytes it has.
        len: usize,
    },
    /// The text has a character that this kind of name does not allow.
    #[error("a {what} must not contain {found:?}; allowed are {allowed}")]
    BadCharacter {
        /// What kind of name was asked for.
        what: &'static str,
        /// The first character that is not allowed.
        found: char,
        /// The characters that are, in words.
        allowed: &'static str,
    },
}

/// The name of a node: 1 to 32 bytes of `A-Z a-z 0-9 . _ -`, starting with a letter or digit.
///
/// Stored inline, so it is `Copy` and comparing two is four machine words; and aligned as they are, so
/// that what holds one is moved by words, not by bytes.
///
/// ```
/// use purlin_proto::NodeName;
///
/// let name: NodeName = "web-1".parse()?;
/// assert_eq!(name.as_str(), "web-1");
/// assert!("no spaces".parse::<NodeName>().is_err());
/// # Ok::<(), purlin_proto::NameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(align(8))]
pub struct NodeName([u8; NODE_NAME_BYTES]);

impl NodeName {
    /// Checks and makes a node name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "node name";
        check_length(WHAT, text, NODE_NAME_BYTES)?;
        let bad = text.chars().enumerate().find(|&(at, c)| {
            !(c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '.' | '_' | '-')))
        });
        if let Some((_, found)) = bad {
            let allowed = "letters, digits and (not first) '.', '_', '-'";
            return Err(NameError::BadCharacter { what: WHAT, found, allowed });
        }
        let mut bytes = [0; NODE_NAME_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(NODE_NAME_BYTES);
        std::str::from_utf8(&self.0[..len]).expect("a node name is ASCII by construction")
    }
}

/// The name of a process, a kind of actor, a message or a cluster: 1 to 255 bytes of UTF-8 without
/// white space, control characters, or `@ : < > /`, which destinations use.
///
/// Cheap to clone.
///
/// ```
/// use purlin_proto::Name;
///
/// let name: Name = "billing.worker-7".parse()?;
/// assert_eq!(name.as_str(), "billing.worker-7");
/// # Ok::<(), purlin_proto::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks and makes a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }

    /// Checks a text without making a name of it.
    pub fn check(text: &str) -> Result<(), NameError> {
        const WHAT: &str = "name";
        check_length(WHAT, text, NAME_BYTES)?;
        let bad = |c: char| c.is_whitespace() || c.is_control() || "@:<>/".contains(c);
        match text.chars().find(|&c| bad(c)) {
            None => Ok(()),
            Some(found) => {
                let allowed = "all but white space, control characters and any of @ : < > /";
                Err(NameError::BadCharacter { what: WHAT, found, allowed })
            }
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_length(what: &'static str, text: &str, limit: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        len if len > limit => Err(NameError::TooLong { what, limit, len }),
        _ => Ok(()),
    }
}

/// Both kinds of name print, parse, borrow and travel as their text.
macro_rules! text_traits {
    ($name:ident, $expecting:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

text_traits!(NodeName, "a node name");
text_traits!(Name, "a name");

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// A literal name, as in `ChildSpec::actor::<Counter>("hits", 0).name("hits")`.
///
/// # Panics
///
/// On a text that is not a name. Text that comes from outside is parsed with [`Name::new`] instead.
impl From<&'static str> for Name {
    fn from(text: &'static str) -> Self {
        match Self::new(text) {
            Ok(name) => name,
            Err(error) => panic!("{text:?} is not a name: {error}"),
        }
    }
}

/// A literal node name, as in `node.spawn_on::<Worker>(&"a".into(), args)`.
///
/// # Panics
///
/// On a text that is not a node name. Text that comes from outside is parsed with
/// [`NodeName::new`] instead.
impl From<&'static str> for NodeName {
    fn from(text: &'static str) -> Self {
        match Self::new(text) {
            Ok(name) => name,
            Err(error) => panic!("{text:?} is not a node name: {error}"),
        }
    }
}
