//! coerce as its tests have it: a cluster of two workers, actors that are deployed on the other by
//! a factory, messages with an encoding of their own (bytes as they are). TCP, not encrypted.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use async_trait::async_trait;
use coerce::actor::context::ActorContext;
use coerce::actor::message::{Handler, Message, MessageUnwrapErr, MessageWrapErr};
use coerce::actor::system::ActorSystem;
use coerce::actor::{Actor, ActorCreationErr, ActorFactory, ActorRecipe, ActorRef};
use coerce::remote::system::RemoteActorSystem;
use meter::{Ground, Missing, System, Target, Task, Workload};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FAR: u64 = 1;
const NEAR: u64 = 2;

/// Messages of all sinks of this node.
static TOTAL: AtomicU64 = AtomicU64::new(0);

const PATIENCE: Duration = Duration::from_secs(20);

const DEPLOYED_AT_ONCE: usize = 500;

/// Counts what it is sent, and answers.
struct Sink {
    count: u64,
}

impl Actor for Sink {}

struct Empty;

impl ActorRecipe for Empty {
    fn read_from_bytes(_: &Vec<u8>) -> Option<Self> {
        Some(Self)
    }

    fn write_to_bytes(&self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }
}

#[derive(Clone)]
struct Sinks;

#[async_trait]
impl ActorFactory for Sinks {
    type Actor = Sink;
    type Recipe = Empty;

    async fn create(&self, _: Empty) -> Result<Sink, ActorCreationErr> {
        Ok(Sink { count: 0 })
    }
}

struct Item(Vec<u8>);
struct Echo(Vec<u8>);
/// Its own count, and that of all.
struct Count;

impl Message for Item {
    type Result = ();

    fn as_bytes(&self) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(self.0.clone())
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, MessageUnwrapErr> {
        Ok(Self(bytes))
    }

    fn read_remote_result(_: Vec<u8>) -> Result<(), MessageUnwrapErr> {
        Ok(())
    }

    fn write_remote_result((): ()) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(Vec::new())
    }
}

impl Message for Echo {
    type Result = Vec<u8>;

    fn as_bytes(&self) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(self.0.clone())
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, MessageUnwrapErr> {
        Ok(Self(bytes))
    }

    fn read_remote_result(bytes: Vec<u8>) -> Result<Vec<u8>, MessageUnwrapErr> {
        Ok(bytes)
    }

    fn write_remote_result(bytes: Vec<u8>) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(bytes)
    }
}

impl Message for Count {
    type Result = (u64, u64);

    fn as_bytes(&self) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(Vec::new())
    }

    fn from_bytes(_: Vec<u8>) -> Result<Self, MessageUnwrapErr> {
        Ok(Self)
    }

    fn read_remote_result(bytes: Vec<u8>) -> Result<(u64, u64), MessageUnwrapErr> {
        let (own, all) = bytes.split_first_chunk().ok_or(MessageUnwrapErr::DeserializationErr)?;
        let all = all.try_into().map_err(|_| MessageUnwrapErr::DeserializationErr)?;
        Ok((u64::from_le_bytes(*own), u64::from_le_bytes(all)))
    }

    fn write_remote_result((own, all): (u64, u64)) -> Result<Vec<u8>, MessageWrapErr> {
        Ok([own.to_le_bytes(), all.to_le_bytes()].concat())
    }
}

#[async_trait]
impl Handler<Item> for Sink {
    async fn handle(&mut self, _: Item, _: &mut ActorContext) {
        self.count += 1;
        TOTAL.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Handler<Echo> for Sink {
    async fn handle(&mut self, Echo(bytes): Echo, _: &mut ActorContext) -> Vec<u8> {
        bytes
    }
}

#[async_trait]
impl Handler<Count> for Sink {
    async fn handle(&mut self, _: Count, _: &mut ActorContext) -> (u64, u64) {
        (self.count, TOTAL.load(Ordering::Relaxed))
    }
}

struct Coerce(RemoteActorSystem);

/// Its builder is not `Send`, so it is built in one go.
fn worker(id: u64, tag: &str, seed: Option<String>) -> Result<(RemoteActorSystem, String)> {
    let build = start_worker(id, tag, seed);
    tokio::task::block_in_place(|| Handle::current().block_on(build))
}

async fn start_worker(
    id: u64,
    tag: &str,
    seed: Option<String>,
) -> Result<(RemoteActorSystem, String)> {
    // It does not say which port it was given, so one that is free is looked up before.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let system = RemoteActorSystem::builder()
        .with_actor_system(ActorSystem::new())
        .with_actors(|actors| actors.with_actor(Sinks))
        .with_handlers(|handlers| {
            handlers
                .with_handler::<Sink, Item>("item")
                .with_handler::<Sink, Echo>("echo")
                .with_handler::<Sink, Count>("count")
        })
        .with_tag(tag)
        .with_id(id)
        .build()
        .await;
    let mut worker = system.clone().cluster_worker().listen_addr(&address);
    if let Some(seed) = seed {
        worker = worker.with_seed_addr(seed);
    }
    // It stops when it is dropped.
    std::mem::forget(worker.start().await);
    Ok((system, address))
}

impl System for Coerce {
    type Target = Far;

    const SENDERS_WAIT: bool = false;

    fn about() -> String {
        "defaults (notify, send); messages as raw bytes; TCP, not encrypted; mimalloc".to_owned()
    }

    fn supports(task: Task) -> Result<(), Missing> {
        match task.workload {
            _ if task.loss.is_some() => Err(Missing("over TCP")),
            Workload::BesideBulk { .. } => Err(Missing("its frames are less than 8 MiB")),
            _ => Ok(()),
        }
    }

    async fn serve(_: Ground, tell: impl FnOnce(String) + Send) -> Result<()> {
        let (_system, address) = worker(FAR, "far", None)?;
        tell(address);
        std::future::pending().await
    }

    async fn join(_: Ground, contact: String) -> Result<Self> {
        let (system, _) = worker(NEAR, "near", Some(contact))?;
        let begun = Instant::now();
        while system.get_nodes().await.len() < 2 {
            ensure!(begun.elapsed() < PATIENCE, "the workers do not find each other");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self(system))
    }

    /// Several at once: one after the other takes 40 ms each, as its sockets wait for more to send.
    async fn targets(&self, count: usize) -> Result<Vec<Far>> {
        let mut targets = Vec::new();
        while targets.len() < count {
            let mut deploying = JoinSet::new();
            for _ in 0..(count - targets.len()).min(DEPLOYED_AT_ONCE) {
                let system = self.0.clone();
                deploying.spawn(async move {
                    let deployed = system.deploy_actor::<Sinks>(None, Empty, Some(FAR));
                    tokio::time::timeout(PATIENCE, deployed).await
                });
            }
            while let Some(deployed) = deploying.join_next().await {
                let actor = deployed??.map_err(|error| anyhow!("{error:?}"))?;
                targets.push(Far(Arc::new(actor)));
            }
        }
        Ok(targets)
    }

    async fn spawn_exit(&self) -> Result<()> {
        Err(Missing("it deploys on other nodes, but does not tell of an end there").into())
    }
}

#[derive(Clone)]
struct Far(Arc<ActorRef<Sink>>);

impl Target for Far {
    async fn send(&mut self, message: &bytes::Bytes) -> Result<()> {
        self.0.notify(Item(message.to_vec())).await.map_err(|error| anyhow!("{error}"))
    }

    async fn call(&mut self, message: &bytes::Bytes) -> Result<usize> {
        let back = self.0.send(Echo(message.to_vec())).await;
        Ok(back.map_err(|error| anyhow!("{error}"))?.len())
    }

    async fn count(&mut self) -> Result<u64> {
        Ok(self.0.send(Count).await.map_err(|error| anyhow!("{error}"))?.0)
    }

    async fn total(&mut self) -> Result<u64> {
        Ok(self.0.send(Count).await.map_err(|error| anyhow!("{error}"))?.1)
    }
}

fn main() -> ExitCode {
    meter::main::<Coerce>()
}
