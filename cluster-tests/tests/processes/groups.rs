//! Groups, topics and global names on real processes, through the command line and a client.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use purlin::kinds::{Add, Read};
use purlin_client::{Client, Credentials, Dest};
use purlin_cluster_tests::process::{Cluster, Node};
use serde_json::{Value, json};

/// Longer than a node waits for a client that has said nothing.
const SOON: Duration = Duration::from_secs(10);

/// Waits until a command prints what is wanted.
fn until(cluster: &Cluster, at: &Node, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let value = cluster.json(at, args);
        if wanted(&value) {
            return value;
        }
        assert!(begun.elapsed() < SOON, "{args:?} at {}: {value}", at.name);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Until these nodes may give and have exclusive names.
fn until_leased<'a>(cluster: &Cluster, nodes: impl IntoIterator<Item = &'a Node>) {
    for node in nodes {
        until(cluster, node, &["status"], |status| status["exclusive"]["lease_s"].is_number());
    }
}

fn is_empty(list: &Value) -> bool {
    list.as_array().unwrap().is_empty()
}

#[test]
fn groups_and_global_names_are_made_listed_and_called_and_go_with_their_node() {
    let cluster = Cluster::default();
    let [a, mut b, c] = cluster.three();
    until_leased(&cluster, [&a, &b, &c]);
    let spawn = ["spawn", "counter", "--group", "counters", "--group", "jobs/all", "--on"];
    let on_b = [&spawn[..], &["b", "--global", "hits"]].concat();
    let pid = cluster.ok(&c, &on_b);
    cluster.ok(&c, &[&spawn[..], &["c"]].concat());

    let groups = until(&cluster, &a, &["groups"], |groups| groups[0]["members"] == 2);
    let counters = json!({ "scope": "pg", "name": "counters", "members": 2, "nodes": ["b", "c"] });
    let all = json!({ "scope": "jobs", "name": "all", "members": 2, "nodes": ["b", "c"] });
    assert_eq!(groups, json!([all, counters]));
    assert!(cluster.ok(&a, &["groups"]).contains("jobs/all"));
    let members = until(&cluster, &a, &["groups", "counters"], |members| !is_empty(members));
    assert_eq!(members[0], json!({ "pid": pid, "node": "b", "joined": 1 }));
    let names = until(&cluster, &a, &["names", "--global"], |names| !is_empty(names));
    assert_eq!((&names[0]["name"], &names[0]["node"]), (&json!("hits"), &json!("b")));
    assert!(cluster.ok(&a, &["names", "--global"]).contains(&pid));

    assert_eq!(cluster.ok(&a, &["call", "global:hits", "counter.add", "5"]), "5");
    cluster.ok(&a, &["send", "group:counters", "counter.add", "10"]);
    let totals: Vec<_> = (0..SOON.as_millis() / 20)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            cluster.ok(&a, &["call", &pid, "counter.read"])
        })
        .take_while(|total| total != "15")
        .collect();
    assert!(totals.iter().all(|total| total == "5"), "{totals:?}");
    assert_eq!(cluster.ok(&a, &["call", "global:hits", "counter.read"]), "15");
    let near = ["call", "group:counters:nearest", "counter.read"];
    assert_eq!(cluster.ok(&c, &near), "10", "the one on the asked node");
    assert_eq!(cluster.json(&a, &["info", "global:hits"])["pid"], json!(pid));

    let taken = cluster.run(&c, &["spawn", "counter", "--global", "hits"]);
    let error = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert_eq!(taken.status.code(), Some(1));
    assert!(error.contains("taken by") && error.contains("it was ended"), "{error}");
    for (target, said) in
        [("group:counters:best", "round-robin"), ("groups:counters", "group:SCOPE/NAME:nearest")]
    {
        let usage = cluster.run(&a, &["send", target, "counter.add", "5"]);
        let error = String::from_utf8_lossy(&usage.stderr).into_owned();
        assert_eq!(usage.status.code(), Some(2), "{error}");
        assert!(error.contains(said), "{error}");
    }

    b.kill_9();

    let members = until(&cluster, &a, &["groups", "counters"], |members| members[0]["node"] != "b");
    assert_eq!(members.as_array().unwrap().len(), 1);
    assert!(is_empty(&cluster.json(&a, &["names", "--global"])));
    // Another node may have to be asked, which was that one a moment ago.
    let begun = Instant::now();
    loop {
        let gone = cluster.run(&a, &["call", "global:hits", "counter.read"]);
        let error = String::from_utf8_lossy(&gone.stderr).into_owned();
        if error.contains("purlin names --global") {
            break;
        }
        assert!(begun.elapsed() < SOON, "{error}");
    }
    cluster.ok(&a, &["exit", "group:counters"]);
    until(&cluster, &a, &["groups"], is_empty);
    assert_eq!(cluster.run(&a, &["exit", "group:counters"]).status.code(), Some(1));
}

#[test]
fn an_exclusive_name_goes_to_another_process_when_its_node_is_lost_and_an_available_one_at_once() {
    let cluster = Cluster::default();
    let [a, mut b, c] = cluster.three();
    until_leased(&cluster, [&a, &b, &c]);
    let pid = cluster.ok(&c, &["spawn", "counter", "--on", "b", "--global", "hits"]);
    cluster.ok(&c, &["spawn", "counter", "--on", "b", "--global", "near", "--available"]);
    let names =
        until(&cluster, &a, &["names", "--global"], |list| list.as_array().unwrap().len() == 2);
    assert_eq!((&names[0]["name"], &names[0]["pid"]), (&json!("hits"), &json!(pid)));
    assert_eq!((&names[1]["name"], &names[1]["fence"]), (&json!("near"), &Value::Null));
    let token = |names: &Value| {
        let part = |of: &str| names[0]["fence"][of].as_u64().unwrap();
        (part("epoch"), part("generation"))
    };
    assert!(cluster.ok(&c, &["names", "--global"]).contains("available"));

    b.kill_9();

    // Nobody gives it before the lease of its node has run out; who asks is told to try again.
    let begun = Instant::now();
    while !cluster.run(&c, &["spawn", "counter", "--global", "hits"]).status.success() {
        assert!(begun.elapsed() < 3 * SOON);
    }
    assert!(begun.elapsed() > Duration::from_secs(1), "before its lease had run out");
    let later = until(&cluster, &a, &["names", "--global"], |list| list[0]["node"] == "c");
    assert!(token(&later) > token(&names), "{later} after {names}");
    assert_eq!(cluster.ok(&a, &["call", "global:hits", "counter.read"]), "0");
}

#[test]
fn what_is_published_on_one_node_is_printed_by_a_subscriber_of_another() {
    let cluster = Cluster::default();
    let [a, b, _c] = cluster.three();
    let mut child = cluster
        .purlin()
        .args(["subscribe", "news", "weather", "--format", "json", "--at", &b.address])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let topics = until(&cluster, &a, &["topics"], |topics| topics[1]["nodes"] == json!(["b"]));
    let news = json!({ "topic": "news", "subscribers": 0, "nodes": ["b"] });
    assert_eq!(topics[0], news);

    for number in 0..3 {
        let body = format!("{{\"number\": {number}}}");
        cluster.ok(&a, &["publish", "news", "paper.news", &body]);
    }
    cluster.ok(&a, &["publish", "weather", "rain"]);

    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let lines = std::io::BufRead::lines(output).take(4);
    let lines: Vec<Value> =
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    // A client each, so in no order among themselves.
    let mut numbers: Vec<_> = lines.iter().filter_map(|l| l["body"]["number"].as_i64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    assert!(lines.contains(&json!({ "message": "rain", "body": null })), "{lines:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    until(&cluster, &a, &["topics"], is_empty);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_global_names_groups_and_topics() {
    let cluster = Cluster::default();
    let [a, b, _c] = cluster.three();
    until_leased(&cluster, [&a, &b]);
    cluster.ok(&a, &["spawn", "counter", "--on", "b", "--global", "hits", "--group", "counters"]);
    let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
    let connect = |node: &Node| Client::connect([node.address.clone()], credentials.clone());
    let (here, there) = (connect(&a).await.unwrap(), connect(&b).await.unwrap());
    let begun = Instant::now();
    while here.whereis_global("hits").await.unwrap().is_none() {
        assert!(begun.elapsed() < SOON);
    }

    assert_eq!(here.call(Dest::global("hits"), Add(5)).await, Ok(5));
    assert_eq!(here.call(Dest::group("counters"), Read).await, Ok(5));
    let hits = there.whereis_global("hits").await.unwrap().unwrap();
    assert_eq!(here.members_of("counters").await.unwrap(), [hits]);
    let monitor = here.monitor(Dest::global("hits")).await.unwrap();

    let mut news = there.subscribe("news").await.unwrap();
    while cluster.json(&a, &["topics"])[0]["nodes"] != json!(["b"]) {
        assert!(begun.elapsed() < SOON);
    }
    for number in 0..100 {
        here.publish("news", Add(number)).await.unwrap();
    }
    for number in 0..100 {
        let Add(got) = news.next::<Add>().await.unwrap().unwrap();
        assert_eq!(got, number, "in order");
    }
    news.unsubscribe().await.unwrap();
    cluster.ok(&b, &["exit", "global:hits"]);
    let down = tokio::time::timeout(SOON, monitor.down()).await.unwrap();
    assert_eq!(down.target, Dest::global("hits"));
    here.close().await;
    there.close().await;
}
