//! Figures of cluster supervisors, on five real processes. Ignored, since they take a while and mean
//! something only on a machine that does nothing else:
//!
//! ```sh
//! cargo build --release --bin purlin
//! cargo test --release -p purlin-cluster-tests --test children_figures -- --ignored --nocapture
//! ```

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use purlin::proto::admin::children::{
    CHILDREN, CHILDREN_PAGE, ClusterChildInfo, ClusterChildState, ListClusterChildren,
    StartClusterChild,
};
use purlin::proto::child::{ChildPlan, Intensity};
use purlin::proto::supervision::{Restart, Shutdown};
use purlin::{ChildId, ChildPlacement, Codec, Mode, Payload};
use purlin_client::{Client, Credentials, Dest};
use purlin_cluster_tests::process::{Cluster, Node};
use tokio::task::JoinSet;

const CHILDREN_STARTED: u64 = 10_000;

/// `detect_in`, 5 s, and 3 s.
const GOAL: Duration = Duration::from_secs(8);

fn plan() -> ChildPlan {
    ChildPlan {
        kind: "counter".into(),
        args: Payload { codec: Codec::Json, bytes: "null".into() },
        restart: Restart::Permanent,
        shutdown: Shutdown::Timeout(Duration::from_secs(5)),
        placement: ChildPlacement::Ring,
        mode: Mode::Available,
        intensity: Intensity { restarts: 3, period: Duration::from_secs(5) },
        supervisor_intensity: None,
    }
}

fn children() -> Dest {
    Dest::Local(CHILDREN.parse().unwrap())
}

async fn client(cluster: &Cluster, node: &Node) -> Client {
    let credentials = Credentials::from_dir(cluster.data_dir()).unwrap();
    Client::connect([node.address.clone()], credentials).await.unwrap()
}

async fn start_all(client: &Client) {
    let mut asking = JoinSet::new();
    for number in 0..CHILDREN_STARTED {
        let client = client.clone();
        asking.spawn(async move {
            let child = ChildId::new("jobs", number);
            let ask = StartClusterChild { child, plan: plan(), forwarded: false };
            client.call_timeout(children(), ask, Duration::from_mins(1)).await.unwrap().unwrap();
        });
        if asking.len() >= 512 {
            asking.join_next().await.unwrap().unwrap();
        }
    }
    asking.join_all().await;
}

async fn list(client: &Client) -> Vec<ClusterChildInfo> {
    let mut all: Vec<ClusterChildInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| info.child.clone());
        let ask = ListClusterChildren { supervisor: None, after };
        let page = client.call(children(), ask).await.unwrap();
        let full = page.len() >= CHILDREN_PAGE;
        all.extend(page);
        if !full {
            return all;
        }
    }
}

/// Waits until all run, none on these nodes; how long that took, and how many each node has.
async fn all_run(client: &Client, gone: &[&str]) -> (Duration, BTreeMap<String, usize>) {
    let begun = Instant::now();
    loop {
        let list = list(client).await;
        let runs = |info: &&ClusterChildInfo| {
            let on = info.pid.map(|pid| pid.node.name);
            let there = on.is_some_and(|on| !gone.contains(&on.as_str()));
            info.state == ClusterChildState::Running && there
        };
        let running: Vec<_> = list.iter().filter(runs).collect();
        if running.len() as u64 == CHILDREN_STARTED {
            let mut nodes = BTreeMap::new();
            for info in running {
                *nodes.entry(info.pid.unwrap().node.name.to_string()).or_default() += 1;
            }
            return (begun.elapsed(), nodes);
        }
        assert!(begun.elapsed() < Duration::from_mins(2), "{} run", running.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "figures"]
async fn ten_thousand_children_run_again_soon_after_kill_9_of_one_of_five() {
    let cluster = Cluster::default();
    let a = cluster.start("a", &[]);
    let seed = ["--seed", &a.address];
    let mut others = ["b", "c", "d", "e"].map(|name| cluster.start(name, &seed));
    for node in &others {
        cluster.until_up(node, 5, Duration::from_secs(10));
    }
    let client = client(&cluster, &a).await;
    let begun = Instant::now();
    start_all(&client).await;
    println!("{CHILDREN_STARTED} recorded in {:.1?}", begun.elapsed());
    let (took, nodes) = all_run(&client, &[]).await;
    println!("all run {took:.1?} later: {nodes:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;

    others[2].kill_9();

    let (took, nodes) = all_run(&client, &["d"]).await;
    println!("after kill -9 all run again in {took:.1?}: {nodes:?}");
    assert!(took <= GOAL, "{took:?}");
    client.close().await;
}

#[tokio::test]
#[ignore = "figures"]
async fn a_fourth_node_takes_no_more_than_its_share() {
    let cluster = Cluster::default();
    let [a, _b, _c] = cluster.three();
    let client = client(&cluster, &a).await;
    start_all(&client).await;
    all_run(&client, &[]).await;
    let before: BTreeMap<_, _> =
        list(&client).await.into_iter().map(|info| (info.child, info.pid)).collect();

    let begun = Instant::now();
    let _d = cluster.start("d", &["--seed", &a.address]);
    loop {
        let now = list(&client).await;
        let on_ring = |info: &ClusterChildInfo| info.pid.map(|p| p.node.name) == Some(info.owner);
        if now.iter().all(|i| i.state == ClusterChildState::Running && on_ring(i)) {
            let moved = now.iter().filter(|info| before[&info.child] != info.pid).count();
            println!("a fourth node: {moved} moved in {:.1?}", begun.elapsed());
            assert!(moved > 0 && moved as u64 <= CHILDREN_STARTED * 12 / 40, "{moved}");
            break;
        }
        assert!(begun.elapsed() < Duration::from_mins(3), "still moving");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.close().await;
}
