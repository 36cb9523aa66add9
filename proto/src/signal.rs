//! What processes say to one another across nodes, and how it is written down.
//!
//! An [`Envelope`] is one signal with its addresses. Between two nodes the addresses are serials
//! only: the connection already says which life of which node each end is. The three signals that
//! carry messages are written by hand, so that a payload is neither copied nor measured twice; all
//! others are rare and go through the codec. The layout is in `PROTOCOL.md`, pinned by golden tests.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, EncodeError, Fit};
use crate::error::{CallError, SpawnError};
use crate::id::{Pid, Reference};
use crate::key::Key;
use crate::limits::{FRAME_BYTES, KEY_BYTES, NAME_BYTES, RECEIVERS, SMALL_FRAME_BYTES};
use crate::message::MessageName;
use crate::name::Name;
use crate::payload::{Codec, Payload};
use crate::reason::ExitReason;
use crate::serials::{DIFFERENCE_BYTES, Serials};
use crate::zero_copy::Pieces;

/// One signal and its two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The receiver, on the node that the connection leads to.
    pub to: Target,
    /// The serial of the sender on its node; 0 where no process speaks (the node itself).
    pub from: u64,
    /// What is said.
    pub signal: Signal,
}

/// The receiver of an envelope on its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The process with this serial.
    Serial(u64),
    /// The process that has this name when the envelope arrives.
    Name(Name),
    /// The node itself: spawn requests and what answers them.
    Node,
    /// Each of these processes, in any order: a `Send` or a `LinkDown` that is the same for all.
    Many(Serials),
    /// Every process of the node that has subscribed to a topic when the envelope arrives: a `Send`.
    Topic(Name),
    /// The process of a keyed kind for a key: a `Monitor` of the one that runs, if one does; or, for
    /// one that is started if it does not run, a `Send` or a
    /// `Call`.
    Key {
        /// The kind of actor.
        kind: Name,
        /// Which of its processes.
        key: Key,
        /// Whether a node that is not the key's owner has sent it on; it is not sent on again.
        forwarded: bool,
    },
}

/// Everything that one process, or its node, can say to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A message without an answer.
    Send {
        /// Which message.
        message: MessageName,
        /// Its body.
        payload: Payload,
        /// Whether the sender waits where there is no room, so that it must not be dropped there.
        waits: bool,
    },
    /// A message that wants an answer.
    Call {
        /// The call, on the caller's node.
        reference: Reference,
        /// What is left until the caller gives up.
        remaining: Duration,
        /// Which message.
        message: MessageName,
        /// Its body.
        payload: Payload,
    },
    /// The answer to a call.
    Reply {
        /// The call.
        reference: Reference,
        /// The reply in the codec of the question, or why there is none.
        result: Result<Payload, CallError>,
    },
    /// The sender asks the receiver to end (OTP: `exit/2`).
    Exit {
        /// The reason it should end with.
        reason: ExitReason,
    },
    /// The sender links itself to the receiver.
    Link,
    /// The sender takes a link back; what the receiver sends because of it is void until it
    /// acknowledges.
    Unlink {
        /// Names this request.
        reference: Reference,
    },
    /// Answers an unlink.
    UnlinkAck {
        /// The request.
        reference: Reference,
    },
    /// The sender ended and was linked to the receiver.
    LinkDown {
        /// Why it ended.
        reason: ExitReason,
    },
    /// The sender monitors the receiver.
    Monitor {
        /// The monitor, on the sender's node.
        reference: Reference,
    },
    /// Another process of the sender's node has come to a monitor of that node, which may not have
    /// arrived yet: as [`Monitor`](Self::Monitor), and answered.
    Join {
        /// The monitor, on the sender's node.
        reference: Reference,
    },
    /// Answers a join: the monitor is there.
    Joined {
        /// The monitor, on the receiver's node.
        reference: Reference,
    },
    /// The sender takes a monitor back.
    Demonitor {
        /// The monitor.
        reference: Reference,
    },
    /// The sender ended and was monitored by the receiver.
    Down {
        /// The monitor, on the receiver's node.
        reference: Reference,
        /// Why it ended.
        reason: ExitReason,
    },
    /// The sender asks the node to start a process.
    Spawn(Spawn),
    /// Answers a spawn.
    Spawned {
        /// The request.
        reference: Reference,
        /// The serial of the new process, or why there is none.
        result: Result<u64, SpawnError>,
    },
}

impl Signal {
    /// How large the payload in it is.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Send { payload, .. }
            | Self::Call { payload, .. }
            | Self::Reply { result: Ok(payload), .. }
            | Self::Spawn(Spawn { args: payload, .. }) => payload.bytes.len(),
            _ => 0,
        }
    }
}

/// A request to start a process of a registered kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// Names this request.
    pub reference: Reference,
    /// The kind of actor.
    pub kind: Name,
    /// Its arguments.
    pub args: Payload,
    /// A name to register it under.
    pub name: Option<Name>,
    /// Link it to the sender, from its first moment.
    pub link: bool,
    /// Monitor it for the sender, from its first moment, with this reference.
    pub monitor: Option<Reference>,
    /// What is left until the sender gives up.
    pub remaining: Duration,
}

/// The numbers of the signals on the wire. Never changed, never reused.
pub(crate) mod number {
    pub(crate) const SEND: u8 = 0x10;
    pub(crate) const CALL: u8 = 0x11;
    pub(super) const REPLY: u8 = 0x12;
    pub(super) const REPLY_ERROR: u8 = 0x13;
    pub(super) const EXIT: u8 = 0x14;
    pub(super) const LINK: u8 = 0x15;
    pub(super) const UNLINK: u8 = 0x16;
    pub(super) const UNLINK_ACK: u8 = 0x17;
    pub(super) const LINK_DOWN: u8 = 0x18;
    pub(super) const MONITOR: u8 = 0x19;
    pub(super) const DEMONITOR: u8 = 0x1a;
    pub(super) const DOWN: u8 = 0x1b;
    pub(super) const SPAWN: u8 = 0x1c;
    pub(super) const SPAWNED: u8 = 0x1d;
    pub(super) const JOIN: u8 = 0x1e;
    pub(super) const JOINED: u8 = 0x1f;
    pub(crate) const SEND_WAIT: u8 = 0x20;
}

pub(crate) const TARGET_SERIAL: u8 = 0;
const TARGET_NAME: u8 = 1;
const TARGET_NODE: u8 = 2;
const TARGET_MANY: u8 = 3;
const TARGET_TOPIC: u8 = 4;
const TARGET_KEY: u8 = 5;

/// A message or reply whose value is still to be encoded: its frame is the same as that of an
/// [`Envelope`] with a [`Signal::Send`], [`Signal::Call`] or [`Signal::Reply`], but the value goes
/// straight into it.
#[derive(Debug, Clone, Copy)]
pub struct Direct<'a, T> {
    /// To whom.
    pub to: &'a Target,
    /// The serial of the sender.
    pub from: u64,
    /// What it is.
    pub what: DirectKind,
    /// The value.
    pub value: &'a T,
}

/// What a [`Direct`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectKind {
    /// A message of this name.
    Send(&'static str),
    /// A message of this name whose sender waits where there is no room.
    SendWait(&'static str),
    /// A call with a message of this name.
    Call {
        /// The message's name.
        message: &'static str,
        /// Names the call.
        reference: Reference,
        /// What is left until the caller gives up.
        remaining: Duration,
    },
    /// The reply to a call.
    Reply {
        /// The call.
        reference: Reference,
        /// The codec of the question.
        codec: Codec,
    },
}

impl<T: Serialize> Direct<'_, T> {
    /// Appends the frame to a buffer, which on an error is as it was.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        checked(out, |out| {
            let codec = self.put_head(out);
            Payload::encode_into(codec, self.value, out)
        })
    }

    /// The frame in pieces: [shared](crate::zero_copy) bytes of the value are pieces. `size` is that
    /// of all others, as far as it is known.
    pub fn encode_pieces(&self, size: usize) -> Result<Pieces, EncodeError> {
        let mut out = BytesMut::with_capacity(size);
        let pieces = match self.put_head(&mut out) {
            Codec::Bincode => codec::encode_pieces(self.value, out)?,
            codec @ Codec::Json => {
                Payload::encode_into(codec, self.value, &mut out)?;
                Pieces::from(out.freeze())
            }
        };
        bounded(pieces)
    }

    /// Appends the frame to a buffer if it is a small one, of
    /// [`SMALL_FRAME_BYTES`](crate::limits::SMALL_FRAME_BYTES) at most; else, and on an error, the
    /// buffer is as it was.
    pub fn encode_small(&self, out: &mut BytesMut) -> Result<Fit, EncodeError> {
        let before = out.len();
        let codec = self.put_head(out);
        let head = out.len() - before;
        let room = SMALL_FRAME_BYTES.saturating_sub(head);
        let encoded = match codec {
            Codec::Bincode => codec::encode_within(self.value, out, room),
            // Rare, and its size is not known before its end.
            Codec::Json => Ok(Fit::TooLarge { at_least: 0 }),
        };
        match encoded {
            Ok(Fit::Whole) => Ok(Fit::Whole),
            Ok(Fit::TooLarge { at_least }) => {
                out.truncate(before);
                Ok(Fit::TooLarge { at_least: head + at_least })
            }
            Err(error) => {
                out.truncate(before);
                Err(error)
            }
        }
    }

    /// Appends all but the value, whose codec is returned.
    fn put_head(&self, out: &mut BytesMut) -> Codec {
        let codec = match self.what {
            DirectKind::Send(message) => {
                put_head(number::SEND, self.from, self.to, out);
                put_name(message, out);
                Codec::Bincode
            }
            DirectKind::SendWait(message) => {
                put_head(number::SEND_WAIT, self.from, self.to, out);
                put_name(message, out);
                Codec::Bincode
            }
            DirectKind::Call { message, reference, remaining } => {
                put_head(number::CALL, self.from, self.to, out);
                put_call(reference, remaining, out);
                put_name(message, out);
                Codec::Bincode
            }
            DirectKind::Reply { reference, codec } => {
                put_head(number::REPLY, self.from, self.to, out);
                out.put_u64_le(reference.0);
                codec
            }
        };
        out.put_u8(codec as u8);
        codec
    }
}

fn bounded(pieces: Pieces) -> Result<Pieces, EncodeError> {
    match pieces.len() {
        bytes if bytes > FRAME_BYTES => Err(EncodeError::TooLarge { bytes, limit: FRAME_BYTES }),
        _ => Ok(pieces),
    }
}

/// Lets a frame be appended; takes back what is too large or has failed.
fn checked(
    out: &mut BytesMut,
    append: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let before = out.len();
    let result = append(out).and_then(|()| match out.len() - before {
        bytes if bytes > FRAME_BYTES => Err(EncodeError::TooLarge { bytes, limit: FRAME_BYTES }),
        _ => Ok(()),
    });
    if result.is_err() {
        out.truncate(before);
    }
    result
}

impl Envelope {
    /// Appends the envelope to a buffer, which on an error is as it was.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        checked(out, |out| {
            if let Some(payload) = self.put(out)? {
                out.put_slice(payload);
            }
            Ok(())
        })
    }

    /// The frame in pieces, of which the payload is one.
    pub fn encode_pieces(&self) -> Result<Pieces, EncodeError> {
        let mut out = BytesMut::new();
        let payload = self.put(&mut out)?.cloned();
        let mut pieces = Pieces::from(out.freeze());
        pieces.push(payload.unwrap_or_default());
        bounded(pieces)
    }

    /// Appends all but the payload, which is returned and comes last.
    fn put(&self, out: &mut BytesMut) -> Result<Option<&Bytes>, EncodeError> {
        use number as n;
        match &self.signal {
            Signal::Send { message, payload, waits } => {
                self.head(if *waits { n::SEND_WAIT } else { n::SEND }, out);
                Ok(Some(put_message(message, payload, out)))
            }
            Signal::Call { reference, remaining, message, payload } => {
                self.head(n::CALL, out);
                put_call(*reference, *remaining, out);
                Ok(Some(put_message(message, payload, out)))
            }
            Signal::Reply { reference, result: Ok(payload) } => {
                self.head(n::REPLY, out);
                out.put_u64_le(reference.0);
                out.put_u8(payload.codec as u8);
                Ok(Some(&payload.bytes))
            }
            Signal::Reply { reference, result: Err(error) } => {
                self.with(n::REPLY_ERROR, &(reference, error), out)
            }
            Signal::Exit { reason } => self.with(n::EXIT, reason, out),
            Signal::Link => self.with(n::LINK, &(), out),
            Signal::Unlink { reference } => self.with(n::UNLINK, reference, out),
            Signal::UnlinkAck { reference } => self.with(n::UNLINK_ACK, reference, out),
            Signal::LinkDown { reason } => self.with(n::LINK_DOWN, reason, out),
            Signal::Monitor { reference } => self.with(n::MONITOR, reference, out),
            Signal::Join { reference } => self.with(n::JOIN, reference, out),
            Signal::Joined { reference } => self.with(n::JOINED, reference, out),
            Signal::Demonitor { reference } => self.with(n::DEMONITOR, reference, out),
            Signal::Down { reference, reason } => self.with(n::DOWN, &(reference, reason), out),
            Signal::Spawn(spawn) => self.with(n::SPAWN, spawn, out),
            Signal::Spawned { reference, result } => {
                self.with(n::SPAWNED, &(reference, result), out)
            }
        }
    }

    fn with<T: Serialize>(
        &self,
        number: u8,
        body: &T,
        out: &mut BytesMut,
    ) -> Result<Option<&Bytes>, EncodeError> {
        self.head(number, out);
        codec::encode(body, out).map(|()| None)
    }

    fn head(&self, number: u8, out: &mut BytesMut) {
        put_head(number, self.from, &self.to, out);
    }

    /// Reads an envelope that fills the whole frame. A payload is a slice of the frame, not a copy.
    pub fn decode(mut frame: Bytes) -> Result<Self, DecodeError> {
        if frame.len() > FRAME_BYTES {
            return Err(DecodeError::TooLarge { bytes: frame.len(), limit: FRAME_BYTES });
        }
        let kind = take_u8(&mut frame)?;
        let from = take_u64(&mut frame)?;
        let to = take_target(&mut frame)?;
        let fits = match to {
            Target::Many(_) => matches!(kind, number::SEND | number::LINK_DOWN),
            Target::Topic(_) => kind == number::SEND,
            Target::Key { .. } => {
                matches!(kind, number::SEND | number::SEND_WAIT | number::CALL | number::MONITOR)
            }
            Target::Serial(_) | Target::Name(_) | Target::Node => true,
        };
        if !fits {
            return Err(DecodeError::malformed(format_args!(
                "signal {kind:#04x} to what takes none such"
            )));
        }
        let signal = decode_signal(kind, frame)?;
        Ok(Self { to, from, signal })
    }
}

fn decode_signal(kind: u8, mut rest: Bytes) -> Result<Signal, DecodeError> {
    use number as n;
    Ok(match kind {
        n::SEND | n::SEND_WAIT => {
            let (message, payload) = take_message(rest)?;
            Signal::Send { message, payload, waits: kind == n::SEND_WAIT }
        }
        n::CALL => {
            let reference = Reference(take_u64(&mut rest)?);
            let remaining = Duration::from_millis(take_u32(&mut rest)?.into());
            let (message, payload) = take_message(rest)?;
            Signal::Call { reference, remaining, message, payload }
        }
        n::REPLY => {
            let reference = Reference(take_u64(&mut rest)?);
            Signal::Reply { reference, result: Ok(take_payload(rest)?) }
        }
        n::REPLY_ERROR => {
            let (reference, error): (_, CallError) = body(&rest)?;
            Signal::Reply { reference, result: Err(error) }
        }
        n::EXIT => Signal::Exit { reason: body(&rest)? },
        n::LINK => {
            body::<()>(&rest)?;
            Signal::Link
        }
        n::UNLINK => Signal::Unlink { reference: body(&rest)? },
        n::UNLINK_ACK => Signal::UnlinkAck { reference: body(&rest)? },
        n::LINK_DOWN => Signal::LinkDown { reason: body(&rest)? },
        n::MONITOR => Signal::Monitor { reference: body(&rest)? },
        n::JOIN => Signal::Join { reference: body(&rest)? },
        n::JOINED => Signal::Joined { reference: body(&rest)? },
        n::DEMONITOR => Signal::Demonitor { reference: body(&rest)? },
        n::DOWN => {
            let (reference, reason) = body(&rest)?;
            Signal::Down { reference, reason }
        }
        n::SPAWN => Signal::Spawn(body(&rest)?),
        n::SPAWNED => {
            let (reference, result) = body(&rest)?;
            Signal::Spawned { reference, result }
        }
        unknown => {
            return Err(DecodeError::malformed(format_args!("unknown signal {unknown:#04x}")));
        }
    })
}

fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    codec::from_bytes(bytes, FRAME_BYTES)
}

fn put_head(number: u8, from: u64, to: &Target, out: &mut BytesMut) {
    if let Target::Serial(serial) = to {
        let mut head = [number, 0, 0, 0, 0, 0, 0, 0, 0, TARGET_SERIAL, 0, 0, 0, 0, 0, 0, 0, 0];
        head[1..9].copy_from_slice(&from.to_le_bytes());
        head[10..].copy_from_slice(&serial.to_le_bytes());
        return out.put_slice(&head);
    }
    out.put_u8(number);
    out.put_u64_le(from);
    to.encode(out);
}

fn put_call(reference: Reference, remaining: Duration, out: &mut BytesMut) {
    out.put_u64_le(reference.0);
    out.put_u32_le(u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX));
}

fn put_name(name: &str, out: &mut BytesMut) {
    debug_assert!(name.len() <= NAME_BYTES, "names are checked when they are made");
    let len = u8::try_from(name.len()).expect("NAME_BYTES fits a byte");
    out.put_u8(len);
    out.put_slice(name.as_bytes());
}

/// Appends all but the payload's bytes, which are returned.
fn put_message<'a>(message: &MessageName, payload: &'a Payload, out: &mut BytesMut) -> &'a Bytes {
    out.reserve(2 + NAME_BYTES);
    put_name(message.as_str(), out);
    out.put_u8(payload.codec as u8);
    &payload.bytes
}

fn take_message(mut rest: Bytes) -> Result<(MessageName, Payload), DecodeError> {
    let name = take_name(&mut rest)?;
    let name = MessageName::from_wire(name)
        .ok_or_else(|| DecodeError::malformed("a message's name is empty or not UTF-8"))?;
    Ok((name, take_payload(rest)?))
}

fn take_payload(mut rest: Bytes) -> Result<Payload, DecodeError> {
    let number = take_u8(&mut rest)?;
    let codec = Codec::from_number(number)
        .ok_or_else(|| DecodeError::malformed(format_args!("unknown codec {number}")))?;
    Ok(Payload { codec, bytes: rest })
}

fn take_target(frame: &mut Bytes) -> Result<Target, DecodeError> {
    match take_u8(frame)? {
        TARGET_SERIAL => Ok(Target::Serial(take_u64(frame)?)),
        TARGET_NAME => take_checked_name(frame).map(Target::Name),
        TARGET_TOPIC => take_checked_name(frame).map(Target::Topic),
        TARGET_NODE => Ok(Target::Node),
        TARGET_MANY => Serials::take(frame).map(Target::Many),
        TARGET_KEY => {
            let kind = take_checked_name(frame)?;
            let key = take_key(frame)?;
            let forwarded = match take_u8(frame)? {
                0 => false,
                1 => true,
                other => {
                    return Err(DecodeError::malformed(format_args!("{other} is no yes or no")));
                }
            };
            Ok(Target::Key { kind, key, forwarded })
        }
        unknown => Err(DecodeError::malformed(format_args!("unknown target {unknown}"))),
    }
}

fn take_checked_name(frame: &mut Bytes) -> Result<Name, DecodeError> {
    let bytes = take_name(frame)?;
    let text = std::str::from_utf8(&bytes).map_err(DecodeError::malformed)?;
    Name::new(text).map_err(DecodeError::malformed)
}

fn take_key(frame: &mut Bytes) -> Result<Key, DecodeError> {
    let bytes = take_name(frame)?;
    let text = std::str::from_utf8(&bytes).map_err(DecodeError::malformed)?;
    Key::new(text).map_err(DecodeError::malformed)
}

fn take_name(frame: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = take_u8(frame)?.into();
    need(frame, len)?;
    Ok(frame.split_to(len))
}

fn need(frame: &Bytes, bytes: usize) -> Result<(), DecodeError> {
    if frame.remaining() < bytes {
        return Err(DecodeError::malformed("the frame ends too early"));
    }
    Ok(())
}

fn take_u8(frame: &mut Bytes) -> Result<u8, DecodeError> {
    need(frame, 1)?;
    Ok(frame.get_u8())
}

fn take_u32(frame: &mut Bytes) -> Result<u32, DecodeError> {
    need(frame, 4)?;
    Ok(frame.get_u32_le())
}

fn take_u64(frame: &mut Bytes) -> Result<u64, DecodeError> {
    need(frame, 8)?;
    Ok(frame.get_u64_le())
}

impl Target {
    /// How many receivers fit into one frame of [`Target::Many`] beside a message; 0 if the message
    /// alone is too large.
    pub fn most_with(message: &MessageName, payload: &Payload) -> usize {
        const HEAD: usize = 1 + 8 + 1 + 4 + 1 + 1;
        let room = FRAME_BYTES.checked_sub(HEAD + message.as_str().len() + payload.bytes.len());
        room.map_or(0, |room| (room / DIFFERENCE_BYTES).min(RECEIVERS))
    }

    /// The process `pid`, or with serial 0 its node; the caller has made sure that it belongs to the
    /// far node's present life.
    pub const fn pid(pid: Pid) -> Self {
        match pid.serial {
            0 => Self::Node,
            serial => Self::Serial(serial),
        }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Serial(serial) => {
                out.put_u8(TARGET_SERIAL);
                out.put_u64_le(*serial);
            }
            Self::Name(name) => {
                out.put_u8(TARGET_NAME);
                put_name(name.as_str(), out);
            }
            Self::Node => out.put_u8(TARGET_NODE),
            Self::Many(serials) => {
                out.put_u8(TARGET_MANY);
                serials.put(out);
            }
            Self::Topic(name) => {
                out.put_u8(TARGET_TOPIC);
                put_name(name.as_str(), out);
            }
            Self::Key { kind, key, forwarded } => {
                const { assert!(KEY_BYTES <= NAME_BYTES, "its length is one byte") };
                out.put_u8(TARGET_KEY);
                put_name(kind.as_str(), out);
                put_name(key.as_str(), out);
                out.put_u8((*forwarded).into());
            }
        }
    }

    /// Reads a target that fills the bytes and is not several.
    pub(crate) fn decode_one(mut bytes: Bytes) -> Result<Self, DecodeError> {
        match take_target(&mut bytes)? {
            Self::Many(_) | Self::Topic(_) => {
                Err(DecodeError::malformed("several targets where one may be"))
            }
            target if bytes.is_empty() => Ok(target),
            _ => Err(DecodeError::Trailing { extra: bytes.len() }),
        }
    }
}
