//! Certificates that are made anew while everything runs, and those that are not in time: real
//! processes of several data directories, as if of several machines.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use purlin::kinds::Add;
use purlin::proto::admin::{Renew, SYSTEM};
use purlin::proto::{CallError, Dest, Name, NodeId, Refusal};
use purlin_client::Client;
use purlin_cluster_tests::process::{Cluster, Node};
use purlin_transport::{
    Closed, Config, Credentials, DialError, Endpoint, Environment, Events, Frames, Link,
    NODE_DNS_NAME, Peer, Receiver, WireConfig,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use serde_json::Value;

use crate::joined::{joined, token};

const SOON: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_hours(24);

/// The certificates of a data directory, as `purlin cert show` tells.
fn shown(cluster: &Cluster) -> Vec<Value> {
    let shown = cluster.purlin().args(["cert", "show", "--format", "json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    shown["certificates"].as_array().unwrap().clone()
}

fn days_left(expires_ms: &Value) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    (expires_ms.as_i64().unwrap() - i64::try_from(now).unwrap()) / 86_400_000
}

/// Puts another certificate for the same key into a data directory, one with these URIs and end.
fn replace(authority: &Cluster, dir: &Path, stem: &str, uris: &[&str], end: SystemTime) {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let home = authority.data_dir();
    let signer = KeyPair::from_pem(&read(&home.join("authority.key"))).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read(&home.join("authority.pem")), signer).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_before = (end - 365 * DAY).into();
    params.not_after = end.into();
    let dns = NODE_DNS_NAME.to_owned().try_into().unwrap();
    params.subject_alt_names = vec![SanType::DnsName(dns)];
    let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
    params.subject_alt_names.extend(uris);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::from_pem(&read(&dir.join(format!("{stem}.key")))).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    std::fs::write(dir.join(format!("{stem}.pem")), certificate).unwrap();
}

/// The serial of the certificate that a node shows to whoever connects now.
fn serial_shown_by(cluster: &Cluster, node: &Node) -> String {
    let executor = tokio::runtime::Runtime::new().unwrap();
    executor.block_on(async {
        let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
        let config = Config::new(credentials, Name::from("purlin"));
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let wire = WireConfig::Quic { listen, environment: Environment::system() };
        let endpoint = Endpoint::bind(config, wire, Arc::new(Deaf)).unwrap();
        let link = endpoint.dial(node.address.parse().unwrap(), None).await.unwrap();
        link.peer().certified.serial.to_string()
    })
}

struct Deaf;

impl Events for Deaf {
    fn admit(&self, _: &Peer) -> Result<(), Refusal> {
        Ok(())
    }

    fn up(&self, _: &Link) -> Arc<dyn Receiver> {
        Arc::new(Self)
    }

    fn down(&self, _: &Link, _: &Closed) {}

    fn unreachable(&self, _: NodeId, _: SocketAddr, _: &DialError) {}

    fn unreachable_hint(&self, _: SocketAddr) {}
}

impl Receiver for Deaf {
    fn frames(&self, _: &Frames<'_>) {}

    fn control(&self, _: Bytes) {}

    fn datagram(&self, _: Bytes) {}
}

#[test]
fn a_node_without_the_authority_has_its_certificate_made_anew_and_nobody_notices() {
    let (cluster, second) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let made = token(&cluster, &[]);
    let mut b = second.start("b", &["--seed", &a.address, "--token", &made]);
    cluster.until_up(&a, 2, SOON);
    b.signal("TERM");
    b.wait(SOON);
    let end = SystemTime::now() + 20 * DAY + DAY / 2;
    replace(&cluster, &second.data_dir(), "nodes/b/node", &["purlin:node:b"], end);
    let old = shown(&second)[0].clone();
    assert_eq!((days_left(&old["expires_ms"]), &old["state"]), (20, &"expires soon".into()));

    let b = second.start("b", &["--seed", &a.address]);
    cluster.until_up(&a, 2, SOON);
    let watch = cluster.watch(&a);
    b.until_logged("the certificate was made anew", 3 * SOON);

    let new = shown(&second)[0].clone();
    assert_eq!((days_left(&new["expires_ms"]), &new["state"]), (364, &"good".into()));
    assert_ne!(new["serial"], old["serial"]);
    // Whoever connects now sees it, and who has been connected is told when it expires.
    assert_eq!(serial_shown_by(&cluster, &b), new["serial"].as_str().unwrap());
    cluster.until(&a, "b's new certificate", SOON, |members| {
        let b = members.iter().find(|member| member["name"] == "b" && member["state"] == "up");
        b.is_some_and(|b| days_left(&b["certificate_expires_ms"]) == 364)
    });
    let happened = watch.so_far();
    assert!(!happened.iter().any(|event| event["name"] == "b"), "{happened:?}");
    a.until_logged("certificate made anew", SOON);
}

#[test]
fn a_certificate_that_is_soon_over_and_nobody_can_renew_is_warned_of() {
    let (cluster, second) = (Cluster::default(), Cluster::default());
    let mut a = cluster.start("a", &[]);
    let made = token(&cluster, &[]);
    let mut b = second.start("b", &["--seed", &a.address, "--token", &made]);
    cluster.until_up(&a, 2, SOON);
    for node in [&mut a, &mut b] {
        node.signal("TERM");
        node.wait(SOON);
    }
    let end = SystemTime::now() + 12 * DAY + DAY / 2;
    replace(&cluster, &second.data_dir(), "nodes/b/node", &["purlin:node:b"], end);

    let b = second.start("b", &[]);

    let log = b.until_logged("this node's certificate is soon over", SOON);
    assert!(log.contains("WARN") && log.contains("days=12"), "{log}");
    for command in ["members", "status"] {
        let output = cluster.run(&b, &[command]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("warning: the certificate of b expires in 12d"), "{text}");
    }
}

#[test]
fn what_the_command_line_makes_anew_a_running_node_takes_over() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    let before = shown(&cluster);
    assert_eq!(serial_shown_by(&cluster, &a), before[1]["serial"].as_str().unwrap());

    let output = cluster.purlin().args(["cert", "renew"]).output().unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let after = shown(&cluster);
    assert!((0..2).all(|index| before[index]["serial"] != after[index]["serial"]));
    a.until_logged("the certificate was made anew", SOON);
    assert_eq!(serial_shown_by(&cluster, &a), after[1]["serial"].as_str().unwrap());
    cluster.ok(&a, &["members"]);
}

#[test]
fn a_client_has_its_own_made_anew_through_any_member_with_the_same_permissions() {
    let (cluster, second) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let b = second.start("b", &["--seed", &a.address, "--token", &token(&cluster, &[])]);
    cluster.until_up(&a, 2, SOON);
    let laptop = joined(&cluster, &a, &["--role", "client", "--may", "call:hits"]);
    let before = shown(&laptop)[0].clone();

    laptop.ok(&b, &["cert", "renew"]);

    let after = shown(&laptop)[0].clone();
    assert_ne!(before["serial"], after["serial"]);
    assert_eq!((&after["name"], &after["may"]), (&"laptop".into(), &before["may"]));
    let forbidden = laptop.run(&b, &["members"]);
    assert_eq!(forbidden.status.code(), Some(1), "and it still may no more");
}

/// A client's directory whose certificate is over in three weeks.
fn soon_over(cluster: &Cluster, node: &Node) -> Cluster {
    let laptop = joined(cluster, node, &["--role", "client", "--may", "call:hits"]);
    let end = SystemTime::now() + 20 * DAY + DAY / 2;
    let uris = ["purlin:client:laptop", "purlin-may:call:hits"];
    replace(cluster, &laptop.data_dir(), "client", &uris, end);
    laptop
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_has_its_certificate_made_anew_while_it_calls() {
    let (cluster, second) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let b = second.start("b", &["--seed", &a.address, "--token", &token(&cluster, &[])]);
    cluster.until_up(&a, 2, SOON);
    cluster.ok(&a, &["spawn", "counter", "--name", "hits", "--on", "b"]);
    let laptop = soon_over(&cluster, &a);
    let before = shown(&laptop)[0].clone();
    assert_eq!((days_left(&before["expires_ms"]), &before["state"]), (20, &"expires soon".into()));

    // To the member that has no key, which asks the other one.
    let connect = async || {
        let credentials = Credentials::from_dir(laptop.data_dir()).unwrap();
        Client::connect([b.address.clone()], credentials).await.unwrap()
    };
    let client = connect().await;
    let session = client.session();
    let (mut calls, mut after_it) = (0, 0);
    let ends = Instant::now() + 3 * SOON;
    while after_it < 100 {
        calls += 1;
        assert_eq!(client.call("hits", Add(1)).await, Ok(calls));
        let renewed = Credentials::from_dir(laptop.data_dir()).unwrap();
        after_it += u32::from(renewed.is_good_at(SystemTime::now() + 360 * DAY));
        assert!(Instant::now() < ends, "not made anew after {calls} calls");
    }

    assert_eq!(client.session(), session, "it is the same connection");
    let after = shown(&laptop)[0].clone();
    assert_eq!((days_left(&after["expires_ms"]), &after["may"]), (364, &before["may"]));
    a.until_logged("certificate made anew", SOON);
    // The next connection shows it, and it is the only one that was made.
    assert_eq!(connect().await.call("hits", Add(1)).await, Ok(calls + 1));
    assert_eq!(shown(&laptop)[0]["serial"], after["serial"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_keep_its_certificate_goes_on_with_it_until_it_ends() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    cluster.ok(&a, &["spawn", "counter", "--name", "hits"]);
    let laptop = soon_over(&cluster, &a);
    let credentials = Credentials::from_dir(laptop.data_dir()).unwrap();
    std::fs::rename(laptop.data_dir(), laptop.data_dir().with_extension("moved")).unwrap();

    let client = Client::connect([a.address.clone()], credentials).await.unwrap();

    a.until_logged("certificate made anew", SOON);
    assert_eq!(client.call("hits", Add(1)).await, Ok(1));
    assert!(!laptop.data_dir().exists(), "what is gone is not made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_its_certificate_too_often_has_to_wait_and_others_do_not() {
    let (cluster, second) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let b = second.start("b", &["--seed", &a.address, "--token", &token(&cluster, &[])]);
    cluster.until_up(&a, 2, SOON);
    let laptop = joined(&cluster, &a, &["--role", "client", "--may", "call:hits"]);
    let credentials = Credentials::from_dir(laptop.data_dir()).unwrap();
    let ask = async |client: &Client| {
        let request = credentials.renewal_request().unwrap();
        let certificate = credentials.certified().der.to_vec();
        let ask = Renew { certificate, request, forwarded: false };
        client.call(Dest::Local(Name::from(SYSTEM)), ask).await
    };
    let connect = async |to: &Node, from: &Cluster| {
        let credentials = Credentials::from_dir(from.data_dir()).unwrap();
        Client::connect([to.address.clone()], credentials).await.unwrap()
    };
    // As many as a client has on one node; another connection is the same client.
    let (first, again) = (connect(&a, &laptop).await, connect(&a, &laptop).await);
    for _ in 0..8 {
        for client in [&first, &again] {
            assert!(ask(client).await.unwrap().is_ok());
        }
    }

    assert_eq!(ask(&first).await, Err(CallError::Overloaded));
    assert_eq!(ask(&again).await, Err(CallError::Overloaded));

    // Through another node it comes to an end where it is signed.
    let elsewhere = connect(&b, &laptop).await;
    let mut made = 0;
    let why = loop {
        match ask(&elsewhere).await.unwrap() {
            Ok(_) => made += 1,
            Err(why) => break why,
        }
        assert!(made <= 10, "made {made} times more");
    };
    assert!(why.contains("too often"), "{why}");

    // Everybody else may ask, and this client may do what it may.
    let operator = connect(&a, &cluster).await;
    let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
    let request = credentials.renewal_request().unwrap();
    let certificate = credentials.certified().der.to_vec();
    let ask = Renew { certificate, request, forwarded: false };
    assert!(operator.call(Dest::Local(Name::from(SYSTEM)), ask).await.unwrap().is_ok());
    let status = operator.status().await.unwrap();
    let refused = status.counters.iter().find(|count| count.name == "requests.renewals_refused");
    assert_eq!(refused.unwrap().count, 2);
    assert_eq!(first.call("hits", Add(1)).await, Err(CallError::NoProcess));
}

#[test]
fn an_expired_certificate_is_said_to_be_by_both_sides() {
    let (cluster, second) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let laptop = joined(&cluster, &a, &["--role", "client", "--may", "read"]);
    let mut b = second.start("b", &["--seed", &a.address, "--token", &token(&cluster, &[])]);
    cluster.until_up(&a, 2, SOON);
    b.signal("TERM");
    b.wait(SOON);
    let end = SystemTime::now() - DAY;
    replace(&cluster, &second.data_dir(), "nodes/b/node", &["purlin:node:b"], end);
    replace(&cluster, &laptop.data_dir(), "client", &["purlin:client:laptop"], end);

    let output = laptop.run(&a, &["members"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("refuses our certificate: it has expired"), "{text}");
    a.until_logged("it has expired", SOON);
    assert_eq!(shown(&laptop)[0]["state"], "expired");

    // It starts, and is alone.
    let b = second.start("b", &["--seed", &a.address]);
    b.until_logged("refuses our certificate: it has expired", SOON);
    drop(b);
    // With a new token it comes back.
    let made = token(&cluster, &[]);
    let b = second.start("b", &["--seed", &a.address, "--token", &made]);
    cluster.until_up(&b, 2, SOON);
}
