//! The body of a message on its way: a codec tag and bytes.

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, EncodeError};
use crate::limits::FRAME_BYTES;
use crate::zero_copy;

/// How the bytes of a payload are to be read. A reply comes in the codec of its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Codec {
    /// Between Rust programs.
    Bincode = 1,
    /// For the command line, browsers and scripts.
    Json = 2,
}

impl Codec {
    /// The codec with this number on the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Bincode),
            2 => Some(Self::Json),
            _ => None,
        }
    }
}

/// An encoded message or reply.
///
/// ```
/// use purlin_proto::{Codec, Payload};
///
/// let json = Payload::encode(Codec::Json, &(1, "one"))?;
/// assert_eq!(&json.bytes[..], br#"[1,"one"]"#);
/// assert_eq!(json.decode::<(i32, String)>()?, (1, "one".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// How to read the bytes.
    pub codec: Codec,
    /// The encoded value.
    #[serde(with = "zero_copy")]
    pub bytes: Bytes,
}

impl Payload {
    /// Encodes a value, at most [`FRAME_BYTES`].
    pub fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Self, EncodeError> {
        let mut bytes = BytesMut::new();
        Self::encode_into(codec, value, &mut bytes)?;
        Ok(Self { codec, bytes: bytes.freeze() })
    }

    /// Appends the bytes of a value to a buffer, which on an error is as it was.
    pub fn encode_into<T: Serialize + ?Sized>(
        codec: Codec,
        value: &T,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        match codec {
            Codec::Bincode => codec::encode(value, out),
            Codec::Json => {
                let before = out.len();
                let written = serde_json::to_writer(out.writer(), value);
                let bytes = out.len() - before;
                let error = match written {
                    Ok(()) if bytes <= FRAME_BYTES => return Ok(()),
                    Ok(()) => EncodeError::TooLarge { bytes, limit: FRAME_BYTES },
                    Err(error) => EncodeError::Value { detail: error.to_string() },
                };
                out.truncate(before);
                Err(error)
            }
        }
    }

    /// Decodes the value; all bytes must belong to it.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        zero_copy::reading(&self.bytes, || Self::decode_from(self.codec, &self.bytes))
    }

    /// As [`decode`](Self::decode), from bytes that are no payload of their own.
    pub fn decode_from<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> Result<T, DecodeError> {
        match codec {
            Codec::Bincode => codec::from_bytes(bytes, FRAME_BYTES),
            Codec::Json => serde_json::from_slice(bytes).map_err(DecodeError::malformed),
        }
    }
}
