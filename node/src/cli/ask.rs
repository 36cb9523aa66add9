//! The commands that ask or tell the cluster something, as a client.

use purlin_client::{CallError, Client, ConnectError, Credentials, SpawnError, SpawnOptions};
use purlin_proto::admin::{
    self, GetOwner, GetProcess, GetTree, Leave, ListNames, ListProcesses, MemberState,
    ProcessDetail, ProcessInfo, TreeNode,
};
use purlin_proto::limits::PAGE_ENTRIES;
use purlin_proto::{Codec, Dest, ExitReason, MessageName, Name, NodeName, Payload, Pid, Placement};
use purlin_transport::MTU;
use serde_json::json;
use tokio::runtime::Builder;

use super::args::{AskArgs, ChildCommand, Command, Format};
use super::cert::{is_soon, when};
use super::output::{json, milliseconds, note, percent, print, span, table};
use super::{Failure, bench, children, entries, exclusive, executor, keyed, watch, why};
use crate::home::{Home, check_dir};

pub(super) fn run(command: Command) -> Result<(), Failure> {
    executor::start(Builder::new_current_thread())?.block_on(ask(command))
}

/// Connects, does this, and says goodbye.
pub(super) fn with_client(
    ask: &AskArgs,
    act: impl AsyncFnOnce(&Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    executor::start(Builder::new_current_thread())?.block_on(async {
        let client = connect(ask, None).await?;
        let done = act(&client).await;
        client.close().await;
        done
    })
}

/// Checks what was typed, connects, asks, and says goodbye.
async fn ask(command: Command) -> Result<(), Failure> {
    let ask = command.ask().cloned().expect("commands that ask nobody are handled before");
    let payload = match &command {
        Command::Spawn { args, .. } | Command::Child(ChildCommand::Start { args, .. }) => {
            body(args.as_deref())?
        }
        Command::Call { json, .. } | Command::Send { json, .. } | Command::Publish { json, .. } => {
            body(json.as_deref())?
        }
        _ => body(None)?,
    };
    // What is measured is what nodes would have.
    let mtu = matches!(command, Command::Bench { .. }).then_some(MTU);
    let client = connect(&ask, mtu).await?;
    let done = run_on(&client, command, payload, &ask).await;
    client.close().await;
    done
}

async fn run_on(
    client: &Client,
    command: Command,
    payload: Payload,
    ask: &AskArgs,
) -> Result<(), Failure> {
    match command {
        Command::Status(_) => status(client, ask).await,
        Command::Members(_) => members(client, ask).await,
        Command::Ps { all, .. } => ps(client, all, ask).await,
        Command::Info { target, .. } => info(client, target, ask).await,
        Command::Tree { children: true, on, .. } => children::tree(client, on, ask).await,
        Command::Tree { children: false, on, .. } => tree(client, on, ask).await,
        Command::Why { target: Dest::Child(child), .. } => children::why(client, child, ask).await,
        Command::Child(command) => children::run(client, command, payload).await,
        Command::Why { target, .. } => why::run(client, target, ask).await,
        Command::Names { global: true, on, .. } => entries::global_names(client, on, ask).await,
        Command::Names { global: false, on, .. } => names(client, on, ask).await,
        Command::Groups { group: None, on, .. } => entries::groups(client, on, ask).await,
        Command::Groups { group: Some(group), on, .. } => {
            entries::members(client, group, on, ask).await
        }
        Command::Topics { on, .. } => entries::topics(client, on, ask).await,
        Command::Subscribe { topics, .. } => entries::subscribe(client, topics, ask).await,
        Command::Publish { topic, message, .. } => {
            let topic = Dest::Topic(topic);
            let sent = client.send_raw(topic.clone(), message.into(), payload).await;
            sent.map_err(|error| call_failed(&topic, &error))
        }
        Command::Ring { key, .. } => ring(client, key, ask).await,
        Command::Keyed { kind, all, on, limit, .. } => {
            keyed::list(client, kind, all, on, limit, ask).await
        }
        Command::Drain { node, dry_run, .. } => keyed::drain(client, node, dry_run, ask).await,
        Command::Spawn { kind, name, global, available, groups, on, .. } => {
            let on = match on {
                None => None,
                Some(on) => Some(place(client, on).await?),
            };
            let options = SpawnOptions { name, on, timeout: Some(ask.timeout) };
            let pid = spawn(client, kind, payload, options).await?;
            let global = global.map(|name| (name, available));
            entries::introduce(client, pid, global, groups).await?;
            match ask.format {
                Format::Json => json(&json!({ "pid": pid })),
                Format::Table => print(&format!("{pid}\n")),
            }
        }
        Command::Call { target, message, .. } => {
            let message = MessageName::from(message);
            let called = client.call_raw(target.clone(), message, payload, ask.timeout).await;
            let reply = called.map_err(|error| call_failed(&target, &error))?;
            print(&format!("{}\n", String::from_utf8_lossy(&reply.bytes)))
        }
        Command::Send { target, message, .. } => {
            let sent = client.send_raw(target.clone(), message.into(), payload).await;
            sent.map_err(|error| call_failed(&target, &error))
        }
        Command::Exit { target, kill, reason, .. } => {
            let reason = if kill { ExitReason::Kill } else { ExitReason::from(reason.as_str()) };
            match &target {
                Dest::Group(group, _) => entries::has_members(client, group).await?,
                _ => drop(find(client, &target).await?),
            }
            let asked = client.exit(target.clone(), reason).await;
            asked.map_err(|error| call_failed(&target, &error))
        }
        Command::Leave { on, .. } => call(client, system(on), Leave).await,
        Command::Watch { on, .. } => watch::run(client, on, ask).await,
        Command::Bench { on, seconds, .. } => bench::run(client, on, seconds, ask).await,
        Command::Start(_)
        | Command::Token(_)
        | Command::Cert(_)
        | Command::Join(_)
        | Command::Completions { .. } => unreachable!("handled before anything is asked"),
    }
}

/// Connects as the user of this data directory.
async fn connect(ask: &AskArgs, mtu: Option<u16>) -> Result<Client, Failure> {
    let no = |error: &dyn std::fmt::Display| Failure::No(error.to_string());
    let dir = Home::locate(ask.data_dir.clone()).map_err(|error| no(&error))?;
    if Home::has_authority(&dir) {
        // Credentials that are soon over are made anew.
        Home::open(&dir).map_err(|error| no(&error))?;
    } else if !dir.join("client.pem").exists() {
        return Err(Failure::NoConnection(format!(
            "there are no credentials of a client in {}: start a node first with `purlin start`, \
             get them with `purlin join`, or say where they are with --data-dir or PURLIN_HOME",
            dir.display()
        )));
    }
    check_dir(&dir).map_err(|error| no(&error))?;
    let credentials = Credentials::from_dir(&dir).map_err(|error| no(&error))?;
    let seeds = match &ask.at {
        Some(at) => vec![at.clone()],
        None => Home::running(&dir).iter().map(|node| node.address.to_string()).collect(),
    };
    if seeds.is_empty() {
        return Err(Failure::NoConnection(format!(
            "no node is running from {}: start one with `purlin start`, or say which to ask with \
             --at HOST:PORT",
            dir.display()
        )));
    }
    let builder = Client::builder(seeds).cluster(ask.cluster.clone());
    // `purlin cert renew` is for that.
    let builder = builder.renewal(false).timeout(ask.timeout).call_timeout(ask.timeout);
    let builder = if let Some(mtu) = mtu { builder.mtu(mtu) } else { builder };
    builder.connect(credentials).await.map_err(|error| match error {
        ConnectError::NoNode { .. } => {
            Failure::NoConnection(format!("{error}; `purlin start` starts a node"))
        }
        other => no(&other),
    })
}

/// A body typed as JSON.
fn body(text: Option<&str>) -> Result<Payload, Failure> {
    let text = text.unwrap_or("null");
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        Failure::Usage(format!("{text:?} is not JSON: {error}; quote texts, as in '\"text\"'"))
    })?;
    Payload::encode(Codec::Json, &value).map_err(|error| Failure::Usage(error.to_string()))
}

pub(super) fn system(node: Option<NodeName>) -> Dest {
    let name = Name::new(admin::SYSTEM).expect("a name");
    match node {
        None => Dest::Local(name),
        Some(node) => Dest::Remote(name, node),
    }
}

pub(super) async fn call<M: purlin_proto::Message>(
    client: &Client,
    to: Dest,
    message: M,
) -> Result<M::Reply, Failure> {
    client.call(to.clone(), message).await.map_err(|error| call_failed(&to, &error))
}

/// What to do about it.
const FORBIDDEN: &str = "; `purlin cert show` shows what is allowed, `purlin token create --may` \
     makes a token that allows more";

pub(super) fn call_failed(target: &Dest, error: &CallError) -> Failure {
    let advice = match error {
        CallError::NoProcess => match target {
            Dest::Global(_) => "; `purlin names --global` shows who has one",
            Dest::Group(..) => "; `purlin groups` shows which have members",
            Dest::Key { .. } => "; `purlin ring KIND/KEY` shows who owns it",
            Dest::Child(_) => "; `purlin tree --cluster` shows which run",
            _ => "; `purlin names --on NODE` and `purlin ps --all` show what runs",
        },
        CallError::NotUnderstood { .. } => "; `purlin info` shows what it understands",
        CallError::Timeout => "; --timeout gives it longer",
        CallError::NoConnection => "; `purlin members` shows which nodes are up",
        CallError::Forbidden { .. } => FORBIDDEN,
        _ => "",
    };
    Failure::No(format!("{target}: {error}{advice}"))
}

async fn status(client: &Client, ask: &AskArgs) -> Result<(), Failure> {
    let status = call(client, system(None), admin::GetStatus).await?;
    // A node of an earlier version does not know what that is.
    let leases = call(client, system(None), admin::GetExclusive).await.ok();
    if ask.format == Format::Json {
        return json(&exclusive::Status { status, exclusive: leases });
    }
    let ready = match status.ready {
        true => "yes".to_owned(),
        false if status.members_up < status.expects => {
            format!("no, waiting: sees {} of {} members", status.members_up, status.expects)
        }
        false => "no, starting".to_owned(),
    };
    let mut rows = vec![
        vec!["name".to_owned(), status.name.to_string()],
        vec!["id".to_owned(), status.id.to_string()],
        vec!["address".to_owned(), status.address.to_string()],
        vec!["cluster".to_owned(), status.cluster.to_string()],
        vec!["ready".to_owned(), ready],
        vec!["members up".to_owned(), status.members_up.to_string()],
        vec!["processes".to_owned(), status.processes.to_string()],
        vec!["uptime".to_owned(), span(status.uptime_s)],
        vec!["version".to_owned(), status.version],
        vec!["kinds".to_owned(), status.kinds.join(", ")],
        vec!["certificate".to_owned(), expires(status.certificate_expires_ms)],
    ];
    warn_of_expiry(&[(status.name, status.certificate_expires_ms)]);
    rows.extend(status.seeds.into_iter().map(|seed| {
        let state = match (seed.answers, seed.error) {
            (true, _) => "answers".to_owned(),
            (false, Some(error)) => format!("trying on: {error}"),
            (false, None) => "trying".to_owned(),
        };
        vec![format!("seed {}", seed.seed), state]
    }));
    rows.extend(leases.map(exclusive::rows).unwrap_or_default());
    let counted = status.counters.into_iter().filter(|counter| counter.count > 0);
    rows.extend(counted.map(|counter| vec![counter.name, counter.count.to_string()]));
    table(&["", ""], rows)
}

fn expires(expires_ms: Option<u64>) -> String {
    expires_ms.map_or_else(|| "-".to_owned(), |expires_ms| format!("expires {}", when(expires_ms)))
}

/// Says whose certificates are soon over.
fn warn_of_expiry(nodes: &[(NodeName, Option<u64>)]) {
    for (node, expires_ms) in nodes {
        if let Some(expires_ms) = expires_ms.filter(|expires_ms| is_soon(*expires_ms)) {
            note(&format!(
                "warning: the certificate of {node} expires {}: `purlin cert renew` where it runs, \
                 or see its log",
                when(expires_ms)
            ));
        }
    }
}

async fn members(client: &Client, ask: &AskArgs) -> Result<(), Failure> {
    let members = call(client, system(None), admin::ListMembers).await?;
    if ask.format == Format::Json {
        return json(&members);
    }
    let expiries = members.iter().map(|member| (member.name, member.certificate_expires_ms));
    warn_of_expiry(&expiries.collect::<Vec<_>>());
    let rows = members.into_iter().map(|member| {
        let labels = member.labels.iter().map(|(k, v)| format!("{k}={v}"));
        vec![
            member.name.to_string(),
            state(member.state).to_owned(),
            member.address.to_string(),
            span(member.since_s),
            milliseconds(member.rtt_ms),
            percent(member.loss),
            member.id.to_string(),
            labels.collect::<Vec<_>>().join(","),
        ]
    });
    let headings = ["NAME", "STATE", "ADDRESS", "SINCE", "RTT", "LOSS", "ID", "LABELS"];
    table(&headings, rows.collect())
}

pub(super) fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::Up => "up",
        MemberState::Suspect => "suspect",
        MemberState::Down => "down",
        MemberState::Left => "left",
        MemberState::Draining => "draining",
    }
}

async fn ps(client: &Client, all: bool, ask: &AskArgs) -> Result<(), Failure> {
    let nodes = if all {
        let members = call(client, system(None), admin::ListMembers).await?;
        members.into_iter().filter(|m| m.state.answers()).map(|m| Some(m.name)).collect()
    } else {
        vec![None]
    };
    let mut processes = Vec::new();
    for node in nodes {
        let listed = processes_of(client, node).await;
        match (listed, all) {
            (Ok(listed), _) => processes.extend(listed),
            (Err(failure), true) => {
                note(&format!("warning: {}", failure.text().unwrap_or_default()));
            }
            (Err(failure), false) => return Err(failure),
        }
    }
    if ask.format == Format::Json {
        return json(&processes);
    }
    let rows = processes.into_iter().map(|process| {
        vec![
            process.pid.to_string(),
            process.kind,
            process.name.map(|name| name.to_string()).unwrap_or_default(),
            process.mailbox.to_string(),
            process.handled.to_string(),
            process.dropped.to_string(),
            process.links.to_string(),
            process.monitors.to_string(),
            span(process.uptime_s),
        ]
    });
    let headings =
        ["PID", "KIND", "NAME", "MAILBOX", "HANDLED", "DROPPED", "LINKS", "MONITORS", "UPTIME"];
    table(&headings, rows.collect())
}

/// All processes of a node, page by page.
async fn processes_of(
    client: &Client,
    node: Option<NodeName>,
) -> Result<Vec<ProcessInfo>, Failure> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let page = call(client, system(node), ListProcesses { after }).await?;
        let full = page.len() >= PAGE_ENTRIES;
        after = page.last().map_or(after, |last| last.pid.serial);
        all.extend(page);
        if !full {
            return Ok(all);
        }
    }
}

/// A destination as its own node calls it.
pub(super) fn on_its_node(target: &Dest) -> Dest {
    match target {
        Dest::Remote(name, _) => Dest::Local(name.clone()),
        other => other.clone(),
    }
}

async fn find(client: &Client, target: &Dest) -> Result<ProcessDetail, Failure> {
    let process = entries::one_process(client, target.clone()).await?;
    let asked = GetProcess { target: on_its_node(&process) };
    let found = call(client, system(process.node()), asked).await?;
    found.ok_or_else(|| call_failed(target, &CallError::NoProcess))
}

async fn info(client: &Client, target: Dest, ask: &AskArgs) -> Result<(), Failure> {
    let detail = find(client, &target).await?;
    if ask.format == Format::Json {
        return json(&detail);
    }
    let list = |pids: &[purlin_proto::Pid]| {
        pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let monitors: Vec<_> = detail.monitors.iter().map(ToString::to_string).collect();
    let state = format!("{:?}", detail.state).to_lowercase();
    table(
        &["", ""],
        vec![
            vec!["pid".to_owned(), detail.pid.to_string()],
            vec!["kind".to_owned(), detail.kind],
            vec!["name".to_owned(), detail.name.map(|n| n.to_string()).unwrap_or_default()],
            vec!["state".to_owned(), state],
            vec!["handling".to_owned(), detail.handling.unwrap_or_default()],
            vec!["mailbox".to_owned(), detail.mailbox.to_string()],
            vec!["handled".to_owned(), detail.handled.to_string()],
            vec!["dropped".to_owned(), detail.dropped.to_string()],
            vec!["traps exits".to_owned(), detail.traps_exits.to_string()],
            vec!["links".to_owned(), list(&detail.links)],
            vec!["monitors".to_owned(), monitors.join(" ")],
            vec!["monitored by".to_owned(), list(&detail.monitored_by)],
            vec!["parent".to_owned(), detail.parent.map(|p| p.to_string()).unwrap_or_default()],
            vec!["uptime".to_owned(), span(detail.uptime_s)],
            vec!["messages".to_owned(), detail.messages.join(" ")],
        ],
    )
}

async fn tree(client: &Client, on: Option<NodeName>, ask: &AskArgs) -> Result<(), Failure> {
    let roots = call(client, system(on), GetTree).await?;
    if ask.format == Format::Json {
        return json(&roots);
    }
    let mut text = String::new();
    for root in &roots {
        draw(root, "", "", &mut text);
    }
    print(&text)
}

fn draw(node: &TreeNode, first: &str, rest: &str, out: &mut String) {
    use std::fmt::Write;
    let id = node.child_id.as_ref().map(|id| format!(" id={id}")).unwrap_or_default();
    let name = node.name.as_ref().map(|name| format!(" name={name}")).unwrap_or_default();
    let restarts =
        if node.restarts > 0 { format!(" restarts={}", node.restarts) } else { String::new() };
    let last = node.last_exit.as_ref();
    let last = last.map(|exit| format!(" last={:?} {} ago", exit.reason, span(exit.ago_s)));
    let last = last.unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{first}{} {}{id}{name}{restarts}{last}", node.kind, node.pid);
    for (index, child) in node.children.iter().enumerate() {
        let last = index + 1 == node.children.len();
        let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        draw(child, &format!("{rest}{branch}"), &format!("{rest}{below}"), out);
    }
}

async fn names(client: &Client, on: Option<NodeName>, ask: &AskArgs) -> Result<(), Failure> {
    let names = call(client, system(on), ListNames).await?;
    if ask.format == Format::Json {
        return json(&names);
    }
    let rows = names.into_iter().map(|info| {
        vec![info.name.to_string(), info.pid.to_string(), info.kind, info.node.to_string()]
    });
    table(&["NAME", "PID", "KIND", "NODE"], rows.collect())
}

async fn ring(client: &Client, key: String, ask: &AskArgs) -> Result<(), Failure> {
    let owner = call(client, system(None), GetOwner { key }).await?;
    if ask.format == Format::Json {
        return json(&owner);
    }
    let successors: Vec<_> = owner.successors.iter().map(ToString::to_string).collect();
    let row = vec![
        owner.key,
        owner.owner.to_string(),
        owner.shard.to_string(),
        successors.join(","),
        owner.ring,
    ];
    table(&["KEY", "OWNER", "SHARD", "SUCCESSORS", "RING"], vec![row])
}

/// The node that is meant.
async fn place(client: &Client, on: Placement) -> Result<NodeName, Failure> {
    if let Placement::Node(node) = on {
        return Ok(node);
    }
    let found = call(client, system(None), admin::Place { on }).await?;
    found.map_err(|error| {
        Failure::No(format!("{error}; `purlin members` shows who has which labels"))
    })
}

async fn spawn(
    client: &Client,
    kind: Name,
    args: Payload,
    options: SpawnOptions,
) -> Result<Pid, Failure> {
    let on = options.on;
    client.spawn(kind, args, options).await.map_err(|error| {
        let advice = match error {
            SpawnError::NoConnection => "; `purlin members` shows which nodes are up",
            SpawnError::Forbidden { .. } => FORBIDDEN,
            SpawnError::Args { .. } => "; arguments are JSON, as in `purlin spawn counter 10`",
            _ => "",
        };
        let place = on.map(|node| format!("on {node}: ")).unwrap_or_default();
        Failure::No(format!("{place}{error}{advice}"))
    })
}
