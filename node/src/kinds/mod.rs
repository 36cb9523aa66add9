//! Kinds of actor that come with the stock binary, so that a cluster can be tried before a line of
//! Rust is written. Each is an ordinary actor, and an example of one.

mod counter;
mod echo;
mod kv;

pub use counter::{Add, Counter, Read};
pub use echo::{Echo, Say};
pub use kv::{Delete, Get, Keys, Kv, Put};
