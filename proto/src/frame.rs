//! The frames of an established connection and their fixed numbers.
//!
//! | number | frame | rides on | who sends it |
//! |---|---|---|---|
//! | `0x10`–`0x20` | a [`Signal`](crate::Signal) in its envelope | lanes | nodes |
//! | `0x21` | stop: a receiver is full | control stream | nodes |
//! | `0x22` | go on: it has room | control stream | nodes |
//! | `0x30` | gossip | datagrams | nodes |
//! | `0x31` | membership state | control stream | nodes |
//! | `0x32` | entries of nodes about their processes | control stream | nodes |
//! | `0x33` | leases, and what voters say to each other | control stream | nodes |
//! | `0x40` | a client's [`Request`] | lanes | clients |
//! | `0x41` | what a node tells its client, an [`Update`] | lanes | nodes |
//! | `0x50` | ping: provokes a packet in answer, means nothing | datagrams | nodes |
//!
//! Numbers are never changed and never reused. What is unknown is an error of the sender: within
//! one agreed protocol version both sides know the same numbers.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::codec::{self, DecodeError, EncodeError};
use crate::limits::{FRAME_BYTES, STATE_BYTES};
use crate::session::{Request, Update};
use crate::signal::{Envelope, Target};

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// A signal between processes.
    Envelope(Envelope),
    /// Messages for this receiver are to wait at their senders; [`Target::Node`] for all receivers.
    Stop(Target),
    /// They may come again.
    GoOn(Target),
    /// A datagram of the membership protocol.
    Gossip(Bytes),
    /// State of the membership protocol.
    State(Bytes),
    /// What nodes say of their own processes, and how far they have heard of others'.
    Owned(Bytes),
    /// What concerns what may run only once: leases, and what voters say to each other.
    Exclusive(Bytes),
    /// A client wants something.
    Request(Request),
    /// A node tells its client something.
    Update(Update),
    /// Provokes a packet in answer.
    Ping,
}

const STOP: u8 = 0x21;
const GO_ON: u8 = 0x22;
const GOSSIP: u8 = 0x30;
const STATE: u8 = 0x31;
const OWNED: u8 = 0x32;
const EXCLUSIVE: u8 = 0x33;
const REQUEST: u8 = 0x40;
const UPDATE: u8 = 0x41;
const PING: u8 = 0x50;

impl Frame {
    /// Appends the frame to a buffer, which on an error is as it was.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::Envelope(envelope) => envelope.encode(out),
            Self::Stop(target) => put_target(STOP, target, out),
            Self::GoOn(target) => put_target(GO_ON, target, out),
            Self::Gossip(bytes) => put(GOSSIP, bytes, out),
            Self::State(bytes) => put(STATE, bytes, out),
            Self::Owned(bytes) => put(OWNED, bytes, out),
            Self::Exclusive(bytes) => put(EXCLUSIVE, bytes, out),
            Self::Request(request) => put_value(REQUEST, request, out),
            Self::Update(update) => put_value(UPDATE, update, out),
            Self::Ping => put(PING, &[], out),
        }
    }

    /// The frame as bytes of its own.
    pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        self.encode(&mut out)?;
        Ok(out.freeze())
    }

    /// Reads a frame.
    pub fn decode(mut frame: Bytes) -> Result<Self, DecodeError> {
        let Some(&number) = frame.first() else {
            return Err(DecodeError::malformed("an empty frame"));
        };
        if (0x10..=0x20).contains(&number) {
            return Envelope::decode(frame).map(Self::Envelope);
        }
        frame.advance(1);
        match number {
            STOP => Target::decode_one(frame).map(Self::Stop),
            GO_ON => Target::decode_one(frame).map(Self::GoOn),
            GOSSIP => Ok(Self::Gossip(frame)),
            STATE | OWNED | EXCLUSIVE if frame.len() > STATE_BYTES => {
                Err(DecodeError::TooLarge { bytes: frame.len(), limit: STATE_BYTES })
            }
            STATE => Ok(Self::State(frame)),
            OWNED => Ok(Self::Owned(frame)),
            EXCLUSIVE => Ok(Self::Exclusive(frame)),
            REQUEST => codec::from_bytes(&frame, FRAME_BYTES).map(Self::Request),
            UPDATE => codec::from_bytes(&frame, FRAME_BYTES).map(Self::Update),
            PING if frame.is_empty() => Ok(Self::Ping),
            PING => Err(DecodeError::Trailing { extra: frame.len() }),
            unknown => Err(DecodeError::malformed(format_args!("unknown frame {unknown:#04x}"))),
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as its siblings")]
fn put_target(number: u8, target: &Target, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u8(number);
    target.encode(out);
    Ok(())
}

fn put(number: u8, bytes: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    if bytes.len() >= FRAME_BYTES {
        return Err(EncodeError::TooLarge { bytes: bytes.len() + 1, limit: FRAME_BYTES });
    }
    out.reserve(1 + bytes.len());
    out.put_u8(number);
    out.put_slice(bytes);
    Ok(())
}

fn put_value<T: serde::Serialize>(
    number: u8,
    value: &T,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let before = out.len();
    out.put_u8(number);
    codec::encode(value, out).inspect_err(|_| out.truncate(before))
}
