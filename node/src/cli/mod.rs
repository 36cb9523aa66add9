//! cli
pub fn run(_: crate::NodeBuilder) -> std::process::ExitCode { todo!() }
