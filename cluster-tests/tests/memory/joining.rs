//! Coming together: seeds that are not there yet, names with several addresses, and nodes that wait
//! for the others.
//!
//! On the network in memory and on paused time.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use purlin::kinds::{Counter, Read};
use purlin::proto::Role;
use purlin::proto::admin::{GetStatus, SYSTEM, SeedInfo, Status};
use purlin::{
    CallError, ChildSpec, Dest, Name, Node, NodeBuilder, Placement, Strategy, Supervisor,
};
use purlin_cluster_tests::memory::{Cluster, until_sees};
use tokio::task::JoinSet;

async fn status(of: &Node) -> Status {
    of.call(Dest::Local(Name::new(SYSTEM).unwrap()), GetStatus).await.unwrap()
}

fn builder(cluster: &Cluster, name: &'static str, at: SocketAddr) -> NodeBuilder {
    let credentials = cluster.credentials(name.into(), Role::Node);
    Node::builder().name(name).memory(cluster.network.clone(), at, credentials)
}

/// Names that a test may give other addresses.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>);

impl Names {
    fn set(&self, name: &str, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.0.lock().unwrap().insert(name.to_owned(), addresses.into_iter().collect());
    }

    fn resolver(&self) -> purlin::SeedResolver {
        let names = self.clone();
        Arc::new(move |name| {
            let found = names.0.lock().unwrap().get(&name).cloned();
            Box::pin(async move { found.ok_or_else(|| std::io::Error::other("no such name")) })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_ready_when_it_sees_as_many_as_it_expects_and_not_before() {
    let mut cluster = Cluster::empty();
    let [at_a, at_b, at_c, at_d] = std::array::from_fn(|_| cluster.next_address());
    let expecting = |name: &'static str, at| {
        let tree = Supervisor::new(Strategy::OneForOne)
            .child(ChildSpec::actor::<Counter>("hits", None).name("hits"));
        let builder = builder(&cluster, name, at).seed(at_a.to_string());
        builder.expect(4).application("app", tree).start()
    };
    let waiting: JoinSet<_> = [expecting("a", at_a), expecting("b", at_b)].into_iter().collect();
    let c = builder(&cluster, "c", at_c).seed(at_b.to_string()).start().await.unwrap();
    until_sees(&c, 3).await;

    tokio::time::sleep(Duration::from_mins(2)).await;
    let of_a: Dest = "purlin@a".into();
    let found = c.call(of_a.clone(), GetStatus).await.unwrap();
    assert_eq!((found.expects, found.members_up, found.ready), (4, 3, false));
    assert_eq!(c.call("hits@a", Read).await, Err(CallError::NoProcess), "nothing runs yet");

    let _d = builder(&cluster, "d", at_d).seed(at_c.to_string()).start().await.unwrap();
    let ready = tokio::time::timeout(Duration::from_secs(10), waiting.join_all()).await.unwrap();
    assert!(ready.iter().all(Result::is_ok));
    assert!(c.call(of_a, GetStatus).await.unwrap().ready);
    assert_eq!(c.call("hits@a", Read).await, Ok(0));
    assert_eq!(status(&c).await.expects, 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_seeds_cannot_be_reached_goes_on_and_joins_when_they_can() {
    let mut cluster = Cluster::empty();
    let [seed, own] = std::array::from_fn(|_| cluster.next_address());
    let names = Names::default();
    let b = builder(&cluster, "b", own)
        .seed(seed.to_string())
        .seed("nowhere:1")
        .seed_resolver(names.resolver())
        .start()
        .await
        .unwrap();
    names.set(&seed.to_string(), [seed]);

    tokio::time::sleep(Duration::from_mins(10)).await;
    let found = status(&b).await;
    assert!(found.ready, "alone it is ready as well");
    let [SeedInfo { answers: false, addresses, error: Some(why), .. }, nowhere] = &found.seeds[..]
    else {
        panic!("{:?}", found.seeds)
    };
    assert_eq!(*addresses, [seed]);
    assert!(why.contains("no answer"), "{why}");
    assert!(nowhere.error.as_ref().unwrap().contains("no such name"), "{nowhere:?}");

    let a = builder(&cluster, "a", seed).start().await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), until_sees(&b, 2)).await.unwrap();
    until_sees(&a, 2).await;
    assert!(status(&b).await.seeds[0].answers);
}

#[tokio::test(start_paused = true)]
async fn every_address_of_a_name_is_tried_and_a_name_may_come_to_have_others() {
    let mut cluster = Cluster::empty();
    let [dead, alive, later, own] = std::array::from_fn(|_| cluster.next_address());
    let names = Names::default();
    // As a headless service: everybody is there, this node too.
    names.set("everyone:7400", [own, dead, alive]);
    let _a = builder(&cluster, "a", alive).start().await.unwrap();
    let c = builder(&cluster, "c", later).start().await.unwrap();

    let b = builder(&cluster, "b", own).seed("everyone:7400").seed_resolver(names.resolver());
    let b = b.start().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), until_sees(&b, 2)).await.unwrap();

    names.set("everyone:7400", [own, later]);
    tokio::time::timeout(Duration::from_mins(1), until_sees(&b, 3)).await.unwrap();
    until_sees(&c, 3).await;
    assert_eq!(status(&b).await.seeds[0].addresses, [later, own]);
}

#[tokio::test(start_paused = true)]
async fn processes_start_on_members_with_the_labels_asked_for() {
    let mut cluster = Cluster::empty();
    let zones = [("a", "eu"), ("b", "eu"), ("c", "ap")];
    for (name, zone) in zones {
        let of_kind = |b: NodeBuilder| b.actor::<Counter>().label("zone", zone).label("disk", name);
        cluster.join(name, of_kind).await;
    }
    cluster.until_all_see(3).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let spawned_on = async |placement: &str| {
        let placement = placement.parse::<Placement>().unwrap();
        c.spawn_where::<Counter>(&placement, None).await.map(|hits| hits.pid().node)
    };
    // Labels come with the state that is exchanged, after a member is known to be up.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let first = spawned_on("label:zone=eu").await.unwrap();
    let second = spawned_on("label:zone=eu").await.unwrap();
    assert_eq!(BTreeSet::from([first, second]), BTreeSet::from([a.id(), b.id()]), "in turn");
    assert_eq!(spawned_on("label:zone=eu,disk=b").await, Ok(b.id()));
    assert_eq!(spawned_on("label:zone=ap").await, Ok(c.id()), "here as well");
    assert_eq!(spawned_on("b").await, Ok(b.id()));

    let none = spawned_on("label:zone=us").await.unwrap_err().to_string();
    assert!(none.contains("label:zone=us") && none.contains("zone=ap, zone=eu"), "{none}");

    a.stop().await;
    until_sees(c, 2).await;
    for _ in 0..3 {
        assert_eq!(spawned_on("label:zone=eu").await, Ok(b.id()), "only on those that are up");
    }
}
