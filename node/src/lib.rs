//! Purlin: a distributed actor cluster node.
//!
//! Erlang/OTP's model (cheap isolated processes, messages, links, monitors, supervision) typed by
//! Rust and carried over QUIC.
//!
//! ```no_run
//! use purlin::prelude::*;
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! pub struct Add(pub i64);
//! impl Message for Add {
//!     const NAME: &'static str = "counter.add";
//!     type Reply = i64;
//! }
//!
//! pub struct Counter {
//!     total: i64,
//! }
//!
//! impl Actor for Counter {
//!     const KIND: &'static str = "counter";
//!     type Args = i64;
//!     type Messages = (Add,);
//!
//!     async fn start(total: i64, _: &mut Context<Self>) -> Outcome<Self> {
//!         Ok(Self { total })
//!     }
//! }
//!
//! impl Handler<Add> for Counter {
//!     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Outcome<i64> {
//!         self.total += n;
//!         Ok(self.total)
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder().name("a").actor::<Counter>().start().await?;
//! let counter = node.spawn::<Counter>(10).await?;
//! counter.send(Add(1));
//! assert_eq!(counter.call(Add(0)).await?, 11);
//! node.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! `node/ARCHITECTURE.md` is the map of the code.

mod allowance;
mod application;
mod authority;
mod builder;
mod children;
pub mod cli;
mod directory;
mod disk;
mod drain;
mod driver;
mod entries;
mod events;
mod exclusive;
mod guard;
mod home;
mod inputs;
pub mod kinds;
mod names;
mod net;
mod node;
mod past;
mod renewal;
mod revoked;
mod router;
mod seeds;
mod session;
mod silence;
mod store;
mod system;
#[cfg(feature = "testing")]
pub mod testing;
mod tokens;
mod views;

pub use purlin_cluster::{Ring, SHARDS};
pub use purlin_proto as proto;
pub use purlin_proto::admin::children::{
    ClusterChildError, ClusterChildInfo, ClusterChildState, StartedChild,
};
pub use purlin_proto::{
    ChildId, ChildPlacement, Gauge, Mode, Placement, PlacementError, zero_copy,
};
pub use purlin_runtime::{
    Actor, AutoShutdown, Backoff, CallError, ChildCounts, ChildError, ChildInfo, ChildKey,
    ChildSpec, ChildState, Codec, Conflict, Context, Deferred, Dest, Down, DynamicSupervisor,
    Ended, EntryError, ExitReason, Fence, GlobalError, Group, GroupEvent, Handler, Holder,
    IdleTimeout, Interrupt, Keep, Key, Keyed, KeyedActor, LinkDown, Mailbox, MemoryStore, Message,
    Messages, Name, NameConflict, NodeEvent, NodeId, NodeName, OldState, OnTimeout, Outcome,
    Partitions, PastExit, Payload, Pick, Pid, RawContext, RawKind, Received, Ref, Reference,
    RegisterError, Registry, RegistryError, RegistryEvent, Resolver, Restart, Runtime, Shutdown,
    Snapshot, SpawnError, StartError as RegistryStartError, StateError, Stateful, Store,
    StoreError, StoreFuture, Strategy, StreamOptions, Supervisor, SupervisorRef, Task, TaskError,
    TaskStartError, TaskStream, TaskSupervisor, TaskSupervisorOptions, Timer, Untyped, UpdateError,
    WhenFull,
};
pub use purlin_transport::Network;

pub use crate::application::Ended as ApplicationEnded;
pub use crate::authority::AuthorityError;
pub use crate::builder::{NodeBuilder, StartError, WallClock};
pub use crate::children::{ClusterChild, ClusterSupervisor, ClusterSupervisorRef};
pub use crate::disk::DiskError;
pub use crate::home::{Home, HomeError};
pub use crate::node::Node;
pub use crate::seeds::{Lookup, SeedResolver};
pub use crate::tokens::{JoinError, Token, TokenError, TokensError};

/// What a program that defines and runs actors uses.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};

    pub use crate::{
        Actor, Backoff, CallError, ChildPlacement, ChildSpec, ClusterChild, ClusterSupervisor,
        Context, Dest, Down, DynamicSupervisor, ExitReason, Group, GroupEvent, Handler,
        IdleTimeout, Key, Keyed, KeyedActor, LinkDown, Mailbox, Message, NameConflict, Node,
        NodeEvent, NodeName, Outcome, Pick, Pid, Ref, Restart, Shutdown, Stateful, Strategy,
        Supervisor, SupervisorRef, WhenFull,
    };
}
