//! The user's own binary is a node with Purlin's whole command line.

use std::process::ExitCode;

use purlin::Node;
use purlin::kinds::{Counter, Kv};

fn main() -> ExitCode {
    purlin::cli::run(Node::builder().actor::<Counter>().actor::<Kv>())
}
