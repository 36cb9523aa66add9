//! Many nodes at once, for tests: whole clusters in one process, and real processes.
//!
//! [`memory::Cluster`] runs nodes over a network in memory, on paused time if the test's is paused;
//! it can cut, heal and kill. [`process::Cluster`] starts the real binary on loopback, through the
//! command line, and kills it for real. [`sockets::Pair`] runs nodes of
//! this process on real sockets, over roads ([`relay::Relay`]) that can be made bad. [`hosts::Hosts`]
//! are network namespaces, for real processes with addresses of their own. [`simulation::run`] is a
//! whole run of a simulated cluster from a seed, with faults, checked by [`invariants`].
//! [`planned`] and [`rolling`] take nodes out of service and bring them back, simulated and real ones.
//! [`hostile::Evil`] is a member that does what no member does, and [`hostile::frames`] what it may say.

#![expect(missing_docs, reason = "read by those who write tests; names say it")]
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

pub mod endpoints;
pub mod hostile;
pub mod hosts;
pub mod invariants;
pub mod jobs;
pub mod memory;
pub mod numbered;
pub mod planned;
pub mod probe;
pub mod process;
pub mod relay;
pub mod rolling;
pub mod simulation;
pub mod sockets;
