//! A cluster of processes that are measured, and looking at them from outside.

use std::process::Command;
use std::time::{Duration, Instant};

use purlin::prelude::*;
use purlin::proto::admin::{GetExclusive, SYSTEM};
use purlin_client::{Client, Credentials};
use purlin_cluster_tests::process::{Cluster, Node as Process};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::agent::NAME;

/// Nothing that is measured takes longer.
const PATIENCE: Duration = Duration::from_mins(5);

/// The kernel counts computing in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

pub(crate) struct Rig {
    pub(crate) nodes: Vec<Process>,
    clients: Vec<Client>,
    cluster: Cluster,
    runtime: Runtime,
}

/// What has passed while something was measured.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    /// Of all nodes.
    pub(crate) cpu: Duration,
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2?} (cpu {:.2?})", self.wall, self.cpu)
    }
}

impl Rig {
    /// Nodes that all see each other and have leases.
    pub(crate) fn start(count: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let cluster = Cluster::default();
        let mut rig = Self { nodes: Vec::new(), clients: Vec::new(), cluster, runtime };
        for _ in 0..count {
            rig.add();
        }
        rig.until_leased(Duration::from_mins(1));
        rig
    }

    /// One node more; it may not be seen by all yet.
    pub(crate) fn add(&mut self) {
        let name = format!("n{}", self.nodes.len());
        let seed = self.nodes.first().map(|node| node.address.clone());
        let more = seed.as_ref().map(|seed| ["--seed", seed]);
        let more = more.as_ref().map_or(&[][..], |more| more);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("PURLIN_HOME", self.cluster.data_dir()).env_remove("PURLIN_AT");
        let node = Cluster::start_with(command, &name, "127.0.0.1:0", more);
        let credentials = Credentials::from_dir(self.cluster.data_dir()).unwrap();
        let connected = Client::connect([node.address.clone()], credentials);
        self.clients.push(self.runtime.block_on(connected).unwrap());
        self.nodes.push(node);
    }

    /// Waits until each node knows the newest view of all of them and has a lease.
    fn until_leased(&self, limit: Duration) {
        let begun = Instant::now();
        for client in &self.clients {
            loop {
                let system = Dest::Local(SYSTEM.parse().unwrap());
                let seen = self.runtime.block_on(client.call(system, GetExclusive)).unwrap();
                if seen.members.len() == self.nodes.len() && seen.lease_s.is_some() {
                    break;
                }
                assert!(begun.elapsed() < limit, "{seen:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Has an agent do something.
    pub(crate) fn ask<M: Message>(&self, node: usize, message: M) -> M::Reply {
        self.call(node, Dest::Local(NAME.into()), message)
    }

    /// Calls something through a node.
    pub(crate) fn call<M: Message>(&self, node: usize, to: Dest, message: M) -> M::Reply {
        let call = self.clients[node].call_timeout(to, message, PATIENCE);
        self.runtime.block_on(call).unwrap()
    }

    /// Calls something through a node many times, some of them at once.
    pub(crate) fn call_all<M>(&self, node: usize, to: &Dest, messages: impl IntoIterator<Item = M>)
    where
        M: Message + Send + 'static,
        M::Reply: Send + std::fmt::Debug + 'static,
    {
        const AT_ONCE: usize = 256;
        self.runtime.block_on(async {
            let mut asking = JoinSet::new();
            for message in messages {
                let (client, to) = (self.clients[node].clone(), to.clone());
                asking.spawn(async move { client.call_timeout(to, message, PATIENCE).await });
                if asking.len() >= AT_ONCE {
                    asking.join_next().await.unwrap().unwrap().unwrap();
                }
            }
            while let Some(done) = asking.join_next().await {
                done.unwrap().unwrap();
            }
        });
    }

    /// Has all agents do something at once; what each says, and how long it took all of them.
    pub(crate) fn ask_all<M>(&self, message: impl Fn(usize) -> M) -> (Vec<M::Reply>, Took)
    where
        M: Message + Send + 'static,
        M::Reply: Send + 'static,
    {
        self.took(|| {
            self.runtime.block_on(async {
                let asked = self.clients.iter().enumerate().map(|(node, client)| {
                    let (client, message) = (client.clone(), message(node));
                    tokio::spawn(async move {
                        client.call_timeout(Dest::Local(NAME.into()), message, PATIENCE).await
                    })
                });
                let mut replies = Vec::new();
                for asked in asked.collect::<Vec<_>>() {
                    replies.push(asked.await.unwrap().unwrap());
                }
                replies
            })
        })
    }

    /// How long something takes, and what nodes compute meanwhile.
    pub(crate) fn took<T>(&self, work: impl FnOnce() -> T) -> (T, Took) {
        let (begun, before) = (Instant::now(), self.cpu());
        let done = work();
        let (wall, cpu) = (begun.elapsed(), self.cpu().saturating_sub(before));
        (done, Took { wall, cpu })
    }

    /// What all nodes have computed so far; those that have ended count nothing.
    pub(crate) fn cpu(&self) -> Duration {
        (0..self.nodes.len()).map(|node| self.cpu_of(node)).sum()
    }

    pub(crate) fn cpu_of(&self, node: usize) -> Duration {
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.nodes[node].pid()));
            let stat = stat.ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<u32>().ok());
            Some(fields.next()?? + fields.next()??)
        };
        ticks().unwrap_or(0) * TICK
    }

    /// Bytes of memory that all nodes have by now.
    pub(crate) fn memory(&self) -> u64 {
        let of = |node: &Process| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
        };
        self.nodes.iter().filter_map(of).sum()
    }
}

/// The one in the middle.
pub(crate) fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}
