//! Where the state of keyed processes is kept while they do not run.
//!
//! # What if
//!
//! - *it is slow*: whoever waits for it waits; a key's next process does not begin before the last one
//!   has been saved. How much waits for a store at once is its own affair to bound.
//! - *it is full, or fails*: starting a process fails with that error, so that none begins anew by
//!   mistake. At the end of a process saving is tried again ([`stateful`](super::stateful)); then the
//!   state is lost as after a crash, logged and counted (`keyed.not_saved`).
//! - *two save the same key*, since it has two processes during a split, or an old owner is late: the
//!   newer snapshot is kept ([`Snapshot::at`]).

use std::collections::BTreeMap;
use std::future::ready;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Mutex;

use purlin_proto::{Key, Snapshot};

use crate::runtime::lock;

/// What a [`Store`] returns.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It cannot read or write; nothing has changed.
    #[error("{detail}")]
    Failed {
        /// Its own words.
        detail: String,
    },
    /// It has something for the key that is no snapshot.
    #[error("what is stored cannot be read: {detail}")]
    Unreadable {
        /// Why not.
        detail: String,
    },
    /// It has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Keeps the state of keyed processes; see [`Stateful`](super::Stateful).
///
/// A node's own store is on its own disk (or in memory, where it has none). What is there moves with
/// its key as long as the node lives, and is out of reach when it is down: the key then starts
/// elsewhere without it. Who wants more gives all nodes one store that they share, a database say.
///
/// No method may block its thread. All are cancel safe in that a store is never half written.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use purlin_runtime::{Key, Snapshot, Store, StoreFuture};
///
/// /// Stands for a database that all nodes reach.
/// #[derive(Default)]
/// struct Shared(Mutex<HashMap<(String, Key), Snapshot>>);
///
/// impl Store for Shared {
///     fn load<'a>(&'a self, kind: &'a str, key: &'a Key) -> StoreFuture<'a, Option<Snapshot>> {
///         Box::pin(async move {
///             let all = self.0.lock().expect("no panic");
///             Ok(all.get(&(kind.to_owned(), key.clone())).cloned())
///         })
///     }
///
///     fn save<'a>(&'a self, kind: &'a str, key: &'a Key, new: Snapshot) -> StoreFuture<'a, bool> {
///         Box::pin(async move {
///             let mut all = self.0.lock().expect("no panic");
///             let id = (kind.to_owned(), key.clone());
///             let newer = all.get(&id).is_none_or(|old| old.at <= new.at);
///             if newer {
///                 all.insert(id, new);
///             }
///             Ok(newer)
///         })
///     }
///
///     fn delete<'a>(&'a self, kind: &'a str, key: &'a Key, upto: u64) -> StoreFuture<'a, ()> {
///         Box::pin(async move {
///             let mut all = self.0.lock().expect("no panic");
///             let id = (kind.to_owned(), key.clone());
///             if all.get(&id).is_some_and(|old| old.at <= upto) {
///                 all.remove(&id);
///             }
///             Ok(())
///         })
///     }
/// }
/// ```
pub trait Store: Send + Sync + 'static {
    /// The newest snapshot of a key.
    fn load<'a>(&'a self, kind: &'a str, key: &'a Key) -> StoreFuture<'a, Option<Snapshot>>;

    /// Keeps a snapshot, durably when it returns. If there is a newer one ([`Snapshot::at`]), that is
    /// kept instead, and `false` returned.
    fn save<'a>(&'a self, kind: &'a str, key: &'a Key, snapshot: Snapshot)
    -> StoreFuture<'a, bool>;

    /// Forgets the snapshot of a key, unless it is newer than this ([`Snapshot::at`]).
    fn delete<'a>(&'a self, kind: &'a str, key: &'a Key, upto: u64) -> StoreFuture<'a, ()>;

    /// Whether all nodes have the same store. If not, each is asked for what it has.
    fn is_shared(&self) -> bool {
        true
    }

    /// Some keys that have a snapshot, in order, behind this one; none if there are no more. Asked of
    /// stores that are not shared.
    fn keys<'a>(&'a self, kind: &'a str, after: Option<&'a Key>) -> StoreFuture<'a, Vec<Key>> {
        let _ = (kind, after);
        Box::pin(ready(Ok(Vec::new())))
    }
}

/// A store in the memory of one node: for tests, and for nodes without a disk.
///
/// ```
/// use purlin_runtime::{Key, MemoryStore, Snapshot, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (store, key) = (MemoryStore::default(), Key::from(42));
/// let new = Snapshot { at: 7, version: 0, state: vec![1].into() };
/// assert!(store.save("cart", &key, new.clone()).await?);
/// assert!(!store.save("cart", &key, Snapshot { at: 6, ..new.clone() }).await?, "older");
/// assert_eq!(store.load("cart", &key).await?, Some(new));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<String, BTreeMap<Key, Snapshot>>>);

/// So many keys are told at once.
const PAGE: usize = 1_000;

impl Store for MemoryStore {
    fn load<'a>(&'a self, kind: &'a str, key: &'a Key) -> StoreFuture<'a, Option<Snapshot>> {
        let found = lock(&self.0).get(kind).and_then(|keys| keys.get(key)).cloned();
        Box::pin(ready(Ok(found)))
    }

    fn save<'a>(
        &'a self,
        kind: &'a str,
        key: &'a Key,
        snapshot: Snapshot,
    ) -> StoreFuture<'a, bool> {
        let mut kinds = lock(&self.0);
        let keys = kinds.entry(kind.to_owned()).or_default();
        let newer = keys.get(key).is_none_or(|old| old.at <= snapshot.at);
        if newer {
            keys.insert(key.clone(), snapshot);
        }
        Box::pin(ready(Ok(newer)))
    }

    fn delete<'a>(&'a self, kind: &'a str, key: &'a Key, upto: u64) -> StoreFuture<'a, ()> {
        if let Some(keys) = lock(&self.0).get_mut(kind)
            && keys.get(key).is_some_and(|old| old.at <= upto)
        {
            keys.remove(key);
        }
        Box::pin(ready(Ok(())))
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn keys<'a>(&'a self, kind: &'a str, after: Option<&'a Key>) -> StoreFuture<'a, Vec<Key>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let kinds = lock(&self.0);
        let keys = kinds
            .get(kind)
            .map(|keys| keys.range::<Key, _>((from, Bound::Unbounded)).map(|(key, _)| key.clone()));
        let keys = keys.into_iter().flatten().take(PAGE).collect();
        Box::pin(ready(Ok(keys)))
    }
}
