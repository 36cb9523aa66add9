//! A node's copies of what others say of their processes, against members that say anything: nothing
//! panics, nobody but a live owner changes its entries, none comes twice, its own log stays its own,
//! and what is read of a key or value is written the same.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use purlin_cluster::Owned;
use purlin_cluster::owned::{Blob, Bounds, Change, Input, Output};
use purlin_proto::limits::OWNED_ENTRY_BYTES;
use purlin_proto::{EntryKey, EntryValue, NodeId, NodeName, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn life(number: u8) -> NodeId {
    let names = ["a", "b", "c", "d"];
    NodeId::new(NodeName::from(names[usize::from(number % 4)]), 1)
}

/// As the driver reads a key or a value.
fn read<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    if let Ok(value) = codec::from_bytes::<T>(bytes, OWNED_ENTRY_BYTES) {
        let written = codec::to_bytes(&value).expect("what was read can be written");
        assert_eq!(written, bytes, "there is one way to write it");
    }
}

/// What all of them are to hold, by what has happened.
#[derive(Default)]
struct Model {
    own: BTreeMap<Blob, Blob>,
    others: BTreeMap<NodeId, BTreeMap<Blob, Blob>>,
}

impl Model {
    fn follow(&mut self, output: Output) {
        match output {
            Output::Changed { owner, changes } => {
                let entries = self.others.get_mut(&owner).expect("only of who is live");
                let mut keys: Vec<_> = changes.iter().map(|(key, _)| key.clone()).collect();
                keys.sort();
                assert!(keys.is_sorted_by(|one, next| one < next), "each key once");
                for (key, value) in changes {
                    read::<EntryKey>(&key);
                    value.iter().for_each(|value| read::<EntryValue>(value));
                    match value {
                        Some(value) => drop(entries.insert(key, value)),
                        None => assert!(entries.remove(&key).is_some(), "what goes was there"),
                    }
                }
            }
            Output::Vanished(owner) => {
                self.others.remove(&owner).expect("only of who was live");
            }
            Output::Say { .. } | Output::Violation { .. } => {}
        }
    }
}

fuzz_target!(|input: &[u8]| {
    // Little, so that full copies and forgotten removals are common.
    let bounds = Bounds { page_bytes: 256, removals: 4 };
    let mut now = Duration::ZERO;
    let mut owned = Owned::new(life(0), bounds, 1, now);
    let mut model = Model::default();
    for number in 1..4 {
        owned.handle(now, Input::Up(life(number)));
        model.others.insert(life(number), BTreeMap::new());
    }
    let mut rest = input;
    // Each step: what happens, to whom, how many bytes, those bytes.
    while let [what, who, length, after @ ..] = rest {
        let (bytes, later) = after.split_at(after.len().min(usize::from(*length)));
        rest = later;
        let peer = life(who % 3 + 1);
        let step = match what % 10 {
            0..=3 => Input::Said { from: peer, bytes: Bytes::copy_from_slice(bytes) },
            4 => Input::Connected(peer),
            5 => Input::Disconnected(peer),
            6 => Input::Down(peer),
            7 => {
                model.others.entry(peer).or_default();
                Input::Up(peer)
            }
            8 => {
                let (key, value) = bytes.split_at(bytes.len().min(1));
                let value = (!value.is_empty()).then(|| Blob::from(value));
                let change: Change = (Blob::from(key), value);
                match change.clone() {
                    (key, Some(value)) => drop(model.own.insert(key, value)),
                    (key, None) => drop(model.own.remove(&key)),
                }
                Input::Own(vec![change])
            }
            _ => {
                now += Duration::from_millis(u64::from(*length) * 100);
                Input::Tick
            }
        };
        owned.handle(now, step);
        while let Some(output) = owned.poll_output() {
            model.follow(output);
        }
        let own: BTreeMap<_, _> =
            owned.own().map(|(key, value)| (key.clone(), value.clone())).collect();
        assert_eq!(own, model.own);
    }
});
