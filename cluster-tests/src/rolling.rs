//! Five real nodes that are restarted one after the other, each in another way, while the node of this
//! process goes on calling: what is common to tests of that.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin::proto::admin::{GetExclusive, SYSTEM};
use purlin::{Dest, Node as Observer};
use tokio::task::JoinSet;

use crate::memory::until_sees;
use crate::process::{Cluster, Node};

pub const SOON: Duration = Duration::from_secs(40);
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The five; ended when it is dropped.
pub struct Five {
    pub cluster: Cluster,
    pub nodes: BTreeMap<&'static str, Node>,
    observer: Observer,
    program: fn(&Cluster) -> Command,
    exclusive: bool,
}

impl Five {
    /// Starts them around a node that is in the cluster's data directory. If anything is `exclusive`,
    /// this and each restart wait until all may run it.
    pub async fn start(
        cluster: Cluster,
        observer: &Observer,
        program: fn(&Cluster) -> Command,
        exclusive: bool,
    ) -> Self {
        let nodes = BTreeMap::new();
        let mut five = Self { cluster, nodes, observer: observer.clone(), program, exclusive };
        let seed = observer.address().to_string();
        for name in NAMES {
            five.start_node(name, std::slice::from_ref(&seed));
        }
        until_sees(observer, 6).await;
        if exclusive {
            five.until_all_hold().await;
        }
        five
    }

    fn start_node(&mut self, name: &'static str, seeds: &[String]) {
        let seeds: Vec<_> = seeds.iter().flat_map(|seed| ["--seed", seed]).collect();
        let more = [&["--detect-in", "10"], &seeds[..]].concat();
        let node = Cluster::start_with((self.program)(&self.cluster), name, "127.0.0.1:0", &more);
        self.nodes.insert(name, node);
    }

    /// Waits until all six are in the ring view.
    pub async fn until_all_hold(&self) {
        let begun = Instant::now();
        loop {
            let system = Dest::Local(SYSTEM.parse().unwrap());
            let info = self.observer.call(system, GetExclusive).await.unwrap();
            if info.members.len() == 6 && info.voters.len() == 5 {
                return;
            }
            assert!(begun.elapsed() < SOON, "{info:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Restarts each; the callers count what is answered, and none of them fails. `before_drain` looks at
    /// what would be done: which cluster, at which node, of which one.
    pub async fn restart_all(
        &mut self,
        callers: &mut JoinSet<()>,
        answered: &Arc<AtomicU64>,
        before_drain: impl Fn(&Cluster, &Node, &str),
    ) {
        for (name, how) in NAMES.into_iter().zip(["drain", "term", "leave", "drain", "term"]) {
            let before = answered.load(Ordering::Relaxed);
            let mut old = self.nodes.remove(name).unwrap();
            let (cluster, other) = (&self.cluster, self.nodes.values().next().unwrap());
            match how {
                "drain" => {
                    before_drain(cluster, other, name);
                    let said = cluster.ok(other, &["drain", "--node", name, "--timeout", "30"]);
                    assert!(said.contains("drained in"), "{said}");
                }
                "leave" => drop(cluster.ok(other, &["leave", "--on", name])),
                _ => old.signal("TERM"),
            }
            assert!(old.wait(SOON).success());
            let others: Vec<_> = self.nodes.values().map(|node| node.address.clone()).collect();
            self.start_node(name, &others);
            for node in self.nodes.values() {
                self.cluster.until_up(node, 6, SOON);
            }
            if self.exclusive {
                self.until_all_hold().await;
            }
            assert!(answered.load(Ordering::Relaxed) > before, "the load went on");
            while let Some(failed) = callers.try_join_next() {
                failed.unwrap();
            }
        }
    }
}
