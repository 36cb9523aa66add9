//! Nodes as real processes, seen through the command line and a client.

mod children;
mod command_line;
mod exclusive;
mod groups;
mod joined;
mod operator;
mod real_processes;
mod renewal;
mod revocation;
mod rolling;
mod rolling_children;
mod rolling_keyed;
mod rotation;
mod tokens;
