//! The life of a connection on real sockets: over bad roads, while addresses change, through loss
//! and restarts, to a graceful end.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use purlin::kinds::{Counter, Read};
use purlin::prelude::*;
use purlin::proto::admin::{Leave, SYSTEM};
use purlin::proto::{NodeId, Refusal};
use purlin::{LinkDown, Name, NodeBuilder, Received};
use purlin_client::{Client, Credentials};
use purlin_cluster_tests::endpoints::{Told, endpoint};
use purlin_cluster_tests::memory::{Cluster, until_sees};
use purlin_cluster_tests::numbered::{Numbered, Receiver, Report, send, until_came};
use purlin_cluster_tests::probe::Probe;
use purlin_cluster_tests::process;
use purlin_cluster_tests::relay::{Relay, Settings};
use purlin_cluster_tests::sockets::{Home, Pair, counter, until};
use purlin_transport::{Closed, Config, Flow, Priority, Sent};

const SOON: Duration = Duration::from_secs(10);

/// Answers after a while.
struct Slow;

#[derive(Debug, Serialize, Deserialize)]
struct AnswerIn(Duration);

impl Message for AnswerIn {
    const NAME: &'static str = "slow.answer_in";
    type Reply = ();
}

impl Actor for Slow {
    const KIND: &'static str = "slow";
    type Args = ();
    type Messages = (AnswerIn,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<AnswerIn> for Slow {
    async fn handle(&mut self, AnswerIn(wait): AnswerIn, _: &mut Context<Self>) -> Outcome {
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

fn kinds(builder: NodeBuilder) -> NodeBuilder {
    builder.actor::<Slow>().actor::<Counter>()
}

/// Every so many messages one of another size; the large ones travel as bulk.
fn mixed(number: u64) -> usize {
    match number % 100 {
        0 => 100_000,
        50 => 5_000,
        other => usize::try_from(other).unwrap(),
    }
}

async fn client(home: &Home, at: impl ToString) -> Client {
    let credentials = Credentials::from_dir(home.dir()).unwrap();
    Client::connect([at.to_string()], credentials).await.unwrap()
}

// ----- addresses change -----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_dialed_changes_its_port_and_nothing_else_changes() {
    let pair = Pair::start(Settings::default(), |b| kinds(b).detect_in(SOON)).await;
    let (a, b) = (&pair.a, &pair.b);
    let on_a = Probe::start(a, |ctx| ctx.trap_exits(true)).pid;
    let mut on_b = Probe::start(b, |ctx| {
        ctx.trap_exits(true);
        ctx.link(on_a);
        ctx.monitor(on_a);
    });
    let on_b_pid = on_b.pid;
    let mut watcher = Probe::start(a, |ctx| {
        ctx.monitor(on_b_pid);
        ctx.monitor_nodes();
    });
    let accepted =
        (counter(a, "connections.accepted").await, counter(b, "connections.accepted").await);
    let slow_a = b.spawn_on::<Slow>(&"a".into(), ()).await.unwrap();
    let slow_b = a.spawn_on::<Slow>(&"b".into(), ()).await.unwrap();
    let to_a = b.spawn_on::<Receiver>(&"a".into(), ()).await.unwrap();
    let to_b = a.spawn_on::<Receiver>(&"b".into(), ()).await.unwrap();

    let wait = || AnswerIn(Duration::from_millis(1_200));
    let (answer_a, answer_b, (), (), before, after) = tokio::join!(
        slow_a.call(wait()),
        slow_b.call(wait()),
        send(&to_a, 0..6_000, mixed),
        send(&to_b, 0..6_000, mixed),
        async {
            let before = pair.to_a.sources();
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                pair.to_a.change_port();
            }
            before
        },
        async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            pair.to_a.sources()
        }
    );

    assert_eq!((answer_a, answer_b), (Ok(()), Ok(())));
    assert!(before.len() == 1 && after.len() == 1 && before != after, "{before:?} {after:?}");
    for receiver in [&to_a, &to_b] {
        assert_eq!(until_came(receiver, 5_999, SOON).await, [(0, 5_999)]);
    }
    assert!(on_b.has_nothing() && watcher.has_nothing(), "nobody is told of anything");
    let now = (counter(a, "connections.accepted").await, counter(b, "connections.accepted").await);
    assert_eq!(now, accepted, "the same association");

    a.exit(on_a, ExitReason::Kill);
    let down = |received| match received {
        Received::Down(down) => down.reason,
        Received::LinkDown(LinkDown { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    for _ in 0..2 {
        assert_eq!(down(on_b.next().await), ExitReason::Killed, "links and monitors still hold");
    }
    drop(on_b);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_changes_its_port_and_keeps_its_session() {
    let home = Home::default();
    let a = kinds(home.builder("a")).start().await.unwrap();
    let relay = Relay::start(a.listen_address(), Settings::default());
    let client = client(&home, relay.address()).await;
    let session = client.session().unwrap();
    let mut watcher = Probe::start(&a, |ctx| {
        ctx.monitor(session);
    });
    let receiver = a.spawn::<Receiver>(()).await.unwrap();
    let slow = a.spawn::<Slow>(()).await.unwrap();
    let monitor = client.monitor(slow.pid()).await.unwrap();

    let stream = async {
        for number in 0..6_000 {
            client.send(receiver.pid(), Numbered::new(number, mixed(number))).await.unwrap();
        }
    };
    let changes = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            relay.change_port();
        }
    };
    let wait = AnswerIn(Duration::from_millis(1_200));
    let (answer, (), ()) = tokio::join!(client.call(slow.pid(), wait), stream, changes);

    assert_eq!(answer, Ok(()));
    assert_eq!(until_came(&receiver, 5_999, SOON).await, [(0, 5_999)]);
    assert_eq!(client.call(receiver.pid(), Report).await, Ok(vec![(0, 5_999)]));
    assert_eq!(client.session(), Some(session));
    assert!(watcher.has_nothing());
    assert_eq!(counter(&a, "connections.accepted").await, 1);
    a.exit(slow.pid(), ExitReason::Kill);
    let down = tokio::time::timeout(SOON, monitor.down()).await.unwrap();
    assert_eq!(down.reason, ExitReason::Killed);
    client.close().await;
    assert_eq!(watcher.down().await.reason, ExitReason::Normal);
    a.stop().await;
}

/// RFC 9000, section 9: only the side that has dialed may move. When the other does, its packets
/// are not believed, and the connection ends by silence. It is made anew where its name leads by then:
/// a second seed here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_dialed_moves_and_is_reached_anew_after_one_notice() {
    let new_place = Relay::start(None, Settings::default());
    new_place.cut();
    let seed = new_place.address().to_string();
    let pair = Pair::start(Settings::default(), |b| kinds(b).seed(&seed)).await;
    let (a, b) = (&pair.a, &pair.b);
    new_place.aim(a.listen_address());
    let on_a = Probe::start(a, |_| {}).pid;
    let mut on_b = Probe::start(b, |ctx| {
        ctx.trap_exits(true);
        ctx.monitor(on_a);
        ctx.link(on_a);
        ctx.monitor_nodes();
    });

    let begun = Instant::now();
    pair.to_a.move_front();
    new_place.heal();
    let mut notices = Vec::new();
    for _ in 0..4 {
        notices.push(match on_b.next().await {
            Received::Down(down) => format!("down {}", down.reason),
            Received::LinkDown(link_down) => format!("link {}", link_down.reason),
            Received::Node(NodeEvent::Down { .. }) => "node down".to_owned(),
            Received::Node(NodeEvent::Up { .. }) => "node up".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    let took = begun.elapsed();

    assert_eq!(notices, ["down noconnection", "link noconnection", "node down", "node up"]);
    assert!(took < SOON, "{took:?}");
    until_sees(a, 2).await;
    for (from, to) in [(a, b), (b, a)] {
        let receiver = from.spawn_on::<Receiver>(&to.id().name, ()).await.unwrap();
        send(&receiver, 0..1_000, mixed).await;
        assert_eq!(until_came(&receiver, 999, SOON).await, [(0, 999)]);
    }
    assert!(on_b.has_nothing(), "each notice once");
    drop(on_b);
    pair.stop().await;
}

// ----- loss and return -----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cut_everybody_is_told_once_and_nothing_of_before_comes_later() {
    let pair = Pair::start(Settings::default(), kinds).await;
    let (a, b) = (&pair.a, &pair.b);
    let receivers =
        [a.spawn::<Receiver>(()).await.unwrap(), b.spawn::<Receiver>(()).await.unwrap()];
    let names = ["at-a", "at-b"].map(|name| Name::new(name).unwrap());
    for (node, (name, receiver)) in [a, b].into_iter().zip(names.iter().zip(&receivers)) {
        node.runtime().register(name.clone(), receiver.pid()).unwrap();
    }
    let dests =
        [Dest::Remote(names[0].clone(), "a".into()), Dest::Remote(names[1].clone(), "b".into())];
    let watch = |at: &Node, pid: Pid| {
        Probe::start(at, |ctx| {
            ctx.trap_exits(true);
            ctx.monitor(pid);
            ctx.link(pid);
        })
    };
    // Linked processes, so not the receivers themselves.
    let (on_a, on_b) = (Probe::start(a, |_| {}), Probe::start(b, |_| {}));
    let mut watchers = [watch(a, on_b.pid), watch(b, on_a.pid)];
    // One process each, so that all it sends is one flow and has one order.
    let tell = |from: &Node, to: Dest, numbers: Range<u64>| {
        let (runtime, to) = (from.runtime().clone(), to);
        from.runtime().task(async move {
            for number in numbers {
                runtime.send_wait(to.clone(), Numbered::new(number, mixed(number))).await;
            }
        })
    };
    for (from, to) in [(a, &dests[1]), (b, &dests[0])] {
        tell(from, to.clone(), 0..1_000).join().await.unwrap();
    }
    for receiver in &receivers {
        until_came(receiver, 999, SOON).await;
    }

    pair.cut();
    for (from, to) in [(a, &dests[1]), (b, &dests[0])] {
        tell(from, to.clone(), 1_000..2_000).join().await.unwrap();
    }
    for watcher in &mut watchers {
        assert_eq!(watcher.down().await.reason, ExitReason::NoConnection);
        assert_eq!(watcher.link_down().await.reason, ExitReason::NoConnection);
    }
    until_sees(a, 1).await;
    until_sees(b, 1).await;
    pair.heal();
    until_sees(a, 2).await;
    until_sees(b, 2).await;
    for (from, to) in [(a, &dests[1]), (b, &dests[0])] {
        tell(from, to.clone(), 2_000..3_000).join().await.unwrap();
    }

    for receiver in &receivers {
        assert_eq!(until_came(receiver, 2_999, SOON).await, [(0, 999), (2_000, 2_999)]);
    }
    for mut watcher in watchers {
        assert!(watcher.has_nothing(), "each notice once");
    }
    pair.stop().await;
}

/// At the transport alone, where nobody finds the cut but the idle timeout of QUIC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_for_longer_than_its_timeout_is_lost_once_and_its_successor_carries_no_more_of_it()
 {
    let cluster = Cluster::empty();
    let short = |config: &mut Config| {
        config.idle_timeout = Duration::from_secs(1);
        config.keep_alive = Duration::from_millis(200);
    };
    let (a, mut at_a) = endpoint(&cluster, "a", short);
    let (b, mut at_b) = endpoint(&cluster, "b", short);
    let relay = Relay::start(b.local_address(), Settings::default());
    let to = NodeId::new("b".into(), 1);
    // Some of it as bulk.
    let frame = |number: u8| {
        Bytes::from(vec![number; if number.is_multiple_of(3) { 100_000 } else { 100 }])
    };
    let send = async |numbers: Range<u8>| {
        for number in numbers {
            let (address, flow, frame) = (relay.address(), Flow(number.into()), frame(number));
            loop {
                match a.send_bytes(to, address, flow, Priority::User, &frame) {
                    Sent::Accepted => break,
                    // The end of the last link is still being told.
                    Sent::Full => a.ready(&to, flow).await,
                    refused => panic!("{number}: {refused:?}"),
                }
            }
        }
    };
    let peer = |name: &'static str| NodeName::from(name);

    for round in 0..2 {
        let first = round * 100;
        send(first..first + 10).await;
        assert_eq!(at_a.next().await, Told::Up(peer("b")));
        assert_eq!(at_b.next().await, Told::Up(peer("a")));
        let mut came = Vec::new();
        for _ in 0..10 {
            came.push(at_b.frame().await.1[0]);
        }
        came.sort_unstable();
        assert_eq!(came, (first..first + 10).collect::<Vec<_>>());

        relay.cut();
        send(first + 10..first + 20).await;
        for (log, name) in [(&mut at_a, "b"), (&mut at_b, "a")] {
            let told = log.next().await;
            let lost = matches!(&told, Told::Down(who, Closed::Lost(_)) if *who == peer(name));
            assert!(lost, "{told:?}");
        }
        relay.heal();
    }
    a.close(&Refusal::Stopping).await;
    b.close(&Refusal::Stopping).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_cut_is_only_a_delay() {
    let pair = Pair::start(Settings::default(), |b| kinds(b).detect_in(SOON)).await;
    let (a, b) = (&pair.a, &pair.b);
    let on_a = Probe::start(a, |_| {}).pid;
    let mut on_b = Probe::start(b, |ctx| {
        ctx.monitor(on_a);
        ctx.monitor_nodes();
    });
    let receiver = b.spawn_on::<Receiver>(&"a".into(), ()).await.unwrap();

    send(&receiver, 0..500, mixed).await;
    pair.cut();
    send(&receiver, 500..1_000, mixed).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    pair.heal();

    assert_eq!(until_came(&receiver, 999, SOON).await, [(0, 999)]);
    assert!(on_b.has_nothing());
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_killed_and_started_again_at_its_address_is_another_life() {
    let cluster = process::Cluster::default();
    let home = cluster.data_dir();
    let a = Node::builder().name("a").data_dir(home).listen("127.0.0.1:0").actor::<Counter>();
    let a = a.start().await.unwrap();
    let seed = a.address().to_string();
    let mut b = cluster.start("b", &["--seed", &seed]);

    for round in 0..3 {
        until_sees(&a, 2).await;
        let old = a.spawn_on::<Counter>(&"b".into(), Some(round)).await.unwrap();
        let mut watcher = Probe::start(&a, |ctx| {
            ctx.trap_exits(true);
            ctx.monitor(old.pid());
            ctx.link(old.pid());
        });
        assert_eq!(old.call(Read).await, Ok(round));

        b.kill_9();
        // At once, mostly before anybody has noticed.
        b = cluster.start_at("b", &b.address.clone(), &["--seed", &seed]);

        assert_eq!(watcher.down().await.reason, ExitReason::NoConnection);
        assert_eq!(watcher.link_down().await.reason, ExitReason::NoConnection);
        let begun = Instant::now();
        let new = loop {
            match a.spawn_on::<Counter>(&"b".into(), Some(100)).await {
                Ok(new) if new.pid().node != old.pid().node => break new,
                _ if begun.elapsed() < SOON => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(new.call(Read).await, Ok(100));
        assert_eq!(old.call(Read).await, Err(CallError::NoProcess), "the old pid is dead");
        assert!(watcher.has_nothing(), "each notice once");
    }
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_seed_each_other_dial_at_once_and_lose_nothing() {
    for round in 0..8 {
        let home = Home::default();
        let settings = Settings {
            delay: Duration::from_millis(round % 4),
            jitter: Duration::from_millis(round % 3),
            seed: round,
            ..Settings::default()
        };
        let (to_a, to_b) = (Relay::start(None, settings), Relay::start(None, settings));
        let builder = |name| kinds(home.builder(name)).detect_in(SOON);
        let start_a = builder("a").seed(to_b.address().to_string());
        let start_b = builder("b").seed(to_a.address().to_string());
        // Credentials are made before, or one would wait for the other's.
        Home::builder(&home, "a").start().await.unwrap().stop().await;
        Home::builder(&home, "b").start().await.unwrap().stop().await;
        let (a, b) =
            tokio::join!(home.start_behind(&to_a, start_a), home.start_behind(&to_b, start_b));

        let talk = async |from: &Node, to: &'static str| {
            until_sees(from, 2).await;
            // It has answered, so it is up, and nothing else may come.
            let receiver = from.spawn_on::<Receiver>(&to.into(), ()).await.unwrap();
            let mut watcher = Probe::start(from, |ctx| ctx.monitor_nodes());
            send(&receiver, 0..500, mixed).await;
            assert_eq!(until_came(&receiver, 499, SOON).await, [(0, 499)]);
            assert!(watcher.has_nothing());
        };
        tokio::join!(talk(&a, "b"), talk(&b, "a"));
        tokio::join!(a.stop(), b.stop());
    }
}

// ----- the end -----

/// Small messages between large ones, 2 MB in all: some seconds on a bad road.
fn heavy(number: u64) -> usize {
    if number % 150 == 99 { 300_000 } else { 100 }
}

/// Runs a graceful end of `b` over a lossy road, after it has accepted a thousand messages for `a`.
async fn all_arrives_that_was_accepted_before(end: impl AsyncFnOnce(&Pair)) {
    let road = Settings { loss: 0.05, delay: Duration::from_millis(5), ..Settings::default() };
    let pair = Pair::start(road, |b| kinds(b).detect_in(SOON)).await;
    let to = pair.b.spawn_on::<Receiver>(&"a".into(), ()).await.unwrap();

    send(&to, 0..1_000, heavy).await;
    end(&pair).await;

    let report = pair.a.call(to.pid(), Report).await.unwrap();
    assert_eq!(report, [(0, 999)]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_delivers_all_that_it_has_accepted() {
    all_arrives_that_was_accepted_before(async |pair| pair.b.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_asked_to_leave_delivers_all_that_it_has_accepted() {
    all_arrives_that_was_accepted_before(async |pair| {
        let system = Dest::Remote(Name::new(SYSTEM).unwrap(), "b".into());
        pair.a.call(system, Leave).await.unwrap();
        pair.b.asked_to_leave().await;
        pair.b.stop().await;
        until("a alone", SOON, || pair.a.members().len() == 1).await;
    })
    .await;
}

async fn all_of_a_client_arrives(end: impl AsyncFnOnce(Client)) {
    let home = Home::default();
    let a = home.builder("a").start().await.unwrap();
    let road = Settings { loss: 0.05, delay: Duration::from_millis(5), ..Settings::default() };
    let relay = Relay::start(a.listen_address(), road);
    let client = client(&home, relay.address()).await;
    let receiver = a.spawn::<Receiver>(()).await.unwrap();

    for number in 0..1_000 {
        client.send(receiver.pid(), Numbered::new(number, heavy(number))).await.unwrap();
    }
    end(client).await;

    assert_eq!(until_came(&receiver, 999, SOON).await, [(0, 999)]);
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_delivers_all_that_it_has_accepted() {
    all_of_a_client_arrives(async |client| client.close().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_dropped_delivers_all_that_it_has_accepted() {
    all_of_a_client_arrives(async |client| drop(client)).await;
}

// ----- order -----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_pairs_keep_their_order_over_a_lossy_road() {
    let road = Settings {
        loss: 0.05,
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(2),
        ..Settings::default()
    };
    let pair = Pair::start(road, |b| kinds(b).detect_in(SOON)).await;
    let size = |pair: u64, number: u64| match (number + pair * 37) % 1_000 {
        0 => 70_000,
        1..=3 => 2_000,
        other => usize::try_from(other % 32).unwrap(),
    };

    let mut flows = Vec::new();
    for number in 0..20 {
        let (from, to) = if number % 2 == 0 { (&pair.a, "b") } else { (&pair.b, "a") };
        let receiver = from.spawn_on::<Receiver>(&to.into(), ()).await.unwrap();
        let sender = receiver.clone();
        let task = from.runtime().task(async move {
            send(&sender, 0..1_000, |message| size(number, message)).await;
        });
        flows.push((task, receiver));
    }

    for (task, receiver) in flows {
        task.join().await.unwrap();
        assert_eq!(until_came(&receiver, 999, SOON).await, [(0, 999)]);
    }
    pair.stop().await;
}
