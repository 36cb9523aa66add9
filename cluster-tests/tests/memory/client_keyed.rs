//! What a client and processes can do with keys and groups: on the network in memory, on paused time.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Add, Counter};
use purlin::proto::Role;
use purlin::proto::admin::{DropSnapshot, KeepSnapshot, ReleaseKey};
use purlin::{
    CallError, Dest, ExitReason, Key, Keyed, Name, Node, NodeBuilder, Received, Snapshot,
};
use purlin_client::Client;
use purlin_cluster_tests::memory::Cluster;
use purlin_cluster_tests::probe::Probe;

fn kinds(builder: NodeBuilder) -> NodeBuilder {
    builder.stateful::<Counter>(Keyed::available())
}

async fn client(cluster: &mut Cluster) -> Client {
    let credentials = cluster.credentials("client".into(), Role::Operator);
    let seeds = cluster.nodes.iter().map(|node| node.address().to_string());
    let builder = Client::builder(seeds.collect::<Vec<_>>());
    let address = cluster.next_address();
    builder.memory(cluster.network.clone(), address).connect(credentials).await.unwrap()
}

/// A key that this node owns.
fn key_of(node: &Node) -> u64 {
    let kind = Name::new("counter").unwrap();
    let name = node.id().name;
    (0..10_000).find(|key| node.runtime().key_owner(&kind, &Key::from(*key)) == name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_calls_keys_and_is_told_when_a_process_of_one_ends() {
    let mut cluster = Cluster::start(2, kinds).await;
    let client = client(&mut cluster).await;
    for owner in 0..2 {
        let key = Dest::key("counter", key_of(&cluster.nodes[owner]));
        let none = client.monitor(key.clone()).await.unwrap().down().await;
        assert_eq!(none.reason, ExitReason::NoProcess, "a monitor starts nothing");

        assert_eq!(client.call(key.clone(), Add(5)).await, Ok(5));
        let monitor = client.monitor(key.clone()).await.unwrap();
        client.send(key.clone(), Add(1)).await.unwrap();
        assert_eq!(client.call(key.clone(), Add(1)).await, Ok(7));
        let (_, _, pid) = cluster.nodes[owner].runtime().keyed_processes()[0].clone();
        client.exit(pid, ExitReason::Kill).await.unwrap();
        assert_eq!(monitor.down().await.reason, ExitReason::Killed);
        assert_eq!(client.call(key, Add(1)).await, Ok(1), "it was killed, so nothing was saved");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_cannot_take_or_forge_the_state_of_a_key() {
    let mut cluster = Cluster::start(2, kinds).await;
    let client = client(&mut cluster).await;
    let owner = cluster.nodes[1].clone();
    let (kind, key) = (Name::new("counter").unwrap(), Key::from(key_of(&owner)));
    let system = Dest::Remote(Name::new("purlin").unwrap(), owner.id().name);
    let dest = Dest::Key { kind: kind.clone(), key: key.clone() };
    assert_eq!(client.call(dest.clone(), Add(5)).await, Ok(5));

    let release = ReleaseKey { kind: kind.clone(), key: key.clone() };
    let refused = client.call(system.clone(), release).await;
    assert!(matches!(refused, Err(CallError::NotUnderstood { .. })), "{refused:?}");
    let snapshot = Snapshot { at: u64::MAX, version: 0, state: vec![7; 8].into() };
    let keep = KeepSnapshot { kind: kind.clone(), key: key.clone(), snapshot };
    let refused = client.call(system.clone(), keep).await;
    assert!(matches!(refused, Err(CallError::NotUnderstood { .. })), "{refused:?}");
    client.send(system, DropSnapshot { kind, key, at: u64::MAX }).await.unwrap();
    assert_eq!(client.call(dest, Add(1)).await, Ok(6));
}

#[tokio::test(start_paused = true)]
async fn a_process_monitors_a_key_wherever_it_runs_until_it_moves() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let key = Dest::key("counter", key_of(b));
    assert_eq!(a.call(key.clone(), Add(1)).await, Ok(1));
    let target = key.clone();
    let mut watcher = Probe::start(a, |ctx| {
        ctx.monitor(target);
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(watcher.has_nothing());

    b.drain().await;

    let Received::Down(down) = watcher.next().await else { panic!("it has moved") };
    assert_eq!((down.target, down.reason), (key.clone(), ExitReason::Shutdown));
    assert_eq!(a.call(key, Add(1)).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_who_is_in_a_group_and_who_joins_and_leaves() {
    let mut cluster = Cluster::start(2, kinds).await;
    let client = client(&mut cluster).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut empty = client.monitor_group("nobody").await.unwrap();
    assert_eq!(empty.next().await.unwrap().joined, []);

    let first = a.spawn::<Counter>(None).await.unwrap();
    a.runtime().join("counters", first.pid()).unwrap();
    let mut monitor = client.monitor_group("counters").await.unwrap();
    let event = monitor.next().await.unwrap();
    assert_eq!((event.joined, event.left), (vec![first.pid()], vec![]));

    let second = b.spawn::<Counter>(None).await.unwrap();
    b.runtime().join("counters", second.pid()).unwrap();
    let event = monitor.next().await.unwrap();
    assert_eq!((event.joined, event.left), (vec![second.pid()], vec![]));
    a.exit(first.pid(), ExitReason::Kill);
    let event = monitor.next().await.unwrap();
    assert_eq!((event.joined, event.left), (vec![], vec![first.pid()]));

    // What comes and goes while nobody reads is drawn together.
    for _ in 0..3 {
        b.runtime().join("counters", second.pid()).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    b.runtime().leave("counters", second.pid());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let event = monitor.next().await.unwrap();
    assert_eq!((event.joined, event.left), (vec![second.pid(); 2], vec![]));

    client.close().await;
    assert_eq!(monitor.next().await, None);
}
