//! Where a simulated node keeps the states of its keys: on the disk of its machine.

use std::ops::Bound;

use purlin_runtime::{Key, Snapshot, Store, StoreError, StoreFuture};

use super::disk::SimulatedDisk;

/// So many keys are told at once.
const PAGE: usize = 1_000;

/// What states are filed under.
const STATES: &[u8] = b"state/";

pub(super) struct SimulatedStore(pub(super) SimulatedDisk);

/// Kinds are no prefixes of one another with the zero, which no name has.
fn kind_prefix(kind: &str) -> Vec<u8> {
    [STATES, kind.as_bytes(), b"\0"].concat()
}

fn id(kind: &str, key: &Key) -> Vec<u8> {
    [&kind_prefix(kind), key.as_str().as_bytes()].concat()
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed { detail: error.to_string() }
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable { detail: error.to_string() }
}

/// How new a snapshot is; the oldest there can be if it cannot be read.
fn at(bytes: &[u8]) -> u64 {
    Snapshot::from_bytes(bytes).map_or(0, |snapshot| snapshot.at)
}

impl Store for SimulatedStore {
    fn load<'a>(&'a self, kind: &'a str, key: &'a Key) -> StoreFuture<'a, Option<Snapshot>> {
        let found = self.0.look(|pieces| pieces.get(&id(kind, key)).cloned());
        let found = found.map(|bytes| Snapshot::from_bytes(&bytes)).transpose();
        Box::pin(std::future::ready(found.map_err(unreadable)))
    }

    fn save<'a>(
        &'a self,
        kind: &'a str,
        key: &'a Key,
        snapshot: Snapshot,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let bytes = snapshot.to_bytes().map_err(failed)?;
            let saved = self.0.change(true, |pieces| {
                let newer = pieces.get(&id(kind, key)).is_none_or(|old| at(old) <= snapshot.at);
                if newer {
                    pieces.insert(id(kind, key), bytes.to_vec());
                }
                newer
            });
            saved.await.map_err(failed)
        })
    }

    fn delete<'a>(&'a self, kind: &'a str, key: &'a Key, upto: u64) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let deleted = self.0.change(false, |pieces| {
                if pieces.get(&id(kind, key)).is_some_and(|old| at(old) <= upto) {
                    pieces.remove(&id(kind, key));
                }
            });
            deleted.await.map_err(failed)
        })
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn keys<'a>(&'a self, kind: &'a str, after: Option<&'a Key>) -> StoreFuture<'a, Vec<Key>> {
        let prefix = kind_prefix(kind);
        let from = after.map_or_else(|| prefix.clone(), |after| id(kind, after));
        let keys = self.0.look(|pieces| {
            let later = pieces.range::<[u8], _>((Bound::Excluded(&from[..]), Bound::Unbounded));
            let ours = later.map_while(|(id, _)| id.strip_prefix(&prefix[..]));
            let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
            ours.take(PAGE).map(|key| Key::new(&text(key)).map_err(unreadable)).collect()
        });
        Box::pin(std::future::ready(keys))
    }
}
