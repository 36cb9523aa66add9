//! The stock binary: a node with a few kinds worth having, and the whole command line.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use purlin::kinds::{Counter, Echo, Kv};
use purlin::{Keyed, Node};

/// A process is several small allocations that often end on another thread than they began: a
/// quarter less memory and three times the starts of glibc's (`cargo bench -p purlin-runtime`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let kinds = Node::builder().actor::<Echo>().movable::<Counter>().movable::<Kv>();
    let keyed = Keyed::new();
    let kinds = kinds.keyed::<Echo>(keyed).stateful::<Counter>(keyed).stateful::<Kv>(keyed);
    purlin::cli::run(kinds)
}
