//! Purlin as a program uses it: two nodes, actors on the far one, mutual TLS 1.3 over QUIC.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::future::try_join_all;
use meter::{Fired, Ground, Kill, Missing, System, Target, Task};
use purlin::prelude::*;
use purlin::{RawContext, RawKind, Received};
use tokio::sync::{Notify, mpsc};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static WATCHER: RawKind = RawKind::new("watcher");

/// Messages of all sinks of this node.
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// For answers, beside bulk and over bad networks.
const PATIENCE: Duration = Duration::from_secs(100);

/// What is worth sharing instead of copying.
const LARGE: usize = 16 << 10;

/// Counts what it is sent, and answers.
struct Sink {
    count: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Item(#[serde(with = "serde_bytes")] Vec<u8>);

impl Message for Item {
    const NAME: &'static str = "sink.item";
    type Reply = ();
}

/// As [`Item`], for what is large.
#[derive(Clone, Serialize, Deserialize)]
struct Part(#[serde(with = "purlin::zero_copy")] Bytes);

impl Message for Part {
    const NAME: &'static str = "sink.part";
    type Reply = ();
}

/// Takes a while.
#[derive(Clone, Serialize, Deserialize)]
struct Slow(#[serde(with = "serde_bytes")] Vec<u8>);

impl Message for Slow {
    const NAME: &'static str = "sink.slow";
    type Reply = ();
}

#[derive(Serialize, Deserialize)]
struct Count;

impl Message for Count {
    const NAME: &'static str = "sink.count";
    /// Its own, and that of all.
    type Reply = (u64, u64);
}

#[derive(Serialize, Deserialize)]
struct Echo(#[serde(with = "purlin::zero_copy")] Bytes);

#[derive(Serialize, Deserialize)]
struct Echoed(#[serde(with = "purlin::zero_copy")] Bytes);

impl Message for Echo {
    const NAME: &'static str = "sink.echo";
    type Reply = Echoed;
}

impl Actor for Sink {
    const KIND: &'static str = "sink";
    type Args = ();
    type Messages = (Item, Slow, Count, Echo, Part);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { count: 0 })
    }
}

impl Handler<Item> for Sink {
    async fn handle(&mut self, _: Item, _: &mut Context<Self>) -> Outcome {
        self.count += 1;
        TOTAL.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Handler<Part> for Sink {
    async fn handle(&mut self, _: Part, _: &mut Context<Self>) -> Outcome {
        self.count += 1;
        TOTAL.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Handler<Slow> for Sink {
    async fn handle(&mut self, _: Slow, _: &mut Context<Self>) -> Outcome {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

impl Handler<Count> for Sink {
    async fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Outcome<(u64, u64)> {
        Ok((self.count, TOTAL.load(Ordering::Relaxed)))
    }
}

impl Handler<Echo> for Sink {
    async fn handle(&mut self, Echo(bytes): Echo, _: &mut Context<Self>) -> Outcome<Echoed> {
        Ok(Echoed(bytes))
    }
}

/// Ends as soon as it runs.
struct Brief;

impl Actor for Brief {
    const KIND: &'static str = "brief";
    type Args = ();
    type Messages = ();

    async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
        ctx.stop(ExitReason::Normal);
        Ok(Self)
    }
}

/// When watchers were told. Nobody is woken before the last, who would need the same core.
#[derive(Default)]
struct Downs {
    armed: AtomicU64,
    left: AtomicU64,
    first: OnceLock<Instant>,
    last: OnceLock<Instant>,
    all: Notify,
}

impl Downs {
    fn note(&self) {
        self.first.get_or_init(Instant::now);
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.last.get_or_init(Instant::now);
            self.all.notify_one();
        }
    }
}

struct Purlin(Node);

impl System for Purlin {
    type Target = Process;

    const SENDERS_WAIT: bool = true;

    fn about() -> String {
        "defaults (send_wait, call; large bytes by zero_copy); mutual TLS 1.3; mimalloc".to_owned()
    }

    fn supports(_: Task) -> Result<(), Missing> {
        Ok(())
    }

    async fn serve(ground: Ground, tell: impl FnOnce(String) + Send) -> Result<()> {
        let mut builder = Node::builder().name("b").listen("127.0.0.1:0");
        builder = builder.data_dir(ground.home.join("home")).actor::<Sink>().actor::<Brief>();
        if let Some(address) = ground.advertise {
            builder = builder.advertise(address);
        }
        let node = builder.start().await?;
        tell(node.listen_address().to_string());
        std::future::pending().await
    }

    async fn join(ground: Ground, contact: String) -> Result<Self> {
        let seed = ground.route(contact.parse()?)?;
        let mut builder = Node::builder().name("a").listen("127.0.0.1:0").seed(seed.to_string());
        builder = builder.data_dir(ground.home.join("home"));
        if let Some(address) = ground.advertise {
            builder = builder.advertise(address);
        }
        let node = builder.start().await?;
        ground.listens(node.listen_address())?;
        let found = async {
            while node.members().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.context("the nodes do not find each other")?;
        Ok(Self(node))
    }

    async fn targets(&self, count: usize) -> Result<Vec<Process>> {
        // At once: on a long road one after another would take minutes.
        let far = "b".into();
        let spawned = (0..count).map(|_| self.0.spawn_on::<Sink>(&far, ()));
        Ok(try_join_all(spawned).await?.into_iter().map(Process).collect())
    }

    fn run<T: Send + 'static>(
        &self,
        body: impl Future<Output = Result<T>> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send + 'static {
        let task = self.0.runtime().task(body);
        async move { task.join().await? }
    }

    async fn fan_out(&self, targets: &mut Vec<Process>, message: &Bytes) -> Result<()> {
        self.0.send_all(targets.iter().map(|target| target.0.pid()), Item(message.to_vec()));
        Ok(())
    }

    async fn monitors(self: Arc<Self>, watchers: u64, kill: Kill) -> Result<Fired> {
        let target = self.targets(1).await?.remove(0);
        let pid = target.0.pid();
        let downs = Arc::new(Downs { left: AtomicU64::new(watchers), ..Downs::default() });
        for _ in 0..watchers {
            let downs = Arc::clone(&downs);
            let body = move |mut ctx: RawContext| async move {
                ctx.monitor(pid);
                downs.armed.fetch_add(1, Ordering::SeqCst);
                while !matches!(ctx.receive().await?, Received::Down(_)) {}
                downs.note();
                Ok(())
            };
            self.0.runtime().spawn_raw(&WATCHER, body)?;
        }
        while downs.armed.load(Ordering::SeqCst) < watchers {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // For what is on its way to the other node.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let killed = tokio::task::spawn_blocking(|| kill.now());
        downs.all.notified().await;
        let (first, last) = (downs.first.get(), downs.last.get());
        let (first, last) = first.zip(last).context("nobody was told")?;
        let (first, last) = (*first, *last);
        Ok(Fired { killed: killed.await?, first, last })
    }

    async fn spawn_exit(&self) -> Result<()> {
        let (tell, mut told) = mpsc::channel(1);
        let body = move |mut ctx: RawContext| async move {
            ctx.spawn_monitor::<Brief>(Some("b".into()), ()).await?;
            while !matches!(ctx.receive().await?, Received::Down(_)) {}
            tell.send(()).await?;
            Ok(())
        };
        self.0.runtime().spawn_raw(&WATCHER, body)?;
        told.recv().await.context("it was not started")
    }
}

#[derive(Clone)]
struct Process(Ref<Sink>);

impl Target for Process {
    async fn send(&mut self, message: &Bytes) -> Result<()> {
        match message.len() {
            LARGE.. => self.0.send_wait(Part(message.clone())).await,
            _ => self.0.send_wait(Item(message.to_vec())).await,
        }
        Ok(())
    }

    async fn flood(&mut self, message: &Bytes) -> Result<()> {
        self.0.send(Slow(message.to_vec()));
        Ok(())
    }

    async fn call(&mut self, message: &Bytes) -> Result<usize> {
        Ok(self.0.call_timeout(Echo(message.clone()), PATIENCE).await?.0.len())
    }

    async fn count(&mut self) -> Result<u64> {
        Ok(self.0.call_timeout(Count, PATIENCE).await?.0)
    }

    async fn total(&mut self) -> Result<u64> {
        Ok(self.0.call_timeout(Count, PATIENCE).await?.1)
    }
}

fn main() -> ExitCode {
    meter::main::<Purlin>()
}
