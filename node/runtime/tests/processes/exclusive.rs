//! Exclusive keyed processes of one node: they run only while the node holds their key, and not
//! after its lease.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use purlin_proto::{Frame, Pieces};
use purlin_runtime::{
    Actor, CallError, Config, Context, ExitReason, Fence, Handler, Holding, Key, Keyed, KeyedActor,
    KeyedKinds, Message, NodeId, NodeName, Outcome, Peer, Priority, Remote, Runtime, Sent,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Other nodes that cannot be reached, and answers that a test sets.
#[derive(Default)]
struct Alone(Mutex<Option<Holding>>);

impl Remote for Alone {
    fn send(&self, _: Peer, _: u64, _: Priority, _: &mut dyn FnMut(&mut BytesMut) -> bool) -> Sent {
        Sent::Unreachable
    }

    fn send_large(&self, _: Peer, _: u64, _: Priority, _: Pieces) -> Sent {
        Sent::Unreachable
    }

    fn tell(&self, _: NodeName, _: &Frame) {}

    fn ready(&self, _: Peer, _: u64) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn holding(&self, key: &[u8]) -> Holding {
        assert!(key.starts_with(b"lamp/"), "{key:?}");
        self.0.lock().unwrap().unwrap_or(Holding::NotYet)
    }
}

struct Lamp {
    lit: Vec<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Light(u32);
impl Message for Light {
    const NAME: &'static str = "lamp.light";
    type Reply = Vec<u32>;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Token;
impl Message for Token {
    const NAME: &'static str = "lamp.token";
    type Reply = Fence;
}

/// Works for an hour, a second at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Work;
impl Message for Work {
    const NAME: &'static str = "lamp.work";
    type Reply = ();
}

static SECONDS: AtomicU32 = AtomicU32::new(0);
static STOPPED: AtomicBool = AtomicBool::new(false);

impl Actor for Lamp {
    const KIND: &'static str = "lamp";
    type Args = Key;
    type Messages = (Light, Token, Work);

    async fn start(_: Key, _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { lit: Vec::new() })
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        STOPPED.store(true, Ordering::SeqCst);
    }
}

impl KeyedActor for Lamp {
    fn args(key: &Key) -> Key {
        key.clone()
    }
}

impl Handler<Light> for Lamp {
    async fn handle(&mut self, Light(n): Light, _: &mut Context<Self>) -> Outcome<Vec<u32>> {
        self.lit.push(n);
        Ok(self.lit.clone())
    }
}

impl Handler<Token> for Lamp {
    async fn handle(&mut self, _: Token, ctx: &mut Context<Self>) -> Outcome<Fence> {
        Ok(ctx.fence().expect("it is exclusive"))
    }
}

impl Handler<Work> for Lamp {
    async fn handle(&mut self, _: Work, _: &mut Context<Self>) -> Outcome {
        for _ in 0..3_600 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            SECONDS.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

const HELD: Holding = Holding::Yes { epoch: 7, shard: 3 };

fn node() -> (Runtime, Arc<Alone>) {
    let mut config = Config::new(NodeId::new("a".into(), 1));
    config.keyed = KeyedKinds::default().with::<Lamp>(Keyed::exclusive());
    let runtime = Runtime::new(config);
    let alone = Arc::new(Alone::default());
    runtime.set_remote(Arc::clone(&alone) as Arc<dyn Remote>);
    (runtime, alone)
}

fn set(runtime: &Runtime, alone: &Alone, holding: Holding) {
    *alone.0.lock().unwrap() = Some(holding);
    runtime.holdings_changed();
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn it_begins_when_its_key_is_held_and_finds_all_that_was_sent_before() {
    let (runtime, alone) = node();
    let lamp = runtime.keyed::<Lamp>("hall");
    lamp.send(Light(1));
    lamp.send(Light(2));
    tokio::time::sleep(SECOND).await;
    assert!(runtime.keyed_processes().len() == 1 && runtime.settle(SECOND, SECOND).await == 0);

    set(&runtime, &alone, HELD);

    assert_eq!(lamp.call(Light(3)).await, Ok(vec![1, 2, 3]));
    let fence = lamp.call(Token).await.unwrap();
    assert_eq!((fence.epoch, fence.shard), (7, 3));
}

#[tokio::test(start_paused = true)]
async fn one_that_another_node_owns_does_not_begin_and_says_so() {
    let (runtime, alone) = node();
    set(&runtime, &alone, Holding::No);

    let error = runtime.keyed::<Lamp>("attic").call(Light(1)).await;

    assert!(matches!(error, Err(CallError::Exited(ExitReason::Other(_)))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn its_token_rises_with_each_start() {
    let (runtime, alone) = node();
    set(&runtime, &alone, HELD);
    let lamp = runtime.keyed::<Lamp>("stairs");
    let first = lamp.call(Token).await.unwrap();

    runtime.exit(runtime.keyed_processes()[0].2, ExitReason::Kill);
    let second = lamp.call(Token).await.unwrap();

    assert!(second > first, "{second} after {first}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_held_any_more_has_ended_when_it_is_settled() {
    let (runtime, alone) = node();
    set(&runtime, &alone, HELD);
    let lamp = runtime.keyed::<Lamp>("porch");
    lamp.call(Light(1)).await.unwrap();

    set(&runtime, &alone, Holding::NotYet);
    let begun = Instant::now();
    assert_eq!(runtime.settle(10 * SECOND, SECOND).await, 1);

    assert!(begun.elapsed() < SECOND && STOPPED.load(Ordering::SeqCst), "it was idle");
    assert_eq!(runtime.keyed_processes(), []);
}

#[tokio::test(start_paused = true)]
async fn a_busy_one_is_left_alone_then_asked_then_killed() {
    let (runtime, alone) = node();
    set(&runtime, &alone, HELD);
    let lamp = runtime.keyed::<Lamp>("kitchen");
    lamp.send(Work);
    lamp.send(Light(1));
    tokio::time::sleep(SECOND).await;

    set(&runtime, &alone, Holding::NotYet);
    let begun = Instant::now();
    runtime.settle(3 * SECOND, 2 * SECOND).await;

    let took = begun.elapsed();
    assert!(took >= 5 * SECOND && took < 6 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_it_runs_after_the_lease() {
    let (runtime, alone) = node();
    set(&runtime, &alone, HELD);
    runtime.extend_lease(Instant::now() + 10 * SECOND);
    let lamp = runtime.keyed::<Lamp>("cellar");
    let before = SECONDS.load(Ordering::SeqCst);
    lamp.send(Work);
    tokio::time::sleep(SECOND / 2).await;

    // As for a machine that was frozen: nobody has told the process anything.
    tokio::time::advance(60 * SECOND).await;
    tokio::time::sleep(5 * SECOND).await;

    assert_eq!(SECONDS.load(Ordering::SeqCst), before, "no step after the freeze");
    assert_eq!(runtime.settle(SECOND, SECOND).await, 0);
}
