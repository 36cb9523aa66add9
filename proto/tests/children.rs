//! What nodes say to each other about children of cluster supervisors is written down as it always
//! was.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fmt::{Debug, Write};
use std::time::Duration;

use purlin_proto::admin::children::{
    ChildReleased, EndChild, GetClusterChild, HandOverChildren, HandedOver, HostChild, HostRefusal,
    KeepChildren, ListClusterChildren, ReleaseChild, RestartClusterChild, StartClusterChild,
    StopClusterChild, TakeChild,
};
use purlin_proto::child::{
    Cause, ChildEnd, ChildPlacement, ChildPlan, ChildRecord, ChildRun, Desired, GaveUp, Intensity,
    Mode, Placed, RunState,
};
use purlin_proto::limits::OWNED_ENTRY_BYTES;
use purlin_proto::supervision::{Restart, Shutdown};
use purlin_proto::{
    ChildId, Codec, Dest, EntryKey, EntryValue, Message, NodeId, Payload, Snapshot, codec,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn child() -> ChildId {
    ChildId::new("j", "c")
}

fn node() -> NodeId {
    NodeId::new("n".into(), 7)
}

fn plans() -> Vec<ChildPlan> {
    let intensity = Intensity { restarts: 3, period: Duration::from_secs(5) };
    let first = ChildPlan {
        kind: "k".into(),
        args: Payload { codec: Codec::Json, bytes: "1".into() },
        restart: Restart::Permanent,
        shutdown: Shutdown::BrutalKill,
        placement: ChildPlacement::Ring,
        mode: Mode::Exclusive,
        intensity,
        supervisor_intensity: None,
    };
    let second = ChildPlan {
        restart: Restart::Transient,
        shutdown: Shutdown::Timeout(Duration::from_millis(1_500)),
        placement: ChildPlacement::Labels([("a".into(), "b".into())].into()),
        mode: Mode::Available,
        supervisor_intensity: Some(intensity),
        ..first.clone()
    };
    let third = ChildPlan {
        restart: Restart::Temporary,
        shutdown: Shutdown::Infinity,
        placement: ChildPlacement::LeastLoaded,
        ..first.clone()
    };
    vec![first, second, third]
}

fn records() -> Vec<ChildRecord> {
    let why = || "why".to_owned();
    let gave_up = Desired::GaveUp(GaveUp { of_supervisor: true, reason: why() });
    let desired =
        [Desired::Run, Desired::Stopped(9), Desired::Done(why()), gave_up, Desired::Poison];
    let causes = [
        Cause::Asked,
        Cause::Ended(why()),
        Cause::NodeGone(node()),
        Cause::Moved(node()),
        Cause::Kept,
    ];
    let plans = plans().into_iter().cycle();
    let each = desired.into_iter().zip(causes).zip(plans);
    each.map(|((desired, cause), plan)| ChildRecord {
        version: 1,
        by: "n".into(),
        plan,
        desired,
        generation: 2,
        placed: Some(Placed { node: node(), generation: 2, at_ms: 3 }),
        cause,
        restarts: 4,
        crashes: vec![5],
        deaths: vec!["n".into()],
    })
    .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads back as it was, and is written down.
fn pin<T: Serialize + DeserializeOwned + PartialEq + Debug>(golden: &mut String, value: &T) {
    let bytes = codec::to_bytes(value).unwrap();
    assert_eq!(codec::from_bytes::<T>(&bytes, OWNED_ENTRY_BYTES).as_ref(), Ok(value));
    let _ = writeln!(golden, "{}\n    {value:?}", hex(&bytes));
}

#[test]
fn the_bytes_about_children_are_what_they_always_were() {
    let mut golden = String::new();
    pin(&mut golden, &Dest::Child(child()));
    pin(&mut golden, &EntryKey::Child(child()));
    pin(&mut golden, &EntryKey::ChildRun(child()));
    for record in records() {
        pin(&mut golden, &EntryValue::Child(Box::new(record)));
    }
    let end = ChildEnd { orderly: true, reason: "why".to_owned() };
    let let_go = RunState::LetGo { to: Some("b".into()) };
    for state in [RunState::Live, RunState::Ended(end), let_go] {
        let run = ChildRun { generation: 1, serial: 2, view: 3, since_ms: 4, state };
        pin(&mut golden, &EntryValue::ChildRun(run));
    }
    pin(&mut golden, &HandedOver::NotYet);
    pin(&mut golden, &HandedOver::Page(vec![(child(), records().remove(0))]));
    let state = Snapshot { at: 1, version: 2, state: "s".into() };
    pin(&mut golden, &ChildReleased::Free(Some(state)));
    pin(&mut golden, &ChildReleased::Stale { generation: 1 });
    pin(&mut golden, &ChildReleased::Elsewhere(Some(node())));
    pin(&mut golden, &Err::<(), _>(HostRefusal::No { detail: "no".to_owned() }));
    pin(&mut golden, &Err::<(), _>(HostRefusal::Other { generation: 1 }));
    insta::assert_snapshot!(golden);
}

/// The same of a message, with its name.
fn pin_message<M: Message + Debug>(golden: &mut String, message: &M) {
    let bytes = codec::to_bytes(message).unwrap();
    let back: M = codec::from_bytes(&bytes, OWNED_ENTRY_BYTES).unwrap();
    assert_eq!(format!("{back:?}"), format!("{message:?}"));
    let _ = writeln!(golden, "{} {}\n    {message:?}", M::NAME, hex(&bytes));
}

#[test]
fn what_one_node_asks_of_another_is_what_it_always_was() {
    let mut golden = String::new();
    let (plan, kept) = (plans().remove(1), Some(node().pid(3)));
    let records = vec![(child(), records().remove(0))];
    let after = Some(child());
    let host = HostChild { on: node(), child: child(), plan: plan.clone(), generation: 1, view: 2 };
    pin_message(&mut golden, &host);
    pin_message(&mut golden, &TakeChild { host, from: node() });
    let but = vec![node()];
    pin_message(&mut golden, &ReleaseChild { child: child(), to: node(), generation: 1, but });
    pin_message(&mut golden, &EndChild { child: child(), generation: 1, kept });
    pin_message(&mut golden, &KeepChildren { records });
    pin_message(&mut golden, &HandOverChildren { to: "n".into(), after: after.clone() });
    pin_message(&mut golden, &StartClusterChild { child: child(), plan, forwarded: true });
    pin_message(&mut golden, &StopClusterChild { child: child(), forwarded: true });
    pin_message(&mut golden, &RestartClusterChild { child: child(), forwarded: true });
    pin_message(
        &mut golden,
        &ListClusterChildren { supervisor: Some("j".parse().unwrap()), after },
    );
    pin_message(&mut golden, &GetClusterChild { child: child() });
    insta::assert_snapshot!(golden);
}
