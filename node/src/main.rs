//! The stock binary: a node with a few kinds worth having, and the whole command line.

use std::process::ExitCode;

use purlin::Node;
use purlin::kinds::{Counter, Echo, Kv};

fn main() -> ExitCode {
    purlin::cli::run(Node::builder().actor::<Echo>().actor::<Counter>().actor::<Kv>())
}
