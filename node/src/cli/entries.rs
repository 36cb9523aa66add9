//! Groups, topics and global names: listing, subscribing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use purlin_client::{Client, Subscription};
use purlin_proto::admin::{
    CALL_TIMEOUT, GlobalNameInfo, GroupInfo, GroupMemberInfo, JoinGroup, ListGlobalNames,
    ListGroupMembers, ListGroups, ListTopics, RegisterGlobal, TakeGlobal, TopicInfo, WhereIsGlobal,
};
use purlin_proto::limits::PAGE_ENTRIES;
use purlin_proto::{
    CallError, Codec, Dest, ExitReason, Group, Message, MessageName, Name, NodeName, Payload, Pid,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::Failure;
use super::args::{AskArgs, Format};
use super::ask::{call, call_failed, system};
use super::output::{json, note, print, reader_is_gone, span, table};

/// How often is looked whether anybody still reads what is printed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All pages of a list; `next` makes the question for what comes behind an entry.
async fn all<M, T>(
    client: &Client,
    on: Option<NodeName>,
    next: impl Fn(Option<&T>) -> M,
) -> Result<Vec<T>, Failure>
where
    M: Message<Reply = Vec<T>>,
{
    let mut all = Vec::new();
    loop {
        let page = call(client, system(on), next(all.last())).await?;
        let full = page.len() >= PAGE_ENTRIES;
        all.extend(page);
        if !full {
            return Ok(all);
        }
    }
}

/// Prints a list: as it is for programs, in rows for people.
fn show<T: Serialize>(
    list: &[T],
    headings: &[&str],
    row: impl Fn(&T) -> Vec<String>,
    ask: &AskArgs,
) -> Result<(), Failure> {
    match ask.format {
        Format::Json => json(&list),
        Format::Table => table(headings, list.iter().map(row).collect()),
    }
}

fn joined(nodes: &[NodeName]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(super) async fn groups(
    client: &Client,
    on: Option<NodeName>,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let next = |last: Option<&GroupInfo>| ListGroups {
        after: last.map(|last| Group::scoped(last.scope.clone(), last.name.clone())),
    };
    let groups = all(client, on, next).await?;
    let row = |group: &GroupInfo| {
        let name = Group::scoped(group.scope.clone(), group.name.clone());
        vec![name.to_string(), group.members.to_string(), joined(&group.nodes)]
    };
    show(&groups, &["GROUP", "MEMBERS", "NODES"], row, ask)
}

pub(super) async fn members(
    client: &Client,
    group: Group,
    on: Option<NodeName>,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let members = members_of(client, &group, on).await?;
    let row = |member: &GroupMemberInfo| {
        vec![member.pid.to_string(), member.node.to_string(), member.joined.to_string()]
    };
    show(&members, &["PID", "NODE", "JOINED"], row, ask)
}

async fn members_of(
    client: &Client,
    group: &Group,
    on: Option<NodeName>,
) -> Result<Vec<GroupMemberInfo>, Failure> {
    let next = |last: Option<&GroupMemberInfo>| ListGroupMembers {
        group: group.clone(),
        after: last.map(|last| last.pid),
    };
    all(client, on, next).await
}

pub(super) async fn topics(
    client: &Client,
    on: Option<NodeName>,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let next = |last: Option<&TopicInfo>| ListTopics { after: last.map(|last| last.topic.clone()) };
    let topics = all(client, on, next).await?;
    let row = |topic: &TopicInfo| {
        vec![topic.topic.to_string(), topic.subscribers.to_string(), joined(&topic.nodes)]
    };
    show(&topics, &["TOPIC", "SUBSCRIBERS HERE", "OTHER NODES"], row, ask)
}

pub(super) async fn global_names(
    client: &Client,
    on: Option<NodeName>,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let next = |last: Option<&GlobalNameInfo>| ListGlobalNames {
        after: last.map(|last| last.name.clone()),
    };
    let names = all(client, on, next).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now.map_or(0.0, |now| now.as_secs_f64());
    let row = |held: &GlobalNameInfo| {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century")]
        let for_s = now_s - held.since_ms as f64 / 1000.0;
        let (name, pid, node) =
            (held.name.to_string(), held.pid.to_string(), held.node.to_string());
        let token = held.fence.map_or("available".to_owned(), |fence| fence.to_string());
        vec![name, pid, node, token, span(for_s)]
    };
    show(&names, &["NAME", "PID", "NODE", "TOKEN", "HELD FOR"], row, ask)
}

/// The process that a destination names, for what concerns one: global names are resolved by the
/// asked node.
pub(super) async fn one_process(client: &Client, target: Dest) -> Result<Dest, Failure> {
    match &target {
        Dest::Global(name) => {
            let asked = WhereIsGlobal { name: name.clone() };
            match call(client, system(None), asked).await? {
                Some(pid) => Ok(pid.into()),
                None => Err(call_failed(&target, &CallError::NoProcess)),
            }
        }
        Dest::Group(group, _) => Err(Failure::Usage(format!(
            "{target} may be several processes; `purlin groups {group}` shows which"
        ))),
        Dest::Topic(_) => Err(Failure::Usage(format!("{target} is no process"))),
        _ => Ok(target),
    }
}

/// Fails if a group has no members.
pub(super) async fn has_members(client: &Client, group: &Group) -> Result<(), Failure> {
    if members_of(client, group, None).await?.is_empty() {
        return Err(Failure::No(format!("{group} has no members; `purlin groups` shows which do")));
    }
    Ok(())
}

/// Waits for longer than the node does.
async fn take_global(client: &Client, ask: TakeGlobal) -> Result<Result<(), String>, Failure> {
    let node = system(Some(ask.pid.node.name));
    let asked = client.call_timeout(node.clone(), ask, 2 * CALL_TIMEOUT).await;
    match asked {
        Ok(taken) => Ok(taken.map(drop)),
        Err(error) => Err(call_failed(&node, &error)),
    }
}

/// Gives a process that was just started its global name, of the available kind or not, and groups;
/// if that cannot be, it is ended.
pub(super) async fn introduce(
    client: &Client,
    pid: Pid,
    global: Option<(Name, bool)>,
    groups: Vec<Group>,
) -> Result<(), Failure> {
    let node = || system(Some(pid.node.name));
    let mut said = match global {
        Some((name, true)) => call(client, node(), RegisterGlobal { name, pid }).await?,
        Some((name, false)) => take_global(client, TakeGlobal { name, pid }).await?,
        None => Ok(()),
    };
    for group in groups {
        if said.is_ok() {
            said = call(client, node(), JoinGroup { group, pid }).await?;
        }
    }
    if let Err(refused) = said {
        let ended = client.exit(pid, ExitReason::Shutdown).await;
        let left = if ended.is_ok() { "it was ended" } else { "it runs without" };
        return Err(Failure::No(format!("{pid}: {refused}; {left}")));
    }
    Ok(())
}

pub(super) async fn subscribe(
    client: &Client,
    topics: Vec<Name>,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let failed = |error: CallError| Failure::No(error.to_string());
    // Each sees the messages of all.
    let mut first: Option<Subscription> = None;
    for topic in &topics {
        let subscription = client.subscribe(topic.clone()).await.map_err(failed)?;
        first.get_or_insert(subscription);
    }
    let Some(mut messages) = first else { return Ok(()) };
    let names: Vec<_> = topics.iter().map(ToString::to_string).collect();
    note(&format!("subscribed to {}", names.join(", ")));
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            published = messages.next_encoded() => match published {
                Some(Ok((name, payload))) => show_message(&name, &payload, ask.format)?,
                Some(Err(error)) => note(&format!("warning: {error}")),
                None => return Err(Failure::NoConnection("the connection was lost".to_owned())),
            },
            _ = look.tick() => if reader_is_gone() {
                return Err(Failure::ReaderGone);
            },
        }
    }
}

fn show_message(name: &MessageName, payload: &Payload, format: Format) -> Result<(), Failure> {
    let body = match payload.codec {
        Codec::Json => serde_json::from_slice::<Value>(&payload.bytes).ok(),
        Codec::Bincode => None,
    };
    let (name, bytes) = (name.as_str(), payload.bytes.len());
    print(&match (format, body) {
        (Format::Json, Some(body)) => format!("{}\n", json!({ "message": name, "body": body })),
        (Format::Json, None) => format!("{}\n", json!({ "message": name, "bytes": bytes })),
        (Format::Table, Some(body)) => format!("{name} {body}\n"),
        (Format::Table, None) => format!("{name} ({bytes} bytes)\n"),
    })
}
