//! The control stream: handshake first, then small urgent frames, ahead of everything else.
//!
//! A frame is `u32 length | bytes`, little-endian. It carries what nodes say to each other
//! and nothing of users: membership, entries, leases, certificates, stop and go on.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::{Notify, oneshot};

use purlin_proto::limits::{FRAME_BYTES, STATE_BYTES};

use crate::error::StreamEnded;
use crate::finish::{Finish, Finished};
use crate::wire::RecvStream;

/// The first byte of a stream says what it is.
pub(crate) mod kind {
    pub(crate) const CONTROL: u8 = 1;
    pub(crate) const LANE: u8 = 2;
    pub(crate) const BULK: u8 = 3;
}

/// The largest control frame: a whole membership state and its frame number.
pub(crate) const CONTROL_BYTES: usize = STATE_BYTES + 64;

/// Frames that wait for the control stream.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    finish: Finish,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    /// Queues a frame; `false` if so much waits that the far end cannot be reading.
    pub(crate) fn push(&self, frame: Bytes) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if frame.len() > CONTROL_BYTES || state.bytes + frame.len() > FRAME_BYTES {
            return false;
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        drop(state);
        self.wake.notify_one();
        true
    }

    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// All that waits, framed; waits for something. When nothing waits and the stream is to be
    /// finished, whom to tell.
    pub(crate) async fn take(&self) -> Result<Bytes, Finished> {
        loop {
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if !state.frames.is_empty() {
                    let mut batch = BytesMut::with_capacity(state.bytes + 4 * state.frames.len());
                    for frame in state.frames.drain(..) {
                        put_frame(&frame, &mut batch);
                    }
                    state.bytes = 0;
                    return Ok(batch.freeze());
                }
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
}

pub(crate) fn put_frame(frame: &[u8], out: &mut BytesMut) {
    out.put_u32_le(u32::try_from(frame.len()).expect("CONTROL_BYTES fits"));
    out.put_slice(frame);
}

/// Reads a stream by bytes and frames.
pub(crate) struct Reader {
    stream: RecvStream,
    buffer: BytesMut,
}

impl Reader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    async fn fill(&mut self, bytes: usize) -> Result<(), StreamEnded> {
        while self.buffer.len() < bytes {
            match self.stream.read().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Err(StreamEnded("by the far end".to_owned())),
            }
        }
        Ok(())
    }

    pub(crate) async fn byte(&mut self) -> Result<u8, StreamEnded> {
        self.fill(1).await?;
        Ok(self.buffer.get_u8())
    }

    /// The next frame, of at most `limit` bytes.
    pub(crate) async fn frame(&mut self, limit: usize) -> Result<Bytes, StreamEnded> {
        self.fill(4).await?;
        let length = self.buffer.get_u32_le() as usize;
        if length > limit {
            return Err(StreamEnded(format!("a control frame of {length} bytes")));
        }
        self.fill(length).await?;
        Ok(self.buffer.split_to(length).freeze())
    }

    /// What has been read too far, and the stream.
    pub(crate) fn into_parts(self) -> (Bytes, RecvStream) {
        (self.buffer.freeze(), self.stream)
    }
}
