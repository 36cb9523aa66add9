//! Nodes of this process on real sockets, with real time and real roads between them.

mod connections;
mod head_of_line;
mod isolation;
mod order;
