//! One message to many.

use std::sync::atomic::{AtomicU64, Ordering};

use purlin_proto::limits::RECEIVERS;
use purlin_proto::{Signal, Target};
use purlin_runtime::{Codec, Dest, ExitReason, Message, Payload, Pid, Received, Runtime, Sent};
use serde::{Deserialize, Serialize, Serializer};

use crate::wire::{Hand, Pair, count};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct News(String);

impl Message for News {
    const NAME: &'static str = "paper.news";
    type Reply = ();
}

fn news() -> News {
    News("it rains".into())
}

fn pids(hands: &[Hand]) -> Vec<Pid> {
    hands.iter().map(|hand| hand.pid).collect()
}

/// Two on each node.
fn on_both(pair: &Pair) -> Vec<Hand> {
    [&pair.a, &pair.b].into_iter().flat_map(|node| Hand::many(node, 2)).collect()
}

/// The news that a hand has received.
async fn read(hand: &mut Hand) -> Vec<String> {
    let rest = hand.rest().await.into_iter();
    let text = |received| match received {
        Received::Message(message) => {
            let (News(text), _) = message.take::<News>().unwrap().unwrap();
            text
        }
        other => panic!("{other:?}"),
    };
    rest.map(text).collect()
}

fn counter(runtime: &Runtime, name: &str) -> u64 {
    runtime.counters().snapshot().into_iter().find(|c| c.name == name).unwrap().count
}

#[tokio::test(start_paused = true)]
async fn many_receivers_on_a_node_cost_one_frame_of_two_bytes_each() {
    let pair = Pair::new();
    let mut readers = Hand::many(&pair.b, 10_000);

    pair.a.send_all(pids(&readers), news());

    let sizes = pair.sizes_sent_by(&pair.a);
    assert_eq!(sizes.len(), 1);
    assert!(sizes[0] < 20_100, "{sizes:?}");
    pair.settle().await;
    for reader in readers.iter_mut().step_by(997) {
        assert_eq!(read(reader).await, ["it rains"]);
    }
}

/// Counts how often it is encoded and cloned.
struct Dear;

static ENCODED: AtomicU64 = AtomicU64::new(0);
static CLONED: AtomicU64 = AtomicU64::new(0);

impl Clone for Dear {
    fn clone(&self) -> Self {
        CLONED.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Serialize for Dear {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODED.fetch_add(1, Ordering::Relaxed);
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Dear {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self)
    }
}

impl Message for Dear {
    const NAME: &'static str = "paper.dear";
    type Reply = ();
}

#[tokio::test(start_paused = true)]
async fn a_message_is_encoded_once_and_not_at_all_for_receivers_of_its_own_node() {
    let pair = Pair::new();
    let (mut here, there) = (Hand::many(&pair.a, 5), Hand::many(&pair.b, 20));
    let beyond = [1, 2, 3].map(|serial| Pid { serial, ..another("c") });

    pair.a.send_all(pids(&here), Dear);
    assert_eq!((ENCODED.load(Ordering::Relaxed), CLONED.load(Ordering::Relaxed)), (0, 4));
    pair.a.send_all([pids(&here), pids(&there), beyond.to_vec()].concat(), Dear);

    assert_eq!((ENCODED.load(Ordering::Relaxed), CLONED.load(Ordering::Relaxed)), (1, 8));
    for hand in &mut here {
        assert_eq!(hand.rest().await.len(), 2);
    }
}

/// Some process of another node.
fn another(node: &'static str) -> Pid {
    purlin_runtime::NodeId::new(node.into(), 1).pid(7)
}

#[tokio::test(start_paused = true)]
async fn receivers_share_the_bytes_of_the_frame() {
    let pair = Pair::new();
    let mut readers = Hand::many(&pair.b, 3);

    pair.a.send_all(pids(&readers), news());
    pair.settle().await;

    let mut places = Vec::new();
    for reader in &mut readers {
        let Some(Received::Message(message)) = reader.rest().await.pop() else { panic!() };
        places.push(message.into_payload(Codec::Bincode).unwrap().1.bytes.as_ptr());
    }
    assert_eq!(places, [places[0]; 3]);
}

#[tokio::test(start_paused = true)]
async fn it_keeps_its_place_among_what_its_sender_sends() {
    let pair = Pair::new();
    let sender = Hand::start(&pair.a);
    let mut readers = on_both(&pair);
    let all = pids(&readers);

    sender
        .does(move |ctx| {
            for round in 0..3 {
                for to in &all {
                    ctx.runtime().send(*to, News(format!("{round} to one")));
                }
                ctx.runtime().send_all(all.iter().copied(), News(format!("{round} to all")));
            }
        })
        .await;

    let flows: Vec<_> = pair.sent_by(&pair.a).into_iter().map(|(flow, _)| flow).collect();
    assert_eq!(flows, [sender.pid.serial; 9], "all on the sender's one flow");
    pair.settle().await;
    let expected =
        ["0 to one", "0 to all", "1 to one", "1 to all", "2 to one", "2 to all"].map(str::to_owned);
    for reader in &mut readers {
        assert_eq!(read(reader).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn it_goes_to_names_too_and_to_each_as_often_as_it_is_named() {
    let pair = Pair::new();
    let mut hand = Hand::start(&pair.b);
    pair.b.register("daily".into(), hand.pid).unwrap();
    let daily = Dest::Remote("daily".into(), "b".into());

    pair.a.send_all([daily.clone(), hand.pid.into(), daily, hand.pid.into()], news());
    pair.settle().await;

    assert_eq!(read(&mut hand).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_single_receiver_of_a_node_gets_an_ordinary_message() {
    let pair = Pair::new();
    let reader = Hand::start(&pair.b);

    pair.a.send_all([reader.pid], news());

    let [(_, envelope)] = &pair.sent_by(&pair.a)[..] else { panic!() };
    assert_eq!(envelope.to, Target::Serial(reader.pid.serial));
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_counted_for_each_receiver() {
    let pair = Pair::new();
    let (here, there) = (Hand::start(&pair.a), Hand::many(&pair.b, 10));
    here.end(ExitReason::Kill).await;
    there[3].end(ExitReason::Kill).await;
    let all = [pids(&there), vec![here.pid]].concat();

    for (sent, name) in [
        (Sent::Full, "dropped.link_full"),
        (Sent::Unreachable, "dropped.no_connection"),
        (Sent::Gone, "dropped.old_life"),
    ] {
        pair.answer(&pair.a, sent);
        pair.a.send_all(all.iter().copied(), news());
        assert_eq!(counter(&pair.a, name), 10);
    }
    assert_eq!(counter(&pair.a, "dropped.no_process"), 3, "the one of its own node");

    pair.answer(&pair.a, Sent::Accepted);
    pair.a.send_all(all, news());
    pair.settle().await;
    assert_eq!(counter(&pair.b, "dropped.no_process"), 1, "where it was");
}

#[tokio::test(start_paused = true)]
async fn more_receivers_than_a_frame_may_have_are_told_by_several() {
    let pair = Pair::new();
    let mut reader = Hand::start(&pair.b);
    let many = vec![reader.pid; RECEIVERS + 1];

    pair.a.send_all(many, news());

    let sent = pair.sent_by(&pair.a);
    assert_eq!(count(&sent, |signal| matches!(signal, Signal::Send { .. })), 2);
    pair.settle().await;
    assert_eq!(read(&mut reader).await.len(), RECEIVERS + 1);
}

#[tokio::test(start_paused = true)]
async fn an_encoded_message_is_shared_by_receivers_here_and_there() {
    let pair = Pair::new();
    let mut hands = on_both(&pair);
    let payload = Payload::encode(Codec::Json, &news()).unwrap();

    let name = "paper.news".parse::<purlin_runtime::Name>().unwrap();
    pair.a.send_all_encoded(pids(&hands), &name.into(), &payload);
    pair.settle().await;

    for hand in &mut hands {
        assert_eq!(read(hand).await, ["it rains"]);
    }
}
