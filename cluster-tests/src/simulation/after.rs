//! When all is over: everything is healed, runs again and is quiet. Then every node sees every other,
//! something gets through between every pair, both ways, and nothing is left of those who have ended.

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::testing::{Cluster, DiskState};
use purlin::{ClusterChildState, Dest, ExitReason, Pid};

use super::leaving;
use super::only;
use super::record;
use super::schedule::Part;
use super::views;
use super::worker::Ping;

/// All nodes agree on who is a member so long after the last fault is over (membership, I5).
const AGREE: Duration = Duration::from_mins(1);

/// What is exclusive, and all children, run again so long after members agree: leases are given, owners
/// of children ask who has which, and place them.
const RUN_AGAIN: Duration = Duration::from_secs(30);

/// What is under way has arrived after that.
const SETTLE: Duration = Duration::from_secs(6);

/// What is to end by itself has ended after that. QUIC goes last: it keeps a closed connection for three
/// times its probe timeout (RFC 9000, section 10.2), and whoever was frozen for seconds has a long one.
const QUIET: Duration = Duration::from_secs(90);

/// Heals everything and looks.
pub async fn check(cluster: &Cluster) {
    heal(cluster).await;
    if let Err(views) = agree(cluster).await {
        record::violation("members agree", format!("not within {AGREE:?}: {views}"));
    }
    record::act(false);
    cluster.advance(SETTLE).await;
    progress(cluster).await;
    if record::part() == Part::Children {
        children_agree(cluster).await;
    }
    let mut seen = views::look(cluster);
    views::ask(cluster, &mut seen, RUN_AGAIN).await;
    for (name, now) in views::look(cluster) {
        seen.get_mut(&name).expect("it was there").keys = now.keys;
    }
    record::end(views::details(cluster), seen);
    clear(cluster).await;
}

async fn heal(cluster: &Cluster) {
    cluster.heal();
    for name in cluster.names() {
        cluster.set_disk(name, DiskState::Sound);
    }
    leaving::stop(cluster, true).await;
    for name in cluster.names() {
        cluster.freeze(name, Duration::ZERO);
        cluster.slow(name, Duration::ZERO);
        if !cluster.node(name).is_running() {
            super::start(cluster, name).await;
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
                record::violation("progress after healing", format!("{from} calls {to}: {error}"));
            }
        }
    }
}

/// All nodes come to say the same of all children, and of none that it is about to run.
async fn children_agree(cluster: &Cluster) {
    let end = cluster.now() + RUN_AGAIN;
    loop {
        let views = views::children(cluster).await;
        let settled = |view: &BTreeMap<_, (ClusterChildState, _)>| {
            let states = [ClusterChildState::Running, ClusterChildState::GaveUp];
            // Several nodes may have crashed with it.
            let allowed = |state| states.contains(&state) || state == ClusterChildState::Poison;
            view.len() == only::children().count() && view.values().all(|(s, _)| allowed(*s))
        };
        let first = views.values().next();
        if views.values().all(|view| settled(view) && Some(view) == first) {
            return;
        }
        if cluster.now() >= end {
            return record::violation(
                "children agree",
                format!("not within {RUN_AGAIN:?}: {views:?}"),
            );
        }
        cluster.advance(Duration::from_millis(500)).await;
    }
}

/// Stops all children for good.
async fn stop_children(cluster: &Cluster) {
    let name = cluster.names()[0];
    let stop = |node: purlin::Node| async move {
        for (of, child) in only::children() {
            if let Err(error) = node.cluster_supervisor(of).stop_child(child).await {
                let what = format!("{of}/{child} is not stopped: {error}");
                record::violation("children end", what);
            }
        }
    };
    cluster.node(name).run(stop).await;
}

/// Ends all workers, and looks until nothing is left of them.
async fn clear(cluster: &Cluster) {
    for (_, pid) in record::listeners() {
        kill(cluster, pid).await;
    }
    if record::part() == Part::Children {
        stop_children(cluster).await;
    }
    let end = cluster.now() + QUIET;
    while cluster.now() < end {
        cluster.advance(Duration::from_millis(500)).await;
        if record::gone(views::look(cluster), false) {
            return;
        }
    }
    record::gone(views::look(cluster), true);
}

async fn kill(cluster: &Cluster, pid: Pid) {
    let kill = move |node: purlin::Node| async move { node.exit(pid, ExitReason::Kill) };
    cluster.node(pid.node.name).run(kill).await;
}
