//! `purlin keyed` and `purlin drain`.

use std::time::Duration;

use purlin_client::Client;
use purlin_proto::admin::{
    self, Drain, DrainPlan, DrainRest, GetDrainPlan, GetDrainRest, KeyedInfo, ListKeyed,
};
use purlin_proto::limits::PAGE_ENTRIES;
use purlin_proto::{CallError, Name, NodeName};
use serde::Serialize;
use serde_json::json;

use super::Failure;
use super::args::{AskArgs, Format};
use super::ask::{call, call_failed, system};
use super::output::{json, note, print, span, table};

/// So many names are shown to people.
const SHOWN: usize = 20;

/// What an answer may take beside the draining itself.
const MORE: Duration = Duration::from_secs(10);

pub(super) async fn list(
    client: &Client,
    kind: Option<Name>,
    all: bool,
    on: Option<NodeName>,
    limit: usize,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let nodes = if all {
        let members = call(client, system(None), admin::ListMembers).await?;
        members.into_iter().filter(|m| m.state.answers()).map(|m| Some(m.name)).collect()
    } else {
        vec![on]
    };
    let mut found = Vec::new();
    for node in nodes {
        // One more than wanted, to know that there are more.
        let room = limit.saturating_add(1).saturating_sub(found.len());
        match keys_of(client, node, kind.clone(), room).await {
            Ok(keys) => found.extend(keys),
            Err(failure) if all => {
                note(&format!("warning: {}", failure.text().unwrap_or_default()));
            }
            Err(failure) => return Err(failure),
        }
    }
    let more = found.len() > limit;
    found.truncate(limit);
    match ask.format {
        Format::Json => json(&found)?,
        Format::Table => show(found)?,
    }
    if more {
        note(&format!("only the first {limit} are shown; --limit shows more"));
    }
    Ok(())
}

/// The keys of a node, page by page.
async fn keys_of(
    client: &Client,
    node: Option<NodeName>,
    kind: Option<Name>,
    limit: usize,
) -> Result<Vec<KeyedInfo>, Failure> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = call(client, system(node), ListKeyed { kind: kind.clone(), after }).await?;
        let full = page.len() >= PAGE_ENTRIES;
        after = page.last().map(|last| (last.kind.clone(), last.key.clone()));
        found.extend(page);
        if !full || found.len() >= limit {
            return Ok(found);
        }
    }
}

fn show(found: Vec<KeyedInfo>) -> Result<(), Failure> {
    let rows = found.into_iter().map(|info| {
        vec![
            info.kind.to_string(),
            info.key.to_string(),
            info.node.to_string(),
            info.pid.to_string(),
            info.mailbox.to_string(),
            info.handled.to_string(),
            span(info.idle_s),
        ]
    });
    table(&["KIND", "KEY", "NODE", "PID", "MAILBOX", "HANDLED", "IDLE"], rows.collect())
}

pub(super) async fn drain(
    client: &Client,
    node: Option<NodeName>,
    dry_run: bool,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let plan = call(client, system(node), GetDrainPlan).await?;
    if dry_run {
        let rest = client.call(system(Some(plan.node)), GetDrainRest).await;
        let rest = match rest {
            Ok(rest) => Some(rest),
            // A node of a version that does not say it.
            Err(CallError::NotUnderstood { .. }) => None,
            Err(error) => return Err(call_failed(&system(Some(plan.node)), &error)),
        };
        return match ask.format {
            Format::Json => json(&Planned { plan: &plan, rest: rest.as_ref() }),
            Format::Table => {
                show_plan(&plan)?;
                rest.map_or(Ok(()), |rest| show_rest(&plan, &rest))
            }
        };
    }
    if ask.format == Format::Table {
        show_plan(&plan)?;
    }
    let (name, to) = (plan.node, system(Some(plan.node)));
    let limit = Duration::try_from_secs_f64(plan.limit_s).unwrap_or(Duration::from_mins(1));
    let drained = client.call_timeout(to.clone(), Drain, limit.saturating_add(MORE)).await;
    let drained = drained.map_err(|error| call_failed(&to, &error))?;
    match ask.format {
        Format::Json => json(&json!({ "plan": plan, "drained": drained }))?,
        Format::Table => print(&format!("{name} drained in {}, leaving\n", span(drained.took_s)))?,
    }
    match drained.left {
        0 => Ok(()),
        left => Err(Failure::No(format!(
            "{left} of what runs on {name} had not moved in time, and ends with it; its state is \
             stored there"
        ))),
    }
}

/// What `drain --dry-run` says.
#[derive(Serialize)]
struct Planned<'a> {
    #[serde(flatten)]
    plan: &'a DrainPlan,
    /// What ends with the node, and what is out.
    rest: Option<&'a DrainRest>,
}

fn show_rest(plan: &DrainPlan, rest: &DrainRest) -> Result<(), Failure> {
    let node = plan.node;
    let ending = |what: &str, names: &[Name], count: usize| {
        let shown: Vec<_> = names.iter().take(SHOWN).map(Name::as_str).collect();
        let more = if count > shown.len() { ", …" } else { "" };
        let line = format!("{what} that end with {node} ({count}): {}{more}\n", shown.join(", "));
        if count == 0 { String::new() } else { line }
    };
    let global = ending("global names", &rest.global, rest.globals);
    let local = ending("names", &rest.local, rest.locals);
    let calls = format!("calls and spawns that are out from {node}: {}\n", rest.calls);
    print(&[global, local, calls].concat())
}

fn show_plan(plan: &DrainPlan) -> Result<(), Failure> {
    if plan.moves.is_empty() {
        return print(&format!("nothing moves from {}\n", plan.node));
    }
    let rows = plan.moves.iter().map(|moved| {
        vec![
            moved.what.clone(),
            moved.count.to_string(),
            plan.node.to_string(),
            moved.to.to_string(),
        ]
    });
    table(&["WHAT", "COUNT", "FROM", "TO"], rows.collect())
}
