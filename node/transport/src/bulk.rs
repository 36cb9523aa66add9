//! Bulk: how large frames travel, in chunks, beside the lanes.
//!
//! A few long-lived streams carry chunks of all large frames in turn, so that they share the way among
//! themselves; with each lane they take turns, packet by packet. A chunk is
//!
//! ```text
//! u64 bulk id | u32 length of the chunk | u32 length of the whole frame | bytes
//! ```
//!
//! all little-endian. What lies in front of the wire is bounded by the streams' windows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};

use purlin_proto::Pieces;
use purlin_proto::limits::FRAME_BYTES;

use crate::finish::{Finish, Finished};
use crate::lanes::{BadEntry, LARGE, Lane};
use crate::link::Flow;

/// Streams of a connection that carry large frames. The window of one is too little to keep both ends
/// busy; more would put more in front of small messages.
pub(crate) const STREAMS: usize = 2;

pub(crate) const CHUNK: usize = 32 << 10;
const HEAD: usize = 16;

/// Chunks are written as many at once as have so many bytes.
const BATCH: usize = 4 * CHUNK;

/// So many heads are allocated together.
const HEADS: usize = 64;

/// Bytes of unfinished large frames that one connection may make us hold.
pub(crate) const HELD_BYTES: usize = TURNS * FRAME_BYTES;

/// What is allocated for a large frame when it begins: more only when it has come. A little more than
/// the power of two that people choose for what lies in it.
const FIRST_BYTES: usize = (8 << 20) + (64 << 10);

/// Most large frames that the streams carry in turn; others wait until one of them is complete.
const TURNS: usize = 8;

/// Most unfinished large frames: a far end may have more streams than we.
const ARRIVING: usize = 4 * TURNS;

/// Large frames that wait to be sent over one stream.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: Mutex<VecDeque<Outgoing>>,
    wake: Notify,
    finish: Finish,
}

struct Outgoing {
    id: u64,
    total: u32,
    rest: Pieces,
    lane: Arc<Lane>,
    flow: Flow,
}

impl Outbox {
    /// The frame's lane already counts its bytes, which bounds this queue.
    pub(crate) fn push(&self, id: u64, frame: Pieces, lane: Arc<Lane>, flow: Flow) {
        let total = u32::try_from(frame.len()).expect("FRAME_BYTES fits");
        let outgoing = Outgoing { id, total, rest: frame, lane, flow };
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(outgoing);
        self.wake.notify_one();
    }

    /// Takes the next chunks, in which the frames take turns. Waits for one. When there is none and
    /// the stream is to be finished, whom to tell.
    pub(crate) async fn next(&self, batch: &mut Batch) -> Result<(), Finished> {
        loop {
            if self.take(batch) {
                return Ok(());
            }
            if let Some(finished) = self.finish.wanted() {
                return Err(finished);
            }
            self.wake.notified().await;
        }
    }

    /// Asks for the stream to be finished when all has been sent.
    pub(crate) fn finish(&self) -> oneshot::Receiver<()> {
        let finished = self.finish.ask();
        self.wake.notify_one();
        finished
    }

    fn take(&self, batch: &mut Batch) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        while bytes < BATCH
            && let Some(mut turn) = queue.pop_front()
        {
            let chunk = turn.rest.take(CHUNK);
            bytes += chunk.len();
            batch.push(&turn, chunk);
            if !turn.rest.is_empty() {
                let behind = queue.len().min(TURNS / STREAMS - 1);
                queue.insert(behind, turn);
            }
        }
        bytes > 0
    }
}

/// Chunks on their way, which is done in one go.
#[derive(Default)]
pub(crate) struct Batch {
    heads: BytesMut,
    bytes: Vec<Bytes>,
    sent: Vec<(Arc<Lane>, Flow, usize)>,
}

impl Batch {
    fn push(&mut self, of: &Outgoing, chunk: Bytes) {
        if self.heads.capacity() < HEAD {
            self.heads = BytesMut::with_capacity(HEADS * HEAD);
        }
        self.heads.put_u64_le(of.id);
        self.heads.put_u32_le(u32::try_from(chunk.len()).expect("CHUNK fits"));
        self.heads.put_u32_le(of.total);
        self.sent.push((Arc::clone(&of.lane), of.flow, chunk.len()));
        self.bytes.push(self.heads.split().freeze());
        self.bytes.push(chunk);
    }

    /// What is to be written; it may be taken out of there.
    pub(crate) fn bytes(&mut self) -> &mut [Bytes] {
        &mut self.bytes
    }

    /// The stream has taken it all.
    pub(crate) fn settle(&mut self) {
        self.bytes.clear();
        for (lane, flow, bytes) in self.sent.drain(..) {
            lane.bulk_sent(flow, bytes);
        }
    }
}

/// Large frames that are arriving, of one connection.
#[derive(Default)]
pub(crate) struct Inbox {
    /// A few at most, whatever their ids.
    frames: FxHashMap<u64, Arriving>,
    bytes: usize,
}

struct Arriving {
    total: usize,
    bytes: BytesMut,
}

impl Inbox {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a chunk; the whole frame when it is complete.
    pub(crate) fn chunk(
        &mut self,
        id: u64,
        total: usize,
        chunk: &[u8],
    ) -> Result<Option<Bytes>, BadEntry> {
        let unfinished = self.frames.len();
        let frame = self.frames.entry(id).or_insert_with(|| Arriving {
            total,
            bytes: BytesMut::with_capacity(total.min(FIRST_BYTES)),
        });
        if frame.total != total || frame.bytes.len() + chunk.len() > total {
            return Err(BadEntry(format!("the chunks of large frame {id} do not fit together")));
        }
        if self.bytes + chunk.len() > HELD_BYTES || unfinished > ARRIVING {
            return Err(BadEntry("too many unfinished large frames".to_owned()));
        }
        frame.bytes.extend_from_slice(chunk);
        self.bytes += chunk.len();
        if frame.bytes.len() < total {
            return Ok(None);
        }
        let complete = self.frames.remove(&id).map(|frame| frame.bytes.freeze());
        self.bytes -= total;
        Ok(complete)
    }
}

/// Cuts what a bulk stream carries into chunks.
#[derive(Default)]
pub(crate) struct Parser {
    head: BytesMut,
    chunk: Option<(u64, usize, usize)>,
}

impl Parser {
    /// Gives the parts of chunks in these bytes: id, length of the whole frame, bytes.
    pub(crate) fn feed(
        &mut self,
        mut bytes: Bytes,
        mut give: impl FnMut(u64, usize, &[u8]) -> Result<(), BadEntry>,
    ) -> Result<(), BadEntry> {
        while !bytes.is_empty() {
            if let Some((id, total, left)) = self.chunk {
                let part = bytes.split_to(left.min(bytes.len()));
                give(id, total, &part)?;
                let left = left - part.len();
                self.chunk = (left > 0).then_some((id, total, left));
            } else {
                let take = (HEAD - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes.split_to(take));
                if self.head.len() == HEAD {
                    self.chunk = Some(parse_head(self.head.split().freeze())?);
                }
            }
        }
        Ok(())
    }
}

fn parse_head(mut head: Bytes) -> Result<(u64, usize, usize), BadEntry> {
    let id = head.get_u64_le();
    let (length, total) = (head.get_u32_le() as usize, head.get_u32_le() as usize);
    let fits = (1..=CHUNK).contains(&length) && total > LARGE && total <= FRAME_BYTES;
    if fits {
        Ok((id, total, length))
    } else {
        Err(BadEntry(format!("a chunk of {length} bytes of a large frame of {total}")))
    }
}
