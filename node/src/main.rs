//! The stock binary: a node with a few kinds worth having, and the whole command line.

use std::process::ExitCode;

use purlin::kinds::{Counter, Echo, Kv};
use purlin::Node;

fn main() -> ExitCode {
    purlin::cli::run(Node::builder().actor::<Echo>().actor::<Counter>().actor::<Kv>())
}
