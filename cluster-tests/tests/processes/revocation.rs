//! Certificates that are revoked while everything runs: real processes of several data directories,
//! as if of several machines.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use purlin_cluster_tests::process::{Cluster, Node, exits_within};
use serde_json::Value;

use crate::joined::{joined, token};

const SOON: Duration = Duration::from_secs(10);

/// Runs a command that must succeed; what it said.
fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn revoke(cluster: &Cluster, node: &Node, whom: &str) -> String {
    let mut command = cluster.purlin();
    command.args(["cert", "revoke", whom, "--at", &node.address]);
    said(command)
}

/// A command of somebody who is refused.
fn refused(elsewhere: &Cluster, node: &Node) -> String {
    let output = elsewhere.run(node, &["members", "--timeout", "2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    said
}

fn until_refused(elsewhere: &Cluster, node: &Node) -> String {
    let begun = Instant::now();
    while elsewhere.run(node, &["members"]).status.success() {
        assert!(begun.elapsed() < SOON, "still let in at {}", node.name);
    }
    refused(elsewhere, node)
}

#[test]
fn a_revoked_clients_connection_is_closed_at_every_member_and_others_go_on() {
    let (cluster, second) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let b = second.start("b", &["--seed", &a.address, "--token", &token(&cluster, &[])]);
    cluster.until_up(&a, 2, SOON);
    let laptop = joined(&cluster, &a, &["--role", "operator"]);
    let _watching = laptop.watch_at(&b.address, &["--on", "b"]);
    cluster.ok(&a, &["spawn", "counter", "--on", "b", "--name", "hits"]);

    // Through the member that laptop is not connected to.
    let text = revoke(&cluster, &a, "operator:laptop");
    let begun = Instant::now();

    assert!(text.contains("told the cluster, 1 of it news"), "{text}");
    let log = b.until_logged("its certificate is revoked", SOON);
    assert!(log.contains("laptop"), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for node in [&a, &b] {
        let why = refused(&laptop, node);
        assert!(why.contains("has been revoked"), "{why}");
    }
    a.until_logged("has been revoked", SOON);
    assert_eq!(cluster.ok(&a, &["call", "hits@b", "counter.add", "5"]), "5");
}

#[test]
fn a_revoked_node_is_cut_off_and_says_why_and_the_others_go_on() {
    let (cluster, second, third) = (Cluster::default(), Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let tokens = token(&cluster, &["--uses", "2"]);
    let b = second.start("b", &["--seed", &a.address, "--token", &tokens]);
    let c = third.start("c", &["--seed", &a.address, "--token", &tokens]);
    cluster.until_up(&a, 3, SOON);
    cluster.until_up(&c, 3, SOON);

    revoke(&cluster, &c, "node:b");
    let begun = Instant::now();

    let log = b.until_logged("this node is shut out", SOON);
    assert!(log.contains("ERROR") && log.contains("has been revoked"), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for node in [&a, &c] {
        cluster.until(node, "b to be down", 2 * SOON, |members| {
            members.iter().any(|member| member["name"] == "b" && member["state"] == "down")
        });
    }
    cluster.ok(&a, &["spawn", "counter", "--on", "c", "--name", "hits"]);
    assert_eq!(cluster.ok(&a, &["call", "hits@c", "counter.add", "5"]), "5");

    // Nor does it come back with the token it had, which is not over.
    drop(b);
    std::fs::remove_file(second.data_dir().join("nodes/b/node.pem")).unwrap();
    let mut again = second.purlin();
    again.env("PURLIN_TOKEN", &tokens);
    again.args(["start", "--name", "b", "--listen", "127.0.0.1:0", "--seed", &a.address]);
    let mut again = again.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(exits_within(&mut again, 2 * SOON).code(), Some(1));
    let text = String::from_utf8(again.wait_with_output().unwrap().stderr).unwrap();
    assert!(text.contains("was revoked"), "{text}");
    // A new token lets it in again.
    let back = second.start("b", &["--seed", &a.address, "--token", &token(&cluster, &[])]);
    cluster.until_up(&a, 3, SOON);
    cluster.until_up(&back, 3, SOON);
}

#[test]
fn a_member_that_was_away_learns_of_it_and_none_forgets_it() {
    let (cluster, second) = (Cluster::default(), Cluster::default());
    let mut a = cluster.start("a", &[]);
    let made = token(&cluster, &[]);
    let mut b = second.start("b", &["--seed", &a.address, "--token", &made]);
    cluster.until_up(&a, 2, SOON);
    let laptop = joined(&cluster, &a, &["--role", "client", "--may", "read"]);
    laptop.ok(&b, &["members"]);
    b.signal("TERM");
    b.wait(SOON);

    revoke(&cluster, &a, "client:laptop");
    let b = second.start_at("b", &b.address, &["--seed", &a.address]);

    cluster.until_up(&a, 2, SOON);
    until_refused(&laptop, &b);
    let address = a.address.clone();
    a.kill_9();
    drop(b);
    // Both from what is on disk, neither knowing the other.
    let a = cluster.start_at("a", &address, &[]);
    let b = second.start("b", &[]);
    for node in [&a, &b] {
        let why = refused(&laptop, node);
        assert!(why.contains("has been revoked"), "{why}");
    }
    // A new certificate of the same name is good.
    let again = joined(&cluster, &a, &["--role", "client", "--may", "read"]);
    again.ok(&a, &["members"]);
}

#[test]
fn what_is_revoked_and_what_is_not_is_shown() {
    let cluster = Cluster::default();
    let show = || -> Value {
        let mut command = cluster.purlin();
        let shown = command.args(["cert", "show", "--format", "json"]).output().unwrap();
        serde_json::from_slice(&shown.stdout).unwrap()
    };
    // Nobody runs that could be told.
    drop(cluster.start("a", &[]));
    let before = show();
    let serial = before["certificates"][0]["serial"].as_str().unwrap().to_owned();
    assert_eq!(before["certificates"][0]["role"], "operator");
    assert_eq!(before["certificates"][1]["name"], "a");
    assert_eq!(before["certificates"][1]["state"], "good");
    let output = cluster.purlin().args(["cert", "revoke", "node:a", &serial]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("no member knows: repeat it with --at"), "{text}");

    let after = show();
    // The command line's own is made anew where the authority's key is.
    assert_ne!(after["certificates"][0]["serial"], serial.as_str());
    assert_eq!(after["certificates"][0]["state"], "good");
    assert_eq!(after["certificates"][1]["state"], "revoked");
    assert_eq!(after["revoked"].as_array().unwrap().len(), 2);
    let table = cluster.purlin().args(["cert", "show"]).output().unwrap().stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("node:a") && table.contains("all made before"), "{table}");
    // It starts with a new one, and heeds what is remembered.
    let a = cluster.start("a", &[]);
    cluster.ok(&a, &["members"]);
    assert_eq!(show()["certificates"][1]["state"], "good");
}

#[test]
fn only_who_has_the_authority_revokes() {
    let (cluster, wrong) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let laptop = joined(&cluster, &a, &["--role", "operator"]);
    let output = laptop.run(&a, &["cert", "revoke", "node:a"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), text.contains("no authority.key")),
        (Some(1), true),
        "{text}"
    );
    let output = wrong.run(&a, &["cert", "revoke", "king:a"]);
    assert_eq!(output.status.code(), Some(2));
}
