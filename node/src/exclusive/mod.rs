//! At most one in the cluster: this node's leases, and its seat among the voters if it has one.
//!
//! `purlin_cluster::exclusive` has the rules and what happens when; this has their clock, log, links
//! and processes.
//!
//! - [`Exclusive`] is what others on this node ask: who owns a key, whether it is held here.
//! - [`task`] drives it, on the network's thread, so that no process delays a renewal: it renews the
//!   lease, has processes end whose keys are not held, founds, joins and leaves an authority.
//! - [`seat`] is a voter: `openraft` with its log ([`store`]) over our links ([`network`], [`wire`]),
//!   and what its leader does.
//!
//! A node takes part if it has a keyed kind that is exclusive. One that does not tells others so, and
//! has no lease and no vote.
//!
//! What must survive a restart is in `authority.redb` in the node's own data directory. Without a
//! data directory (tests) it is gone with the node: then a cluster that loses the majority of its
//! voters at once cannot go on, and `purlin status` says that they are not durable. What if it cannot
//! be written: the head of [`crate::disk`].

mod network;
mod raft;
mod seat;
mod sound;
mod store;
mod task;
mod wire;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use purlin_cluster::Ring;
use purlin_cluster::exclusive::{Holder, RingView, Shard};
use purlin_cluster::names::Shards;
use purlin_proto::admin::ExclusiveInfo;
use purlin_proto::{NodeId, NodeName};
use purlin_runtime::{Holding, Lease};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Duration, Instant};

use crate::past::Past;

pub(crate) use task::{Settings, Task};

/// How often a disk is tried again that could not be written.
pub(crate) const AGAIN: Duration = Duration::from_secs(2);

/// What other nodes say and is not read yet; more is dropped, as if it were lost on the way.
const INBOX: usize = 512;

/// How long a node that stops tries to give its lease back, and a voter to hand its vote on.
const LEAVING: Duration = Duration::from_secs(3);

/// How long whoever needs the newest view waits for it; callers have given up by then.
const REFRESH: Duration = Duration::from_secs(5);

/// What the task is told.
pub(crate) enum Told {
    /// Another node says something.
    Said { from: NodeId, bytes: Bytes },
    /// This node is about to leave: what is exclusive is to move.
    Drain,
    /// Everything here has ended: the lease is to be given back.
    Leave(oneshot::Sender<()>),
}

/// This node's share of what may run only once.
pub(crate) struct Exclusive {
    start: Instant,
    state: RwLock<State>,
    /// The rings of views that were the newest until lately.
    pub(crate) past: Past,
    inbox: mpsc::Sender<Told>,
    /// Somebody needs the newest view.
    wanted: Notify,
    /// Up to when what is known of views is the newest; [`Holder::fresh`].
    fresh: Mutex<Option<Duration>>,
    /// That has changed. Those who wait for it are woken in their order, not as those of a `watch`.
    freshened: Notify,
}

#[derive(Default)]
struct State {
    holder: Option<Holder>,
    shown: Shown,
}

/// What people may know of it besides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub(crate) voters: Vec<NodeName>,
    pub(crate) leader: Option<NodeName>,
    pub(crate) votes: bool,
    pub(crate) takes_part: bool,
    pub(crate) durable: bool,
}

impl Exclusive {
    /// Made before the task that drives it.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Told>) {
        let (inbox, told) = mpsc::channel(INBOX);
        let state = RwLock::default();
        let (wanted, fresh, freshened) = (Notify::new(), Mutex::default(), Notify::new());
        let start = Instant::now();
        let past = Past::new();
        (Arc::new(Self { start, state, past, inbox, wanted, fresh, freshened }), told)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let ring = |state: &State| state.holder.as_ref().and_then(Holder::ring).cloned();
        let before = ring(&state);
        let changed = change(&mut state);
        let after = ring(&state);
        if let Some(before) = before
            && !after.is_some_and(|after| Arc::ptr_eq(&before, &after))
        {
            self.past.note(before);
        }
        changed
    }

    /// What is known of views is the newest up to then.
    fn freshen(&self, fresh: Option<Duration>) {
        let mut known = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = fresh > *known;
        *known = fresh.max(*known);
        drop(known);
        if newer {
            self.freshened.notify_waiters();
        }
    }

    /// Something was said by another node.
    pub(crate) fn said(&self, from: NodeId, bytes: Bytes) {
        if self.inbox.try_send(Told::Said { from, bytes }).is_err() {
            tracing::debug!(%from, "too much is said about leases");
        }
    }

    /// Returns when the newest view is known that anybody knew when this was called, or when that
    /// takes too long.
    pub(crate) async fn refresh(&self) {
        let since = Some(self.now());
        let known = async {
            loop {
                let mut freshened = std::pin::pin!(self.freshened.notified());
                freshened.as_mut().enable();
                if *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) >= since {
                    return;
                }
                freshened.await;
            }
        };
        self.wanted.notify_one();
        // Either way what is known then is what there is to go by.
        drop(tokio::time::timeout(REFRESH, known).await);
    }

    /// Has what is exclusive move to other nodes; [`is_out`](Self::is_out) says when it has.
    pub(crate) async fn drain(&self) {
        // There is no task only when the node is gone.
        drop(self.inbox.send(Told::Drain).await);
    }

    /// Whether nothing exclusive is left that could move to another node than these: this one is in
    /// no ring view any more, and others may run what it had.
    pub(crate) fn is_out(&self, draining: &dyn Fn(NodeName) -> bool) -> bool {
        let state = self.read();
        let Some(holder) = &state.holder else { return true };
        let others = |member: &NodeId| member.name != holder.me().name && !draining(member.name);
        match holder.view() {
            Some(view) if view.has(holder.me()) => !view.members.iter().any(others),
            Some(_) => holder.is_out(),
            None => true,
        }
    }

    /// The ring of the newest view without these.
    pub(crate) fn ring_without(&self, out: &dyn Fn(NodeName) -> bool) -> Ring {
        let view = self.read().holder.as_ref().and_then(|holder| holder.view().cloned());
        let members: BTreeSet<_> =
            view.into_iter().flat_map(|view| view.members).map(|member| member.name).collect();
        Ring::new(members.into_iter().filter(|name| !out(*name)))
    }

    /// Gives the lease back, as far as that can be done soon.
    pub(crate) async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.inbox.send(Told::Leave(done)).await.is_ok() {
            // Otherwise it runs out by itself.
            drop(tokio::time::timeout(LEAVING, left).await);
        }
    }

    /// For people.
    pub(crate) fn info(&self) -> ExclusiveInfo {
        let now = self.now();
        let state = self.read();
        let Shown { voters, leader, votes, takes_part, durable } = state.shown.clone();
        let holder = state.holder.as_ref();
        let good = holder.and_then(Holder::good_until).filter(|until| *until > now);
        ExclusiveInfo {
            takes_part,
            authority: holder.map(|holder| holder.authority().to_string()),
            voters,
            leader,
            votes,
            durable,
            epoch: holder.map_or(0, Holder::epoch),
            members: holder.and_then(Holder::view).map(|v| v.members.clone()).unwrap_or_default(),
            lease_s: good.map(|until| until.saturating_sub(now).as_secs_f64()),
        }
    }

    /// The owner of a key under the newest view that is known here.
    pub(crate) fn owner(&self, key: &[u8]) -> Option<NodeName> {
        self.read().holder.as_ref()?.owner(key)
    }

    /// Whether what is exclusive may run here, now.
    pub(crate) fn lease(&self) -> Lease {
        let state = self.read();
        if !state.shown.takes_part {
            return Lease::Never;
        }
        let until = state.holder.as_ref().and_then(Holder::good_until);
        if until.is_some_and(|until| self.now() < until) { Lease::Good } else { Lease::Missing }
    }

    /// All shards that are held here, and the newest view.
    pub(crate) fn held(&self) -> (Shards, Option<RingView>) {
        let state = self.read();
        let Some(holder) = &state.holder else { return Default::default() };
        (holder.held(self.now()), holder.view().cloned())
    }

    /// Whether a key is held here, now.
    pub(crate) fn holding(&self, key: &[u8]) -> Holding {
        let shard = Ring::shard_of(key);
        let state = self.read();
        let Some(holder) = &state.holder else { return Holding::NotYet };
        match holder.shard(self.now(), shard) {
            Shard::Held { epoch } => Holding::Yes { epoch, shard },
            Shard::NotYet => Holding::NotYet,
            Shard::Elsewhere => Holding::No,
        }
    }
}
