//! Whole nodes, and many of them: all start at once, some die at once, some are cut off and come back.
//!
//! Everything of a node is there, down to its connections; what membership alone does with hundreds
//! is in `node/cluster/tests/simulated/figures.rs`. Twenty in the gate, more in release:
//! `PURLIN_NODES=150 cargo test --release -p purlin-cluster-tests --test simulated many_nodes`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use purlin::NodeName;
use purlin::proto::admin::What;
use purlin::testing::Cluster;

const S: Duration = Duration::from_secs(1);

fn wanted() -> usize {
    std::env::var("PURLIN_NODES").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// How often each node was declared down, by anybody.
#[derive(Clone, Default)]
struct Downs(Arc<Mutex<BTreeMap<NodeName, usize>>>);

impl Downs {
    fn take(&self) -> BTreeMap<NodeName, usize> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn many_start_at_once_see_deaths_and_come_together_after_a_split() {
    let count = wanted();
    let (dead, lost) = (count / 10, count / 4);
    let downs = Downs::default();
    let seen = downs.clone();
    let tell = move |_, what: &What| {
        if let What::NodeDown { id, .. } = what {
            *seen.0.lock().unwrap().entry(id.name).or_default() += 1;
        }
    };
    let begun = Instant::now();
    Cluster::builder(1).nodes(count).on_event(tell).start_apart().run(async |cluster| {
        for name in cluster.names() {
            cluster.restart(name).await;
        }
        cluster.until_whole(40 * S).await;
        println!("{count} whole after {:.1?} ({:.1?} real)", cluster.now(), begun.elapsed());
        let before = cluster.digest().packets;
        cluster.advance(30 * S).await;
        let packets = (cluster.digest().packets - before) / (30 * count as u64);
        println!("{packets} packets per node and second while nothing happens");
        assert_eq!(downs.take(), BTreeMap::new(), "nobody has died");

        let names = cluster.names();
        names[..dead].iter().for_each(|name| cluster.crash(*name));
        cluster.advance(10 * S).await;
        let expected = names[..dead].iter().map(|name| (*name, count - dead));
        assert_eq!(
            downs.take(),
            expected.collect(),
            "each death is seen once by all, nothing else"
        );

        let side = &names[dead..dead + lost];
        cluster.split(side);
        cluster.advance(60 * S).await;
        let goes_on = cluster.node(names[count - 1]).members();
        assert_eq!(goes_on.len(), count - dead - lost, "{goes_on:?}");
        cluster.heal();
        cluster.until_whole(60 * S).await;
        println!("whole again after {:.1?} ({:.1?} real)", cluster.now(), begun.elapsed());
    });
}
