//! Keyed processes with state, between nodes in memory and on paused time: their state goes along when
//! keys move, whoever joins, leaves or is drained.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Add, Counter, Read};
use purlin::proto::Labels;
use purlin::proto::admin::{ListMembers, MemberState};
use purlin::{
    Actor, Context, Dest, Handler, Key, Keyed, KeyedActor, Name, Node, NodeBuilder, Outcome,
    Placement, Stateful,
};
use purlin_cluster_tests::memory::{Cluster, until_sees};

const IDLE: Duration = Duration::from_secs(20);
const KEYS: u64 = 60;

fn stateful(builder: NodeBuilder) -> NodeBuilder {
    builder.stateful::<Counter>(Keyed::available())
}

fn passivated(builder: NodeBuilder) -> NodeBuilder {
    builder.stateful::<Counter>(Keyed::available().passivate_after(IDLE))
}

fn counted(node: &Node, name: &str) -> u64 {
    let counters = node.runtime().counters().snapshot();
    counters.into_iter().find(|counter| counter.name == name).unwrap().count
}

fn sum(nodes: &[Node], name: &str) -> u64 {
    nodes.iter().map(|node| counted(node, name)).sum()
}

fn owner(node: &Node, key: u64) -> String {
    node.runtime().key_owner(&Name::new("counter").unwrap(), &Key::from(key)).to_string()
}

/// Adds one to every key, which then has this total.
async fn add_to_all(node: &Node, total: i64) {
    for key in 0..KEYS {
        assert_eq!(node.keyed::<Counter>(key).call(Add(1)).await, Ok(total), "{key}");
    }
}

/// Adds to every key again and again, and sees that each has all that was ever added.
fn load(node: &Node, begun: i64) -> tokio::task::JoinHandle<i64> {
    let node = node.clone();
    tokio::spawn(async move {
        let mut total = begun;
        let end = tokio::time::Instant::now() + Duration::from_secs(3);
        while tokio::time::Instant::now() < end {
            total += 1;
            add_to_all(&node, total).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        total
    })
}

async fn until_moved(nodes: &[Node]) {
    for node in nodes {
        while node.runtime().keys_to_move() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn state_goes_along_when_a_node_joins_under_load() {
    let mut cluster = Cluster::start(2, stateful).await;
    let load = load(&cluster.nodes[0], 0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.join("n2", stateful).await;
    let total = load.await.unwrap();
    until_moved(&cluster.nodes).await;
    add_to_all(&cluster.nodes[2], total + 1).await;

    let at_third = cluster.nodes[2].runtime().keyed_processes().len() as u64;
    assert!(at_third > 0 && at_third < KEYS, "{at_third}");
    assert_eq!(sum(&cluster.nodes, "keyed.handed_over"), at_third);
    assert_eq!(sum(&cluster.nodes, "keyed.handoff_timeout"), 0);
    assert_eq!(sum(&cluster.nodes, "keyed.started"), KEYS + at_third, "none began twice");
}

#[tokio::test(start_paused = true)]
async fn what_is_only_stored_goes_along_without_a_process() {
    let mut cluster = Cluster::start(2, passivated).await;
    add_to_all(&cluster.nodes[0], 1).await;
    tokio::time::sleep(2 * IDLE).await;
    assert_eq!(sum(&cluster.nodes, "keyed.passivated"), KEYS);

    cluster.join("n2", passivated).await;
    cluster.until_all_see(3).await;
    until_moved(&cluster.nodes).await;
    assert_eq!(sum(&cluster.nodes, "keyed.started"), KEYS, "nothing was started for it");

    // Those it came from are gone: it must be on the third.
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let moved: Vec<_> = (0..KEYS).filter(|key| owner(c, *key) == "n2").collect();
    a.stop().await;
    b.stop().await;
    until_sees(c, 1).await;
    for key in moved {
        assert_eq!(c.keyed::<Counter>(key).call(Read).await, Ok(1), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_gives_all_it_has_away_and_nobody_notices() {
    let cluster = Cluster::start(3, stateful).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let from_a = load(a, 0);
    tokio::time::sleep(Duration::from_millis(300)).await;

    let drained = b.drain().await;

    assert_eq!(drained.left, 0);
    assert_eq!(b.runtime().keyed_processes(), []);
    for node in &cluster.nodes {
        assert_eq!(node.members().len(), 3, "it is a member still");
        assert!(!node.ring().members().contains(&b.id().name), "and owns nothing");
    }
    let members = a.call(Dest::Local("purlin".parse().unwrap()), ListMembers).await.unwrap();
    let shown = members.into_iter().find(|member| member.id == b.id()).unwrap();
    assert_eq!(shown.state, MemberState::Draining);
    let anywhere = (0..9).map(|_| a.place(&Placement::Labels(Labels::new())).unwrap());
    assert!(anywhere.into_iter().all(|node| node != b.id().name), "nothing is placed on it");
    b.stop().await;
    let total = from_a.await.unwrap();
    add_to_all(c, total + 1).await;
    assert_eq!(sum(&cluster.nodes, "keyed.handoff_timeout"), 0);
    assert_eq!(sum(&cluster.nodes, "dropped.not_owner"), 0);
}

#[tokio::test(start_paused = true)]
async fn two_that_are_drained_at_once_and_the_last_one_lose_nothing() {
    let cluster = Cluster::start(3, stateful).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    add_to_all(a, 1).await;
    let (one, other) = tokio::join!(a.drain(), b.drain());
    assert_eq!((one.left, other.left), (0, 0));
    a.stop().await;
    b.stop().await;
    add_to_all(c, 2).await;

    until_sees(c, 1).await;
    assert_eq!(c.drain().await.left, 0, "there is nobody who could take anything");
    assert_eq!(c.runtime().keyed_processes().len() as u64, KEYS);
}

/// Takes its time, and cannot be hurried.
struct Slow(i64);

impl Actor for Slow {
    const KIND: &'static str = "counter";
    type Args = ();
    type Messages = (Add, Read);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self(0))
    }
}

impl KeyedActor for Slow {
    fn args(_: &Key) {}
}

impl Stateful for Slow {
    type State = i64;

    fn snapshot(&self) -> i64 {
        self.0
    }

    async fn restore(total: i64, (): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self(total))
    }
}

impl Handler<Add> for Slow {
    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Outcome<i64> {
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.0 += n;
        Ok(self.0)
    }
}

impl Handler<Read> for Slow {
    async fn handle(&mut self, _: Read, _: &mut Context<Self>) -> Outcome<i64> {
        Ok(self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_busy_for_too_long_is_not_waited_for_and_that_is_counted() {
    let keyed = Keyed::available().handoff_timeout(Duration::from_secs(1));
    let slow = |builder: NodeBuilder| builder.stateful::<Slow>(keyed);
    let mut cluster = Cluster::start(1, slow).await;
    let first = cluster.nodes[0].clone();
    let busy: Vec<_> = (0..KEYS)
        .map(|key| {
            let slow = first.keyed::<Slow>(key);
            tokio::spawn(async move { slow.call(Add(1)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = cluster.join("n1", slow).await;
    until_sees(&second, 2).await;
    let moved = (0..KEYS).find(|key| owner(&second, *key) == "n1").unwrap();
    assert_eq!(second.keyed::<Slow>(moved).call(Read).await, Ok(0), "without its state");
    assert!(counted(&second, "keyed.handoff_timeout") > 0);
    for call in busy {
        assert_eq!(call.await.unwrap(), Ok(1), "what it was busy with was done");
    }
}

fn remembered(builder: NodeBuilder) -> NodeBuilder {
    builder.stateful::<Counter>(Keyed::available().remember())
}

/// Waits until so many keys run on these nodes.
async fn until_run(nodes: &[&Node], count: usize) {
    for _ in 0..600 {
        let running: Vec<_> =
            nodes.iter().flat_map(|node| node.runtime().keyed_processes()).collect();
        if running.len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{count} should run");
}

#[tokio::test(start_paused = true)]
async fn remembered_keys_run_again_after_their_nodes_are_lost_without_a_message() {
    let cluster = Cluster::start(4, remembered).await;
    let [a, b, c, d] = &cluster.nodes[..] else { unreachable!() };
    add_to_all(a, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let at_a_and_b = a.runtime().keyed_processes().len() + b.runtime().keyed_processes().len();

    for lost in [c, d] {
        for other in [a, b] {
            cluster.cut(lost, other);
        }
    }
    cluster.cut(c, d);
    until_sees(a, 2).await;
    until_sees(b, 2).await;

    until_run(&[a, b], usize::try_from(KEYS).unwrap()).await;
    assert!(at_a_and_b < usize::try_from(KEYS).unwrap());
    assert_eq!(counted(a, "keyed.started") + counted(b, "keyed.started"), KEYS);
}

#[tokio::test(start_paused = true)]
async fn a_remembered_key_runs_again_after_its_process_was_ended_and_goes_on_where_it_moves() {
    let mut cluster = Cluster::start(2, remembered).await;
    add_to_all(&cluster.nodes[0], 1).await;
    let (a, b) = (cluster.nodes[0].clone(), cluster.nodes[1].clone());
    let (_, _, crashed) = a.runtime().keyed_processes()[0].clone();
    let (_, _, ended) = b.runtime().keyed_processes()[0].clone();
    a.exit(crashed, purlin::ExitReason::Kill);
    b.exit(ended, purlin::ExitReason::Shutdown);
    until_run(&[&a, &b], usize::try_from(KEYS).unwrap()).await;

    // One that moves is remembered by its new owner, and by nobody else.
    cluster.join("n2", remembered).await;
    cluster.until_all_see(3).await;
    until_moved(&cluster.nodes).await;
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    until_run(&nodes, usize::try_from(KEYS).unwrap()).await;
    assert_eq!(counted(&a, "keyed.not_remembered"), 0);
}
