//! Values to bytes and back: the only file that names bincode.
//!
//! bincode 2.0.1 by serde, little-endian, fixed-width integers (an eighth of varint's decoding
//! time), the variant of an enum as `u32`, lengths as `u64`. Golden tests pin these bytes, so that
//! the crate behind them can be replaced.
//!
//! Decoding never panics and never believes a length that the input could not hold: the decoder's
//! byte limit is the smallest of a few steps that holds the input, and the input itself is
//! checked against the caller's limit first.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};

use crate::limits::FRAME_BYTES;
use crate::zero_copy::{Pieces, offered};

/// The limits that a decoder runs with; a type parameter in bincode, hence steps.
const STEPS: [usize; 4] = [STEP_0, STEP_1, STEP_2, FRAME_BYTES];
const STEP_0: usize = 4 << 10;
const STEP_1: usize = 64 << 10;
const STEP_2: usize = 4 << 20;

type Config<const LIMIT: usize> = Configuration<LittleEndian, Fixint, Limit<LIMIT>>;

const fn config<const LIMIT: usize>() -> Config<LIMIT> {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// Why a value could not be turned into bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value says so itself, or has no form in this codec.
    #[error("cannot be encoded: {detail}")]
    Value {
        /// The codec's words.
        detail: String,
    },
    /// More bytes than the limit.
    #[error("encodes to {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The bytes it takes.
        bytes: usize,
        /// The most it may take.
        limit: usize,
    },
}

/// Why bytes are not the expected value. Nothing of the value is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// More bytes than the caller allows.
    #[error("{bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The bytes given.
        bytes: usize,
        /// The most that may be given.
        limit: usize,
    },
    /// The bytes end too early, or have a form that the type does not.
    #[error("malformed: {detail}")]
    Malformed {
        /// The codec's words.
        detail: String,
    },
    /// The value ends before the bytes do.
    #[error("{extra} bytes too many")]
    Trailing {
        /// Bytes left over.
        extra: usize,
    },
}

impl DecodeError {
    pub(crate) fn malformed(detail: impl std::fmt::Display) -> Self {
        Self::Malformed { detail: detail.to_string() }
    }
}

/// Appends the value to a buffer. On an error the buffer is as it was.
pub fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), EncodeError> {
    let before = out.len();
    let config = config::<FRAME_BYTES>();
    let mut writer = out.writer();
    if let Err(error) = bincode::serde::encode_into_writer(value, Writer(&mut writer), config) {
        out.truncate(before);
        return Err(EncodeError::Value { detail: error.to_string() });
    }
    let bytes = out.len() - before;
    if bytes > FRAME_BYTES {
        out.truncate(before);
        return Err(EncodeError::TooLarge { bytes, limit: FRAME_BYTES });
    }
    Ok(())
}

/// As [`encode`], of whatever size, in pieces, which begin with `head`: bytes that are
/// [shared](crate::zero_copy) are one.
pub fn encode_pieces<T: Serialize + ?Sized>(
    value: &T,
    head: BytesMut,
) -> Result<Pieces, EncodeError> {
    let mut writer = InPieces { pieces: Pieces::default(), open: head };
    bincode::serde::encode_into_writer(value, Writer(&mut writer), config::<FRAME_BYTES>())
        .map_err(|error| EncodeError::Value { detail: error.to_string() })?;
    let InPieces { mut pieces, open } = writer;
    pieces.push(open.freeze());
    Ok(pieces)
}

/// As [`encode`], if the value has `most` bytes at most; else the buffer is as it was.
pub fn encode_within<T: Serialize + ?Sized>(
    value: &T,
    out: &mut BytesMut,
    most: usize,
) -> Result<Fit, EncodeError> {
    let before = out.len();
    let mut within = Within { out, most: before + most, beyond: 0, shared: false, pieces: 0 };
    let encoded =
        bincode::serde::encode_into_writer(value, Writer(&mut within), config::<FRAME_BYTES>());
    let beyond = within.beyond;
    if beyond > 0 || within.shared {
        let at_least = out.len() - before + beyond;
        out.truncate(before);
        return Ok(Fit::TooLarge { at_least });
    }
    match encoded {
        Ok(()) => Ok(Fit::Whole),
        Err(error) => {
            out.truncate(before);
            Err(EncodeError::Value { detail: error.to_string() })
        }
    }
}

/// Whether a value has found room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It has.
    Whole,
    /// It has not.
    TooLarge {
        /// Its size without what is [shared](crate::zero_copy), if it consists of few pieces, as
        /// strings and bytes do; else so much of it as was quickly counted.
        at_least: usize,
    },
}

/// The value as bytes of its own.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    encode(value, &mut out)?;
    Ok(out.freeze())
}

/// The value that these bytes are, all of them; `limit` is checked before anything is decoded.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    borrow_from_bytes(bytes, limit)
}

/// As [`from_bytes`], for a value that borrows from the bytes.
pub fn borrow_from_bytes<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    limit: usize,
) -> Result<T, DecodeError> {
    let limit = limit.min(FRAME_BYTES);
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), limit });
    }
    let step = STEPS.iter().position(|&step| bytes.len() <= step);
    let decoded = match step {
        Some(0) => bincode::serde::borrow_decode_from_slice(bytes, config::<STEP_0>()),
        Some(1) => bincode::serde::borrow_decode_from_slice(bytes, config::<STEP_1>()),
        Some(2) => bincode::serde::borrow_decode_from_slice(bytes, config::<STEP_2>()),
        _ => bincode::serde::borrow_decode_from_slice(bytes, config::<FRAME_BYTES>()),
    };
    let (value, used) = decoded.map_err(DecodeError::malformed)?;
    match bytes.len() - used {
        0 => Ok(value),
        extra => Err(DecodeError::Trailing { extra }),
    }
}

/// A buffer that takes so much and no more; what is beyond is counted.
struct Within<'a> {
    out: &'a mut BytesMut,
    most: usize,
    beyond: usize,
    /// Something shared is beyond, too.
    shared: bool,
    pieces: usize,
}

/// What is beyond is counted as long as it has few pieces: then that costs nothing.
const PIECES: usize = 1000;

impl std::io::Write for Within<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let is_full = self.beyond > 0 || self.shared;
        if !is_full && self.out.len() + bytes.len() <= self.most {
            self.out.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        if offered(bytes).is_some() {
            self.shared = true;
            return Ok(bytes.len());
        }
        self.beyond += bytes.len();
        self.pieces += 1;
        match self.pieces <= PIECES {
            true => Ok(bytes.len()),
            false => Err(std::io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A buffer that shared bytes are not copied into.
struct InPieces {
    pieces: Pieces,
    open: BytesMut,
}

impl std::io::Write for InPieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match offered(bytes) {
            Some(shared) => {
                self.pieces.push(self.open.split().freeze());
                self.pieces.push(shared);
            }
            None => self.open.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// bincode's writer over a [`bytes`] buffer.
struct Writer<'a, W>(&'a mut W);

impl<W: std::io::Write> bincode::enc::write::Writer for Writer<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0
            .write_all(bytes)
            .map_err(|error| bincode::error::EncodeError::OtherString(error.to_string()))
    }
}
