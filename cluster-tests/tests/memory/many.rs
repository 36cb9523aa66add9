//! Many processes that watch, or are linked to, one on another node, when nodes are cut off, killed
//! and come back. How many frames that takes is tested in `node/runtime/tests/between`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::proto::Role;
use purlin::{Down, ExitReason, Node, Outcome, Pid, RawContext, RawKind, Received};
use purlin_client::Client;
use purlin_cluster_tests::memory::{Cluster, until_sees};
use tokio::sync::mpsc;

static CROWD: RawKind = RawKind::new("crowd");

/// Many processes that do the same, and what they receive: who, and what.
struct Crowd {
    pids: Vec<Pid>,
    tell: mpsc::UnboundedSender<(Pid, Received)>,
    received: mpsc::UnboundedReceiver<(Pid, Received)>,
}

impl Crowd {
    fn new() -> Self {
        let (tell, received) = mpsc::unbounded_channel();
        Self { pids: Vec::new(), tell, received }
    }

    fn start(node: &Node, count: usize, begin: impl Fn(&mut RawContext)) -> Self {
        let mut crowd = Self::new();
        crowd.join(node, count, begin);
        crowd
    }

    fn join(&mut self, node: &Node, count: usize, begin: impl Fn(&mut RawContext)) {
        for _ in 0..count {
            let tell = self.tell.clone();
            let body = |mut ctx: RawContext| {
                begin(&mut ctx);
                async move {
                    loop {
                        let received = ctx.receive().await?;
                        let _ = tell.send((ctx.pid(), received));
                    }
                }
            };
            self.pids.push(node.runtime().spawn_raw(&CROWD, body).unwrap());
        }
    }

    /// How often each reason was told, after a while in which everything can arrive; nobody was told
    /// twice.
    async fn told(&mut self) -> Vec<(ExitReason, usize)> {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let (mut who, mut reasons) = (BTreeMap::new(), Vec::<(ExitReason, usize)>::new());
        while let Ok((pid, received)) = self.received.try_recv() {
            let reason = match received {
                Received::Down(Down { reason, .. }) => reason,
                Received::LinkDown(link_down) => link_down.reason,
                other => panic!("{other:?}"),
            };
            assert_eq!(who.insert(pid, reason.clone()), None, "{pid} is told twice");
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((reason, 1)),
            }
        }
        reasons
    }
}

fn crash() -> ExitReason {
    ExitReason::other("crash")
}

fn watch(target: Pid) -> impl Fn(&mut RawContext) {
    move |ctx| {
        ctx.monitor(target);
    }
}

fn idle(node: &Node) -> Pid {
    let body = |mut ctx: RawContext| async move {
        loop {
            ctx.receive().await?;
        }
    };
    node.runtime().spawn_raw(&CROWD, body).unwrap()
}

fn watched_by(node: &Node, target: Pid) -> usize {
    node.runtime().process_detail(&target.into()).unwrap().monitored_by.len()
}

async fn two() -> Cluster {
    Cluster::start(2, |builder| builder).await
}

#[tokio::test(start_paused = true)]
async fn many_watchers_are_one_to_their_target_and_each_hears_of_its_end() {
    let cluster = two().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let target = idle(b);
    let mut crowd = Crowd::start(a, 1_000, watch(target));
    let mut here = Crowd::start(b, 10, watch(target));
    assert_eq!(crowd.told().await, []);
    assert_eq!(watched_by(b, target), 11);

    a.exit(target, crash());

    assert_eq!(crowd.told().await, [(crash(), 1_000)]);
    assert_eq!(here.told().await, [(crash(), 10)]);
}

#[tokio::test(start_paused = true)]
async fn watchers_hear_of_a_cut_once_and_watch_again_when_it_has_healed() {
    let cluster = two().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let target = idle(b);
    let mut crowd = Crowd::start(a, 500, watch(target));
    let mut back = Crowd::start(b, 500, watch(crowd.pids[0]));
    assert_eq!((crowd.told().await, back.told().await), (vec![], vec![]));

    cluster.cut(a, b);
    let noconnection = vec![(ExitReason::NoConnection, 500)];
    assert_eq!((crowd.told().await, back.told().await), (noconnection.clone(), noconnection));
    let mut late = Crowd::start(a, 500, watch(target));
    assert_eq!(late.told().await, [(ExitReason::NoConnection, 500)]);
    until_sees(a, 1).await;
    until_sees(b, 1).await;
    cluster.heal(a, b);
    cluster.until_all_see(2).await;
    let mut again = Crowd::start(a, 500, watch(b.id().pid(target.serial)));
    assert_eq!(again.told().await, []);
    assert_eq!(watched_by(b, b.id().pid(target.serial)), 1);
    b.exit(b.id().pid(target.serial), crash());

    assert_eq!(again.told().await, [(crash(), 500)]);
    assert_eq!((crowd.told().await, late.told().await), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn watchers_hear_of_a_killed_node_once_and_its_next_life_is_another() {
    let mut cluster = two().await;
    let (a, b) = (cluster.nodes[0].clone(), cluster.nodes.remove(1));
    let (address, target) = (b.address(), idle(&b));
    let mut crowd = Crowd::start(&a, 500, watch(target));
    assert_eq!(crowd.told().await, []);

    cluster.network.kill(address);
    drop(b);

    assert_eq!(crowd.told().await, [(ExitReason::NoConnection, 500)]);
    let b = cluster.join_at("n1", address, |builder| builder).await;
    cluster.until_all_see(2).await;
    let mut dead = Crowd::start(&a, 500, watch(target));
    let mut alive = Crowd::start(&a, 500, watch(idle(&b)));
    assert_eq!(dead.told().await, [(ExitReason::NoProcess, 500)]);
    assert_eq!((alive.told().await, crowd.told().await), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_tells_each_watcher_the_reason_of_its_processes() {
    let cluster = two().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut crowd = Crowd::start(a, 500, watch(idle(b)));
    assert_eq!(crowd.told().await, []);

    b.stop().await;

    assert_eq!(crowd.told().await, [(ExitReason::Shutdown, 500)]);
}

#[tokio::test(start_paused = true)]
async fn many_that_are_linked_to_one_process_elsewhere_hear_of_its_end_and_of_a_cut() {
    let cluster = two().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let (ends, stays) = (idle(b), idle(b));
    let linked = |other: Pid| {
        move |ctx: &mut RawContext| {
            ctx.trap_exits(true);
            ctx.link(other);
        }
    };
    let mut first = Crowd::start(a, 500, linked(ends));
    first.join(b, 5, linked(ends));
    let mut second = Crowd::start(a, 500, linked(stays));
    assert_eq!((first.told().await, second.told().await), (vec![], vec![]));

    b.exit(ends, crash());
    assert_eq!((first.told().await, second.told().await), (vec![(crash(), 505)], vec![]));
    cluster.cut(a, b);

    let noconnection = (ExitReason::NoConnection, 500);
    assert_eq!((first.told().await, second.told().await), (vec![], vec![noconnection]));
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_node_share_a_monitor_with_its_processes() {
    let mut cluster = two().await;
    let (a, b) = (cluster.nodes[0].clone(), cluster.nodes[1].clone());
    let target = idle(&b);
    let mut crowd = Crowd::start(&a, 3, watch(target));
    let mut monitors = Vec::new();
    for name in ["c", "d"] {
        let credentials = cluster.credentials(name.into(), Role::Operator);
        let builder = Client::builder([a.address().to_string()]);
        let builder = builder.memory(cluster.network.clone(), cluster.next_address());
        let client = builder.connect(credentials).await.unwrap();
        monitors.push((client.monitor(target).await.unwrap(), client));
    }
    assert_eq!(crowd.told().await, []);
    assert_eq!(watched_by(&b, target), 1);

    let (_, gone) = monitors.pop().unwrap();
    gone.close().await;
    b.exit(target, crash());

    let (monitor, _client) = monitors.pop().unwrap();
    assert_eq!(monitor.down().await.reason, crash());
    assert_eq!(crowd.told().await, [(crash(), 3)]);
}

/// In real time, on threads, so that watchers meet who come and go at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watchers_that_come_and_go_on_many_threads_leave_nothing_behind() {
    let cluster = two().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let targets: [Pid; 3] = std::array::from_fn(|_| idle(b));
    let mut tasks = Vec::new();
    for number in 0..64_u64 {
        let comes_and_goes = move |mut ctx: RawContext| async move {
            for round in 0..100 {
                let target = targets[usize::try_from((number + round) % 3).unwrap()];
                let reference = ctx.monitor(target);
                match (number * 7 + round) % 5 {
                    0 => tokio::time::sleep(Duration::from_millis(1)).await,
                    1 => ctx.runtime().exit(target, ExitReason::Normal),
                    2 => tokio::task::yield_now().await,
                    // And by ending.
                    3 if round == 99 => return Ok(()),
                    _ => {}
                }
                assert!(ctx.demonitor_flush(reference));
            }
            Outcome::Ok(())
        };
        let pid = a.runtime().spawn_raw(&CROWD, comes_and_goes).unwrap();
        tasks.push(a.runtime().down(pid));
    }
    for task in tasks {
        let reason = tokio::time::timeout(Duration::from_secs(30), task).await.unwrap().reason;
        assert!(matches!(reason, ExitReason::Normal | ExitReason::NoProcess), "{reason}");
    }

    for target in targets {
        for _ in 0..1_000 {
            if watched_by(b, target) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(watched_by(b, target), 0);
    }
}
