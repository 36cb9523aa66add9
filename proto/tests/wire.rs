//! What goes over the wire comes back the same, is written down as it always was, and cannot hurt
//! when it is hostile.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use purlin_proto::codec::{self, DecodeError};
use purlin_proto::hello::Capabilities;
use purlin_proto::limits::{FRAME_BYTES, RECEIVERS};
use purlin_proto::session::{Request, Update};
use purlin_proto::{
    CallError, Codec, Dest, Down, Envelope, ExitReason, Fault, Frame, Hello, MessageName,
    MessageRef, Name, NodeHello, NodeId, NodeName, Payload, Pick, Pid, Reference, Refusal, Serials,
    Signal, Spawn, SpawnError, Target, Versions, View,
};

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn pid() -> Pid {
    NodeId::new("web-1".into(), 1_763_700_000_000).pid(42)
}

fn message() -> MessageName {
    name("counter.add").into()
}

fn payload() -> Payload {
    Payload { codec: Codec::Bincode, bytes: Bytes::from_static(b"\x05\0\0\0\0\0\0\0") }
}

/// One of every signal.
fn signals() -> Vec<Signal> {
    let reference = Reference(7);
    let remaining = Duration::from_secs(5);
    let reason = ExitReason::Error(Fault::new("disk on fire", Some("at main".into())));
    let spawn = Spawn {
        reference,
        kind: name("counter"),
        args: payload(),
        name: Some(name("hits")),
        link: true,
        monitor: Some(Reference(8)),
        remaining,
    };
    let unknown = SpawnError::UnknownKind { kind: "x".into(), known: vec!["y".into()] };
    vec![
        Signal::Send { message: message(), payload: payload(), waits: false },
        Signal::Call { reference, remaining, message: message(), payload: payload() },
        Signal::Reply { reference, result: Ok(payload()) },
        Signal::Reply { reference, result: Err(CallError::Exited(reason.clone())) },
        Signal::Exit { reason: ExitReason::Kill },
        Signal::Link,
        Signal::Unlink { reference },
        Signal::UnlinkAck { reference },
        Signal::LinkDown { reason: ExitReason::Normal },
        Signal::Monitor { reference },
        Signal::Demonitor { reference },
        Signal::Down { reference, reason },
        Signal::Spawn(spawn),
        Signal::Spawned { reference, result: Ok(9) },
        Signal::Spawned { reference, result: Err(unknown) },
        Signal::Join { reference },
        Signal::Joined { reference },
        Signal::Send { message: message(), payload: payload(), waits: true },
    ]
}

/// One of every frame.
fn frames() -> Vec<Frame> {
    let reference = Reference(7);
    let remaining = Duration::from_secs(5);
    let targets = [Target::Serial(42), Target::Name(name("hits")), Target::Node];
    let envelope = |(index, signal): (usize, Signal)| {
        let to = targets[index % 3].clone();
        Frame::Envelope(Envelope { to, from: 3, signal })
    };
    let mut frames: Vec<_> = signals().into_iter().enumerate().map(envelope).collect();
    let many = [
        (vec![42], Signal::Send { message: message(), payload: payload(), waits: false }),
        (vec![3, 1, 300, 300, u64::MAX], Signal::LinkDown { reason: ExitReason::Shutdown }),
    ];
    frames.extend(many.map(|(serials, signal)| {
        let to = Target::Many(Serials::split(serials, usize::MAX).remove(0));
        Frame::Envelope(Envelope { to, from: 3, signal })
    }));
    let hits = Dest::Remote(name("hits"), "b".into());
    let (kind, args) = (name("counter"), payload());
    frames.extend([
        Frame::Gossip(Bytes::from_static(b"gossip")),
        Frame::State(Bytes::from_static(b"state")),
        Frame::Owned(Bytes::from_static(b"owned")),
        Frame::Envelope(Envelope {
            to: Target::Topic(name("news")),
            from: 3,
            signal: Signal::Send { message: message(), payload: payload(), waits: false },
        }),
        Frame::Ping,
        Frame::Stop(Target::Serial(42)),
        Frame::Stop(Target::Node),
        Frame::GoOn(Target::Name(name("hits"))),
        Frame::Request(Request::Send { to: hits.clone(), message: message(), payload: payload() }),
        Frame::Request(Request::Call {
            reference,
            to: pid().into(),
            remaining,
            message: message(),
            payload: payload(),
        }),
        Frame::Request(Request::Monitor { reference, target: hits.clone() }),
        Frame::Request(Request::Demonitor { reference }),
        Frame::Request(Request::Spawn {
            reference,
            kind,
            args,
            name: None,
            on: Some("b".into()),
            remaining,
        }),
        Frame::Request(Request::Exit { target: hits.clone(), reason: ExitReason::Shutdown }),
        Frame::Request(Request::Monitor { reference, target: Dest::global("hits") }),
        Frame::Request(Request::Send {
            to: Dest::one_of("jobs/workers", Pick::Key("user:42".into())),
            message: message(),
            payload: payload(),
        }),
        Frame::Request(Request::Send {
            to: Dest::topic("news"),
            message: message(),
            payload: payload(),
        }),
        Frame::Update(Update::Welcome { session: pid() }),
        Frame::Update(Update::Reply { reference, result: Err(CallError::NoProcess) }),
        Frame::Update(Update::Spawned { reference, result: Ok(pid()) }),
        Frame::Update(Update::Down(Down {
            reference,
            target: hits,
            reason: ExitReason::NoConnection,
        })),
        Frame::Update(Update::Message { message: message(), payload: payload() }),
        Frame::Request(Request::Send {
            to: Dest::key("cart", "42/b"),
            message: message(),
            payload: payload(),
        }),
        Frame::Envelope(Envelope {
            to: Target::Key { kind: name("cart"), key: "42/b".into(), forwarded: true },
            from: 3,
            signal: Signal::Call { reference, remaining, message: message(), payload: payload() },
        }),
        Frame::Update(Update::Permitted { may: vec!["read".into(), "call:hits".into()] }),
    ]);
    frames
}

fn hello() -> Hello {
    Hello {
        versions: Versions::OURS,
        cluster: name("purlin"),
        name: "web-1".into(),
        node: Some(NodeHello { id: pid().node, address: "10.0.0.1:7400".parse().unwrap() }),
        capabilities: Capabilities(0),
        association: 11,
        ended: 5,
    }
}

fn refusals() -> Vec<Refusal> {
    let detail = || "detail".to_owned();
    vec![
        Refusal::Version { theirs: Versions::OURS, ours: Versions { oldest: 9, newest: 10 } },
        Refusal::Cluster { theirs: name("other") },
        Refusal::Identity { detail: detail() },
        Refusal::Role { detail: detail() },
        Refusal::Duplicate,
        Refusal::DeclaredDown {
            creation: 7,
            by: NodeId::new("b".into(), 2),
            view: Box::new(View { members: 3, first: "a".into(), sample: vec![1, 2] }),
        },
        Refusal::Superseded { newest: 4 },
        Refusal::NameTaken { name: "a".into(), address: "10.0.0.1:7400".parse().unwrap() },
        Refusal::Stopping,
        Refusal::Busy,
        Refusal::Protocol { detail: detail() },
        Refusal::Joining,
        Refusal::Silent,
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn every_frame_comes_back_as_it_was_sent() {
    for frame in frames() {
        let bytes = frame.to_bytes().unwrap();
        assert_eq!(Frame::decode(bytes).unwrap(), frame);
    }
}

#[test]
fn the_bytes_of_every_frame_hello_and_refusal_are_what_they_always_were() {
    let mut golden = String::new();
    for frame in frames() {
        let _ = writeln!(golden, "{}\n    {frame:?}", hex(&frame.to_bytes().unwrap()));
    }
    let _ = writeln!(golden, "{}\n    {:?}", hex(&codec::to_bytes(&hello()).unwrap()), hello());
    for refusal in refusals() {
        let _ = writeln!(golden, "{}\n    {refusal:?}", hex(&codec::to_bytes(&refusal).unwrap()));
    }
    insta::assert_snapshot!(golden);
}

#[test]
fn a_truncated_frame_is_an_error_wherever_it_ends() {
    for frame in frames() {
        let bytes = frame.to_bytes().unwrap();
        for end in 0..bytes.len() {
            let short = Frame::decode(bytes.slice(..end));
            // A payload has no length of its own: it may only become shorter.
            assert!(
                match &short {
                    Err(_)
                    | Ok(
                        Frame::Gossip(_) | Frame::State(_) | Frame::Owned(_) | Frame::Exclusive(_),
                    ) => true,
                    Ok(Frame::Envelope(envelope)) => matches!(
                        envelope.signal,
                        Signal::Send { .. } | Signal::Call { .. } | Signal::Reply { .. }
                    ),
                    Ok(_) => false,
                },
                "{frame:?} cut at {end} is {short:?}"
            );
        }
    }
}

#[test]
fn what_follows_a_value_is_an_error() {
    for frame in frames() {
        let mut bytes = BytesMut::from(&frame.to_bytes().unwrap()[..]);
        bytes.extend_from_slice(b"x");
        match Frame::decode(bytes.freeze()) {
            Err(_) => {}
            Ok(longer) => assert_ne!(longer, frame, "a payload may only become longer"),
        }
    }
}

#[test]
fn unknown_frames_targets_codecs_and_variants_are_errors() {
    for number in [0x00, 0x01, 0x0f, 0x23, 0x3f, 0x42, 0x51, 0xff] {
        let bytes = Bytes::from(vec![number; 40]);
        assert!(Frame::decode(bytes).is_err(), "{number:#04x}");
    }
    let send = Envelope {
        to: Target::Node,
        from: 0,
        signal: Signal::Send { message: message(), payload: payload(), waits: false },
    };
    let mut bytes = BytesMut::new();
    send.encode(&mut bytes).unwrap();
    for (at, unknown) in [(9, 5_u8), (22, 9)] {
        let mut bad = bytes.clone();
        bad[at] = unknown;
        assert!(Envelope::decode(bad.freeze()).is_err(), "byte {at}");
    }
    let refusal = codec::from_bytes::<Refusal>(&99_u32.to_le_bytes(), 100);
    assert!(matches!(refusal, Err(DecodeError::Malformed { .. })));
}

#[test]
fn a_claimed_length_never_makes_us_allocate_more_than_the_limit() {
    for claimed in [u64::MAX, 1 << 40, FRAME_BYTES as u64 + 1, FRAME_BYTES as u64 - 1] {
        for variant in 0..12_u32 {
            let mut bytes = variant.to_le_bytes().to_vec();
            bytes.extend_from_slice(&claimed.to_le_bytes());
            bytes.extend_from_slice(&claimed.to_le_bytes());
            let before = ALLOCATOR.allocated();
            let refusal = codec::from_bytes::<Refusal>(&bytes, FRAME_BYTES);
            let update = codec::from_bytes::<Update>(&bytes, FRAME_BYTES);
            let request = codec::from_bytes::<Request>(&bytes, FRAME_BYTES);
            drop((refusal, update, request));
            let strings = codec::from_bytes::<Vec<String>>(&claimed.to_le_bytes(), FRAME_BYTES);
            assert!(strings.is_err());
            let grown = ALLOCATOR.max_allocated().saturating_sub(before);
            assert!(grown < 2 * FRAME_BYTES, "{grown} bytes for a claim of {claimed}");
        }
    }
}

/// The beginning of a message to several, then these bytes.
fn to_several(count: u32, rest: &[u8]) -> Result<Frame, DecodeError> {
    let mut frame = vec![0x10, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    frame.extend(count.to_le_bytes());
    frame.extend(rest);
    Frame::decode(frame.into())
}

#[test]
fn a_list_of_receivers_that_is_none_is_an_error() {
    let message = b"\x01m\x01";
    let with = |differences: &[u8]| [differences, message].concat();
    assert!(to_several(2, &with(&[1, 1])).is_ok());

    assert!(to_several(0, message).is_err(), "nobody");
    assert!(to_several(2, &with(&[0x81, 0x00, 1])).is_err(), "not the shortest form");
    assert!(to_several(1, &with(&[0xff; 9])).is_err(), "does not end");
    assert!(to_several(1, &with(&[&[0xff; 9][..], &[0x02]].concat())).is_err(), "65 bits");
    let last = [&[0xff; 9][..], &[0x01]].concat();
    assert!(to_several(1, &with(&last)).is_ok(), "the last serial there can be");
    assert!(to_several(2, &with(&[&last[..], &[1]].concat())).is_err(), "beyond it");
}

#[test]
fn only_what_is_the_same_for_all_goes_to_several() {
    let to = Target::Many(Serials::split(vec![1, 2], 2).remove(0));
    for signal in signals() {
        let same = matches!(signal, Signal::Send { waits: false, .. } | Signal::LinkDown { .. });
        let mut bytes = BytesMut::new();
        Envelope { to: to.clone(), from: 3, signal }.encode(&mut bytes).unwrap();
        assert_eq!(Envelope::decode(bytes.freeze()).is_ok(), same);
    }
}

#[test]
fn only_messages_and_monitors_go_to_keys() {
    for forwarded in [false, true] {
        let to = Target::Key { kind: name("cart"), key: "42".into(), forwarded };
        for signal in signals() {
            let goes = matches!(
                signal,
                Signal::Send { .. } | Signal::Call { .. } | Signal::Monitor { .. }
            );
            let mut bytes = BytesMut::new();
            let envelope = Envelope { to: to.clone(), from: 3, signal };
            envelope.encode(&mut bytes).unwrap();
            let decoded = Envelope::decode(bytes.freeze());
            assert_eq!(decoded.is_ok_and(|decoded| decoded == envelope), goes);
        }
    }
}

#[test]
fn ten_thousand_receivers_take_two_bytes_each_and_no_memory() {
    let serials = (0..10_000_u64).map(|n| 5_000_000 + n * 97).collect();
    let to = Target::Many(Serials::split(serials, usize::MAX).remove(0));
    let signal = Signal::Send { message: message(), payload: payload(), waits: false };
    let bytes = Frame::Envelope(Envelope { to, from: 3, signal }).to_bytes().unwrap();
    assert!(bytes.len() < 20_100, "{} bytes", bytes.len());

    let before = ALLOCATOR.total_allocated();
    let decoded = Frame::decode(bytes).unwrap();
    let grown = ALLOCATOR.total_allocated() - before;

    let Frame::Envelope(Envelope { to: Target::Many(list), .. }) = decoded else { unreachable!() };
    assert_eq!(list.iter().count(), 10_000);
    assert!(grown < 1_000, "{grown} bytes");
}

#[test]
fn more_receivers_than_the_limit_are_refused() {
    let most = u32::try_from(RECEIVERS).unwrap();
    let ones = vec![1; RECEIVERS + 1];
    assert!(to_several(most, &[&ones[1..], b"\x01m\x01"].concat()).is_ok());
    assert!(to_several(most + 1, &[&ones[..], b"\x01m\x01"].concat()).is_err());
    assert_eq!(Serials::split(vec![1; RECEIVERS + 1], usize::MAX).len(), 2);
}

#[test]
fn as_many_receivers_as_are_said_to_fit_beside_a_message_do() {
    for (bytes, most) in [(0, RECEIVERS), (FRAME_BYTES - 1_000, 90), (FRAME_BYTES, 0)] {
        let payload = Payload { codec: Codec::Bincode, bytes: vec![0; bytes].into() };
        let fit = Target::most_with(&message(), &payload);
        assert!((most..=most + 10).contains(&fit), "{fit}");
        // Two for the largest differences there can be.
        let serials = (1..).step_by(1 << 50).take(fit).collect();
        for list in Serials::split(serials, fit) {
            let signal =
                Signal::Send { message: message(), payload: payload.clone(), waits: false };
            let envelope = Envelope { to: Target::Many(list), from: 3, signal };
            assert_eq!(envelope.encode(&mut BytesMut::new()), Ok(()));
        }
    }
}

#[test]
fn more_bytes_than_the_limit_are_refused_before_they_are_read() {
    let large = vec![0; 100];
    let refused = codec::from_bytes::<Vec<u8>>(&large, 99).unwrap_err();
    assert_eq!(refused, DecodeError::TooLarge { bytes: 100, limit: 99 });
}

#[test]
fn nested_json_without_end_is_an_error() {
    let bomb = "[".repeat(100_000);
    let payload = Payload { codec: Codec::Json, bytes: bomb.into() };
    assert!(payload.decode::<serde_json::Value>().is_err());
}

#[test]
fn two_sides_speak_the_newest_version_that_both_know() {
    let versions = |oldest, newest| Versions { oldest, newest };
    assert_eq!(versions(1, 3).agree(versions(2, 5)), Some(3));
    assert_eq!(versions(2, 5).agree(versions(1, 3)), Some(3));
    assert_eq!(versions(1, 1).agree(versions(1, 1)), Some(1));
    assert_eq!(versions(1, 2).agree(versions(3, 4)), None);
    assert_eq!(versions(3, 4).agree(versions(1, 2)), None);
}

#[test]
fn what_people_read_is_text_and_what_travels_is_not() {
    let dest = Dest::Remote(name("hits"), "b".into());
    assert_eq!(serde_json::to_string(&dest).unwrap(), r#""hits@b""#);
    assert_eq!(serde_json::to_string(&pid()).unwrap(), r#""web-1.1763700000000.42""#);
    assert_eq!(serde_json::from_str::<Dest>(r#""web-1.1763700000000.42""#).unwrap(), pid().into());
    assert!(serde_json::from_str::<Pid>(r#""web-1""#).is_err());
}

#[test]
fn destinations_are_read_as_they_are_printed_and_what_is_none_is_said_clearly() {
    let forms = [
        ("global:hits", Dest::global("hits")),
        ("topic:news", Dest::topic("news")),
        ("group:workers", Dest::group("workers")),
        ("group:jobs/workers", Dest::group("jobs/workers")),
        ("group:workers:random", Dest::one_of("workers", Pick::Random)),
        ("group:workers:round-robin", Dest::one_of("workers", Pick::RoundRobin)),
        ("group:jobs/workers:nearest", Dest::one_of("jobs/workers", Pick::Nearest)),
        ("key:cart/42", Dest::key("cart", 42)),
        ("key:cart/a@b:c/d 1", Dest::key("cart", "a@b:c/d 1")),
        ("group:workers:key=a:b/c d", Dest::one_of("workers", Pick::Key("a:b/c d".into()))),
    ];
    for (text, dest) in forms {
        assert_eq!(text.parse(), Ok(dest.clone()));
        assert_eq!(dest.to_string(), text);
    }
    let error = |text: &str| text.parse::<Dest>().unwrap_err().to_string();
    assert!(error("groups:workers").contains("global:NAME, group:NAME"), "{}", error("groups:w"));
    assert!(error("group:workers:best").contains("round-robin"), "{}", error("group:w:best"));
    assert!(error("group:").contains("must not be empty"), "{}", error("group:"));
    assert!(error("key:cart").contains("key:KIND/KEY"), "{}", error("key:cart"));
    assert!(error("key:cart/").contains("must not be empty"), "{}", error("key:cart/"));
    assert!(error("key:a b/1").contains("must not contain"), "{}", error("key:a b/1"));
    let long = format!("key:cart/{}", "k".repeat(256));
    assert!(error(&long).contains("at most 255 bytes"), "{}", error(&long));
    assert!(error("topic:a@b").contains("must not contain"), "{}", error("topic:a@b"));
}

fn node_names() -> impl Strategy<Value = NodeName> {
    "[a-zA-Z0-9][a-zA-Z0-9._-]{0,31}".prop_map(|text| NodeName::new(&text).unwrap())
}

fn pids() -> impl Strategy<Value = Pid> {
    (node_names(), any::<u64>(), any::<u64>())
        .prop_map(|(name, creation, serial)| NodeId::new(name, creation).pid(serial))
}

proptest! {
    #[test]
    fn pids_come_back_from_text_and_from_the_wire(pid in pids()) {
        prop_assert_eq!(pid.to_string().parse::<Pid>(), Ok(pid));
        let bytes = codec::to_bytes(&pid).unwrap();
        prop_assert_eq!(codec::from_bytes::<Pid>(&bytes, 1000), Ok(pid));
        let json = serde_json::to_string(&pid).unwrap();
        prop_assert_eq!(serde_json::from_str::<Pid>(&json).unwrap(), pid);
    }

    #[test]
    fn destinations_come_back_from_text(name in "[^@:<>/\\s\\p{C}]{1,40}", node in node_names()) {
        let dest = Dest::Remote(Name::new(&name).unwrap(), node);
        prop_assert_eq!(dest.to_string().parse::<Dest>(), Ok(dest));
    }

    #[test]
    fn any_text_is_a_name_or_an_error(text in "\\PC{0,300}") {
        let _ = Name::new(&text);
        let _ = NodeName::new(&text);
        let _ = text.parse::<Pid>();
        let _ = text.parse::<Dest>();
    }

    #[test]
    fn receivers_come_back_sorted(
        mut serials in prop::collection::vec(any::<u64>(), 1..300),
        near in prop::collection::vec(0..1000_u64, 0..300),
        most in 1..400_usize,
    ) {
        serials.extend(near);
        let lists = Serials::split(serials.clone(), most);
        prop_assert!(lists.iter().all(|list| (1..=most).contains(&list.len())));
        let mut back = Vec::new();
        for list in lists {
            let signal = Signal::Send { message: message(), payload: payload(), waits: false };
            let frame = Frame::Envelope(Envelope { to: Target::Many(list), from: 1, signal });
            let decoded = Frame::decode(frame.to_bytes().unwrap()).unwrap();
            prop_assert_eq!(&decoded, &frame);
            let Frame::Envelope(Envelope { to: Target::Many(list), .. }) = decoded else {
                unreachable!("just compared")
            };
            back.extend(list.iter());
        }
        serials.sort_unstable();
        prop_assert_eq!(back, serials);
    }

    #[test]
    fn any_list_of_receivers_is_one_that_comes_back_or_an_error(
        count in 0..40_u32,
        bytes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut frame = vec![0x10, 0, 0, 0, 0, 0, 0, 0, 0, 3];
        frame.extend(count.to_le_bytes());
        frame.extend(bytes);
        if let Ok(decoded) = Frame::decode(frame.clone().into()) {
            prop_assert_eq!(&decoded.to_bytes().unwrap()[..], &frame[..]);
        }
    }

    #[test]
    fn messages_come_back(
        body in prop::collection::vec(any::<u8>(), 0..2000),
        from in any::<u64>(),
        to in any::<u64>(),
        millis in any::<u32>(),
    ) {
        let payload = Payload { codec: Codec::Json, bytes: body.into() };
        let remaining = Duration::from_millis(millis.into());
        let reference = Reference(from ^ to);
        let signal = Signal::Call { reference, remaining, message: message(), payload };
        let frame = Frame::Envelope(Envelope { to: Target::Serial(to), from, signal });
        prop_assert_eq!(Frame::decode(frame.to_bytes().unwrap()).unwrap(), frame);
    }

    #[test]
    fn random_bytes_are_an_error_or_a_frame_but_never_a_panic(
        number in prop::sample::select(vec![0x10_u8, 0x11, 0x12, 0x13, 0x14, 0x18, 0x1b, 0x1c, 0x1d, 0x1e, 0x20, 0x21, 0x22, 0x31, 0x40, 0x41]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut frame = vec![number];
        frame.extend(bytes);
        let in_place = MessageRef::read(&frame, "").map(|read| read.is_ok());
        let decoded = Frame::decode(frame.clone().into());
        // Two readers of the same bytes must not differ.
        if let Some(readable) = in_place {
            prop_assert_eq!(readable, decoded.is_ok());
        }
    }
}

#[test]
fn what_is_too_large_for_a_small_frame_leaves_no_trace() {
    use purlin_proto::codec::Fit;
    use purlin_proto::limits::SMALL_FRAME_BYTES;
    use purlin_proto::{Direct, DirectKind};

    let to = Target::Serial(5);
    let fits = |bytes: usize| {
        let value = serde_bytes::ByteBuf::from(vec![7; bytes]);
        let direct = Direct { to: &to, from: 3, what: DirectKind::Send("a.b"), value: &value };
        let mut out = BytesMut::from(&b"before"[..]);
        let fit = direct.encode_small(&mut out).unwrap();
        if let Fit::TooLarge { at_least } = fit {
            assert_eq!(&out[..], b"before");
            let mut whole = BytesMut::new();
            direct.encode(&mut whole).unwrap();
            assert_eq!(at_least, whole.len(), "bytes are one piece");
        }
        fit == Fit::Whole
    };
    // Head, name, codec and the length of the value.
    let around = 18 + 4 + 1 + 8;
    assert!(fits(SMALL_FRAME_BYTES - around));
    assert!(!fits(SMALL_FRAME_BYTES - around + 1));
    assert!(!fits(1 << 20));
}

#[test]
fn a_message_read_in_place_says_what_its_envelope_says() {
    let mut read = 0;
    for signal in signals() {
        let envelope = Envelope { to: Target::Serial(42), from: 3, signal };
        let mut bytes = BytesMut::new();
        envelope.encode(&mut bytes).unwrap();
        let Some(found) = MessageRef::read(&bytes, "") else { continue };
        let found = found.unwrap();
        read += 1;
        let (name, codec, body) = (found.name, found.codec, Bytes::copy_from_slice(found.body));
        let (message, payload) =
            (MessageName::from(name.parse::<Name>().unwrap()), Payload { codec, bytes: body });
        let signal = match found.call {
            Some((reference, remaining)) => Signal::Call { reference, remaining, message, payload },
            None => Signal::Send { message, payload, waits: found.waits },
        };
        let again = Envelope { to: Target::Serial(found.to), from: found.from, signal };
        assert_eq!(again, envelope);
    }
    assert_eq!(read, 3, "two ways to send and the call");
}

#[test]
fn what_is_encoded_straight_into_a_frame_has_the_same_bytes_as_its_envelope() {
    use purlin_proto::codec::Fit;
    use purlin_proto::{Direct, DirectKind};

    let value = ("some".to_owned(), 7_u64, vec![1_u8, 2, 3]);
    let reference = Reference(99);
    let remaining = std::time::Duration::from_millis(1_234);
    for to in [Target::Serial(5), Target::Name(name("hits")), Target::Node] {
        for (what, codec, signal) in [
            (DirectKind::Send("a.b"), Codec::Bincode, None),
            (DirectKind::SendWait("a.b"), Codec::Bincode, None),
            (
                DirectKind::Call { message: "a.b", reference, remaining },
                Codec::Bincode,
                Some(remaining),
            ),
            (DirectKind::Reply { reference, codec: Codec::Bincode }, Codec::Bincode, None),
            (DirectKind::Reply { reference, codec: Codec::Json }, Codec::Json, None),
        ] {
            let payload = Payload::encode(codec, &value).unwrap();
            let message = MessageName::from(name("a.b"));
            let signal = match (what, signal) {
                (DirectKind::Reply { .. }, _) => Signal::Reply { reference, result: Ok(payload) },
                (_, Some(remaining)) => Signal::Call { reference, remaining, message, payload },
                (_, None) => {
                    let waits = what == DirectKind::SendWait("a.b");
                    Signal::Send { message, payload, waits }
                }
            };
            let envelope = Envelope { to: to.clone(), from: 3, signal };
            let (mut one, mut other) = (BytesMut::new(), BytesMut::new());
            envelope.encode(&mut one).unwrap();
            let direct = Direct { to: &to, from: 3, what, value: &value };
            direct.encode(&mut other).unwrap();
            assert_eq!(one, other, "{what:?}");
            let mut small = BytesMut::from(&b"before"[..]);
            match direct.encode_small(&mut small).unwrap() {
                Fit::Whole => assert_eq!(small[6..], one[..], "{what:?}"),
                // Its size is not known before its end.
                Fit::TooLarge { .. } => assert_eq!(codec, Codec::Json),
            }
        }
    }
}
