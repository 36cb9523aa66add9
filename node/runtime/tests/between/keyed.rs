//! Messages to keys, where nodes agree about the owner and where they do not.

use std::time::Duration;

use purlin_proto::admin::{FollowKey, SYSTEM, TakeKey};
use purlin_proto::{Envelope, MessageName, Signal, Target};
use purlin_runtime::{
    Actor, CallError, Context, Handler, Key, Keyed, KeyedActor, KeyedKinds, Message, Outcome,
    RawContext, Runtime, Sent,
};
use serde::{Deserialize, Serialize};

use crate::wire::{Hand, Pair, count};

struct Ledger(Vec<u32>);

#[derive(Debug, Serialize, Deserialize)]
struct Note(u32);

impl Message for Note {
    const NAME: &'static str = "ledger.note";
    type Reply = Vec<u32>;
}

impl Actor for Ledger {
    const KIND: &'static str = "ledger";
    type Args = ();
    type Messages = (Note,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self(Vec::new()))
    }
}

impl KeyedActor for Ledger {
    fn args(_: &Key) {}
}

impl Handler<Note> for Ledger {
    async fn handle(&mut self, Note(number): Note, _: &mut Context<Self>) -> Outcome<Vec<u32>> {
        self.0.push(number);
        Ok(self.0.clone())
    }
}

fn pair() -> Pair {
    Pair::with(&KeyedKinds::default().with::<Ledger>(Keyed::available()))
}

fn counter(runtime: &Runtime, name: &str) -> u64 {
    runtime.counters().snapshot().into_iter().find(|c| c.name == name).unwrap().count
}

fn is_forwarded((_, envelope): &(u64, Envelope)) -> bool {
    matches!(envelope.to, Target::Key { forwarded: true, .. })
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_key_is_one_frame_to_its_owner() {
    let pair = pair();
    pair.set_owner(&pair.a, &pair.b);
    pair.set_owner(&pair.b, &pair.b);
    let ledger = pair.a.keyed::<Ledger>(7);
    ledger.send(Note(1));
    ledger.send(Note(2));
    let (third, ()) = tokio::join!(ledger.call(Note(3)), pair.settle());

    assert_eq!(third, Ok(vec![1, 2, 3]));
    let sent = pair.sent_by(&pair.a);
    let (kind, key) = ("ledger".into(), Key::from(7));
    let to = Target::Key { kind, key, forwarded: false };
    assert!(sent.iter().all(|(_, envelope)| envelope.to == to), "{sent:?}");
    assert_eq!((sent.len(), pair.sent_by(&pair.b).len()), (3, 1));
    assert_eq!(pair.b.keyed_processes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_the_owner_sends_on_once_and_hands_back_the_reply() {
    let pair = pair();
    // As when `b` has left, which `a` does not know yet; the owner is `a` itself.
    pair.set_owner(&pair.a, &pair.b);
    pair.set_owner(&pair.b, &pair.a);
    let ledger = pair.a.keyed::<Ledger>(7);
    ledger.send(Note(1));
    let call = ledger.call(Note(2));
    let know = async {
        pair.deliver(&pair.a);
        tokio::task::yield_now().await;
        pair.deliver(&pair.a);
        pair.set_owner(&pair.a, &pair.a);
        pair.settle().await;
    };
    let (second, ()) = tokio::join!(call, know);

    assert_eq!(second, Ok(vec![1, 2]), "in order");
    let sent_on = pair.sent_by(&pair.b);
    assert_eq!(sent_on.iter().filter(|sent| is_forwarded(sent)).count(), 2);
    assert_eq!((counter(&pair.b, "keyed.forwarded"), counter(&pair.b, "keyed.started")), (2, 0));
    assert_eq!(pair.a.keyed_processes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_on_already_is_refused_and_said() {
    let pair = pair();
    pair.set_owner(&pair.a, &pair.b);
    pair.set_owner(&pair.b, &pair.a);
    let ledger = pair.a.keyed::<Ledger>(7);
    ledger.send(Note(1));
    let (called, ()) = tokio::join!(ledger.call(Note(2)), pair.settle());

    let key = "key:ledger/7".to_owned();
    assert_eq!(called, Err(CallError::NotOwner { key, node: "a".into() }));
    assert_eq!(counter(&pair.a, "dropped.not_owner"), 2);
    assert_eq!(pair.sent_by(&pair.a).iter().filter(|sent| is_forwarded(sent)).count(), 0);
    assert!(pair.a.keyed_processes().is_empty() && pair.b.keyed_processes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_on_is_said_and_counted() {
    for (sent, error, count) in [
        (Sent::Unreachable, CallError::NoConnection, "dropped.no_connection"),
        (Sent::Full, CallError::Overloaded, "dropped.link_full"),
    ] {
        let pair = pair();
        pair.set_owner(&pair.a, &pair.b);
        pair.set_owner(&pair.b, &pair.a);
        let ledger = pair.a.keyed::<Ledger>(7);
        ledger.send(Note(1));
        let call = ledger.call(Note(2));
        let lose = async {
            tokio::task::yield_now().await;
            pair.answer(&pair.b, sent);
            pair.deliver(&pair.a);
            pair.answer(&pair.b, Sent::Accepted);
            pair.settle().await;
        };
        let (called, ()) = tokio::join!(call, lose);
        // The answer itself could not be sent while the way was lost.
        assert!(called == Err(error) || called == Err(CallError::Timeout), "{called:?}");
        assert_eq!(counter(&pair.b, count), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn only_messages_go_to_keys() {
    let pair = pair();
    let to = Target::Key { kind: "ledger".into(), key: Key::from(7), forwarded: false };
    let link = Envelope { to, from: 3, signal: Signal::Link };
    assert!(pair.a.inbound(pair.b.id()).envelope(link).is_ok());
    assert!(pair.a.keyed_processes().is_empty(), "nothing is started for it");
}

/// Answers what nodes ask each other when keys move.
struct System;

impl Actor for System {
    const KIND: &'static str = "system";
    type Args = ();
    type Messages = (FollowKey, TakeKey);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<FollowKey> for System {
    async fn handle(&mut self, ask: FollowKey, ctx: &mut Context<Self>) -> Outcome<bool> {
        Ok(ctx.runtime().follow_key(&ask.kind, &ask.key).await)
    }
}

impl Handler<TakeKey> for System {
    async fn handle(&mut self, ask: TakeKey, ctx: &mut Context<Self>) -> Outcome<bool> {
        Ok(ctx.runtime().take_key(&ask.kind, &ask.key))
    }
}

/// Both answer what nodes ask each other, and `b` owns all keys.
async fn pair_that_answers() -> Pair {
    let pair = pair();
    for node in [&pair.a, &pair.b] {
        let system = node.spawn::<System>(()).await.unwrap();
        node.register(SYSTEM.parse().unwrap(), system.pid()).unwrap();
        pair.set_owner(node, &pair.b);
    }
    pair
}

fn follows(sent: &[(u64, Envelope)]) -> usize {
    let follows = MessageName::of::<FollowKey>();
    let asks =
        |signal: &Signal| matches!(signal, Signal::Call { message, .. } if *message == follows);
    count(sent, asks)
}

async fn send(hand: &Hand, from: u32) {
    let send = move |ctx: &mut RawContext| {
        let ledger = ctx.runtime().keyed::<Ledger>(7);
        (from..from + 3).for_each(|number| ledger.send(Note(number)));
    };
    hand.does(send).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_to_the_next_owner_comes_behind_what_was_sent_before() {
    let pair = pair_that_answers().await;
    let (one, other) = (Hand::start(&pair.a), Hand::start(&pair.a));
    send(&one, 0).await;
    pair.change_owner(&pair.a);
    send(&one, 3).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(pair.a.keyed_processes().is_empty(), "it waits for what is on its way");
    let sent = pair.sent_by(&pair.a);
    assert_eq!((sent.len(), follows(&sent)), (4, 1));
    assert!(sent.iter().all(|(flow, _)| *flow == sent[0].0), "the question is behind the rest");

    pair.settle().await;

    let told = pair.a.keyed::<Ledger>(7).call(Note(6)).await;
    assert_eq!(told, Ok((0..7).collect()));
    assert_eq!(counter(&pair.a, "keyed.not_followed"), 0);
    // Once is enough; and nobody else of this node has sent anything before.
    send(&one, 7).await;
    let called = other.does(|ctx| ctx.runtime().clone()).await;
    assert!(called.keyed::<Ledger>(7).call(Note(10)).await.unwrap().is_sorted());
    assert_eq!(follows(&pair.sent_by(&pair.a)), 0);
}

#[tokio::test(start_paused = true)]
async fn it_does_not_wait_for_ever_and_not_without_bound() {
    const ITEMS: u32 = 10_000;
    let pair = pair_that_answers().await;
    let ledger = pair.a.keyed::<Ledger>(7);
    ledger.send(Note(0));
    pair.change_owner(&pair.a);
    (1..ITEMS + 11).for_each(|number| ledger.send(Note(number)));
    assert_eq!(counter(&pair.a, "dropped.link_full"), 10);
    let begun = tokio::time::Instant::now();

    // What is on its way stays there.
    let waited = ledger.call(Note(ITEMS + 11)).await.unwrap();

    assert_eq!(begun.elapsed().as_secs(), 2);
    assert!(waited.into_iter().eq((1..=ITEMS).chain([ITEMS + 11])));
    assert_eq!(counter(&pair.a, "keyed.not_followed"), 1);
}

#[tokio::test(start_paused = true)]
async fn who_only_calls_has_nothing_to_wait_for() {
    let pair = pair_that_answers().await;
    let ledger = pair.a.keyed::<Ledger>(7);
    let (first, ()) = tokio::join!(ledger.call(Note(1)), pair.settle());
    assert_eq!(first, Ok(vec![1]));
    pair.change_owner(&pair.a);
    let (second, ()) = tokio::join!(ledger.call(Note(2)), pair.settle());
    assert_eq!(second, Ok(vec![2]), "of a kind without state");
    assert_eq!(follows(&pair.sent_by(&pair.a)), 0);
}
