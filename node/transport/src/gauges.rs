//! What an endpoint holds right now, for those who operate it and for tests that look for leaks.

use purlin_proto::Gauge;
use purlin_proto::limits::FRAME_BYTES;

use crate::endpoint::Endpoint;
use crate::{bulk, lanes, link, peers, reassembly};

/// What waits on its way through one link, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Of small frames in the fullest lane.
    pub(crate) lane: usize,
    /// Of large frames of the fullest lane.
    pub(crate) large: usize,
    pub(crate) control: usize,
    /// Behind large frames, in the fullest lane that arrives.
    pub(crate) held: usize,
    /// Of large frames that have begun to arrive.
    pub(crate) unfinished: usize,
    /// Of large frames that have arrived before their turn.
    pub(crate) early: usize,
}

impl Load {
    fn max(self, other: Self) -> Self {
        Self {
            lane: self.lane.max(other.lane),
            large: self.large.max(other.large),
            control: self.control.max(other.control),
            held: self.held.max(other.held),
            unfinished: self.unfinished.max(other.unfinished),
            early: self.early.max(other.early),
        }
    }
}

impl Endpoint {
    /// What is held for connections and on its way through them. Read one small lock at a time: not
    /// a snapshot.
    pub fn gauges(&self) -> Vec<Gauge> {
        let links = self.all_links();
        let load = links.iter().map(link::Link::load).fold(Load::default(), Load::max);
        let lane_bytes = self.lane_bytes();
        let [dials, waiting] = self.dials();
        vec![
            Gauge::free("links", links.len()),
            Gauge::free("dials", dials),
            Gauge::bounded("waiting.bytes", waiting, peers::most_waiting(lane_bytes)),
            Gauge::bounded("lane.bytes", load.lane, lanes::most_small(lane_bytes)),
            Gauge::bounded("lane.large_bytes", load.large, lanes::most_large(lane_bytes)),
            Gauge::bounded("control.bytes", load.control, FRAME_BYTES),
            Gauge::bounded("held.bytes", load.held, 2 * link::HELD_BYTES),
            Gauge::bounded("unfinished.bytes", load.unfinished, bulk::HELD_BYTES),
            Gauge::bounded("early.bytes", load.early, reassembly::EARLY_BYTES),
            Gauge::free("tasks.transport", self.tasks()),
        ]
    }
}
