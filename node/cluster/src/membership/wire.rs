//! What membership says on the wire.
//!
//! Datagrams are foca's but for the header: a [`Heading`], `u16 count` (big-endian), then so many
//! members, each `u16 length | bytes`. On the control stream goes [`Said`].

use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Message};
use purlin_proto::codec::{self, DecodeError};
use purlin_proto::limits::DATAGRAM_BYTES;
use purlin_proto::{Labels, NodeId, NodeName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::State;

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

/// What foca knows of a life.
pub(super) type Update = foca::Member<Life>;

/// What goes on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// All that the sender knows.
    Full {
        members: Vec<Known>,
        /// Whether the receiver is to answer with all it knows.
        answer: bool,
    },
    /// A digest of all that the sender knows.
    Digest(u64),
    /// The sender is leaving.
    Leaving,
    /// The sender suspects the receiver, in this incarnation.
    Suspected(u16),
    /// The sender is alive, in this incarnation.
    Refuted(u16),
}

/// All that the sender knows of one life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) life: Life,
    /// Of SWIM: the higher one is the newer news.
    pub(super) incarnation: u16,
    pub(super) state: State,
    /// `None` if they are not known.
    pub(super) labels: Option<Labels>,
}

impl Known {
    pub(super) fn update(&self) -> Update {
        let state = match self.state {
            State::Up => foca::State::Alive,
            State::Suspect => foca::State::Suspect,
            State::Down | State::Left => foca::State::Down,
        };
        Update::new(self.life, self.incarnation, state)
    }
}

/// What is left of foca's header: both ends are proved by the connection, and would be half of what
/// is sent.
#[derive(Debug, Serialize, Deserialize)]
struct Heading {
    incarnation: u16,
    message: Message<Life>,
}

/// A datagram, taken apart.
pub(super) struct Gossip {
    heading: Heading,
    pub(super) updates: Vec<Update>,
}

impl Gossip {
    pub(super) fn parse(datagram: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = datagram;
        let heading = take(&mut rest)?;
        let mut updates = Vec::new();
        if !rest.is_empty() {
            let count = rest.try_get_u16().map_err(|_| too_short())?;
            for _ in 0..count {
                updates.push(FocaCodec.decode_member(&mut rest)?);
            }
        }
        Ok(Self { heading, updates })
    }

    /// An empty datagram as foca wants it, with both ends.
    pub(super) fn for_foca(&self, src: Life, dst: Life) -> Result<Vec<u8>, DecodeError> {
        let Heading { incarnation, message } = &self.heading;
        let (src_incarnation, message) = (*incarnation, message.clone());
        let mut bytes = Vec::new();
        put(&Header { src, src_incarnation, dst, message }, &mut bytes)?;
        Ok(bytes)
    }
}

/// What foca writes goes out, so headers are written short; what it reads comes from
/// [`Gossip::for_foca`].
#[derive(Debug, Clone, Copy)]
pub(super) struct FocaCodec;

fn malformed(detail: &dyn std::fmt::Display) -> DecodeError {
    DecodeError::Malformed { detail: detail.to_string() }
}

fn too_short() -> DecodeError {
    malformed(&"it ends too early")
}

fn put<T: Serialize>(value: &T, mut out: impl BufMut) -> Result<(), DecodeError> {
    let bytes = codec::to_bytes(value).map_err(|error| malformed(&error))?;
    let length = u16::try_from(bytes.len()).map_err(|error| malformed(&error))?;
    if out.remaining_mut() < 2 + bytes.len() {
        return Err(malformed(&"no room"));
    }
    out.put_u16_le(length);
    out.put_slice(&bytes);
    Ok(())
}

fn take<T: DeserializeOwned>(mut from: impl Buf) -> Result<T, DecodeError> {
    let length = usize::from(from.try_get_u16_le().map_err(|_| too_short())?);
    if from.remaining() < length {
        return Err(too_short());
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
        let (incarnation, message) = (header.src_incarnation, header.message.clone());
        put(&Heading { incarnation, message }, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Life>, DecodeError> {
        take(buf)
    }

    fn encode_member(&mut self, member: &Update, buf: impl BufMut) -> Result<(), DecodeError> {
        put(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Update, DecodeError> {
        take(buf)
    }
}
