//! Messages of another node, as they lie in a mailbox: one after another in one buffer.
//!
//! Messages come in batches, and mostly several of a batch are for the same process. The network's
//! thread copies their bytes behind one another and notes where each begins; all the rest is done by
//! the process when it takes them. They are copied, because a slice would keep the whole packet it
//! came in: a process that does not read would hold many times what its messages are worth. Large
//! messages are kept as slices, each an item of its own.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use purlin_proto::{Codec, MessageName, MessageRef, NodeId, Payload, Reference};
use tokio::time::Instant;

use crate::inflow::{Charge, Inflow, OVERHEAD};
use crate::item::{EncodedMessage, Item};
use crate::reply::{EncodedReply, Sink};
use crate::runtime::Runtime;

/// No message is added beyond this.
const BYTES: usize = 16 << 10;

/// Small messages of one node to one process, in their order. Never empty while it is in a mailbox.
pub(crate) struct Arrivals {
    from: NodeId,
    /// Where messages are added, until the first is taken; then they are in `bytes`.
    growing: BytesMut,
    bytes: Bytes,
    letters: Vec<Letter>,
    /// How many of them have been taken.
    taken: usize,
    charge: Charge,
}

/// One message: where its name and body lie.
struct Letter {
    name: Range<u32>,
    end: u32,
    codec: Codec,
    call: Option<Call>,
}

struct Call {
    caller: u64,
    reference: Reference,
    deadline: Instant,
}

impl Arrivals {
    pub(crate) fn new(from: NodeId, inflow: &Arc<Inflow>) -> Box<Self> {
        Box::new(Self {
            from,
            growing: BytesMut::new(),
            bytes: Bytes::new(),
            letters: Vec::new(),
            taken: 0,
            charge: Charge::new(inflow, 0),
        })
    }

    /// Adds a message, if it fits to those before it; what it takes up.
    pub(crate) fn add(
        &mut self,
        from: NodeId,
        inflow: &Arc<Inflow>,
        message: &MessageRef<'_>,
    ) -> Option<usize> {
        let size = message.name.len() + message.body.len();
        let full = self.growing.len() + size > BYTES && !self.letters.is_empty();
        if self.taken > 0 || full || self.from != from || !self.charge.is_of(inflow) {
            return None;
        }
        let at =
            |buffer: &BytesMut| u32::try_from(buffer.len()).expect("BYTES and a small message fit");
        let start = at(&self.growing);
        self.growing.extend_from_slice(message.name.as_bytes());
        let body = at(&self.growing);
        self.growing.extend_from_slice(message.body);
        let call = message.call.map(|(reference, remaining)| Call {
            caller: message.from,
            reference,
            deadline: Instant::now() + remaining,
        });
        let end = at(&self.growing);
        self.letters.push(Letter { name: start..body, end, codec: message.codec, call });
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

    /// Takes out the first.
    pub(crate) fn pop(&mut self, runtime: &Runtime, callee: u64) -> Option<Item> {
        let letter = self.letters.get_mut(self.taken)?;
        if self.taken == 0 {
            self.bytes = std::mem::take(&mut self.growing).freeze();
        }
        self.taken += 1;
        let part = |at: Range<u32>| self.bytes.slice(at.start as usize..at.end as usize);
        let name = MessageName::from_wire(part(letter.name.clone())).expect("read before");
        let payload = Payload { codec: letter.codec, bytes: part(letter.name.end..letter.end) };
        let reply = letter.call.take().map(|Call { caller, reference, deadline }| {
            let runtime = runtime.clone();
            let sink = Sink::Wire { runtime, caller: self.from, to: caller, callee, reference };
            EncodedReply::new(letter.codec, deadline, sink)
        });
        Some(Item::Encoded(Box::new(EncodedMessage { name, payload, reply, charge: None })))
    }
}
