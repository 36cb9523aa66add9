//! Order, completeness and no doubles, under load, over real sockets: 100,000 messages of mixed
//! sizes between 50 pairs of processes on two nodes.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::prelude::*;
use purlin_cluster_tests::memory::until_sees;
use purlin_cluster_tests::numbered::{Receiver, send, until_came};

const PAIRS: u64 = 50;
const MESSAGES: u64 = 2_000;

/// 1 B to 1 MiB, most of them small, as in life.
fn size(pair: u64, number: u64) -> usize {
    let mixed = (pair * 7_919 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    match mixed % 1000 {
        0 => 1 << 20,
        1..=4 => 200_000,
        5..=50 => 20_000,
        51..=300 => 1_000,
        _ => usize::try_from(mixed % 100 + 1).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_keeps_its_order_and_nothing_is_lost_or_doubled() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("home");
    let builder = || Node::builder().data_dir(&dir).listen("127.0.0.1:0").actor::<Receiver>();
    let a = builder().name("a").start().await.unwrap();
    let b = builder().name("b").seed(a.address().to_string()).start().await.unwrap();
    until_sees(&a, 2).await;
    until_sees(&b, 2).await;

    let mut senders = Vec::new();
    let mut receivers = Vec::new();
    for pair in 0..PAIRS {
        let (from, to) = if pair % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let receiver = from.spawn_on::<Receiver>(&to.id().name, ()).await.unwrap();
        receivers.push(receiver.clone());
        senders.push(from.runtime().task(async move {
            send(&receiver, 0..MESSAGES, |number| size(pair, number)).await;
        }));
    }
    for sender in senders {
        tokio::time::timeout(Duration::from_mins(2), sender.join()).await.unwrap().unwrap();
    }

    for receiver in receivers {
        let runs = until_came(&receiver, MESSAGES - 1, Duration::from_mins(1)).await;
        assert_eq!(runs, [(0, MESSAGES - 1)]);
    }
    a.stop().await;
    b.stop().await;
}
