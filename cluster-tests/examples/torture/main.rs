//! What a node withstands, each with a figure: `scripts/torture` is the way to start it.
//!
//! `torture [SECONDS] [TRIAL]...`: each trial takes about so long, ten seconds unless said otherwise, and
//! prints a line; ends with 1 if one has failed. Everything is on loopback and in namespaces that the
//! trial makes. The tortured nodes are processes of their own: this program, called with `start`.

#![expect(clippy::unwrap_used, reason = "a trial that cannot be made has failed")]

mod churn;
mod disk;
mod garbage;
mod limits;
mod pauses;
mod push;
mod support;

use std::process::ExitCode;
use std::time::Duration;

use mimalloc::MiMalloc;
use purlin::Node;
use purlin::kinds::Kv;
use purlin_cluster_tests::numbered::Receiver;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What came of a trial: figures, or what went wrong.
type Outcome = Result<String, String>;

type Trial = fn(Duration) -> Outcome;

const TRIALS: [(&str, Trial); 11] = [
    ("garbage", garbage::garbage),
    ("port-scan", garbage::port_scan),
    ("slow-loris", garbage::slow_loris),
    ("churn", churn::churn),
    ("push", push::push),
    ("full-disk", disk::full),
    ("read-only-disk", disk::read_only),
    ("open-files", limits::open_files),
    ("out-of-memory", limits::out_of_memory),
    ("clock-jumps", limits::clock_jumps),
    ("pauses", pauses::pauses),
];

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "start" || first == "token") {
        let kinds = Node::builder().actor::<Receiver>().actor::<push::Stuck>().actor::<Kv>();
        return purlin::cli::run(kinds);
    }
    let seconds = arguments.first().and_then(|first| first.parse().ok());
    if seconds.is_some() {
        arguments.remove(0);
    }
    let wrong = arguments.iter().find(|name| !TRIALS.iter().any(|(known, _)| known == name));
    if let Some(wrong) = wrong {
        let known: Vec<_> = TRIALS.iter().map(|(name, _)| *name).collect();
        eprintln!("no trial {wrong}; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    let mut failed = false;
    for (name, trial) in TRIALS {
        if !arguments.is_empty() && !arguments.iter().any(|wanted| wanted == name) {
            continue;
        }
        let length = Duration::from_secs(seconds.unwrap_or(10));
        // What a trial asserts besides is its failure as well, and the others are still made.
        let outcome = std::panic::catch_unwind(|| trial(length))
            .unwrap_or_else(|_| Err("it could not be made".to_owned()));
        match outcome {
            Ok(figures) => println!("{name:<16} ok      {figures}"),
            Err(why) => {
                failed = true;
                println!("{name:<16} FAILED  {why}");
            }
        }
    }
    ExitCode::from(u8::from(failed))
}
