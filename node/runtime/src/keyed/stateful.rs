//! Keyed processes whose state outlives them: it is saved when they end in good order, and goes along
//! when their key moves. What an actor has to say for that is the same for children of cluster
//! supervisors, whose state is nowhere saved and only goes along (`hosted.rs`).
//!
//! # When it is saved
//!
//! At the end of a process in good order: when it is idle for too long, stops by itself, or its node
//! stops; and when it asks for it ([`Context::save`]). When its key moves, the state goes to the new
//! owner instead (`release.rs`), which stores it before it begins.
//!
//! # What if
//!
//! - *it crashes, panics or is killed*: nothing is saved. The next process begins with what was saved
//!   last; a state that made it crash is not what anybody wants back.
//! - *its node is lost*: the key starts elsewhere without what is on that node's disk, unless the
//!   [`Store`](super::store::Store) is shared.
//! - *the store fails when it ends*: tried again for some time, during which the key's next process
//!   waits; then it is lost as after a crash, logged and counted (`keyed.not_saved`).
//! - *the store fails when it begins*, or what is stored is not understood: the start fails and says
//!   so to whoever called, and the next message tries again. It never begins anew by mistake.
//!
//! Encoding is done by the process itself, on a worker; reading and writing is the store's affair.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::limits::SNAPSHOT_BYTES;
use purlin_proto::{ExitReason, Key, Snapshot, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::KeyedActor;
use super::store::StoreError;
use super::table::Slot;
use crate::actor::{Actor, Outcome};
use crate::context::{Context, Origin};
use crate::runtime::{Runtime, lock};

/// How long to wait before saving is tried again.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// An actor whose state moves: that of a keyed one is kept while it does not run, and goes with its key;
/// that of a child of a cluster supervisor goes to where the child is moved.
///
/// Declared with [`KeyedKinds::with_state`](super::KeyedKinds::with_state), or
/// [`Kinds::with_state`](crate::Kinds::with_state). The state is encoded with
/// serde in a compact form that does not describe itself: whoever changes the type raises
/// [`VERSION`](Self::VERSION), and may read older ones in [`upgrade`](Self::upgrade).
///
/// ```
/// use purlin_runtime::{
///     Actor, Config, Context, Handler, Key, Keyed, KeyedActor, KeyedKinds, Message, NodeId,
///     Outcome, Runtime, Stateful,
/// };
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Deposit(u64);
/// impl Message for Deposit {
///     const NAME: &'static str = "account.deposit";
///     type Reply = u64;
/// }
///
/// struct Account {
///     total: u64,
/// }
///
/// impl Actor for Account {
///     const KIND: &'static str = "account";
///     type Args = ();
///     type Messages = (Deposit,);
///
///     async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
///         Ok(Self { total: 0 })
///     }
/// }
///
/// impl KeyedActor for Account {
///     fn args(_: &Key) {}
/// }
///
/// impl Stateful for Account {
///     type State = u64;
///
///     fn snapshot(&self) -> u64 {
///         self.total
///     }
///
///     async fn restore(total: u64, (): (), _: &mut Context<Self>) -> Outcome<Self> {
///         Ok(Self { total })
///     }
/// }
///
/// impl Handler<Deposit> for Account {
///     async fn handle(&mut self, Deposit(n): Deposit, ctx: &mut Context<Self>) -> Outcome<u64> {
///         self.total += n;
///         // Not only at its end: this survives a crash of the process.
///         ctx.save(self).await?;
///         Ok(self.total)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut config = Config::new(NodeId::new("a".into(), 1));
/// config.keyed = KeyedKinds::default().with_state::<Account>(Keyed::new());
/// let runtime = Runtime::new(config);
/// let account = runtime.keyed::<Account>("anna");
/// assert_eq!(account.call(Deposit(5)).await?, 5);
/// let pid = account.pid();
/// runtime.exit(pid, purlin_runtime::ExitReason::Kill);
/// runtime.down(pid).await;
/// assert_eq!(account.call(Deposit(1)).await?, 6);
/// # Ok(())
/// # }
/// ```
pub trait Stateful: Actor {
    /// What is kept. At most 32 MiB when encoded.
    type State: Serialize + DeserializeOwned + Send + 'static;

    /// The form of [`State`](Self::State): to be raised whenever that type changes.
    const VERSION: u32 = 0;

    /// The state of now. Called between messages, and at the end after [`stop`](super::Actor::stop).
    fn snapshot(&self) -> Self::State;

    /// Makes the process from what was kept of it; where nothing was,
    /// [`start`](super::Actor::start) does. If it fails, so does the start of the process, and what
    /// was kept stays.
    fn restore(
        state: Self::State,
        args: Self::Args,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Outcome<Self>> + Send;

    /// Reads a state of another [`VERSION`](Self::VERSION): an older one, or a newer one if the
    /// program was set back. Unless said otherwise that is an error, and the start fails.
    fn upgrade(old: &OldState<'_>) -> Result<Self::State, StateError> {
        Err(StateError::Version { stored: old.version, own: Self::VERSION })
    }
}

/// A state of another version; see [`Stateful::upgrade`].
#[derive(Debug, Clone, Copy)]
pub struct OldState<'a> {
    version: u32,
    bytes: &'a [u8],
}

impl OldState<'_> {
    /// Which version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Reads it as the type that was the state then.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, StateError> {
        let decoded = codec::from_bytes(self.bytes, SNAPSHOT_BYTES);
        decoded.map_err(|error| StateError::Unreadable { detail: error.to_string() })
    }
}

/// Why a state could not be read or kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// What was kept has another version, which this program does not read.
    #[error("it has version {stored}, and this program reads version {own}")]
    Version {
        /// That of what was kept.
        stored: u32,
        /// That of the program.
        own: u32,
    },
    /// What was kept is not what its version says.
    #[error("it cannot be read: {detail}")]
    Unreadable {
        /// Why not.
        detail: String,
    },
    /// It cannot be encoded, or is larger than 32 MiB.
    #[error("it cannot be encoded: {detail}")]
    NotEncodable {
        /// Why not.
        detail: String,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something newer is kept already: the key has, or had, another process.
    #[error("there is a newer one")]
    Older,
    /// The process was not started for a key of a kind with state.
    #[error("the process has no key of a kind with state")]
    NotKeyed,
}

/// What a process with state knows of it.
pub(crate) struct Kept {
    slot: Arc<Slot>,
    /// Of the newest snapshot of it that there is.
    at: u64,
}

impl<A: Stateful> Context<A> {
    /// Saves the state now; durable when it returns, as far as the [`Store`](super::store::Store) is. The process handles
    /// nothing else meanwhile. Cancel safe.
    pub async fn save(&mut self, actor: &A) -> Result<(), StateError> {
        let runtime = self.runtime().clone();
        let kept = self.kept().ok_or(StateError::NotKeyed)?;
        let snapshot = take(&runtime, actor, kept.at)?;
        let (slot, at) = (Arc::clone(&kept.slot), snapshot.at);
        let saved = runtime.0.store.save(A::KIND, &slot.key, snapshot).await?;
        self.kept().ok_or(StateError::NotKeyed)?.at = at;
        runtime.counters().keyed_saved.add();
        if saved { Ok(()) } else { Err(StateError::Older) }
    }
}

/// The state of now.
pub(crate) fn take<A: Stateful>(
    runtime: &Runtime,
    actor: &A,
    before: u64,
) -> Result<Snapshot, StateError> {
    let not_encodable = |detail: String| StateError::NotEncodable { detail };
    let state = codec::to_bytes(&actor.snapshot());
    let state = state.map_err(|error| not_encodable(error.to_string()))?;
    if state.len() > SNAPSHOT_BYTES {
        return Err(not_encodable(format!("{} bytes, at most {SNAPSHOT_BYTES}", state.len())));
    }
    let at = runtime.wall_ms().max(before.saturating_add(1));
    Ok(Snapshot { at, version: A::VERSION, state })
}

/// Begins with what was kept, if anything was; ends by keeping what there is.
pub(super) struct Resumed {
    pub(super) slot: Arc<Slot>,
    pub(super) found: Option<Snapshot>,
}

impl<A: Stateful + KeyedActor> Origin<A> for Resumed {
    async fn begin(self, ctx: &mut Context<A>) -> Outcome<A> {
        let Self { slot, found } = self;
        let args = A::args(&slot.key);
        let (at, state) = match found {
            Some(found) => (found.at, Some(read::<A>(&slot.key, &found)?)),
            None => (0, None),
        };
        ctx.keep(Kept { slot, at });
        match state {
            Some(state) => {
                let actor = A::restore(state, args, ctx).await?;
                ctx.runtime().counters().keyed_restored.add();
                Ok(actor)
            }
            None => A::start(args, ctx).await,
        }
    }

    async fn end(actor: &mut A, reason: &ExitReason, ctx: &mut Context<A>) {
        actor.stop(reason, ctx).await;
        let runtime = ctx.runtime().clone();
        let Some(Kept { slot, at }) =
            ctx.kept().map(|kept| Kept { slot: Arc::clone(&kept.slot), at: kept.at })
        else {
            return;
        };
        match take(&runtime, actor, at) {
            Ok(snapshot) => Box::pin(runtime.keep(A::KIND, &slot, snapshot)).await,
            Err(error) => runtime.not_kept(A::KIND, &slot.key, &error),
        }
    }
}

/// Reads what was kept of a key, or a child.
pub(crate) fn read<A: Stateful>(of: &dyn Display, found: &Snapshot) -> Result<A::State, String> {
    let old = OldState { version: found.version, bytes: &found.state };
    let state = if found.version == A::VERSION { old.decode() } else { A::upgrade(&old) };
    state.map_err(|error| format!("the state that was kept of {}/{of}: {error}", A::KIND))
}

impl Runtime {
    /// Hands the state of a process that ends to the node that waits for it, or stores it.
    async fn keep(&self, kind: &'static str, slot: &Slot, mut snapshot: Snapshot) {
        let taker = lock(&slot.taker).take();
        if let Some(taker) = taker {
            let copy = self.0.store.is_shared().then(|| snapshot.clone());
            snapshot = match (taker.send(snapshot), copy) {
                (Ok(()), None) => return,
                // Who shares the store may as well find it there, and will if the answer is lost.
                (Ok(()), Some(copy)) => copy,
                // It has given up.
                (Err(back), _) => back,
            };
        }
        let mut again = AGAIN.into_iter();
        loop {
            let saved = self.0.store.save(kind, &slot.key, snapshot.clone()).await;
            let error = match saved {
                Ok(true) => return self.counters().keyed_saved.add(),
                Ok(false) => return self.not_kept(kind, &slot.key, &StateError::Older),
                Err(error) => error,
            };
            match again.next().filter(|_| error != StoreError::Closed) {
                Some(pause) => {
                    tracing::warn!(kind, key = %slot.key, %error, "not saved, trying again");
                    tokio::time::sleep(pause).await;
                }
                None => return self.not_kept(kind, &slot.key, &error.into()),
            }
        }
    }

    fn not_kept(&self, kind: &'static str, key: &Key, error: &StateError) {
        self.counters().keyed_not_saved.add();
        tracing::error!(kind, %key, %error, "the state of a keyed process is lost");
    }
}
