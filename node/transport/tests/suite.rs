//! What a link promises, on both carriers: each case runs over QUIC on loopback and in memory.

#![expect(clippy::unwrap_used, reason = "a test")]

mod strangers;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::{NodeHello, NodeId, Refusal, Role, Serial, Versions, View};
use purlin_transport::{Closed, DialError, Flow, Identity, Network, Priority, Sent};
use support::{Authority, Fabric, Node, Seen, World, by_flow};

/// Runs a case over both carriers.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod quic {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::World::new(super::Fabric::Quic)).await;
            })*
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::World::new(super::Fabric::memory())).await;
            })*
        }
    };
}

on_both! {
    frames_of_a_flow_keep_their_order_whatever_their_size
    two_nodes_that_dial_at_once_keep_one_connection_and_lose_nothing
    two_that_dial_each_others_address_at_once_keep_one_connection_and_lose_nothing
    a_graceful_close_delivers_everything_accepted_before_it
    whatever_was_accepted_last_arrives_before_the_close
    a_newer_life_replaces_the_older_ones_link
    a_link_lets_its_receiver_go_when_it_ends
    another_cluster_is_refused_with_its_name
    without_a_common_version_either_side_is_told_what_the_other_speaks
    a_refusal_of_the_owner_reaches_the_dialer
    who_is_refused_as_dead_may_say_the_same
    what_one_says_who_is_not_believed_is_not_heard
    a_node_that_listens_everywhere_is_where_its_packets_come_from
    a_client_certificate_is_refused_as_a_node
    a_full_lane_refuses_users_and_is_ready_again
    control_frames_and_datagrams_arrive
    a_large_frame_does_not_delay_another_flow
}

/// A frame that says its place and has a size.
fn frame(number: u32, size: usize) -> Bytes {
    let mut bytes = vec![(number % 251) as u8; size.max(4)];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes.into()
}

async fn frames_of_a_flow_keep_their_order_whatever_their_size(world: World) {
    let (a, b) = (world.node("a"), world.node("b"));
    let sizes = [1, 100, 70_000, 10, 1 << 20, 3, 65_536, 65_537, 200, 20 << 20, 5, 300_000];

    for round in 0..40_u32 {
        for flow in 0..10_u32 {
            let size = sizes[(round * 7 + flow) as usize % sizes.len()];
            let size = if round > 3 && size > 1 << 20 { 9 } else { size };
            a.send(&b, Flow(flow), &frame(round, size)).await;
        }
    }

    b.record.until("all frames", |seen| count_frames(seen) == 400).await;
    for (flow, frames) in by_flow(b.record.frames()) {
        let numbers: Vec<_> = frames.iter().map(number).collect();
        assert_eq!(numbers, (0..40).collect::<Vec<_>>(), "{flow:?}");
    }
}

fn number(frame: &Bytes) -> u32 {
    u32::from_le_bytes(*frame.first_chunk().unwrap())
}

fn count_frames(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| matches!(seen, Seen::Frame(..))).count()
}

async fn two_nodes_that_dial_at_once_keep_one_connection_and_lose_nothing(world: World) {
    for _ in 0..20 {
        let (a, b) = (world.node("a"), world.node("b"));
        for n in 0..10 {
            a.send(&b, Flow(1), &frame(n, 10)).await;
            b.send(&a, Flow(1), &frame(n, 10)).await;
        }

        for node in [&a, &b] {
            node.record.until("ten frames", |seen| count_frames(seen) == 10).await;
            let numbers: Vec<_> = node.record.frames().iter().map(|(_, f)| number(f)).collect();
            assert_eq!(numbers, (0..10).collect::<Vec<_>>());
            assert_eq!(node.endpoint.links().len(), 1);
        }
    }
}

/// As seeds are dialed: nobody knows beforehand which node is there.
async fn two_that_dial_each_others_address_at_once_keep_one_connection_and_lose_nothing(
    world: World,
) {
    for round in 0..50 {
        let (a, b) = (Arc::new(world.node("a")), Arc::new(world.node("b")));
        let speak = |from: &Arc<Node>, to: &Arc<Node>| {
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            tokio::spawn(async move {
                match from.endpoint.dial(to.address(), None).await {
                    Ok(_) | Err(DialError::Refused(Refusal::Duplicate)) => {}
                    Err(error) => panic!("round {round}: {error:?}"),
                }
                for n in 0..20 {
                    from.send(&to, Flow(n % 2), &frame(n, 10)).await;
                }
            })
        };
        let (one, other) = (speak(&a, &b), speak(&b, &a));
        one.await.unwrap();
        other.await.unwrap();

        for node in [&a, &b] {
            node.record.until("twenty frames", |seen| count_frames(seen) == 20).await;
            for (flow, frames) in by_flow(node.record.frames()) {
                let numbers: Vec<_> = frames.iter().map(number).collect();
                let sent: Vec<_> = (0..20).filter(|n| n % 2 == flow.0).collect();
                assert_eq!(numbers, sent, "round {round}");
            }
            let seen = node.record.all();
            let ups = seen.iter().filter(|seen| matches!(seen, Seen::Up(_))).count();
            let downs = seen.iter().filter(|seen| matches!(seen, Seen::Down(..))).count();
            assert_eq!((ups, downs), (1, 0), "round {round}");
        }
        let [at_a, at_b] = [&a, &b].map(|node| node.endpoint.links());
        assert_eq!((at_a.len(), at_b.len()), (1, 1));
        assert_eq!(at_a[0].peer().association, at_b[0].peer().association);
    }
}

async fn a_graceful_close_delivers_everything_accepted_before_it(world: World) {
    let (a, b) = (world.node("a"), world.node("b"));
    for n in 0..500 {
        a.send(&b, Flow(n % 7), &frame(n, if n % 50 == 0 { 200_000 } else { 100 })).await;
    }

    a.endpoint.close(&Refusal::Stopping).await;

    b.record.until("the end", |seen| matches!(seen.last(), Some(Seen::Down(..)))).await;
    assert_eq!(b.record.frames().len(), 500);
    assert_eq!(
        b.record.all().last(),
        Some(&Seen::Down("a".into(), Closed::Remote(Refusal::Stopping)))
    );
}

/// The close comes right behind the last frames, and must not be seen before them.
async fn whatever_was_accepted_last_arrives_before_the_close(world: World) {
    for round in 0..25 {
        let (a, b) = (world.node("a"), world.node("b"));
        for n in 0..60 {
            a.send(&b, Flow(n), &frame(n, if n % 20 == 0 { 100_000 } else { 1_000 })).await;
        }

        a.endpoint.close(&Refusal::Stopping).await;

        b.record.until("the end", |seen| matches!(seen.last(), Some(Seen::Down(..)))).await;
        assert_eq!(b.record.frames().len(), 60, "round {round}");
    }
}

async fn a_newer_life_replaces_the_older_ones_link(world: World) {
    let b = world.node("b");
    let old = world.node_with("a", 1, |_| {});
    old.endpoint.dial(b.address(), None).await.unwrap();
    b.record.until("the old life", |seen| seen.contains(&Seen::Up("a".into()))).await;

    let new = world.node_with("a", 2, |_| {});
    new.endpoint.dial(b.address(), None).await.unwrap();

    b.record.until("the new life", |seen| seen.len() == 3).await;
    let seen = b.record.all();
    assert!(matches!(&seen[..], [Seen::Up(_), Seen::Down(..), Seen::Up(_)]), "{seen:?}");
    // It is told before anything can be sent over it.
    while b.endpoint.link(&new.id).is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(b.endpoint.link(&old.id).is_none());
    let again = old.endpoint.dial(b.address(), None).await;
    assert!(
        matches!(again, Err(DialError::Refused(Refusal::Superseded { newest: 2 })) | Ok(_)),
        "{again:?}"
    );
}

async fn a_link_lets_its_receiver_go_when_it_ends(world: World) {
    let (a, b) = (world.node("a"), world.node("b"));
    let idle = Arc::strong_count(&b.record);
    a.send(&b, Flow(1), &frame(0, 10)).await;
    b.record.until("a frame", |seen| count_frames(seen) == 1).await;
    // As a receiver would that answers.
    let link = b.endpoint.links().pop().unwrap();
    assert_eq!(Arc::strong_count(&b.record), idle + 1);

    a.endpoint.close(&Refusal::Stopping).await;

    b.record.until("the end", |seen| matches!(seen.last(), Some(Seen::Down(..)))).await;
    assert_eq!(Arc::strong_count(&b.record), idle, "{}", link.peer().name);
}

async fn another_cluster_is_refused_with_its_name(world: World) {
    let a = world.node("a");
    let b = world.node_with("b", 1, |config| config.cluster = "other".parse().unwrap());

    let refused = a.endpoint.dial(b.address(), None).await.unwrap_err();

    let theirs = "other".parse().unwrap();
    assert_eq!(refused, DialError::Refused(Refusal::Cluster { theirs }));
}

async fn without_a_common_version_either_side_is_told_what_the_other_speaks(world: World) {
    let speaks = |oldest, newest| Versions { oldest, newest };
    let node = |name, versions| world.node_with(name, 1, |config| config.versions = versions);
    let (old, new) = (node("old", speaks(1, 2)), node("new", speaks(3, 4)));
    let both = node("both", speaks(2, 3));

    let from_old = old.endpoint.dial(new.address(), None).await.unwrap_err();
    let from_new = new.endpoint.dial(old.address(), None).await.unwrap_err();

    let refusal = |theirs, ours| DialError::Refused(Refusal::Version { theirs, ours });
    assert_eq!(from_old, refusal(speaks(3, 4), speaks(1, 2)));
    assert_eq!(from_new, refusal(speaks(1, 2), speaks(3, 4)));
    let text = from_old.to_string();
    assert!(text.contains('2') && text.contains('3'), "it says which: {text}");
    for node in [&old, &new] {
        assert!(node.record.all().is_empty() && node.endpoint.links().is_empty());
        let stats = node.endpoint.stats().snapshot();
        assert!(stats.contains(&("connections.refused", 1)), "{stats:?}");
        node.endpoint.dial(both.address(), None).await.unwrap();
    }
}

async fn a_refusal_of_the_owner_reaches_the_dialer(world: World) {
    let (a, b) = (world.node("a"), world.node("b"));
    let refusal = declared_down_by("b");
    b.record.refuse_all(refusal.clone());

    let refused = a.endpoint.dial(b.address(), None).await.unwrap_err();

    assert_eq!(refused, DialError::Refused(refusal));
}

fn declared_down_by(node: &str) -> Refusal {
    let sample = (0..16).collect();
    let view = View { members: 3, first: "b".into(), sample };
    let by = NodeId::new(node.parse().unwrap(), 1);
    Refusal::DeclaredDown { creation: 1, by, view: Box::new(view) }
}

async fn who_is_refused_as_dead_may_say_the_same(world: World) {
    let (a, b, c) = (world.node("a"), world.node("b"), world.node("c"));
    b.record.refuse_all(declared_down_by("b"));
    a.record.answer_all(declared_down_by("a"));
    c.record.answer_all(declared_down_by("a"));

    for node in [&c, &a] {
        let refused = node.endpoint.dial(b.address(), None).await.unwrap_err();
        assert_eq!(refused, DialError::Refused(declared_down_by("b")));
    }

    let answer = Seen::Answered(declared_down_by("a"));
    b.record.until("the answer", |seen| seen.contains(&answer)).await;
    assert_eq!(b.record.all(), [answer], "and none in the name of another");
}

async fn what_one_says_who_is_not_believed_is_not_heard(world: World) {
    let (a, b) = (world.node("a"), world.node("b"));
    let revoked = Refusal::Revoked { serial: Serial::of(&[7]) };
    a.record.believe_nobody(revoked.clone());
    a.record.answer_all(declared_down_by("a"));
    b.record.refuse_all(declared_down_by("b"));

    let refused = a.endpoint.dial(b.address(), None).await.unwrap_err();

    assert_eq!(refused, DialError::Unacceptable(revoked.clone()));
    // It may hear why. What it is not told is that it is dead, as one is whose refusal was heard.
    let told = |seen: &[Seen]| seen.contains(&Seen::Answered(declared_down_by("a")));
    assert!(!told(&b.record.all()) && a.record.all().is_empty());
}

async fn a_node_that_listens_everywhere_is_where_its_packets_come_from(world: World) {
    let everywhere = "0.0.0.0:7".parse().unwrap();
    let change = |config: &mut purlin_transport::Config| {
        config.node.as_mut().unwrap().address = everywhere;
    };
    let (a, b) = (world.node_with("a", 1, change), world.node("b"));

    let dialed = b.endpoint.dial(a.address(), None).await.unwrap();

    let told = dialed.peer().node.as_ref().unwrap().address;
    assert_eq!((told.ip(), told.port()), (a.address().ip(), 7));
}

async fn a_client_certificate_is_refused_as_a_node(world: World) {
    let client = Identity { name: "c".into(), role: Role::Client };
    let impostor = world.endpoint(world.authority.issue(client), 1, |_| {});
    let b = world.node("b");

    let refused = impostor.endpoint.dial(b.address(), None).await.unwrap_err();

    assert!(matches!(refused, DialError::Refused(Refusal::Role { .. })), "{refused:?}");
    assert!(b.record.all().is_empty());
}

async fn a_full_lane_refuses_users_and_is_ready_again(world: World) {
    let a = world.node_with("a", 1, |config| config.lane_bytes = 64 << 10);
    let b = world.node("b");
    let link = a.endpoint.dial(b.address(), None).await.unwrap();

    let mut accepted = 0;
    let big = frame(0, 60_000);
    while link.send_bytes(Flow(1), Priority::User, &big) == Sent::Accepted {
        accepted += 1;
        assert!(accepted < 10_000, "a lane without a bound");
    }
    assert_eq!(link.send_bytes(Flow(1), Priority::System, b"system"), Sent::Accepted);
    tokio::time::timeout(Duration::from_secs(5), link.ready(Flow(1))).await.unwrap();

    assert_eq!(link.send_bytes(Flow(1), Priority::User, b"last"), Sent::Accepted);
    b.record.until("all", |seen| count_frames(seen) == accepted + 2).await;
}

async fn control_frames_and_datagrams_arrive(world: World) {
    let (a, b) = (world.node("a"), world.node("b"));
    let link = a.endpoint.dial(b.address(), Some("b".into())).await.unwrap();

    link.send_control(Bytes::from_static(b"control"));
    link.send_datagram(Bytes::from_static(b"datagram"));

    b.record
        .until("both", |seen| {
            seen.contains(&Seen::Control(Bytes::from_static(b"control")))
                && seen.contains(&Seen::Datagram(Bytes::from_static(b"datagram")))
        })
        .await;
    assert!(link.heard() > 0);
}

async fn a_large_frame_does_not_delay_another_flow(world: World) {
    let (a, b) = (world.node("a"), world.node("b"));
    a.send(&b, Flow(8), &frame(0, 10)).await;
    b.record.until("a link", |seen| count_frames(seen) == 1).await;

    a.send(&b, Flow(0), &frame(1, 60 << 20)).await;
    a.send(&b, Flow(4), &frame(3, 10)).await;
    // Waits until most of the large one has left.
    a.send(&b, Flow(0), &frame(2, 10)).await;

    b.record.until("all", |seen| count_frames(seen) == 4).await;
    let order: Vec<_> = b.record.frames().iter().map(|(_, f)| number(f)).collect();
    assert_eq!(order, [0, 3, 1, 2], "flow 4 shares the lane of flow 0");
}

fn node_identity(name: &'static str) -> Identity {
    Identity { name: name.into(), role: Role::Node }
}

#[tokio::test]
async fn an_unknown_authority_is_named_on_the_dialing_side() {
    let world = World::new(Fabric::Quic);
    let b = world.node("b");
    let stranger = world.endpoint(Authority::new().issue(node_identity("a")), 1, |_| {});

    let refused = stranger.endpoint.dial(b.address(), None).await.unwrap_err();

    assert!(
        matches!(&refused, DialError::TheirCertificate(why) if why.contains("authority")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_told_so() {
    let world = World::new(Fabric::Quic);
    let b = world.node("b");
    let expired = world.authority.issue_with(node_identity("a"), |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let a = world.endpoint(expired, 1, |_| {});

    let refused = a.endpoint.dial(b.address(), None).await.unwrap_err();

    assert!(
        matches!(&refused, DialError::OurCertificate(why) if why.contains("expired")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_client_certificate_cannot_serve() {
    let world = World::new(Fabric::Quic);
    let client = Identity { name: "c".into(), role: Role::Client };
    let impostor = world.endpoint(world.authority.issue(client), 1, |_| {});
    let a = world.node("a");

    let refused = a.endpoint.dial(impostor.address(), None).await.unwrap_err();

    assert!(matches!(refused, DialError::TheirCertificate(_)), "{refused:?}");
}

#[tokio::test]
async fn garbage_at_the_port_changes_nothing() {
    let world = World::new(Fabric::Quic);
    let (a, b) = (world.node("a"), world.node("b"));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..200_u8 {
        let garbage = vec![n.wrapping_mul(37) | 0xc0; usize::from(n) * 7];
        socket.send_to(&garbage, b.address()).unwrap();
    }

    a.send(&b, Flow(0), &frame(1, 10)).await;

    b.record.until("a frame", |seen| count_frames(seen) == 1).await;
}

#[tokio::test]
async fn a_closed_port_gives_a_hint() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dialer = a.endpoint.clone();
    let dialing = tokio::spawn(async move { dialer.dial(closed, None).await });

    a.record.until("a hint", |seen| seen.contains(&Seen::Hint(closed))).await;
    dialing.abort();
}

/// Cuts need a network that can be cut, and time that can be skipped.
fn memory_world() -> (World, Network) {
    let world = World::new(Fabric::memory());
    let Fabric::Memory(network, _) = &world.fabric else { unreachable!() };
    let network = network.clone();
    (world, network)
}

async fn connected(world: &World) -> (Node, Node) {
    let (a, b) = (world.node("a"), world.node("b"));
    a.send(&b, Flow(0), &frame(0, 10)).await;
    b.record.until("a frame", |seen| count_frames(seen) == 1).await;
    (a, b)
}

/// Whoever begins, and by whatever way: a seed's address, something to send, or both.
#[tokio::test(start_paused = true)]
async fn whenever_two_nodes_dial_each_other_one_connection_stays_and_carries_all() {
    for seed in 0..300_u32 {
        let world = World::new(Fabric::Memory(Network::new(seed.into()), 1.into()));
        let Fabric::Memory(network, _) = &world.fabric else { unreachable!() };
        network.set_latency(Duration::from_micros(u64::from(seed % 5) * 500));
        let (a, b) = (world.node("a"), world.node("b"));
        let mixed = seed.wrapping_mul(0x9e37_79b9);
        let speak = async |from: &Node, to: &Node, chance: u32| {
            tokio::time::sleep(Duration::from_micros(u64::from(chance >> 4) * 100)).await;
            if chance & 1 == 0 {
                let dialed = from.endpoint.dial(to.address(), None).await;
                let fine = matches!(dialed, Ok(_) | Err(DialError::Refused(Refusal::Duplicate)));
                assert!(fine, "seed {seed}: {dialed:?}");
            }
            for n in 0..10 {
                from.send(to, Flow(n % 2), &frame(n, if n == 5 { 70_000 } else { 10 })).await;
            }
        };

        tokio::join!(speak(&a, &b, (mixed >> 8) & 0xff), speak(&b, &a, (mixed >> 16) & 0xff));

        for node in [&a, &b] {
            node.record.until("ten frames", |seen| count_frames(seen) == 10).await;
            for (flow, frames) in by_flow(node.record.frames()) {
                let numbers: Vec<_> = frames.iter().map(number).collect();
                let sent: Vec<_> = (0..10).filter(|n| n % 2 == flow.0).collect();
                assert_eq!(numbers, sent, "seed {seed}");
            }
            let downs = node.record.all().iter().filter(|s| matches!(s, Seen::Down(..))).count();
            assert_eq!((node.endpoint.links().len(), downs), (1, 0), "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_link_is_lost_on_both_sides_and_made_anew_after_healing() {
    let (world, network) = memory_world();
    let (a, b) = connected(&world).await;

    network.cut(a.address(), b.address());
    for node in [&a, &b] {
        node.record.until("loss", |s| s.iter().any(|s| matches!(s, Seen::Down(..)))).await;
    }
    network.heal(a.address(), b.address());
    a.send(&b, Flow(0), &frame(1, 10)).await;

    b.record.until("another frame", |seen| count_frames(seen) == 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_node_that_cannot_be_reached_is_reported_lost() {
    let (world, network) = memory_world();
    let (a, b) = (world.node("a"), world.node("b"));
    network.cut(a.address(), b.address());

    a.send(&b, Flow(0), &frame(0, 10)).await;

    a.record.until("a report", |seen| seen.contains(&Seen::Unreachable(b.id))).await;
    let now = a.endpoint.send_bytes(b.id, b.address(), Flow(0), Priority::User, &frame(1, 9));
    assert_eq!(now, Sent::Unreachable, "within the backoff");
}

/// What b gets of two frames that wait for a dial, with something between them.
async fn waiting(between: impl FnOnce(&Node, &Node)) -> Vec<(Flow, Bytes)> {
    let (world, _) = memory_world();
    let (a, b) = (world.node("a"), world.node("b"));
    let send = |number| {
        let frame = frame(number, 10);
        let sent = a.endpoint.send_bytes(b.id, b.address(), Flow(0), Priority::User, &frame);
        assert_eq!(sent, Sent::Accepted);
    };

    send(0);
    between(&a, &b);
    send(1);

    b.record.until("the last", |seen| seen.contains(&Seen::Frame(Flow(0), frame(1, 10)))).await;
    b.record.frames()
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_node_is_dropped_when_that_is_given_up() {
    let came = waiting(|a, b| a.endpoint.close_peer(&b.id, &Refusal::Stopping)).await;

    assert_eq!(came, [(Flow(0), frame(1, 10))]);
}

#[tokio::test(start_paused = true)]
async fn what_a_life_of_a_node_has_said_does_not_come_from_its_next() {
    let came = waiting(|a, _| {
        let id = NodeId::new(a.id.name, a.id.creation + 1);
        a.endpoint.set_node(Some(NodeHello { id, address: a.address() }));
    })
    .await;

    assert_eq!(came, [(Flow(0), frame(1, 10))]);
}

#[tokio::test(start_paused = true)]
async fn a_life_that_is_given_up_does_not_take_the_next_along() {
    let (world, _) = memory_world();
    let (a, b) = connected(&world).await;
    let next = world.node_with("b", 2, |_| {});
    next.send(&a, Flow(0), &frame(1, 10)).await;
    a.record.until("the next life", |seen| count_frames(seen) == 1).await;
    let seen = a.record.all().len();

    a.endpoint.close_peer(&b.id, &Refusal::Stopping);

    assert!(a.endpoint.link(&next.id).is_some());
    assert_eq!(a.record.all().len(), seen, "{:?}", a.record.all());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_life_is_told_lost_before_the_next_is_there() {
    let (world, network) = memory_world();
    let (a, b) = (world.node("a"), world.node("b"));
    network.cut(a.address(), b.address());
    a.send(&b, Flow(0), &frame(0, 10)).await;

    let next = world.node_with("b", 2, |_| {});
    next.endpoint.dial(a.address(), None).await.unwrap();
    a.send(&next, Flow(0), &frame(1, 10)).await;

    next.record.until("a frame", |seen| count_frames(seen) == 1).await;
    assert_eq!(next.record.frames(), [(Flow(0), frame(1, 10))]);
    assert_eq!(a.record.all(), [Seen::Unreachable(b.id), Seen::Up("b".into())]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_for_a_node_while_its_end_is_told() {
    let ends: [fn(&Node, &Node, &Network); 2] = [
        |a, b, _| a.endpoint.close_peer(&b.id, &Refusal::Stopping),
        |a, b, network| network.cut(a.address(), b.address()),
    ];
    for end in ends {
        let (world, network) = memory_world();
        let (a, b) = connected(&world).await;
        let (tell, told) = std::sync::mpsc::channel();
        let (endpoint, to, at) = (a.endpoint.clone(), b.id, b.address());
        a.record.on_end(move || {
            let send = |priority| endpoint.send_bytes(to, at, Flow(0), priority, &frame(9, 10));
            tell.send([send(Priority::User), send(Priority::System)]).unwrap();
        });

        end(&a, &b, &network);
        a.record.until("the end", |s| s.iter().any(|s| matches!(s, Seen::Down(..)))).await;

        assert_eq!(told.recv().unwrap(), [Sent::Full, Sent::Unreachable]);
        network.heal(a.address(), b.address());
        a.endpoint.ready(&b.id, Flow(0)).await;
        a.send(&b, Flow(0), &frame(1, 10)).await;
        b.record.until("another frame", |seen| count_frames(seen) == 2).await;
        assert_eq!(b.record.frames().last(), Some(&(Flow(0), frame(1, 10))));
    }
}

#[tokio::test(start_paused = true)]
async fn datagrams_are_lost_at_the_rate_that_is_set() {
    let (world, network) = memory_world();
    let (a, b) = connected(&world).await;
    let link = a.endpoint.link(&b.id).unwrap();
    network.set_loss(0.5);

    for _ in 0..1000 {
        link.send_datagram(Bytes::from_static(b"x"));
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    let arrived = b.record.all().iter().filter(|seen| matches!(seen, Seen::Datagram(_))).count();
    assert!((400..600).contains(&arrived), "{arrived} of 1000");
}

/// Sends as much as is taken in one go while a node is dialed; returns how many frames were.
fn fill(a: &Node, to: NodeId, at: SocketAddr, priority: Priority, frame: &Bytes) -> (u32, Sent) {
    let send = |_| a.endpoint.send_bytes(to, at, Flow(0), priority, frame);
    let mut taken = 0;
    let refused = (0..1_000_000).map(send).find(|sent| {
        taken += u32::from(*sent == Sent::Accepted);
        *sent != Sent::Accepted
    });
    (taken, refused.expect("it is bounded"))
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_a_dial_does_not_jam_the_connection_that_comes_of_it() {
    let (world, _) = memory_world();
    let (a, b) = (world.node_with("a", 1, |config| config.lane_bytes = 64 << 10), world.node("b"));

    let frame = frame(0, 100);
    let (taken, refused) = fill(&a, b.id, b.address(), Priority::User, &frame);

    assert_eq!(refused, Sent::Full);
    b.record.until("all of it", |seen| count_frames(seen) == taken as usize).await;
    assert!(a.endpoint.link(&b.id).is_some(), "{:?}", a.record.all());
}

#[tokio::test(start_paused = true)]
async fn system_frames_that_wait_for_a_dial_are_bounded_and_their_loss_is_told() {
    let (world, _) = memory_world();
    let a = world.node("a");
    let (nobody, nowhere) = (NodeId::new("nobody".into(), 1), SocketAddr::from(([10, 9, 9, 9], 9)));

    let (taken, refused) = fill(&a, nobody, nowhere, Priority::System, &frame(0, 1 << 20));

    assert!((16..64).contains(&taken), "{taken} MiB");
    assert_eq!(refused, Sent::Unreachable);
    a.record.until("a report", |seen| seen.contains(&Seen::Unreachable(nobody))).await;
}
