//! What membership says on the wire.
//!
//! Datagrams are foca's: a header, then members, each `u16 length | bytes`. On the control stream
//! goes [`Said`].

use bytes::{Buf, BufMut};
use foca::{Codec, Header};
use purlin_proto::codec::{self, DecodeError};
use purlin_proto::limits::DATAGRAM_BYTES;
use purlin_proto::{Labels, NodeId, NodeName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A life of a node and where it is: what foca calls an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
}

impl foca::Identity for Life {
    type Addr = NodeName;

    /// Coming back is not for foca to decide.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> NodeName {
        self.id.name
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.id.creation > adversary.id.creation
    }
}

/// What goes on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// All that the sender knows.
    Full {
        members: Vec<foca::Member<Life>>,
        labels: Vec<(NodeId, Labels)>,
        /// Whether the receiver is to answer with all it knows.
        answer: bool,
    },
    /// A digest of all that the sender knows.
    Digest(u64),
    /// The sender is leaving.
    Leaving,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct FocaCodec;

fn put<T: Serialize>(value: &T, mut out: impl BufMut) -> Result<(), DecodeError> {
    let malformed = |detail: String| DecodeError::Malformed { detail };
    let bytes = codec::to_bytes(value).map_err(|error| malformed(error.to_string()))?;
    let length = u16::try_from(bytes.len()).map_err(|error| malformed(error.to_string()))?;
    if out.remaining_mut() < 2 + bytes.len() {
        return Err(malformed("no room".to_owned()));
    }
    out.put_u16_le(length);
    out.put_slice(&bytes);
    Ok(())
}

fn take<T: DeserializeOwned>(mut from: impl Buf) -> Result<T, DecodeError> {
    let short = || DecodeError::Malformed { detail: "it ends too early".to_owned() };
    if from.remaining() < 2 {
        return Err(short());
    }
    let length = usize::from(from.get_u16_le());
    if from.remaining() < length {
        return Err(short());
    }
    let bytes = from.copy_to_bytes(length);
    codec::from_bytes(&bytes, DATAGRAM_BYTES)
}

impl Codec<Life> for FocaCodec {
    type Error = DecodeError;

    fn encode_header(
        &mut self,
        header: &Header<Life>,
        buf: impl BufMut,
    ) -> Result<(), DecodeError> {
        put(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Life>, DecodeError> {
        take(buf)
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Life>,
        buf: impl BufMut,
    ) -> Result<(), DecodeError> {
        put(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Life>, DecodeError> {
        take(buf)
    }
}

/// The life that a datagram says it comes from.
pub(super) fn source(datagram: &[u8]) -> Option<Life> {
    FocaCodec.decode_header(datagram).ok().map(|header| header.src)
}
