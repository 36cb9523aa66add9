//! A member that has been taken over, and a client that wants too much: what they do is contained.
//!
//! Real nodes on real sockets. The hostile one has a genuine certificate, and says what it likes.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use purlin::prelude::*;
use purlin::proto::admin::ProcessDetail;
use purlin::proto::session::Request;
use purlin::proto::{
    CallError, Codec, Envelope, ExitReason, Frame, MessageName, Name, NodeId, Payload, Refusal,
    Signal, Target, codec,
};
use purlin::{Dest, Node, Pid, RawKind, Received, Reference};
use purlin_client::Client;
use purlin_cluster_tests::endpoints::{Told, endpoint_of};
use purlin_cluster_tests::hostile::{Evil, say, say_bytes};
use purlin_cluster_tests::memory::until_sees;
use purlin_cluster_tests::numbered::{Numbered, Receiver};
use purlin_cluster_tests::sockets::{Home, counter, until};
use purlin_transport::{Closed, Credentials, DialError, Link};
use tokio::sync::mpsc;

static WITNESS: RawKind = RawKind::new("witness");
static STUCK: RawKind = RawKind::new("stuck");

/// Two good nodes that see each other, and a bad one that both have let in.
struct World {
    home: Home,
    a: Node,
    b: Node,
    evil: Evil,
    link: Link,
}

impl World {
    async fn new() -> Self {
        let home = Home::default();
        let mut evil = Evil::new(&home, "evil").await;
        let a = home.builder("a").start().await.unwrap();
        let b = home.builder("b").seed(a.listen_address().to_string()).start().await.unwrap();
        until_sees(&a, 2).await;
        until_sees(&b, 2).await;
        let link = evil.connect(&a).await;
        until_sees(&a, 3).await;
        Self { home, a, b, evil, link }
    }

    /// The bad one says something, for which its connection is closed; then it connects again. It
    /// answers nobody, so it may be declared down before it has spoken.
    async fn breaks_the_protocol(&mut self, say: impl Fn(&Link)) {
        loop {
            say(&self.link);
            let why = self.evil.closed().await;
            self.link = self.evil.connect(&self.a).await;
            match why {
                Closed::Remote(Refusal::Protocol { .. }) => return,
                Closed::Remote(Refusal::DeclaredDown { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// What concerns the other two goes on as if nothing had happened.
    async fn is_unharmed(&self) {
        let counter = self.a.spawn::<Receiver>(()).await.unwrap();
        for number in 0..100 {
            self.b.call(counter.pid(), Numbered::new(number, 64)).await.unwrap();
        }
        for (node, other) in [(&self.a, &self.b), (&self.b, &self.a)] {
            assert!(node.members().contains(&other.id().name), "{}", node.id());
        }
    }
}

/// A process that says all it is told, and one that it watches and is linked to.
fn witness(on: &Node, of: Pid) -> (Pid, mpsc::UnboundedReceiver<Received>) {
    let (tell, told) = mpsc::unbounded_channel();
    let spawned = on.runtime().spawn_raw(&WITNESS, |mut ctx| async move {
        ctx.trap_exits(true);
        ctx.link(of);
        ctx.monitor(of);
        loop {
            let received = ctx.receive().await?;
            // The test may have ended.
            let _ = tell.send(received);
        }
    });
    (spawned.unwrap(), told)
}

fn process(on: &Node, pid: Pid) -> Option<ProcessDetail> {
    on.runtime().process_detail(&pid.into())
}

fn envelope(to: u64, from: u64, signal: Signal) -> Frame {
    Frame::Envelope(Envelope { to: Target::Serial(to), from, signal })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_says_ends_the_connection_and_concerns_nobody_else() {
    let mut world = World::new().await;
    let request = Request::Exit { target: world.b.id().pid(1).into(), reason: ExitReason::Killed };
    let a_clients = Frame::Request(request).to_bytes().unwrap();
    let large = vec![0x3f; 70_000];
    let garbage = || Bytes::from_static(&[0xab; 1_000]);
    // A kind that is known; one that is not is of a later version, and passed over.
    let lease = Bytes::from_static(&[0, 0xab, 0xab]);
    let of_nodes = [Frame::State(garbage()), Frame::Owned(garbage()), Frame::Exclusive(lease)];
    let [state, entries, leases] = of_nodes.map(|frame| frame.to_bytes().unwrap());
    let wrong: [&[u8]; 8] = [
        &state,
        &entries,
        &leases,
        &[0x99, 1, 2, 3],
        &[],
        &[0x10, 0, 0],
        // The same of a size that is given on its own.
        &large,
        &a_clients,
    ];
    for frame in wrong {
        world.breaks_the_protocol(|link| say_bytes(link, frame)).await;
    }
    let gossip = Frame::Gossip(garbage()).to_bytes().unwrap();
    world.breaks_the_protocol(|link| _ = link.send_datagram(gossip.clone())).await;

    world.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_in_the_name_of_another_nodes_processes() {
    let world = World::new().await;
    let friend = world.b.spawn::<Receiver>(()).await.unwrap().pid();
    let (witness, mut told) = witness(&world.a, friend);
    // The link is there when the friend's node knows of it.
    let linked = || process(&world.b, friend).is_some_and(|detail| !detail.links.is_empty());
    until("the link", Duration::from_secs(10), linked).await;

    let reason = ExitReason::Other("forged".into());
    for reference in 0..100 {
        let reference = Reference(reference);
        let down = Signal::Down { reference, reason: reason.clone() };
        say(&world.link, &envelope(witness.serial, friend.serial, down));
    }
    let signals = [
        Signal::LinkDown { reason: reason.clone() },
        Signal::Unlink { reference: Reference(1) },
        Signal::Exit { reason },
    ];
    for signal in signals {
        say(&world.link, &envelope(witness.serial, friend.serial, signal));
    }

    // Of all that only the exit is for anybody to say; and it is told who has.
    let from = match told.recv().await.unwrap() {
        Received::Exit { from, .. } => from,
        other => panic!("{other:?}"),
    };
    assert_eq!(from, world.evil.id().pid(friend.serial));
    world.b.exit(friend, ExitReason::Killed);
    for _ in 0..2 {
        match told.recv().await.unwrap() {
            Received::Down(down) => assert_eq!(down.reason, ExitReason::Killed),
            Received::LinkDown(down) => assert_eq!(down.pid, friend),
            other => panic!("{other:?}"),
        }
    }
    world.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_counts_only_from_the_node_that_was_asked() {
    let world = World::new().await;
    let stuck = world.b.runtime().spawn_raw(&STUCK, |ctx| async move {
        let _ctx = ctx;
        std::future::pending::<()>().await;
        Ok(())
    });
    let call = tokio::spawn({
        let (a, stuck) = (world.a.clone(), stuck.unwrap());
        async move { a.runtime().call_timeout(stuck, Numbered::new(1, 8), Duration::from_secs(2)).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;

    // Every reference that it may have.
    for reference in 0..20_000 {
        let payload = Payload::encode(Codec::Bincode, &()).unwrap();
        let signal = Signal::Reply { reference: Reference(reference), result: Ok(payload) };
        say(&world.link, &envelope(0, 1, signal));
    }

    assert_eq!(call.await.unwrap(), Err(CallError::Timeout));
    let late = counter(&world.a, "replies.late").await;
    // The node itself may have asked the evil one something.
    assert!(late >= 19_990, "{late}");
    world.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_is_over_does_not_come_back() {
    let mut world = World::new().await;
    let old = world.evil.id();
    world.evil.endpoint.close(&Refusal::Protocol { detail: "it restarts".into() }).await;
    let (endpoint, log) = endpoint_of(
        purlin_cluster_tests::hostile::node_credentials(&world.home.dir(), old.name),
        |_| {},
    );
    (world.evil.endpoint, world.evil.log) = (endpoint, log);
    world.evil.reborn(old.creation + 5);
    world.link = world.evil.connect(&world.a).await;
    world.evil.endpoint.close_peer(&world.a.id(), &Refusal::Joining);

    world.evil.reborn(old.creation);
    let over = loop {
        match world.evil.endpoint.dial(world.a.listen_address(), None).await {
            Err(DialError::Refused(Refusal::Superseded { .. } | Refusal::DeclaredDown { .. })) => {
                break true;
            }
            Ok(_) => break false,
            // The link before has not ended there yet, or the machine is busy.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };

    assert!(over, "it is let in again");
    world.is_unharmed().await;
}

/// A membership state as it is on the wire: `Said::Full`.
fn state(members: &[(NodeId, std::net::SocketAddr, u16, u32)]) -> Frame {
    let known: Vec<_> = members
        .iter()
        .map(|(id, at, incarnation, state)| ((*id, *at), *incarnation, *state, None::<u8>))
        .collect();
    Frame::State(codec::to_bytes(&(0_u32, known, false)).unwrap())
}

const SUSPECT: u32 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_rumour_about_us_is_refuted() {
    let world = World::new().await;
    let (a, at) = (world.a.id(), world.a.listen_address());
    for incarnation in [0, 1, 100, u16::MAX - 1] {
        let frame = state(&[(a, at, incarnation, SUSPECT)]);
        world.link.send_control(frame.to_bytes().unwrap());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // Longer than a suspicion lasts.
    tokio::time::sleep(Duration::from_secs(4)).await;

    assert_eq!(world.a.id(), a, "it has not even come back under another life");
    world.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_gossip_and_state_slows_nobody_and_is_bounded() {
    let mut world = World::new().await;
    let said = Arc::new(AtomicU64::new(0));
    // What it has been told by gossip it says back, for ever.
    let gossip = loop {
        if let Told::Datagram(frame) = world.evil.log.next().await
            && matches!(Frame::decode(frame.clone()), Ok(Frame::Gossip(_)))
        {
            break frame;
        }
    };
    let flood = tokio::spawn({
        let (link, said) = (world.link.clone(), Arc::clone(&said));
        async move {
            // A digest that is not ours, which is answered with all we know.
            let digest = codec::to_bytes(&(1_u32, 7_u64)).unwrap();
            let state = Frame::State(digest).to_bytes().unwrap();
            loop {
                for _ in 0..100 {
                    link.send_datagram(gossip.clone());
                    link.send_control(state.clone());
                }
                said.fetch_add(100, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    while said.load(Ordering::Relaxed) < 50_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    world.is_unharmed().await;

    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_speak_as_a_node() {
    let world = World::new().await;
    let victim = world.a.spawn::<Receiver>(()).await.unwrap().pid();
    let credentials = Credentials::from_dir(world.home.dir()).unwrap();
    let kill = envelope(victim.serial, 1, Signal::Exit { reason: ExitReason::Killed });
    for frame in [kill, Frame::Gossip(Bytes::new()), Frame::Stop(Target::Node)] {
        let (endpoint, mut log) = endpoint_of(credentials.clone(), |_| {});
        let link = endpoint.dial(world.a.listen_address(), None).await.unwrap();
        say(&link, &frame);
        let why = loop {
            if let Told::Down(_, why) = log.next().await {
                break why;
            }
        };
        let Closed::Remote(Refusal::Protocol { detail }) = why else { panic!("{why:?}") };
        assert!(detail.contains("from a client"), "{detail}");
    }

    assert!(process(&world.a, victim).is_some(), "it lives");
    world.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_certificate_is_not_let_in_as_a_node() {
    let world = World::new().await;
    let credentials = Credentials::from_dir(world.home.dir()).unwrap();
    let (endpoint, _log) = endpoint_of(credentials, |_| {});
    let id = NodeId::new(endpoint_name(&world), 7);
    let address = endpoint.local_address();
    endpoint.set_node(Some(purlin::proto::NodeHello { id, address }));

    let refused = endpoint.dial(world.a.listen_address(), None).await;

    assert!(matches!(refused, Err(DialError::Refused(Refusal::Role { .. }))), "{refused:?}");
}

fn endpoint_name(world: &World) -> purlin::NodeName {
    Credentials::from_dir(world.home.dir()).unwrap().identity().name
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pushes_a_gigabyte_at_one_who_does_not_read_fills_its_share_alone() {
    const MESSAGE: usize = 1 << 20;
    const MESSAGES: usize = 1_024;
    let world = World::new().await;
    let stuck = world.a.runtime().spawn_raw(&STUCK, |ctx| async move {
        let _ctx = ctx;
        std::future::pending::<()>().await;
        Ok(())
    });
    let stuck = stuck.unwrap();
    let client = |home: &Home| {
        let credentials = Credentials::from_dir(home.dir()).unwrap();
        Client::connect([world.a.listen_address().to_string()], credentials)
    };
    let (greedy, modest) = (client(&world.home).await.unwrap(), client(&world.home).await.unwrap());
    let name = || MessageName::from(Name::from("numbered.message"));
    for _ in 0..MESSAGES {
        let payload = Payload { codec: Codec::Bincode, bytes: vec![0; MESSAGE].into() };
        greedy.send_raw(stuck, name(), payload).await.unwrap();
    }
    let one = Payload { codec: Codec::Bincode, bytes: vec![0; 2 * MESSAGE].into() };

    let refused = greedy.call_raw(stuck, name(), one, Duration::from_secs(10)).await;

    assert_eq!(refused, Err(CallError::Overloaded));
    let waiting = process(&world.a, stuck).unwrap().mailbox;
    assert!((100..=130).contains(&waiting), "{waiting} megabytes wait");
    let dropped = counter(&world.a, "dropped.client_ahead").await;
    assert_eq!(usize::try_from(dropped).unwrap() + waiting, MESSAGES, "each is counted");
    // Whatever the first does, the second is served.
    assert!(modest.status().await.is_ok());
    world.a.exit(stuck, ExitReason::Killed);
    let free = || process(&world.a, stuck).is_none();
    until("its end", Duration::from_secs(10), free).await;
    assert!(greedy.status().await.is_ok(), "what has been given back can be used again");
    world.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_time_out_may_be_any() {
    let world = World::new().await;
    let echo = world.a.spawn::<Receiver>(()).await.unwrap();
    let credentials = Credentials::from_dir(world.home.dir()).unwrap();
    let (endpoint, mut log) = endpoint_of(credentials, |_| {});
    let link = endpoint.dial(world.a.listen_address(), None).await.unwrap();
    let payload = Payload::encode(Codec::Bincode, &Numbered::new(0, 8)).unwrap();
    let call = Request::Call {
        reference: Reference(1),
        to: echo.pid().into(),
        remaining: Duration::MAX,
        message: MessageName::from(Name::from(Numbered::NAME)),
        payload: payload.clone(),
    };
    let spawn = Request::Spawn {
        reference: Reference(2),
        kind: Receiver::KIND.into(),
        args: Payload::encode(Codec::Bincode, &()).unwrap(),
        name: None,
        on: Some(world.b.id().name),
        remaining: Duration::MAX,
    };
    say(&link, &Frame::Request(call));
    say(&link, &Frame::Request(spawn));

    let mut answers = 0;
    while answers < 2 {
        match log.next().await {
            Told::Frame(_, frame, _) => match Frame::decode(frame).unwrap() {
                Frame::Update(purlin::proto::session::Update::Reply { result, .. }) => {
                    result.unwrap();
                    answers += 1;
                }
                Frame::Update(purlin::proto::session::Update::Spawned { result, .. }) => {
                    result.unwrap();
                    answers += 1;
                }
                _ => {}
            },
            Told::Down(_, why) => panic!("{why}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_a_nodes_own_process_cannot_keep_it_from_answering() {
    let world = World::new().await;
    let credentials = Credentials::from_dir(world.home.dir()).unwrap();
    let at = world.a.listen_address().to_string();
    let client = Client::connect([at], credentials).await.unwrap();
    for _ in 0..3 {
        client.exit(Dest::Local("purlin".into()), ExitReason::Killed).await.unwrap();
        let mut tries = 0;
        while let Err(error) = client.status().await {
            assert_eq!(error, CallError::NoProcess);
            tries += 1;
            assert!(tries < 100, "it does not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    world.is_unharmed().await;
}
