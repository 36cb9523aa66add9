//! What can be typed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use meter::Task;

use crate::systems::System;

const USAGE: &str = "\
usage: scripts/bench [--quick] [--rounds N] [--seconds S] [--only SYSTEM,…] [--pin halves|none]
                     [--list] [WORKLOAD…]

  scripts/bench                                  everything, three rounds
  scripts/bench --quick --only purlin,bare       a first look
  scripts/bench round-trip calls-64              two workloads

A workload may be named by how its name begins: one-way, calls, loss-1.";

/// Which cores the two sides run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    /// The first half of them for the sender, the second for the receiver.
    Halves,
    /// All for both.
    None,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) tasks: Vec<Task>,
    pub(crate) systems: Vec<System>,
    pub(crate) rounds: usize,
    /// Of the measured part of a run.
    pub(crate) seconds: f64,
    pub(crate) pin: Pin,
    pub(crate) list: bool,
}

/// What was typed for an option, if it is such a number.
fn number<T>(option: &str, typed: &str, bounds: RangeInclusive<T>) -> Result<T>
where
    T: FromStr + PartialOrd + Display,
{
    let number = typed.parse().ok().filter(|number| bounds.contains(number));
    number.with_context(|| {
        format!("{option} {typed}: a number from {} to {}", bounds.start(), bounds.end())
    })
}

impl Options {
    pub(crate) fn read(mut typed: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            tasks: Vec::new(),
            systems: System::ALL.to_vec(),
            rounds: 3,
            seconds: 1.5,
            pin: Pin::Halves,
            list: false,
        };
        while let Some(word) = typed.next() {
            let mut value = || typed.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => (options.rounds, options.seconds) = (1, 0.6),
                "--rounds" => options.rounds = number(&word, &value()?, 1..=1_000)?,
                "--seconds" => options.seconds = number(&word, &value()?, 0.1..=3_600.0)?,
                "--only" => options.systems = systems(&value()?)?,
                "--pin" => {
                    options.pin = match value()?.as_str() {
                        "halves" => Pin::Halves,
                        "none" => Pin::None,
                        other => bail!("--pin {other}: halves or none"),
                    }
                }
                "--list" => options.list = true,
                "--help" | "-h" => {
                    println!("{USAGE}");
                    std::process::exit(0);
                }
                name => options.tasks.extend(tasks(name)?),
            }
        }
        if options.tasks.is_empty() {
            options.tasks = Task::all();
        }
        Ok(options)
    }
}

/// The workload of this name, or all whose names begin so.
fn tasks(name: &str) -> Result<Vec<Task>> {
    let all = Task::all().into_iter();
    let found: Vec<_> = match name.parse() {
        Ok(task) => vec![task],
        Err(_) => all.filter(|task| task.to_string().starts_with(name)).collect(),
    };
    if found.is_empty() {
        bail!("there is no workload {name}; see --list\n\n{USAGE}");
    }
    Ok(found)
}

/// Systems by name; `otp` and `bare` are two each.
fn systems(list: &str) -> Result<Vec<System>> {
    let mut found = Vec::new();
    for name in list.split(',') {
        let named: Vec<_> = System::ALL
            .into_iter()
            .filter(|system| {
                let own = system.name();
                own == name || own.split('-').next() == Some(name)
            })
            .collect();
        if named.is_empty() {
            bail!("there is no system {name}; see --list");
        }
        found.extend(named);
    }
    Ok(found)
}
