//! kameo's remote actors over libp2p: TCP with Noise and yamux, as its `bootstrap` sets it up, but
//! the two are told of each other instead of searching by mDNS. Its limits are raised so that it
//! can take part: 10,000 streams at once instead of 100, 32 MiB a request instead of 1.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::StreamExt;
use kameo::actor::{ActorId, RemoteActorRef, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use kameo::prelude::{Actor, ActorRef, Spawn};
use kameo::remote::{self, messaging};
use kameo::{RemoteActor, remote_message};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use meter::{Fired, Ground, Kill, System, Target};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages of all sinks of this node.
static TOTAL: AtomicU64 = AtomicU64::new(0);

const PATIENCE: Duration = Duration::from_secs(20);

const LINKED_AT_ONCE: usize = 1_000;

/// Counts what it is sent, answers, and starts others.
#[derive(RemoteActor)]
struct Sink {
    count: u64,
}

impl Actor for Sink {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(state: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(state)
    }
}

#[derive(Serialize, Deserialize)]
struct Item(bytes::Bytes);

#[derive(Serialize, Deserialize)]
struct Echo(bytes::Bytes);

/// Its own count, and that of all.
#[derive(Serialize, Deserialize)]
struct Count;

/// For addresses of so many that were started for it.
#[derive(Serialize, Deserialize)]
struct Start(usize);

#[remote_message]
impl Message<Item> for Sink {
    type Reply = ();

    async fn handle(&mut self, _: Item, _: &mut Context<Self, ()>) {
        self.count += 1;
        TOTAL.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Serialize, Deserialize, kameo::Reply)]
struct Echoed(bytes::Bytes);

#[remote_message]
impl Message<Echo> for Sink {
    type Reply = Echoed;

    async fn handle(&mut self, Echo(bytes): Echo, _: &mut Context<Self, Echoed>) -> Echoed {
        Echoed(bytes)
    }
}

#[derive(Serialize, Deserialize, kameo::Reply)]
struct Counts(u64, u64);

#[remote_message]
impl Message<Count> for Sink {
    type Reply = Counts;

    async fn handle(&mut self, _: Count, _: &mut Context<Self, Counts>) -> Counts {
        Counts(self.count, TOTAL.load(Ordering::Relaxed))
    }
}

#[derive(Serialize, Deserialize, kameo::Reply)]
struct Started(Vec<RemoteActorRef<Sink>>);

#[remote_message]
impl Message<Start> for Sink {
    type Reply = Started;

    async fn handle(&mut self, Start(count): Start, _: &mut Context<Self, Started>) -> Started {
        let mut started = Vec::new();
        for _ in 0..count {
            let sink = Sink::spawn(Sink { count: 0 });
            started.push(sink.into_remote_ref().await);
            // Its node keeps weak addresses alone.
            std::mem::forget(sink);
        }
        Started(started)
    }
}

/// More streams than yamux's 512 would end the connection.
fn streams() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(20_000);
    config
}

fn swarm() -> Result<Swarm<remote::Behaviour>> {
    let settings = messaging::Config::default()
        .with_max_concurrent_streams(10_000)
        .with_request_size_maximum(32 << 20)
        .with_response_size_maximum(32 << 20);
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, streams)?
        .with_behaviour(|key| remote::Behaviour::new(key.public().to_peer_id(), settings))?
        // Nothing is said for a while in some workloads.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_mins(5)))
        .build();
    swarm.behaviour().try_init_global().map_err(|error| anyhow!("{error}"))?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    Ok(swarm)
}

/// Drives the swarm until the end of this process; tells once where it listens and to whom it is
/// connected.
async fn drive(
    mut swarm: Swarm<remote::Behaviour>,
    listens: oneshot::Sender<Multiaddr>,
    connected: oneshot::Sender<PeerId>,
) {
    let (mut listens, mut connected) = (Some(listens), Some(connected));
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                listens.take().map(|tell| tell.send(address));
            }
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                connected.take().map(|tell| tell.send(peer_id));
            }
            _ => {}
        }
    }
}

struct Kameo;

impl System for Kameo {
    type Target = Far;

    const SENDERS_WAIT: bool = false;
    const WINDOW: u64 = 1_000;

    fn about() -> String {
        "tell().send(), ask(); 10,000 streams at once and 32 MiB requests (defaults: 100, 1 MiB); \
         libp2p over TCP, Noise; mimalloc"
            .to_owned()
    }

    async fn serve(_: Ground, tell: impl FnOnce(String) + Send) -> Result<()> {
        let swarm = swarm()?;
        let me = *swarm.local_peer_id();
        let (listens, address) = oneshot::channel();
        tokio::spawn(drive(swarm, listens, oneshot::channel().0));
        let address = address.await?;
        let sink = Sink::spawn(Sink { count: 0 });
        sink.register("sink").await.map_err(|error| anyhow!("{error}"))?;
        tell(format!("{me} {address}"));
        std::future::pending().await
    }

    async fn join(_: Ground, contact: String) -> Result<Self> {
        let (peer, address) = contact.split_once(' ').context("a peer and an address")?;
        let (peer, address): (PeerId, Multiaddr) = (peer.parse()?, address.parse()?);
        let mut swarm = swarm()?;
        swarm.add_peer_address(peer, address.clone());
        swarm.dial(address)?;
        let (tell, connected) = oneshot::channel();
        tokio::spawn(drive(swarm, oneshot::channel().0, tell));
        tokio::time::timeout(PATIENCE, connected).await.context("no connection")??;
        Ok(Self)
    }

    async fn targets(&self, count: usize) -> Result<Vec<Far>> {
        let begun = Instant::now();
        let first = loop {
            let found = RemoteActorRef::<Sink>::lookup("sink").await;
            if let Ok(Some(found)) = found {
                break found;
            }
            if begun.elapsed() > PATIENCE {
                bail!("the first actor is not found");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let Started(started) =
            first.ask(&Start(count)).await.map_err(|error| anyhow!("{error}"))?;
        Ok(started.into_iter().map(Far).collect())
    }

    /// It has no monitors; a link, that its other end survives, is the nearest.
    async fn monitors(self: Arc<Self>, watchers: u64, kill: Kill) -> Result<Fired> {
        let watched = self.targets(1).await?.remove(0).0;
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut kept = Vec::new();
        while (kept.len() as u64) < watchers {
            let mut linking = JoinSet::new();
            for _ in 0..LINKED_AT_ONCE {
                let watcher = Watcher::spawn(Watcher(tell.clone()));
                kept.push(watcher.clone());
                let watched = watched.clone();
                linking.spawn(async move { watcher.link_remote(&watched).await });
            }
            while let Some(linked) = linking.join_next().await {
                linked?.map_err(|error| anyhow!("{error}"))?;
            }
        }
        let killed = tokio::task::spawn_blocking(|| kill.now());
        let mut times = Vec::new();
        while times.len() < kept.len() {
            let next = tokio::time::timeout(PATIENCE, told.recv()).await;
            let next = next.with_context(|| format!("no more notices after {}", times.len()));
            times.push(next?.context("closed")?);
        }
        times.sort_unstable();
        Ok(Fired { killed: killed.await?, first: times[0], last: times[times.len() - 1] })
    }
}

/// Tells when what it is linked to is gone.
#[derive(RemoteActor)]
struct Watcher(mpsc::UnboundedSender<Instant>);

impl Actor for Watcher {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(state: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(state)
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        _: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        // Whoever counts may have enough.
        let _ = self.0.send(Instant::now());
        Ok(ControlFlow::Continue(()))
    }
}

#[derive(Clone)]
struct Far(RemoteActorRef<Sink>);

impl Target for Far {
    async fn send(&mut self, message: &bytes::Bytes) -> Result<()> {
        self.0.tell(&Item(message.clone())).send().map_err(|error| anyhow!("{error}"))
    }

    async fn call(&mut self, message: &bytes::Bytes) -> Result<usize> {
        let back = self.0.ask(&Echo(message.clone())).await;
        Ok(back.map_err(|error| anyhow!("{error}"))?.0.len())
    }

    async fn count(&mut self) -> Result<u64> {
        Ok(self.0.ask(&Count).await.map_err(|error| anyhow!("{error}"))?.0)
    }

    async fn total(&mut self) -> Result<u64> {
        Ok(self.0.ask(&Count).await.map_err(|error| anyhow!("{error}"))?.1)
    }
}

fn main() -> ExitCode {
    meter::main::<Kameo>()
}
