//! A message read in place: nothing is copied or counted until a mailbox takes it.
//!
//! Nearly all that comes from other nodes are messages to serials. They have a fixed head, so that
//! they are read without the codec; see `signal.rs` for the layout and for everything else.

use std::time::Duration;

use crate::codec::DecodeError;
use crate::id::Reference;
use crate::payload::Codec;
use crate::signal::{TARGET_SERIAL, number};

/// A [`Signal::Send`](crate::Signal::Send) or [`Signal::Call`](crate::Signal::Call) to a serial, as
/// it lies in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// The serial of the receiver.
    pub to: u64,
    /// The serial of the sender on its node.
    pub from: u64,
    /// Whether the sender waits where there is no room; callers do.
    pub waits: bool,
    /// The call, and what is left until the caller gives up.
    pub call: Option<(Reference, Duration)>,
    /// Which message.
    pub name: &'a str,
    /// How to read the body.
    pub codec: Codec,
    /// The body.
    pub body: &'a [u8],
}

const HEAD: usize = 18;
const CALL: usize = 12;

impl<'a> MessageRef<'a> {
    /// Reads a frame, `None` if it is something else than a message to a serial. `before` is a name
    /// that was read before, or nothing: the same name again need not be checked again.
    pub fn read(frame: &'a [u8], before: &'a str) -> Option<Result<Self, DecodeError>> {
        let (head, rest) = frame.split_first_chunk::<HEAD>()?;
        let is_message = matches!(head[0], number::SEND | number::SEND_WAIT | number::CALL);
        (is_message && head[9] == TARGET_SERIAL).then(|| {
            let (from, to) = (u64_at(head, 1), u64_at(head, 10));
            let early = || DecodeError::malformed("the frame ends too early");
            let (call, rest) = if head[0] == number::CALL {
                let (call, rest) = rest.split_first_chunk::<CALL>().ok_or_else(early)?;
                let millis = u32::from_le_bytes(*call.last_chunk().expect("of twelve bytes"));
                let remaining = Duration::from_millis(millis.into());
                (Some((Reference(u64_at(call, 0)), remaining)), rest)
            } else {
                (None, rest)
            };
            let (&length, rest) = rest.split_first().ok_or_else(early)?;
            let (name, rest) = rest.split_at_checked(length.into()).ok_or_else(early)?;
            let (&codec, body) = rest.split_first().ok_or_else(early)?;
            let name = match name {
                [] => None,
                same if same == before.as_bytes() => Some(before),
                other => std::str::from_utf8(other).ok(),
            };
            let bad_name = || DecodeError::malformed("a message's name is empty or not UTF-8");
            let unknown = || DecodeError::malformed(format_args!("unknown codec {codec}"));
            Ok(Self {
                to,
                from,
                waits: head[0] != number::SEND,
                call,
                name: name.ok_or_else(bad_name)?,
                codec: Codec::from_number(codec).ok_or_else(unknown)?,
                body,
            })
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a fixed head"))
}
