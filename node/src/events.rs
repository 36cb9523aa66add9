//! What the transport tells a node, handed on: frames to the runtime, the rest to the driver.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use purlin_cluster::{Input, Membership};
use purlin_proto::{Envelope, Frame, MessageRef, NodeId, NodeName, Refusal};
use purlin_runtime::{Flood, Inbound, WeakRuntime};
use purlin_transport::{
    Answering, Certified, Closed, DialError, Events, Frames, Link, Peer, Receiver,
};

use crate::exclusive::Exclusive;
use crate::guard::Guards;
use crate::inputs::{
    BACKLOG, Backlog, GOSSIP_BACKLOG, HINTS_BACKLOG, Inputs, OVERHEAD, Said, Told,
};
use crate::revoked::Known;
use crate::session;
use crate::tokens::desk::Desk;

/// What a new life may send before the driver has come to know it.
const HELD_BYTES: usize = 256 << 20;

/// Holds what a new life sends until the node knows that it is up, so that `NodeEvent::Up` comes
/// before any message of it.
pub(crate) struct Gate {
    inbound: Inbound,
    open: AtomicBool,
    /// What arrives within one turn of the driver, and how many bytes it was.
    held: Mutex<(Vec<Envelope>, usize)>,
}

/// Why something was not taken.
#[derive(Debug, thiserror::Error)]
enum TooMuch {
    #[error(transparent)]
    Flood(#[from] Flood),
    #[error("{0} bytes before it was known to be up")]
    Early(usize),
    #[error("it says more than can be read: {0} bytes wait")]
    Said(usize),
}

impl Gate {
    fn new(inbound: Inbound) -> Self {
        Self { inbound, open: AtomicBool::new(false), held: Mutex::default() }
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Delivers an envelope, now or when the gate opens; in order either way, because what is held
    /// is delivered under the lock.
    fn pass(&self, envelope: Envelope, bytes: usize) -> Result<(), TooMuch> {
        if !self.is_open() {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.is_open() {
                let (envelopes, waiting) = &mut *held;
                *waiting += bytes + OVERHEAD;
                if *waiting > HELD_BYTES {
                    return Err(TooMuch::Early(*waiting));
                }
                envelopes.push(envelope);
                return Ok(());
            }
        }
        Ok(self.inbound.envelope(envelope)?)
    }

    pub(crate) fn open(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for envelope in std::mem::take(&mut held.0) {
            // Far less can have been held than would be too much.
            drop(self.inbound.envelope(envelope));
        }
        self.open.store(true, Ordering::Release);
    }
}

/// The node's ear at the transport. It does not keep the runtime, which keeps its way to other nodes, and
/// so the transport: neither would ever be freed.
pub(crate) struct Ear {
    pub(crate) runtime: WeakRuntime,
    pub(crate) membership: Arc<OnceLock<Mutex<Membership>>>,
    pub(crate) inputs: Inputs,
    pub(crate) hints: Arc<Backlog>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) exclusive: Arc<Exclusive>,
    pub(crate) guards: Arc<Guards>,
    pub(crate) revoked: Arc<Known>,
}

impl Ear {
    fn tell_of(&self, node: NodeName, input: Input) {
        self.inputs.tell_of(node, Told::Input(input));
    }

    fn closed_by(&self, peer: NodeId, at: SocketAddr, why: &Refusal) {
        match why {
            Refusal::Stopping => self.tell_of(peer.name, Input::Stopping { peer }),
            why => self.refused(Some(peer.name), at, why),
        }
    }

    /// This life is over for a node that is there; which, if it is known.
    fn refused(&self, by: Option<NodeName>, at: SocketAddr, why: &Refusal) {
        let tell = |input| match by {
            Some(node) => self.tell_of(node, input),
            None => self.inputs.tell(Told::Input(input)),
        };
        match why {
            Refusal::DeclaredDown { creation, by, view } => {
                let (creation, by, view) = (*creation, *by, view.clone());
                tell(Input::DeclaredDown { creation, by, at, view });
            }
            Refusal::Superseded { newest } => tell(Input::Superseded { newest: *newest }),
            Refusal::Revoked { .. } => {
                // It goes on trying, which need not be said each time.
                match self.revoked.shut_out.swap(true, Ordering::Relaxed) {
                    false => tracing::error!(%at, %why, "this node is shut out"),
                    true => tracing::debug!(%at, %why, "this node is shut out"),
                }
            }
            _ => {}
        }
    }
}

impl Events for Ear {
    fn believe(&self, certified: &Certified) -> Result<(), Refusal> {
        self.revoked.refusal(certified).map_or(Ok(()), Err)
    }

    fn admit(&self, peer: &Peer) -> Result<(), Refusal> {
        self.believe(&peer.certified)?;
        let Some(node) = &peer.node else { return Ok(()) };
        match self.membership.get() {
            Some(membership) => {
                let membership = membership.lock().unwrap_or_else(PoisonError::into_inner);
                membership.admit(node.id, node.address)
            }
            None => Err(Refusal::Busy),
        }
    }

    fn answer(&self, refusal: &Refusal) -> Option<Refusal> {
        let membership = self.membership.get()?;
        membership.lock().unwrap_or_else(PoisonError::into_inner).answer(refusal)
    }

    fn answered(&self, at: SocketAddr, refusal: &Refusal) {
        self.refused(None, at, refusal);
    }

    fn join(&self, from: SocketAddr, request: Bytes) -> Answering<'_> {
        Box::pin(Arc::clone(&self.desk).answer(from, request))
    }

    fn up(&self, link: &Link) -> Arc<dyn Receiver> {
        let Some(runtime) = self.runtime.upgrade() else { return Arc::new(Nobody) };
        match &link.peer().node {
            Some(node) => {
                let connected = Input::Connected { peer: node.id, address: node.address };
                self.tell_of(node.id.name, connected);
                let inbound = runtime.inbound(node.id);
                let receiver = Arc::new(NodeReceiver {
                    inputs: self.inputs.clone(),
                    exclusive: Arc::clone(&self.exclusive),
                    from: node.id,
                    link: link.clone(),
                    gate: Arc::new(Gate::new(inbound)),
                    backlog: Arc::default(),
                });
                self.inputs.tell_of(node.id.name, Told::Open(Arc::clone(&receiver.gate)));
                receiver
            }
            None => session::open(&runtime, link, &self.guards),
        }
    }

    fn down(&self, link: &Link, why: &Closed) {
        let Some(node) = &link.peer().node else { return };
        if let Some(runtime) = self.runtime.upgrade() {
            runtime.connection_lost(node.id.name);
        }
        let disconnected = Input::Disconnected { peer: node.id, why: why.to_string() };
        self.tell_of(node.id.name, disconnected);
        if let Closed::Remote(refusal) = why {
            self.closed_by(node.id, node.address, refusal);
        }
    }

    fn unreachable(&self, node: NodeId, at: SocketAddr, why: &DialError) {
        if let Some(runtime) = self.runtime.upgrade() {
            runtime.connection_lost(node.name);
        }
        if let DialError::Refused(refusal) = why {
            self.closed_by(node, at, refusal);
        }
    }

    fn unreachable_hint(&self, address: SocketAddr) {
        if let Some(said) = self.hints.add(0, HINTS_BACKLOG) {
            self.inputs.tell(Told::Said(Input::UnreachableHint { address }, said));
        }
    }
}

/// The node is gone that would hear it.
struct Nobody;

impl Receiver for Nobody {
    fn frames(&self, _: &Frames<'_>) {}

    fn control(&self, _: Bytes) {}

    fn datagram(&self, _: Bytes) {}
}

/// Takes the frames of one life of another node.
struct NodeReceiver {
    inputs: Inputs,
    exclusive: Arc<Exclusive>,
    from: NodeId,
    link: Link,
    gate: Arc<Gate>,
    backlog: Arc<Backlog>,
}

impl NodeReceiver {
    fn violation(&self, detail: String) {
        tracing::warn!(peer = %self.from, detail, "protocol violation");
        self.link.close(&Refusal::Protocol { detail });
    }

    fn check<E: std::fmt::Display>(&self, taken: Result<(), E>) {
        if let Err(much) = taken {
            self.violation(much.to_string());
        }
    }

    /// Tells the driver something that the node has said, unless too much of it waits already.
    fn said(&self, bytes: usize, told: impl FnOnce(Said) -> Told) {
        match self.backlog.add(bytes, BACKLOG) {
            Some(said) => self.inputs.tell_of(self.from.name, told(said)),
            None => self.check(Err(TooMuch::Said(BACKLOG))),
        }
    }

    fn take(&self, frame: Bytes) {
        let length = frame.len();
        match Frame::decode(frame) {
            Ok(Frame::Envelope(envelope)) => self.check(self.gate.pass(envelope, length)),
            Ok(Frame::Stop(target)) => self.gate.inbound.stop(target),
            Ok(Frame::GoOn(target)) => self.gate.inbound.go_on(&target),
            Ok(Frame::Gossip(bytes)) => {
                // Lost otherwise, as a datagram may be.
                if let Some(said) = self.backlog.add(length, GOSSIP_BACKLOG) {
                    let input = Input::Datagram { from: self.from, bytes };
                    self.inputs.tell_of(self.from.name, Told::Said(input, said));
                }
            }
            Ok(Frame::State(bytes)) => {
                let input = Input::State { from: self.from, bytes };
                self.said(length, |said| Told::Said(input, said));
            }
            Ok(Frame::Owned(bytes)) => {
                self.said(length, |said| Told::Owned { from: self.from, bytes, said });
            }
            Ok(Frame::Exclusive(bytes)) => self.exclusive.said(self.from, bytes),
            Ok(Frame::Certificates(bytes)) => {
                self.said(length, |said| Told::Certificates { from: self.from, bytes, said });
            }
            Ok(Frame::Ping) => {}
            Ok(_) => self.violation("a client's frame from a node".to_owned()),
            Err(error) => self.violation(error.to_string()),
        }
    }
}

impl Receiver for NodeReceiver {
    fn frames(&self, frames: &Frames<'_>) {
        if !self.gate.is_open() {
            return frames.owned().for_each(|(_, frame)| self.take(frame));
        }
        let mut messages = Vec::with_capacity(frames.len());
        for (index, (_, frame)) in frames.iter().enumerate() {
            let before = messages.last().map_or("", |message: &MessageRef<'_>| message.name);
            match MessageRef::read(frame, before).filter(|_| frame.len() <= Inbound::SMALL) {
                Some(Ok(message)) => messages.push(message),
                Some(Err(error)) => return self.violation(error.to_string()),
                None => {
                    // What came before it goes first.
                    self.check(self.gate.inbound.messages(&messages));
                    messages.clear();
                    self.take(frames.bytes(index));
                }
            }
        }
        self.check(self.gate.inbound.messages(&messages));
    }

    fn control(&self, frame: Bytes) {
        self.take(frame);
    }

    fn datagram(&self, frame: Bytes) {
        self.take(frame);
    }
}
