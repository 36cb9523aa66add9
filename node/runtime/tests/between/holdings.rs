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
    runtime.holdings().iter().find(|holding| holding.what == what).unwrap().now
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
