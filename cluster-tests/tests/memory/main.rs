//! Nodes on the network in memory and on paused time; where a file says so, also as real processes.

mod across_nodes;
mod client_keyed;
mod client_sessions;
mod groups;
mod joining;
mod keyed;
mod keyed_state;
mod many;
mod pairs;
mod permissions;
