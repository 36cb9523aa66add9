//! Nodes and clients that come and go in one process, again and again: nothing is left of them, and the
//! next one may start at once.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Add, Counter};
use purlin::{Dest, Keyed};
use purlin_client::{Client, Credentials};
use purlin_cluster_tests::memory::until_sees;
use purlin_cluster_tests::sockets::{Home, until};
use tokio::sync::Mutex;

const LIVES: usize = 6;
const SOON: Duration = Duration::from_secs(20);

/// Open files are those of the whole process.
static ALONE: Mutex<()> = Mutex::const_new(());

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_node_that_has_stopped() {
    let _alone = ALONE.lock().await;
    let home = Home::default();
    let other = home.builder("b").stateful::<Counter>(Keyed::new()).start().await.unwrap();
    let seed = other.address().to_string();
    let mut files = None;
    for life in 1..=LIVES {
        let builder = home.builder("a").seed(seed.clone()).stateful::<Counter>(Keyed::new());
        let node = builder.start().await.unwrap();
        until_sees(&node, 2).await;
        let total = node.keyed::<Counter>("all").call(Add(1)).await;
        assert_eq!(total, Ok(i64::try_from(life).unwrap()));
        let runtime = node.runtime().downgrade();

        node.stop().await;
        drop(node);

        until("the runtime is gone", SOON, || runtime.upgrade().is_none()).await;
        // What is asked for once stays, as the handles of a first connection.
        let files = *files.get_or_insert_with(open_files);
        until("its files are closed", SOON, || open_files() <= files).await;
    }
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_client_that_has_closed() {
    let _alone = ALONE.lock().await;
    let home = Home::default();
    let node = home.builder("a").stateful::<Counter>(Keyed::new()).start().await.unwrap();
    let mut files = None;
    for life in 1..=LIVES {
        let credentials = Credentials::from_dir(home.dir()).unwrap();
        let client = Client::connect([node.address().to_string()], credentials).await.unwrap();
        let total = client.call(Dest::key("counter", "all"), Add(1)).await;
        assert_eq!(total, Ok(i64::try_from(life).unwrap()));

        client.close().await;
        drop(client);

        let files = *files.get_or_insert_with(open_files);
        until("its files are closed", SOON, || open_files() <= files).await;
    }
    node.stop().await;
}
