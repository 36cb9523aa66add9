//! A member that has been taken over, and a client that wants too much: what they do is contained.
//!
//! Real nodes on real sockets. The hostile one has a genuine certificate, and says what it likes.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use purlin::prelude::*;
use purlin::proto::admin::ProcessDetail;
use purlin::proto::admin::children::{HandOverChildren, HandedOver};
use purlin::proto::revocation::{Revocation, Revoked, Saying, SignedRevocation};
use purlin::proto::session::Request;
use purlin::proto::{
    CallError, Codec, Envelope, ExitReason, Frame, MessageName, Name, NodeId, Payload, Refusal,
    Signal, Target, View, codec,
};
use purlin::{Dest, Node, Pid, RawKind, Received, Reference};
use purlin_client::Client;
use purlin_cluster_tests::endpoints::{Told, endpoint_of};
use purlin_cluster_tests::hostile::{Evil, say, say_bytes};
use purlin_cluster_tests::memory::until_sees;
use purlin_cluster_tests::numbered::{Numbered, Receiver};
use purlin_cluster_tests::process::binary;
use purlin_cluster_tests::sockets::{Home, counter, until};
use purlin_transport::{Closed, Credentials, DialError, Link, Sent};
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
        Self::that_detects_in(Duration::from_secs(1)).await
    }

    /// The bad one answers no probe, so it is declared down sooner or later, and its connection ends
    /// for that reason; here not before anything else that a test waits for.
    async fn patient() -> Self {
        Self::that_detects_in(Duration::from_mins(2)).await
    }

    async fn that_detects_in(detect_in: Duration) -> Self {
        let home = Home::default();
        let mut evil = Evil::new(&home, "evil").await;
        let builder = |name| home.builder(name).detect_in(detect_in);
        let a = builder("a").start().await.unwrap();
        let b = builder("b").seed(a.listen_address().to_string()).start().await.unwrap();
        until_sees(&a, 2).await;
        until_sees(&b, 2).await;
        let link = evil.connect(&a).await;
        until_sees(&a, 3).await;
        Self { home, a, b, evil, link }
    }

    /// The bad one says something, for which its connection is closed; then it connects again. It
    /// answers nobody, so it may be declared down before it has spoken. And a node that has closed a
    /// connection may dial before the far end has read why: then that takes the new one for its place.
    async fn breaks_the_protocol(&mut self, say: impl Fn(&Link)) {
        loop {
            say(&self.link);
            let why = self.evil.closed().await;
            self.link = self.evil.connect(&self.a).await;
            match why {
                Closed::Remote(Refusal::Protocol { .. }) => return,
                Closed::Remote(Refusal::DeclaredDown { .. })
                | Closed::Local(Refusal::Duplicate) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Answers the one thing that a good node asks of a member that has come up, and that has a
    /// reference: for records of children.
    async fn hand_over(&mut self) {
        loop {
            let Told::Frame(_, frame, _) = self.evil.log.next().await else { continue };
            let Ok(Frame::Envelope(Envelope { from, signal, .. })) = Frame::decode(frame) else {
                continue;
            };
            let Signal::Call { reference, message, payload, .. } = signal else { continue };
            assert_eq!(message.as_str(), HandOverChildren::NAME);
            if payload.decode::<HandOverChildren>().unwrap().to != self.a.id().name {
                continue;
            }
            let page = HandedOver::Page(Vec::new());
            let result = Ok(Payload::encode(Codec::Bincode, &page).unwrap());
            return say(&self.link, &envelope(from, 1, Signal::Reply { reference, result }));
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
    let mut world = World::patient().await;
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
    let mut world = World::patient().await;
    world.hand_over().await;
    let stuck = world.b.runtime().spawn_raw(&STUCK, |ctx| async move {
        let _ctx = ctx;
        std::future::pending::<()>().await;
        Ok(())
    });
    let stuck = stuck.unwrap();
    let call = tokio::spawn({
        let a = world.a.clone();
        let ask = Numbered::new(1, 8);
        async move { a.runtime().call_timeout(stuck, ask, Duration::from_mins(2)).await }
    });
    let asked = || process(&world.b, stuck).is_some_and(|detail| detail.mailbox == 1);
    until("the call", Duration::from_secs(10), asked).await;

    // Every reference that it may have.
    for reference in 0..20_000 {
        let payload = Payload::encode(Codec::Bincode, &()).unwrap();
        let signal = Signal::Reply { reference: Reference(reference), result: Ok(payload) };
        say(&world.link, &envelope(0, 1, signal));
    }
    let mut late = 0;
    for _ in 0..600 {
        late = counter(&world.a, "replies.late").await;
        if late >= 20_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Nothing else is asked of it, so each of them answers nothing.
    assert_eq!(late, 20_000);
    assert!(!call.is_finished());
    world.b.exit(stuck, ExitReason::Killed);
    assert_eq!(call.await.unwrap(), Err(CallError::Exited(ExitReason::Killed)));
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

/// What a member may say of entries, as it is on the wire: heads, a question, a page; see `PROTOCOL.md`.
fn entries_of(owner: NodeId) -> [Frame; 3] {
    let owned = |body: Bytes| Frame::Owned(body);
    let unknown: Vec<_> = (0..100).map(|n| (NodeId::new("nobody".into(), n), n)).collect();
    let heads = codec::to_bytes(&(0_u32, unknown, true)).unwrap();
    // From the beginning, whatever has been read.
    let ask = codec::to_bytes(&(1_u32, owner, (0_u64, None::<u64>), true)).unwrap();
    // All that the owner has said is gone, and there is something else instead.
    let lie = (2_u64, vec![0x07_u8; 100], Some(vec![0xab_u8; 1_000]));
    let page = (true, 0_u64, 2_u64, 2_u64, 1_u64, vec![lie]);
    let page = codec::to_bytes(&(2_u32, owner, page)).unwrap();
    [owned(heads), owned(ask), owned(page)]
}

/// Revocations that nobody has signed, of everybody.
fn revocations(number: u64) -> Frame {
    let unsigned = |name: &'static str| {
        let (role, made_until_ms) = (purlin::proto::Role::Node, u64::MAX);
        let what = Revoked::Holder { role, name: name.into(), made_until_ms };
        let revocation = Revocation { what, at_ms: number, until_ms: u64::MAX };
        SignedRevocation { revocation, signature: vec![0x30; 71] }
    };
    let all = ["a", "b"].into_iter().cycle().take(100).map(unsigned).collect();
    Frame::Certificates(codec::to_bytes(&Saying::These(all)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_entries_and_certificates_slows_nobody_and_is_bounded() {
    const FLOOD: u64 = 2_000;
    let world = World::patient().await;
    // What is true of b, and is to stay so.
    let worker = world.b.spawn::<Receiver>(()).await.unwrap().pid();
    world.b.runtime().join("workers", worker).unwrap();
    let in_the_group = || world.a.runtime().members_of("workers") == [worker];
    until("b's entry", Duration::from_secs(10), in_the_group).await;
    let said = Arc::new(AtomicU64::new(0));
    let flood = tokio::spawn({
        let (link, said) = (world.link.clone(), Arc::clone(&said));
        let mut frames = Vec::new();
        for node in [&world.a, &world.b] {
            frames.extend(entries_of(node.id()));
        }
        let know = Saying::Know { digest: 7, answer: false };
        frames.push(Frame::Certificates(codec::to_bytes(&know).unwrap()));
        let frames: Vec<_> = frames.iter().map(|frame| frame.to_bytes().unwrap()).collect();
        async move {
            loop {
                let number = said.fetch_add(1, Ordering::Relaxed);
                let of_certificates = revocations(number).to_bytes().unwrap();
                for frame in frames.iter().chain([&of_certificates]) {
                    // Our own end has no room while the node reads no faster.
                    while link.send_control(frame.clone()) == Sent::Full {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let some = || said.load(Ordering::Relaxed) > FLOOD / 10;
    until("some of the flood", Duration::from_secs(30), some).await;

    // All of it, unless the node has cut it off.
    let ends = Instant::now() + Duration::from_secs(10);
    while said.load(Ordering::Relaxed) < FLOOD && Instant::now() < ends {
        world.is_unharmed().await;
    }

    flood.abort();
    assert!(in_the_group(), "nobody believes what it says of b");
    world.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_and_certificates_that_are_none_end_the_connection_and_nothing_else() {
    let mut world = World::patient().await;
    let wrong: [fn(Bytes) -> Frame; 2] = [Frame::Owned, Frame::Certificates];
    for frame in wrong {
        for garbage in [vec![], vec![0xab; 1_000], vec![0xff; 1 << 20]] {
            let frame = frame(Bytes::from(garbage)).to_bytes().unwrap();
            // A flood of it: the first is enough.
            let flood = |link: &Link| (0..100).for_each(|_| _ = link.send_control(frame.clone()));
            world.breaks_the_protocol(flood).await;
        }
    }

    world.is_unharmed().await;
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

/// All dial it every five seconds, to see whether it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_revoked_declares_nobody_down() {
    let world = World::new().await;
    let lives = || (world.a.id(), world.b.id());
    let before = lives();
    let revoke = Command::new(binary())
        .args(["cert", "revoke", "node:evil", "--at", &world.a.listen_address().to_string()])
        .env("PURLIN_HOME", world.home.dir())
        .output()
        .unwrap();
    assert!(revoke.status.success(), "{}", String::from_utf8_lossy(&revoke.stderr));

    // Who meets a larger part of the cluster, and is dead there, comes back as another.
    let view = View { members: 100, first: "a".into(), sample: (0..16).collect() };
    world.evil.log.declare_all_down(world.evil.id(), view);

    let dialed = || {
        let stats = world.evil.endpoint.stats().snapshot();
        let refused = stats.into_iter().find(|(name, _)| *name == "connections.refused");
        refused.map_or(0, |(_, count)| count)
    };
    until("both have dialed it, or one twice", Duration::from_secs(30), || dialed() >= 2).await;
    assert_eq!(lives(), before);
    world.is_unharmed().await;
}
