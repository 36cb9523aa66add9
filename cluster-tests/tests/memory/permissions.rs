//! What a client may do, and how it is told what it may not: in memory, by the library and by a
//! client that heeds nothing, and as real processes through the command line.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use purlin::kinds::{Add, Counter, Read};
use purlin::prelude::*;
use purlin::proto::admin::{Leave, SYSTEM};
use purlin::proto::session::{Request, Update};
use purlin::proto::{
    Capabilities, Codec, Dest, Frame, GrantedPermissions, MessageName, Payload, Permissions,
    Reference, Refusal,
};
use purlin::{Name, NodeBuilder, NodeId, SpawnError};
use purlin_client::{Client, SpawnOptions};
use purlin_cluster_tests::memory;
use purlin_cluster_tests::process::{Cluster, Node as Process, exits_within};
use purlin_transport::{
    Closed, Config, Credentials, DialError, Endpoint, Events, Flow, Frames, Link, Peer, Priority,
    Receiver, WireConfig,
};
use serde_json::Value;
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(10);

async fn two_nodes() -> memory::Cluster {
    let kinds =
        |builder: NodeBuilder| builder.actor::<Counter>().keyed::<Counter>(purlin::Keyed::new());
    memory::Cluster::start(2, kinds).await
}

async fn client(cluster: &mut memory::Cluster, may: &[&str]) -> Client {
    let credentials = cluster.bound_client("shop".into(), may);
    let seeds = [cluster.nodes[0].address().to_string()];
    let builder = Client::builder(seeds).memory(cluster.network.clone(), cluster.next_address());
    builder.connect(credentials).await.unwrap()
}

async fn forbidden_requests(node: &Node) -> u64 {
    let system = Dest::Local(Name::from(SYSTEM));
    let status = node.call(system, purlin::proto::admin::GetStatus).await.unwrap();
    status.counters.iter().find(|counter| counter.name == "requests.forbidden").unwrap().count
}

fn is_forbidden<T: std::fmt::Debug>(result: Result<T, CallError>, of: &str) {
    match result {
        Err(CallError::Forbidden { what }) => assert_eq!(what, of),
        other => panic!("{other:?}, not forbidden"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_does_what_it_may_and_is_told_what_it_may_not() {
    let mut cluster = two_nodes().await;
    let [a, b] = [0, 1].map(|index: usize| cluster.nodes[index].clone());
    let hits = a.spawn::<Counter>(None).await.unwrap();
    a.runtime().register("hits".into(), hits.pid()).unwrap();
    let bank = b.spawn::<Counter>(Some(100)).await.unwrap();
    b.runtime().register("bank".into(), bank.pid()).unwrap();
    let may = ["call:hits", "send:bank@n1", "call:key:counter/mine-*", "subscribe:news"];
    let shop = client(&mut cluster, &may).await;

    assert_eq!(shop.call("hits", Add(5)).await, Ok(5));
    assert_eq!(
        shop.call(Dest::key("counter", purlin::Key::new("mine-1").unwrap()), Add(2)).await,
        Ok(2)
    );
    shop.send("bank@n1", Add(1)).await.unwrap();
    shop.subscribe("news").await.unwrap();
    assert_eq!(shop.whereis("hits".into(), None).await, Ok(Some(hits.pid())));

    is_forbidden(shop.call("bank@n1", Read).await, "call bank@n1");
    is_forbidden(shop.send("bank", Add(1)).await, "send bank");
    is_forbidden(shop.send(hits.pid(), Add(1)).await, &format!("send {}", hits.pid()));
    is_forbidden(shop.exit("hits", ExitReason::Kill).await, "exit hits");
    is_forbidden(shop.monitor("global:x").await, "monitor global:x");
    is_forbidden(shop.members().await, "call purlin node.members");
    is_forbidden(shop.subscribe("weather").await, "subscribe topic:weather");
    is_forbidden(shop.call(Dest::Local(Name::from(SYSTEM)), Leave).await, "call purlin node.leave");
    let payload = Payload::encode(Codec::Bincode, &0_i64).unwrap();
    let spawned = shop.spawn("counter".into(), payload, SpawnOptions::default()).await;
    assert_eq!(spawned, Err(SpawnError::Forbidden { what: "spawn counter on n0".to_owned() }));

    assert_eq!((hits.call(Read).await, bank.call(Read).await), (Ok(5), Ok(101)));
    assert_eq!(forbidden_requests(&a).await, 9);
    assert_eq!(forbidden_requests(&b).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_of_another_node_is_judged_by_its_kind_there() {
    let mut cluster = two_nodes().await;
    let b = cluster.nodes[1].clone();
    let counter = b.spawn::<Counter>(Some(7)).await.unwrap();
    let system = b.runtime().whereis(&Name::from(SYSTEM)).unwrap();
    let shop = client(&mut cluster, &["call:kind:counter"]).await;

    assert_eq!(shop.call(counter.pid(), Read).await, Ok(7));
    is_forbidden(shop.call(system, Read).await, &format!("call {system}"));
    // What is gone has no kind, and is gone.
    b.exit(counter.pid(), ExitReason::Kill);
    let shop = client(&mut cluster, &["call:kind:counter"]).await;
    assert_eq!(shop.call(counter.pid(), Read).await, Err(CallError::NoProcess));
}

#[tokio::test(start_paused = true)]
async fn without_its_node_the_kind_of_a_process_is_not_known_and_the_call_is_forbidden() {
    let mut cluster = two_nodes().await;
    let [a, b] = [0, 1].map(|index: usize| cluster.nodes[index].clone());
    let counter = b.spawn::<Counter>(Some(7)).await.unwrap();
    let shop = client(&mut cluster, &["call:kind:counter"]).await;
    cluster.cut(&a, &b);

    match shop.call(counter.pid(), Read).await {
        Err(CallError::Forbidden { what }) => assert!(what.contains("cannot be told"), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_do_everything() {
    let mut cluster = two_nodes().await;
    let credentials = cluster.credentials("op".into(), purlin::proto::Role::Operator);
    let seeds = [cluster.nodes[0].address().to_string()];
    let builder = Client::builder(seeds).memory(cluster.network.clone(), cluster.next_address());
    let operator = builder.connect(credentials).await.unwrap();

    assert_eq!(operator.members().await.unwrap().len(), 2);
    let payload = Payload::encode(Codec::Bincode, &None::<i64>).unwrap();
    let pid = operator.spawn("counter".into(), payload, SpawnOptions::default()).await.unwrap();
    operator.exit(pid, ExitReason::Kill).await.unwrap();
    operator.call(Dest::Local(Name::from(SYSTEM)), Leave).await.unwrap();
    assert_eq!(forbidden_requests(&cluster.nodes[0]).await, 0);
}

/// A client of another make, which heeds no permissions.
struct Rogue(mpsc::UnboundedSender<Update>);

impl Events for Rogue {
    fn admit(&self, _: &Peer) -> Result<(), Refusal> {
        Ok(())
    }

    fn up(&self, _: &Link) -> Arc<dyn Receiver> {
        Arc::new(Self(self.0.clone()))
    }

    fn down(&self, _: &Link, _: &Closed) {}

    fn unreachable(&self, _: NodeId, _: std::net::SocketAddr, _: &DialError) {}

    fn unreachable_hint(&self, _: std::net::SocketAddr) {}
}

impl Receiver for Rogue {
    fn frames(&self, frames: &Frames<'_>) {
        for (_, frame) in frames.owned() {
            if let Ok(Frame::Update(update)) = Frame::decode(frame) {
                drop(self.0.send(update));
            }
        }
    }

    fn control(&self, _: Bytes) {}

    fn datagram(&self, _: Bytes) {}
}

async fn rogue(
    cluster: &mut memory::Cluster,
    credentials: Credentials,
) -> (Endpoint, Link, mpsc::UnboundedReceiver<Update>) {
    rogue_with(cluster, credentials, Capabilities::default()).await
}

async fn rogue_with(
    cluster: &mut memory::Cluster,
    credentials: Credentials,
    capabilities: Capabilities,
) -> (Endpoint, Link, mpsc::UnboundedReceiver<Update>) {
    let (tell, told) = mpsc::unbounded_channel();
    let address = cluster.next_address();
    let wire = WireConfig::Memory { network: cluster.network.clone(), address };
    let mut config = Config::new(credentials, Name::from("purlin"));
    config.capabilities = capabilities;
    let endpoint = Endpoint::bind(config, wire, Arc::new(Rogue(tell))).unwrap();
    let link = endpoint.dial(cluster.nodes[0].address(), None).await.unwrap();
    (endpoint, link, told)
}

#[tokio::test(start_paused = true)]
async fn the_node_judges_whatever_the_client_thinks() {
    let mut cluster = two_nodes().await;
    let a = cluster.nodes[0].clone();
    let hits = a.spawn::<Counter>(None).await.unwrap();
    a.runtime().register("hits".into(), hits.pid()).unwrap();
    let credentials = cluster.bound_client("shop".into(), &["call:other"]);
    let (_endpoint, link, mut told) = rogue(&mut cluster, credentials).await;
    let to = Dest::from("hits");
    let message = MessageName::of::<Add>();
    let payload = Payload::encode(Codec::Bincode, &Add(1)).unwrap();
    let requests = [
        Request::Send { to: to.clone(), message: message.clone(), payload: payload.clone() },
        Request::Call {
            reference: Reference(1),
            to: to.clone(),
            remaining: SOON,
            message,
            payload: payload.clone(),
        },
        Request::Monitor { reference: Reference(2), target: to.clone() },
        Request::Exit { target: to, reason: ExitReason::Kill },
        Request::Spawn {
            reference: Reference(3),
            kind: "counter".into(),
            args: payload,
            name: None,
            on: None,
            remaining: SOON,
        },
    ];
    for request in requests {
        let frame = Frame::Request(request);
        link.send(Flow(0), Priority::User, &mut |out| frame.encode(out).is_ok());
    }

    let mut answers = Vec::new();
    for _ in 0..6 {
        let update = tokio::time::timeout(SOON, told.recv()).await.unwrap().unwrap();
        answers.push(match update {
            Update::Welcome { .. } => "welcome",
            Update::Forbidden { .. } => "forbidden",
            Update::Reply { result: Err(CallError::Forbidden { .. }), .. } => "no reply",
            Update::Spawned { result: Err(SpawnError::Forbidden { .. }), .. } => "not spawned",
            Update::Down(down) => match down.reason.to_string().contains("forbidden: ") {
                true => "not monitored",
                false => panic!("{down:?}"),
            },
            other => panic!("{other:?}"),
        });
    }
    answers.sort_unstable();
    let expected =
        ["forbidden", "forbidden", "no reply", "not monitored", "not spawned", "welcome"];
    assert_eq!(answers, expected);
    assert_eq!(hits.call(Read).await, Ok(0));
    assert_eq!(forbidden_requests(&a).await, 5);
}

fn granted(clients: &str, may: &[&str]) -> GrantedPermissions {
    let may = may.iter().map(|text| text.parse().unwrap()).collect();
    let mut granted = GrantedPermissions::default();
    granted.add(clients, Permissions::new(may).unwrap()).unwrap();
    granted
}

/// Node n0 has a say of its own about clients, n1 has none.
async fn one_that_grants(clients: &str, may: &[&str]) -> memory::Cluster {
    let mut cluster = memory::Cluster::empty();
    let clients = granted(clients, may);
    cluster.join("n0", |builder| builder.actor::<Counter>().clients(clients.clone())).await;
    cluster.join("n1", purlin::NodeBuilder::actor::<Counter>).await;
    cluster.until_all_see(2).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn the_config_of_a_node_has_the_last_word_on_its_clients() {
    let mut cluster = one_that_grants("sh*", &["send:hits", "read"]).await;
    let [a, b] = [0, 1].map(|index: usize| cluster.nodes[index].clone());
    for node in [&a, &b] {
        let hits = node.spawn::<Counter>(None).await.unwrap();
        node.runtime().register("hits".into(), hits.pid()).unwrap();
    }
    let credentials = cluster.bound_client("shop".into(), &["call:hits", "spawn:counter"]);
    let seeds = [a.address().to_string(), b.address().to_string()];
    let builder = Client::builder(seeds).memory(cluster.network.clone(), cluster.next_address());
    let shop = builder.connect(credentials).await.unwrap();

    // Given: the library knows that it may, or this would be an error.
    shop.send("hits", Add(1)).await.unwrap();
    assert_eq!(shop.members().await.unwrap().len(), 2);
    // Taken.
    is_forbidden(shop.call("hits", Read).await, "call hits");
    let payload = Payload::encode(Codec::Bincode, &0_i64).unwrap();
    let spawned = shop.spawn("counter".into(), payload, SpawnOptions::default()).await;
    assert_eq!(spawned, Err(SpawnError::Forbidden { what: "spawn counter on n0".to_owned() }));
    is_forbidden(shop.exit("hits", ExitReason::Kill).await, "exit hits");

    // Of others the certificate counts,
    let other = cluster.bound_client("bank".into(), &["call:hits"]);
    let seeds = [a.address().to_string()];
    let builder = Client::builder(seeds).memory(cluster.network.clone(), cluster.next_address());
    let bank = builder.connect(other).await.unwrap();
    assert_eq!(bank.call("hits", Read).await, Ok(1));
    is_forbidden(bank.members().await, "call purlin node.members");

    // and on other nodes: of the client that has moved there, too.
    a.stop().await;
    let moved = async {
        while shop.connected_to() != Some(b.address()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, moved).await.unwrap();
    assert_eq!(shop.call("hits", Add(7)).await, Ok(7));
    is_forbidden(shop.members().await, "call purlin node.members");
    shop.send("hits", Add(1)).await.unwrap();
    is_forbidden(shop.send("topic:x", Add(1)).await, "send topic:x");
}

#[tokio::test(start_paused = true)]
async fn what_counts_instead_of_its_certificate_is_told_to_who_understands_it() {
    let mut cluster = one_that_grants("shop", &["read"]).await;
    let first = [
        ("shop", Capabilities::PERMITTED, true),
        ("shop", Capabilities::default(), false),
        ("bank", Capabilities::PERMITTED, false),
    ];
    for (name, capabilities, is_told) in first {
        let credentials = cluster.bound_client(name.into(), &["call:hits"]);
        let (_endpoint, _, mut told) = rogue_with(&mut cluster, credentials, capabilities).await;

        let first = tokio::time::timeout(SOON, told.recv()).await.unwrap().unwrap();
        match first {
            Update::Permitted { may } => assert_eq!((is_told, may), (true, vec!["read".into()])),
            Update::Welcome { .. } => assert!(!is_told, "{name} is told nothing"),
            other => panic!("{other:?}"),
        }
    }
}

// ----- real processes -----

#[test]
fn the_config_file_of_a_node_says_what_clients_may_do() {
    let cluster = Cluster::default();
    let settings = tempfile::tempdir().unwrap();
    let file = settings.path().join("purlin.toml");
    std::fs::write(&file, "[clients]\n\"sh*\" = [\"call:bank\"]\n").unwrap();
    let config = file.to_str().unwrap();
    let a = cluster.start("a", &["--config", config]);
    cluster.ok(&a, &["spawn", "counter", "--name", "hits"]);
    cluster.ok(&a, &["spawn", "counter", "--name", "bank"]);
    let shop = joined(&cluster, &a, &["call:hits"]);

    assert_eq!(shop.ok(&a, &["call", "bank", "counter.add", "5"]), "5");
    let said = refused(&shop, &a, &["call", "hits", "counter.add", "5"]);
    assert!(said.contains("call hits"), "{said}");

    std::fs::write(&file, "[clients]\n\"sh*\" = [\"cal:bank\"]\n").unwrap();
    let bad = cluster.purlin().args(["start", "--name", "b", "--config", config]).output().unwrap();
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert_eq!(bad.status.code(), Some(2), "{said}");
    assert!(said.contains("purlin.toml: clients.\"sh*\": \"cal:bank\" is not"), "{said}");
}

/// Makes a token for a client and joins with it.
fn joined(cluster: &Cluster, node: &Process, may: &[&str]) -> Cluster {
    let mut create = cluster.purlin();
    create.args(["token", "create", "--role", "client", "--format", "json"]);
    for may in may {
        create.args(["--may", may]);
    }
    let made = create.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let elsewhere = Cluster::default();
    let mut join = elsewhere.purlin();
    join.env("PURLIN_TOKEN", made["token"].as_str().unwrap());
    let joined = join.args(["join", "--seed", &node.address, "--name", "shop"]).output().unwrap();
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    elsewhere
}

fn refused(client: &Cluster, node: &Process, args: &[&str]) -> String {
    let output = client.run(node, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    said
}

#[test]
fn a_client_with_few_permissions_is_told_by_the_command_line_what_it_may_not() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address]);
    cluster.until_up(&a, 2, SOON);
    cluster.ok(&a, &["spawn", "counter", "--name", "hits", "--on", "b"]);
    cluster.ok(&a, &["spawn", "counter", "--global", "bank"]);
    let shop = joined(&cluster, &a, &["call:hits@b", "send:topic:*", "spawn:kv"]);

    assert_eq!(shop.ok(&a, &["call", "hits@b", "counter.add", "5"]), "5");
    shop.ok(&b, &["publish", "news", "paper.news", "1"]);
    assert!(shop.ok(&b, &["spawn", "kv"]).starts_with("b."));
    for (args, what) in [
        (&["call", "global:bank", "counter.add", "1"][..], "call global:bank"),
        (&["send", "global:bank", "counter.add", "1"], "send global:bank"),
        (&["spawn", "counter"], "spawn counter on a"),
        (&["members"], "call purlin node.members"),
        (&["leave"], "call purlin node.leave"),
        (&["exit", "hits@b"], "node.process"),
    ] {
        let said = refused(&shop, &a, args);
        assert!(said.contains("forbidden: ") && said.contains(what), "{said}");
        assert!(said.contains("`purlin cert show` shows"), "{said}");
    }
    assert_eq!(cluster.ok(&a, &["call", "global:bank", "counter.read"]), "0");
    let log = a.until_logged("forbidden", SOON);
    assert!(log.contains("WARN") && log.contains("client=shop"), "{log}");
    let table = cluster.ok(&a, &["status"]);
    assert!(table.contains("requests.forbidden"), "{table}");
}

#[test]
fn what_a_token_allows_is_checked_when_it_is_made() {
    let cluster = Cluster::default();
    drop(cluster.start("a", &[]));
    for (args, why) in [
        (&["--role", "client"][..], "a client may do only what --may says"),
        (&["--role", "operator", "--may", "read"], "not bound by permissions"),
        (&["--role", "client", "--may", "fly:moon"], "is not a permission"),
        (&["--role", "client", "--may", "call:moon:1"], "a target is NAME"),
    ] {
        let mut create = cluster.purlin();
        let mut child = create
            .args(["token", "create"])
            .args(args)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let status = exits_within(&mut child, SOON);
        let said = child.wait_with_output().unwrap().stderr;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!((status.code(), said.contains(why)), (Some(2), true), "{said}");
    }
}
