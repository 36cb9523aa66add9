//! Messages of another node, as they lie in a mailbox: one after another in one buffer.
//!
//! Messages come in batches, and mostly several of a batch are for the same process. The network's
//! thread copies their bytes behind one another and notes where each begins; all the rest is done by
//! the process when it takes them. They are copied, because a slice would keep the whole packet it
//! came in: a process that does not read would hold many times what its messages are worth. Large
//! messages are kept as slices, each an item of its own.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use purlin_proto::{Codec, MessageName, MessageRef, NodeId, Payload, Reference};
use tokio::time::Instant;

use crate::inflow::{Charge, Inflow, OVERHEAD};
use crate::item::{EncodedMessage, Item};
use crate::messages::sealed::Encoded;
use crate::process::Process;
use crate::reply::{EncodedReply, Sink};

/// No message is added beyond this.
const BYTES: usize = 16 << 10;

/// Small messages of one node to one process, in their order. Never empty while it is in a mailbox.
pub(crate) struct Arrivals {
    from: NodeId,
    bytes: Vec<u8>,
    letters: Vec<Letter>,
    /// How many of them have been taken.
    taken: usize,
    charge: Charge,
}

/// One message: where its name and body lie.
struct Letter {
    name: Range<u32>,
    body: Range<u32>,
    codec: Codec,
    call: Option<Call>,
}

struct Call {
    caller: u64,
    reference: Reference,
    deadline: Instant,
}

impl Arrivals {
    pub(crate) fn new(from: NodeId, inflow: &Arc<Inflow>) -> Self {
        Self {
            from,
            bytes: Vec::new(),
            letters: Vec::new(),
            taken: 0,
            charge: Charge::new(inflow, 0),
        }
    }

    /// Adds a message, if it fits to those before it; what it takes up.
    pub(crate) fn add(
        &mut self,
        from: NodeId,
        inflow: &Arc<Inflow>,
        message: &MessageRef<'_>,
    ) -> Option<usize> {
        let size = message.name.len() + message.body.len();
        let full = self.bytes.len() + size > BYTES && !self.letters.is_empty();
        if self.taken > 0 || full || self.from != from || !self.charge.is_of(inflow) {
            return None;
        }
        let at =
            |buffer: &Vec<u8>| u32::try_from(buffer.len()).expect("BYTES and a small message fit");
        let name = match self.letters.last() {
            // Mostly the same message again.
            Some(last) if self.bytes[range(&last.name)] == *message.name.as_bytes() => {
                last.name.clone()
            }
            _ => {
                let start = at(&self.bytes);
                self.bytes.extend_from_slice(message.name.as_bytes());
                start..at(&self.bytes)
            }
        };
        let start = at(&self.bytes);
        self.bytes.extend_from_slice(message.body);
        let call = message.call.map(|(reference, remaining)| Call {
            caller: message.from,
            reference,
            deadline: Instant::now() + remaining,
        });
        self.letters.push(Letter {
            name,
            body: start..at(&self.bytes),
            codec: message.codec,
            call,
        });
        self.charge.add(size + OVERHEAD);
        Some(size + OVERHEAD)
    }

    pub(crate) fn len(&self) -> usize {
        self.letters.len() - self.taken
    }

    /// What they take up, those that have been taken out included.
    pub(crate) fn charged(&self) -> usize {
        self.charge.bytes()
    }

    /// Takes out the first, to be read where it lies.
    pub(crate) fn read<T>(
        &mut self,
        owner: &Process,
        read: impl FnOnce(Encoded<'_>) -> T,
    ) -> Option<T> {
        let letter = self.letters.get_mut(self.taken)?;
        self.taken += 1;
        let reply = letter.call.take().map(|call| call.reply(self.from, letter.codec, owner));
        let (name, body) = (&self.bytes[range(&letter.name)], &self.bytes[range(&letter.body)]);
        Some(read(Encoded { name, codec: letter.codec, body, reply, process: owner }))
    }

    /// Takes out the first, to keep.
    pub(crate) fn pop(&mut self, owner: &Process) -> Option<Item> {
        self.read(owner, |letter| {
            let name = MessageName::from_wire(Bytes::copy_from_slice(letter.name));
            let name = name.expect("read before");
            let bytes = Bytes::copy_from_slice(letter.body);
            let payload = Payload { codec: letter.codec, bytes };
            let message = EncodedMessage { name, payload, reply: letter.reply, charge: None };
            Item::Encoded(Box::new(message))
        })
    }
}

fn range(at: &Range<u32>) -> Range<usize> {
    at.start as usize..at.end as usize
}

impl Call {
    #[expect(clippy::unnecessary_box_returns, reason = "it is kept in a box")]
    fn reply(self, from: NodeId, codec: Codec, owner: &Process) -> Box<EncodedReply> {
        let Self { caller, reference, deadline } = self;
        let (runtime, callee) = (owner.runtime.clone(), owner.serial);
        let sink = Sink::Wire { runtime, caller: from, to: caller, callee, reference };
        EncodedReply::new(codec, deadline, sink)
    }
}
