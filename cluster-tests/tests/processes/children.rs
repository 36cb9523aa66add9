//! Children of cluster supervisors on real processes, through the command line and a client.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use purlin::kinds::{Add, Read};
use purlin_client::{Client, Credentials, Dest};
use purlin_cluster_tests::process::{Cluster, Node};
use serde_json::{Value, json};

/// `detect_in` is 5 s.
const SOON: Duration = Duration::from_secs(10);

/// Waits until a node shows children as wanted.
fn until(cluster: &Cluster, at: &Node, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let list = cluster.json(at, &["tree", "--cluster"]);
        let list = list.as_array().unwrap();
        if wanted(list) {
            return list.clone();
        }
        assert!(begun.elapsed() < SOON, "at {}: {list:#?}", at.name);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn all_run(list: &[Value], count: usize) -> bool {
    list.len() == count && list.iter().all(|child| child["state"] == "running")
}

#[test]
fn children_are_started_shown_called_and_stopped() {
    let cluster = Cluster::default();
    let [a, b, c] = cluster.three();
    assert_eq!(cluster.ok(&a, &["tree", "--cluster", "--format", "json"]), "[]");
    let start = ["child", "start", "jobs/hits", "counter", "10", "--available"];
    assert_eq!(cluster.ok(&a, &start), "jobs/hits new");
    until(&cluster, &b, |list| all_run(list, 1));
    assert_eq!(cluster.ok(&c, &start), "jobs/hits running");
    assert_eq!(cluster.ok(&b, &["call", "child:jobs/hits", "counter.add", "5"]), "15");

    let shown = cluster.ok(&c, &["tree", "--cluster"]);
    assert!(shown.contains("jobs") && shown.contains("1 of 1"), "{shown}");
    assert!(shown.contains("└─ hits") && shown.contains("asked for"), "{shown}");
    let why = cluster.ok(&c, &["why", "child:jobs/hits"]);
    assert!(why.contains("because: asked for") && why.contains("runs on"), "{why}");
    let why = cluster.json(&c, &["why", "child:jobs/hits"]);
    assert_eq!(why["info"]["child"], json!("jobs/hits"));
    assert_eq!(why["placement"], json!("ring"));

    let pid = why["info"]["pid"].as_str().unwrap().to_owned();
    cluster.ok(&a, &["exit", &pid, "--kill"]);
    let again = until(&cluster, &a, |list| all_run(list, 1) && list[0]["restarts"] == 1);
    assert!(again[0]["why"].as_str().unwrap().contains("killed"), "{again:?}");

    let other = ["child", "start", "jobs/hits", "echo", "--available"];
    let differs = cluster.run(&a, &other);
    assert_eq!(differs.status.code(), Some(1));
    let error = String::from_utf8_lossy(&differs.stderr).into_owned();
    assert!(error.contains("another plan"), "{error}");
    let usage = cluster.run(&a, &["child", "start", "hits", "counter"]);
    assert_eq!(usage.status.code(), Some(2));

    cluster.ok(&b, &["child", "stop", "jobs/hits"]);
    until(&cluster, &a, <[Value]>::is_empty);
    let unknown = cluster.run(&a, &["why", "child:jobs/other"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn after_kill_9_of_one_of_three_all_children_run_again() {
    let cluster = Cluster::default();
    let [a, b, mut c] = cluster.three();
    for number in 0..20 {
        let child = format!("jobs/{number}");
        cluster.ok(&a, &["child", "start", &child, "counter", "--available"]);
    }
    let before = until(&cluster, &a, |list| all_run(list, 20));
    let on_c = |list: &[Value]| list.iter().filter(|child| child["node"] == "c").count();
    assert!(on_c(&before) > 0);

    c.kill_9();

    let after = until(&cluster, &b, |list| all_run(list, 20) && on_c(list) == 0);
    for (was, is) in before.iter().zip(&after) {
        assert_eq!(was["child"], is["child"]);
        match was["node"] == "c" {
            true => assert!(is["why"].as_str().unwrap().contains("is gone"), "{is}"),
            false => assert_eq!(was["pid"], is["pid"], "it was left alone"),
        }
    }
}

#[tokio::test]
async fn a_client_calls_a_child_and_waits_while_it_is_moved() {
    let cluster = Cluster::default();
    let [a, b, c] = cluster.three();
    let start = ["child", "start", "jobs/hits", "counter", "--available"];
    cluster.ok(&a, &start);
    let list = until(&cluster, &a, |list| all_run(list, 1));
    // The client's own node stays.
    let (there, stays) = match list[0]["node"].as_str().unwrap() {
        "a" => ("a", &b),
        "b" => ("b", &c),
        _ => ("c", &a),
    };
    let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
    let client = Client::connect([stays.address.clone()], credentials).await.unwrap();
    let hits = || Dest::child("jobs", "hits");
    assert_eq!(client.call(hits(), Add(7)).await, Ok(7));

    cluster.ok(stays, &["leave", "--on", there]);
    let begun = Instant::now();
    loop {
        assert_eq!(client.call(hits(), Read).await, Ok(7), "its state goes along");
        let list = cluster.json(stays, &["tree", "--cluster"]);
        if list[0]["state"] == "running" && list[0]["node"] != there {
            break;
        }
        assert!(begun.elapsed() < SOON, "{list:?}");
    }
    assert_eq!(client.call(hits(), Read).await, Ok(7));
    client.close().await;
}
