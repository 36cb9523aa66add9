//! The command line and the client on real processes where something around them is awkward: silent
//! seeds, frozen members, closed pipes, second signals, credentials of a client alone.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use purlin_client::{Client, Credentials, ExitReason};
use purlin_cluster_tests::process::{Cluster, exits_within};

const SOON: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn silent_seeds_do_not_hide_one_that_answers() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    // Bound, so that there is no hint either, and never read.
    let silent: Vec<_> = (0..4).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let silent = silent.iter().map(|socket| socket.local_addr().unwrap().to_string());
    let seeds: Vec<_> = silent.chain(["nowhere.invalid:1".to_owned(), a.address.clone()]).collect();
    let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();

    let begun = Instant::now();
    let client = Client::connect(&seeds, credentials.clone()).await.unwrap();

    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(client.status().await.unwrap().name, "a".into());

    let builder = Client::builder(&seeds[..5]).timeout(Duration::from_secs(1));
    let refused = builder.connect(credentials).await.unwrap_err().to_string();
    for seed in &seeds[..5] {
        assert!(refused.contains(seed.as_str()), "{seed} is named: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_learns_soon_that_its_node_was_killed() {
    let cluster = Cluster::default();
    let mut a = cluster.start("a", &[]);
    cluster.ok(&a, &["spawn", "counter", "--name", "hits"]);
    let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
    let client = Client::connect([&a.address], credentials).await.unwrap();
    let monitor = client.monitor("hits").await.unwrap();

    let begun = Instant::now();
    a.kill_9();
    let down = monitor.down().await;

    assert_eq!(down.reason, ExitReason::NoConnection);
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
}

#[test]
fn nodes_are_reached_over_ipv6_too() {
    let cluster = Cluster::default();
    let a = cluster.start_at("a", "[::1]:0", &[]);
    let b = cluster.start_at("b", "[::1]:0", &["--seed", &a.address]);
    cluster.until_up(&a, 2, SOON);
    assert_eq!(cluster.json(&b, &["status"])["address"], b.address.as_str());
}

#[test]
fn a_node_that_listens_on_all_addresses_is_reached_over_both_kinds() {
    let cluster = Cluster::default();
    let a = cluster.start_at("a", "[::]:0", &["--advertise", "127.0.0.1:1"]);
    let port = a.address.rsplit_once(':').unwrap().1;
    for at in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let status = cluster.purlin().args(["status", "--at", &at]).output().unwrap();
        assert!(status.status.success(), "{at}: {status:?}");
    }
}

#[test]
fn a_frozen_member_does_not_keep_others_from_being_watched() {
    let cluster = Cluster::default();
    let [a, b, c] = cluster.three();
    b.signal("STOP");
    let watch = cluster.watch_with(&a, &["--timeout", "1"]);
    cluster.ok(&c, &["spawn", "counter", "--name", "hits"]);
    watch.next("name_registered", SOON);
    b.signal("CONT");
}

#[test]
fn a_watch_ends_when_nobody_reads_it_any_more() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    let mut command = cluster.purlin();
    command.args(["watch", "--at", &a.address]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watch = command.spawn().unwrap();

    drop(watch.stdout.take());

    let status = exits_within(&mut watch, SOON);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn timeout_bounds_every_command() {
    let cluster = Cluster::default();
    let [a, b, _c] = cluster.three();
    b.signal("STOP");
    for args in [
        &["names", "--on", "b"][..],
        &["tree", "--on", "b"],
        &["exit", "x@b"],
        &["info", "x@b"],
        &["call", "x@b", "y"],
    ] {
        let begun = Instant::now();
        let output = cluster.run(&a, &[args, &["--timeout", "0.5"]].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert!(begun.elapsed() < Duration::from_millis(1_500), "{args:?}: {:?}", begun.elapsed());
    }
    b.signal("CONT");
}

#[test]
fn a_home_with_a_clients_credentials_alone_serves_the_command_line() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    for file in ["authority.pem", "client.pem", "client.key"] {
        std::fs::copy(cluster.data_dir().join(file), home.path().join(file)).unwrap();
    }
    let dir = home.path().to_str().unwrap();
    let run = |args: &[&str]| {
        let at = ["--data-dir", dir, "--at", &a.address];
        cluster.purlin().args([args, &at].concat()).output().unwrap()
    };
    assert!(run(&["members"]).status.success());
    let start =
        cluster.purlin().args(["start", "--name", "x", "--data-dir", dir]).output().unwrap();
    let text = String::from_utf8(start.stderr).unwrap();
    assert_eq!(start.status.code(), Some(1), "{text}");
    assert!(text.contains("no authority.key") && text.contains("for node x"), "{text}");
}

#[test]
fn asking_without_credentials_makes_none() {
    let cluster = Cluster::default();
    std::fs::create_dir(cluster.data_dir()).unwrap();
    let asked = cluster.purlin().args(["members"]).output().unwrap();
    assert_eq!(asked.status.code(), Some(3), "{asked:?}");
    assert!(String::from_utf8(asked.stderr).unwrap().contains("purlin start"));
    assert_eq!(std::fs::read_dir(cluster.data_dir()).unwrap().count(), 0);
}

#[test]
fn a_second_signal_ends_a_node_at_once() {
    let cluster = Cluster::default();
    let [a, b, mut c] = cluster.three();
    // What was sent to them cannot be delivered, so an orderly end takes its time.
    a.signal("STOP");
    b.signal("STOP");
    cluster.purlin().args(["send", "x@a", "y", "--at", &c.address]).output().unwrap();
    c.signal("TERM");
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    c.signal("TERM");
    let code = c.wait(SOON).code();
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(code, Some(130));
    a.signal("CONT");
    b.signal("CONT");
}

#[test]
fn a_node_whose_application_gives_up_exits_with_1_and_why_tells_the_rest() {
    let cluster = Cluster::default();
    let mut app = cluster.start_example("application", "a");
    let ask = |args: &[&str]| cluster.ok(&app, args);
    let first = ask(&["names", "--format", "json"]);
    assert!(first.contains("\"hits\""), "{first}");
    ask(&["exit", "hits", "--kill"]);
    let why = cluster.json(&app, &["why", "hits"]);
    assert_eq!((&why["child_id"], &why["restarts"]), (&"hits".into(), &1.into()), "{why}");
    assert_eq!(why["exits"][0]["reason"], "killed");
    let gone = why["exits"][0]["pid"].as_str().unwrap();
    assert!(ask(&["why", gone]).contains("gone"));
    assert!(ask(&["tree"]).contains("restarts=1 last=\"killed\""));

    cluster.run(&app, &["exit", "hits", "--kill"]);
    assert_eq!(app.wait(Duration::from_secs(10)).code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_client() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
    let connect = || Client::connect([&a.address], credentials.clone());
    let (watcher, closed, dropped) =
        (connect().await.unwrap(), connect().await.unwrap(), connect().await.unwrap());
    let of_closed = watcher.monitor(closed.session().unwrap()).await.unwrap();
    let of_dropped = watcher.monitor(dropped.session().unwrap()).await.unwrap();
    // Its answer comes after both; the others' ends come over other connections, and may be first.
    watcher.status().await.unwrap();

    closed.close().await;
    let down = tokio::time::timeout(SOON, of_closed.down()).await.unwrap();
    assert_eq!(down.reason, ExitReason::Normal);

    drop(dropped);
    let down = tokio::time::timeout(SOON, of_dropped.down()).await.unwrap();
    assert_eq!(down.reason, ExitReason::Normal);

    // The watcher's, and the one that asks.
    let processes = cluster.json(&a, &["ps"]);
    let sessions = processes.as_array().unwrap().iter().filter(|row| row["kind"] == "session");
    assert_eq!(sessions.count(), 2, "{processes}");
}

#[test]
fn a_bench_measures_through_any_node_and_leaves_nothing_behind() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address]);
    cluster.until_up(&a, 2, SOON);

    let found = cluster.json(&a, &["bench", "--on", "b", "--seconds", "0.1"]);

    assert_eq!(found["node"], "b");
    for figure in ["/round_trip_us/p50", "/calls_per_s/1000", "/one_way_per_s"] {
        assert!(found.pointer(figure).unwrap().as_f64().unwrap() > 0.0, "{figure}: {found}");
    }
    let begun = Instant::now();
    while cluster.ok(&b, &["ps"]).contains("echo") {
        assert!(begun.elapsed() < SOON, "the process stays");
    }
}

#[test]
fn a_bench_that_is_interrupted_leaves_nothing_behind() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    let mut command = cluster.purlin();
    command.args(["bench", "--at", &a.address]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut bench = command.spawn().unwrap();
    let begun = Instant::now();
    while !cluster.ok(&a, &["ps"]).contains("echo") {
        assert!(begun.elapsed() < SOON, "it does not start");
    }

    let pid = bench.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());

    assert_eq!(exits_within(&mut bench, SOON).code(), Some(1));
    assert!(!cluster.ok(&a, &["ps"]).contains("echo"));
}
