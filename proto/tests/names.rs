//! Pins the bytes of what nodes ask of one another about exclusive global names, and of their entries.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fmt::{Debug, Write as _};

use purlin_proto::admin::names::{
    Claim, FindName, GiveNames, HoldsName, NameRefusal, TakeName, TellNames, name_key,
};
use purlin_proto::limits::OWNED_ENTRY_BYTES;
use purlin_proto::{EntryKey, EntryValue, Fence, Given, Message, Name, NodeId, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn hits() -> Name {
    "hits".into()
}

fn claim() -> Claim {
    Claim { pid: NodeId::new("n".into(), 5).pid(6), attempt: 7 }
}

fn fence() -> Fence {
    Fence { epoch: 1, shard: 2, generation: 3 }
}

/// Reads back as it was, and is written down.
fn pin<T: Serialize + DeserializeOwned + PartialEq + Debug>(golden: &mut String, value: &T) {
    let bytes = codec::to_bytes(value).unwrap();
    assert_eq!(codec::from_bytes::<T>(&bytes, OWNED_ENTRY_BYTES).as_ref(), Ok(value));
    for byte in bytes {
        let _ = write!(golden, "{byte:02x}");
    }
    let _ = writeln!(golden, "\n    {value:?}");
}

/// The same of a message, with its name.
fn pin_message<M: Message + PartialEq + Debug>(golden: &mut String, message: &M) {
    let _ = write!(golden, "{} ", M::NAME);
    pin(golden, message);
}

#[test]
fn the_bytes_about_exclusive_names_are_what_they_always_were() {
    let mut golden = String::new();
    pin(&mut golden, &EntryKey::Exclusive(hits()));
    pin(&mut golden, &EntryValue::Given(Given { serial: 6, since_ms: 9, fence: fence() }));
    pin_message(&mut golden, &TakeName { name: hits(), claim: claim() });
    pin(&mut golden, &Ok::<_, NameRefusal>(fence()));
    let refusals = [
        NameRefusal::Taken(claim().pid),
        NameRefusal::NotOwner,
        NameRefusal::NotYet,
        NameRefusal::Full,
    ];
    for refusal in refusals {
        pin(&mut golden, &Err::<Fence, _>(refusal));
    }
    pin_message(&mut golden, &GiveNames { names: vec![(hits(), claim())] });
    let (shards, after) = (vec![1, 2], Some(hits()));
    pin_message(&mut golden, &TellNames { epoch: 1, generation: 2, shards, after });
    pin(&mut golden, &vec![(hits(), claim(), fence())]);
    pin_message(&mut golden, &HoldsName { name: hits(), claim: claim() });
    pin_message(&mut golden, &FindName { name: hits() });
    insta::assert_snapshot!(golden);
}

#[test]
fn a_name_is_looked_up_on_the_ring_by_this_key() {
    assert_eq!(&name_key(&hits())[..], b"purlin.global/hits");
}
