//! Keys of keyed processes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::KEY_BYTES;
use crate::name::NameError;

/// What tells the processes of a keyed kind apart: 1 to 255 bytes of UTF-8 without control
/// characters.
///
/// Cheap to clone.
///
/// ```
/// use purlin_proto::Key;
///
/// let key: Key = "anna@example.org/2026".parse()?;
/// assert_eq!(key.as_str(), "anna@example.org/2026");
/// assert_eq!(Key::from(42).as_str(), "42");
/// # Ok::<(), purlin_proto::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks and makes a key.
    pub fn new(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "key";
        match text.len() {
            0 => return Err(NameError::Empty),
            len if len > KEY_BYTES => {
                return Err(NameError::TooLong { what: WHAT, limit: KEY_BYTES, len });
            }
            _ => {}
        }
        match text.chars().find(|c| c.is_control()) {
            None => Ok(Self(text.into())),
            Some(found) => {
                let allowed = "all but control characters";
                Err(NameError::BadCharacter { what: WHAT, found, allowed })
            }
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for Key {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<u64> for Key {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<&Self> for Key {
    fn from(key: &Self) -> Self {
        key.clone()
    }
}

/// A literal key, as in `node.keyed::<Cart>("cart-42")`.
///
/// # Panics
///
/// On a text that is not a key. Text that comes from outside is parsed with [`Key::new`] instead.
impl From<&'static str> for Key {
    fn from(text: &'static str) -> Self {
        match Self::new(text) {
            Ok(key) => key,
            Err(error) => panic!("{text:?} is not a key: {error}"),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                Key::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}
