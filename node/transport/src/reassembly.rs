//! Reassembly of the large frames of one connection: bytes that arrive, bytes that wait for their marker,
//! markers that wait for their bytes.
//!
//! Streams do not wait for each other, so either may come first, and frames that share a flow may be
//! complete in another order than that of their markers, which is the one that counts.

use std::collections::HashMap;

use bytes::Bytes;
use purlin_proto::limits::FRAME_BYTES;

use crate::bulk::Inbox;
use crate::lanes::BadEntry;
use crate::link::Flow;

/// Large frames may arrive so much before their markers.
pub(crate) const EARLY_BYTES: usize = 4 * FRAME_BYTES;

/// Markers of one connection that may wait for their bytes. A far end with full lanes of the usual
/// size has 8,192 at most.
const MARKERS: usize = 65_536;

#[derive(Default)]
pub(crate) struct Reassembly {
    inbox: Inbox,
    early: HashMap<u64, Bytes>,
    early_bytes: usize,
    markers: HashMap<u64, (usize, Flow)>,
}

/// A large frame whose marker had come before it.
pub(crate) struct Complete {
    pub(crate) lane: usize,
    pub(crate) flow: Flow,
    pub(crate) id: u64,
    pub(crate) frame: Bytes,
}

impl Reassembly {
    /// Bytes of frames that are not complete, and of those that wait for their marker.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        (self.inbox.bytes(), self.early_bytes)
    }

    /// A chunk has come; the frame, if it is complete with it and expected.
    pub(crate) fn chunk(
        &mut self,
        id: u64,
        total: usize,
        chunk: &[u8],
    ) -> Result<Option<Complete>, BadEntry> {
        let Some(frame) = self.inbox.chunk(id, total, chunk)? else { return Ok(None) };
        if let Some((lane, flow)) = self.markers.remove(&id) {
            return Ok(Some(Complete { lane, flow, id, frame }));
        }
        // The marker is still on its way; it cannot be far behind.
        self.early_bytes += frame.len();
        if self.early_bytes > EARLY_BYTES {
            return Err(BadEntry("too many large frames without a marker".to_owned()));
        }
        self.early.insert(id, frame);
        Ok(None)
    }

    /// A marker has come; the bytes that it stands for, if they are complete.
    pub(crate) fn marker(
        &mut self,
        lane: usize,
        flow: Flow,
        id: u64,
        length: usize,
    ) -> Result<Option<Bytes>, BadEntry> {
        let early = self.early.remove(&id);
        match &early {
            Some(bytes) if bytes.len() != length => {
                return Err(BadEntry("a marker of another length".to_owned()));
            }
            Some(bytes) => self.early_bytes -= bytes.len(),
            None if self.markers.len() >= MARKERS => {
                return Err(BadEntry("too many markers without their large frames".to_owned()));
            }
            None => {
                self.markers.insert(id, (lane, flow));
            }
        }
        Ok(early)
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.bytes() == (0, 0) && self.early.is_empty() && self.markers.is_empty()
    }
}
