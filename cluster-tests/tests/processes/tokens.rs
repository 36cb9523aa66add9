//! Joining with tokens: real processes of two data directories, as if of two machines.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use purlin_cluster_tests::process::{Cluster, Node, binary, exits_within};
use serde_json::Value;

use crate::joined::new_token;

const SOON: Duration = Duration::from_secs(10);

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn listed(cluster: &Cluster) -> Vec<Value> {
    let listed = cluster.purlin().args(["token", "list", "--format", "json"]).output().unwrap();
    serde_json::from_slice(&listed.stdout).unwrap()
}

/// Tries to start a node from another directory; it must end by itself.
fn refused(elsewhere: &Cluster, seed: &str, token: &str, name: &str) -> (Option<i32>, String) {
    let mut child = elsewhere
        .purlin()
        .env("PURLIN_TOKEN", token)
        .args(["start", "--name", name, "--listen", "127.0.0.1:0", "--seed", seed])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = exits_within(&mut child, Duration::from_secs(20));
    let output = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn join(elsewhere: &Cluster, seed: &str, token: &str) -> Output {
    let mut command = elsewhere.purlin();
    command.env("PURLIN_TOKEN", token).args(["join", "--seed", seed, "--name", "laptop"]);
    command.output().unwrap()
}

fn start_with_token(elsewhere: &Cluster, name: &str, seed: &Node, token: &str) -> Node {
    elsewhere.start(name, &["--seed", &seed.address, "--token", token])
}

fn counter(cluster: &Cluster, node: &Node, name: &str) -> u64 {
    let status = cluster.json(node, &["status"]);
    let counters = status["counters"].as_array().unwrap().clone();
    counters.iter().find(|c| c["name"] == name).map_or(0, |c| c["count"].as_u64().unwrap())
}

fn files(dir: &Path) -> Vec<String> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    found
}

#[test]
fn a_node_of_another_machine_joins_with_a_token_and_never_sees_the_authoritys_key() {
    let (cluster, elsewhere) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let made = new_token(&cluster, &[]);

    let b = start_with_token(&elsewhere, "b", &a, text(&made["token"]));

    cluster.until_up(&a, 2, SOON);
    a.until_logged("taken in", SOON);
    cluster.ok(&a, &["spawn", "counter", "--on", "b", "--name", "hits"]);
    assert_eq!(cluster.ok(&a, &["call", "hits@b", "counter.add", "5"]), "5");
    assert_eq!(files(&elsewhere.data_dir()), ["authority.pem", "lock", "nodes"]);
    let list = listed(&cluster);
    assert_eq!(
        (&list[0]["state"], &list[0]["joined"][0]["name"]),
        (&"used_up".into(), &"b".into())
    );
    assert_eq!(counter(&cluster, &a, "joins.admitted"), 1);
    drop(b);
}

#[test]
fn a_node_that_has_joined_starts_again_with_the_same_command_and_after_the_token_is_over() {
    let (cluster, elsewhere) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let made = new_token(&cluster, &[]);
    let mut b = start_with_token(&elsewhere, "b", &a, text(&made["token"]));
    cluster.until_up(&a, 2, SOON);
    b.signal("TERM");
    b.wait(SOON);
    let revoked = cluster.purlin().args(["token", "revoke", text(&made["id"])]).output().unwrap();
    assert!(revoked.status.success());

    let again = start_with_token(&elsewhere, "b", &a, text(&made["token"]));
    cluster.until_up(&a, 2, SOON);
    drop(again);
    let without = elsewhere.start("b", &["--seed", &a.address]);
    cluster.until_up(&a, 2, SOON);
    drop(without);
}

#[test]
fn a_member_without_the_key_finds_the_one_whose_token_it_is() {
    let (cluster, second, third) = (Cluster::default(), Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let made = new_token(&cluster, &["--uses", "2"]);
    let b = start_with_token(&second, "b", &a, text(&made["token"]));
    cluster.until_up(&a, 2, SOON);

    let c = start_with_token(&third, "c", &b, text(&made["token"]));

    cluster.until_up(&a, 3, SOON);
    assert_eq!(counter(&cluster, &a, "joins.admitted"), 2);
    b.until_logged("to be signed", SOON);
    drop(c);
}

#[test]
fn a_used_expired_or_revoked_token_is_refused_and_both_sides_say_why() {
    let (cluster, elsewhere) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let used = new_token(&cluster, &["--role", "operator"]);
    assert!(join(&elsewhere, &a.address, text(&used["token"])).status.success());
    let third = Cluster::default();
    let output = join(&third, &a.address, text(&used["token"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.contains("used up")), (Some(1), true), "{said}");
    a.until_logged("used up", SOON);

    let short = new_token(&cluster, &["--ttl", "1s"]);
    std::thread::sleep(Duration::from_millis(1_100));
    let (code, said) = refused(&third, &a.address, text(&short["token"]), "b");
    assert_eq!((code, said.contains("the token expired")), (Some(1), true), "{said}");
    a.until_logged("the token expired", SOON);

    let revoked = new_token(&cluster, &[]);
    let id = text(&revoked["id"]);
    assert!(cluster.purlin().args(["token", "revoke", id]).output().unwrap().status.success());
    let (code, said) = refused(&third, &a.address, text(&revoked["token"]), "b");
    assert_eq!((code, said.contains("was revoked")), (Some(1), true), "{said}");
    a.until_logged("was revoked", SOON);
    assert_eq!(counter(&cluster, &a, "joins.refused"), 3);
    assert!(!third.data_dir().join("authority.pem").exists());
}

#[test]
fn a_token_of_another_cluster_is_told_to_nobody() {
    let (cluster, foreign, elsewhere) =
        (Cluster::default(), Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let other = foreign.start("a", &[]);
    let made = new_token(&foreign, &[]);

    let (code, said) = refused(&elsewhere, &a.address, text(&made["token"]), "b");

    assert_eq!((code, said.contains("was told nothing")), (Some(1), true), "{said}");
    a.until_logged("refuses our certificate", SOON);
    drop(other);
    // And from a directory that has an authority of its own.
    let (code, said) = refused(&cluster, &a.address, text(&made["token"]), "c");
    assert_eq!((code, said.contains("another cluster's authority")), (Some(1), true), "{said}");
}

#[test]
fn a_live_members_name_is_refused_and_the_token_is_still_good() {
    let (cluster, elsewhere) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let made = new_token(&cluster, &[]);
    let made = text(&made["token"]);

    let (code, said) = refused(&elsewhere, &a.address, made, "a");
    assert_eq!((code, said.contains("is taken by a live member")), (Some(1), true), "{said}");

    let b = start_with_token(&elsewhere, "b", &a, made);
    cluster.until_up(&a, 2, SOON);
    drop(b);
}

#[test]
fn what_was_typed_wrong_is_told_before_anybody_is_asked() {
    let (cluster, elsewhere) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let made = new_token(&cluster, &[]);
    let made = text(&made["token"]);
    let typo = made.replace(&made[20..22], "__");
    for (token, why) in
        [(&*typo, "has a typo"), ("nonsense", "not a join token"), (&made[..60], "cut off")]
    {
        let (code, said) = refused(&elsewhere, &a.address, token, "b");
        assert_eq!((code, said.contains(why)), (Some(2), true), "{said}");
        assert!(!said.contains(token), "it is not shown: {said}");
    }
    let output = join(&elsewhere, &a.address, made);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.contains("purlin start")), (Some(2), true), "{said}");
    assert_eq!(counter(&cluster, &a, "joins.refused"), 0);
}

#[test]
fn an_operator_of_another_machine_joins_and_asks() {
    let (cluster, elsewhere) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let made = new_token(&cluster, &["--role", "operator"]);

    let output = join(&elsewhere, &a.address, text(&made["token"]));

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(files(&elsewhere.data_dir()), ["authority.pem", "client.key", "client.pem"]);
    assert_eq!(elsewhere.json(&a, &["members"])[0]["name"], "a");
    // It is no node, and has no authority.
    let started = Command::new(binary())
        .env("PURLIN_HOME", elsewhere.data_dir())
        .args(["start", "--name", "b", "--listen", "127.0.0.1:0", "--seed", &a.address])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert_eq!(
        (started.status.code(), said.contains("join with --token")),
        (Some(1), true),
        "{said}"
    );
    let made = elsewhere.purlin().args(["token", "create"]).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert_eq!((made.status.code(), said.contains("no authority.key")), (Some(1), true), "{said}");
}

#[test]
fn nobody_at_the_seed_is_no_connection() {
    let elsewhere = Cluster::default();
    let cluster = Cluster::default();
    drop(cluster.start("a", &[]));
    let made = new_token(&cluster, &["--role", "operator"]);
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let seed = nobody.local_addr().unwrap().to_string();
    let begun = Instant::now();

    let mut command = elsewhere.purlin();
    command.args(["join", "--seed", &seed, "--timeout", "1", "--token", text(&made["token"])]);
    let output = command.output().unwrap();

    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.contains("no answer")), (Some(3), true), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_crash_of_the_one_that_signs_neither_gives_a_use_nor_costs_one() {
    let cluster = Cluster::default();
    let mut a = cluster.start("a", &[]);
    let made = new_token(&cluster, &["--role", "operator", "--uses", "3"]);
    let homes: Vec<_> = (0..8).map(|_| Cluster::default()).collect();
    let joins: Vec<_> = homes
        .iter()
        .map(|home| {
            let mut command = home.purlin();
            command.env("PURLIN_TOKEN", text(&made["token"]));
            command.args(["join", "--seed", &a.address, "--timeout", "40"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();

    a.until_logged("taken in", SOON);
    a.kill_9();
    let a = cluster.start_at("a", &a.address, &[]);

    let mut joined = 0;
    for mut join in joins {
        let status = exits_within(&mut join, Duration::from_secs(50));
        let output = join.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match status.code() {
            Some(0) => joined += 1,
            Some(1) => assert!(said.contains("used up"), "{said}"),
            other => panic!("{other:?}: {said}"),
        }
    }
    assert_eq!(joined, 3);
    assert_eq!(listed(&cluster)[0]["used"], 3);
    let with: Vec<_> = homes.iter().filter(|h| h.data_dir().join("client.pem").exists()).collect();
    assert_eq!(with.len(), 3);
    assert_eq!(with[0].json(&a, &["members"])[0]["name"], "a");
}
