//! One node without a network, as a value.
//!
//! A [`Runtime`] holds the processes of one node, their names, the calls that are out, and the
//! kinds that can be started by name. What it is handed besides: a name and creation, an observer
//! of what happens, and, if there are other nodes, the way to them ([`Remote`]).
//!
//! Locks, all leaves: a shard of the table, the names, the pending answers, the index of remote
//! relations, what is watched elsewhere, the lives. None is held while a process is touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use purlin_proto::admin::What;
use purlin_proto::{Dest, ExitReason, Name, NodeEvent, NodeId, NodeName, Pid, Reference, Signal};

use rustc_hash::FxHashMap;
use tokio::time::{Duration, Instant};

use crate::counters::Counters;
use crate::entries::Entries;
use crate::entries::globals::Resolver;
use crate::exclusive::Exclusive;
use crate::inflow::{INFLOW_BYTES, Inflow, Stopped};
use crate::item::Notice;
use crate::keyed::KeyedKinds;
use crate::keyed::moved::{KEYS_IN_MOTION, Moves};
use crate::keyed::store::{MemoryStore, Store};
use crate::keyed::switch::Switches;
use crate::keyed::table::Table as Keyed;
use crate::kind::{Kind, Kinds};
use crate::pending::Pending;
use crate::process::Process;
use crate::relations::Address;
use crate::remote::Remote;
use crate::reports::Reports;
use crate::table::Table;
use crate::watchdog::Workers;
use crate::watched::Watched;

/// How many messages wait in a mailbox before senders are held back or messages dropped.
pub const MAILBOX_LIMIT: usize = 100_000;

/// How many processes a node runs at most.
pub const PROCESS_LIMIT: usize = 10_000_000;

/// Told what happens in a runtime, for logs and subscribers. Called by the process that it happens
/// to, so it must not block.
pub type Observer = Arc<dyn Fn(What) + Send + Sync>;

/// What a runtime is made of.
#[derive(Clone)]
pub struct Config {
    /// The node and its present life.
    pub id: NodeId,
    /// The kinds that can be started by name.
    pub kinds: Kinds,
    /// The kinds of which there is one process for each key.
    pub keyed: KeyedKinds,
    /// Where the state of those is kept; in memory unless said otherwise.
    pub store: Arc<dyn Store>,
    /// Told what happens.
    pub observer: Option<Observer>,
    /// The most messages that wait in one mailbox; [`MAILBOX_LIMIT`] unless said otherwise.
    pub mailbox_limit: usize,
    /// The most bytes that messages of one other node take up in mailboxes here;
    /// [`INFLOW_BYTES`] unless said otherwise.
    pub inflow_bytes: usize,
    /// The most processes; [`PROCESS_LIMIT`] unless said otherwise.
    pub process_limit: usize,
    /// Which of two holders of a global name is kept.
    pub resolver: Resolver,
    /// How many keys this node hands over at once, [`KEYS_IN_MOTION`](crate::KEYS_IN_MOTION) unless
    /// said otherwise.
    pub keys_in_motion: usize,
    /// The time of day, in milliseconds since 1970; the system's unless said otherwise.
    pub wall_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Config {
    /// A runtime of this node with no kinds and the default limits.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            kinds: Kinds::default(),
            keyed: KeyedKinds::default(),
            store: Arc::new(MemoryStore::default()),
            observer: None,
            mailbox_limit: MAILBOX_LIMIT,
            inflow_bytes: INFLOW_BYTES,
            process_limit: PROCESS_LIMIT,
            resolver: Resolver::default(),
            keys_in_motion: KEYS_IN_MOTION,
            wall_ms: Arc::new(system_ms),
        }
    }
}

/// The processes of one node. Cheap to clone; all clones are the same runtime.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Shared>);

/// A runtime that may be gone by now: for what the runtime itself keeps, as its way to other nodes, which
/// would keep it for ever otherwise.
///
/// ```
/// use purlin_runtime::Runtime;
///
/// # let tokio = tokio::runtime::Runtime::new().unwrap();
/// # let _inside = tokio.enter();
/// let runtime = Runtime::local("a".into());
/// let weak = runtime.downgrade();
/// assert!(weak.upgrade().is_some());
///
/// drop(runtime);
/// assert!(weak.upgrade().is_none());
/// ```
#[derive(Clone)]
pub struct WeakRuntime(Weak<Shared>);

impl WeakRuntime {
    /// The runtime, if anybody has it still.
    pub fn upgrade(&self) -> Option<Runtime> {
        self.0.upgrade().map(Runtime)
    }
}

impl std::fmt::Debug for WeakRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeakRuntime").field("runtime", &self.upgrade()).finish()
    }
}

pub(crate) struct Shared {
    name: NodeName,
    /// Every creation this runtime has had; the last is the present one.
    lives: RwLock<Vec<u64>>,
    serials: AtomicU64,
    references: AtomicU64,
    pub(crate) table: Table<Process>,
    names: Mutex<HashMap<Name, u64>>,
    pub(crate) kinds: Kinds,
    /// The processes of keys, by kind.
    pub(crate) keyed: BTreeMap<&'static str, Arc<Keyed>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) moves: Moves,
    pub(crate) switches: Switches,
    pub(crate) exclusive: Exclusive,
    pub(crate) pending: Pending,
    /// For each other node, the processes here that are, or were, related to processes there.
    index: Mutex<HashMap<NodeName, BTreeSet<u64>>>,
    /// Monitors of other nodes' processes that were made by name: who is watched.
    pub(crate) watched_by_name: Mutex<HashMap<(Pid, Reference), u64>>,
    /// Processes of other nodes that are watched here.
    pub(crate) watched: Watched,
    node_watchers: Mutex<BTreeSet<u64>>,
    /// What all nodes know of processes of all nodes.
    pub(crate) entries: Entries,
    wall_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) remote: OnceLock<Arc<dyn Remote>>,
    pub(crate) counters: Counters,
    observer: Option<Observer>,
    pub(crate) mailbox_limit: usize,
    pub(crate) inflow_bytes: usize,
    /// What other nodes' messages take up here.
    pub(crate) inflows: Mutex<FxHashMap<NodeName, Arc<Inflow>>>,
    /// Receivers of other nodes that have no room.
    pub(crate) stopped: Stopped,
    pub(crate) process_limit: usize,
    pub(crate) reports: Reports,
    pub(crate) workers: Workers,
    stopping: AtomicBool,
    /// From which times of processes are counted.
    epoch: Instant,
    pub(crate) executor: tokio::runtime::Handle,
}

fn system_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// A panicking thread cannot leave these maps half changed: no user code runs under their locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a name was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Another process has it.
    #[error("the name {name} is taken by {holder}")]
    Taken {
        /// The name.
        name: Name,
        /// Who has it.
        holder: Pid,
    },
    /// The process has a name already.
    #[error("the process is already registered as {name}")]
    HasName {
        /// The name that it has.
        name: Name,
    },
    /// It is dead, or runs on another node.
    #[error("no such process on this node")]
    NoProcess,
}

impl Runtime {
    /// A runtime whose processes run on the present tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(config: Config) -> Self {
        crate::panics::install_hook();
        let exclusive = Exclusive::default();
        let left = Arc::clone(&exclusive.left);
        let runtime = Self(Arc::new(Shared {
            name: config.id.name,
            lives: RwLock::new(vec![config.id.creation]),
            serials: AtomicU64::new(1),
            references: AtomicU64::new(1),
            table: Table::default(),
            names: Mutex::default(),
            kinds: config.kinds,
            keyed: config.keyed.into_tables(),
            store: config.store,
            moves: Moves::new(config.keys_in_motion),
            switches: Switches::default(),
            exclusive,
            pending: Pending::default(),
            index: Mutex::default(),
            watched_by_name: Mutex::default(),
            watched: Watched::default(),
            node_watchers: Mutex::default(),
            entries: Entries::new(config.id, config.resolver, left),
            wall_ms: config.wall_ms,
            remote: OnceLock::new(),
            counters: Counters::default(),
            observer: config.observer,
            mailbox_limit: config.mailbox_limit,
            inflow_bytes: config.inflow_bytes,
            inflows: Mutex::default(),
            stopped: Stopped::default(),
            process_limit: config.process_limit,
            reports: Reports::new(),
            workers: Workers::default(),
            stopping: AtomicBool::new(false),
            epoch: Instant::now(),
            executor: tokio::runtime::Handle::current(),
        }));
        runtime.begin_passivation();
        runtime.begin_moving();
        runtime.begin_remembering();
        runtime
    }

    /// A runtime with default settings that knows no other nodes: for tests and small programs.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn local(name: NodeName) -> Self {
        Self::new(Config::new(NodeId::new(name, 1)))
    }

    /// The node and its present life.
    pub fn id(&self) -> NodeId {
        let lives = self.0.lives.read().unwrap_or_else(PoisonError::into_inner);
        let creation = *lives.last().expect("a runtime has at least one life");
        NodeId::new(self.0.name, creation)
    }

    /// The node's name.
    pub fn name(&self) -> NodeName {
        self.0.name
    }

    /// What was lost, late or refused so far.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// The kinds that can be started by name.
    pub fn kinds(&self) -> &Kinds {
        &self.0.kinds
    }

    /// How many calls and spawns to other nodes are out: of processes here, and of those whose
    /// messages this node sends on.
    pub fn calls_out(&self) -> usize {
        self.0.pending.len()
    }

    /// Gives the runtime its way to other nodes; only the first time counts.
    pub fn set_remote(&self, remote: Arc<dyn Remote>) {
        // A second way would split the order of signals, so it is not taken.
        drop(self.0.remote.set(remote));
    }

    /// Puts the node under a new creation.
    ///
    /// To other nodes every old pid is dead from now on. On this node processes go on, and old pids
    /// still name them. The caller ends the connections, with [`connection_lost`] for each node.
    ///
    /// [`connection_lost`]: Self::connection_lost
    pub fn reincarnate(&self, creation: u64) {
        let mut lives = self.0.lives.write().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(lives.last().is_none_or(|&last| last < creation), "creations rise");
        lives.push(creation);
    }

    /// A reference that this runtime has not used yet.
    pub fn reference(&self) -> Reference {
        Reference(self.0.references.fetch_add(1, Ordering::Relaxed))
    }

    /// A time as nanoseconds after the runtime's start.
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.0.epoch).as_nanos();
        u64::try_from(after).unwrap_or(u64::MAX)
    }

    pub(crate) fn instant(&self, nanos: u64) -> Instant {
        self.0.epoch + Duration::from_nanos(nanos)
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        (self.0.wall_ms)()
    }

    pub(crate) fn next_serial(&self) -> u64 {
        self.0.serials.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn kind(&self, name: &str) -> Option<&Arc<dyn Kind>> {
        self.0.kinds.find(name)
    }

    pub(crate) fn observe(&self, what: impl FnOnce() -> What) {
        if let Some(observer) = &self.0.observer {
            observer(what());
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.table.len() >= self.0.process_limit
    }

    /// Whether it takes no new processes any more, because it is to end.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    // ----- who is where -----

    pub(crate) fn process(&self, serial: u64) -> Option<Arc<Process>> {
        self.0.table.find(serial)
    }

    /// This runtime, without keeping it.
    pub fn downgrade(&self) -> WeakRuntime {
        WeakRuntime(Arc::downgrade(&self.0))
    }

    /// Whether this pid is, or was, of this node while this runtime lives.
    pub(crate) fn is_own(&self, pid: &Pid) -> bool {
        pid.node.name == self.0.name && {
            let lives = self.0.lives.read().unwrap_or_else(PoisonError::into_inner);
            lives.contains(&pid.node.creation)
        }
    }

    /// The serial of a process of this node, under whichever creation the pid was given.
    pub(crate) fn own_serial(&self, pid: &Pid) -> Option<u64> {
        self.is_own(pid).then_some(pid.serial)
    }

    /// Whether two pids name the same process. A process of this node has one under each creation
    /// that the node takes while it runs ([`reincarnate`](Self::reincarnate)), so that comparing the
    /// pids themselves would miss it.
    pub fn is_same(&self, one: Pid, other: Pid) -> bool {
        one == other || one.serial == other.serial && self.is_own(&one) && self.is_own(&other)
    }

    pub(crate) fn address_of(&self, pid: &Pid) -> Address {
        if self.is_own(pid) { Address::Local(pid.serial) } else { Address::Remote(*pid) }
    }

    pub(crate) fn pid_of(&self, address: Address) -> Pid {
        match address {
            Address::Local(serial) => self.id().pid(serial),
            Address::Remote(pid) => pid,
        }
    }

    /// Whether a process of this node lives. A process that has been asked to end does not.
    pub fn is_alive(&self, pid: Pid) -> bool {
        let own = self.is_own(&pid).then(|| self.process(pid.serial)).flatten();
        own.is_some_and(|process| !process.is_ending())
    }

    // ----- names -----

    /// The process that has this name on this node.
    pub fn whereis(&self, name: &Name) -> Option<Pid> {
        self.serial_of(name).map(|serial| self.id().pid(serial))
    }

    /// The process that a destination leads to now, if that can be told here.
    pub(crate) fn holder(&self, dest: &Dest) -> Option<Pid> {
        match dest {
            Dest::Pid(pid) => Some(*pid),
            Dest::Remote(_, node) if *node != self.name() => None,
            Dest::Local(name) | Dest::Remote(name, _) => self.whereis(name),
            Dest::Global(name) => self.whereis_global(name),
            Dest::Child(child) => self.whereis_child(child),
            Dest::Key { kind, key } => self.find_keyed(kind, key).map(|process| process.pid()),
            _ => None,
        }
    }

    pub(crate) fn serial_of(&self, name: &Name) -> Option<u64> {
        lock(&self.0.names).get(name).copied()
    }

    /// Every name of this node and its process, by name.
    pub fn names(&self) -> Vec<(Name, Pid)> {
        let id = self.id();
        let names = lock(&self.0.names);
        let mut list: Vec<_> = names.iter().map(|(n, s)| (n.clone(), id.pid(*s))).collect();
        drop(names);
        list.sort();
        list
    }

    /// Takes a name for a process that is about to live, or says who has it.
    pub(crate) fn claim(&self, name: &Name, serial: u64) -> Result<(), Pid> {
        let mut names = lock(&self.0.names);
        match names.get(name) {
            Some(holder) => Err(self.id().pid(*holder)),
            None => {
                names.insert(name.clone(), serial);
                Ok(())
            }
        }
    }

    /// Gives a living process of this node a name (OTP: `register`). It has one name at most.
    pub fn register(&self, name: Name, pid: Pid) -> Result<(), RegisterError> {
        let own = self.is_own(&pid).then(|| self.process(pid.serial)).flatten();
        let process = own.ok_or(RegisterError::NoProcess)?;
        let taken = |holder| RegisterError::Taken { name: name.clone(), holder };
        self.claim(&name, pid.serial).map_err(taken)?;
        if !process.set_name(Some(name.clone())) {
            self.release(&name, pid.serial);
            let has = process.name().map(|name| RegisterError::HasName { name });
            return Err(has.unwrap_or(RegisterError::NoProcess));
        }
        self.observe(|| What::NameRegistered { name, pid });
        Ok(())
    }

    /// Takes a name back (OTP: `unregister`); `false` if nobody has it.
    pub fn unregister(&self, name: &Name) -> bool {
        let Some(serial) = lock(&self.0.names).remove(name) else { return false };
        if let Some(process) = self.process(serial) {
            process.set_name(None);
        }
        self.observe(|| What::NameReleased { name: name.clone(), pid: self.id().pid(serial) });
        true
    }

    pub(crate) fn release(&self, name: &Name, serial: u64) {
        let mut names = lock(&self.0.names);
        if names.get(name) == Some(&serial) {
            names.remove(name);
        }
    }

    // ----- relations -----

    /// Notes that a process here has to do with a node, so that it is told when that is lost.
    pub(crate) fn relate(&self, process: &Process, node: NodeName) {
        let new = process.relations(|relations| relations.nodes.insert(node, ()).is_none());
        if new == Some(true) {
            lock(&self.0.index).entry(node).or_default().insert(process.serial);
            if self.process(process.serial).is_none() {
                // It has ended meanwhile, before it was listed.
                self.unrelate(process.serial, [&node]);
            }
        }
    }

    pub(crate) fn unrelate<'a>(&self, serial: u64, nodes: impl IntoIterator<Item = &'a NodeName>) {
        for node in nodes {
            let mut index = lock(&self.0.index);
            if let Some(serials) = index.get_mut(node) {
                serials.remove(&serial);
                if serials.is_empty() {
                    index.remove(node);
                }
            }
        }
    }

    /// How many pairs there are of a node and a process here that has, or had, to do with it.
    pub(crate) fn related(&self) -> usize {
        lock(&self.0.index).values().map(BTreeSet::len).sum()
    }

    pub(crate) fn watching_nodes(&self) -> usize {
        lock(&self.0.node_watchers).len()
    }

    /// The connection to a node is lost, or could not be made.
    ///
    /// Every call and spawn that waits for it ends, every link and monitor to its processes fires
    /// with `noconnection`, and what its processes had here (their links and monitors) is forgotten.
    /// Harmless where there is nothing to end.
    pub fn connection_lost(&self, node: NodeName) {
        // First, so that who is related to the node from now on sees it, and ends by itself.
        self.inflow_lost(node);
        self.watched_lost(node);
        let serials = lock(&self.0.index).remove(&node).unwrap_or_default();
        for process in serials.into_iter().filter_map(|serial| self.process(serial)) {
            process.connection_lost(node);
        }
        lock(&self.0.watched_by_name).retain(|(watcher, _), _| watcher.node.name != node);
        self.0.pending.connection_lost(node);
    }

    /// Tells every process that watches nodes. To be called after [`connection_lost`] for a node
    /// that is down, so that its `Down`s come first.
    ///
    /// [`connection_lost`]: Self::connection_lost
    pub fn node_event(&self, event: &NodeEvent) {
        let watchers = lock(&self.0.node_watchers).clone();
        for process in watchers.into_iter().filter_map(|serial| self.process(serial)) {
            process.notify(Notice::Node(event.clone()));
        }
    }

    /// A process, alive and by itself, begins or ceases to be told what becomes of nodes.
    pub(crate) fn watch_nodes(&self, process: &Process, watch: bool) {
        process.relations(|relations| relations.watches_nodes = watch);
        let mut watchers = lock(&self.0.node_watchers);
        if watch {
            watchers.insert(process.serial);
        } else {
            watchers.remove(&process.serial);
        }
    }

    // ----- signals from outside any process -----

    /// Asks a process to end (OTP: `exit/2`). Nothing happens if there is none.
    ///
    /// [`ExitReason::Kill`] cannot be trapped; `Normal` is ignored by processes that do not trap
    /// exits; `Shutdown` lets an actor finish the message in hand and its [`stop`](crate::Actor::stop).
    pub fn exit(&self, target: impl Into<Dest>, reason: ExitReason) {
        self.signal_dest(self.sender(), &target.into(), Signal::Exit { reason });
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("id", &self.id()).finish_non_exhaustive()
    }
}
