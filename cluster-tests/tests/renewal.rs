//! Certificates that are made anew while everything runs, and those that are not in time: real
//! processes of several data directories, as if of several machines.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use purlin::proto::{Name, NodeId, Refusal};
use purlin_cluster_tests::process::{Cluster, Node};
use purlin_transport::{
    Closed, Config, Credentials, DialError, Endpoint, Environment, Events, Frames, Link,
    NODE_DNS_NAME, Peer, Receiver, WireConfig,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_hours(24);

fn token(cluster: &Cluster, more: &[&str]) -> String {
    let made = cluster.purlin().args(["token", "create", "--format", "json"]).args(more).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

fn joined(cluster: &Cluster, node: &Node, role: &[&str]) -> Cluster {
    let elsewhere = Cluster::default();
    let mut join = elsewhere.purlin();
    join.env("PURLIN_TOKEN", token(cluster, role));
    let joined = join.args(["join", "--seed", &node.address, "--name", "laptop"]).output().unwrap();
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    elsewhere
}

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

/// Puts another certificate for the same key into a data directory, one with this URI and end.
fn replace(authority: &Cluster, dir: &Path, stem: &str, uri: &str, end: SystemTime) {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let home = authority.data_dir();
    let signer = KeyPair::from_pem(&read(&home.join("authority.key"))).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read(&home.join("authority.pem")), signer).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_before = (end - 365 * DAY).into();
    params.not_after = end.into();
    let dns = NODE_DNS_NAME.to_owned().try_into().unwrap();
    params.subject_alt_names =
        vec![SanType::URI(uri.to_owned().try_into().unwrap()), SanType::DnsName(dns)];
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
    replace(&cluster, &second.data_dir(), "nodes/b/node", "purlin:node:b", end);
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
    replace(&cluster, &second.data_dir(), "nodes/b/node", "purlin:node:b", end);

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
    replace(&cluster, &second.data_dir(), "nodes/b/node", "purlin:node:b", end);
    replace(&cluster, &laptop.data_dir(), "client", "purlin:client:laptop", end);

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
