//! `ractor_cluster` as its documentation has it: actors of the far node join a process group, and
//! are found there. Its default transport: TCP, not encrypted, a cookie.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use meter::{Fired, Ground, Kill, System, Target};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use ractor_cluster::{NodeServer, NodeServerMessage, RactorClusterMessage, RactorMessage};
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GROUP: &str = "sinks";

/// Messages of all sinks of this node.
static TOTAL: AtomicU64 = AtomicU64::new(0);

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(RactorClusterMessage)]
enum SinkMessage {
    Item(Vec<u8>),
    #[rpc]
    Echo(Vec<u8>, RpcReplyPort<Vec<u8>>),
    #[rpc]
    Count(RpcReplyPort<u64>),
    #[rpc]
    Total(RpcReplyPort<u64>),
}

/// Counts what it is sent, and answers.
struct Sink;

impl Actor for Sink {
    type Msg = SinkMessage;
    type State = u64;
    type Arguments = ();

    async fn pre_start(
        &self,
        me: ActorRef<SinkMessage>,
        (): (),
    ) -> Result<u64, ActorProcessingErr> {
        ractor::pg::join(GROUP.to_owned(), vec![me.get_cell()]);
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<SinkMessage>,
        message: SinkMessage,
        count: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SinkMessage::Item(_) => {
                *count += 1;
                TOTAL.fetch_add(1, Ordering::Relaxed);
            }
            SinkMessage::Echo(bytes, reply) => reply.send(bytes)?,
            SinkMessage::Count(reply) => reply.send(*count)?,
            SinkMessage::Total(reply) => reply.send(TOTAL.load(Ordering::Relaxed))?,
        }
        Ok(())
    }
}

#[derive(RactorMessage)]
struct Nothing;

/// Tells when what it monitors has ended.
struct Watcher;

impl Actor for Watcher {
    type Msg = Nothing;
    type State = mpsc::UnboundedSender<Instant>;
    type Arguments = (ActorCell, mpsc::UnboundedSender<Instant>);

    async fn pre_start(
        &self,
        me: ActorRef<Nothing>,
        (watched, tell): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        me.get_cell().monitor(watched);
        Ok(tell)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Nothing>,
        event: SupervisionEvent,
        tell: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorTerminated(..) | SupervisionEvent::ActorFailed(..) = event {
            tell.send(Instant::now())?;
        }
        Ok(())
    }
}

struct Ractor {
    _server: ActorRef<NodeServerMessage>,
}

async fn node(name: &str) -> Result<(ActorRef<NodeServerMessage>, SocketAddr)> {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // It does not say which port it was given, so one that is free is looked up before.
    let address = TcpListener::bind((local, 0))?.local_addr()?;
    let server = NodeServer::new(
        address.port(),
        "bench".to_owned(),
        name.to_owned(),
        "localhost".to_owned(),
        None,
        None,
    );
    let server = server.with_listen_addr(local);
    let (server, _) = Actor::spawn(None, server, ()).await?;
    Ok((server, address))
}

impl System for Ractor {
    type Target = Far;

    const SENDERS_WAIT: bool = false;

    fn about() -> String {
        "defaults (cast, call); process groups; monitors; TCP, not encrypted; mimalloc".to_owned()
    }

    async fn serve(ground: Ground, tell: impl FnOnce(String) + Send) -> Result<()> {
        let (_server, address) = node("far").await?;
        for _ in 0..ground.task.targets() {
            Actor::spawn(None, Sink, ()).await?;
        }
        tell(address.to_string());
        std::future::pending().await
    }

    async fn join(ground: Ground, contact: String) -> Result<Self> {
        let (server, _) = node("near").await?;
        ractor_cluster::client_connect(&server, contact).await.map_err(|e| anyhow!("{e}"))?;
        let needed = ground.task.targets();
        let begun = Instant::now();
        while ractor::pg::get_members(&GROUP.to_owned()).len() < needed {
            let found = ractor::pg::get_members(&GROUP.to_owned()).len();
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{found} of {needed} actors were found");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { _server: server })
    }

    async fn targets(&self, count: usize) -> Result<Vec<Far>> {
        let members = ractor::pg::get_members(&GROUP.to_owned()).into_iter().take(count);
        Ok(members.map(|member| Far(member.into())).collect())
    }

    /// Not those of the group: `ActorCell::monitor` of the stand-in that this node has for it.
    async fn monitors(self: Arc<Self>, watchers: u64, kill: Kill) -> Result<Fired> {
        let watched = self.targets(1).await?.remove(0).0.get_cell();
        let (tell, mut told) = mpsc::unbounded_channel();
        for _ in 0..watchers {
            Actor::spawn(None, Watcher, (watched.clone(), tell.clone())).await?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let killed = tokio::task::spawn_blocking(|| kill.now());
        let mut times = Vec::new();
        while times.len() < usize::try_from(watchers)? {
            let next = tokio::time::timeout(PATIENCE, told.recv()).await;
            times.push(next.context("no more notices")?.context("closed")?);
        }
        times.sort_unstable();
        Ok(Fired { killed: killed.await?, first: times[0], last: times[times.len() - 1] })
    }
}

#[derive(Clone)]
struct Far(ActorRef<SinkMessage>);

impl Far {
    async fn ask<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> SinkMessage + Send,
    ) -> Result<T> {
        match self.0.call(message, None).await? {
            CallResult::Success(value) => Ok(value),
            CallResult::Timeout | CallResult::SenderError => Err(anyhow!("no answer")),
        }
    }
}

impl Target for Far {
    async fn send(&mut self, message: &bytes::Bytes) -> Result<()> {
        self.0.cast(SinkMessage::Item(message.to_vec())).map_err(|e| anyhow!("{e}"))
    }

    async fn call(&mut self, message: &bytes::Bytes) -> Result<usize> {
        let bytes = message.to_vec();
        Ok(self.ask(|reply| SinkMessage::Echo(bytes, reply)).await?.len())
    }

    async fn count(&mut self) -> Result<u64> {
        self.ask(SinkMessage::Count).await
    }

    async fn total(&mut self) -> Result<u64> {
        self.ask(SinkMessage::Total).await
    }
}

fn main() -> ExitCode {
    meter::main::<Ractor>()
}
