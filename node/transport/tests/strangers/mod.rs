//! The door for those without a certificate: whom they tell what they know, and what they may do.

mod crowd;
mod raw;

use std::time::Duration;

use bytes::Bytes;
use purlin_proto::limits::JOIN_REQUEST_BYTES;
use purlin_proto::{Refusal, Role};
use purlin_transport::{Credentials, DialError, Identity, ask_to_join};

use self::raw::stranger;
use crate::support::{Authority, Fabric, Seen, World};

const KNOCK: Bytes = Bytes::from_static(b"knock");

fn node(name: &'static str) -> Identity {
    Identity { name: name.into(), role: Role::Node }
}

/// Waits for the far end to close, and says what for.
async fn closed(connection: &quinn::Connection) -> Refusal {
    let closed = tokio::time::timeout(Duration::from_secs(10), connection.closed());
    match closed.await.expect("it is closed") {
        quinn::ConnectionError::ApplicationClosed(close) => {
            purlin_proto::codec::from_bytes(&close.reason, 8 << 10).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_request_gets_one_answer_without_a_certificate() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");

    let answer = ask_to_join(a.address(), world.authority.fingerprint(), KNOCK).await;

    assert_eq!(answer, Ok(KNOCK));
    assert_eq!(a.record.all(), [Seen::Asked(KNOCK)]);
}

#[tokio::test]
async fn an_interceptor_of_another_authority_never_sees_the_request() {
    let world = World::new(Fabric::Quic);
    let evil = Authority::new();
    let (chain, key) = evil.pair(node("a"));
    // With the true authority's certificate, which anybody can have.
    let shown = format!("{chain}{}", world.authority.pem());
    for credentials in [
        Credentials::from_pem(evil.pem(), &chain, &key).unwrap(),
        Credentials::from_pem(evil.pem(), &shown, &key).unwrap(),
        Credentials::from_pem(world.authority.pem(), &shown, &key).unwrap(),
    ] {
        let interceptor = world.endpoint(credentials, 1, |_| {});
        let pinned = world.authority.fingerprint();

        let answer = ask_to_join(interceptor.address(), pinned, KNOCK).await;

        assert!(matches!(answer, Err(DialError::TheirCertificate(_))), "{answer:?}");
        assert_eq!(interceptor.record.all(), []);
    }
}

#[tokio::test]
async fn a_client_of_the_authority_cannot_take_anybody_in() {
    let world = World::new(Fabric::Quic);
    let identity = Identity { name: "c".into(), role: Role::Client };
    let client = world.endpoint(world.authority.issue(identity), 1, |_| {});

    let answer = ask_to_join(client.address(), world.authority.fingerprint(), KNOCK).await;

    assert!(matches!(answer, Err(DialError::TheirCertificate(_))), "{answer:?}");
    assert_eq!(client.record.all(), []);
}

#[tokio::test]
async fn an_expired_certificate_of_the_node_is_told_with_advice_about_clocks() {
    let world = World::new(Fabric::Quic);
    let expired = world.authority.issue_with(node("a"), |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let a = world.endpoint(expired, 1, |_| {});

    let answer = ask_to_join(a.address(), world.authority.fingerprint(), KNOCK).await;

    let Err(DialError::TheirCertificate(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("check the clocks"), "{why}");
}

#[tokio::test]
async fn without_a_certificate_nobody_is_a_peer() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    let (_endpoint, connection) = stranger(a.address(), b"purlin/1").await;

    let refused = closed(&connection).await;

    assert!(matches!(refused, Refusal::Identity { .. }), "{refused:?}");
    assert_eq!(a.record.all(), []);
}

#[tokio::test]
async fn garbage_at_the_door_ends_the_connection_and_nothing_else() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    let too_long = vec![b'k'; JOIN_REQUEST_BYTES + 1];
    for garbage in [&b""[..], b"\xff\0\x80", &too_long] {
        let (_endpoint, connection) = stranger(a.address(), b"purlin-join/1").await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(garbage).await.unwrap();
        // It may be closed already, because that was too long.
        drop(stream.finish());

        let refused = closed(&connection).await;

        assert!(matches!(refused, Refusal::Protocol { .. }), "{refused:?}");
    }
    let answer = ask_to_join(a.address(), world.authority.fingerprint(), KNOCK).await;
    assert_eq!(answer, Ok(KNOCK));
}

#[tokio::test]
async fn one_source_cannot_keep_the_door_shut_for_long() {
    let world = World::new(Fabric::Quic);
    let a = world.node("a");
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(stranger(a.address(), b"purlin-join/1").await);
    }
    let pinned = world.authority.fingerprint();
    let one_more = ask_to_join(a.address(), pinned, KNOCK).await;
    assert_eq!(one_more, Err(DialError::Refused(Refusal::Busy)));

    for (_, connection) in &idle {
        assert_eq!(closed(connection).await, Refusal::Silent);
    }

    assert_eq!(ask_to_join(a.address(), pinned, KNOCK).await, Ok(KNOCK));
}
