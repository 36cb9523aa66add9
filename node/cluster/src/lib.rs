//! Who is in the cluster, and who owns what: decisions without I/O.
//!
//! [`Membership`] is SWIM (by `foca`, which is named in `membership/` alone) with what it lacks:
//! joining that retries, anti-entropy, node-down once and for ever, coming back under a new
//! creation. [`Ring`] maps keys to live members, the same on every machine. [`Owned`] spreads what
//! each node says of its own processes. [`exclusive`] is about what may be only once. [`names`] gives
//! global names that have one holder at most. [`children`] decides what becomes of children of
//! cluster supervisors.
//!
//! All are values: they are told the time and what happened, and are asked what to do. So a whole
//! cluster runs in a test on virtual time, and the same seed gives the same run.
//!
//! # Absent on purpose
//!
//! Clocks, sockets, tasks, threads, the system's chance, and iteration over hash maps.

// The small world of the tests names this crate, also where it is part of it.
#[cfg(test)]
extern crate self as purlin_cluster;

pub mod children;
pub mod exclusive;
mod membership;
pub mod names;
pub mod owned;
mod ring;

pub use crate::membership::{
    Config, Event, Happened, Input, Me, Member, Membership, Noted, Output, State, Tally, Time, Why,
};
pub use crate::owned::Owned;
pub use crate::ring::{Ring, SHARDS};
