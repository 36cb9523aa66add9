//! What nodes say to each other about children of cluster supervisors is written down as it always
//! was.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fmt::{Debug, Write};
use std::time::Duration;

use purlin_proto::admin::children::{
    EndChild, HandOverChildren, HandedOver, HostChild, HostRefusal, KeepChildren,
};
use purlin_proto::child::{
    Cause, ChildEnd, ChildPlacement, ChildPlan, ChildRecord, ChildRun, Desired, GaveUp, Intensity,
    Mode, Placed,
};
use purlin_proto::limits::OWNED_ENTRY_BYTES;
use purlin_proto::supervision::{Restart, Shutdown};
use purlin_proto::{ChildId, Codec, Dest, EntryKey, EntryValue, NodeId, Payload, codec};
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
    for ended in [None, Some(ChildEnd { orderly: true, reason: "why".to_owned() })] {
        let run = ChildRun { generation: 1, serial: 2, view: 3, since_ms: 4, ended };
        pin(&mut golden, &EntryValue::ChildRun(run));
    }
    pin(&mut golden, &HandedOver::NotYet);
    pin(&mut golden, &HandedOver::Page(vec![(child(), records().remove(0))]));
    pin(&mut golden, &Err::<(), _>(HostRefusal::No { detail: "no".to_owned() }));
    pin(&mut golden, &Err::<(), _>(HostRefusal::Other { generation: 1 }));
    insta::assert_snapshot!(golden);
}

#[test]
fn what_one_node_asks_of_another_reads_back() {
    fn same<T: Serialize + DeserializeOwned + Debug>(value: &T) {
        let bytes = codec::to_bytes(value).unwrap();
        let back: T = codec::from_bytes(&bytes, 64 << 10).unwrap();
        assert_eq!(format!("{back:?}"), format!("{value:?}"));
    }
    let plan = plans().remove(1);
    same(&HostChild { on: node(), child: child(), plan, generation: 1, view: 2 });
    same(&EndChild { child: child(), generation: 1, kept: Some(node().pid(3)) });
    same(&KeepChildren { records: records().into_iter().map(|r| (child(), r)).collect() });
    same(&HandOverChildren { to: "n".into(), after: Some(child()) });
}
