//! `purlin watch`.

use std::collections::BTreeSet;
use std::time::Duration;

use purlin_client::Client;
use purlin_proto::NodeName;
use purlin_proto::admin::{Event, ListMembers, MemberState, What};
use serde_json::{Value, json};

use super::Failure;
use super::args::{AskArgs, Format};
use super::ask::{call, system};
use super::output::print;

/// How long after the end of the connection another is tried.
const RECONNECT_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn run(client: &Client, on: Vec<NodeName>, ask: &AskArgs) -> Result<(), Failure> {
    let mut announced = false;
    loop {
        match follow(client, &on, ask, &mut announced).await {
            Ok(()) => eprintln!("connection lost, looking for another node"),
            Err(Failure::No(_) | Failure::NoConnection(_)) if announced => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(RECONNECT_EVERY).await;
    }
}

/// Prints events until the connection is lost.
async fn follow(
    client: &Client,
    on: &[NodeName],
    ask: &AskArgs,
    announced: &mut bool,
) -> Result<(), Failure> {
    let failed = |error: purlin_client::CallError| Failure::No(error.to_string());
    let members = client.members().await.map_err(failed)?;
    let up: Vec<_> =
        members.into_iter().filter(|m| m.state == MemberState::Up).map(|m| m.name).collect();
    let nodes = if on.is_empty() { up } else { on.to_vec() };
    let mut watched: BTreeSet<_> = nodes.iter().copied().collect();
    let mut events = client.events(nodes).await.map_err(failed)?;
    if !*announced {
        let names: Vec<_> = watched.iter().map(ToString::to_string).collect();
        eprintln!("watching {}", names.join(", "));
        *announced = true;
    }
    while let Some(event) = events.next().await {
        show(&event, ask.format)?;
        if on.is_empty() {
            follow_newcomer(client, &event, &mut watched).await;
        }
    }
    Ok(())
}

/// A node that joins is watched as well, and one that comes back again.
async fn follow_newcomer(client: &Client, event: &Event, watched: &mut BTreeSet<NodeName>) {
    match &event.what {
        What::NodeUp { id, .. } if watched.insert(id.name) => {
            if let Some(subscriber) = client.session() {
                let subscribe = purlin_proto::admin::Subscribe { subscriber };
                // It may be gone again; its next life is another event.
                drop(call(client, system(Some(id.name)), subscribe).await);
                drop(call(client, system(None), ListMembers).await);
            }
        }
        What::NodeDown { id, .. } | What::NodeLeft { id } => {
            watched.remove(&id.name);
        }
        _ => {}
    }
}

fn show(event: &Event, format: Format) -> Result<(), Failure> {
    let (name, fields) = describe(&event.what);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit 53 bits")]
    let at = event.at_ms as f64 / 1000.0;
    let mut object = json!({ "at": at, "event": name, "node": event.node });
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, &fields) {
        object.extend(fields.clone());
    }
    match format {
        Format::Json => print(&format!("{object}\n")),
        Format::Table => {
            let fields = fields.as_object().into_iter().flatten();
            let text: Vec<_> = fields
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| match value {
                    Value::String(text) => format!("{key}={text}"),
                    other => format!("{key}={other}"),
                })
                .collect();
            print(&format!(
                "{} {name} seen_by={} {}\n",
                clock(event.at_ms),
                event.node,
                text.join(" ")
            ))
        }
    }
}

/// The event's name, and what else there is to say.
fn describe(what: &What) -> (&'static str, Value) {
    match what {
        What::NodeUp { id, address } => {
            ("node_up", json!({ "name": id.name, "id": id, "address": address }))
        }
        What::NodeSuspect { id } => ("node_suspect", json!({ "name": id.name, "id": id })),
        What::NodeAlive { id } => ("node_alive", json!({ "name": id.name, "id": id })),
        What::NodeDown { id, why } => {
            ("node_down", json!({ "name": id.name, "id": id, "reason": why }))
        }
        What::NodeLeft { id } => ("node_left", json!({ "name": id.name, "id": id })),
        What::ProcessCrashed { pid, kind, name, reason } => {
            ("process_crashed", json!({ "pid": pid, "kind": kind, "name": name, "reason": reason }))
        }
        What::ChildRestarted { supervisor, child, pid, restarts, reason } => (
            "child_restarted",
            json!({ "supervisor": supervisor, "child": child, "pid": pid,
                    "restarts": restarts, "reason": reason }),
        ),
        What::NameRegistered { name, pid } => {
            ("name_registered", json!({ "name": name, "pid": pid }))
        }
        What::NameReleased { name, pid } => ("name_released", json!({ "name": name, "pid": pid })),
        What::Missed { count } => ("missed", json!({ "count": count })),
        _ => ("unknown", json!({})),
    }
}

/// The time of day, UTC.
fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}Z", seconds % 60, at_ms % 1000)
}
