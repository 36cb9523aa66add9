//! Keyed processes of one node: started on first use, ended when idle, never two of a key.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use purlin_runtime::{
    Actor, CallError, Config, Context, Deferred, Dest, ExitReason, Handler, Key, Keyed, KeyedActor,
    KeyedKinds, Mailbox, Message, NodeId, Outcome, Runtime, WhenFull,
};
use serde::{Deserialize, Serialize};

const IDLE: Duration = Duration::from_mins(1);

/// Counts what it is told, and what has happened to its key: it starts and stops slowly.
struct Ledger {
    key: Key,
    numbers: Vec<u32>,
    kept: Option<Deferred<u32>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note(u32);
impl Message for Note {
    const NAME: &'static str = "ledger.note";
    type Reply = Vec<u32>;
}

#[derive(Debug, Serialize, Deserialize)]
struct Owe;
impl Message for Owe {
    const NAME: &'static str = "ledger.owe";
    type Reply = u32;
}

#[derive(Debug, Serialize, Deserialize)]
struct Ask;
impl Message for Ask {
    const NAME: &'static str = "ledger.ask";
    type Reply = Vec<u32>;
}

#[derive(Debug, Serialize, Deserialize)]
struct Fail;
impl Message for Fail {
    const NAME: &'static str = "ledger.fail";
    type Reply = ();
}

/// What has happened to the keys of all tests, each of which has keys of its own.
static LIVES: LazyLock<Mutex<BTreeMap<Key, Vec<&'static str>>>> = LazyLock::new(Mutex::default);

fn happened(key: &Key, what: &'static str) {
    LIVES.lock().unwrap().entry(key.clone()).or_default().push(what);
}

fn life(key: &'static str) -> Vec<&'static str> {
    LIVES.lock().unwrap().get(&Key::from(key)).cloned().unwrap_or_default()
}

const SLOWLY: Duration = Duration::from_secs(1);

impl Actor for Ledger {
    const KIND: &'static str = "ledger";
    type Args = Key;
    type Messages = (Note, Owe, Ask, Fail);
    const MAILBOX: Mailbox = Mailbox::bounded(10, WhenFull::Wait);

    async fn start(key: Key, _: &mut Context<Self>) -> Outcome<Self> {
        happened(&key, "start");
        tokio::time::sleep(SLOWLY).await;
        if key.as_str().starts_with("bad") {
            return Err("no such account".into());
        }
        Ok(Self { key, numbers: Vec::new(), kept: None })
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        tokio::time::sleep(SLOWLY).await;
        happened(&self.key, "stopped");
    }
}

impl KeyedActor for Ledger {
    fn args(key: &Key) -> Key {
        key.clone()
    }
}

impl Handler<Note> for Ledger {
    async fn handle(&mut self, Note(number): Note, _: &mut Context<Self>) -> Outcome<Vec<u32>> {
        self.numbers.push(number);
        Ok(self.numbers.clone())
    }
}

impl Handler<Owe> for Ledger {
    async fn handle(&mut self, _: Owe, ctx: &mut Context<Self>) -> Outcome<u32> {
        self.kept = Some(ctx.defer::<Owe>());
        ctx.noreply()
    }
}

impl Handler<Ask> for Ledger {
    async fn handle(&mut self, _: Ask, ctx: &mut Context<Self>) -> Outcome<Vec<u32>> {
        let own = ctx.call(Dest::key("ledger", self.key.clone()), Note(0)).await;
        assert_eq!(own, Err(CallError::SelfCall));
        Ok(vec![])
    }
}

impl Handler<Fail> for Ledger {
    async fn handle(&mut self, _: Fail, _: &mut Context<Self>) -> Outcome {
        Err("out of ink".into())
    }
}

fn runtime_with(keyed: Keyed) -> Runtime {
    let mut config = Config::new(NodeId::new("a".into(), 1));
    config.keyed = KeyedKinds::default().with::<Ledger>(keyed);
    Runtime::new(config)
}

fn runtime() -> Runtime {
    runtime_with(Keyed::available())
}

fn counter(runtime: &Runtime, name: &str) -> u64 {
    runtime.counters().snapshot().into_iter().find(|c| c.name == name).unwrap().count
}

/// Polls a future once.
async fn begin<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    let mut future = Box::pin(future);
    tokio::select! {
        biased;
        _ = &mut future => panic!("done at once"),
        () = tokio::task::yield_now() => {}
    }
    future
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_it_starts_waits_and_arrives_in_order() {
    let runtime = runtime();
    let ledger = runtime.keyed::<Ledger>("early");
    for number in 0..5 {
        ledger.send(Note(number));
    }
    assert_eq!(ledger.call(Note(5)).await, Ok(vec![0, 1, 2, 3, 4, 5]));
    assert_eq!(life("early"), ["start"]);
    assert_eq!(counter(&runtime, "keyed.started"), 1);
    assert_eq!(runtime.keyed_processes(), [("ledger", "early".into(), ledger.pid())]);
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_for_its_start_is_refused_or_waits_as_the_mailbox_says() {
    let runtime = runtime();
    let ledger = runtime.keyed::<Ledger>("crowd");
    for number in 0..13 {
        ledger.send(Note(number));
    }
    assert_eq!(counter(&runtime, "dropped.mailbox_full"), 3);
    let soon = SLOWLY / 2;
    assert_eq!(ledger.call_timeout(Note(98), soon).await, Err(CallError::Overloaded));
    let numbers: Vec<_> = (0..10).chain([99]).collect();
    assert_eq!(ledger.call(Note(99)).await, Ok(numbers), "a call waits for room");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_told_to_all_who_wait_and_tried_again_on_next_use() {
    let runtime = runtime();
    let ledger = runtime.keyed::<Ledger>("bad");
    let (one, two) = tokio::join!(ledger.call(Note(1)), ledger.call(Note(2)));
    for failed in [one, two] {
        let Err(CallError::Exited(reason)) = failed else { panic!("{failed:?}") };
        assert!(reason.to_string().contains("no such account"), "{reason}");
    }
    assert_eq!(life("bad"), ["start"]);
    assert!(ledger.call(Note(3)).await.is_err());
    assert_eq!((life("bad").len(), counter(&runtime, "keyed.not_started")), (2, 2));
    assert_eq!(runtime.keyed_processes(), []);
}

#[tokio::test(start_paused = true)]
async fn an_idle_one_ends_and_what_comes_while_it_stops_goes_to_the_next_one() {
    let runtime = runtime_with(Keyed::available().passivate_after(IDLE));
    let ledger = runtime.keyed::<Ledger>("lazy");
    ledger.call(Note(1)).await.unwrap();
    while counter(&runtime, "keyed.passivated") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(life("lazy"), ["start"], "it is stopping");

    ledger.send(Note(2));
    assert_eq!(ledger.call(Note(3)).await, Ok(vec![2, 3]));
    assert_eq!(life("lazy"), ["start", "stopped", "start"], "never two at once");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_however_often_it_ends_while_it_is_used() {
    let runtime = runtime_with(Keyed::available().passivate_after(Duration::from_millis(1)));
    let ledger = runtime.keyed::<Ledger>("busy");
    for round in 0..200_u32 {
        // A moment that drifts through all that it does.
        tokio::time::sleep(Duration::from_millis(u64::from(round % 97) * 23)).await;
        ledger.call(Note(round)).await.unwrap();
    }
    let lives = life("busy");
    assert!(counter(&runtime, "keyed.passivated") > 20, "{lives:?}");
    assert!(lives.chunks(2).all(|life| matches!(life, ["start", "stopped"] | ["start"])));
    assert_eq!(counter(&runtime, "dropped.no_process"), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_owes_a_reply_is_not_idle() {
    let runtime = runtime_with(Keyed::available().passivate_after(IDLE));
    let ledger = runtime.keyed::<Ledger>("debtor");
    let owed = begin(ledger.call_timeout(Owe, 10 * IDLE)).await;
    tokio::time::sleep(5 * IDLE).await;
    assert_eq!(counter(&runtime, "keyed.passivated"), 0);
    drop(owed);
}

#[tokio::test(start_paused = true)]
async fn a_crash_ends_it_and_the_next_message_starts_it_anew() {
    let runtime = runtime();
    let ledger = runtime.keyed::<Ledger>("clumsy");
    ledger.call(Note(1)).await.unwrap();
    let pid = ledger.pid();
    let down = runtime.down(pid);
    let (down, failed) = tokio::join!(down, ledger.call(Fail));
    assert!(down.reason.to_string().contains("out of ink"), "{:?}", down.reason);
    assert!(matches!(failed, Err(CallError::Exited(_))), "{failed:?}");

    assert_eq!(ledger.call(Note(2)).await, Ok(vec![2]));
    assert_ne!(ledger.pid(), pid);
    let old = runtime.call(pid, Note(3)).await;
    assert_eq!(old, Err(CallError::NoProcess), "a pid names one life");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_keyed_and_a_call_to_itself_are_said() {
    let runtime = runtime();
    let asked = runtime.call(Dest::key("cart", 1), Note(1)).await;
    let (kind, known) = ("cart".to_owned(), vec!["ledger".to_owned()]);
    assert_eq!(asked, Err(CallError::NotKeyed { kind, node: "a".into(), known }));
    runtime.send(Dest::key("cart", 1), Note(1));
    assert_eq!(counter(&runtime, "dropped.no_process"), 2);
    assert_eq!(runtime.keyed::<Ledger>("mirror").call(Ask).await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn keys_are_among_the_receivers_of_one_message_for_many() {
    let runtime = runtime();
    let keys = ["east", "west"].map(|key| Dest::key("ledger", key));
    runtime.send_all(&keys, Note(7));
    for key in keys {
        assert_eq!(runtime.call(key, Note(8)).await, Ok(vec![7, 8]));
    }
}
