//! What an operator is told of a cluster of real processes, and how it can be told apart.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use purlin_cluster_tests::process::Cluster;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_node_that_expects_others_waits_and_says_so() {
    let cluster = Cluster::default();
    let mut a = cluster.start("a", &["--expect", "2"]);
    assert!(a.ready.starts_with("waiting name=a "), "{}", a.ready);
    let status = cluster.json(&a, &["status"]);
    assert_eq!((&status["ready"], &status["expects"]), (&false.into(), &2.into()));
    let table = cluster.ok(&a, &["status"]);
    assert!(table.contains("no, waiting: sees 1 of 2 members"), "{table}");

    let b = cluster.start("b", &["--seed", &a.address]);
    assert!(a.next_line(SOON).starts_with("ready name=a "));
    assert_eq!(cluster.json(&a, &["status"])["ready"], true);
    assert_eq!(cluster.json(&b, &["status"])["seeds"][0]["answers"], true);

    let mut c = cluster.start("c", &["--expect", "9"]);
    for node in [&mut a, &mut c] {
        node.signal("TERM");
        assert!(node.wait(SOON).success(), "it stops also while it waits");
    }
}

#[test]
fn a_node_whose_seeds_do_not_answer_says_so() {
    let cluster = Cluster::default();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = nobody.local_addr().unwrap().to_string();
    let seeds = ["--seed", &nobody, "--seed", "no-such-host.invalid:7400"];
    let a = cluster.start("a", &seeds);

    // A dial into silence takes 10 s.
    let log = a.until_logged("no seed answers", 3 * SOON);
    assert!(log.contains("WARN") && log.contains(&nobody), "{log}");
    assert!(log.contains("no-such-host.invalid:7400: it does not resolve"), "{log}");
    let status = cluster.json(&a, &["status"]);
    assert_eq!(status["seeds"][1]["answers"], false);
    assert!(status["seeds"][1]["error"].as_str().unwrap().contains("does not resolve"));
    let table = cluster.ok(&a, &["status"]);
    assert!(table.contains("seed no-such-host.invalid:7400  trying on: "), "{table}");
}

#[test]
fn a_process_is_started_on_a_member_with_a_label() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &["--label", "zone=eu"]);
    let b = cluster.start("b", &["--label", "zone=ap", "--seed", &a.address]);
    cluster.until_up(&a, 2, SOON);
    cluster.until(&a, "labels of b", SOON, |members| {
        members.iter().any(|member| member["labels"]["zone"] == "ap")
    });

    let pid = cluster.ok(&a, &["spawn", "counter", "--on", "label:zone=ap", "--name", "hits"]);
    assert!(pid.starts_with("b."), "{pid}");
    assert_eq!(cluster.ok(&b, &["call", "hits@b", "counter.add", "5"]), "5");

    let none = cluster.run(&a, &["spawn", "counter", "--on", "label:zone=us"]);
    assert_eq!(none.status.code(), Some(1));
    let text = String::from_utf8(none.stderr).unwrap();
    assert!(text.contains("label:zone=us") && text.contains("zone=ap, zone=eu"), "{text}");
    let wrong = cluster.run(&a, &["spawn", "counter", "--on", "label:zone"]);
    assert_eq!(wrong.status.code(), Some(2));
}

/// What happened to a node, as one member tells it.
fn told(why: &Value, by: &str) -> Vec<String> {
    let views = why["views"].as_array().unwrap();
    let view = views.iter().find(|view| view["seen_by"] == by).expect(by);
    let events = view["events"].as_array().unwrap().iter();
    events.map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_freeze_is_watched_and_explained_by_all_members() {
    let cluster = Cluster::default();
    let [a, b, mut c] = cluster.three();
    let watch = cluster.watch(&a);
    c.signal("STOP");
    watch.until("node_suspect", "c", SOON);
    c.signal("CONT");
    watch.until("node_alive", "c", SOON);

    let why = cluster.json(&b, &["why", "c"]);
    assert_eq!((&why["node"], &why["silent"]), (&"c".into(), &json!([])));
    let suspected: Vec<_> = ["a", "b"].map(|by| told(&why, by)).concat();
    for event in ["up", "connected", "suspected", "alive"] {
        assert!(suspected.iter().any(|found| found == event), "{event} in {suspected:?}");
    }
    let own = told(&why, "c");
    assert!(own.contains(&"stalled".to_owned()) && own.contains(&"accused".to_owned()), "{own:?}");
    let views = why["views"].as_array().unwrap();
    let longest = views.iter().find(|v| v["seen_by"] == "c").unwrap()["longest_stall_s"].as_f64();
    assert!((0.3..9.0).contains(&longest.unwrap()), "{longest:?}");
    let table = cluster.ok(&a, &["why", "c"]);
    assert!(table.contains("SEEN BY") && table.contains("stalled"), "{table}");

    c.kill_9();
    watch.until("node_down", "c", SOON);
    // Each of the others sees it for itself.
    let begun = Instant::now();
    loop {
        let why = cluster.json(&a, &["why", "c"]);
        if ["a", "b"].iter().all(|by| told(&why, by).contains(&"down".to_owned())) {
            break;
        }
        assert!(begun.elapsed() < SOON, "{why}");
    }
    let unknown = cluster.run(&a, &["why", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn members_shows_the_round_trip_and_the_loss_to_each_peer() {
    let cluster = Cluster::default();
    let [a, _b, _c] = cluster.three();

    let members = cluster.json(&a, &["members"]);
    for member in members.as_array().unwrap() {
        let own = member["name"] == "a";
        assert_eq!(own, member["rtt_ms"].is_null(), "{member}");
        if !own {
            assert!((0.0..500.0).contains(&member["rtt_ms"].as_f64().unwrap()), "{member}");
            assert!((0.0..=1.0).contains(&member["loss"].as_f64().unwrap()), "{member}");
        }
    }
    let table = cluster.ok(&a, &["members"]);
    assert!(table.contains("RTT") && table.contains("ms") && table.contains('%'), "{table}");
}
