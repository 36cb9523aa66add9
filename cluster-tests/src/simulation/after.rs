//! When all is over: everything is healed, runs again and is quiet. Then every node sees every other,
//! something gets through between every pair, both ways, and nothing is left of those who have ended.

use std::time::Duration;

use purlin::testing::Cluster;
use purlin::{Dest, ExitReason, Pid};

use super::record;
use super::views;
use super::worker::Ping;

/// All nodes agree on who is a member so long after the last fault is over (membership, I5).
const AGREE: Duration = Duration::from_mins(1);

/// What is under way has arrived after that.
const SETTLE: Duration = Duration::from_secs(6);

/// What is to end by itself has ended after that. QUIC goes last: it keeps a closed connection for three
/// times its probe timeout (RFC 9000, section 10.2), and whoever was frozen for seconds has a long one.
const QUIET: Duration = Duration::from_secs(90);

/// Heals everything and looks; returns what was wrong in the whole run.
pub async fn check(cluster: &Cluster) -> Vec<String> {
    heal(cluster).await;
    if let Err(views) = agree(cluster).await {
        record::violation(format!("members agree within {AGREE:?}: {views}"));
    }
    record::act(false);
    cluster.advance(SETTLE).await;
    progress(cluster).await;
    let mut seen = views::look(cluster);
    views::ask(cluster, &mut seen).await;
    for (name, now) in views::look(cluster) {
        seen.get_mut(&name).expect("it was there").keys = now.keys;
    }
    record::end(views::details(cluster), seen);
    clear(cluster).await;
    record::violations()
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

/// Ends all workers, and looks until nothing is left of them.
async fn clear(cluster: &Cluster) {
    for (_, pid) in record::listeners() {
        kill(cluster, pid).await;
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
