//! When all is over: everything is healed, runs again and is quiet. Then every node sees every other,
//! something gets through between every pair, both ways, and nothing is left of those who have ended.

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::proto::admin::ProcessDetail;
use purlin::testing::Cluster;
use purlin::{Dest, ExitReason, NodeName, Pid};

use super::record::{self, Who};
use super::tree::KINDS;
use super::worker::Ping;

/// All nodes agree on who is a member so long after the last fault is over (membership, I5).
const AGREE: Duration = Duration::from_mins(1);

/// What is under way has arrived after that.
const SETTLE: Duration = Duration::from_secs(6);

/// Heals everything and looks; returns what was wrong in the whole run.
pub async fn check(cluster: &Cluster) -> Vec<String> {
    heal(cluster).await;
    if let Err(views) = agree(cluster).await {
        record::violation(format!("members agree within {AGREE:?}: {views}"));
    }
    record::act(false);
    cluster.advance(SETTLE).await;
    progress(cluster).await;
    let violations = record::end(details(cluster));
    leaks(cluster).await;
    violations.into_iter().chain(record::end(BTreeMap::new())).collect()
}

async fn heal(cluster: &Cluster) {
    cluster.heal();
    for name in cluster.names() {
        cluster.freeze(name, Duration::ZERO);
        cluster.slow(name, Duration::ZERO);
        if !cluster.node(name).is_running() {
            cluster.restart(name).await;
        }
    }
}

async fn agree(cluster: &Cluster) -> Result<(), String> {
    let all = cluster.names();
    let end = cluster.now() + AGREE;
    loop {
        let views: Vec<_> = all.iter().map(|&name| cluster.node(name).members()).collect();
        if views.iter().all(|view| *view == all) {
            return Ok(());
        }
        if cluster.now() >= end {
            return Err(format!("{all:?} see {views:?}"));
        }
        cluster.advance(Duration::from_millis(100)).await;
    }
}

/// A call from every node to every other.
async fn progress(cluster: &Cluster) {
    for from in cluster.names() {
        for to in cluster.names() {
            let deaf = Dest::Remote("deaf".into(), to);
            if let Err(error) = cluster.node(from).call(deaf, Ping).await {
                record::violation(format!("progress after healing: {from} calls {to}: {error}"));
            }
        }
    }
}

/// All that the nodes tell of those whom the record knows.
fn details(cluster: &Cluster) -> BTreeMap<Who, ProcessDetail> {
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

/// Ends all workers; then nothing is left but what every node has.
async fn leaks(cluster: &Cluster) {
    for (_, pid) in record::listeners() {
        kill(cluster, pid).await;
    }
    cluster.advance(SETTLE).await;
    for name in cluster.names() {
        let left = cluster.node(name).look(|node| {
            let mut kinds: Vec<_> =
                node.runtime().processes_after(0).into_iter().map(|process| process.kind).collect();
            kinds.sort();
            kinds
        });
        let left = left.unwrap_or_default();
        if left != KINDS {
            record::violation(format!("nothing leaks: {name} has {left:?}"));
        }
    }
}

async fn kill(cluster: &Cluster, pid: Pid) {
    let kill = move |node: purlin::Node| async move { node.exit(pid, ExitReason::Kill) };
    cluster.node(pid.node.name).run(kill).await;
}
