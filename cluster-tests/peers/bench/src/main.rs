//! `scripts/bench`: runs every workload with every system, in turn, and shows them side by side.
//!
//! - `options.rs`: what can be typed
//! - `systems.rs`: who is measured, how they are built and started
//! - `rounds.rs`: one run, and all of them, interleaved
//! - `figures.rs`: medians, spreads and goals
//! - `table.rs`, `plot.rs`, `json.rs`: how they are shown
//!
//! What a workload is, and how it is measured, is in the crate `meter`.

mod figures;
mod json;
mod options;
mod plot;
mod rounds;
mod systems;
mod table;
mod verdict;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use meter::Task;

use crate::options::Options;
use crate::systems::System;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = Options::read(std::env::args().skip(1))?;
    if options.list {
        for task in Task::all() {
            println!("{:<26} {}", task.to_string(), task.title());
        }
        println!("\nsystems: {}", System::ALL.map(System::name).join(", "));
        return Ok(());
    }
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let ready = systems::prepare(peers, &options.systems);
    let mut settings = systems::settings(peers, &options, &ready);
    let out = peers.join("../../target/bench");
    std::fs::create_dir_all(&out)?;
    let out = out.canonicalize()?;
    let kept = out.join("results.json");
    let results = rounds::all(&options, &ready, |found| json::write(&kept, found, &settings))?;
    settings.push(systems::load());
    json::write(&kept, &results, &settings)?;
    println!("{}", table::show(&results, &ready));
    for line in &settings {
        println!("{line}");
    }
    plot::draw(&out, &results)?;
    println!("\n{}: results.json, results.svg, results.png", out.display());
    Ok(())
}
