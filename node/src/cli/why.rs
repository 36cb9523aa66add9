//! `purlin why`: of a process from its own node, of a node from all members.

use purlin_client::Client;
use purlin_proto::admin::{GetNodeWhy, GetWhy, ListMembers, NodePast, NodeWhy};
use purlin_proto::{Dest, NodeId, NodeName};
use serde_json::json;
use tokio::task::JoinSet;

use super::Failure;
use super::args::{AskArgs, Format};
use super::ask::{call, on_its_node, state, system};
use super::output::{clock, json, milliseconds, note, percent, print, span, table};

/// Events of a node that people are shown; programs get all that are known.
const SHOWN: usize = 40;

pub(super) async fn run(client: &Client, target: Dest, ask: &AskArgs) -> Result<(), Failure> {
    let members = call(client, system(None), ListMembers).await?;
    let node = match &target {
        Dest::Local(name) => {
            let name = name.as_str();
            let by_id = name.parse::<NodeId>().ok().map(|id| id.name);
            by_id.or_else(|| NodeName::new(name).ok())
        }
        _ => None,
    };
    match node.filter(|node| members.iter().any(|member| member.name == *node)) {
        Some(node) => {
            let live = members.iter().filter(|member| member.state.is_live());
            of_node(client, node, live.map(|member| member.name).collect(), ask).await
        }
        None => of_process(client, target, ask).await,
    }
}

async fn of_process(client: &Client, target: Dest, ask: &AskArgs) -> Result<(), Failure> {
    let asked = GetWhy { target: on_its_node(&target) };
    let found = call(client, system(target.node()), asked).await?;
    let why = found.ok_or_else(|| {
        Failure::No(format!(
            "nothing is known of {target}: it never was there, ended in good order, or too many \
             have crashed since; nor is it a member"
        ))
    })?;
    if ask.format == Format::Json {
        return json(&why);
    }
    let name = why.name.map(|name| format!(" name={name}")).unwrap_or_default();
    let child = why.child_id.map(|id| format!(" id={id}")).unwrap_or_default();
    let now = if why.alive { "running" } else { "gone" };
    print(&format!("{} {}{child}{name} {now}, restarts={}\n", why.kind, why.pid, why.restarts))?;
    if why.exits.is_empty() {
        return print("It has not ended, as far as is known.\n");
    }
    let rows = why.exits.into_iter().map(|exit| {
        vec![
            format!("{} ago", span(exit.ago_s)),
            span(exit.lived_s),
            exit.pid.map_or_else(|| "not started".to_owned(), |pid| pid.to_string()),
            exit.reason,
        ]
    });
    table(&["ENDED", "LIVED", "PID", "REASON"], rows.collect())
}

/// Asks all members at once; those that do not answer are named.
async fn of_node(
    client: &Client,
    node: NodeName,
    members: Vec<NodeName>,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let asking: JoinSet<_> = members
        .into_iter()
        .map(|member| {
            let client = client.clone();
            async move { (member, client.call(system(Some(member)), GetNodeWhy { node }).await) }
        })
        .collect();
    let (mut views, mut silent) = (Vec::new(), Vec::new());
    for (member, answer) in asking.join_all().await {
        match answer {
            Ok(view) => views.push(view),
            Err(error) => silent.push((member, error)),
        }
    }
    views.sort_by_key(|view| view.seen_by);
    silent.sort_by_key(|(member, _)| *member);
    if ask.format == Format::Json {
        let silent: Vec<_> = silent
            .iter()
            .map(|(node, error)| json!({ "node": node, "error": error.to_string() }))
            .collect();
        return json(&json!({ "node": node, "views": views, "silent": silent }));
    }
    for (member, error) in silent {
        note(&format!("warning: {member} does not say what it has seen: {error}"));
    }
    table(
        &[
            "SEEN BY",
            "STATE",
            "SINCE",
            "RTT",
            "LOSS",
            "UNANSWERED",
            "SUSPECTED",
            "REFUTED",
            "STALLS",
        ],
        views.iter().map(|view| summary(view, node)).collect(),
    )?;
    let mut events: Vec<_> =
        views.iter().flat_map(|view| view.events.iter().map(move |event| (view, event))).collect();
    // The clocks of the nodes may differ; what one has seen stays in its order.
    events.sort_by_key(|(_, event)| event.at_ms);
    let shown = &events[events.len().saturating_sub(SHOWN)..];
    print("\n")?;
    table(
        &["TIME", "SEEN BY", "EVENT", "BY", "DETAIL"],
        shown.iter().map(|(view, event)| line(view, event)).collect(),
    )
}

fn summary(view: &NodeWhy, node: NodeName) -> Vec<String> {
    let member = view.member.as_ref();
    let stalls = match view.stalls {
        _ if view.seen_by != node => String::new(),
        0 => "none".to_owned(),
        count => format!("{count}, up to {:.1}s", view.longest_stall_s),
    };
    vec![
        view.seen_by.to_string(),
        member.map_or("unknown", |member| state(member.state)).to_owned(),
        member.map(|member| span(member.since_s)).unwrap_or_default(),
        milliseconds(member.and_then(|member| member.rtt_ms)),
        percent(member.and_then(|member| member.loss)),
        view.probes_failed.to_string(),
        view.suspected.to_string(),
        view.refuted.to_string(),
        stalls,
    ]
}

fn line(view: &NodeWhy, event: &NodePast) -> Vec<String> {
    let times = if event.times > 1 { format!(" ({} times)", event.times) } else { String::new() };
    vec![
        clock(event.at_ms),
        view.seen_by.to_string(),
        format!("{}{times}", event.event.replace('_', " ")),
        event.by.map(|by| by.name.to_string()).unwrap_or_default(),
        event.detail.clone().unwrap_or_default(),
    ]
}
