//! Processes by keys of any type (Elixir: `Registry`).
//!
//! A [`Name`](purlin_proto::Name) is one word for one process, and the command line sees it. A
//! [`Registry`] is for what a program looks up itself: connections by user, rooms by number,
//! subscribers by topic.
//!
//! # Locks
//!
//! Owners and keys lie in shards. Whoever registers or unregisters holds the shard of the owner and,
//! within it, first the process's own lock and then the shard of the key; nothing else nests. Of the
//! user's code only `Hash` and `Eq` of a key run under a lock.
//!
//! # How an entry ends
//!
//! The process notes the registry as a [`Cleanup`], under the owner's shard lock and only while it
//! is not ending. Its end takes all cleanups and runs them before the process counts as dead: so
//! whoever is told of the end finds no entry, and nobody can add one after.
//!
//! # Absent on purpose
//!
//! Other nodes: an entry names a process of this node. For names of a cluster there are global
//! names, groups and keys of sharded kinds.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use purlin_proto::{CallError, ExitReason, Message, Name, Pid, SpawnError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::actor::Actor;
use crate::context::{Context, run_actor};
use crate::panics;
use crate::process::{Class, Process};
use crate::refs::Ref;
use crate::runtime::{Runtime, lock};
use crate::spawn::SpawnOptions;

/// Into how many locks owners, and keys, are spread.
const SHARDS: usize = 16;

/// Something that processes own things in, told when one of them ends.
pub(crate) trait Cleanup: Send + Sync {
    /// Takes away what the process owns: it does nothing more, and nobody knows yet.
    fn ended(&self, serial: u64);
}

/// Takes away all that a process owns elsewhere, as the first thing at its end. Returns its name, to
/// be taken away as well.
pub(crate) fn clean_up(process: &Process) -> Option<Name> {
    let (name, cleanups) = process.take_cleanups();
    for cleanup in cleanups.iter().filter_map(Weak::upgrade) {
        // A key or value that panics when it is dropped must not keep the end from others.
        // It is handed over, for it may be the last to hold the registry.
        panics::contained("an entry was dropped", move || cleanup.ended(process.serial));
    }
    name
}

/// Processes of this node by keys, each entry with a value (Elixir: `Registry`).
///
/// Cheap to clone; all clones are the same registry. It lives as long as one of them does, and needs
/// no process of its own. In a [`unique`](Self::unique) one a key has one entry at most, in a
/// [`duplicate`](Self::duplicate) one any number, also several of one process.
///
/// An entry belongs to its process and is gone when that has ended: whoever gets a
/// [`Down`](crate::Down) or an exit signal of the process finds no entry of it any more. A process
/// that was killed and has not ended yet still has its entries.
///
/// All methods return at once. None may be called by `Hash` or `Eq` of a key, which run under a
/// lock; everything else of the user's (closures, `Clone` and `Drop` of keys and values) runs under
/// none and may use the registry.
///
/// # Example
///
/// ```
/// use purlin_runtime::{Registry, RegistryError, Runtime};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::local("a".into());
/// let task = runtime.task(std::future::pending::<()>());
/// let pid = task.pid().ok_or("not started")?;
///
/// let rooms: Registry<u32, &str> = Registry::unique(&runtime);
/// rooms.register(pid, 7, "kitchen")?;
/// assert_eq!(rooms.whereis(&7), Some(pid));
/// let taken = RegistryError::AlreadyRegistered { holder: pid };
/// assert_eq!(rooms.register(pid, 7, "cellar"), Err(taken));
///
/// let topics: Registry<&str, ()> = Registry::duplicate(&runtime);
/// topics.register(pid, "news", ())?;
/// topics.register(pid, "news", ())?;
/// assert_eq!(topics.lookup(&"news").len(), 2);
///
/// task.kill().await;
/// assert_eq!((rooms.whereis(&7), topics.count()), (None, 0));
/// # Ok(())
/// # }
/// ```
///
/// # When not to use it
///
/// For one well-known process: give it a name. For processes of other nodes: see the module's head.
pub struct Registry<K, V>(Arc<Inner<K, V>>);

struct Inner<K, V> {
    runtime: Runtime,
    unique: bool,
    hasher: RandomState,
    keys: [Mutex<HashMap<Arc<K>, Entries<V>>>; SHARDS],
    owners: [Mutex<Owners<K>>; SHARDS],
    /// Tells the entries of one process under one key apart.
    numbers: AtomicU64,
    listeners: RwLock<Vec<Listener<K>>>,
}

/// By serial, what keys it has, and how often.
type Owners<K> = HashMap<u64, HashMap<Arc<K>, usize>>;

/// The entries of one key. Most have one; a map costs ten times as much.
enum Entries<V> {
    One(u64, Arc<V>),
    /// By serial, then by order of registration.
    Many(BTreeMap<(u64, u64), Arc<V>>),
}

struct Listener<K> {
    serial: u64,
    tell: fn(&Runtime, Pid, RegistryEvent<K>),
}

impl<K> Clone for Listener<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Listener<K> {}

/// Why a process was not registered; the registry is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The key of a unique registry has an entry, perhaps of a process that is about to end: its
    /// `Down` tells when to try again.
    #[error("the key is taken by {holder}")]
    AlreadyRegistered {
        /// Who has it; the same process, if that tries twice.
        holder: Pid,
    },
    /// It is dead, has been asked to end, or runs on another node.
    #[error("no such process on this node")]
    NoProcess,
}

/// Why a value was not changed; the registry is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The entry is another process's.
    #[error("the key is registered by {holder}")]
    NotOwner {
        /// Whose it is.
        holder: Pid,
    },
    /// The key has no entry.
    #[error("the key is not registered")]
    NotRegistered,
    /// In a duplicate registry it would not be clear which entry is meant.
    #[error("only the entries of a unique registry can be updated")]
    NotUnique,
}

/// Why [`Registry::start`] has started nothing; nothing is left of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The key of a unique registry has an entry (Elixir: `{:already_started, pid}`).
    #[error("already started: {holder}")]
    AlreadyStarted {
        /// Who has it.
        holder: Pid,
    },
    /// The process was not started, or its `start` failed.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// What a listener of a registry is told; see [`Registry::listen`].
///
/// ```
/// use purlin_runtime::{Message, RegistryEvent};
///
/// assert_eq!(RegistryEvent::<u32>::NAME, "purlin.registry.event");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryEvent<K> {
    /// An entry was made.
    Registered {
        /// Its key.
        key: K,
        /// Its process.
        pid: Pid,
    },
    /// A process has no entry of this key any more: it was taken back, or the process has ended.
    Unregistered {
        /// The key.
        key: K,
        /// The process.
        pid: Pid,
    },
}

impl<K: Serialize + DeserializeOwned + Send + 'static> Message for RegistryEvent<K> {
    const NAME: &'static str = "purlin.registry.event";
    type Reply = ();
}

impl<K, V> Registry<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// An empty registry in which a key has one entry at most.
    pub fn unique(runtime: &Runtime) -> Self {
        Self::new(runtime, true)
    }

    /// An empty registry in which a key has any number of entries.
    pub fn duplicate(runtime: &Runtime) -> Self {
        Self::new(runtime, false)
    }

    fn new(runtime: &Runtime, unique: bool) -> Self {
        Self(Arc::new(Inner {
            runtime: runtime.clone(),
            unique,
            hasher: RandomState::new(),
            keys: std::array::from_fn(|_| Mutex::default()),
            owners: std::array::from_fn(|_| Mutex::default()),
            numbers: AtomicU64::new(1),
            listeners: RwLock::default(),
        }))
    }

    /// The runtime whose processes it knows.
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// Registers a living process of this node under a key (Elixir: `register/3`).
    ///
    /// Unlike Elixir's this can be called by anybody, for any process of the node. An entry holds
    /// its key and value until it ends; their number is bounded by nothing but memory.
    pub fn register(&self, pid: impl Into<Pid>, key: K, value: V) -> Result<(), RegistryError> {
        let process = self.0.process(pid.into()).ok_or(RegistryError::NoProcess)?;
        self.enter(&process, key, value)
    }

    fn enter(&self, process: &Process, key: K, value: V) -> Result<(), RegistryError> {
        let (key, value) = (Arc::new(key), Arc::new(value));
        self.insert(process, &key, &value)?;
        self.0.tell(|pid| RegistryEvent::Registered { key: K::clone(&key), pid }, process.serial);
        Ok(())
    }

    /// Borrows what it registers, so that nothing of the user's is dropped under the locks.
    fn insert(&self, process: &Process, key: &Arc<K>, value: &Arc<V>) -> Result<(), RegistryError> {
        let inner = &*self.0;
        let serial = process.serial;
        let cleanup = Arc::downgrade(&self.0);
        let mut owners = inner.owners(serial);
        if !process.clean_up_with(cleanup) {
            return Err(RegistryError::NoProcess);
        }
        let mut keys = inner.keys(key);
        // All entries of a key share its first allocation.
        let key = keys.get_key_value(key).map_or(key, |(known, _)| known).clone();
        match keys.get_mut(&key) {
            Some(entries) if inner.unique => {
                let holder = inner.runtime.id().pid(entries.first());
                return Err(RegistryError::AlreadyRegistered { holder });
            }
            Some(entries) => entries.add(serial, inner.number(), Arc::clone(value)),
            None => {
                keys.insert(Arc::clone(&key), Entries::One(serial, Arc::clone(value)));
            }
        }
        drop(keys);
        *owners.entry(serial).or_default().entry(key).or_default() += 1;
        Ok(())
    }

    /// Takes back all entries of a process under a key; `false` if there are none (Elixir:
    /// `unregister/2`).
    pub fn unregister(&self, pid: impl Into<Pid>, key: &K) -> bool {
        let Some(serial) = self.0.serial(pid.into()) else { return false };
        let mut owners = self.0.owners(serial);
        let Some(held) = owners.get_mut(&serial) else { return false };
        let Some((known, _)) = held.remove_entry(key) else { return false };
        if held.is_empty() {
            owners.remove(&serial);
        }
        let taken = self.0.take(&known, serial);
        drop(owners);
        self.0.tell(|pid| RegistryEvent::Unregistered { key: K::clone(&known), pid }, serial);
        drop(taken);
        true
    }

    // ----- looking up -----

    /// The entries of a key: in a unique registry one at most, else by pid, those of one process in
    /// the order they were made (Elixir: `lookup/2`).
    pub fn lookup(&self, key: &K) -> Vec<(Pid, V)> {
        let id = self.0.runtime.id();
        let found = self.0.find(key);
        found.iter().map(|(serial, value)| (id.pid(*serial), V::clone(value))).collect()
    }

    /// The process of a key; in a duplicate registry the one with the lowest pid (Elixir:
    /// `whereis_name/1`).
    pub fn whereis(&self, key: &K) -> Option<Pid> {
        let serial = self.0.keys(key).get(key).map(Entries::first);
        serial.map(|serial| self.0.runtime.id().pid(serial))
    }

    /// The keys of a process, in no order, each as often as it has entries (Elixir: `keys/2`).
    /// Empty for a process that is dead or elsewhere.
    pub fn keys(&self, pid: impl Into<Pid>) -> Vec<K> {
        let Some(serial) = self.0.serial(pid.into()) else { return Vec::new() };
        let owners = self.0.owners(serial);
        let held: Vec<_> = owners
            .get(&serial)
            .into_iter()
            .flatten()
            .map(|(key, count)| (Arc::clone(key), *count))
            .collect();
        drop(owners);
        let each = held.iter().flat_map(|(key, count)| std::iter::repeat_n(&**key, *count));
        each.cloned().collect()
    }

    /// The values of a process under a key, in the order they were registered (Elixir: `values/3`).
    pub fn values(&self, pid: impl Into<Pid>, key: &K) -> Vec<V> {
        let Some(of) = self.0.serial(pid.into()) else { return Vec::new() };
        let found = self.0.find(key);
        found.iter().filter(|(serial, _)| *serial == of).map(|(_, v)| V::clone(v)).collect()
    }

    /// How many entries there are. Counted shard by shard: not a snapshot while others register.
    pub fn count(&self) -> usize {
        let shard = |shard: &Mutex<HashMap<_, Entries<V>>>| {
            lock(shard).values().map(Entries::len).sum::<usize>()
        };
        self.0.keys.iter().map(shard).sum()
    }

    // ----- using -----

    /// Replaces the value of a process's own entry; the new and the old one (Elixir:
    /// `update_value/3`).
    ///
    /// `pid` says as whom; only the owner's entry is changed. `update` runs under no lock, and again
    /// if the value was changed meanwhile; it must return the same for the same.
    ///
    /// ```
    /// # use purlin_runtime::{Registry, Runtime, UpdateError};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let runtime = Runtime::local("a".into());
    /// # let pid = runtime.task(std::future::pending::<()>()).pid().ok_or("not started")?;
    /// let rooms = Registry::unique(&runtime);
    /// rooms.register(pid, "hall", 1)?;
    /// assert_eq!(rooms.update_value(pid, &"hall", |guests| guests + 1), Ok((2, 1)));
    /// let missing = rooms.update_value(pid, &"attic", |guests| guests + 1);
    /// assert_eq!(missing, Err(UpdateError::NotRegistered));
    /// # Ok(())
    /// # }
    /// ```
    pub fn update_value(
        &self,
        pid: impl Into<Pid>,
        key: &K,
        mut update: impl FnMut(&V) -> V,
    ) -> Result<(V, V), UpdateError> {
        if !self.0.unique {
            return Err(UpdateError::NotUnique);
        }
        let pid = pid.into();
        loop {
            let found = self.0.find(key);
            let Some((serial, old)) = found.first() else { return Err(UpdateError::NotRegistered) };
            if self.0.serial(pid) != Some(*serial) {
                let holder = self.0.runtime.id().pid(*serial);
                return Err(UpdateError::NotOwner { holder });
            }
            let new = Arc::new(update(old));
            let mut keys = self.0.keys(key);
            match keys.get_mut(key) {
                Some(Entries::One(now, value)) if now == serial && Arc::ptr_eq(value, old) => {
                    *value = Arc::clone(&new);
                }
                _ => continue,
            }
            drop(keys);
            return Ok((V::clone(&new), V::clone(old)));
        }
    }

    /// Hands the entries of a key to a closure, which is not called if there are none; how many
    /// there are (Elixir: `dispatch/3`).
    ///
    /// The entries are as [`lookup`](Self::lookup) gives them: one may have gone meanwhile.
    pub fn dispatch(&self, key: &K, use_entries: impl FnOnce(&[(Pid, V)])) -> usize {
        let entries = self.lookup(key);
        if !entries.is_empty() {
            use_entries(&entries);
        }
        entries.len()
    }

    /// Sends a message to every entry of a key, as [`Runtime::send`] does; how many there were.
    ///
    /// A process with several entries gets it several times.
    pub fn send<M: Message + Clone>(&self, key: &K, message: M) -> usize {
        let id = self.0.runtime.id();
        let found = self.0.find(key);
        let Some(((last, _), others)) = found.split_last() else { return 0 };
        for (serial, _) in others {
            self.0.runtime.send(id.pid(*serial), message.clone());
        }
        self.0.runtime.send(id.pid(*last), message);
        found.len()
    }

    /// Calls the process of a key, as [`Runtime::call`] does (Elixir: a call of a `:via` tuple).
    ///
    /// [`CallError::NoProcess`] if there is none; in a duplicate registry, that of
    /// [`whereis`](Self::whereis). Cancel safe as `Runtime::call` is.
    pub async fn call<M: Message>(&self, key: &K, message: M) -> Result<M::Reply, CallError> {
        let pid = self.whereis(key).ok_or(CallError::NoProcess)?;
        self.0.runtime.call(pid, message).await
    }

    /// Starts an actor that is registered from its first moment (Elixir: `start` with a `:via`
    /// tuple).
    ///
    /// Returns when its [`start`](Actor::start) has. Of several who start the same key of a unique
    /// registry at once, one wins; the others get [`StartError::AlreadyStarted`], and no `start` of
    /// theirs has run. Cancel safe in that nothing leaks: the process starts all the same.
    ///
    /// ```
    /// # use purlin_runtime::{Actor, Context, Outcome};
    /// use purlin_runtime::{Registry, Runtime, StartError};
    ///
    /// # struct Room;
    /// # impl Actor for Room {
    /// #     const KIND: &'static str = "room";
    /// #     type Args = u32;
    /// #     type Messages = ();
    /// #     async fn start(_: u32, _: &mut Context<Self>) -> Outcome<Self> { Ok(Self) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let runtime = Runtime::local("a".into());
    /// let rooms = Registry::unique(&runtime);
    /// let seats = 12;
    /// let hall = rooms.start::<Room>("hall", (), seats).await?;
    /// let again = rooms.start::<Room>("hall", (), seats).await;
    /// assert_eq!(again.err(), Some(StartError::AlreadyStarted { holder: hall.pid() }));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start<A: Actor>(
        &self,
        key: K,
        value: V,
        args: A::Args,
    ) -> Result<Ref<A>, StartError> {
        let runtime = &self.0.runtime;
        if let Some(holder) = self.whereis(&key).filter(|_| self.0.unique) {
            return Err(StartError::AlreadyStarted { holder });
        }
        let class = const { &Class::of::<A>() };
        let parent = Some(runtime.sender()).filter(|&serial| serial != 0);
        let parent = parent.map(|serial| runtime.id().pid(serial));
        let options = SpawnOptions { parent, ..SpawnOptions::default() };
        let (starter, outcome) = oneshot::channel();
        let mut refused = None;
        let process = runtime.launch(class, options, Some(starter), false, |process| {
            refused = self.enter(&process, key, value).err();
            let goes = refused.is_none();
            let ctx = Context::new(process);
            async move {
                // One that lost the race ends before it began.
                if goes { run_actor::<A>(ctx, args).await } else { ExitReason::Normal }
            }
        })?;
        match (refused, outcome.await) {
            (Some(RegistryError::AlreadyRegistered { holder }), _) => {
                Err(StartError::AlreadyStarted { holder })
            }
            (None, Ok(Ok(()))) => Ok(Ref::to(process)),
            (None, Ok(Err(error))) => Err(error.into()),
            // Killed before it began, or the task was dropped with the tokio runtime.
            (Some(RegistryError::NoProcess), _) | (None, Err(_)) => {
                Err(SpawnError::Stopping.into())
            }
        }
    }

    /// From now on a process of this node gets a [`RegistryEvent`] for every entry that is made or
    /// ends (Elixir: the option `:listeners`); `false` if it is dead, ending or elsewhere.
    ///
    /// It listens until it ends. An actor lists `RegistryEvent<K>` in its
    /// [`Messages`](Actor::Messages); it can listen to registries with one type of keys. Events come
    /// after the fact, as any message: those of one process in order if only that process registers
    /// itself, those of different processes in any order.
    pub fn listen(&self, listener: impl Into<Pid>) -> bool
    where
        K: Serialize + DeserializeOwned,
    {
        let Some(process) = self.0.process(listener.into()) else { return false };
        let cleanup = Arc::downgrade(&self.0);
        let mut listeners = self.0.listeners.write().unwrap_or_else(PoisonError::into_inner);
        if !process.clean_up_with(cleanup) {
            return false;
        }
        let serial = process.serial;
        if listeners.iter().all(|known| known.serial != serial) {
            listeners.push(Listener { serial, tell: |runtime, to, event| runtime.send(to, event) });
        }
        true
    }
}

impl<K: Hash + Eq, V> Inner<K, V> {
    fn owners(&self, serial: u64) -> MutexGuard<'_, Owners<K>> {
        lock(&self.owners[shard(serial)])
    }

    fn keys(&self, key: &K) -> MutexGuard<'_, HashMap<Arc<K>, Entries<V>>> {
        lock(&self.keys[shard(self.hasher.hash_one(key))])
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn serial(&self, pid: Pid) -> Option<u64> {
        self.runtime.is_own(&pid).then_some(pid.serial)
    }

    fn process(&self, pid: Pid) -> Option<Arc<Process>> {
        self.serial(pid).and_then(|serial| self.runtime.process(serial))
    }

    fn find(&self, key: &K) -> Vec<(u64, Arc<V>)> {
        match self.keys(key).get(key) {
            None => Vec::new(),
            Some(Entries::One(serial, value)) => vec![(*serial, Arc::clone(value))],
            Some(Entries::Many(entries)) => {
                let entry = |(&(serial, _), value): (&(u64, u64), &Arc<V>)| (serial, value.clone());
                entries.iter().map(entry).collect()
            }
        }
    }

    /// Takes a process's entries out of a key; what is returned is dropped outside the locks.
    fn take(&self, key: &K, serial: u64) -> Taken<K, V> {
        let mut keys = self.keys(key);
        let Some(entries) = keys.get_mut(key) else { return (None, Vec::new()) };
        let mut values = Vec::new();
        let empty = match entries {
            Entries::One(owner, _) => *owner == serial,
            Entries::Many(entries) => {
                let of_process = entries.range((serial, 0)..=(serial, u64::MAX));
                let of_process: Vec<_> = of_process.map(|(entry, _)| *entry).collect();
                values.extend(of_process.iter().filter_map(|entry| entries.remove(entry)));
                entries.is_empty()
            }
        };
        let key = if empty { keys.remove_entry(key) } else { None };
        (key, values)
    }

    fn tell(&self, event: impl Fn(Pid) -> RegistryEvent<K>, about: u64) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return;
        }
        let told = listeners.clone();
        drop(listeners);
        let id = self.runtime.id();
        for listener in told {
            (listener.tell)(&self.runtime, id.pid(listener.serial), event(id.pid(about)));
        }
    }
}

fn shard(number: u64) -> usize {
    usize::try_from(number % SHARDS as u64).expect("smaller than a usize")
}

/// What was taken out of a key: the key itself, if nobody has it any more, and values.
type Taken<K, V> = (Option<(Arc<K>, Entries<V>)>, Vec<Arc<V>>);

impl<V> Entries<V> {
    fn first(&self) -> u64 {
        match self {
            Self::One(serial, _) => *serial,
            Self::Many(entries) => {
                entries.first_key_value().expect("a key without entries is taken out").0.0
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(entries) => entries.len(),
        }
    }

    fn add(&mut self, serial: u64, number: u64, value: Arc<V>) {
        if let Self::One(first, one) = self {
            // Numbers begin at 1: the first entry comes before every later one of its process.
            *self = Self::Many(BTreeMap::from([((*first, 0), Arc::clone(one))]));
        }
        if let Self::Many(entries) = self {
            entries.insert((serial, number), value);
        }
    }
}

impl<K, V> Cleanup for Inner<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn ended(&self, serial: u64) {
        let held = self.owners(serial).remove(&serial).unwrap_or_default();
        // All are taken out before one is dropped, which may panic.
        let taken: Vec<_> = held.keys().map(|key| self.take(key, serial)).collect();
        for key in held.keys() {
            self.tell(|pid| RegistryEvent::Unregistered { key: K::clone(key), pid }, serial);
        }
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.serial != serial);
        drop(listeners);
        drop(taken);
    }
}

impl<K, V> Clone for Registry<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> fmt::Debug for Registry<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("node", &self.0.runtime.id())
            .field("unique", &self.0.unique)
            .finish_non_exhaustive()
    }
}
