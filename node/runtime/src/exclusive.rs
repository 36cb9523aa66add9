//! What must run at most once in the cluster, at every instant: who may, and what ends it in time.
//!
//! The runtime has no idea of voters. It asks its owner, by [`Remote::holding`], whether this node
//! holds a key; the owner tells it when answers change ([`Runtime::holdings_changed`]) and how long
//! they are good for ([`Runtime::extend_lease`]). A runtime without other nodes holds every key.
//!
//! # Rules
//!
//! - A process is listed before it asks whether its key is held, and begins only if it is. Who
//!   changes the answers does so before it looks at the list ([`Runtime::settle`]). So none begins
//!   under an answer that is over and is missed.
//! - Each poll of such a process first looks at the lease. A node that was frozen finds that it has
//!   run out before any handler goes on, and the process ends there. What a handler was about to do
//!   between two awaits when the freeze began it still does: for that there are [`Fence`]s.
//! - A key that is not held any more: its process is left alone until it is idle, within bounds; then
//!   it is asked to end (`Shutdown`, so [`Actor::stop`](crate::Actor::stop) is called), then killed.
//!   One that never comes to an `await` cannot be ended; [`Runtime::settle`] does not return then,
//!   so nobody else is given its key while the node is in contact.
//! - It is off the list when all that it held has been dropped.
//! - A process begins to wait here also when this node does not own its key, if another node has sent
//!   on a message for it: of two that know different ring views the one with the older has to learn
//!   the newer before it says no ([`Remote::refresh_holdings`]). So a message in a planned move finds
//!   its owner, whoever has heard of the move first; it costs a round trip to the voters' leader.
//! - What a node says to others in the name of what it holds carries a fence, and is refused where a
//!   later owner has been met (`exclusive/fences.rs`).
//! - A process that has an exclusive global name (`entries/exclusive_names.rs`) may run while the node
//!   has a lease. Its polls look at that too; it is ended with an error instead of `Shutdown`.

mod fences;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use purlin_proto::{ExitReason, Fence, NodeName, Signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::changes::{Changes, Changing};
use crate::process::Process;
use crate::relations::Address;
use crate::runtime::{Runtime, lock};
use fences::Fences;

/// How long a busy process whose key has moved is left alone at a time.
const BUSY: Duration = Duration::from_millis(5);

/// Whether a key may have its process on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// It may, and nowhere else.
    Yes {
        /// The newest ring view under which it is so.
        epoch: u64,
        /// The key's shard.
        shard: u16,
    },
    /// Not yet: the node has no lease, or others may not have heard yet that it owns the key.
    NotYet,
    /// Another node owns it.
    No,
}

/// Whether this node may run what is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It may, for now.
    Good,
    /// Not now: the voters have not said so, or not for too long.
    Missing,
    /// It takes no part.
    Never,
}

/// The exclusive processes of a runtime, and how long they may go on.
pub(crate) struct Exclusive {
    /// By serial.
    listed: Mutex<BTreeMap<u64, Listed>>,
    /// Somebody has left the list, or has no name any more.
    pub(crate) left: Arc<Notify>,
    /// What `holding` answers.
    changed: Arc<Changing>,
    /// In nanoseconds after the runtime's start: from then on nothing on the list may run.
    until: AtomicU64,
    /// The owners of shards that were met.
    fences: Fences,
}

struct Listed {
    process: Arc<Process>,
    key: Box<[u8]>,
    fence: Option<Fence>,
}

impl Default for Exclusive {
    fn default() -> Self {
        Self {
            listed: Mutex::default(),
            left: Arc::default(),
            changed: Arc::default(),
            until: AtomicU64::new(u64::MAX),
            fences: Fences::default(),
        }
    }
}

impl Runtime {
    /// Whether a key may have its process here; see [`Holding`]. Of a keyed kind the key is
    /// `kind/key`.
    pub fn holding(&self, key: &[u8]) -> Holding {
        match self.0.remote.get() {
            Some(remote) => remote.holding(key),
            None => Holding::Yes { epoch: self.id().creation, shard: 0 },
        }
    }

    /// Whether this node may run what is exclusive; see [`Lease`].
    pub fn lease(&self) -> Lease {
        self.0.remote.get().map_or(Lease::Good, |remote| remote.lease())
    }

    /// Whether the time is over until which exclusive processes may run.
    pub(crate) fn lease_is_over(&self) -> bool {
        let until = self.0.exclusive.until.load(Ordering::SeqCst);
        until != u64::MAX && self.nanos(Instant::now()) >= until
    }

    /// The node that owns a key under the newest ring view that this node knows; `None` if it knows
    /// none.
    pub fn exclusive_owner(&self, key: &[u8]) -> Option<NodeName> {
        match self.0.remote.get() {
            Some(remote) => remote.exclusive_owner(key),
            None => Some(self.name()),
        }
    }

    pub(crate) async fn refresh_holdings(&self) {
        if let Some(remote) = self.0.remote.get() {
            remote.refresh_holdings().await;
        }
    }

    /// Changes whenever [`holding`](Self::holding) may answer anew.
    pub fn watch_holdings(&self) -> Changes {
        Changes::of(&self.0.exclusive.changed)
    }

    /// To be called by the owner of the runtime when [`Remote::holding`] answers anew.
    ///
    /// [`Remote::holding`]: crate::Remote::holding
    pub fn holdings_changed(&self) {
        self.0.exclusive.changed.changed();
    }

    /// Until when exclusive processes may run, at the longest. Unless a runtime is told, for ever.
    pub fn extend_lease(&self, until: Instant) {
        self.0.exclusive.until.store(self.nanos(until), Ordering::SeqCst);
    }

    /// Ends every exclusive process whose key is not held, and without a lease those that have
    /// exclusive global names, and returns when the last of them has ended. One that is busy may go
    /// on for `patience`, its [`stop`](crate::Actor::stop) may take `stop`; then it is killed. How
    /// many there were.
    ///
    /// Cancel safe: those that have been asked to end do so.
    pub async fn settle(&self, patience: Duration, stop: Duration) -> usize {
        let begun = Instant::now();
        let (mut asked, mut killed, mut most) = (false, false, 0);
        loop {
            let mut left = std::pin::pin!(self.0.exclusive.left.notified());
            left.as_mut().enable();
            let (over, named) = (self.not_held(), self.not_leased());
            most = most.max(over.len() + named.len());
            if over.is_empty() && named.is_empty() {
                return most;
            }
            let passed = begun.elapsed();
            if passed >= patience + stop {
                if !killed {
                    let processes = over.len() + named.len();
                    tracing::warn!(processes, "killed, for their keys or names are not held");
                }
                killed = true;
                self.end_all(over.iter().map(|(process, _)| process), &ExitReason::Kill);
                self.end_all(&named, &ExitReason::Kill);
            } else if passed >= patience {
                if !asked {
                    for (process, key) in &over {
                        self.start_elsewhere(process, key);
                    }
                    self.end_all(over.iter().map(|(process, _)| process), &ExitReason::Shutdown);
                    // An error, so that their supervisors start them again.
                    self.end_all(&named, &lease_over());
                }
                asked = true;
            } else {
                for (process, key) in &over {
                    if process.retire() {
                        self.start_elsewhere(process, key);
                    }
                }
            }
            let next = if killed {
                Duration::from_secs(1)
            } else if asked {
                (patience + stop).saturating_sub(passed)
            } else {
                BUSY.min(patience.saturating_sub(passed))
            };
            // Either way it is looked again.
            drop(tokio::time::timeout(next, left).await);
        }
    }

    /// Those that have begun and whose keys are not held now.
    fn not_held(&self) -> Vec<(Arc<Process>, Box<[u8]>)> {
        let listed: Vec<_> = lock(&self.0.exclusive.listed)
            .values()
            .filter(|listed| listed.fence.is_some())
            .map(|listed| (Arc::clone(&listed.process), listed.key.clone()))
            .collect();
        let held = |key: &[u8]| matches!(self.holding(key), Holding::Yes { .. });
        listed.into_iter().filter(|(_, key)| !held(key)).collect()
    }

    /// Those that have exclusive names, while there is no lease.
    fn not_leased(&self) -> Vec<Arc<Process>> {
        match self.lease() {
            Lease::Good => Vec::new(),
            Lease::Missing | Lease::Never => self.named_exclusively(),
        }
    }

    fn end_all<'a>(
        &self,
        processes: impl IntoIterator<Item = &'a Arc<Process>>,
        reason: &ExitReason,
    ) {
        for process in processes {
            self.counters().exclusive_ended.add();
            let exit = Signal::Exit { reason: reason.clone() };
            self.signal(0, Address::Local(process.serial), exit);
        }
    }

    /// The fence of an exclusive process.
    pub(crate) fn fence_of(&self, serial: u64) -> Option<Fence> {
        lock(&self.0.exclusive.listed).get(&serial)?.fence
    }

    /// Waits until this node holds the key, then lets the process begin; what is returned is to be
    /// dropped after everything of it. `Err` if another node owns the key.
    pub(crate) async fn enter_exclusive(
        process: &Arc<Process>,
        key: Box<[u8]>,
    ) -> Result<Entered, ExitReason> {
        let runtime = &process.runtime;
        let serial = process.serial;
        let list = |fence| {
            let listed = Listed { process: Arc::clone(process), key: key.clone(), fence };
            lock(&runtime.0.exclusive.listed).insert(serial, listed);
        };
        let entered = Entered { runtime: runtime.clone(), serial };
        let mut changed = runtime.watch_holdings();
        let mut refreshed = false;
        loop {
            // As if it had begun, so that no change is missed between the answer and the list.
            list(Some(Fence { epoch: 0, shard: 0, generation: serial }));
            match runtime.holding(&key) {
                Holding::Yes { epoch, shard } => {
                    let fence = Fence { epoch, shard, generation: serial };
                    list(Some(fence));
                    // If somebody lies about a later owner, the lease knows better.
                    let _ = runtime.meet_owner(fence);
                    return Ok(entered);
                }
                Holding::No if refreshed => {
                    return Err(ExitReason::Other("another node owns the key".into()));
                }
                held => {
                    list(None);
                    runtime.0.exclusive.left.notify_waiters();
                    if held == Holding::No {
                        refreshed = true;
                        runtime.refresh_holdings().await;
                    } else {
                        changed.changed().await;
                    }
                }
            }
        }
    }
}

/// Why what was exclusive has ended.
pub(crate) fn lease_over() -> ExitReason {
    ExitReason::Other("the node's lease has run out".into())
}

/// A place on the list.
pub(crate) struct Entered {
    runtime: Runtime,
    serial: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let listed = lock(&self.runtime.0.exclusive.listed).remove(&self.serial);
        self.runtime.0.exclusive.left.notify_waiters();
        drop(listed);
    }
}

pin_project! {
    /// The body of a keyed process; an exclusive one, which is named, does not run after the lease.
    pub(crate) struct Leased<F> {
        #[pin]
        body: F,
        process: Option<Arc<Process>>,
    }
}

impl<F> Leased<F> {
    pub(crate) fn new(process: Option<Arc<Process>>, body: F) -> Self {
        Self { body, process }
    }
}

impl<F: Future<Output = ExitReason>> Future for Leased<F> {
    type Output = ExitReason;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<ExitReason> {
        let this = self.project();
        let Some(process) = this.process else { return this.body.poll(cx) };
        let runtime = &process.runtime;
        if runtime.lease_is_over() {
            runtime.counters().exclusive_ended.add();
            return Poll::Ready(lease_over());
        }
        this.body.poll(cx)
    }
}
