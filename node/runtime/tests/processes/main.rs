//! What the processes of one node promise. Names follow the rules of OTP's scenarios.

#![expect(clippy::unwrap_used, reason = "a test")]

mod calls;
mod exclusive;
mod exits;
mod keyed;
mod mailboxes;
mod monitors;
mod names_and_timers;
mod supervision;
mod supervisors;
mod support;
mod watchdog;
