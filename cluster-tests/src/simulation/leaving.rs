//! Nodes that are taken out of service while all else goes on, and stop when that is done.
//!
//! Their machine may crash before; then they never get so far.

use purlin::NodeName;
use purlin::testing::Cluster;

use super::record;

/// Begins to drain a node, if it runs and does not drain already.
pub async fn begin(cluster: &Cluster, name: NodeName) {
    if !cluster.node(name).is_running() {
        return;
    }
    let Some(start) = record::leaves(name) else { return };
    let drain = move |node: purlin::Node| async move {
        tokio::spawn(async move {
            node.drain().await;
            record::has_left(name, start);
        });
    };
    // It may crash before it is asked.
    cluster.node(name).run(drain).await;
}

/// Stops the nodes that are out of service; at the end also those that are not yet.
pub async fn stop(cluster: &Cluster, at_once: bool) {
    for (name, out) in record::leaving() {
        if (out || at_once) && cluster.node(name).is_running() {
            cluster.stop(name).await;
        }
    }
}
