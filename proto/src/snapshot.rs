//! What is kept of a keyed process's state.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, EncodeError};
use crate::limits::SNAPSHOT_BYTES;
use crate::zero_copy;

/// The first byte of a snapshot at rest. Another one is of a program that writes them otherwise.
const FORMAT: u8 = 1;

/// The state of a keyed process at one moment, as it is stored, and sent when its key moves.
///
/// ```
/// use purlin_proto::Snapshot;
///
/// let snapshot = Snapshot { at: 1_763_700_000_000, version: 2, state: vec![42].into() };
/// assert_eq!(Snapshot::from_bytes(&snapshot.to_bytes()?)?, snapshot);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of two of one key the one with the larger number is newer. Milliseconds since 1970, and more
    /// than that of the snapshot that the process began with, whatever the clocks of their nodes say.
    pub at: u64,
    /// The form of the state, as its actor counts them.
    pub version: u32,
    /// The state, encoded; at most [`SNAPSHOT_BYTES`].
    #[serde(with = "zero_copy")]
    pub state: Bytes,
}

impl Snapshot {
    /// As it is stored.
    pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        codec::to_bytes(&(FORMAT, self))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        /// Room for what is beside the state.
        const MORE: usize = 64;
        match bytes.first() {
            Some(&FORMAT) => {
                let read = codec::from_bytes(bytes, SNAPSHOT_BYTES + MORE);
                read.map(|(_, snapshot): (u8, Self)| snapshot)
            }
            first => Err(DecodeError::malformed(format!("a snapshot that begins with {first:?}"))),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn its_bytes_are_pinned_for_they_outlive_the_program_that_wrote_them() {
        let snapshot = Snapshot { at: 300, version: 7, state: Bytes::from_static(b"abc") };
        let bytes = snapshot.to_bytes().unwrap();
        let at_version_length = [44, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes[0], FORMAT);
        assert_eq!(bytes[1..21], at_version_length);
        assert_eq!(&bytes[21..], b"abc");
        assert_eq!(Snapshot::from_bytes(&bytes).unwrap(), snapshot);
    }

    #[test]
    fn what_is_none_is_an_error() {
        for bytes in [&[][..], &[0], &[2, 1, 1, 0], &[1], &[1, 1, 1, 5, 0], &[1, 1, 1, 0, 9]] {
            assert!(Snapshot::from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }
}
