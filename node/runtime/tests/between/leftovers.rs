//! What is left of requests that nobody will answer. The simulator found that it was something.

use std::time::Duration;

use purlin_runtime::{Actor, Context, Handler, Message, Outcome, Runtime, Sent};
use serde::{Deserialize, Serialize};

use crate::wire::Pair;

struct Child;

impl Actor for Child {
    const KIND: &'static str = "child";
    type Args = ();
    type Messages = ();

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

#[derive(Serialize, Deserialize)]
struct SpawnThere;

impl Message for SpawnThere {
    const NAME: &'static str = "spawn-there";
    type Reply = bool;
}

struct Parent;

impl Actor for Parent {
    const KIND: &'static str = "parent";
    type Args = ();
    type Messages = (SpawnThere,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<SpawnThere> for Parent {
    async fn handle(&mut self, _: SpawnThere, ctx: &mut Context<Self>) -> Outcome<bool> {
        let there = "b".into();
        let child = ctx.spawn_link_on::<Child>(&there, ());
        Ok(tokio::time::timeout(Duration::from_millis(10), child).await.is_ok_and(|c| c.is_ok()))
    }
}

/// How much a node holds of something.
pub(crate) fn held(runtime: &Runtime, what: &str) -> usize {
    runtime.gauges().iter().find(|gauge| gauge.what == what).unwrap().now
}

#[tokio::test(start_paused = true)]
async fn a_linked_spawn_that_was_never_sent_is_not_waited_for() {
    for why in [Sent::Unreachable, Sent::Gone] {
        let pair = Pair::new();
        let parent = pair.a.spawn::<Parent>(()).await.unwrap();
        pair.answer(&pair.a, why);

        assert!(!parent.call(SpawnThere).await.unwrap());

        assert_eq!(held(&pair.a, "calls.pending"), 0, "{why:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_linked_spawn_that_was_sent_is_waited_for_until_it_is_answered() {
    let pair = Pair::new();
    let parent = pair.a.spawn::<Parent>(()).await.unwrap();

    assert!(!parent.call(SpawnThere).await.unwrap());

    assert_eq!(held(&pair.a, "calls.pending"), 1);
    pair.settle().await;
    assert_eq!(held(&pair.a, "calls.pending"), 0);
}

/// How many processes of a kind a node runs.
fn running(runtime: &Runtime, kind: &str) -> usize {
    runtime.processes_after(0).iter().filter(|process| process.kind == kind).count()
}

/// Two nodes on which children can be started.
fn with_children() -> Pair {
    Pair::configured(|config| config.kinds = std::mem::take(&mut config.kinds).with::<Child>())
}

#[tokio::test(start_paused = true)]
async fn a_linked_spawn_that_waits_for_room_has_nothing_to_do_with_a_connection_lost_meanwhile() {
    let pair = with_children();
    let parent = pair.a.spawn::<Parent>(()).await.unwrap();
    pair.answer(&pair.a, Sent::Full);
    let asked = parent.clone();
    let asked = tokio::spawn(async move { asked.call(SpawnThere).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(3)).await;

    pair.lose();
    pair.answer(&pair.a, Sent::Accepted);
    pair.settle().await;

    assert!(asked.await.unwrap(), "over the next connection");
    assert_eq!(running(&pair.b, Child::KIND), 1);
    pair.a.exit(parent.pid(), purlin_runtime::ExitReason::Kill);
    pair.settle().await;
    assert_eq!(running(&pair.b, Child::KIND), 0, "it is linked");
}

#[tokio::test(start_paused = true)]
async fn what_is_born_of_a_spawn_that_was_told_lost_does_not_live_on() {
    let pair = with_children();
    let parent = pair.a.spawn::<Parent>(()).await.unwrap();
    let (a, b) = (pair.a.clone(), pair.b.name());
    pair.meanwhile(&pair.a, move || a.connection_lost(b));

    assert!(!parent.call(SpawnThere).await.unwrap());
    assert_eq!(held(&pair.a, "calls.pending"), 1);
    pair.deliver(&pair.a);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(running(&pair.b, Child::KIND), 1, "the request went out over the next connection");

    pair.settle().await;

    assert_eq!(running(&pair.b, Child::KIND), 0);
    assert_eq!(held(&pair.a, "calls.pending"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_spawn_that_was_told_lost_and_not_sent_leaves_nothing() {
    let pair = with_children();
    let parent = pair.a.spawn::<Parent>(()).await.unwrap();
    let (a, b) = (pair.a.clone(), pair.b.name());
    pair.meanwhile(&pair.a, move || a.connection_lost(b));
    pair.answer(&pair.a, Sent::Unreachable);

    assert!(!parent.call(SpawnThere).await.unwrap());

    assert_eq!(held(&pair.a, "calls.pending"), 0);
}
