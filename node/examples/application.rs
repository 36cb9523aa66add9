//! A program that is a node with a purpose: its tree starts and stops with it, and when the tree
//! gives up so does the program, with exit code 1.

use std::process::ExitCode;
use std::time::Duration;

use purlin::kinds::Counter;
use purlin::prelude::*;

fn main() -> ExitCode {
    let root = Supervisor::new(Strategy::OneForOne)
        .intensity(1, Duration::from_mins(1))
        .child(ChildSpec::actor::<Counter>("hits", Some(0)).name("hits"));
    purlin::cli::run(Node::builder().actor::<Counter>().application("hits", root))
}
