//! zestors as its book has it: two nodes over its QUIC backend with mutual TLS, actors that are
//! addressed by global name. Not production ready, its crate says.

use std::net::UdpSocket;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use meter::{Fired, Ground, Kill, Missing, System, Target, Task, Workload};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use zestors::distr::ClusterAddress;
use zestors::interface::{Envelope, Interface, Message};
use zestors::prelude::*;
use zestors::runtime::{Inbox, Name, spawn};
use zestors::supervisor::Supervisor;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages of all sinks of this node.
static TOTAL: AtomicU64 = AtomicU64::new(0);

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Message, StableId, Serialize, Deserialize, Debug)]
#[msg(id = "0b0c8f4e-6d0a-4a53-9d2e-5a6f1f0f7d01")]
struct Item(bytes::Bytes);

#[derive(Message, StableId, Serialize, Deserialize, Debug)]
#[msg(reply = bytes::Bytes, id = "0b0c8f4e-6d0a-4a53-9d2e-5a6f1f0f7d02")]
struct Echo(bytes::Bytes);

/// Its own count, and that of all.
#[derive(Message, StableId, Serialize, Deserialize, Debug)]
#[msg(reply = (u64, u64), id = "0b0c8f4e-6d0a-4a53-9d2e-5a6f1f0f7d03")]
struct Count;

#[derive(Interface, Debug)]
enum SinkInterface {
    Item(Envelope<Item>),
    Echo(Envelope<Echo>),
    Count(Envelope<Count>),
}

/// Counts what it is sent, and answers.
async fn sink(mut inbox: Inbox<SinkInterface>) {
    let mut count = 0_u64;
    while let Some(message) = inbox.recv().await {
        match message {
            SinkInterface::Item(_) => {
                count += 1;
                TOTAL.fetch_add(1, Ordering::Relaxed);
            }
            SinkInterface::Echo(envelope) => {
                let (Echo(bytes), reply) = (envelope.msg, envelope.req);
                // The caller may be gone.
                let _ = reply.reply(bytes);
            }
            SinkInterface::Count(envelope) => {
                let _ = envelope.reply((count, TOTAL.load(Ordering::Relaxed)));
            }
        }
    }
}

struct Zestors(Cluster);

/// An authority in the directory that both sides share, made by the first.
fn tls(ground: &Ground, node: &str) -> Result<Tls> {
    let file = |name: &str| ground.home.join(name);
    let key = match std::fs::read_to_string(file("ca.key")) {
        Ok(text) => KeyPair::from_pem(&text)?,
        Err(_) => KeyPair::generate()?,
    };
    std::fs::write(file("ca.key"), key.serialize_pem())?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key)?.pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![node.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, node);
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Tls::from_pem(root.as_bytes(), certificate.as_bytes(), key.serialize_pem().as_bytes())?)
}

fn config(ground: &Ground, node: &str) -> Result<(ClusterConfig, String)> {
    // It does not say which port it was given, so one that is free is looked up before.
    let address = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let quic = Quic::new(address, tls(ground, node)?);
    let config = ClusterConfig::new(node, quic);
    Ok((config, address.to_string()))
}

impl System for Zestors {
    type Target = Far;

    /// For the lane alone: what is too much for the actor is dropped on the far node.
    const SENDERS_WAIT: bool = false;

    fn about() -> String {
        "defaults (cast, call); QUIC, mutual TLS 1.3; mimalloc".to_owned()
    }

    fn supports(task: Task) -> Result<(), Missing> {
        if task.loss.is_some() {
            return Err(Missing("it is not led through the relay"));
        }
        match task.workload {
            Workload::BesideBulk { .. } => Err(Missing("its messages are at most 4 MiB")),
            _ => Ok(()),
        }
    }

    async fn serve(ground: Ground, tell: impl FnOnce(String) + Send) -> Result<()> {
        let (config, address) = config(&ground, "far")?;
        let config = config.register::<Item>().register::<Echo>().register::<Count>();
        let node = ClusterNode::new(Supervisor::blueprint().rand_name(), config);
        let mut sinks = Vec::new();
        for number in 0..ground.task.targets() {
            let name: Name = format!("sink-{number}").into();
            let body = |inbox: Inbox<SinkInterface>| async move {
                sink(inbox).await;
                Ok(())
            };
            sinks.push(spawn(name, body).map_err(|error| anyhow!("{error}"))?);
        }
        tell(address);
        node.run().await.map_err(|error| anyhow!("{error}"))
    }

    async fn join(ground: Ground, contact: String) -> Result<Self> {
        let (config, _) = config(&ground, "near")?;
        let seed: std::net::SocketAddr = contact.parse()?;
        let node = ClusterNode::new(
            Supervisor::blueprint().rand_name(),
            config.seed(Seed::new("far", seed)),
        );
        let cluster = node.cluster();
        // Until the end of this process.
        tokio::spawn(node.run());
        tokio::time::timeout(PATIENCE, cluster.wait_for_members(1)).await.context("no members")?;
        Ok(Self(cluster))
    }

    async fn targets(&self, count: usize) -> Result<Vec<Far>> {
        let mut targets = Vec::new();
        for number in 0..count {
            let name = GlobalName::new(format!("sink-{number}"), "far");
            let address = self.0.address::<SinkInterface>(name).await;
            targets.push(Far(address.map_err(|error| anyhow!("{error}"))?));
        }
        Ok(targets)
    }

    async fn monitors(self: Arc<Self>, watchers: u64, kill: Kill) -> Result<Fired> {
        let watched = self.targets(1).await?.remove(0).0;
        let (tell, mut told) = mpsc::unbounded_channel();
        for _ in 0..watchers {
            let (watched, tell) = (watched.clone(), tell.clone());
            tokio::spawn(async move {
                // Losing the node is an error here.
                drop(watched.monitor_exit().await);
                tell.send(Instant::now())
            });
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        let killed = tokio::task::spawn_blocking(|| kill.now()).await?;
        let mut times = Vec::new();
        while times.len() < usize::try_from(watchers)? {
            let next = tokio::time::timeout(PATIENCE, told.recv()).await;
            times.push(next.context("no more notices")?.context("closed")?);
        }
        times.sort_unstable();
        anyhow::ensure!(times[0] >= killed, "notices came before the kill");
        Ok(Fired { killed, first: times[0], last: times[times.len() - 1] })
    }
}

#[derive(Clone)]
struct Far(ClusterAddress<SinkInterface>);

impl Target for Far {
    async fn send(&mut self, message: &bytes::Bytes) -> Result<()> {
        let sent = self.0.cast(Item(message.clone())).await;
        sent.map(drop).map_err(|error| anyhow!("{error}"))
    }

    async fn call(&mut self, message: &bytes::Bytes) -> Result<usize> {
        let back = self.0.call(Echo(message.clone())).await;
        Ok(back.map_err(|error| anyhow!("{error}"))?.len())
    }

    async fn count(&mut self) -> Result<u64> {
        Ok(self.0.call(Count).await.map_err(|error| anyhow!("{error}"))?.0)
    }

    async fn total(&mut self) -> Result<u64> {
        Ok(self.0.call(Count).await.map_err(|error| anyhow!("{error}"))?.1)
    }
}

fn main() -> ExitCode {
    meter::main::<Zestors>()
}
