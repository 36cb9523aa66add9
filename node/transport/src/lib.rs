//! Connections between nodes, and from clients to nodes.
//!
//! An [`Endpoint`] keeps one [`Link`] to each node it has to do with. A link carries opaque frames:
//! in order within a [`Flow`], small ones never behind a large one of another flow; besides, urgent
//! control frames and datagrams. Both sides have proved who they are before the first frame.
//!
//! The carrier is QUIC, or a network in memory for tests; everything above the seam (`wire/`) is
//! the same for both.
//!
//! # Where to look
//!
//! Who may connect: `handshake.rs`, `credentials.rs`; who has no certificate yet: `door.rs`, `wire/joining.rs`. Two dials at once, reconnects: `peers.rs`.
//! Order, batches, large frames: `lanes.rs`, `bulk.rs`; what arrives: `frames.rs`. A connection and its tasks: `link.rs`.
//! Which thread does it: `executor.rs`; what it does before it sleeps: `busy.rs`.
//! Clock, chance, socket: `environment.rs`; made-up ones: `simulated/`. The system's hint that a peer is dead: `wire/socket.rs`.
//!
//! # Absent on purpose
//!
//! What a frame means. Membership, processes, names.

mod bulk;
mod busy;
#[cfg(test)]
mod chopping;
mod control;
mod credentials;
mod crowd;
mod door;
mod endpoint;
mod environment;
mod error;
mod executor;
mod finish;
mod frames;
mod gauges;
mod handshake;
mod lanes;
mod link;
mod peers;
mod reassembly;
mod renewal;
#[cfg(feature = "simulated")]
pub mod simulated;
mod stats;
mod wire;

pub use crate::busy::BUSY_WAIT;
pub use crate::credentials::{
    Certified, Credentials, CredentialsError, Identity, NODE_DNS_NAME, check_private,
};
pub use crate::door::Answering;
pub use crate::endpoint::{Config, Endpoint, Events, LANE_BYTES, MTU, WINDOW};
pub use crate::environment::{Environment, ErrorQueue};
pub use crate::error::{BindError, Closed, DialError};
pub use crate::frames::Frames;
pub use crate::link::{Flow, Link, Peer, Priority, Receiver, Sent};
pub use crate::renewal::{RenewalError, Renewed};
pub use crate::stats::{Path, Stats};
pub use crate::wire::joining::{Fingerprint, ask_to_join};
pub use crate::wire::{WireConfig, memory::Network};
