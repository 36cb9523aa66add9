//! Frames as they lie in what was received.

use std::ops::Range;

use bytes::Bytes;

use crate::link::Flow;

/// Frames that came one after another in one piece.
///
/// ```
/// # use purlin_transport::{Flow, Frames, Receiver};
/// # use bytes::Bytes;
/// struct Printer;
///
/// impl Receiver for Printer {
///     fn frames(&self, frames: &Frames<'_>) {
///         for (flow, frame) in frames.iter() {
///             println!("{flow:?}: {} bytes", frame.len());
///         }
///     }
/// #   fn control(&self, _: Bytes) {}
/// #   fn datagram(&self, _: Bytes) {}
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Frames<'a> {
    chunk: &'a Bytes,
    cuts: &'a [Cut],
}

/// One frame: where in the chunk it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) flow: Flow,
    pub(crate) at: Range<usize>,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(chunk: &'a Bytes, cuts: &'a [Cut]) -> Self {
        Self { chunk, cuts }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.cuts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }

    /// The frames and their flows, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Flow, &'a [u8])> + use<'a> {
        let chunk = self.chunk;
        self.cuts.iter().map(|cut| (cut.flow, &chunk[cut.at.clone()]))
    }

    /// A frame by its place, to keep.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn bytes(&self, index: usize) -> Bytes {
        keep(self.chunk, self.cuts[index].at.clone())
    }

    /// The frames and their flows, in order, to keep.
    pub fn owned(&self) -> impl Iterator<Item = (Flow, Bytes)> + use<'a> {
        let chunk = self.chunk;
        self.cuts.iter().map(|cut| (cut.flow, keep(chunk, cut.at.clone())))
    }
}

/// What a chunk may keep in memory: all that the system has handed over at once.
const RECEIVED: usize = 64 << 10;

/// A part of a chunk, to keep. A small part is copied, lest it keep many times its size in memory.
pub(crate) fn keep(chunk: &Bytes, at: Range<usize>) -> Bytes {
    if at.len() < RECEIVED / 2 { Bytes::copy_from_slice(&chunk[at]) } else { chunk.slice(at) }
}
