//! Flow control between nodes: what one node's messages may take up in the mailboxes of another.
//!
//! # How it works
//!
//! A receiver that has room costs nothing: no credit travels, nothing is counted on the sending
//! side. When a message finds its receiver without room, the receiver's node tells the sender's to
//! *stop* sending to it, and when there is room again, to *go on*. In between, on the sending side,
//! `send_wait` and `call` wait, and `send` drops the message and counts it: just what a full mailbox
//! means on one node. Nobody else is concerned: other receivers, and other senders' messages in the
//! same lane, go on as they were.
//!
//! A receiver has no room when its mailbox has as many messages as it may, or when the bytes that
//! wait in it are as many as the sending node's *share*. All messages of one node may take up so many
//! bytes here; half of that is shared out, the other half is for what is on its way when a stop is
//! told. A share is half of what is left of the first half (a dynamic threshold; Choudhury and
//! Hahne, 1998). So one receiver that does not read holds a quarter of the whole, a second one an
//! eighth, and there is always a share for those that read. Should the whole be used up
//! nevertheless, by very many receivers that do not read, the node is told to stop as a whole until
//! a quarter is free.
//!
//! What was on its way when the stop came finds a full mailbox: a `send` is dropped and counted
//! there; what a sender waits for (`send_wait`, `call`) is taken in, since it was accepted. It is
//! bounded by what the sending side's lanes hold.
//!
//! # What if
//!
//! - *the receiver ends*: go on; what comes then is for no process, and counted so.
//! - *the connection is lost*: the sending side forgets all stops of that node and wakes who waits;
//!   they find it unreachable. The receiving side begins a new epoch, in which it tells stops anew.
//! - *stop and go on are decided at once* on two threads: whoever has told a stop looks again, and
//!   tells to go on if the receiver has room by then. Both travel in one stream, in order; going on
//!   once too often is harmless.
//! - *the peer does not stop*: beyond [`SLACK`] it breaks the protocol, and the connection ends.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use purlin_proto::{Envelope, Frame, MessageRef, NodeId, NodeName, Target};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::runtime::{Runtime, Shared, lock};

/// Bytes that the messages of one other node may take up in mailboxes here.
pub const INFLOW_BYTES: usize = 256 << 20;

/// What may come beyond that of a node that has been told to stop: all that its lanes can hold.
pub(crate) const SLACK: usize = 1 << 30;

/// What a message takes up besides its body.
pub(crate) const OVERHEAD: usize = 64;

/// What one other node's messages take up here.
pub(crate) struct Inflow {
    runtime: Weak<Shared>,
    node: NodeName,
    limit: usize,
    used: AtomicUsize,
    /// Whether the node has been told to stop as a whole.
    stopped: AtomicBool,
    /// Rises when the connection is lost: what was told before is forgotten there.
    epoch: AtomicU64,
}

/// A connection to another node, as long as it lasts.
pub(crate) struct Connection {
    inflow: Arc<Inflow>,
    epoch: u64,
}

impl Connection {
    /// The node, if the connection has been lost: then all that were related across it by then have
    /// been told, or are about to be.
    pub(crate) fn lost(&self) -> Option<NodeName> {
        (self.inflow.epoch() != self.epoch).then_some(self.inflow.node)
    }
}

impl Inflow {
    pub(crate) fn connection(self: &Arc<Self>) -> Connection {
        Connection { inflow: Arc::clone(self), epoch: self.epoch() }
    }

    /// How many bytes may wait in one mailbox.
    pub(crate) fn share(&self) -> usize {
        (self.limit / 2).saturating_sub(self.used.load(Ordering::Relaxed)) / 2
    }

    /// How many bytes wait in mailboxes.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    fn tell(&self, frame: &Frame) {
        if let Some(shared) = self.runtime.upgrade() {
            Runtime(shared).tell(self.node, frame);
        }
    }

    /// Stops the node as a whole if all is used up.
    fn check(&self) {
        if self.used.load(Ordering::Relaxed) < self.limit {
            return;
        }
        if !self.stopped.swap(true, Ordering::AcqRel) {
            self.tell(&Frame::Stop(Target::Node));
            self.release();
        }
    }

    fn release(&self) {
        if self.stopped.load(Ordering::Acquire)
            && self.used.load(Ordering::Relaxed) <= self.limit / 4 * 3
            && self.stopped.swap(false, Ordering::AcqRel)
        {
            self.tell(&Frame::GoOn(Target::Node));
        }
    }
}

/// Bytes of one node's messages, given back when it is dropped.
pub(crate) struct Charge {
    inflow: Arc<Inflow>,
    bytes: usize,
    /// What it has in common with others.
    shared: Option<Arc<Self>>,
}

impl Charge {
    pub(crate) fn new(inflow: &Arc<Inflow>, bytes: usize) -> Self {
        let mut charge = Self { inflow: Arc::clone(inflow), bytes: 0, shared: None };
        charge.add(bytes);
        charge
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.inflow.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// For one of several receivers of what takes up memory once.
    pub(crate) fn sharing(shared: &Arc<Self>) -> Self {
        let mut charge = Self::new(&shared.inflow, OVERHEAD);
        charge.shared = Some(Arc::clone(shared));
        charge
    }

    /// What a mailbox holds by it; what is shared counts in each.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.shared.as_ref().map_or(0, |shared| shared.bytes)
    }

    pub(crate) fn is_of(&self, inflow: &Arc<Inflow>) -> bool {
        Arc::ptr_eq(&self.inflow, inflow)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.inflow.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.inflow.release();
    }
}

/// A node that has been told to stop sending to a process, and by which address it knew it.
#[derive(Clone)]
pub(crate) struct Stop {
    inflow: Arc<Inflow>,
    epoch: u64,
    target: Target,
}

impl Stop {
    pub(crate) fn new(inflow: &Arc<Inflow>, target: Target) -> Self {
        Self { inflow: Arc::clone(inflow), epoch: inflow.epoch(), target }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        let same_node = Arc::ptr_eq(&self.inflow, &other.inflow) && self.epoch == other.epoch;
        same_node && self.target == other.target
    }

    pub(crate) fn tell(&self) {
        self.inflow.tell(&Frame::Stop(self.target.clone()));
    }

    pub(crate) fn go_on(&self) {
        self.inflow.tell(&Frame::GoOn(self.target.clone()));
    }
}

/// Takes what arrives from one life of another node, in its order.
///
/// Made by [`Runtime::inbound`] for each connection.
pub struct Inbound {
    pub(crate) runtime: Runtime,
    pub(crate) from: NodeId,
    pub(crate) inflow: Arc<Inflow>,
}

/// A node goes on sending although it has been told to stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it goes on sending although it has been told to stop: {bytes} bytes wait")]
pub struct Flood {
    /// How much of it waits in mailboxes here.
    pub bytes: usize,
}

impl Inbound {
    /// Larger frames are better given to [`envelope`](Self::envelope), which does not copy them.
    pub const SMALL: usize = 4 << 10;

    /// Takes small messages that came together, in their order.
    pub fn messages(&self, messages: &[MessageRef<'_>]) -> Result<(), Flood> {
        for run in messages.chunk_by(|one, next| one.to == next.to) {
            self.runtime.receive_run(self, run);
        }
        self.checked()
    }

    /// Takes one signal.
    pub fn envelope(&self, envelope: Envelope) -> Result<(), Flood> {
        self.runtime.receive_envelope(self, envelope);
        self.checked()
    }

    fn checked(&self) -> Result<(), Flood> {
        self.inflow.check();
        let bytes = self.inflow.used.load(Ordering::Relaxed);
        if bytes > self.inflow.limit.saturating_add(SLACK) { Err(Flood { bytes }) } else { Ok(()) }
    }

    /// A receiver there has no room; [`Target::Node`] for all of them.
    pub fn stop(&self, target: Target) {
        self.runtime.0.stopped.stop(self.from.name, target);
    }

    /// It has room again.
    pub fn go_on(&self, target: &Target) {
        self.runtime.0.stopped.go_on(self.from.name, target);
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Takes what arrives from a life of another node that has connected.
    pub fn inbound(&self, from: NodeId) -> Inbound {
        Inbound { runtime: self.clone(), from, inflow: self.inflow(from.name) }
    }

    fn inflow(&self, node: NodeName) -> Arc<Inflow> {
        let mut inflows = lock(&self.0.inflows);
        let inflow = inflows.entry(node).or_insert_with(|| {
            Arc::new(Inflow {
                runtime: Arc::downgrade(&self.0),
                node,
                limit: self.0.inflow_bytes,
                used: AtomicUsize::new(0),
                stopped: AtomicBool::new(false),
                epoch: AtomicU64::new(0),
            })
        });
        Arc::clone(inflow)
    }

    /// Nothing need be known any more of a node that is not there, if nothing of it is left here.
    pub fn forget_node(&self, node: NodeName) {
        let mut inflows = lock(&self.0.inflows);
        if inflows.get(&node).is_some_and(|inflow| Arc::strong_count(inflow) == 1) {
            inflows.remove(&node);
        }
    }

    /// Nothing that was told is known any more, on either side.
    pub(crate) fn inflow_lost(&self, node: NodeName) {
        if let Some(inflow) = lock(&self.0.inflows).get(&node) {
            inflow.epoch.fetch_add(1, Ordering::Relaxed);
            inflow.stopped.store(false, Ordering::Relaxed);
        }
        self.0.stopped.forget(node);
    }

    fn tell(&self, node: NodeName, frame: &Frame) {
        if let Some(remote) = self.0.remote.get() {
            remote.tell(node, frame);
        }
    }
}

/// Receivers of other nodes that have no room, as those nodes have told.
#[derive(Default)]
pub(crate) struct Stopped {
    /// How many there are: mostly none, and then nobody looks further.
    count: AtomicUsize,
    nodes: std::sync::Mutex<FxHashMap<NodeName, FxHashMap<Target, Arc<Notify>>>>,
}

/// Receivers that one node may stop. What is sent to more than these has its bound at the receiving
/// node, which stops this one as a whole when it holds too much.
const STOPS: usize = 1 << 16;

impl Stopped {
    fn stop(&self, node: NodeName, target: Target) {
        let mut nodes = lock(&self.nodes);
        let targets = nodes.entry(node).or_default();
        if targets.len() >= STOPS && target != Target::Node {
            return;
        }
        targets.entry(target).or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            Arc::default()
        });
    }

    fn go_on(&self, node: NodeName, target: &Target) {
        let mut nodes = lock(&self.nodes);
        let Some(targets) = nodes.get_mut(&node) else { return };
        if let Some(waiting) = targets.remove(target) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            waiting.notify_waiters();
        }
    }

    fn forget(&self, node: NodeName) {
        let targets = lock(&self.nodes).remove(&node).unwrap_or_default();
        self.count.fetch_sub(targets.len(), Ordering::Relaxed);
        for waiting in targets.into_values() {
            waiting.notify_waiters();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether messages for it are to wait.
    pub(crate) fn holds(&self, node: NodeName, target: &Target) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && {
            let nodes = lock(&self.nodes);
            let targets = nodes.get(&node);
            targets.is_some_and(|t| t.contains_key(target) || t.contains_key(&Target::Node))
        }
    }

    /// Returns when messages for it need not wait. Cancel safe.
    pub(crate) async fn free(&self, node: NodeName, target: &Target) {
        loop {
            let Some(waiting) = self.waiting(node, target) else { return };
            let notified = waiting.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            // Told in between?
            if !self.holds(node, target) {
                return;
            }
            notified.await;
        }
    }

    fn waiting(&self, node: NodeName, target: &Target) -> Option<Arc<Notify>> {
        let nodes = lock(&self.nodes);
        let targets = nodes.get(&node)?;
        targets.get(&Target::Node).or_else(|| targets.get(target)).map(Arc::clone)
    }
}
