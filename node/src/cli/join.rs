//! `purlin join`: credentials of a client or operator, for a token.

use purlin_proto::Role;

use tokio::runtime::Builder;

use super::args::JoinArgs;
use super::output::note;
use super::{Failure, executor};
use crate::builder::host_name;
use crate::home::Home;
use crate::seeds::system_resolver;
use crate::tokens::joining::{Joined, Joining};
use crate::tokens::{JoinError, Token};

pub(super) fn run(args: JoinArgs) -> Result<(), Failure> {
    let token = token(&args.token)?;
    let dir = Home::locate(args.data_dir).map_err(|error| Failure::No(error.to_string()))?;
    let executor = executor::start(Builder::new_current_thread())?;
    // The token says which of the two.
    let role = match token.role() {
        Role::Operator => Role::Operator,
        Role::Client | Role::Node => Role::Client,
    };
    let joining = Joining {
        token: &token,
        role,
        name: args.name.unwrap_or_else(host_name),
        cluster: args.cluster,
        seeds: &args.seeds,
        resolver: &system_resolver(),
        patience: args.timeout,
    };
    let joined = executor.block_on(joining.run(dir.clone())).map_err(|error| failed(&error))?;
    let dir = dir.display();
    match joined {
        Joined::Before => note(&format!("{dir} has a client's credentials already")),
        Joined::Through(seed) if role == Role::Operator => note(&format!(
            "joined as operator {}; credentials are in {dir}; try `purlin members --at {seed}`",
            joining.name
        )),
        Joined::Through(_) => note(&format!(
            "joined as client {}; credentials are in {dir}; `purlin cert show` shows what it may do",
            joining.name
        )),
    }
    Ok(())
}

/// A token as it was given. What is wrong with it is said without showing it.
pub(super) fn token(text: &str) -> Result<Token, Failure> {
    text.parse().map_err(|error| Failure::Usage(format!("--token: {error}")))
}

pub(super) fn failed(error: &JoinError) -> Failure {
    let text = format!("not joined: {error}");
    match error {
        JoinError::NoSeed | JoinError::Role { .. } => Failure::Usage(text),
        JoinError::NoAnswer { .. } => Failure::NoConnection(text),
        _ => Failure::No(text),
    }
}
