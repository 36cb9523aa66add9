//! What a cluster of real processes does, seen through its command line: real sockets, real
//! `kill -9`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use purlin::kinds::{Add, Read};
use purlin_client::{CallError, Client, Credentials, Dest, ExitReason};
use purlin_cluster_tests::process::Cluster;
use serde_json::json;

const SOON: Duration = Duration::from_secs(3);

#[test]
fn three_nodes_find_each_other_from_one_seed_and_the_command_line_shows_them() {
    let cluster = Cluster::default();
    let [a, b, c] = cluster.three();
    assert!(a.ready.starts_with("ready name=a id=a."), "{}", a.ready);

    let members = cluster.json(&c, &["members"]);
    let first = &members.as_array().unwrap()[0];
    for field in ["name", "id", "address", "state", "since_s", "labels"] {
        assert!(first.get(field).is_some(), "members has {field}: {first}");
    }
    let pid = cluster.json(&c, &["spawn", "counter", "--on", "b", "--name", "hits"]);
    assert_eq!(cluster.ok(&c, &["call", "hits@b", "counter.add", "5"]), "5");
    assert_eq!(cluster.ok(&a, &["call", pid["pid"].as_str().unwrap(), "counter.add", "5"]), "10");

    let all = cluster.json(&a, &["ps", "--all"]);
    let hits = all.as_array().unwrap().iter().find(|p| p["name"] == "hits").unwrap();
    for field in
        ["pid", "node", "kind", "name", "mailbox", "handled", "links", "monitors", "uptime_s"]
    {
        assert!(hits.get(field).is_some(), "ps has {field}: {hits}");
    }
    assert_eq!((&hits["node"], &hits["handled"]), (&json!("b"), &json!(2)));
    let status = cluster.json(&b, &["status"]);
    for field in
        ["name", "id", "address", "cluster", "members_up", "processes", "uptime_s", "version"]
    {
        assert!(status.get(field).is_some(), "status has {field}: {status}");
    }
    assert_eq!(status["members_up"], 3);
    let owners: Vec<_> =
        [&a, &b, &c].map(|node| cluster.json(node, &["ring", "user:42"])["owner"].clone()).into();
    assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
    assert_eq!(cluster.json(&a, &["info", "hits@b"])["kind"], "counter");
    assert!(cluster.ok(&a, &["tree", "--on", "b"]).contains("counter"));
    assert!(cluster.ok(&a, &["names", "--on", "b"]).contains("hits"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rust_program_that_is_not_a_node_calls_and_watches() {
    let cluster = Cluster::default();
    let [a, mut b, c] = cluster.three();
    cluster.ok(&c, &["spawn", "counter", "--on", "b", "--name", "hits"]);
    let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
    let client = Client::connect([&c.address, &a.address], credentials).await.unwrap();

    assert_eq!(client.call("hits@b", Add(5)).await, Ok(5));
    client.send("hits@b", Add(5)).await.unwrap();
    assert_eq!(client.call("hits@b", Read).await, Ok(10));
    assert_eq!(client.members().await.unwrap().len(), 3);
    let monitor = client.monitor("hits@b").await.unwrap();
    let nobody = client.monitor("nobody@b").await.unwrap();
    assert_eq!(nobody.down().await.reason, ExitReason::NoProcess);

    b.kill_9();

    let down = tokio::time::timeout(SOON, monitor.down()).await.unwrap();
    assert_eq!((down.target, down.reason), (Dest::from("hits@b"), ExitReason::NoConnection));
    assert_eq!(client.call("hits@b", Read).await, Err(CallError::NoConnection));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_through_another_seed_when_its_node_dies() {
    let cluster = Cluster::default();
    let [a, b, mut c] = cluster.three();
    cluster.ok(&a, &["spawn", "counter", "--on", "b", "--name", "hits"]);
    let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
    let client = Client::connect([&c.address, &a.address], credentials).await.unwrap();
    assert_eq!(client.connected_to().unwrap().to_string(), c.address);

    c.kill_9();

    let begun = Instant::now();
    loop {
        match client.call("hits@b", Add(1)).await {
            Ok(_) => break,
            Err(CallError::NoConnection | CallError::Timeout) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "not reconnected");
    }
    assert_eq!(client.connected_to().unwrap().to_string(), a.address);
    drop(b);
}

#[test]
fn a_killed_node_is_noticed_within_a_second_and_its_next_life_is_a_member_again() {
    let cluster = Cluster::default();
    let [a, mut b, c] = cluster.three();
    let watch = cluster.watch(&a);
    let mut took = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        b.kill_9();
        let event = watch.next("node_down", Duration::from_secs(6));
        took.push(begun.elapsed());
        assert_eq!(event["name"], "b");

        let address = b.address.clone();
        b = cluster.start_at("b", &address, &["--seed", &a.address]);
        cluster.until_up(&a, 3, SOON);
        cluster.until_up(&c, 3, SOON);
    }
    took.sort();
    assert!(took[2] < Duration::from_secs(1), "median of {took:?}");
}

#[test]
fn a_frozen_node_is_declared_down_and_comes_back_by_itself_under_a_new_creation() {
    let cluster = Cluster::default();
    let [a, b, c] = cluster.three();
    let watch = cluster.watch(&a);
    let old = cluster.json(&a, &["spawn", "counter", "7", "--on", "b", "--name", "hits"]);

    let begun = Instant::now();
    b.signal("STOP");
    watch.next("node_down", Duration::from_secs(5) + Duration::from_secs(1));
    let noticed = begun.elapsed();
    std::thread::sleep(Duration::from_secs(2));
    b.signal("CONT");

    assert!(noticed < Duration::from_millis(5500), "{noticed:?}");
    let up = watch.next("node_up", Duration::from_secs(10));
    assert_eq!(up["name"], "b");
    cluster.until_up(&c, 3, Duration::from_secs(10));
    let old_call = cluster.run(&a, &["call", old["pid"].as_str().unwrap(), "counter.read"]);
    assert_eq!(old_call.status.code(), Some(1), "the old pid is dead");
    assert_eq!(cluster.ok(&a, &["call", "hits@b", "counter.read"]), "7");
}

#[test]
fn terminating_a_node_stops_it_in_good_order() {
    let cluster = Cluster::default();
    let [a, mut b, mut c] = cluster.three();
    let watch = cluster.watch(&a);

    b.signal("TERM");
    assert_eq!(b.wait(Duration::from_secs(5)).code(), Some(0));
    watch.until("node_left", "b", SOON);
    cluster.ok(&a, &["leave", "--on", "c"]);
    assert_eq!(c.wait(Duration::from_secs(5)).code(), Some(0));
    watch.until("node_left", "c", SOON);
}

#[test]
fn crashes_and_names_are_watched() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    let watch = cluster.watch(&a);
    cluster.ok(&a, &["spawn", "counter", "9223372036854775807", "--name", "full"]);
    assert_eq!(watch.next("name_registered", SOON)["name"], "full");

    // With a backtrace of a large binary to be told first, on a busy machine.
    let refused = cluster.run(&a, &["call", "full", "counter.add", "1", "--timeout", "20"]);

    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("the total overflows"), "{text}");
    let crash = watch.next("process_crashed", SOON);
    assert_eq!((&crash["kind"], &crash["name"]), (&json!("counter"), &json!("full")));
    assert!(crash["at"].is_number());
}

#[test]
fn bad_input_gives_a_clear_message_and_the_documented_exit_code() {
    let cluster = Cluster::default();
    let mut a = cluster.start("a", &[]);
    cluster.ok(&a, &["spawn", "counter", "--name", "hits"]);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["call", "hits", "counter.add", "five"], 2, "is not JSON"),
        (&["call", "hits", "counter.add", "\"five\""], 1, "another form"),
        (&["call", "hits", "counter.multiply", "5"], 1, "does not understand"),
        (&["call", "nobody", "counter.add", "5"], 1, "no such process"),
        (&["call", "hits@b", "counter.add", "5"], 1, "not reachable"),
        (&["call", "h its", "counter.add", "5"], 2, "not a destination"),
        (&["spawn", "dragon"], 1, "counter, echo, kv"),
        (&["spawn", "counter", "--on", "b"], 1, "not reachable"),
        (&["spawn", "counter", "{}"], 1, "arguments of another form"),
        (&["spawn", "counter", "--name", "hits"], 1, "taken by"),
        (&["info", "a.1.99"], 1, "no such process"),
        (&["exit", "nobody"], 1, "no such process"),
        (&["members", "--format", "xml"], 2, "invalid value"),
        (&["fly"], 2, "unrecognized subcommand"),
        (&["ps", "--timeout", "soon"], 2, "not a number"),
    ];
    for (args, code, message) in cases {
        let output = cluster.run(&a, args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {text}");
        assert!(text.contains(message), "{args:?}: {text}");
    }
    let nobody = cluster
        .purlin()
        .args(["status", "--at", "127.0.0.1:9", "--timeout", "1"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
    let taken =
        cluster.purlin().args(["start", "--name", "x", "--listen", &a.address]).output().unwrap();
    assert_eq!(taken.status.code(), Some(1));
    assert!(String::from_utf8(taken.stderr).unwrap().contains("in use"));
    let twice = cluster.purlin().args(["start", "--name", "a"]).output().unwrap();
    assert_eq!(twice.status.code(), Some(1));
    assert!(String::from_utf8(twice.stderr).unwrap().contains("already running"));
    assert!(a.is_running());
}

#[test]
fn garbage_at_the_port_and_foreign_certificates_change_nothing() {
    let cluster = Cluster::default();
    let mut a = cluster.start("a", &[]);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..500_usize {
        let first = if n % 2 == 0 { 0xc3 } else { 0x41 };
        let mut garbage: Vec<u8> = (0..n * 3).map(|i| (i * 31 + n).to_le_bytes()[0]).collect();
        garbage.insert(0, first);
        socket.send_to(&garbage, &a.address).unwrap();
    }
    let stranger = Cluster::default();
    let own = stranger.start("s", &["--seed", &a.address]);

    let refused =
        stranger.purlin().args(["status", "--at", &a.address, "--timeout", "3"]).output().unwrap();

    assert_eq!(refused.status.code(), Some(3));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("authority is unknown"), "{text}");
    assert_eq!(cluster.states(&a), [("a".to_owned(), "up".to_owned())]);
    assert_eq!(stranger.states(&own), [("s".to_owned(), "up".to_owned())]);
    assert!(a.is_running());
}

#[test]
fn credentials_that_others_can_read_are_refused_with_the_cure() {
    let cluster = Cluster::default();
    drop(cluster.start("a", &[]));
    let home = cluster.data_dir();
    assert_eq!(home.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let key = home.join("authority.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();

    let refused = cluster.purlin().args(["start", "--name", "a"]).output().unwrap();

    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("chmod 600") && text.contains("authority.key"), "{text}");
}
