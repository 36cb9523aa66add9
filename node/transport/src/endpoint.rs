//! An endpoint: listens, dials, and knows its peers.
//!
//! Its owner hands in [`Events`] and is asked about every peer that has said hello. All tasks of an
//! endpoint end with [`Endpoint::close`], or when its last clone is dropped.

mod closing;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use purlin_proto::limits::FRAME_BYTES;
use purlin_proto::{
    Capabilities, Hello, Name, NodeHello, NodeId, NodeName, Pieces, Refusal, Role, Versions,
};

use crate::credentials::{Certified, Credentials};
use crate::crowd::{Crowd, Place, Verdict};
use crate::door::{Answering, Door};
use crate::error::{BindError, Closed, DialError};
use crate::executor::Executor;
use crate::handshake::{self, HANDSHAKE_TIMEOUT};
use crate::link::{ControlStreams, Flow, Link, MAX_LANES, OnDrop, Peer, Priority, Receiver, Sent};
use crate::peers::{Greet, Links, Peers, Queued, is_of};
use crate::stats::{Stats, count};
use crate::wire::{Arrived, Connection, Incoming, Wire, WireConfig, memory, quic};

/// Bytes that may wait in one lane: some milliseconds of a fast network.
pub const LANE_BYTES: usize = 4 << 20;

/// The largest UDP payload that is tried: that of jumbo frames.
pub const MTU: u16 = 8_952;

/// Bytes of one stream that may be under way. It bounds what lies in front of a small message on
/// the wire; a stream carries a window for each round trip, so a long road wants more.
pub const WINDOW: u32 = 256 << 10;

/// What an endpoint is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who we are.
    pub credentials: Credentials,
    /// The cluster we belong to.
    pub cluster: Name,
    /// Which life of a node we are; `None` for a client.
    pub node: Option<NodeHello>,
    /// What we are able to do beyond the version; nothing unless said otherwise.
    pub capabilities: Capabilities,
    /// The versions of the protocol that we speak; all that this build knows unless said otherwise.
    pub versions: Versions,
    /// A connection that is silent for so long is lost; 10 s unless said otherwise.
    pub idle_timeout: Duration,
    /// How often a silent connection is kept alive; 3 s unless said otherwise.
    pub keep_alive: Duration,
    /// Lanes of each connection, 1 to 16; 4 unless said otherwise.
    pub lanes: usize,
    /// Bytes that may wait in one lane before user frames are refused; [`LANE_BYTES`] unless said
    /// otherwise. Large frames may take up four times as much beside it, and are taken while there
    /// is any room.
    pub lane_bytes: usize,
    /// The largest UDP payload that is tried, 1,200 to 65,527 bytes; [`MTU`] unless said otherwise.
    pub mtu: u16,
    /// Bytes of one stream that may be under way; [`WINDOW`] unless said otherwise.
    pub window: u32,
    /// Connections at most, whoever began them; 4,096 unless said otherwise. Clients have no more than
    /// seven eighths of them.
    pub max_connections: usize,
}

impl Config {
    /// The defaults, for these credentials in this cluster.
    pub fn new(credentials: Credentials, cluster: Name) -> Self {
        Self {
            credentials,
            cluster,
            node: None,
            capabilities: Capabilities::default(),
            versions: Versions::OURS,
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            lanes: 4,
            lane_bytes: LANE_BYTES,
            mtu: MTU,
            window: WINDOW,
            max_connections: 4096,
        }
    }
}

/// What an endpoint tells and asks its owner. Called from the endpoint's tasks, must not block.
pub trait Events: Send + Sync + 'static {
    /// Who was dialed has proved this, and nothing that it says has been heard: an error refuses it, and
    /// a refusal of its own has no effect.
    fn believe(&self, certified: &Certified) -> Result<(), Refusal> {
        let _ = certified;
        Ok(())
    }

    /// A peer has said hello and proved it. An error refuses it.
    fn admit(&self, peer: &Peer) -> Result<(), Refusal>;

    /// A node that was dialed has refused us; what is returned it is told in return, with the close.
    fn answer(&self, refusal: &Refusal) -> Option<Refusal> {
        let _ = refusal;
        None
    }

    /// We have refused a node that has dialed from this address, and that is its [`answer`](Self::answer).
    fn answered(&self, at: SocketAddr, refusal: &Refusal) {
        let _ = (at, refusal);
    }

    /// Somebody without a certificate asks to be taken in; what is returned it is answered. It has
    /// proved nothing: the request is whatever it sent. `None` for a request that is none, after
    /// which the connection is closed; that is the answer to all unless said otherwise. Dropped if
    /// whoever asked is gone, or it takes more than 10 s.
    fn join(&self, from: SocketAddr, request: Bytes) -> Answering<'_> {
        let _ = (from, request);
        Box::pin(async { None })
    }

    /// A link is established; returns who takes its frames. Called before the first of them.
    fn up(&self, link: &Link) -> Arc<dyn Receiver>;

    /// A link has ended. Called once for each `up`, after the last of its frames, and before the
    /// `up` of a link that takes its place.
    fn down(&self, link: &Link, why: &Closed);

    /// A node that was dialed because something was sent to it cannot be reached; what waited for
    /// it is lost.
    fn unreachable(&self, node: NodeId, at: SocketAddr, why: &DialError);

    /// The system says that nothing listens at this address. A hint: it may be forged.
    fn unreachable_hint(&self, address: SocketAddr);
}

/// Listens, dials, and keeps one link to each node. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint(Arc<Shared>);

struct Shared {
    config: Config,
    wire: Wire,
    events: Arc<dyn Events>,
    node: Mutex<Option<NodeHello>>,
    peers: Mutex<Peers>,
    /// The present links of `peers`, for all who send: read without a lock, replaced under that of
    /// `peers`.
    links: ArcSwap<Links>,
    /// Links to clients, which no node name leads to.
    clients: Mutex<Vec<Link>>,
    connections: AtomicU64,
    associations: AtomicU64,
    crowd: Crowd,
    door: Door,
    stats: Stats,
    closing: AtomicBool,
    tasks: Mutex<JoinSet<()>>,
    /// Who polls the tasks of links; `None` for the runtime they are on.
    executor: Option<Arc<Executor>>,
    /// Where all tasks run, whoever causes them.
    home: tokio::runtime::Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoint {
    /// Binds an endpoint and starts its tasks on the present tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn bind(
        config: Config,
        wire: WireConfig,
        events: Arc<dyn Events>,
    ) -> Result<Self, BindError> {
        // Odd, so that it is never 0, which means none.
        let first_association = wire.chance() | 1;
        let mut executor = None;
        let wire = match wire {
            WireConfig::Quic { listen, environment } => {
                executor.clone_from(&environment.executor);
                let wire = quic::Wire::bind(listen, &environment, &config, Arc::clone(&events))?;
                Wire::Quic(wire)
            }
            WireConfig::Memory { network, address } => {
                let certified = config.credentials.certified().clone();
                let idle = config.idle_timeout;
                let events = Arc::clone(&events);
                Wire::Memory(memory::Wire::bind(network, address, certified, idle, events)?)
            }
        };
        let endpoint = Self(Arc::new(Shared {
            node: Mutex::new(config.node.clone()),
            peers: Mutex::new(Peers::new(config.lane_bytes)),
            config,
            wire,
            events,
            links: ArcSwap::default(),
            clients: Mutex::default(),
            connections: AtomicU64::new(0),
            associations: AtomicU64::new(first_association),
            crowd: Crowd::default(),
            door: Door::default(),
            stats: Stats::default(),
            closing: AtomicBool::new(false),
            tasks: Mutex::new(JoinSet::new()),
            executor,
            home: tokio::runtime::Handle::current(),
        }));
        let weak = Arc::downgrade(&endpoint.0);
        endpoint.spawn(accept(weak));
        Ok(endpoint)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.0.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.0.home);
    }

    /// Links to nodes and to clients.
    pub(crate) fn all_links(&self) -> Vec<Link> {
        let mut links = self.links();
        links.extend(lock(&self.0.clients).iter().cloned());
        links
    }

    /// The bound of a lane.
    pub(crate) fn lane_bytes(&self) -> usize {
        self.0.config.lane_bytes
    }

    /// How many connections to nodes are being made, and how many bytes wait for one at most.
    pub(crate) fn dials(&self) -> [usize; 2] {
        lock(&self.0.peers).dials()
    }

    /// How many tasks serve it and its links.
    pub(crate) fn tasks(&self) -> usize {
        let own = {
            let mut tasks = lock(&self.0.tasks);
            while tasks.try_join_next().is_some() {}
            tasks.len()
        };
        own + self.all_links().iter().map(Link::tasks).sum::<usize>()
    }

    /// Where we listen.
    pub fn local_address(&self) -> SocketAddr {
        self.0.wire.local_address()
    }

    /// Counts of what was accepted and refused.
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// Which life of a node we are from now on. Links that exist stay as they are.
    pub fn set_node(&self, node: Option<NodeHello>) {
        *lock(&self.0.node) = node;
        // What waits was said by the life before.
        lock(&self.0.peers).give_up_all();
    }

    /// Shows other credentials of the same holder in handshakes that begin from now on, and believes
    /// their authorities. Links that exist stay as they are.
    pub fn set_credentials(&self, credentials: &Credentials) -> Result<(), BindError> {
        let (new, ours) = (credentials.identity(), self.0.config.credentials.identity());
        if new != ours {
            let detail = format!("they are of {}, not of {}", new.to_uri(), ours.to_uri());
            return Err(BindError::Credentials(detail));
        }
        self.0.wire.set_credentials(credentials)
    }

    fn hello(&self, association: u64, ended: u64) -> Hello {
        Hello {
            versions: self.0.config.versions,
            cluster: self.0.config.cluster.clone(),
            name: self.0.config.credentials.identity().name,
            node: lock(&self.0.node).clone(),
            capabilities: self.0.config.capabilities,
            association,
            ended,
        }
    }

    fn us(&self) -> NodeName {
        self.0.config.credentials.identity().name
    }

    /// The present link to this life of a node.
    pub fn link(&self, node: &NodeId) -> Option<Link> {
        self.0.links.load().get(&node.name).filter(|link| is_of(link, node)).cloned()
    }

    /// Nothing need be known any more of a node that there is no link to.
    pub fn forget(&self, node: NodeName) {
        lock(&self.0.peers).forget(node);
    }

    /// The present links to nodes.
    pub fn links(&self) -> Vec<Link> {
        self.0.links.load().values().cloned().collect()
    }

    /// Sends a frame to a node, dialing it at `address` if there is no link.
    ///
    /// While it is dialed the frame waits, within bounds; if the dial fails, [`Events::unreachable`]
    /// is called. After a failure sends are refused for a while.
    pub fn send(
        &self,
        to: NodeId,
        address: SocketAddr,
        flow: Flow,
        priority: Priority,
        encode: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Sent {
        if let Some(sent) = self.send_now(&to, flow, priority, encode) {
            return sent;
        }
        // The code that encodes is the user's, so not under a lock that others wait for.
        let mut frame = BytesMut::new();
        match encode(&mut frame) {
            true if frame.len() <= FRAME_BYTES => {
                self.send_large(to, address, flow, priority, frame.freeze().into())
            }
            _ => Sent::NotEncodable,
        }
    }

    /// As [`send`](Self::send), for a frame that is encoded already and may be large.
    pub fn send_large(
        &self,
        to: NodeId,
        address: SocketAddr,
        flow: Flow,
        priority: Priority,
        frame: Pieces,
    ) -> Sent {
        let queued = self.queue(to, address, flow, priority, &frame);
        queued.unwrap_or_else(|link| link.send_large(flow, priority, frame))
    }

    /// Lets a frame wait for a node that is dialed; or there is a link.
    fn queue(
        &self,
        to: NodeId,
        address: SocketAddr,
        flow: Flow,
        priority: Priority,
        frame: &Pieces,
    ) -> Result<Sent, Link> {
        if self.0.closing.load(Ordering::Acquire) {
            return Ok(Sent::Unreachable);
        }
        let now = Instant::now();
        let queued = lock(&self.0.peers).queue(to, address, flow, priority, now, frame);
        match queued {
            Queued::Link(link) => return Err(link),
            Queued::Waiting => {}
            Queued::Dial => {
                let endpoint = self.clone();
                self.spawn(async move { endpoint.dial_for(to, address).await });
            }
            Queued::Refused(sent) => return Ok(sent),
            Queued::Jammed => {
                let endpoint = self.clone();
                // Not here: whoever sends may hold what is needed to tell it.
                self.spawn(async move {
                    let much = "more waits for it than may while it is dialed".to_owned();
                    endpoint.dial_failed(to, address, &DialError::Lost(much));
                });
                return Ok(Sent::Unreachable);
            }
        }
        Ok(Sent::Accepted)
    }

    /// Sends a frame over the present link to this life of a node; `None`, and `encode` is not
    /// called, if there is none.
    pub fn send_now(
        &self,
        to: &NodeId,
        flow: Flow,
        priority: Priority,
        encode: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Option<Sent> {
        let links = self.0.links.load();
        let link = links.get(&to.name).filter(|link| is_of(link, to))?;
        Some(match self.0.closing.load(Ordering::Acquire) {
            true => Sent::Unreachable,
            false => link.send(flow, priority, encode),
        })
    }

    /// Returns when a frame of this flow may be taken, or the node cannot be reached. Cancel safe.
    pub async fn ready(&self, to: &NodeId, flow: Flow) {
        if let Some(link) = self.link(to) {
            return link.ready(flow).await;
        }
        if let Some(mut changes) = self.between_links(to.name) {
            // The sender is gone only with the endpoint.
            drop(changes.changed().await);
        }
    }

    /// Tells changes of a node that is being dialed, or may be soon.
    fn between_links(&self, node: NodeName) -> Option<watch::Receiver<u64>> {
        let mut peers = lock(&self.0.peers);
        peers.is_between_links(node).then(|| peers.changes(node))
    }

    /// Connects to whoever is at an address: for joining, and for clients.
    ///
    /// If it is a node that we are connected to already, that link is returned.
    pub async fn dial(
        &self,
        address: SocketAddr,
        expect: Option<NodeName>,
    ) -> Result<Link, DialError> {
        if self.0.closing.load(Ordering::Acquire) {
            return Err(DialError::Closed);
        }
        self.dial_anyway(address, expect).await
    }

    /// Dials also while the endpoint closes: what was accepted before is still to be delivered.
    async fn dial_anyway(
        &self,
        address: SocketAddr,
        expect: Option<NodeName>,
    ) -> Result<Link, DialError> {
        let dialed = tokio::time::timeout(2 * HANDSHAKE_TIMEOUT, self.connect(address, expect));
        let dialed = dialed.await.unwrap_or(Err(DialError::NoAnswer));
        if dialed.is_err() {
            count(&self.0.stats.dials_failed);
        }
        dialed
    }

    /// Dials a node because something waits for it.
    async fn dial_for(&self, to: NodeId, address: SocketAddr) {
        let error = match self.dial_anyway(address, Some(to.name)).await {
            Ok(_) => return,
            // It accepts the connection that it has dialed itself.
            Err(DialError::Refused(Refusal::Duplicate)) => match self.wait_for_link(to).await {
                Some(_) => return,
                None => DialError::Refused(Refusal::Duplicate),
            },
            Err(error) => error,
        };
        self.dial_failed(to, address, &error);
    }

    /// What waited for a node is given up, and that is told; unless there is a connection by now.
    fn dial_failed(&self, to: NodeId, address: SocketAddr, error: &DialError) {
        let failed = lock(&self.0.peers).dial_failed(to, Instant::now());
        if failed {
            tracing::debug!(node = %to, %address, %error, "dial failed");
            self.0.events.unreachable(to, address, error);
        }
    }

    /// Waits a little for the connection that the other side has chosen.
    async fn wait_for_link(&self, to: NodeId) -> Option<Link> {
        let mut changes = lock(&self.0.peers).changes(to.name);
        let wait = async {
            loop {
                if let Some(link) = self.link(&to) {
                    return link;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(HANDSHAKE_TIMEOUT, wait).await.ok()
    }

    async fn connect(
        &self,
        address: SocketAddr,
        expect: Option<NodeName>,
    ) -> Result<Link, DialError> {
        let connection = self.0.wire.dial(address).await?;
        let certified = connection.certified().map_err(DialError::TheirCertificate)?;
        let proved = certified.identity;
        if let Some(expected) = expect.filter(|&expected| expected != proved.name) {
            let detail = format!("{expected} was expected here");
            connection.close(&Refusal::Identity { detail });
            return Err(DialError::Unexpected { expected, found: proved.name });
        }
        if let Err(why) = self.0.events.believe(&certified) {
            connection.close(&why);
            return Err(DialError::Unacceptable(why));
        }
        let greet = lock(&self.0.peers).greet(proved.name);
        let ended = match greet {
            Greet::Go { ended } => ended,
            Greet::Linked(link) => {
                connection.close(&Refusal::Duplicate);
                return Ok(link);
            }
            Greet::Welcoming => {
                connection.close(&Refusal::Duplicate);
                return Err(DialError::Refused(Refusal::Duplicate));
            }
        };
        // Until it is established or has failed, also by a timeout.
        let _greeting = OnDrop(|| lock(&self.0.peers).greeted(proved.name));
        let association = self.0.associations.fetch_add(2, Ordering::Relaxed);
        let ours = self.hello(association, ended);
        let ended = |error: crate::error::StreamEnded| DialError::Lost(error.to_string());
        let writer = handshake::say_hello(&connection, &ours).await.map_err(ended)?;
        let (theirs, reader) = match handshake::hear_hello(&connection).await {
            Err(DialError::Refused(why)) => {
                if proved.name == self.us() && why == Refusal::Duplicate {
                    return Err(DialError::Itself);
                }
                let error = handshake::believe(why, proved);
                if let DialError::Refused(why) = &error
                    && let Some(answer) = self.0.events.answer(why)
                {
                    connection.close(&answer);
                }
                return Err(error);
            }
            heard => heard?,
        };
        let peer = Peer::of(&theirs, certified, address, association, true);
        let checked = handshake::check(&theirs, &ours, proved);
        if let Err(why) = checked.and_then(|()| self.0.events.admit(&peer)) {
            connection.close(&why);
            return Err(DialError::Unacceptable(why));
        }
        let streams = ControlStreams { writer, reader };
        Ok(self.establish(peer, connection, streams))
    }

    /// Handles one connection that somebody began.
    async fn welcome(&self, incoming: Incoming, proved: bool) {
        let address = incoming.address();
        let place = self.0.crowd.place(address.ip(), proved);
        let connection = match tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming.complete()).await {
            Ok(Ok(Arrived::Peer(connection))) => connection,
            Ok(Ok(Arrived::Joiner(joiner))) => {
                return self.open_door(address, &joiner, &place).await;
            }
            Ok(Ok(Arrived::Nobody(detail))) => {
                let error = DialError::TheirCertificate(detail);
                return self.turned_away(address, &place, true, &error);
            }
            Ok(Err(error)) => return self.turned_away(address, &place, false, &error),
            Err(_) => return self.turned_away(address, &place, false, &DialError::NoAnswer),
        };
        if let Err(error) = self.admit(address, &connection).await {
            count(&self.0.stats.refused);
            match &error {
                // Both have dialed, as often as not.
                DialError::Unacceptable(Refusal::Duplicate)
                | DialError::Refused(Refusal::Duplicate) => {
                    tracing::debug!(%address, %error, "connection refused");
                }
                _ => tracing::warn!(%address, %error, "connection refused"),
            }
            if matches!(error, DialError::Unacceptable(Refusal::Revoked { .. })) {
                // A stranger, from now on.
                place.failed(true, Instant::now());
            }
            if let DialError::Unacceptable(why) = &error
                && let Some(answer) = handshake::refuse(&connection, why).await
            {
                self.0.events.answered(address, &answer);
            }
        }
    }

    /// A handshake has failed; `completed` if not before its end. Logged as often as a source may
    /// fail.
    fn turned_away(
        &self,
        address: SocketAddr,
        place: &Place<'_>,
        completed: bool,
        error: &DialError,
    ) {
        count(&self.0.stats.handshakes_failed);
        place.failed(completed, Instant::now());
        match error {
            DialError::NoAnswer => tracing::debug!(%address, "handshake not completed"),
            _ => tracing::warn!(%address, %error, "connection refused"),
        }
    }

    /// Serves one who has no certificate yet.
    async fn open_door(&self, address: SocketAddr, joiner: &quinn::Connection, place: &Place<'_>) {
        let served = self.0.door.serve(address, joiner, &*self.0.events).await;
        if let Err(why) = served {
            place.failed(true, Instant::now());
            count(&self.0.stats.joins_rejected);
            tracing::warn!(%address, %why, "joining refused");
            quic::close(joiner, &why);
        }
    }

    async fn admit(&self, address: SocketAddr, connection: &Connection) -> Result<(), DialError> {
        let certified = connection.certified().map_err(DialError::TheirCertificate)?;
        let proved = certified.identity;
        let (theirs, reader) = handshake::hear_hello(connection).await?;
        let ours = self.hello(theirs.association, 0);
        let peer = Peer::of(&theirs, certified, address, theirs.association, false);
        let refused = DialError::Unacceptable;
        handshake::check(&theirs, &ours, proved).map_err(refused)?;
        let most = self.0.config.max_connections;
        // Clients leave room for nodes.
        let most = if peer.role == Role::Client { most - most / 8 } else { most };
        if self.0.connections.load(Ordering::Relaxed) >= most as u64 {
            return Err(refused(Refusal::Busy));
        }
        if self.0.closing.load(Ordering::Acquire) {
            return Err(refused(Refusal::Stopping));
        }
        if peer.name == self.us() && peer.role == Role::Node {
            let ourselves = theirs.node.is_some() && theirs.node == ours.node;
            let detail = "another node with this name".to_owned();
            let why = if ourselves { Refusal::Duplicate } else { Refusal::Identity { detail } };
            return Err(refused(why));
        }
        self.0.events.admit(&peer).map_err(refused)?;
        if let Some(node) = &theirs.node {
            lock(&self.0.peers).admit(self.us(), &theirs, node.id).map_err(refused)?;
        }
        let _welcoming = theirs
            .node
            .as_ref()
            .map(|node| OnDrop(|| lock(&self.0.peers).welcomed(node.id.name, theirs.association)));
        let ended = |error: crate::error::StreamEnded| DialError::Lost(error.to_string());
        connection.widen();
        let writer = handshake::say_hello(connection, &ours).await.map_err(ended)?;
        count(&self.0.stats.accepted);
        self.establish(peer, connection.clone(), ControlStreams { writer, reader });
        Ok(())
    }

    /// Puts a connection in its place and starts its tasks.
    fn establish(&self, peer: Peer, connection: Connection, streams: ControlStreams) -> Link {
        let config = &self.0.config;
        let lanes = config.lanes.clamp(1, MAX_LANES);
        let link = Link::new(peer, connection, lanes, config.lane_bytes, self.0.executor.clone());
        let node = link.peer().node.as_ref().map(|node| node.id);
        if let Some(id) = node
            && let Some(kept) = self.make_way(id, &link)
        {
            return kept;
        }
        // `up` and what waited come before anything that is sent from now on, because both happen
        // under the lock that sending takes.
        let mut peers = lock(&self.0.peers);
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        let receiver = self.0.events.up(&link);
        match node {
            Some(id) => {
                peers.install(id, &link);
                self.0.links.store(Arc::new(peers.links()));
            }
            None => lock(&self.0.clients).push(link.clone()),
        }
        drop(peers);
        let weak = Arc::downgrade(&self.0);
        link.run(receiver, streams, move |link, closed| {
            if let Some(shared) = weak.upgrade() {
                Self(shared).end(link, closed);
            }
        });
        link
    }

    /// Ends what a new link is to take the place of, and has that told; or returns the link that is
    /// kept in its place.
    fn make_way(&self, id: NodeId, link: &Link) -> Option<Link> {
        let present = lock(&self.0.peers).link_to(id.name).cloned();
        if let Some(old) = present {
            let theirs_is_kept = !old.peer().dialed && old.peer().name < self.us();
            if is_of(&old, &id) && link.peer().dialed && theirs_is_kept {
                // Accepted from the smaller name while our own dial was on its way.
                link.close(&Refusal::Duplicate);
                return Some(old);
            }
            self.tell_end(&old, &Closed::Local(Refusal::Duplicate));
            old.close(&Refusal::Duplicate);
        }
        let others = lock(&self.0.peers).abandon_others(id);
        if let Some((other, at)) = others {
            let newest = id.creation;
            let why = DialError::Unacceptable(Refusal::Superseded { newest });
            self.0.events.unreachable(other, at, &why);
        }
        None
    }

    /// A link has ended; its owner is told once.
    fn end(&self, link: &Link, why: &Closed) {
        if self.tell_end(link, why)
            && let Some(node) = &link.peer().node
        {
            lock(&self.0.peers).ended(node.id.name);
        }
    }

    /// The same, and nothing is taken for its node until a link is installed, or
    /// [`Peers::ended`]. `false` if it has ended before.
    fn tell_end(&self, link: &Link, why: &Closed) -> bool {
        if !link.end() {
            return false;
        }
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        match &link.peer().node {
            Some(node) => {
                let mut peers = lock(&self.0.peers);
                peers.remove(node.id, link);
                self.0.links.store(Arc::new(peers.links()));
            }
            None => {
                let association = link.peer().association;
                lock(&self.0.clients).retain(|client| client.peer().association != association);
            }
        }
        tracing::debug!(peer = %link.peer().name, %why, "connection ended");
        self.0.events.down(link, why);
        true
    }
}

/// Accepts until the endpoint is gone; each handshake is a task of its own.
async fn accept(endpoint: Weak<Shared>) {
    let mut handshakes = JoinSet::new();
    loop {
        let Some(shared) = endpoint.upgrade() else { return };
        let Some(incoming) = shared.wire.accept().await else { return };
        while handshakes.try_join_next().is_some() {}
        let proved = incoming.is_proved();
        match shared.crowd.judge(incoming.address().ip(), proved, Instant::now()) {
            Verdict::Enter => {
                let endpoint = Endpoint(shared);
                handshakes.spawn(async move { endpoint.welcome(incoming, proved).await });
            }
            Verdict::Prove => {
                count(&shared.stats.handshakes_retried);
                incoming.ask_for_proof();
            }
            Verdict::Ignore => {
                count(&shared.stats.handshakes_ignored);
                incoming.ignore();
            }
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.local_address()).finish_non_exhaustive()
    }
}

/// Frames that are encoded once and sent as they are.
impl Endpoint {
    /// As [`send`](Self::send), for bytes that exist already.
    pub fn send_bytes(
        &self,
        to: NodeId,
        address: SocketAddr,
        flow: Flow,
        priority: Priority,
        frame: &Bytes,
    ) -> Sent {
        self.send(to, address, flow, priority, &mut |out| {
            out.extend_from_slice(frame);
            true
        })
    }
}
