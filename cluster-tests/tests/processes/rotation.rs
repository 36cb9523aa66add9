//! Another authority for a cluster that goes on working: real processes of several data directories,
//! as if of several machines.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin::kinds::Add;
use purlin_client::{Client, Credentials};
use purlin_cluster_tests::process::{Cluster, Node};
use serde_json::Value;

use crate::joined::{joined, token};

const SOON: Duration = Duration::from_secs(10);

/// Ends the rotation, as soon as the members are ready for it.
fn finish(cluster: &Cluster, node: &Node, limit: Duration) {
    let begun = Instant::now();
    loop {
        let output = cluster.run(node, &["cert", "rotate-authority", "--finish"]);
        if output.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("try again after a moment"), "{said}");
        assert!(begun.elapsed() < limit, "{said}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Calls counters on two nodes through a third, all the time.
struct Load {
    executor: tokio::runtime::Runtime,
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Load {
    fn start(cluster: &Cluster, node: &Node) -> Self {
        let executor = tokio::runtime::Runtime::new().unwrap();
        let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let over = Arc::new(AtomicBool::new(false));
        let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
        let client = Client::connect([node.address.clone()], credentials);
        let client = executor.block_on(client).unwrap();
        for to in ["hits@b", "hits@c", "hits@b", "hits@c"] {
            let (client, over) = (client.clone(), Arc::clone(&over));
            let (done, failed) = (Arc::clone(&done), Arc::clone(&failed));
            executor.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let called = client.call(to, Add(1)).await;
                    let count = if called.is_ok() { &done } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        Self { executor, done, failed, over }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How many calls had a reply, and how many had none.
    fn end(self) -> (u64, u64) {
        self.over.store(true, Ordering::Relaxed);
        self.executor.shutdown_timeout(SOON);
        (self.done.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

#[test]
fn a_cluster_of_three_rotates_its_authority_under_load_without_a_failed_call() {
    let (cluster, second, third) = (Cluster::default(), Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let made = token(&cluster, &["--uses", "3"]);
    let b = second.start("b", &["--seed", &a.address, "--token", &made]);
    let mut c = third.start("c", &["--seed", &a.address, "--token", &made]);
    cluster.until_up(&a, 3, SOON);
    for node in ["b", "c"] {
        cluster.ok(&a, &["spawn", "counter", "--on", node, "--name", "hits"]);
    }
    let (laptop, forgetful) = (
        joined(&cluster, &a, &["--role", "client", "--may", "read"]),
        joined(&cluster, &a, &["--role", "client", "--may", "read"]),
    );
    let watch = cluster.watch(&a);
    let load = Load::start(&cluster, &a);

    let output = cluster.run(&b, &["cert", "rotate-authority"]);

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for node in [&a, &b, &c] {
        node.until_logged("the certificate was made anew", 3 * SOON);
        // Clients that know nothing of it yet go on, and so does a token of before.
        laptop.ok(node, &["members"]);
    }
    laptop.ok(&b, &["cert", "renew"]);
    let fourth = Cluster::default();
    let d = fourth.start("d", &["--seed", &b.address, "--token", &made]);
    cluster.until_up(&a, 4, SOON);

    finish(&cluster, &a, 3 * SOON);

    let so_far = load.done();
    let begun = Instant::now();
    while load.done() < so_far + 100 {
        assert!(begun.elapsed() < SOON, "calls go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (done, failed) = load.end();
    assert_eq!(failed, 0, "of {done} calls");
    let ended = |event: &Value| {
        ["node_down", "node_left"].contains(&event["event"].as_str().unwrap_or_default())
    };
    let happened = watch.so_far();
    assert!(!happened.iter().any(ended), "{happened:?}");
    // Who has a certificate of the new one comes and goes as before; who has not is refused.
    laptop.ok(&b, &["members"]);
    let begun = Instant::now();
    loop {
        let refused = forgetful.run(&b, &["members", "--timeout", "2"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        if refused.status.code() == Some(3) {
            assert!(said.contains("authority is unknown"), "{said}");
            break;
        }
        assert!(begun.elapsed() < SOON, "still believed");
    }
    let fifth = Cluster::default();
    let made = token(&cluster, &[]);
    let newcomers = [d, fifth.start("e", &["--seed", &a.address, "--token", &made])];
    cluster.until_up(&a, 5, SOON);
    c.signal("TERM");
    c.wait(SOON);
    let c = third.start("c", &["--seed", &b.address]);
    cluster.until_up(&c, 5, SOON);
    drop(newcomers);
}

#[test]
fn a_member_that_was_away_is_told_while_both_are_believed_and_is_not_left_behind_unasked() {
    let (cluster, second) = (Cluster::default(), Cluster::default());
    let a = cluster.start("a", &[]);
    let made = token(&cluster, &[]);
    let mut b = second.start("b", &["--seed", &a.address, "--token", &made]);
    cluster.until_up(&a, 2, SOON);
    b.signal("TERM");
    b.wait(SOON);

    let output = cluster.run(&a, &["cert", "rotate-authority"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    a.until_logged("the certificate was made anew", 3 * SOON);
    let b = second.start_at("b", &b.address, &["--seed", &a.address]);
    cluster.until_up(&a, 2, SOON);
    let early = cluster.run(&a, &["cert", "rotate-authority", "--finish"]);
    if !early.status.success() {
        let said = String::from_utf8_lossy(&early.stderr).into_owned();
        assert!(said.contains("b has no new certificate yet"), "{said}");
    }
    b.until_logged("the certificate was made anew", 3 * SOON);
    if !early.status.success() {
        finish(&cluster, &a, SOON);
    }
    let again = cluster.run(&a, &["cert", "rotate-authority", "--finish"]);
    assert!(again.status.success(), "what is done may be told again");
    cluster.until_up(&b, 2, SOON);
}
