//! The link to the present node, what waits for answers, and finding another node.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::session::{Request, Update};
use purlin_proto::{
    Asker, CallError, Dest, Down, ExitReason, Frame, MessageName, Payload, Permissions, Pid,
    Reference, Refusal, SpawnError, Verdict,
};
use purlin_transport::{
    Closed, DialError, Endpoint, Events, Flow, Frames, Link, Peer, Priority, Receiver, Sent,
};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::groups::Changes;

/// Messages to the session that a slow reader may be behind.
const MESSAGES: usize = 4_096;

/// Between two rounds of trying every address.
const RETRY_EVERY: Duration = Duration::from_millis(300);

/// How long one round of trying every address may take.
const ROUND: Duration = Duration::from_secs(5);

/// An address that has not answered for so long is not waited for before the next is tried.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// A closed port is confirmed by this many probes, so far apart.
const PROBES: u32 = 3;
const PROBE_EVERY: Duration = Duration::from_millis(120);

/// Everything of one client is one flow, so that it keeps its order by whatever name a process is
/// addressed.
const ONE_FLOW: Flow = Flow(0);

pub(crate) type SessionMessage = (MessageName, Payload);

/// Shared by a client's clones, its link and its keeper.
pub(crate) struct Connection {
    state: Mutex<State>,
    references: AtomicU64,
    /// The present session; `None` while there is none.
    session: watch::Sender<Option<Pid>>,
    messages: broadcast::Sender<SessionMessage>,
    seeds: Vec<String>,
    /// What our certificate allows; none if it is an operator's, or of a newer version.
    certified: Option<Permissions>,
    /// Where members are, as far as they are known; tried after the seeds.
    learned: Mutex<Vec<SocketAddr>>,
    /// Hints about the present node since the first that is being confirmed.
    hints: AtomicU32,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    calls: HashMap<Reference, oneshot::Sender<Result<Payload, CallError>>>,
    spawns: HashMap<Reference, oneshot::Sender<Result<Pid, SpawnError>>>,
    monitors: HashMap<Reference, (Dest, oneshot::Sender<Down>)>,
    groups: HashMap<Reference, Arc<Changes>>,
    /// What the present node says that we may do, in place of our certificate.
    permitted: Option<Permissions>,
}

impl Connection {
    pub(crate) fn new(seeds: Vec<String>, certified: Option<Permissions>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            references: AtomicU64::new(1),
            session: watch::Sender::new(None),
            messages: broadcast::Sender::new(MESSAGES),
            seeds,
            certified,
            learned: Mutex::default(),
            hints: AtomicU32::new(0),
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

    /// Where members are that may be tried when the present node dies; in place of those before.
    pub(crate) fn learn(&self, members: impl IntoIterator<Item = SocketAddr>) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        *learned = members.into_iter().collect();
    }

    // ----- out -----

    /// Sends a request, if there is a link and room.
    pub(crate) fn request(&self, request: &Request) -> Sent {
        let link = self.lock().link.clone();
        match (link, Frame::Request(request.clone()).to_bytes()) {
            (Some(link), Ok(frame)) => link.send_large(ONE_FLOW, Priority::User, frame),
            (Some(_), Err(_)) => Sent::NotEncodable,
            (None, _) => Sent::Unreachable,
        }
    }

    /// What of a request is not for us to do, by what the node has said, or else by our certificate.
    /// The node judges it as well, and counts
    /// it; but it answers only what has an answer.
    pub(crate) fn forbidden(&self, request: &Request) -> Option<String> {
        let (node, permitted) = {
            let state = self.lock();
            (state.link.as_ref()?.peer().name, state.permitted.clone())
        };
        let asker = Asker { session: *self.session.borrow(), node };
        let permissions = match permitted {
            None => self.certified.clone()?,
            Some(permitted) if permitted.is_partial() => return None,
            Some(permitted) => permitted,
        };
        match permissions.judge(request, &asker, None) {
            Verdict::Forbidden { what } => Some(what),
            Verdict::Allowed | Verdict::OfKind(_) => None,
        }
    }

    /// Returns when a request may be taken, or the link is lost. Cancel safe.
    pub(crate) async fn ready(&self) {
        let link = self.lock().link.clone();
        if let Some(link) = link {
            link.ready(ONE_FLOW).await;
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

    pub(crate) fn expect_changes(&self, reference: Reference) -> Arc<Changes> {
        let changes = Arc::<Changes>::default();
        self.lock().groups.insert(reference, Arc::clone(&changes));
        changes
    }

    /// Nobody waits for this any more; `true` if it was a monitor that was still active.
    pub(crate) fn forget(&self, reference: Reference) -> bool {
        let mut state = self.lock();
        state.calls.remove(&reference);
        state.spawns.remove(&reference);
        state.groups.remove(&reference).is_some() | state.monitors.remove(&reference).is_some()
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
            Update::Group(event) => {
                let watching = self.lock().groups.get(&event.reference).cloned();
                if let Some(watching) = watching {
                    watching.add(&event);
                }
            }
            Update::Message { message, payload } => {
                drop(self.messages.send((message, payload)));
            }
            Update::Permitted { may } => {
                let permitted = Permissions::from_texts(may.iter().map(String::as_str));
                self.lock().permitted = Some(permitted);
            }
            Update::Forbidden { what } => tracing::warn!(what, "forbidden"),
            _ => {}
        }
    }

    /// Takes a link as the one to use, if there is none. Several addresses are tried at once.
    fn adopt(&self, link: &Link) -> bool {
        let mut state = self.lock();
        let free = state.link.is_none();
        if free {
            state.link = Some(link.clone());
            self.hints.store(0, Ordering::Relaxed);
        }
        free
    }

    /// A link has ended: if it was the one in use, so does everything that was under way.
    fn lost(&self, link: &Link) {
        let association = link.peer().association;
        let ended = {
            let mut state = self.lock();
            if state.link.as_ref().is_none_or(|used| used.peer().association != association) {
                return;
            }
            std::mem::take(&mut *state)
        };
        self.session.send_replace(None);
        for waiting in ended.calls.into_values() {
            drop(waiting.send(Err(CallError::NoConnection)));
        }
        for watching in ended.groups.into_values() {
            watching.end();
        }
        for waiting in ended.spawns.into_values() {
            drop(waiting.send(Err(SpawnError::NoConnection)));
        }
        for (reference, (target, waiting)) in ended.monitors {
            drop(waiting.send(Down { reference, target, reason: ExitReason::NoConnection }));
        }
    }

    // ----- finding a node -----

    /// Every address of every seed, then members learned since; and what is wrong with the seeds.
    async fn candidates(&self) -> (Vec<SocketAddr>, Vec<String>) {
        let lookups: JoinSet<_> = self.seeds.iter().cloned().map(resolve).collect();
        let (mut candidates, mut failures) = (Vec::new(), Vec::new());
        // In the order of the seeds, whichever is resolved first.
        let mut resolved = lookups.join_all().await;
        resolved.sort_by_key(|(seed, _)| self.seeds.iter().position(|given| given == seed));
        for (seed, found) in resolved {
            match found {
                Ok(found) => candidates.extend(found),
                Err(error) => failures.push(format!("{seed}: {error}")),
            }
        }
        candidates.extend(self.learned.lock().unwrap_or_else(PoisonError::into_inner).iter());
        let mut seen = HashSet::new();
        candidates.retain(|address| seen.insert(*address));
        (candidates, failures)
    }

    /// Tries every address until one answers or the deadline has come. The next is begun when the
    /// one before has failed or kept silent for a while (RFC 8305), so one that is down does not
    /// hide another. Cancel safe.
    pub(crate) async fn try_all(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
    ) -> Result<(), Vec<String>> {
        let resolved = tokio::time::timeout_at(deadline, self.candidates()).await;
        let (candidates, mut failures) =
            resolved.map_err(|_| vec!["the seeds do not resolve in time".to_owned()])?;
        let mut silent: BTreeSet<_> = candidates.iter().copied().collect();
        let mut waiting = candidates.into_iter();
        let mut dials = JoinSet::new();
        loop {
            let next = waiting.next();
            if let Some(address) = next {
                let endpoint = endpoint.clone();
                dials.spawn(async move { (address, endpoint.dial(address, None).await) });
            }
            tokio::select! {
                biased;
                Some(dialed) = dials.join_next() => {
                    // A dial that panicked has said so; it counts as silent.
                    let Ok((address, dialed)) = dialed else { continue };
                    silent.remove(&address);
                    match dialed {
                        Ok(link) if self.welcomed(deadline).await => {
                            tracing::debug!(%address, peer = %link.peer().name, "connected");
                            return Ok(());
                        }
                        Ok(link) => {
                            link.close(&Refusal::Stopping);
                            failures.push(format!("{address}: no session was opened"));
                        }
                        Err(error) => failures.push(format!("{address}: {error}")),
                    }
                }
                () = tokio::time::sleep(NEXT_AFTER), if next.is_some() => {}
                () = tokio::time::sleep_until(deadline), if !silent.is_empty() => {
                    let no_answer = |address| format!("{address}: {}", DialError::NoAnswer);
                    failures.extend(silent.into_iter().map(no_answer));
                    return Err(failures);
                }
                else => break,
            }
        }
        if failures.is_empty() {
            failures.push("no seed has an address".to_owned());
        }
        Err(failures)
    }

    async fn welcomed(&self, deadline: Instant) -> bool {
        let mut session = self.session.subscribe();
        let welcome = session.wait_for(Option::is_some);
        tokio::time::timeout_at(deadline, welcome).await.is_ok_and(|welcome| welcome.is_ok())
    }

    /// The system says that nothing listens at this address.
    fn hinted(self: &Arc<Self>, address: SocketAddr) {
        let link = self.lock().link.clone().filter(|link| link.address() == address);
        let Some(link) = link else { return };
        if self.hints.fetch_add(1, Ordering::Relaxed) == 0 {
            tokio::spawn(confirm(Arc::downgrade(self), link));
        }
    }
}

/// A hint may be forged: the link ends only if nothing at all comes while the hints go on.
async fn confirm(connection: Weak<Connection>, link: Link) {
    let heard = link.heard();
    for _ in 0..PROBES {
        if let Ok(ping) = Frame::Ping.to_bytes() {
            // What cannot be sent cannot be answered.
            let _ = link.send(ONE_FLOW, Priority::System, &mut |out| {
                out.extend_from_slice(&ping);
                true
            });
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
    let Some(connection) = connection.upgrade() else { return };
    let hints = connection.hints.swap(0, Ordering::Relaxed);
    if hints > 1 && link.heard() == heard {
        tracing::debug!(address = %link.address(), "its port is closed");
        link.close(&Refusal::Stopping);
    }
}

async fn resolve(seed: String) -> (String, std::io::Result<Vec<SocketAddr>>) {
    let found = tokio::net::lookup_host(&seed).await.map(Iterator::collect);
    (seed, found)
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
        if let Err(failures) = connection.try_all(&endpoint, Instant::now() + ROUND).await {
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
        let adopted = self.0.upgrade().is_some_and(|connection| connection.adopt(link));
        if !adopted {
            link.close(&Refusal::Duplicate);
        }
        let connection = if adopted { Weak::clone(&self.0) } else { Weak::new() };
        Arc::new(NodeReceiver { connection, link: link.clone() })
    }

    fn down(&self, link: &Link, why: &Closed) {
        tracing::debug!(%why, "connection ended");
        if let Some(connection) = self.0.upgrade() {
            connection.lost(link);
        }
    }

    fn unreachable(&self, _: purlin_proto::NodeId, _: SocketAddr, _: &DialError) {}

    fn unreachable_hint(&self, address: SocketAddr) {
        if let Some(connection) = self.0.upgrade() {
            connection.hinted(address);
        }
    }
}

struct NodeReceiver {
    /// Of no one if the link is not the one in use.
    connection: Weak<Connection>,
    link: Link,
}

impl Receiver for NodeReceiver {
    fn frames(&self, frames: &Frames<'_>) {
        let Some(connection) = self.connection.upgrade() else { return };
        for (_, frame) in frames.owned() {
            match Frame::decode(frame) {
                Ok(Frame::Update(update)) => connection.update(update),
                Ok(_) => {}
                Err(error) => self.link.close(&Refusal::Protocol { detail: error.to_string() }),
            }
        }
    }

    fn control(&self, _: Bytes) {}

    fn datagram(&self, _: Bytes) {}
}
