//! When a node stops another's senders, and lets them go on.

use bytes::Bytes;
use purlin_proto::limits::RECEIVERS;
use purlin_proto::{
    Codec, Envelope, Frame, MessageName, MessageRef, Name, Payload, Serials, Signal, Target,
};
use purlin_runtime::{INFLOW_BYTES, Mailbox, Pid, RawKind, Runtime, WhenFull};
use tokio::sync::watch;

use crate::wire::Pair;

static SMALL: RawKind = RawKind::new("small").mailbox(Mailbox::bounded(10, WhenFull::Wait));
static LARGE: RawKind = RawKind::new("large").mailbox(Mailbox::UNBOUNDED);

/// A process that reads only while it is let.
fn reader(node: &Runtime, kind: &'static RawKind) -> (Pid, watch::Sender<bool>) {
    let (reads, mut may_read) = watch::channel(false);
    let body = |mut ctx: purlin_runtime::RawContext| async move {
        // Ends with the test.
        while may_read.wait_for(|reads| *reads).await.is_ok() {
            ctx.receive().await?;
        }
        Ok(())
    };
    (node.spawn_raw(kind, body).unwrap(), reads)
}

fn message(to: Pid) -> MessageRef<'static> {
    let (name, codec) = ("a.b", Codec::Bincode);
    MessageRef { to: to.serial, from: 7, waits: true, call: None, name, codec, body: &[7; 64] }
}

/// A message in the form of one that is too large to lie among others.
fn large(to: Target, bytes: &Bytes) -> Envelope {
    let payload = Payload { codec: Codec::Bincode, bytes: bytes.clone() };
    let message = MessageName::from("a.b".parse::<Name>().unwrap());
    Envelope { to, from: 7, signal: Signal::Send { message, payload, waits: true } }
}

#[tokio::test]
async fn a_full_mailbox_is_told_once_and_again_after_the_connection_was_lost() {
    let pair = Pair::new();
    let (pid, reads) = reader(&pair.b, &SMALL);
    let inbound = pair.b.inbound(pair.a.id());
    let stop = Frame::Stop(Target::Serial(pid.serial));
    inbound.messages(&[message(pid); 10]).unwrap();
    assert_eq!(pair.told_by(&pair.b), [], "it is just full");

    inbound.messages(&[message(pid); 5]).unwrap();
    inbound.messages(&[message(pid)]).unwrap();
    assert_eq!(pair.told_by(&pair.b), std::slice::from_ref(&stop));

    // The other side has forgotten it.
    pair.b.connection_lost(pair.a.name());
    let inbound = pair.b.inbound(pair.a.id());
    inbound.messages(&[message(pid)]).unwrap();
    assert_eq!(pair.told_by(&pair.b), [stop]);

    reads.send_replace(true);
    pair.settle().await;
    let told = pair.told_by(&pair.b);
    assert!(told.contains(&Frame::GoOn(Target::Serial(pid.serial))), "{told:?}");
    assert!(!told.iter().any(|frame| matches!(frame, Frame::Stop(_))), "{told:?}");
}

#[tokio::test]
async fn a_node_that_does_not_stop_breaks_the_protocol() {
    let pair = Pair::new();
    let (pid, _reads) = reader(&pair.b, &LARGE);
    let inbound = pair.b.inbound(pair.a.id());
    let bytes = Bytes::from(vec![7; 32 << 20]);
    let mut taken = 0;
    while inbound.envelope(large(Target::Serial(pid.serial), &bytes)).is_ok() {
        taken += bytes.len();
        assert!(taken < 2 << 30, "it takes whatever comes");
    }
    assert!(taken > INFLOW_BYTES);
    let told = pair.told_by(&pair.b);
    assert_eq!(told, [Frame::Stop(Target::Serial(pid.serial)), Frame::Stop(Target::Node)]);
}

#[tokio::test]
async fn what_many_receivers_share_takes_up_its_bytes_once() {
    let pair = Pair::new();
    let (pid, reads) = reader(&pair.b, &LARGE);
    let inbound = pair.b.inbound(pair.a.id());
    let others = (1..1_000).map(|_| reader(&pair.b, &LARGE));
    let mut readers: Vec<_> = others.collect();
    readers.push((pid, reads));
    let serials = readers.iter().map(|(pid, _)| pid.serial).collect();
    let list = Serials::split(serials, RECEIVERS).remove(0);

    // Ten gigabytes, were each to have its own.
    let mut envelope = large(Target::Many(list), &Bytes::from(vec![7; 10 << 20]));
    if let Signal::Send { waits, .. } = &mut envelope.signal {
        *waits = false;
    }
    inbound.envelope(envelope).unwrap();
    assert_eq!(pair.told_by(&pair.b), []);
}
