//! What a command runs on.

use std::fs::File;

use tokio::runtime::{Builder, Runtime};

use super::Failure;

/// Files that a command may need at once, a node's own included.
const FILES: usize = 24;

/// Starts it. That there are files enough is tried first: tokio panics where it cannot have its own.
pub(super) fn start(mut builder: Builder) -> Result<Runtime, Failure> {
    let spare: std::io::Result<Vec<_>> = (0..FILES).map(|_| File::open("/dev/null")).collect();
    spare.map_err(|error| {
        let advice = "raise the limit of open files (ulimit -n)";
        Failure::No(format!("cannot open {FILES} files: {error}; {advice}"))
    })?;
    let built = builder.enable_all().build();
    built.map_err(|error| Failure::No(format!("cannot start threads: {error}")))
}
