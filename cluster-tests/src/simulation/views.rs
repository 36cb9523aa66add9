//! What the nodes of a run say when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::proto::admin::ProcessDetail;
use purlin::testing::Cluster;
use purlin::{
    Actor, ClusterChildInfo, ClusterChildState, Dest, Gauge, Group, Name, Node, NodeName, Pid,
};
use tokio::runtime::Handle;

use super::only;
use super::record::{self, Who};
use super::schedule::Part;
use super::shared::{GROUPS, KEYS, Keeper, NAMES, WhoIs};

/// What each child does, and where it runs or was placed last.
pub type Children = BTreeMap<String, (ClusterChildState, Option<NodeName>)>;

/// What one node says.
#[derive(Debug, Default)]
pub struct View {
    /// Who is in each group, as often as it has joined; only groups with members.
    pub groups: BTreeMap<String, Vec<Pid>>,
    /// Who has each global name.
    pub names: BTreeMap<&'static str, Pid>,
    /// Which processes of keys it runs.
    pub keys: Vec<(String, Pid)>,
    /// Who answers for a key when this node calls it.
    pub answers: BTreeMap<&'static str, Result<Who, String>>,
    /// What children do, and where.
    pub children: Children,
    /// The kinds of its processes, one for each.
    pub kinds: Vec<String>,
    pub gauges: Vec<Gauge>,
    /// How many tasks its machine has.
    pub tasks: usize,
}

impl View {
    /// How much it holds of something.
    pub fn holds(&self, what: &str) -> usize {
        let held = self.gauges.iter().find(|gauge| gauge.what == what);
        held.unwrap_or_else(|| panic!("a node tells of {what}")).now
    }
}

/// Looks at every node.
pub fn look(cluster: &Cluster) -> BTreeMap<NodeName, View> {
    let view = |name| (name, cluster.node(name).look(of).unwrap_or_default());
    cluster.names().into_iter().map(view).collect()
}

/// Lets every node call every key, which starts its process where there is none, and tell of all
/// children. What is exclusive may take a while to run.
pub async fn ask(cluster: &Cluster, views: &mut BTreeMap<NodeName, View>, patience: Duration) {
    let mut keys: Vec<_> = KEYS.into_iter().map(|key| (Keeper::KIND, key)).collect();
    if record::part() == Part::Keys {
        keys.extend(only::KEYS.into_iter().map(|key| (only::Only::KIND, key)));
    }
    let end = cluster.now() + patience;
    // All nodes ask for a key in one go: soon after, its process may have stopped for idleness.
    for (kind, key) in keys {
        let answers = loop {
            let mut answers = Vec::new();
            for &name in views.keys() {
                let asked = Dest::key(kind, key);
                let who = cluster.node(name).call(asked, WhoIs { crash: false }).await;
                answers.push((name, who.map_err(|error| error.to_string())));
            }
            // One that may run no more where it was has another one after it.
            let (_, first) = &answers[0];
            let all = answers.iter().all(|(_, answer)| answer.is_ok() && answer == first);
            if all || kind != only::Only::KIND || cluster.now() >= end {
                break answers;
            }
            cluster.advance(Duration::from_millis(100)).await;
        };
        for (name, answer) in answers {
            views.get_mut(&name).expect("it was asked").answers.insert(key, answer);
        }
    }
    for (name, children) in children(cluster).await {
        views.get_mut(&name).expect("it was there").children = children;
    }
}

/// What every node says of all children; nothing where there are none.
pub async fn children(cluster: &Cluster) -> BTreeMap<NodeName, Children> {
    let mut views = BTreeMap::new();
    for name in cluster.names() {
        let list = |node: Node| async move {
            let mut all = Vec::new();
            for of in [only::SINGLE, only::MANY] {
                // Who does not answer sees none.
                all.extend(node.cluster_supervisor(of).children().await.unwrap_or_default());
            }
            all
        };
        let list = cluster.node(name).run(list).await.unwrap_or_default();
        let line = |info: ClusterChildInfo| (info.child.to_string(), (info.state, info.node));
        views.insert(name, list.into_iter().map(line).collect());
    }
    views
}

/// All that the nodes tell of those whom the record knows.
pub fn details(cluster: &Cluster) -> BTreeMap<Who, ProcessDetail> {
    let of = |name: NodeName| {
        let look = cluster.node(name).look(|node| {
            let runtime = node.runtime();
            let all = runtime.processes_after(0).into_iter();
            let details = all.filter_map(|process| runtime.process_detail(&process.pid.into()));
            details.collect::<Vec<_>>()
        });
        look.unwrap_or_default()
    };
    let all = cluster.names().into_iter().flat_map(of);
    all.filter_map(|detail| Some((record::whose(detail.pid)?, detail))).collect()
}

fn of(node: &Node) -> View {
    let runtime = node.runtime();
    let members = |group: Group| {
        let mut members = runtime.members_of(group.clone());
        members.sort_unstable();
        (!members.is_empty()).then(|| (group.to_string(), members))
    };
    let groups = GROUPS.into_iter().map(Group::new).chain(runtime.groups());
    let holder = |name: &'static str| {
        Some((name, runtime.whereis_global(&Name::new(name).expect("a name"))?))
    };
    let mut kinds: Vec<_> = runtime.processes_after(0).into_iter().map(|one| one.kind).collect();
    kinds.sort_unstable();
    View {
        groups: groups.filter_map(members).collect(),
        names: NAMES.into_iter().filter_map(holder).collect(),
        keys: runtime
            .keyed_processes()
            .into_iter()
            .map(|(_, k, pid)| (k.to_string(), pid))
            .collect(),
        answers: BTreeMap::new(),
        children: Children::new(),
        kinds,
        gauges: node.gauges(),
        tasks: Handle::current().metrics().num_alive_tasks(),
    }
}
