//! Numbers of certificates.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::SERIAL_BYTES;

/// The number of a certificate, which its authority gives it (RFC 5280, section 4.1.2.2). Prints in
/// hexadecimal.
///
/// Those that Purlin makes are 16 bytes: 6 with the milliseconds since 1970 when it was made,
/// big-endian, and 10 by chance.
///
/// ```
/// use purlin_proto::Serial;
///
/// let serial = Serial::new(1_763_700_000_000, [7; 10]);
/// assert_eq!(serial.to_string(), "019aa4b6450007070707070707070707");
/// assert_eq!(serial.to_string().parse(), Ok(serial.clone()));
/// assert_eq!(serial.made_ms(), Some(1_763_700_000_000));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Box<[u8]>);

/// Why a text is no serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a certificate's serial is 1 to {SERIAL_BYTES} bytes in hexadecimal")]
pub struct SerialError;

impl Serial {
    /// A number for a certificate that is made now.
    pub fn new(now_ms: u64, chance: [u8; 10]) -> Self {
        Self([&now_ms.to_be_bytes()[2..], &chance].concat().into())
    }

    /// The number in a certificate. What is longer than any may be is cut.
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes[..bytes.len().min(SERIAL_BYTES)].into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// When it was made, in milliseconds since 1970, if it is one of ours.
    pub fn made_ms(&self) -> Option<u64> {
        let bytes: [u8; 16] = (*self.0).try_into().ok()?;
        Some(u64::from_be_bytes(bytes[..8].try_into().expect("8 bytes")) >> 16)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        let text = text.as_bytes();
        let long = !text.len().is_multiple_of(2) || text.len() > 2 * SERIAL_BYTES;
        if text.is_empty() || long {
            return Err(SerialError);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let byte = |pair: &[u8]| Some(16 * digit(pair[0])? + digit(pair[1])?);
        let bytes: Option<Vec<u8>> = text.chunks(2).map(byte).collect();
        bytes.map(|bytes| Self(bytes.into())).ok_or(SerialError)
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let serial: Self = text.parse().map_err(de::Error::custom)?;
        // There is one way to write what is signed.
        let other = || de::Error::custom("a certificate's serial in capitals");
        if serial.to_string() == text { Ok(serial) } else { Err(other()) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn what_is_no_serial_is_said_to_be_none() {
        for text in ["", "0", "0g", "ab c", "é0", &"00".repeat(SERIAL_BYTES + 1)] {
            assert_eq!(text.parse::<Serial>(), Err(SerialError), "{text}");
        }
        assert_eq!(Serial::of(&[1; 8]).made_ms(), None);
        assert_eq!(Serial::of(&[1; 99]).as_bytes().len(), SERIAL_BYTES);
    }

    #[test]
    fn people_may_type_capitals_and_nodes_write_a_serial_in_one_way() {
        assert_eq!("0AfF".parse(), Ok(Serial::of(&[0x0a, 0xff])));
        let read = |text: &str| codec::from_bytes::<Serial>(&codec::to_bytes(text).unwrap(), 100);
        assert_eq!(read("0aff"), Ok(Serial::of(&[0x0a, 0xff])));
        assert!(read("0AFF").is_err());
    }
}
