//! The command line: a node with `start`, a client with everything else.
//!
//! Exit codes: 0 done, 1 the cluster said no, 2 wrong usage, 3 no connection, 130 interrupted while
//! stopping.

mod args;
mod ask;
mod bench;
mod children;
mod config;
mod entries;
mod exclusive;
mod executor;
mod join;
mod output;
mod start;
mod token;
mod watch;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::builder::NodeBuilder;
use args::{Cli, Command};

/// Why a command failed, by exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The cluster said no, or this machine did.
    No(String),
    /// Wrong usage.
    Usage(String),
    /// Nobody could be reached.
    NoConnection(String),
    /// A second signal came while it stopped.
    Interrupted,
    /// Nobody reads what is printed any more, as when `head` has enough. Not a failure to others.
    ReaderGone,
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::No(_) => 1,
            Self::Usage(_) => 2,
            Self::NoConnection(_) => 3,
            Self::Interrupted => 130,
            Self::ReaderGone => 0,
        }
    }

    /// What the user is told, if anything.
    fn text(&self) -> Option<&str> {
        match self {
            Self::No(text) | Self::Usage(text) | Self::NoConnection(text) => Some(text),
            Self::Interrupted => Some("interrupted while stopping"),
            Self::ReaderGone => None,
        }
    }
}

/// Runs the whole command line with the kinds of this builder: the `main` of a program that is a
/// node.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     purlin::cli::run(purlin::Node::builder().actor::<purlin::kinds::Counter>())
/// }
/// ```
pub fn run(builder: NodeBuilder) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // To a closed terminal nothing can be said.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(cli, builder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                output::note(&format!("error: {text}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(cli: Cli, builder: NodeBuilder) -> Result<(), Failure> {
    match cli.command {
        Command::Start(args) => start::run(args, builder),
        Command::Token(command) => token::run(command),
        Command::Join(args) => join::run(args),
        Command::Completions { shell } => {
            let mut command = Cli::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "purlin", &mut script);
            output::print(&String::from_utf8_lossy(&script))
        }
        other => ask::run(other),
    }
}
