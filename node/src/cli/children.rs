//! Children of cluster supervisors: `purlin child`, `purlin tree --cluster`,
//! `purlin why child:SUPERVISOR/CHILD`.

use std::collections::BTreeMap;

use purlin_client::Client;
use purlin_proto::admin::children::{
    CHILDREN, CHILDREN_PAGE, ClusterChildError, ClusterChildInfo, ClusterChildState,
    GetClusterChild, ListClusterChildren, RestartClusterChild, StartClusterChild, StartedChild,
    StopClusterChild,
};
use purlin_proto::{ChildId, Dest, Name, NodeName, Payload};

use super::Failure;
use super::args::{AskArgs, ChildCommand, Format};
use super::ask::call;
use super::output::{clock, json, print, span, table};
use crate::{ClusterChild, ClusterSupervisor};

/// Does what `purlin child` was told.
pub(super) async fn run(
    client: &Client,
    command: ChildCommand,
    args: Payload,
) -> Result<(), Failure> {
    let failed =
        |child: &ChildId, error: ClusterChildError| Failure::No(format!("{child}: {error}"));
    match command {
        ChildCommand::Start { child, kind, on, restart, available, .. } => {
            let new = ClusterChild::kind(child.child.clone(), kind, args);
            let supervisor = ClusterSupervisor::new(child.supervisor.clone());
            let supervisor = if available { supervisor.available() } else { supervisor };
            let plan = new.placement(on).restart(restart).plan(&supervisor);
            let plan = plan.map_err(|error| failed(&child, error))?;
            let asked = StartClusterChild { child: child.clone(), plan, forwarded: false };
            let started = call(client, children(None), asked).await?;
            let state = match started.map_err(|error| failed(&child, error))? {
                StartedChild::New => "new",
                StartedChild::Present(state) => state.as_str(),
            };
            print(&format!("{child} {state}\n"))
        }
        ChildCommand::Stop { child, .. } => {
            let asked = StopClusterChild { child: child.clone(), forwarded: false };
            call(client, children(None), asked).await?.map_err(|error| failed(&child, error))
        }
        ChildCommand::Restart { child, .. } => {
            let asked = RestartClusterChild { child: child.clone(), forwarded: false };
            call(client, children(None), asked).await?.map_err(|error| failed(&child, error))
        }
    }
}

/// The process that knows, on the node that is asked or another one.
fn children(on: Option<NodeName>) -> Dest {
    let name: Name = CHILDREN.parse().expect("a name");
    on.map_or_else(|| Dest::Local(name.clone()), |on| Dest::Remote(name.clone(), on))
}

pub(super) async fn tree(
    client: &Client,
    on: Option<NodeName>,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let mut all: Vec<ClusterChildInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| info.child.clone());
        let asked = ListClusterChildren { supervisor: None, after };
        let page = call(client, children(on), asked).await?;
        let full = page.len() >= CHILDREN_PAGE;
        all.extend(page);
        if !full {
            break;
        }
    }
    if ask.format == Format::Json {
        return json(&all);
    }
    let mut supervisors: BTreeMap<&Name, Vec<&ClusterChildInfo>> = BTreeMap::new();
    for info in &all {
        supervisors.entry(&info.child.supervisor).or_default().push(info);
    }
    let mut rows = Vec::new();
    for (supervisor, children) in supervisors {
        let running = children.iter().filter(|i| i.state == ClusterChildState::Running).count();
        let mut row = vec![supervisor.to_string(), format!("{running} of {}", children.len())];
        row.resize(8, String::new());
        rows.push(row);
        let last = children.len() - 1;
        rows.extend(children.iter().enumerate().map(|(at, info)| line(info, at == last)));
    }
    table(&["CHILD", "STATE", "KIND", "NODE", "PID", "SINCE", "RESTARTS", "WHY"], rows)
}

fn line(info: &ClusterChildInfo, last: bool) -> Vec<String> {
    let branch = if last { "└─ " } else { "├─ " };
    vec![
        format!("{branch}{}", info.child.child),
        info.state.as_str().to_owned(),
        info.kind.clone(),
        info.node.map(|node| node.to_string()).unwrap_or_default(),
        info.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        if info.pid.is_some() { span(info.since_s) } else { String::new() },
        info.restarts.to_string(),
        info.why.clone(),
    ]
}

pub(super) async fn why(client: &Client, child: ChildId, ask: &AskArgs) -> Result<(), Failure> {
    let asked = GetClusterChild { child: child.clone() };
    let found = call(client, children(None), asked).await?;
    let why = found.ok_or_else(|| {
        Failure::No(format!(
            "no child {child} is known; `purlin tree --cluster` shows those that there are"
        ))
    })?;
    if ask.format == Format::Json {
        return json(&why);
    }
    let info = &why.info;
    let at = match (info.pid, info.node) {
        (Some(pid), _) => format!(" as {pid} for {}", span(info.since_s)),
        (None, Some(node)) => format!(", last placed on {node}"),
        (None, None) => String::new(),
    };
    print(&format!(
        "{child} ({}) {}{at}, restarts={}, generation={}\n\
         because: {}\n\
         placement {}, decided by {}\n",
        info.kind,
        info.state.as_str(),
        info.restarts,
        info.generation,
        info.why,
        why.placement,
        info.owner,
    ))?;
    let rows = why.events.iter().map(|event| vec![clock(event.at_ms), event.event.clone()]);
    print(&format!("\nas {} has seen it:\n", why.seen_by))?;
    table(&["TIME", "EVENT"], rows.collect())
}
