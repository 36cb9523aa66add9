//! What waits for the driver: a queue for each node that says something, one for this node's own
//! concerns, and each has its turn.
//!
//! So a node that floods this one delays what it says itself, and nobody else: the pings and the
//! news of the others pass by. What one node causes stays in order, from its connection to the end
//! of it; nothing that is told is lost, because it could be a member. So the queues have no bound of
//! their own, and how much of it a node may cause by what it says is bounded by its [`Backlog`].

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use purlin_cluster::Input;
use purlin_proto::limits::STATE_BYTES;
use purlin_proto::revocation::SignedRevocation;
use purlin_proto::trust::SignedTrust;
use purlin_proto::{NodeId, NodeName};
use tokio::sync::{Notify, oneshot};

use crate::events::Gate;

/// What the driver is told.
pub(crate) enum Told {
    /// Something for membership.
    Input(Input),
    /// The same, of what a node has said.
    Said(Input, Said),
    /// Entries of this node have changed.
    Entries,
    /// A node says something about entries.
    Owned {
        /// Which, proved.
        from: NodeId,
        /// What.
        bytes: Bytes,
        /// Counts them until they have been read.
        said: Said,
    },
    /// A node says something about certificates.
    Certificates {
        /// Which, proved.
        from: NodeId,
        /// What.
        bytes: Bytes,
        /// Counts them until they have been read.
        said: Said,
    },
    /// An operator has revoked certificates.
    Revoke {
        /// Which, signed.
        revocations: Vec<SignedRevocation>,
        /// For how many were new.
        answer: oneshot::Sender<Result<usize, String>>,
    },
    /// An operator has changed which authorities are believed.
    Believe {
        /// Which, signed.
        trust: SignedTrust,
        /// For whether it was news.
        answer: oneshot::Sender<Result<bool, String>>,
    },
    /// This node has a new certificate, which expires then.
    Renewed { expires_ms: u64 },
    /// Membership knows of a life by now: what it sends may be delivered.
    Open(Arc<Gate>),
    /// This node owns no keys from now on; for whoever waits until that is so.
    Draining(oneshot::Sender<()>),
    /// All that was told before has been done; for whoever waits for that.
    Done(oneshot::Sender<()>),
}

/// What one node has said on the control stream may wait for the driver up to so many bytes: four
/// full states. A node that is further ahead is cut off.
pub(crate) const BACKLOG: usize = 4 * STATE_BYTES;

/// Its datagrams only while less than this waits; what comes beyond is lost, as datagrams may be.
pub(crate) const GOSSIP_BACKLOG: usize = 1 << 20;

/// Hints of closed ports, which anybody may forge, only while less than this waits; what comes
/// beyond is lost, as hints may be.
pub(crate) const HINTS_BACKLOG: usize = 32 * OVERHEAD;

/// What something that waits takes up besides its bytes.
pub(crate) const OVERHEAD: usize = 128;

/// How much of what one node has said waits for the driver.
#[derive(Default)]
pub(crate) struct Backlog(AtomicUsize);

/// A part of a backlog, until it is dropped.
pub(crate) struct Said {
    backlog: Arc<Backlog>,
    bytes: usize,
}

impl Backlog {
    /// Counts bytes that are to wait, if no more than `most` do so far.
    pub(crate) fn add(self: &Arc<Self>, bytes: usize, most: usize) -> Option<Said> {
        let bytes = bytes + OVERHEAD;
        if self.0.fetch_add(bytes, Ordering::Relaxed) > most {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(Said { backlog: Arc::clone(self), bytes })
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        self.backlog.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whose turn it is.
#[derive(Default)]
struct Queues {
    /// None of them is empty. `None` is this node itself.
    waiting: HashMap<Option<NodeName>, VecDeque<Told>>,
    turns: VecDeque<Option<NodeName>>,
    /// Nobody takes anything any more.
    closed: bool,
}

impl Queues {
    fn push(&mut self, of: Option<NodeName>, told: Told) {
        if self.closed {
            return;
        }
        let queue = self.waiting.entry(of).or_default();
        if queue.is_empty() {
            self.turns.push_back(of);
        }
        queue.push_back(told);
    }

    fn pop(&mut self) -> Option<Told> {
        let of = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&of)?;
        let told = queue.pop_front();
        match queue.is_empty() {
            true => drop(self.waiting.remove(&of)),
            false => self.turns.push_back(of),
        }
        told
    }
}

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    some: Notify,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the driver is told something. The driver ends with the node; then nobody wants to know.
#[derive(Clone)]
pub(crate) struct Inputs(Arc<Shared>);

impl Inputs {
    /// What concerns this node.
    pub(crate) fn tell(&self, told: Told) {
        self.put(None, told);
    }

    /// What another node has caused.
    pub(crate) fn tell_of(&self, node: NodeName, told: Told) {
        self.put(Some(node), told);
    }

    fn put(&self, of: Option<NodeName>, told: Told) {
        self.0.queues().push(of, told);
        self.0.some.notify_one();
    }
}

/// The driver's end.
pub(crate) struct Waiting(Arc<Shared>);

impl Waiting {
    /// What is next, if there is something.
    pub(crate) fn try_next(&self) -> Option<Told> {
        self.0.queues().pop()
    }

    /// What is next. Cancel safe: nothing is lost if it is dropped.
    pub(crate) async fn next(&self) -> Told {
        loop {
            match self.try_next() {
                Some(told) => return told,
                None => self.0.some.notified().await,
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left = {
            let mut queues = self.0.queues();
            queues.closed = true;
            std::mem::take(&mut queues.waiting)
        };
        drop(left);
    }
}

pub(crate) fn queues() -> (Inputs, Waiting) {
    let shared = Arc::new(Shared::default());
    (Inputs(Arc::clone(&shared)), Waiting(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(told: &Told) -> u16 {
        match told {
            Told::Input(Input::UnreachableHint { address }) => address.port(),
            _ => panic!("something else"),
        }
    }

    fn told(port: u16) -> Told {
        Told::Input(Input::UnreachableHint { address: ([127, 0, 0, 1], port).into() })
    }

    #[tokio::test]
    async fn each_has_its_turn_and_keeps_its_order() {
        let (inputs, waiting) = queues();
        let (flood, calm) = (NodeName::from("flood"), NodeName::from("calm"));
        for port in 100..200 {
            inputs.tell_of(flood, told(port));
        }
        inputs.tell_of(calm, told(1));
        inputs.tell(told(3));
        inputs.tell_of(calm, told(2));

        let mut order = Vec::new();
        for _ in 0..6 {
            order.push(address(&waiting.next().await));
        }
        assert_eq!(order, [100, 1, 3, 101, 2, 102]);
        for port in 103..200 {
            assert_eq!(address(&waiting.next().await), port);
        }
        assert!(waiting.try_next().is_none());
        assert!(waiting.0.queues().waiting.is_empty(), "nothing stays of who is quiet");
    }

    #[tokio::test]
    async fn when_the_driver_is_gone_nothing_is_kept() {
        let (inputs, waiting) = queues();
        let backlog = Arc::new(Backlog::default());
        let say = || {
            let said = backlog.add(10, BACKLOG).expect("room");
            let bytes = Bytes::new();
            inputs.tell(Told::Certificates { from: NodeId::new("n".into(), 1), bytes, said });
        };
        say();
        assert!(backlog.0.load(Ordering::Relaxed) > 0);
        drop(waiting);
        say();
        assert_eq!(backlog.0.load(Ordering::Relaxed), 0);
    }
}
