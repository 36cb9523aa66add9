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
//! - *a key gets another owner* because a node has joined or come back: its process here ends when it
//!   is idle, and what comes for it here is sent on ([`moved`]). The new owner's process begins when
//!   the old one has ended, or does not for too long ([`release`]).
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
//! - *a key gets another owner*: its process here ends as above, after 5 s also when it is busy; the
//!   new owner's begins when all nodes have ended theirs.
//! - *the owner is down*: the next one's begins when the lost node's lease has run out.
//! - *the node's lease runs out*: its processes are asked to end at once and killed before anybody
//!   else may begin; callers are told.
//! - *the key goes elsewhere while its process waits to begin*: it does not begin, and who waits in
//!   its mailbox is told so.
//!
//! # Order
//!
//! Messages of one sender to one key arrive in the order they were sent, as long as the owner stays
//! the same. When it changes, what is sent on by the old owner may come after what was sent later,
//! straight to the new one.
//!
//! # Locks
//!
//! A shard of the table is held while a process is started for it, so that there is one; the locks
//! that this takes are leaves. No code of the user runs under it.

pub(crate) mod deliver;
mod idle;
mod moved;
mod release;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::{Key, SpawnError};
use tokio::sync::oneshot;

use crate::actor::Actor;
use crate::context::{Context, run_actor};
use crate::exclusive::Leased;
use crate::process::{Class, Process};
use crate::runtime::Runtime;
use crate::spawn::{Announce, SpawnOptions};
use deliver::ring_key;
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
    exclusive: bool,
}

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
        Self { passivate_after: None, exclusive: true }
    }

    /// A key has a process wherever its owner is asked for it: in each part of a split cluster, and
    /// for a while perhaps two when members come or go. It asks nobody, and goes on in every part.
    pub fn available() -> Self {
        Self { passivate_after: None, exclusive: false }
    }

    /// Ends a process in good order ([`Actor::stop`], reason `Shutdown`) when it has handled nothing
    /// for so long, and a quarter more at most. It is not idle while it handles something or owes a
    /// [deferred](Context::defer) reply. At least 1 ms.
    ///
    /// A message that comes just then is not lost: it starts the process anew. What the process knew
    /// is gone, unless it has saved it in its `stop`.
    pub fn passivate_after(mut self, idle: Duration) -> Self {
        self.passivate_after = Some(idle.max(Duration::from_millis(1)));
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
}

/// Makes the process of a key and its task.
type Launch = fn(&Runtime, &Slot) -> Result<Arc<Process>, SpawnError>;

impl KeyedKinds {
    /// Adds a kind; one of the same name is replaced.
    #[must_use]
    pub fn with<A: KeyedActor>(mut self, keyed: Keyed) -> Self {
        self.0.insert(A::KIND, Declared { keyed, launch: launch::<A> });
        self
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

fn launch<A: KeyedActor>(runtime: &Runtime, slot: &Slot) -> Result<Arc<Process>, SpawnError> {
    let (key, turn, exclusive) = (slot.key.clone(), Arc::clone(&slot.turn), slot.exclusive);
    let (counters, of) = (runtime.clone(), key.clone());
    // Nobody waits for the start itself.
    let announce = Announce::new(move |started| {
        if let Err(error) = started {
            counters.counters().keyed_not_started.add();
            tracing::warn!(kind = A::KIND, key = %of, %error, "a keyed process did not start");
        }
    });
    let options = SpawnOptions { announce: Some(announce), ..SpawnOptions::default() };
    let (starter, _) = oneshot::channel();
    let class = const { &Class::of::<A>() };
    runtime.launch(class, options, Some(starter), false, |process| async move {
        let _turn = turn.lock_owned().await;
        if exclusive {
            let ring_key = ring_key(A::KIND, &key);
            let _entered = match Runtime::enter_exclusive(&process, ring_key).await {
                Ok(entered) => entered,
                Err(reason) => return reason,
            };
            let args = A::args(&key);
            let leased = Arc::clone(&process);
            return Leased::new(leased, run_actor::<A>(Context::new(process), args)).await;
        }
        process.runtime.wait_for_release(A::KIND, &key).await;
        let args = A::args(&key);
        run_actor::<A>(Context::new(process), args).await
    })
}
