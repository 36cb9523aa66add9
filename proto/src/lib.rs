//! Names, messages and the wire of Purlin.
//!
//! This is what every part of a cluster shares: nodes, clients and the programs that only define
//! message types. It holds values and how they are written down, nothing that runs.
//!
//! - Who: [`NodeId`], [`Pid`], [`Name`], [`Group`], [`Key`], [`Dest`]. Where: [`Placement`].
//! - What is said: [`Message`] and its [`Payload`], [`Signal`]s in [`Envelope`]s.
//! - What nodes tell one another of their processes: [`EntryKey`], [`EntryValue`]; what is kept of a
//!   keyed one: [`Snapshot`].
//! - What cluster supervisors are to run: [`child`].
//! - How it ends: [`ExitReason`], [`Down`], [`CallError`], [`SpawnError`].
//! - How it travels: [`frame`] (numbers), [`codec`] (bytes), [`limits`] (bounds), [`hello`].
//! - What an operator asks: [`admin`]; what a node holds: [`Gauge`]. What a client asks: [`session`]. Who has no certificate yet:
//!   [`join`].
//!
//! # Absent on purpose
//!
//! No I/O, no tasks, no clocks, no chance. Bytes from the network give an error, never a panic, and
//! never an allocation above a bound of [`limits`].

pub mod admin;
pub mod child;
pub mod codec;
mod dest;
mod entry;
mod error;
mod fence;
pub mod frame;
mod gauge;
mod group;
pub mod hello;
mod id;
pub mod join;
mod key;
pub mod limits;
mod message;
mod message_ref;
mod name;
mod notice;
mod payload;
mod permission;
mod placement;
mod readable;
mod reason;
pub mod revocation;
mod serial;
mod serials;
pub mod session;
mod signal;
mod snapshot;
pub mod supervision;
pub mod trust;
pub mod zero_copy;

pub use crate::child::{ChildId, ChildPlacement, Mode, ParseChildIdError};
pub use crate::dest::{Dest, ParseDestError};
pub use crate::entry::{EntryKey, EntryValue, Given, Held};
pub use crate::error::{CallError, SpawnError};
pub use crate::fence::Fence;
pub use crate::frame::Frame;
pub use crate::gauge::Gauge;
pub use crate::group::{Group, ParsePickError, Pick};
pub use crate::hello::{Capabilities, Hello, Labels, NodeHello, Refusal, Role, Versions, View};
pub use crate::id::{NodeId, ParseIdError, Pid, Reference};
pub use crate::key::Key;
pub use crate::message::{Message, MessageName};
pub use crate::message_ref::MessageRef;
pub use crate::name::{Name, NameError, NodeName};
pub use crate::notice::{Down, GroupEvent, LinkDown, NameConflict, NodeEvent};
pub use crate::payload::{Codec, Payload};
pub use crate::permission::{
    Asker, GrantedPermissions, Permission, PermissionError, Permissions, Verdict,
};
pub use crate::placement::{Placement, PlacementError};
pub use crate::reason::{ExitReason, Fault};
pub use crate::serial::{Serial, SerialError};
pub use crate::serials::Serials;
pub use crate::signal::{Direct, DirectKind, Envelope, Signal, Spawn, Target};
pub use crate::snapshot::Snapshot;
pub use crate::zero_copy::Pieces;
