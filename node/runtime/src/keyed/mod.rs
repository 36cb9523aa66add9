//! Keyed processes: one for each key that is used, started on first use at the key's owner (Orleans:
//! grains; Akka: sharded entities).
//!
//! A kind is declared as keyed ([`KeyedKinds`]) on every node. A message to a key goes to the owner on
//! the ring as its sender sees it ([`Remote::key_owner`](crate::Remote::key_owner)); the owner has a
//! table from keys to processes ([`table`]) and starts the process if there is none.
//!
//! # What if
//!
//! - *messages come while it starts*: the process has its mailbox before its `start` begins, so they
//!   wait there, in order and bounded as any mailbox is. If the start fails, their callers are told
//!   the reason, and the next message tries again.
//! - *it ends just when a message comes*, idle or in a crash: a mailbox that takes nothing more hands
//!   the message back, and it goes to a new process for the key ([`deliver`]). That one does not
//!   begin before the old one has ended (`Slot::turn`): on one node a key never has two.
//! - *it crashes*: what was in its mailbox is told so, as for any process. The next message starts it
//!   anew. Nobody restarts it before that.
//! - *the receiving node is not the owner by its own view*: it sends the message on, once. A node
//!   that gets such a one and is not the owner either refuses: `NotOwner`, or counted.
//! - *the owner is down*: calls that are out end with `NoConnection`. When it has left the ring, the
//!   next message finds the next owner, which starts the process there.
//! - *a key gets another owner* because a node has joined, come back or is drained: its process here
//!   ends when it is idle, and what comes for it here is sent on ([`moved`]). The new owner's process
//!   begins when the old one has ended, with its state if the kind has one ([`stateful`]), or does not
//!   for too long ([`release`]). What comes meanwhile waits in its mailbox, within the mailbox's bound.
//! - *the owner changes while a process begins*: it ends without having begun, and what waits for it is
//!   sent on.
//! - *two nodes are owners*, each by its own view, during a split or while a change of members
//!   spreads: then a key of the *available* kind has two processes.
//!
//! # Exclusive
//!
//! The owner is that of the newest ring view the cluster's voters have agreed on, as this node knows
//! it ([`Remote::exclusive_owner`](crate::Remote::exclusive_owner)). Its process has its mailbox at
//! once and begins when this node holds the key (`exclusive.rs`, [`Holding`](crate::Holding)); so
//! messages wait for that as they do for a start. What else is different:
//!
//! - *a key gets another owner*, because a node joins or is drained: its process here ends as above,
//!   after 5 s also when it is busy; the new owner's begins when all nodes have ended theirs, with its
//!   state if the kind has one. What comes meanwhile waits there.
//! - *two nodes know different views*: what is sent on to a node that does not own the key by its own
//!   view waits there until that node has asked for the newest one; then it is handled or sent on.
//! - *the owner is down*: the next one's begins when the lost node's lease has run out.
//! - *the node's lease runs out*: its processes are asked to end at once and killed before anybody
//!   else may begin; callers are told.
//! - *the key goes elsewhere while its process waits to begin*: it does not begin, and what waits in
//!   its mailbox is sent on.
//!
//! # Order
//!
//! Messages of one sender to one key arrive in the order they were sent, also when its owner changes:
//! what is sent straight to the new one waits until what was sent to the old one has arrived
//! ([`switch`]).
//!
//! # Locks
//!
//! A shard of the table is held while a process is started for it, so that there is one; the locks
//! that this takes are leaves. No code of the user runs under it.

pub(crate) mod deliver;
mod idle;
mod info;
pub(crate) mod moved;
mod release;
mod remember;
pub(crate) mod stateful;
pub(crate) mod store;
pub(crate) mod switch;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::{ExitReason, Key, Snapshot, SpawnError};
use tokio::sync::oneshot;

use crate::actor::Actor;
use crate::context::{Context, run_actor, run_from};
use crate::exclusive::Leased;
use crate::process::{Class, Process};
use crate::runtime::Runtime;
use crate::spawn::{Announce, SpawnOptions};
use deliver::ring_key;
use release::Found;
use stateful::{Resumed, Stateful};
use table::{Slot, Table};

/// An actor of which there is one process for each key that is used.
///
/// ```
/// use purlin_runtime::{
///     Actor, Config, Context, Dest, Handler, Key, Keyed, KeyedActor, KeyedKinds, Message, NodeId,
///     Outcome, Runtime,
/// };
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct AddItem(String);
/// impl Message for AddItem {
///     const NAME: &'static str = "cart.add";
///     type Reply = usize;
/// }
///
/// struct Cart {
///     items: Vec<String>,
/// }
///
/// impl Actor for Cart {
///     const KIND: &'static str = "cart";
///     type Args = Key;
///     type Messages = (AddItem,);
///
///     async fn start(_: Key, _: &mut Context<Self>) -> Outcome<Self> {
///         Ok(Self { items: Vec::new() })
///     }
/// }
///
/// impl KeyedActor for Cart {
///     fn args(key: &Key) -> Key {
///         key.clone()
///     }
/// }
///
/// impl Handler<AddItem> for Cart {
///     async fn handle(&mut self, AddItem(item): AddItem, _: &mut Context<Self>) -> Outcome<usize> {
///         self.items.push(item);
///         Ok(self.items.len())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut config = Config::new(NodeId::new("a".into(), 1));
/// config.keyed = KeyedKinds::default().with::<Cart>(Keyed::new());
/// let runtime = Runtime::new(config);
/// let cart = runtime.keyed::<Cart>(42);
/// assert_eq!(cart.call(AddItem("tea".into())).await?, 1);
/// assert_eq!(runtime.call(Dest::key("cart", 42), AddItem("milk".into())).await?, 2);
/// # Ok(())
/// # }
/// ```
pub trait KeyedActor: Actor {
    /// What the process of a key is started with. Called by the new process; a panic is one of it.
    fn args(key: &Key) -> Self::Args;
}

/// How the processes of a keyed kind are kept.
///
/// ```
/// use std::time::Duration;
/// use purlin_runtime::Keyed;
///
/// let keyed = Keyed::new().passivate_after(Duration::from_mins(2));
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Keyed {
    passivate_after: Option<Duration>,
    handoff_timeout: Option<Duration>,
    remember: bool,
    exclusive: bool,
}

/// How long a new owner of a key waits for the old one.
const HANDOFF_TIMEOUT: Duration = Duration::from_secs(5);

impl Default for Keyed {
    fn default() -> Self {
        Self::new()
    }
}

impl Keyed {
    /// Of the [exclusive](Self::exclusive) kind; a process runs until something ends it.
    pub fn new() -> Self {
        Self::exclusive()
    }

    /// A key has at most one process in the cluster, at every instant. Its process begins when its
    /// node holds the key: it has a lease from the majority of the cluster's voters, and no other node
    /// takes itself for the owner any more. A node that is cut off from that majority ends its
    /// exclusive processes, and messages to them wait at the owner or fail. A process knows its
    /// [`fence`](Context::fence).
    pub fn exclusive() -> Self {
        Self { passivate_after: None, handoff_timeout: None, remember: false, exclusive: true }
    }

    /// A key has a process wherever its owner is asked for it: in each part of a split cluster, and
    /// for a while perhaps two when members come or go. It asks nobody, and goes on in every part.
    pub fn available() -> Self {
        Self { exclusive: false, ..Self::exclusive() }
    }

    /// Ends a process in good order ([`Actor::stop`], reason `Shutdown`) when it has handled nothing
    /// for so long, and a quarter more at most. It is not idle while it handles something or owes a
    /// [deferred](Context::defer) reply. At least 1 ms.
    ///
    /// A message that comes just then is not lost: it starts the process anew. What the process knew
    /// is gone, unless the kind has a state ([`Stateful`]) or it has saved it in its `stop`.
    pub fn passivate_after(mut self, idle: Duration) -> Self {
        self.passivate_after = Some(idle.max(Duration::from_millis(1)));
        self
    }

    /// Keeps used keys running: a key that was used once is started again, without waiting for a
    /// message, after its process or its node has crashed or was restarted, until its process ends
    /// itself with the reason `Normal`. [`passivate_after`](Self::passivate_after) does not apply.
    ///
    /// After a crash of its node a key runs elsewhere as soon as the node is declared down, and a
    /// second more; many are started a few at a time.
    pub fn remember(mut self) -> Self {
        self.remember = true;
        self
    }

    /// How long the new owner of a key waits until the old one has ended its process and handed over
    /// its state; 5 s unless said otherwise. Then it begins without.
    pub fn handoff_timeout(mut self, limit: Duration) -> Self {
        self.handoff_timeout = Some(limit);
        self
    }
}

/// A set of keyed kinds, each under its [`Actor::KIND`].
#[derive(Clone, Default)]
pub struct KeyedKinds(BTreeMap<&'static str, Declared>);

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Declared {
    keyed: Keyed,
    launch: Launch,
    stateful: bool,
}

/// Makes the process of a key and its task.
type Launch = fn(&Runtime, &Arc<Slot>) -> Result<Arc<Process>, SpawnError>;

impl KeyedKinds {
    /// Adds a kind; one of the same name is replaced.
    #[must_use]
    pub fn with<A: KeyedActor>(mut self, keyed: Keyed) -> Self {
        self.0.insert(A::KIND, Declared { keyed, launch: launch::<A>, stateful: false });
        self
    }

    /// Adds a kind whose state is kept while its processes do not run; one of the same name is
    /// replaced.
    #[must_use]
    pub fn with_state<A: Stateful + KeyedActor>(mut self, keyed: Keyed) -> Self {
        let launch = launch_with_state::<A>;
        self.0.insert(A::KIND, Declared { keyed, launch, stateful: true });
        self
    }

    /// Whether there is one with state.
    pub fn any_with_state(&self) -> bool {
        self.0.values().any(|declared| declared.stateful)
    }

    /// Whether one of them is exclusive.
    pub fn any_exclusive(&self) -> bool {
        self.0.values().any(|declared| declared.keyed.exclusive)
    }

    pub(crate) fn into_tables(self) -> BTreeMap<&'static str, Arc<Table>> {
        self.0.into_iter().map(|(kind, declared)| (kind, Table::new(kind, declared))).collect()
    }
}

impl fmt::Debug for KeyedKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn launch<A: KeyedActor>(runtime: &Runtime, slot: &Arc<Slot>) -> Result<Arc<Process>, SpawnError> {
    launch_by::<A, _>(runtime, slot, |process, slot, _| {
        let args = A::args(&slot.key);
        run_actor::<A>(Context::new(process), args)
    })
}

fn launch_with_state<A: Stateful + KeyedActor>(
    runtime: &Runtime,
    slot: &Arc<Slot>,
) -> Result<Arc<Process>, SpawnError> {
    launch_by::<A, _>(runtime, slot, |process, slot, found| {
        let slot = Arc::clone(slot);
        run_from::<A, _>(Context::new(process), Resumed { slot, found })
    })
}

fn launch_by<A: KeyedActor, Fut: Future<Output = ExitReason> + Send + 'static>(
    runtime: &Runtime,
    slot: &Arc<Slot>,
    run: impl FnOnce(Arc<Process>, &Arc<Slot>, Option<Snapshot>) -> Fut + Send + 'static,
) -> Result<Arc<Process>, SpawnError> {
    let (counters, of) = (runtime.clone(), slot.key.clone());
    // Nobody waits for the start itself.
    let announce = Announce::new(move |started| {
        if started.is_ok()
            && let Some(table) = counters.0.keyed.get(A::KIND)
        {
            counters.remember(table, &of);
        }
        // What is ignored is not this node's to start, and is started elsewhere.
        if let Err(error) = started
            && error != SpawnError::Ignored
        {
            counters.counters().keyed_not_started.add();
            tracing::warn!(kind = A::KIND, key = %of, %error, "a keyed process did not start");
        }
    });
    let options = SpawnOptions { announce: Some(announce), ..SpawnOptions::default() };
    let (starter, _) = oneshot::channel();
    let class = const { &Class::of::<A>() };
    let slot = Arc::clone(slot);
    let exclusive = runtime.0.keyed.get(A::KIND).is_some_and(|table| table.exclusive);
    runtime.launch(class, options, Some(starter), false, |process| async move {
        let _turn = Arc::clone(&slot.turn).lock_owned().await;
        let entered = match exclusive {
            true => {
                let key = ring_key(A::KIND, &slot.key);
                match Runtime::enter_exclusive(&process, key).await {
                    Ok(entered) => Some(entered),
                    Err(reason) if process.runtime.is_ours(A::KIND, &slot.key) => return reason,
                    Err(_) => return process.runtime.not_ours(A::KIND, &process, &slot.key),
                }
            }
            false => None,
        };
        // Boxed, for it is large, and over before the process's own life begins.
        let found = match Box::pin(process.runtime.find_key(A::KIND, &slot.key, process.serial))
            .await
        {
            Ok(Found::Free(found)) => found,
            Ok(Found::NotOwner) => return process.runtime.not_ours(A::KIND, &process, &slot.key),
            Err(reason) => return reason,
        };
        let leased = exclusive.then(|| Arc::clone(&process));
        let life = run(process, &slot, found);
        drop(slot);
        let reason = Leased::new(leased, life).await;
        drop(entered);
        reason
    })
}
