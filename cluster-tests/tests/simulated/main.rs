//! Nodes on simulated machines, from a seed: see `purlin::testing` and, for random schedules, `src/simulation`.

mod chance;
mod children;
mod children_drained;
mod children_exclusive;
mod children_faults;
mod children_moves;
mod exclusive;
mod fences;
mod keyed;
mod keyed_order;
mod keyed_planned;
mod machines;
mod many_nodes;
mod names;
mod simulation;
mod splits;
mod witness;
