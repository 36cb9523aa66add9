//! Keyed processes with state: what is kept, when, and what is said when it cannot be.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use purlin_runtime::{
    Actor, CallError, Config, Context, ExitReason, Handler, Key, Keyed, KeyedActor, KeyedKinds,
    MemoryStore, Message, NodeId, OldState, Outcome, Runtime, Snapshot, StateError, Stateful,
    Store, StoreError, StoreFuture,
};
use serde::{Deserialize, Serialize};

const IDLE: Duration = Duration::from_secs(1);

/// Adds, and then does what else it is told.
#[derive(Debug, Serialize, Deserialize)]
struct Add(u64, Then);
impl Message for Add {
    const NAME: &'static str = "tally.add";
    type Reply = u64;
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Then {
    Reply,
    Save,
    Panic,
    Stop,
}

/// A total, in the form that version `V` of the program has.
struct Tally<const V: u32>(u64);

impl<const V: u32> Actor for Tally<V> {
    const KIND: &'static str = "tally";
    type Args = ();
    type Messages = (Add,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self(0))
    }
}

impl<const V: u32> KeyedActor for Tally<V> {
    fn args(_: &Key) {}
}

impl<const V: u32> Stateful for Tally<V> {
    type State = u64;
    const VERSION: u32 = V;

    fn snapshot(&self) -> u64 {
        self.0
    }

    async fn restore(total: u64, (): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self(total))
    }

    fn upgrade(old: &OldState<'_>) -> Result<u64, StateError> {
        match (V, old.version()) {
            // Version 2 counts in tens.
            (2, 1) => Ok(old.decode::<u64>()? * 10),
            (own, stored) => Err(StateError::Version { stored, own }),
        }
    }
}

impl<const V: u32> Handler<Add> for Tally<V> {
    async fn handle(&mut self, Add(n, then): Add, ctx: &mut Context<Self>) -> Outcome<u64> {
        self.0 += n;
        match then {
            Then::Reply => {}
            Then::Save => ctx.save(self).await?,
            Then::Panic => panic!("on purpose"),
            Then::Stop => ctx.stop(ExitReason::Normal),
        }
        Ok(self.0)
    }
}

/// A store that fails as often as it is told to.
#[derive(Default)]
struct Fails {
    loads: AtomicUsize,
    saves: AtomicUsize,
    store: MemoryStore,
}

fn fails<'a, T: Send + 'a>(left: &AtomicUsize) -> Option<StoreFuture<'a, T>> {
    let less = |left: usize| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
    let error = StoreError::Failed { detail: "no space left on device".to_owned() };
    Some(Box::pin(ready(Err(error))))
}

impl Store for Fails {
    fn load<'a>(&'a self, kind: &'a str, key: &'a Key) -> StoreFuture<'a, Option<Snapshot>> {
        fails(&self.loads).unwrap_or_else(|| self.store.load(kind, key))
    }

    fn save<'a>(&'a self, kind: &'a str, key: &'a Key, new: Snapshot) -> StoreFuture<'a, bool> {
        fails(&self.saves).unwrap_or_else(|| self.store.save(kind, key, new))
    }

    fn delete<'a>(&'a self, kind: &'a str, key: &'a Key, upto: u64) -> StoreFuture<'a, ()> {
        self.store.delete(kind, key, upto)
    }
}

fn runtime_on<const V: u32>(store: Arc<dyn Store>) -> Runtime {
    runtime_with::<V>(store, Keyed::new().passivate_after(IDLE))
}

fn runtime_with<const V: u32>(store: Arc<dyn Store>, keyed: Keyed) -> Runtime {
    let mut config = Config::new(NodeId::new("a".into(), 1));
    config.keyed = KeyedKinds::default().with_state::<Tally<V>>(keyed);
    config.store = store;
    Runtime::new(config)
}

fn counter(runtime: &Runtime, name: &str) -> u64 {
    let counters = runtime.counters().snapshot();
    counters.into_iter().find(|counter| counter.name == name).unwrap().count
}

async fn add<const V: u32>(runtime: &Runtime, n: u64, then: Then) -> Result<u64, CallError> {
    runtime.keyed::<Tally<V>>("k").call(Add(n, then)).await
}

/// Waits until the key has no process.
async fn until_gone(runtime: &Runtime) {
    while !runtime.keyed_processes().is_empty() {
        tokio::time::sleep(IDLE / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_idle_or_stopped_by_itself_goes_on_where_it_was() {
    let runtime = runtime_on::<1>(Arc::new(MemoryStore::default()));
    assert_eq!(add::<1>(&runtime, 5, Then::Reply).await, Ok(5));
    until_gone(&runtime).await;
    assert_eq!(counter(&runtime, "keyed.passivated"), 1);

    assert_eq!(add::<1>(&runtime, 2, Then::Stop).await, Ok(7));
    assert_eq!(add::<1>(&runtime, 0, Then::Reply).await, Ok(7));
    assert_eq!((counter(&runtime, "keyed.saved"), counter(&runtime, "keyed.restored")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_it_begins_with_what_was_saved_last() {
    let runtime = runtime_on::<1>(Arc::new(MemoryStore::default()));
    assert_eq!(add::<1>(&runtime, 5, Then::Save).await, Ok(5));
    assert_eq!(add::<1>(&runtime, 1, Then::Reply).await, Ok(6));
    assert!(add::<1>(&runtime, 100, Then::Panic).await.is_err());
    assert_eq!(add::<1>(&runtime, 1, Then::Reply).await, Ok(6));
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_outlives_the_node() {
    let store = Arc::new(MemoryStore::default());
    let first = runtime_on::<1>(Arc::clone(&store) as Arc<dyn Store>);
    assert_eq!(add::<1>(&first, 5, Then::Reply).await, Ok(5));
    first.shutdown(Duration::from_secs(1)).await;

    let second = runtime_on::<1>(store);
    assert_eq!(add::<1>(&second, 1, Then::Reply).await, Ok(6));
}

#[tokio::test(start_paused = true)]
async fn a_state_of_another_version_is_upgraded_or_said_never_begun_anew() {
    let store = Arc::new(MemoryStore::default());
    let one = runtime_on::<1>(Arc::clone(&store) as Arc<dyn Store>);
    assert_eq!(add::<1>(&one, 5, Then::Save).await, Ok(5));
    one.shutdown(Duration::from_secs(1)).await;

    let three = runtime_on::<3>(Arc::clone(&store) as Arc<dyn Store>);
    let refused = add::<3>(&three, 1, Then::Reply).await.unwrap_err().to_string();
    assert!(refused.contains("tally/k"), "{refused}");
    assert!(refused.contains("version 1") && refused.contains("version 3"), "{refused}");
    assert_eq!(counter(&three, "keyed.not_started"), 1);

    let two = runtime_on::<2>(Arc::clone(&store) as Arc<dyn Store>);
    assert_eq!(add::<2>(&two, 1, Then::Reply).await, Ok(51));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_state_of_its_version_is_said() {
    let store = Arc::new(MemoryStore::default());
    let broken = Snapshot { at: 1, version: 1, state: vec![253, 1].into() };
    store.save("tally", &"k".into(), broken).await.unwrap();
    let runtime = runtime_on::<1>(store);
    let refused = add::<1>(&runtime, 1, Then::Reply).await.unwrap_err().to_string();
    assert!(refused.contains("tally/k") && refused.contains("cannot be read"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_read_fails_the_start_and_the_next_message_tries_again() {
    let store = Arc::new(Fails::default());
    let runtime = runtime_on::<1>(Arc::clone(&store) as Arc<dyn Store>);
    assert_eq!(add::<1>(&runtime, 5, Then::Stop).await, Ok(5));
    until_gone(&runtime).await;

    store.loads.store(1, Ordering::Relaxed);
    let refused = add::<1>(&runtime, 1, Then::Reply).await.unwrap_err().to_string();
    assert!(refused.contains("no space left on device"), "{refused}");
    assert_eq!(counter(&runtime, "keyed.not_restored"), 1);
    assert_eq!(add::<1>(&runtime, 1, Then::Reply).await, Ok(6));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_write_is_tried_again_while_the_next_process_waits() {
    let store = Arc::new(Fails::default());
    let runtime = runtime_on::<1>(Arc::clone(&store) as Arc<dyn Store>);
    store.saves.store(2, Ordering::Relaxed);
    assert_eq!(add::<1>(&runtime, 5, Then::Stop).await, Ok(5));
    assert_eq!(add::<1>(&runtime, 1, Then::Reply).await, Ok(6), "it has waited");
    assert_eq!((counter(&runtime, "keyed.saved"), counter(&runtime, "keyed.not_saved")), (1, 0));

    store.saves.store(9, Ordering::Relaxed);
    assert_eq!(add::<1>(&runtime, 1, Then::Stop).await, Ok(7));
    assert_eq!(add::<1>(&runtime, 1, Then::Reply).await, Ok(6), "as after a crash, and counted");
    assert_eq!(counter(&runtime, "keyed.not_saved"), 1);
    let said = add::<1>(&runtime, 1, Then::Save).await.unwrap_err().to_string();
    assert!(said.contains("no space left on device"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_newer_state_is_not_overwritten() {
    let store = Arc::new(MemoryStore::default());
    let runtime = runtime_on::<1>(Arc::clone(&store) as Arc<dyn Store>);
    assert_eq!(add::<1>(&runtime, 5, Then::Save).await, Ok(5));
    let newer =
        Snapshot { at: u64::MAX - 1, version: 1, state: 77_u64.to_le_bytes().to_vec().into() };
    assert_eq!(store.save("tally", &"k".into(), newer).await, Ok(true));
    let refused = add::<1>(&runtime, 1, Then::Save).await.unwrap_err().to_string();
    assert!(refused.contains("newer"), "{refused}");
    assert_eq!(add::<1>(&runtime, 1, Then::Stop).await, Ok(78));
    assert_eq!(add::<1>(&runtime, 0, Then::Reply).await, Ok(78), "newer than the newest");
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_one_has_its_state_as_well() {
    let store = Arc::new(MemoryStore::default());
    let first = runtime_with::<1>(Arc::clone(&store) as Arc<dyn Store>, Keyed::exclusive());
    assert_eq!(add::<1>(&first, 5, Then::Stop).await, Ok(5));
    assert_eq!(add::<1>(&first, 1, Then::Reply).await, Ok(6));
    first.shutdown(Duration::from_secs(1)).await;
    let second = runtime_with::<1>(store, Keyed::exclusive());
    assert_eq!(add::<1>(&second, 1, Then::Reply).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn one_that_has_no_key_has_nothing_to_save() {
    let runtime = runtime_on::<1>(Arc::new(MemoryStore::default()));
    let alone = runtime.spawn::<Tally<1>>(()).await.unwrap();
    assert_eq!(alone.call(Add(1, Then::Reply)).await, Ok(1));
    let refused = alone.call(Add(1, Then::Save)).await.unwrap_err().to_string();
    assert!(refused.contains("no key"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_remembered_key_runs_again_by_itself_until_it_ends_itself() {
    let store = Arc::new(MemoryStore::default());
    let keyed = Keyed::new().passivate_after(IDLE).remember();
    let long = Duration::from_mins(1);
    let first = runtime_with::<1>(Arc::clone(&store) as Arc<dyn Store>, keyed);
    assert_eq!(add::<1>(&first, 5, Then::Save).await, Ok(5));
    tokio::time::sleep(long).await;
    assert_eq!(counter(&first, "keyed.started"), 1, "it is never idle for too long");
    assert!(add::<1>(&first, 1, Then::Panic).await.is_err());
    tokio::time::sleep(long).await;
    assert_eq!(first.keyed_processes().len(), 1);
    assert_eq!(counter(&first, "keyed.started"), 2);
    first.shutdown(Duration::from_secs(1)).await;

    let second = runtime_with::<1>(Arc::clone(&store) as Arc<dyn Store>, keyed);
    tokio::time::sleep(long).await;
    assert_eq!(second.keyed_processes().len(), 1, "a restart does not make it forget");
    assert_eq!(add::<1>(&second, 1, Then::Stop).await, Ok(6));
    tokio::time::sleep(long).await;
    assert_eq!(second.keyed_processes(), []);
    second.shutdown(Duration::from_secs(1)).await;

    let third = runtime_with::<1>(store, keyed);
    tokio::time::sleep(long).await;
    assert_eq!(third.keyed_processes(), [], "nor does it remember too long");
}
