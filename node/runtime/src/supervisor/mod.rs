//! Supervisors: processes that start others, in order, and start them again (OTP: `supervisor`).
//!
//! # A tree
//!
//! ```
//! use std::time::Duration;
//! # use purlin_runtime::{Actor, Context, Outcome};
//! use purlin_runtime::{ChildSpec, Restart, Runtime, Strategy, Supervisor};
//!
//! # struct Worker;
//! # impl Actor for Worker {
//! #     const KIND: &'static str = "worker";
//! #     type Args = u32;
//! #     type Messages = ();
//! #     async fn start(_: u32, _: &mut Context<Self>) -> Outcome<Self> { Ok(Self) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::local("a".into());
//! let root = runtime
//!     .supervise(
//!         Supervisor::new(Strategy::RestForOne)
//!             .intensity(3, Duration::from_secs(5))
//!             .child(ChildSpec::actor::<Worker>("first", 1).name("first"))
//!             .child(ChildSpec::supervisor(
//!                 "below",
//!                 Supervisor::new(Strategy::OneForOne)
//!                     .child(ChildSpec::actor::<Worker>("w1", 2).restart(Restart::Transient)),
//!             )),
//!     )
//!     .await?;
//! # assert!(root.is_alive());
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! Children are started in order, each when the one before has started, and stopped in reverse
//! order. When one cannot be started, those before it are stopped and the supervisor ends. When
//! there are more restarts than its intensity allows, all children are stopped and it ends with
//! `Shutdown`, and its own supervisor decides. No child outlives it: children are linked to it.
//!
//! # Beyond OTP
//!
//! A [`Backoff`] before restarts. The last ends of a child are kept and shown (`purlin why`,
//! `purlin tree`).
//!
//! # Where to look
//!
//! What to start and how: `spec.rs`. How many restarts: `intensity.rs`; when: `backoff.rs`. The
//! process: `process.rs`, or `dynamic.rs` for children that come and go; what both do: `hand.rs`.
//! From outside: `reference.rs`. What became of a child before: `history.rs`. Several of the same:
//! `partition.rs`.

mod backoff;
mod dynamic;
mod hand;
mod history;
mod intensity;
mod partition;
mod process;
mod reference;
mod spec;

use std::time::Duration;

pub use backoff::Backoff;
pub use dynamic::DynamicSupervisor;
pub(crate) use history::{Exit, History};
pub use partition::Partitions;
pub(crate) use process::start;
pub use purlin_proto::supervision::{Restart, Shutdown};
pub use reference::SupervisorRef;
pub use spec::{AutoShutdown, ChildSpec, Strategy, Supervisor};

/// A supervisor answers when it has done what it is busy with, which may be a child's whole
/// shutdown; its end is noticed at once, so there is no need to give up early.
const PATIENCE: Duration = Duration::from_hours(1);
