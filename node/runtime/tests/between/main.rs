//! What two nodes put on the wire between them, frame by frame.
//!
//! That the promises hold across nodes is tested by `cluster-tests`; here the frames are counted, and
//! delivered in the orders that lanes of different speed allow (`wire.rs`).

#![expect(clippy::unwrap_used, reason = "a test")]

mod entries;
mod fanout;
mod inflow;
mod keyed;
mod leftovers;
mod links;
mod monitors;
mod wire;
