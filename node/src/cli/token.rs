//! `purlin token`: works on the data directory that has the authority's key, not through a node.

use std::time::SystemTime;

use purlin_proto::{Permission, Permissions, Role};
use serde_json::json;

use super::Failure;
use super::args::{Format, TokenArgs, TokenCommand, TokenRole};
use super::output::{json, note, print, span, table};
use crate::home::Home;
use crate::tokens::TokensError;
use crate::tokens::store::{TokenInfo, TokenState, Tokens};

pub(super) fn run(command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { ttl, uses, role, may, tokens: args } => {
            let role = match role {
                TokenRole::Node => Role::Node,
                TokenRole::Client => Role::Client,
                TokenRole::Operator => Role::Operator,
            };
            let may = permissions(role, may)?;
            let made = tokens(&args)?.create(role, &may, ttl, uses, SystemTime::now());
            let (token, info) = made.map_err(|error| no(&error))?;
            let text = token.to_string();
            if args.format == Format::Json {
                return json(&json!({
                    "token": text,
                    "id": info.id,
                    "role": info.role,
                    "uses": info.uses,
                    "expires_ms": info.expires_ms,
                    "may": info.may,
                }));
            }
            let command = match role {
                Role::Node => "purlin start",
                Role::Client | Role::Operator => "purlin join",
            };
            note(&format!(
                "on the other machine, within {}: PURLIN_TOKEN=… {command} --seed HOST:PORT",
                span(ttl.as_secs_f64())
            ));
            print(&format!("{text}\n"))
        }
        TokenCommand::List(args) => {
            let listed = tokens(&args)?.list(SystemTime::now()).map_err(|error| no(&error))?;
            match args.format {
                Format::Json => json(&listed),
                Format::Table => table(
                    &["ID", "ROLE", "STATE", "USED", "EXPIRES", "JOINED", "MAY"],
                    listed.iter().map(row).collect(),
                ),
            }
        }
        TokenCommand::Revoke { id, tokens: args } => {
            tokens(&args)?.revoke(id).map_err(|error| no(&error))
        }
    }
}

/// A client without permissions could do nothing; the others need none.
fn permissions(role: Role, may: Vec<Permission>) -> Result<Permissions, Failure> {
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    match (role, may.is_empty()) {
        (Role::Client, true) => usage(
            "a client may do only what --may says, as in --may call:hits --may read; \
             --role operator may do everything",
        ),
        (Role::Node | Role::Operator, false) => {
            usage("--may is for --role client: nodes and operators are not bound by permissions")
        }
        _ => Permissions::new(may).map_err(|error| Failure::Usage(error.to_string())),
    }
}

fn no(error: &TokensError) -> Failure {
    Failure::No(error.to_string())
}

/// The tokens of the directory that is meant.
fn tokens(args: &TokenArgs) -> Result<Tokens, Failure> {
    let failed = |error: crate::HomeError| Failure::No(error.to_string());
    let dir = Home::locate(args.data_dir.clone()).map_err(failed)?;
    if !Home::has_authority(&dir) {
        return Err(no(&TokensError::NoAuthority { dir }));
    }
    Ok(Tokens::new(Home::enter(dir).map_err(failed)?))
}

fn row(token: &TokenInfo) -> Vec<String> {
    let state = match token.state {
        TokenState::Open => "open",
        TokenState::UsedUp => "used up",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let left = token.expires_ms.checked_sub(now_ms).map(|ms| span(ms as f64 / 1000.0));
    vec![
        token.id.clone(),
        token.role.word().to_owned(),
        state.to_owned(),
        format!("{} of {}", token.used, token.uses),
        left.map_or_else(|| "-".to_owned(), |left| format!("in {left}")),
        token.joined.iter().map(|used| used.name.to_string()).collect::<Vec<_>>().join(","),
        token.may.join(" "),
    ]
}
