//! Many strangers at once, and peers that send what nobody waits for.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use purlin_proto::{Refusal, Serial};
use purlin_transport::{DialError, Environment, WireConfig};
use tokio::task::JoinSet;

use super::raw::{at, certified, config, greet};
use super::{closed, node};
use crate::support::{Fabric, Node, World};

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// First packets of handshakes, each of another connection.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind((LOCAL, 0)).unwrap();
    sink.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let to = sink.local_addr().unwrap();
    let config = config(b"purlin/1", None);
    let endpoint = at(LOCAL.into());
    let (mut packets, mut dialing) = (Vec::new(), Vec::new());
    for _ in 0..count {
        // Kept, or it would say that it is closed.
        dialing.push(endpoint.connect_with(config.clone(), to, "node.purlin").unwrap());
        let sink = sink.try_clone().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut packet = vec![0; 2_000];
            let length = sink.recv(&mut packet).unwrap();
            packet.truncate(length);
            packet
        });
        packets.push(read.await.unwrap());
    }
    packets
}

fn stat(node: &Node, name: &str) -> u64 {
    let stats = node.endpoint.stats().snapshot();
    stats.iter().find(|(found, _)| *found == name).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_never_gone_on_with_keep_nobody_out() {
    let world = World::new(Fabric::Quic);
    let (a, b) = (world.node("a"), world.node("b"));
    let liar = UdpSocket::bind((LOCAL, 0)).unwrap();
    for packet in first_packets(300).await {
        liar.send_to(&packet, a.address()).unwrap();
    }

    let dialed = tokio::time::timeout(Duration::from_secs(4), b.endpoint.dial(a.address(), None));

    dialed.await.expect("before the others are given up").expect("it is let in");
    assert!(stat(&a, "handshakes.retried") >= 200, "{:?}", a.endpoint.stats().snapshot());
}

#[tokio::test]
async fn a_source_that_fails_too_often_is_not_heard_and_others_are() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    let config = config(b"purlin/1", None);
    let endpoint = at(LOCAL.into());
    let mut attempts = 0;
    while stat(&a, "handshakes.ignored") == 0 {
        attempts += 1;
        assert!(attempts < 1_000, "it is heard without end");
        let dialing = endpoint.connect_with(config.clone(), a.address(), "node.purlin").unwrap();
        // It is let in as far as its handshake goes, or not at all.
        drop(tokio::time::timeout(Duration::from_millis(300), dialing).await);
    }
    assert!(attempts > 60, "it has {attempts} attempts");

    let elsewhere = SocketAddr::from(([127, 0, 0, 2], 0));
    let wire = WireConfig::Quic { listen: elsewhere, environment: Environment::system() };
    let b = World::endpoint_on(wire, world.authority.issue(node("b")), 1, |_| {});

    b.endpoint.dial(a.address(), None).await.expect("another source is heard");
}

#[tokio::test]
async fn whose_certificate_is_revoked_is_heard_as_often_as_one_who_has_none() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    a.record.refuse_all(Refusal::Revoked { serial: Serial::new(1, [0; 10]) });
    let revoked = ["b", "c", "d", "e", "f", "g", "h", "i"].map(|name| world.node(name));
    let (mut refused, begun) = (0, Instant::now());
    while stat(&a, "handshakes.ignored") == 0 {
        assert!(begun.elapsed() < Duration::from_mins(1), "refused {refused} times, and no end");
        let mut dialing = JoinSet::new();
        for node in &revoked {
            let (endpoint, to) = (node.endpoint.clone(), a.address());
            dialing.spawn(async move {
                tokio::time::timeout(Duration::from_secs(1), endpoint.dial(to, None)).await
            });
        }
        while let Some(dialed) = dialing.join_next().await {
            let is_refusal = |error| matches!(error, DialError::Refused(Refusal::Revoked { .. }));
            refused += u32::from(dialed.unwrap().is_ok_and(|dialed| dialed.is_err_and(is_refusal)));
        }
    }
    assert!(refused > 40, "refused {refused} times");
}

#[tokio::test]
async fn who_has_not_said_hello_can_send_little() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    let (_endpoint, peer) = certified(a.address(), &world.authority, node("b")).await;
    let (mut control, mut more) = (peer.open_uni().await.unwrap(), peer.open_uni().await.unwrap());
    // The beginning of a greeting, and no end.
    control.write_all(&[1, 255, 0, 0, 0]).await.unwrap();

    let soon = Duration::from_millis(300);
    assert!(tokio::time::timeout(soon, peer.open_uni()).await.is_err(), "a third stream");
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(soon, more.write(&[0; 4096])).await {
        sent += written.unwrap();
        assert!(sent <= 128 << 10, "{sent} bytes and no end");
    }
}

#[tokio::test]
async fn who_is_let_in_has_the_streams_of_a_peer() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    let (_endpoint, peer) = certified(a.address(), &world.authority, node("b")).await;
    let _control = greet(&peer, "b").await;

    for _ in 0..31 {
        let opened = tokio::time::timeout(Duration::from_secs(5), peer.open_uni()).await;
        opened.expect("it is granted").expect("the connection lasts");
    }
}

/// A lane that a hostile peer has opened.
async fn lane(peer: &quinn::Connection) -> quinn::SendStream {
    let mut lane = peer.open_uni().await.unwrap();
    lane.write_all(&[2, 0]).await.unwrap();
    lane
}

#[tokio::test]
async fn markers_without_their_large_frames_end_the_connection() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    let (_endpoint, peer) = certified(a.address(), &world.authority, node("b")).await;
    let _control = greet(&peer, "b").await;
    let mut lane = lane(&peer).await;
    for thousand in 0..100_u64 {
        let mut markers = BytesMut::new();
        for id in thousand * 1_000..(thousand + 1) * 1_000 {
            markers.put_u32_le(1 << 31);
            markers.put_u32_le(7);
            markers.put_u64_le(id);
            markers.put_u32_le(1 << 20);
        }
        // It is closed somewhere on the way.
        if lane.write_all(&markers).await.is_err() {
            break;
        }
    }

    let why = closed(&peer).await;
    let Refusal::Protocol { detail } = &why else { panic!("{why:?}") };
    assert!(detail.contains("markers"), "{detail}");
}

#[tokio::test]
async fn empty_frames_behind_a_marker_fill_a_lane_as_others_do() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    let (_endpoint, peer) = certified(a.address(), &world.authority, node("b")).await;
    let _control = greet(&peer, "b").await;
    let mut lane = lane(&peer).await;
    let mut marker = BytesMut::new();
    marker.put_u32_le(1 << 31);
    marker.put_u32_le(7);
    marker.put_u64_le(1);
    marker.put_u32_le(1 << 20);
    lane.write_all(&marker).await.unwrap();
    let mut empty = BytesMut::new();
    for _ in 0..100_000 {
        empty.put_u64_le(7 << 32);
    }

    let mut sent = 0;
    let soon = Duration::from_secs(2);
    while tokio::time::timeout(soon, lane.write_all(&empty)).await.is_ok_and(|sent| sent.is_ok()) {
        sent += 100_000;
        assert!(sent < 4_000_000, "it is read without end");
    }

    assert!(sent >= 500_000, "a full lane holds a million of them, not {sent}");
    drop(lane);
}
