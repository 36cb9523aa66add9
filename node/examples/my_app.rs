//! The user's own binary is a node with Purlin's whole command line.

use std::process::ExitCode;

use purlin::kinds::{Counter, Kv};
use purlin::{Keyed, Node};

fn main() -> ExitCode {
    // Besides, a counter for each key, `key:counter/KEY`, whose total goes along when nodes come and go.
    let kinds = Node::builder().actor::<Counter>().actor::<Kv>();
    purlin::cli::run(kinds.stateful::<Counter>(Keyed::available()))
}
