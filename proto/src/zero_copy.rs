//! Large bytes that are not copied on their way.
//!
//! A message with large [`Bytes`] in it is copied four times between two processes of different nodes
//! if nobody takes care: into the frame, into packets, out of them, and into the message again. With
//! `#[serde(with = "purlin::zero_copy")]` the first and the last fall away: the frame consists of
//! [`Pieces`], of which these bytes are one, and what is decoded is a part of the frame that has come.
//! On the wire nothing is different, and either side may do without. Between processes of one node
//! nothing is encoded, and so nothing copied, whatever a message is made of.
//!
//! ```
//! use bytes::Bytes;
//! use purlin_proto::{Codec, Payload, zero_copy};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Part {
//!     number: u64,
//!     #[serde(with = "zero_copy")]
//!     bytes: Bytes,
//! }
//!
//! let part = Part { number: 1, bytes: Bytes::from(vec![7; 1 << 20]) };
//! let payload = Payload::encode(Codec::Bincode, &part)?;
//! let read: Part = payload.decode()?;
//! assert_eq!(read.bytes, part.bytes);
//! assert_eq!(read.bytes.as_ptr_range().end, payload.bytes.as_ptr_range().end, "not a copy");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How
//!
//! serde knows no shared bytes, only slices. So who serializes them offers them beside the slice, in a
//! thread-local for the length of that call, and a writer that wants pieces takes what is offered if it
//! is the very slice it is to write. Likewise, who decodes from [`Bytes`] names them for the length of
//! the decoding, and a slice that lies in them becomes a part of them. Any other serializer or
//! deserializer sees plain bytes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserializer, Serializer};

/// Fewer bytes are cheaper copied.
const LEAST: usize = 16 << 10;

/// Bytes that were decoded without a copy keep the whole frame; so fewer than one in this many of its
/// bytes are copied.
const SHARE: usize = 4;

thread_local! {
    /// What is being serialized just now.
    static OFFERED: RefCell<Option<Bytes>> = const { RefCell::new(None) };
    /// What is being decoded from just now.
    static SOURCE: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// As plain bytes, which need not be copied.
pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    if bytes.len() < LEAST {
        return serializer.serialize_bytes(bytes);
    }
    let _offer = Named::new(&OFFERED, bytes.clone());
    serializer.serialize_bytes(bytes)
}

/// From plain bytes, as a part of what they lie in if that is known.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_bytes(Uncopied)
}

/// Takes these bytes if they have been offered.
pub(crate) fn offered(bytes: &[u8]) -> Option<Bytes> {
    if bytes.len() < LEAST {
        return None;
    }
    let is_it = |offered: &mut Bytes| offered.as_ptr_range() == bytes.as_ptr_range();
    OFFERED.with_borrow_mut(|offered| offered.take_if(is_it))
}

/// Decodes something that lies in these bytes.
pub fn reading<T>(source: &Bytes, decode: impl FnOnce() -> T) -> T {
    if source.len() < LEAST {
        return decode();
    }
    let _source = Named::new(&SOURCE, source.clone());
    decode()
}

/// The part of what is being read that a slice is.
fn part_of_source(slice: &[u8]) -> Option<Bytes> {
    SOURCE.with_borrow(|source| {
        let source =
            source.as_ref().filter(|source| slice.len() >= LEAST.max(source.len() / SHARE))?;
        let (whole, part) = (source.as_ptr_range(), slice.as_ptr_range());
        let lies_in_it = whole.start <= part.start && part.end <= whole.end;
        lies_in_it.then(|| source.slice_ref(slice))
    })
}

type Local = std::thread::LocalKey<RefCell<Option<Bytes>>>;

/// Bytes that a thread-local names until this is dropped, also by a panic in user's code.
struct Named(&'static Local, Option<Bytes>);

impl Named {
    fn new(local: &'static Local, bytes: Bytes) -> Self {
        Self(local, local.replace(Some(bytes)))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // Fails only while the thread itself is ending.
        drop(self.0.try_with(|local| local.replace(self.1.take())));
    }
}

struct Uncopied;

impl<'de> Visitor<'de> for Uncopied {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Bytes, E> {
        Ok(part_of_source(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes)))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Bytes, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

/// One frame in one or more pieces, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces(VecDeque<Bytes>);

impl Pieces {
    /// Its bytes in all.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.0.push_back(piece);
        }
    }

    /// Takes what is first, so many bytes at most; nothing is copied for it.
    pub fn take(&mut self, most: usize) -> Bytes {
        match self.0.front_mut() {
            Some(first) if first.len() > most => first.split_to(most),
            _ => self.0.pop_front().unwrap_or_default(),
        }
    }

    /// All of it in one; copied unless it is that already.
    pub fn into_bytes(mut self) -> Bytes {
        match self.0.len() {
            0 | 1 => self.0.pop_front().unwrap_or_default(),
            _ => Vec::from(self.0).concat().into(),
        }
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        let mut pieces = Self::default();
        pieces.push(bytes);
        pieces
    }
}
