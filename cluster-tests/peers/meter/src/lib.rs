//! What every runner shares, so that all are measured alike.
//!
//! A runner is a small program for one system: it implements [`System`] and calls [`main`]. Then
//! `runner WORKLOAD` starts a second OS process of itself in the other role, runs one [`Workload`]
//! between the two and prints one line of JSON, a [`Report`].
//!
//! - `workload.rs`: what is measured, by name
//! - `system.rs`: what a system must be able to do
//! - `measure.rs`: the loops, the same for all
//! - `sides.rs`: the two processes, their cores and their CPU time
//! - `relay.rs`: packet loss and delay
//!
//! Absent: the table, and whoever runs the runners; see the crate `bench` beside this one.

mod measure;
mod relay;
mod report;
mod sides;
mod system;
mod workload;

pub use crate::report::{Cpu, Metric, Outcome, Report};
pub use crate::sides::{Ground, Kill, main, pin_client, pin_server};
pub use crate::system::{Fired, Missing, System, Target};
pub use crate::workload::{GRACE, Task, Workload};
