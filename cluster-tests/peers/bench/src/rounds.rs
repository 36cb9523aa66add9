//! One run, and all of them: for each workload and round, each system in turn.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use meter::{Outcome, Task};

use crate::options::Options;
use crate::systems::{Ready, System};

/// For starting, warming up, and confirmations that come late.
const SLACK: Duration = Duration::from_secs(30);

/// The same over a bad network: what a sender may have queued takes its time.
const LOSSY_SLACK: Duration = Duration::from_mins(5);

/// What the rounds of one workload found for one system.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) task: Task,
    pub(crate) system: System,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Everything; `keep` is given what there is after each workload, since hours may be interrupted.
pub(crate) fn all(
    options: &Options,
    ready: &[Ready],
    mut keep: impl FnMut(&[Cell]) -> Result<()>,
) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for &task in &options.tasks {
        let first = cells.len();
        cells.extend(ready.iter().map(|one| Cell {
            task,
            system: one.system,
            outcomes: Vec::new(),
        }));
        for round in 1..=options.rounds {
            for (cell, one) in cells[first..].iter_mut().zip(ready) {
                // What cannot be done, or has hung, would do so again.
                if cell.outcomes.iter().any(|outcome| !matches!(outcome, Outcome::Done(_))) {
                    continue;
                }
                eprintln!("{task}, round {round} of {}: {}", options.rounds, one.system.name());
                cell.outcomes.push(once(options, one, task));
            }
        }
        keep(&cells)?;
    }
    Ok(cells)
}

/// A runner that ends with us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, most likely.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn once(options: &Options, one: &Ready, task: Task) -> Outcome {
    let runner = match &one.runner {
        Ok(runner) => runner,
        Err(why) => return Outcome::Missing(why.clone()),
    };
    let mut command = one.command(runner, options.pin);
    command.args([task.to_string(), options.seconds.to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = match command.spawn() {
        Ok(child) => Running(child),
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let output = running.0.stdout.take().map(collect);
    let errors = running.0.stderr.take().map(collect);
    let slack = if task.loss.is_some() { LOSSY_SLACK } else { SLACK };
    let limit = Duration::from_secs_f64(options.seconds * 4.0) + slack;
    let begun = Instant::now();
    loop {
        match running.0.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => return Outcome::Failed(format!("timed out after {limit:.0?}")),
            Err(error) => return Outcome::Failed(error.to_string()),
        }
    }
    let joined = |thread: Option<std::thread::JoinHandle<String>>| {
        thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    };
    let (output, errors) = (joined(output), joined(errors));
    let found = output.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    found.unwrap_or_else(|| {
        let last = errors.lines().rev().find(|line| !line.trim().is_empty());
        Outcome::Failed(format!("it ended: {}", last.unwrap_or("without a word")))
    })
}

fn collect(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is worth keeping.
        drop(stream.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
