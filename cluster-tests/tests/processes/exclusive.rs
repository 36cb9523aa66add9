//! Exclusive keyed processes on real processes: voters, leases, and a node that is killed.

use std::time::{Duration, Instant};

use purlin_cluster_tests::process::Cluster;

/// What a lost node costs at most: it is noticed, its lease runs out, the next owner begins; and the
/// same again for a machine that is busy.
const FAILOVER: Duration = Duration::from_secs(28);

#[test]
fn a_lone_node_is_its_own_authority_and_says_so() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    assert_eq!(cluster.ok(&a, &["call", "key:counter/1", "counter.add", "5"]), "5");

    cluster.until_view(&a, 1, 1, Duration::from_secs(10));
    let status = cluster.ok(&a, &["status"]);
    assert!(status.contains("voters' leader") && status.contains("good for"), "{status}");
}

#[test]
fn a_lone_node_that_is_killed_waits_for_its_own_lease_and_goes_on() {
    let cluster = Cluster::default();
    let mut a = cluster.start("a", &[]);
    cluster.until_view(&a, 1, 1, Duration::from_secs(10));
    assert_eq!(cluster.ok(&a, &["call", "key:counter/1", "counter.add", "5"]), "5");
    let before = cluster.json(&a, &["status"])["exclusive"].clone();
    a.kill_9();

    let a = cluster.start("a", &[]);
    a.until_logged("waits until the lease of its earlier life is over", Duration::from_secs(10));
    // Its lease and the time for stopping are 4 s; the rest is for a machine that is busy.
    cluster.until_view(&a, 1, 1, Duration::from_secs(20));
    // It has not asked to keep what it knew.
    assert_eq!(cluster.ok(&a, &["call", "key:counter/1", "counter.add", "1"]), "1");

    let after = cluster.json(&a, &["status"])["exclusive"].clone();
    assert_eq!(after["authority"], before["authority"], "it is the same one");
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64(), "{after} after {before}");
}

#[test]
fn when_a_voter_is_killed_its_keys_run_elsewhere_and_it_votes_again_when_it_is_back() {
    let cluster = Cluster::default();
    let [a, mut b, c] = cluster.three();
    for node in [&a, &b, &c] {
        cluster.until_view(node, 3, 3, Duration::from_secs(30));
    }
    let is_bs = |key: &String| cluster.json(&a, &["ring", key])["owner"] == "b";
    let owned_by_b = (0..100).map(|number| format!("counter/{number}")).find(is_bs);
    let key = format!("key:{}", owned_by_b.expect("a third of them"));
    assert_eq!(cluster.ok(&a, &["call", &key, "counter.add", "7"]), "7");
    assert_eq!(cluster.ok(&c, &["call", &key, "counter.add", "1"]), "8");

    b.kill_9();
    let killed = Instant::now();
    while !cluster.run(&c, &["call", &key, "counter.add", "1"]).status.success() {
        assert!(
            killed.elapsed() < FAILOVER,
            "{key} does not run {FAILOVER:?} after its node's end"
        );
    }
    let took = killed.elapsed();
    println!("ran elsewhere {took:?} after kill -9");
    assert!(took > Duration::from_secs(2), "{took:?}: before its lease had run out");

    let b = cluster.start("b", &["--seed", &a.address]);
    cluster.until_view(&b, 3, 3, Duration::from_secs(30));
    let voters = cluster.json(&b, &["status"])["exclusive"]["voters"].clone();
    assert_eq!(voters, serde_json::json!(["a", "b", "c"]));
}
