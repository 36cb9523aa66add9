//! Processes of one node: cheap, isolated, linked, monitored, supervised. No network.
//!
//! The model is OTP's, typed by Rust. A process runs an [`Actor`], or is raw
//! ([`Runtime::spawn_raw`]); it has a mailbox of its own and shares nothing. When it ends, those
//! linked to it get an exit signal, those that monitor it a [`Down`]. A [`Supervisor`] starts it
//! again.
//!
//! A [`Runtime`] is a value: many fit in one test. It is joined to others through [`Remote`], which
//! the owner hands in, and [`Inbound`], which the owner calls.
//!
//! # Where to look
//!
//! - a process from outside: `process.rs`, `relations.rs` (in maps of `few.rs`), `remains.rs`; how
//!   much waits for it: `mailbox.rs`; its loop: `context.rs`; from message to handler:
//!   `messages.rs`; how it begins and ends: `spawn.rs`
//! - sending and calling: `route.rs`; to many at once: `fanout.rs`; the way back: `reply.rs`; links and monitors: `watch.rs`;
//!   what many here watch elsewhere: `watched.rs`
//! - the border to other nodes: `remote.rs`, `pending.rs`
//! - groups, topics, global names: `entries/`; keyed processes: `keyed/`
//! - supervision: `supervisor/`; what is said of crashes: `reports.rs`; of those that
//!   hold a thread: `watchdog.rs`
//! - tasks and who runs them: `task.rs`, `task_supervisor.rs`; processes by keys of any type:
//!   `registry.rs`
//!
//! # Absent on purpose
//!
//! Sockets, node membership, statics. Three thread-locals are set for the length of a
//! poll (`current.rs`, `panics.rs`, `watchdog.rs`), and the panic hook is the program's.

mod actor;
mod arrivals;
mod aside;
mod changes;
mod context;
mod counters;
mod current;
mod entries;
mod exclusive;
mod fanout;
mod few;
mod gauges;
mod hosted;
mod inflow;
mod info;
mod item;
mod keyed;
mod kind;
mod mailbox;
mod messages;
pub mod mutant;
mod panics;
mod pending;
mod process;
mod raw;
mod refs;
mod registry;
mod relations;
mod remains;
mod remote;
mod reply;
mod reports;
mod route;
mod runtime;
mod spawn;
mod supervisor;
mod table;
mod task;
mod task_supervisor;
mod timer;
mod watch;
mod watchdog;
mod watched;

pub use purlin_proto::{
    CallError, ChildId, Codec, Dest, Down, ExitReason, Fence, Group, GroupEvent, Key, LinkDown,
    Message, Name, NameConflict, NodeEvent, NodeId, NodeName, Payload, Pick, Pid, Reference,
    Snapshot, SpawnError,
};

pub use crate::actor::{Actor, Handler, Interrupt, Outcome};
pub use crate::changes::Changes;
pub use crate::context::Context;
pub use crate::counters::Counters;
pub use crate::entries::EntryError;
pub use crate::entries::children::{ChildSeen, ChildTable};
pub use crate::entries::globals::{Conflict, GlobalError, Holder, Keep, Resolver};
pub use crate::exclusive::{Holding, Lease};
pub use crate::hosted::{Before, HostedChild, Left};
pub use crate::inflow::{Flood, INFLOW_BYTES, Inbound};
pub use crate::keyed::moved::KEYS_IN_MOTION;
pub use crate::keyed::stateful::{OldState, StateError, Stateful};
pub use crate::keyed::store::{MemoryStore, Store, StoreError, StoreFuture};
pub use crate::keyed::{Keyed, KeyedActor, KeyedKinds};
pub use crate::kind::Kinds;
pub use crate::mailbox::{Mailbox, WhenFull};
pub use crate::messages::Messages;
pub use crate::raw::{Answer, Ended, RawContext, Received, Taken, Untyped};
pub use crate::refs::Ref;
pub use crate::registry::{Registry, RegistryError, RegistryEvent, StartError, UpdateError};
pub use crate::remote::{Peer, Priority, Remote, Sent};
pub use crate::reply::Deferred;
pub use crate::runtime::{
    Config, MAILBOX_LIMIT, Observer, PROCESS_LIMIT, RegisterError, Runtime, WeakRuntime,
};
pub use crate::spawn::RawKind;
pub use crate::supervisor::{
    AutoShutdown, Backoff, ChildSpec, DynamicSupervisor, Partitions, Restart, Shutdown, Strategy,
    Supervisor, SupervisorRef,
};
pub use crate::task::{Task, TaskError};
pub use crate::task_supervisor::{
    OnTimeout, StreamOptions, TaskStartError, TaskStream, TaskSupervisor, TaskSupervisorOptions,
};
pub use crate::timer::{IdleTimeout, Timer};
pub use purlin_proto::supervision::{
    ChildCounts, ChildError, ChildInfo, ChildKey, ChildState, PastExit,
};
