//! Keyed processes of the available kind, between nodes: on the network in memory and on paused time,
//! and as real processes through the command line.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use purlin::kinds::{Add, Counter, Kv, Read};
use purlin::{
    Actor, CallError, Context, Dest, ExitReason, Handler, Key, Keyed, KeyedActor, Name, Node,
    NodeBuilder, Outcome,
};
use purlin_cluster_tests::memory::{Cluster, until_sees};
use purlin_cluster_tests::process;

const IDLE: Duration = Duration::from_mins(1);

fn kinds(builder: NodeBuilder) -> NodeBuilder {
    builder.keyed::<Counter>(Keyed::available())
}

fn idle(builder: NodeBuilder) -> NodeBuilder {
    builder.keyed::<Counter>(Keyed::available().passivate_after(IDLE))
}

fn counted(node: &Node, name: &str) -> u64 {
    let counters = node.runtime().counters().snapshot();
    counters.into_iter().find(|counter| counter.name == name).unwrap().count
}

fn owner(node: &Node, key: u64) -> String {
    node.runtime().key_owner(&Name::new("counter").unwrap(), &Key::from(key)).to_string()
}

/// A key that this node owns.
fn key_of(node: &Node) -> u64 {
    (0..10_000).find(|key| owner(node, *key) == node.id().name.as_str()).unwrap()
}

/// Lets what is on its way arrive.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_has_one_process_at_its_owner_whoever_sends() {
    let cluster = Cluster::start(3, kinds).await;
    for key in 0..30 {
        for node in &cluster.nodes {
            assert_eq!(owner(node, key), owner(&cluster.nodes[0], key));
            node.keyed::<Counter>(key).call(Add(1)).await.unwrap();
        }
        assert_eq!(cluster.nodes[0].call(Dest::key("counter", key), Read).await, Ok(3));
    }
    let started: Vec<_> = cluster.nodes.iter().map(|n| counted(n, "keyed.started")).collect();
    assert_eq!(started.iter().sum::<u64>(), 30);
    assert!(started.iter().all(|started| *started > 0), "{started:?}");
    assert!(cluster.nodes.iter().all(|node| counted(node, "keyed.forwarded") == 0));
}

#[tokio::test(start_paused = true)]
async fn what_one_sender_says_to_a_key_arrives_in_order_though_it_must_be_started_first() {
    let cluster = Cluster::start(2, |b| b.keyed::<Kv>(Keyed::available())).await;
    let key = purlin::kinds::Get("last".into());
    for book in ["one", "two", "three", "four"] {
        let kv = cluster.nodes[0].keyed::<Kv>(book);
        for number in 0..100 {
            kv.send(purlin::kinds::Put { key: "last".into(), value: format!("{number}") });
        }
        assert_eq!(kv.call(key.clone()).await, Ok(Some("99".into())));
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_owner_is_down_the_next_message_finds_the_next_owner() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let key = key_of(b);
    assert_eq!(a.keyed::<Counter>(key).call(Add(5)).await, Ok(5));

    cluster.cut(a, b);
    cluster.cut(c, b);
    let lost = a.keyed::<Counter>(key).call(Add(1)).await;
    assert!(matches!(lost, Err(CallError::NoConnection | CallError::Timeout)), "{lost:?}");
    until_sees(a, 2).await;
    until_sees(c, 2).await;

    assert_ne!(owner(a, key), "n1");
    assert_eq!(a.keyed::<Counter>(key).call(Add(1)).await, Ok(1), "it begins anew");
    assert_eq!(c.keyed::<Counter>(key).call(Add(1)).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn keys_move_to_a_node_that_joins_and_end_where_they_were() {
    let mut cluster = Cluster::start(2, kinds).await;
    for key in 0..60 {
        cluster.nodes[0].keyed::<Counter>(key).call(Add(1)).await.unwrap();
    }
    let before: Vec<_> = (0..60).map(|key| owner(&cluster.nodes[0], key)).collect();
    let third = cluster.join("n2", kinds).await;
    cluster.until_all_see(3).await;
    settle().await;

    let running: Vec<_> =
        cluster.nodes.iter().map(|n| n.runtime().keyed_processes().len()).collect();
    let moved = (0..60).filter(|key| owner(&third, *key) == "n2").count();
    assert!(moved > 0 && moved < 60, "{moved}");
    assert_eq!(running[0] + running[1], 60 - moved, "those that have moved have ended");
    for key in 0..60 {
        let now = owner(&third, key);
        let total = if now == "n2" { 1 } else { 2 };
        assert!(now == "n2" || now == before[usize::try_from(key).unwrap()]);
        assert_eq!(third.keyed::<Counter>(key).call(Add(1)).await, Ok(total), "{key}");
    }
}

/// A total that is saved at its end, slowly, to where all nodes find it.
struct Account {
    number: Key,
    total: i64,
}

static SAVED: LazyLock<Mutex<BTreeMap<Key, i64>>> = LazyLock::new(Mutex::default);

impl Actor for Account {
    const KIND: &'static str = "account";
    type Args = Key;
    type Messages = (Add,);

    async fn start(number: Key, _: &mut Context<Self>) -> Outcome<Self> {
        let total = SAVED.lock().unwrap().remove(&number).unwrap_or(0);
        Ok(Self { number, total })
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = SAVED.lock().unwrap().insert(self.number.clone(), self.total);
        assert_eq!(before, None, "{}: two at once", self.number);
    }
}

impl KeyedActor for Account {
    fn args(key: &Key) -> Key {
        key.clone()
    }
}

impl Handler<Add> for Account {
    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Outcome<i64> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.total += n;
        Ok(self.total)
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_old_owner_saves_the_new_one_finds_though_nobody_waits_for_the_move() {
    let accounts = |builder: NodeBuilder| builder.keyed::<Account>(Keyed::available());
    let mut cluster = Cluster::start(2, accounts).await;
    let add = |node: &Node, key: u64| {
        let account = node.keyed::<Account>(key);
        async move { account.call(Add(1)).await }
    };
    for key in 0..40 {
        assert_eq!(add(&cluster.nodes[0], key).await, Ok(1));
    }
    let old = cluster.nodes.clone();
    let using = tokio::spawn(async move {
        for total in 2..12 {
            for key in 0..40 {
                assert_eq!(add(&old[usize::try_from(key % 2).unwrap()], key).await, Ok(total));
            }
        }
    });
    cluster.join("n2", accounts).await;
    using.await.unwrap();
    cluster.until_all_see(3).await;
    for key in 0..40 {
        assert_eq!(add(&cluster.nodes[2], key).await, Ok(12), "{key}");
    }
    let at_third = cluster.nodes[2].runtime().keyed_processes().len();
    let moved = cluster.nodes[..2].iter().map(|node| counted(node, "keyed.moved")).sum::<u64>();
    assert!(at_third > 0 && moved == at_third as u64, "{at_third} {moved}");
    assert_eq!(counted(&cluster.nodes[2], "keyed.not_released"), 0);
}

#[tokio::test(start_paused = true)]
async fn idle_ones_end_in_good_order_and_come_back() {
    let cluster = Cluster::start(2, idle).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let key = key_of(b);
    let counter = a.keyed::<Counter>(key);
    assert_eq!(counter.call(Add(1)).await, Ok(1));
    let pid = b.keyed::<Counter>(key).pid();
    let (down, ()) = tokio::join!(a.runtime().down(pid), async {
        tokio::time::sleep(IDLE / 2).await;
        assert_eq!(counter.call(Read).await, Ok(1), "used again");
        tokio::time::sleep(IDLE * 3 / 4).await;
        assert!(b.runtime().is_alive(pid), "idle since it was used");
    });
    assert_eq!(down.reason, ExitReason::Shutdown);
    assert_eq!(counted(b, "keyed.passivated"), 1);
    assert_eq!(counter.call(Add(1)).await, Ok(1), "it begins anew");
    assert_ne!(b.keyed::<Counter>(key).pid(), pid);
}

#[tokio::test(start_paused = true)]
async fn what_the_owner_does_not_know_as_keyed_is_said() {
    let mut cluster = Cluster::empty();
    cluster.join("n0", kinds).await;
    cluster.join("n1", |builder| builder.keyed::<Kv>(Keyed::available())).await;
    cluster.until_all_see(2).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let asked = a.keyed::<Counter>(key_of(b)).call(Read).await;
    let (kind, known) = ("counter".to_owned(), vec!["kv".to_owned()]);
    assert_eq!(asked, Err(CallError::NotKeyed { kind, node: "n1".into(), known }));
}

#[test]
fn keys_are_used_from_the_command_line_and_outlive_their_owner() {
    let cluster = process::Cluster::default();
    let [a, mut b, c] = cluster.three();
    for node in [&a, &b, &c] {
        // Until then keys go to those who come.
        cluster.until_view(node, 3, 3, Duration::from_secs(30));
    }
    for number in 1..=9 {
        let key = format!("key:counter/user:{number}@example.org");
        assert_eq!(cluster.ok(&a, &["call", &key, "counter.add", "5"]), "5");
        assert_eq!(cluster.ok(&b, &["call", &key, "counter.add", "1"]), "6");
        cluster.ok(&c, &["send", &key, "counter.add", "1"]);
    }
    let is_bs = |key: &String| cluster.json(&a, &["ring", key])["owner"] == "b";
    let owned_by_b = (0..100).map(|number| format!("counter/{number}")).find(is_bs);
    let key = format!("key:{}", owned_by_b.unwrap());
    assert_eq!(cluster.ok(&a, &["call", &key, "counter.add", "7"]), "7");

    b.kill_9();
    cluster.until_up(&a, 2, Duration::from_secs(30));
    cluster.until_up(&c, 2, Duration::from_secs(30));
    // When the lost node's lease has run out.
    cluster.until_view(&a, 2, 1, Duration::from_secs(30));
    assert_eq!(cluster.ok(&a, &["call", &key, "counter.add", "1"]), "1", "it begins anew");
    assert_eq!(cluster.ok(&c, &["call", &key, "counter.read"]), "1");

    for (target, said) in [("key:counter", "key:KIND/KEY"), ("key:count er/1", "white space")] {
        let usage = cluster.run(&a, &["call", target, "counter.read"]);
        let error = String::from_utf8_lossy(&usage.stderr).into_owned();
        assert_eq!(usage.status.code(), Some(2), "{error}");
        assert!(error.contains(said), "{error}");
    }
    let unknown = cluster.run(&a, &["call", "key:cart/1", "cart.read"]);
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1), "{error}");
    assert!(error.contains("no keyed kind") && error.contains("counter"), "{error}");
}
