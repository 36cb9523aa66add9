//! `purlin watch`.

use std::collections::BTreeSet;
use std::time::Duration;

use purlin_client::{CallError, Client, Events};
use purlin_proto::NodeName;
use purlin_proto::admin::{Event, MemberState, What};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Failure;
use super::args::{AskArgs, Format};
use super::output::{clock, note, print, reader_is_gone};

/// How long after the end of the connection another is tried, and how often a node that could not
/// be watched is.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The nodes to watch and those that are.
struct Watched {
    /// What was typed; everyone if it is empty.
    on: Vec<NodeName>,
    up: BTreeSet<NodeName>,
    heard: BTreeSet<NodeName>,
    /// Told of once.
    silent: BTreeSet<NodeName>,
}

pub(super) async fn run(client: &Client, on: Vec<NodeName>, ask: &AskArgs) -> Result<(), Failure> {
    let mut announced = false;
    loop {
        match follow(client, &on, ask, &mut announced).await {
            Ok(()) => note("connection lost, looking for another node"),
            Err(Failure::No(_) | Failure::NoConnection(_)) if announced => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

/// Prints events until the connection is lost.
async fn follow(
    client: &Client,
    on: &[NodeName],
    ask: &AskArgs,
    announced: &mut bool,
) -> Result<(), Failure> {
    let failed = |error: CallError| Failure::No(error.to_string());
    let members = client.members().await.map_err(failed)?;
    let up = members.into_iter().filter(|m| m.state == MemberState::Up).map(|m| m.name);
    let mut nodes = Watched {
        on: on.to_vec(),
        up: up.collect(),
        heard: BTreeSet::new(),
        silent: BTreeSet::new(),
    };
    // The connected node tells of the others, whichever are watched.
    let mut events = client.events([]).await.map_err(failed)?;
    let mut asking = JoinSet::new();
    nodes.ask(&events, &mut asking);
    while !*announced && let Some(asked) = asking.join_next().await {
        nodes.asked(asked.ok());
    }
    if !*announced {
        let names: Vec<_> = nodes.heard.iter().map(ToString::to_string).collect();
        note(&format!("watching {}", names.join(", ")));
        *announced = true;
    }
    let mut again = tokio::time::interval_at(Instant::now() + RETRY_EVERY, RETRY_EVERY);
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return Ok(()) };
                nodes.changed(&event.what);
                if nodes.wants(event.node) {
                    show(&event, ask.format)?;
                }
                if matches!(event.what, What::NodeUp { .. }) {
                    nodes.ask(&events, &mut asking);
                }
            }
            Some(asked) = asking.join_next() => nodes.asked(asked.ok()),
            _ = again.tick() => {
                if reader_is_gone() {
                    return Err(Failure::ReaderGone);
                }
                if asking.is_empty() {
                    nodes.ask(&events, &mut asking);
                }
            }
        }
    }
}

type Asked = (NodeName, Result<(), CallError>);

impl Watched {
    fn wants(&self, node: NodeName) -> bool {
        self.on.is_empty() || self.on.contains(&node)
    }

    fn changed(&mut self, what: &What) {
        match what {
            What::NodeUp { id, .. } => {
                // Its next life knows nothing of us.
                self.heard.remove(&id.name);
                self.up.insert(id.name);
            }
            What::NodeDown { id, .. } | What::NodeLeft { id } => {
                self.up.remove(&id.name);
                self.heard.remove(&id.name);
                self.silent.remove(&id.name);
            }
            _ => {}
        }
    }

    /// Asks those nodes to tell us that do not yet.
    fn ask(&self, events: &Events, asking: &mut JoinSet<Asked>) {
        for &node in self.up.difference(&self.heard).filter(|&&node| self.wants(node)) {
            let subscribed = events.also(Some(node));
            asking.spawn(async move { (node, subscribed.await) });
        }
        // Those that were typed and are not members are worth a word.
        for &node in self.on.iter().filter(|node| !self.up.contains(node)) {
            asking.spawn(async move { (node, Err(CallError::NoConnection)) });
        }
    }

    fn asked(&mut self, asked: Option<Asked>) {
        match asked {
            Some((node, Ok(()))) => {
                self.silent.remove(&node);
                self.heard.insert(node);
            }
            Some((node, Err(error))) if self.silent.insert(node) => {
                note(&format!("warning: {node} cannot be watched now, trying again: {error}"));
            }
            Some(_) | None => {}
        }
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
        What::ClusterChild { child, event, alert } => {
            ("cluster_child", json!({ "child": child, "what": event, "alert": alert }))
        }
        What::Missed { count } => ("missed", json!({ "count": count })),
        _ => ("unknown", json!({})),
    }
}
