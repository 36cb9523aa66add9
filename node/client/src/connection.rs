//! The link to the present node, what waits for answers, and finding another node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::session::{Request, Update};
use purlin_proto::{
    CallError, Dest, Down, ExitReason, Frame, MessageName, Payload, Pid, Reference, Refusal,
    SpawnError,
};
use purlin_transport::{
    Closed, DialError, Endpoint, Events, Flow, Link, Peer, Priority, Receiver, Sent,
};
use tokio::sync::{broadcast, oneshot, watch};

/// Messages to the session that a slow reader may be behind.
const MESSAGES: usize = 4_096;

/// Between two rounds of trying every address.
const RETRY_EVERY: Duration = Duration::from_millis(300);

/// How long one address may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) type SessionMessage = (MessageName, Payload);

/// Shared by a client's clones, its link and its keeper.
pub(crate) struct Connection {
    state: Mutex<State>,
    references: AtomicU64,
    /// The present session; `None` while there is none.
    session: watch::Sender<Option<Pid>>,
    messages: broadcast::Sender<SessionMessage>,
    /// Addresses to try: the seeds', and members learned since.
    addresses: Mutex<Vec<SocketAddr>>,
    seeds: Vec<String>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    calls: HashMap<Reference, oneshot::Sender<Result<Payload, CallError>>>,
    spawns: HashMap<Reference, oneshot::Sender<Result<Pid, SpawnError>>>,
    monitors: HashMap<Reference, (Dest, oneshot::Sender<Down>)>,
}

impl Connection {
    pub(crate) fn new(seeds: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            references: AtomicU64::new(1),
            session: watch::Sender::new(None),
            messages: broadcast::Sender::new(MESSAGES),
            addresses: Mutex::default(),
            seeds,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reference(&self) -> Reference {
        Reference(self.references.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn session(&self) -> watch::Receiver<Option<Pid>> {
        self.session.subscribe()
    }

    pub(crate) fn messages(&self) -> broadcast::Receiver<SessionMessage> {
        self.messages.subscribe()
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.lock().link.as_ref().map(Link::address)
    }

    /// Members that may be tried when the present node dies.
    pub(crate) fn learn(&self, members: impl IntoIterator<Item = SocketAddr>) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        for member in members {
            if !addresses.contains(&member) {
                addresses.push(member);
            }
        }
    }

    // ----- out -----

    /// Sends a request, on a flow of its destination.
    pub(crate) fn request(&self, request: &Request, flow: Flow) -> Sent {
        let link = self.lock().link.clone();
        let frame = Frame::Request(request.clone());
        match link {
            Some(link) => link.send(flow, Priority::User, &mut |out| frame.encode(out).is_ok()),
            None => Sent::Unreachable,
        }
    }

    pub(crate) async fn ready(&self, flow: Flow) {
        let link = self.lock().link.clone();
        if let Some(link) = link {
            link.ready(flow).await;
        }
    }

    pub(crate) fn expect_reply(
        &self,
        reference: Reference,
    ) -> oneshot::Receiver<Result<Payload, CallError>> {
        let (sender, receiver) = oneshot::channel();
        self.lock().calls.insert(reference, sender);
        receiver
    }

    pub(crate) fn expect_spawned(
        &self,
        reference: Reference,
    ) -> oneshot::Receiver<Result<Pid, SpawnError>> {
        let (sender, receiver) = oneshot::channel();
        self.lock().spawns.insert(reference, sender);
        receiver
    }

    pub(crate) fn expect_down(
        &self,
        reference: Reference,
        target: Dest,
    ) -> oneshot::Receiver<Down> {
        let (sender, receiver) = oneshot::channel();
        self.lock().monitors.insert(reference, (target, sender));
        receiver
    }

    /// Nobody waits for this any more; `true` if it was a monitor that was still active.
    pub(crate) fn forget(&self, reference: Reference) -> bool {
        let mut state = self.lock();
        state.calls.remove(&reference);
        state.spawns.remove(&reference);
        state.monitors.remove(&reference).is_some()
    }

    // ----- in -----

    fn update(&self, update: Update) {
        // Whoever gave up in this very moment needs no answer.
        match update {
            Update::Welcome { session } => drop(self.session.send_replace(Some(session))),
            Update::Reply { reference, result } => {
                let waiting = self.lock().calls.remove(&reference);
                if let Some(waiting) = waiting {
                    drop(waiting.send(result));
                }
            }
            Update::Spawned { reference, result } => {
                let waiting = self.lock().spawns.remove(&reference);
                if let Some(waiting) = waiting {
                    drop(waiting.send(result));
                }
            }
            Update::Down(down) => {
                let waiting = self.lock().monitors.remove(&down.reference);
                if let Some((_, waiting)) = waiting {
                    drop(waiting.send(down));
                }
            }
            Update::Message { message, payload } => {
                drop(self.messages.send((message, payload)));
            }
            _ => {}
        }
    }

    /// The link has ended: so does everything that was under way.
    fn lost(&self) {
        self.session.send_replace(None);
        let ended = std::mem::take(&mut *self.lock());
        for waiting in ended.calls.into_values() {
            drop(waiting.send(Err(CallError::NoConnection)));
        }
        for waiting in ended.spawns.into_values() {
            drop(waiting.send(Err(SpawnError::NoConnection)));
        }
        for (reference, (target, waiting)) in ended.monitors {
            drop(waiting.send(Down { reference, target, reason: ExitReason::NoConnection }));
        }
    }

    // ----- finding a node -----

    /// Every address of every seed, then members learned since.
    async fn candidates(&self) -> Vec<SocketAddr> {
        let mut candidates = Vec::new();
        for seed in &self.seeds {
            match tokio::net::lookup_host(seed).await {
                Ok(found) => candidates.extend(found),
                Err(error) => tracing::debug!(seed, %error, "seed does not resolve"),
            }
        }
        let learned = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for address in learned {
            if !candidates.contains(&address) {
                candidates.push(address);
            }
        }
        candidates
    }

    /// Tries every address once.
    pub(crate) async fn try_all(&self, endpoint: &Endpoint) -> Result<(), Vec<String>> {
        let mut failures = Vec::new();
        for address in self.candidates().await {
            let dial = endpoint.dial(address, None);
            let dialed = tokio::time::timeout(DIAL_TIMEOUT, dial).await;
            match dialed.unwrap_or(Err(DialError::NoAnswer)) {
                Ok(_) if self.welcomed().await => return Ok(()),
                Ok(_) => failures.push(format!("{address}: no session was opened")),
                Err(error) => failures.push(format!("{address}: {error}")),
            }
        }
        if failures.is_empty() {
            failures.push("no seed has an address".to_owned());
        }
        Err(failures)
    }

    async fn welcomed(&self) -> bool {
        let mut session = self.session.subscribe();
        let welcome = session.wait_for(Option::is_some);
        tokio::time::timeout(DIAL_TIMEOUT, welcome).await.is_ok_and(|welcome| welcome.is_ok())
    }
}

/// Reconnects whenever the connection is lost, until the client is gone.
pub(crate) async fn keep_connected(connection: Weak<Connection>, endpoint: Endpoint) {
    let Some(mut session) = connection.upgrade().map(|c| c.session()) else { return };
    loop {
        // Fails when the client is gone.
        if session.wait_for(Option::is_none).await.is_err() {
            break;
        }
        let Some(connection) = connection.upgrade() else { break };
        if let Err(failures) = connection.try_all(&endpoint).await {
            tracing::debug!(?failures, "not reconnected");
            drop(connection);
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }
    endpoint.close(&Refusal::Stopping).await;
}

/// The client's ear at the transport.
pub(crate) struct Ear(pub(crate) Weak<Connection>);

impl Events for Ear {
    fn admit(&self, peer: &Peer) -> Result<(), Refusal> {
        match peer.dialed {
            true => Ok(()),
            false => Err(Refusal::Role { detail: "this is a client".to_owned() }),
        }
    }

    fn up(&self, link: &Link) -> Arc<dyn Receiver> {
        if let Some(connection) = self.0.upgrade() {
            connection.lock().link = Some(link.clone());
        }
        Arc::new(NodeReceiver { connection: Weak::clone(&self.0), link: link.clone() })
    }

    fn down(&self, _: &Link, why: &Closed) {
        tracing::debug!(%why, "connection ended");
        if let Some(connection) = self.0.upgrade() {
            connection.lost();
        }
    }

    fn unreachable(&self, _: purlin_proto::NodeId, _: SocketAddr, _: &DialError) {}

    fn unreachable_hint(&self, _: SocketAddr) {}
}

struct NodeReceiver {
    connection: Weak<Connection>,
    link: Link,
}

impl Receiver for NodeReceiver {
    fn frame(&self, _: Flow, frame: Bytes) {
        let Some(connection) = self.connection.upgrade() else { return };
        match Frame::decode(frame) {
            Ok(Frame::Update(update)) => connection.update(update),
            Ok(_) => {}
            Err(error) => self.link.close(&Refusal::Protocol { detail: error.to_string() }),
        }
    }

    fn control(&self, _: Bytes) {}

    fn datagram(&self, _: Bytes) {}
}
