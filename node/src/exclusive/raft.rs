//! `openraft` as this node runs it: its types, its times, and its chance.
//!
//! It spawns its tasks and draws its random numbers by [`Seeded`]: on the runtime that the node's own
//! tasks of this kind are on, and from a generator that is handed down from task to task, so that a
//! simulated run depends on its seed alone.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::{
    AsyncRuntime, BasicNode, Config, Entry, SnapshotPolicy, TokioInstant, TokioRuntime,
};
use purlin_cluster::exclusive::{RingView, Times};
use rand_core_06::{Error, RngCore, impls};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The log of ring views.
    pub(super) Views:
        D = Proposal,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        Entry = Entry<Views>,
        SnapshotData = Vec<u8>,
        AsyncRuntime = Seeded,
);

/// A view that a leader wants to be the next. It counts only as an entry of the term in which its
/// leader has thought of it: what it knew of leases is of that term.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) term: u64,
    pub(super) view: RingView,
}

pub(super) type Raft = openraft::Raft<Views>;
pub(super) type StorageError = openraft::StorageError<u64>;
pub(super) type Vote = openraft::Vote<u64>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Membership = openraft::StoredMembership<u64, BasicNode>;

/// Entries after which the log is cut, and how many are kept then.
const LOG_ENTRIES: u64 = 64;

/// All times from the lease's length, so that another leader is elected before leases run out.
pub(super) fn config(times: Times) -> Config {
    let millis = |share: f64| {
        u64::try_from(times.lease.mul_f64(share).as_millis()).unwrap_or(u64::MAX).max(1)
    };
    Config {
        cluster_name: "purlin".to_owned(),
        heartbeat_interval: millis(0.05),
        election_timeout_min: millis(0.2),
        election_timeout_max: millis(0.37),
        install_snapshot_timeout: millis(0.5),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(LOG_ENTRIES),
        max_in_snapshot_log_to_keep: LOG_ENTRIES / 4,
        ..Config::default()
    }
}

tokio::task_local! {
    static CHANCE: Chance;
}

/// A generator that tasks share (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Chance(Arc<AtomicU64>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// Runs a future so that everything of openraft in it draws from here.
    pub(super) fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CHANCE.scope(self.clone(), future)
    }

    fn present() -> Self {
        CHANCE.try_with(Clone::clone).unwrap_or_else(|_| Self::new(0))
    }
}

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half")]
        let low = self.next_u64() as u32;
        low
    }

    fn next_u64(&mut self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        impls::fill_bytes_via_next(self, out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

/// Tokio, with chance that is handed down.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seeded;

impl AsyncRuntime for Seeded {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: Send + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = tokio::time::Timeout<T>;
    type ThreadLocalRng = Chance;
    type OneshotSender<T: Send> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: Send> = tokio::sync::oneshot::Receiver<T>;
    type OneshotReceiverError = tokio::sync::oneshot::error::RecvError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        tokio::spawn(Chance::present().scope(future))
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Chance::present()
    }

    fn oneshot<T: Send>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}
