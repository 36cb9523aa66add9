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
//! # assert!(runtime.is_alive(root));
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
//! # Where to look
//!
//! What to start and how: `spec.rs`. How many restarts: `intensity.rs`. The process: `process.rs`.

mod intensity;
mod process;
mod spec;

pub use spec::{ChildSpec, Restart, Shutdown, Strategy, Supervisor};
