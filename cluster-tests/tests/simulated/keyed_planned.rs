//! Keyed processes with state on simulated machines that are taken out of service and come back, one
//! after the other, on lossy roads: no call fails and nothing is lost, whatever the seed.
//!
//! A few seeds in the gate, more with `PURLIN_SEEDS`.

use std::time::Duration;

use purlin::kinds::Counter;
use purlin::testing::{Cluster, Road};
use purlin::{Dest, Keyed};
use purlin_cluster_tests::planned::{NODES, Totals, exclusive, until_all_hold};

const KEYS: usize = 24;
const ROUNDS: usize = 4;
const IDLE: Duration = Duration::from_secs(7);

fn schedule(seed: u64, keyed: Keyed) {
    let bad = Road { loss: 0.01, jitter: Duration::from_millis(3), ..Road::default() };
    let keyed = keyed.passivate_after(IDLE);
    let cluster = Cluster::builder(seed)
        .nodes(NODES.len())
        .roads(bad)
        .with(move |node| node.stateful::<Counter>(keyed))
        .start();
    let mut totals = Totals::new(seed, KEYS, |key| Dest::key("counter", key as u64));
    cluster.run(async |cluster| {
        if exclusive(cluster, NODES[0]).await.takes_part {
            until_all_hold(cluster).await;
        }
        totals.add(cluster, "", 3).await;
        for _ in 0..ROUNDS {
            let leaves = totals.node();
            totals.drain(cluster, leaves).await;
            cluster.stop(leaves).await;
            totals.add(cluster, leaves, 1).await;
            if totals.heads() {
                // What is idle is only stored.
                cluster.advance(2 * IDLE).await;
            }
            totals.bring_back(cluster, leaves).await;
        }
    });
}

fn for_all_seeds(keyed: Keyed) {
    let last = std::env::var("PURLIN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    (1..=last).for_each(|seed| schedule(seed, keyed));
}

#[test]
fn nodes_that_leave_and_come_back_cost_no_call_and_no_state() {
    for_all_seeds(Keyed::available());
}

#[test]
fn the_same_holds_for_what_runs_at_most_once() {
    for_all_seeds(Keyed::new());
}
