//! A network in memory, for tests: many endpoints, delay, loss, cuts and sudden death.
//!
//! It carries what QUIC carries and fails as QUIC fails: streams are reliable and bounded, datagrams
//! are not; a cut connection is silent until its idle timeout; closing tells the far end if it can
//! be reached; a killed endpoint says nothing, and who still sends to it gets the hint that a kernel
//! would give. Time is tokio's, so it runs on paused time. Who is who is said instead of proved.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::credentials::Certified;
use crate::endpoint::Events;
use crate::error::{BindError, Closed, DialError, StreamEnded};
use crate::stats::Path;
use purlin_proto::Refusal;

/// Chunks that a stream may have in flight.
const STREAM_CHUNKS: usize = 16;

/// Datagrams that wait to be read; more are lost.
const DATAGRAMS: usize = 1024;

/// How long dialing into silence takes.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// A network; clones are the same one.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
    /// Counts changes of cuts, so that who waits for one looks again.
    changes: watch::Sender<u64>,
}

struct State {
    listeners: BTreeMap<SocketAddr, Listener>,
    cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    killed: BTreeSet<SocketAddr>,
    latency: Duration,
    loss: f64,
    chance: StdRng,
}

struct Listener {
    incoming: mpsc::UnboundedSender<Connection>,
    certified: Certified,
    deaths: watch::Sender<bool>,
}

/// Where to send a new connection, who is there, and word of its death.
type ListenerParts = (mpsc::UnboundedSender<Connection>, Certified, watch::Receiver<bool>);

impl Network {
    /// A network without delay or loss; what chance decides follows from the seed.
    pub fn new(seed: u64) -> Self {
        let state = State {
            listeners: BTreeMap::new(),
            cuts: BTreeSet::new(),
            killed: BTreeSet::new(),
            latency: Duration::ZERO,
            loss: 0.0,
            chance: StdRng::seed_from_u64(seed),
        };
        Self { state: Arc::new(Mutex::new(state)), changes: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
    }

    /// How long everything takes from one endpoint to another.
    pub fn set_latency(&self, latency: Duration) {
        self.change(|state| state.latency = latency);
    }

    /// The part of all datagrams that is lost, 0 to 1.
    pub fn set_loss(&self, loss: f64) {
        self.change(|state| state.loss = loss.clamp(0.0, 1.0));
    }

    /// Lets nothing through between two addresses, in either direction.
    pub fn cut(&self, a: SocketAddr, b: SocketAddr) {
        self.change(|state| state.cuts.extend([(a, b), (b, a)]));
    }

    /// Lets nothing through in this direction.
    pub fn cut_one_way(&self, from: SocketAddr, to: SocketAddr) {
        self.change(|state| {
            state.cuts.insert((from, to));
        });
    }

    /// Ends all cuts between two addresses.
    pub fn heal(&self, a: SocketAddr, b: SocketAddr) {
        self.change(|state| {
            state.cuts.remove(&(a, b));
            state.cuts.remove(&(b, a));
        });
    }

    /// Ends the endpoint at an address without a word to anyone, as `kill -9` does. The address can
    /// be bound again.
    pub fn kill(&self, address: SocketAddr) {
        self.change(|state| {
            if let Some(listener) = state.listeners.remove(&address) {
                listener.deaths.send_replace(true);
            }
            state.killed.insert(address);
        });
    }

    fn passes(&self, from: SocketAddr, to: SocketAddr) -> bool {
        !self.lock().cuts.contains(&(from, to))
    }

    /// Waits until something gets from one to the other.
    async fn wait_for_passage(&self, from: SocketAddr, to: SocketAddr) {
        let mut changes = self.changes.subscribe();
        while !self.passes(from, to) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn listener(&self, at: SocketAddr) -> Option<ListenerParts> {
        let state = self.lock();
        let found = state.listeners.get(&at)?;
        Some((found.incoming.clone(), found.certified.clone(), found.deaths.subscribe()))
    }

    /// A number by chance.
    pub(crate) fn number(&self) -> u64 {
        self.lock().chance.random()
    }

    fn latency(&self) -> Duration {
        self.lock().latency
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Network")
            .field("endpoints", &state.listeners.keys())
            .field("cuts", &state.cuts)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Wire {
    network: Network,
    address: SocketAddr,
    certified: Mutex<Certified>,
    idle_timeout: Duration,
    events: Arc<dyn Events>,
    deaths: watch::Receiver<bool>,
    incoming: tokio::sync::Mutex<mpsc::UnboundedReceiver<Connection>>,
}

impl Wire {
    pub(crate) fn bind(
        network: Network,
        address: SocketAddr,
        certified: Certified,
        idle_timeout: Duration,
        events: Arc<dyn Events>,
    ) -> Result<Self, BindError> {
        let (sender, incoming) = mpsc::unbounded_channel();
        let deaths = watch::Sender::new(false);
        let watching = deaths.subscribe();
        let mut state = network.lock();
        if state.listeners.contains_key(&address) {
            return Err(BindError::InUse(address));
        }
        state.killed.remove(&address);
        state
            .listeners
            .insert(address, Listener { incoming: sender, certified: certified.clone(), deaths });
        drop(state);
        let incoming = tokio::sync::Mutex::new(incoming);
        let certified = Mutex::new(certified);
        Ok(Self { network, address, certified, idle_timeout, events, deaths: watching, incoming })
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.address
    }

    fn certified(&self) -> Certified {
        self.certified.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As [`super::quic::Wire::set_credentials`].
    pub(crate) fn set_certified(&self, certified: &Certified) {
        if let Some(listener) = self.network.lock().listeners.get_mut(&self.address) {
            listener.certified = certified.clone();
        }
        *self.certified.lock().unwrap_or_else(PoisonError::into_inner) = certified.clone();
    }

    pub(crate) async fn accept(&self) -> Option<Connection> {
        self.incoming.lock().await.recv().await
    }

    pub(crate) async fn dial(&self, to: SocketAddr) -> Result<Connection, DialError> {
        let reachable = async {
            self.network.wait_for_passage(self.address, to).await;
            self.network.wait_for_passage(to, self.address).await;
            tokio::time::sleep(self.network.latency() * 2).await;
        };
        if tokio::time::timeout(DIAL_TIMEOUT, reachable).await.is_err() {
            return Err(DialError::NoAnswer);
        }
        let Some((incoming, certified, deaths)) = self.network.listener(to) else {
            self.events.unreachable_hint(to);
            tokio::time::sleep(DIAL_TIMEOUT).await;
            return Err(DialError::NoAnswer);
        };
        let (near, far) = Connection::pair(self, to, certified, deaths);
        incoming.send(far).map_err(|_| DialError::NoAnswer)?;
        Ok(near)
    }

    pub(crate) fn close(&self) {
        self.network.lock().listeners.remove(&self.address);
    }
}

/// One side of a connection.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Side>);

struct Side {
    network: Network,
    local: SocketAddr,
    remote: SocketAddr,
    /// What the far end says it is.
    certified: Certified,
    events: Arc<dyn Events>,
    streams: mpsc::UnboundedSender<RecvStream>,
    accepted: tokio::sync::Mutex<mpsc::UnboundedReceiver<RecvStream>>,
    datagrams: mpsc::Sender<(Instant, Bytes)>,
    arrived: tokio::sync::Mutex<mpsc::Receiver<(Instant, Bytes)>>,
    closed: watch::Sender<Option<Closed>>,
    far_closed: watch::Sender<Option<Closed>>,
    heard: Arc<AtomicU64>,
    far_heard: Arc<AtomicU64>,
}

impl Connection {
    fn pair(
        wire: &Wire,
        to: SocketAddr,
        certified: Certified,
        far_deaths: watch::Receiver<bool>,
    ) -> (Self, Self) {
        let (near_streams, far_accepted) = mpsc::unbounded_channel();
        let (far_streams, near_accepted) = mpsc::unbounded_channel();
        let (near_datagrams, far_arrived) = mpsc::channel(DATAGRAMS);
        let (far_datagrams, near_arrived) = mpsc::channel(DATAGRAMS);
        let (near_closed, far_closed) = (watch::Sender::new(None), watch::Sender::new(None));
        let (near_heard, far_heard) = (Arc::default(), Arc::default());
        let near = Side {
            network: wire.network.clone(),
            local: wire.address,
            remote: to,
            certified,
            events: Arc::clone(&wire.events),
            streams: near_streams,
            accepted: tokio::sync::Mutex::new(near_accepted),
            datagrams: near_datagrams,
            arrived: tokio::sync::Mutex::new(near_arrived),
            closed: near_closed.clone(),
            far_closed: far_closed.clone(),
            heard: Arc::clone(&near_heard),
            far_heard: Arc::clone(&far_heard),
        };
        let far = Side {
            network: wire.network.clone(),
            local: to,
            remote: wire.address,
            certified: wire.certified(),
            events: Arc::clone(&wire.events),
            streams: far_streams,
            accepted: tokio::sync::Mutex::new(far_accepted),
            datagrams: far_datagrams,
            arrived: tokio::sync::Mutex::new(far_arrived),
            closed: far_closed,
            far_closed: near_closed,
            heard: far_heard,
            far_heard: near_heard,
        };
        let (near, far) = (Self(Arc::new(near)), Self(Arc::new(far)));
        near.watch(wire.deaths.clone(), far_deaths.clone(), wire.idle_timeout);
        far.watch(far_deaths, wire.deaths.clone(), wire.idle_timeout);
        (near, far)
    }

    /// Ends this side when its endpoint is killed, or when silence has lasted too long.
    fn watch(
        &self,
        mut own_death: watch::Receiver<bool>,
        far_death: watch::Receiver<bool>,
        idle_timeout: Duration,
    ) {
        let (closed, network) = (self.0.closed.clone(), self.0.network.clone());
        let (local, remote) = (self.0.local, self.0.remote);
        tokio::spawn(async move {
            let mut over = closed.subscribe();
            let mut silent_since = None;
            loop {
                let dead = *far_death.borrow();
                let silent =
                    dead || !network.passes(remote, local) || !network.passes(local, remote);
                silent_since = silent.then(|| silent_since.unwrap_or_else(Instant::now));
                let waited = silent_since.is_some_and(|since| since.elapsed() >= idle_timeout);
                let killed = *own_death.borrow();
                if killed || waited {
                    set_closed(&closed, Closed::Lost("timed out".to_owned()));
                }
                if over.borrow().is_some() {
                    return;
                }
                tokio::select! {
                    biased;
                    _ = over.changed() => {}
                    _ = own_death.changed(), if !killed => {}
                    () = tokio::time::sleep(idle_timeout / 8) => {}
                }
            }
        });
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.0.remote
    }

    pub(crate) fn certified(&self) -> Certified {
        self.0.certified.clone()
    }

    /// Of the network as it is now: nothing is counted.
    pub(crate) fn path(&self) -> Path {
        Path { rtt: 2 * self.0.network.latency(), sent: 0, lost: 0 }
    }

    pub(crate) fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// See [`super::Connection::progress`]: here the far end says what it has read.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let read = self.0.far_heard.load(Ordering::Relaxed);
        (read, read)
    }

    fn check_open(&self) -> Result<(), StreamEnded> {
        match &*self.0.closed.borrow() {
            None => Ok(()),
            Some(closed) => Err(StreamEnded(closed.to_string())),
        }
    }

    /// Runs until it is done or the connection ends.
    async fn while_open<T>(&self, future: impl Future<Output = T>) -> Result<T, StreamEnded> {
        let mut over = self.0.closed.subscribe();
        tokio::select! {
            biased;
            closed = over.wait_for(Option::is_some) => {
                let why = closed.map(|c| c.as_ref().map(ToString::to_string).unwrap_or_default());
                Err(StreamEnded(why.unwrap_or_default()))
            }
            value = future => Ok(value),
        }
    }

    pub(crate) fn open(&self) -> Result<SendStream, StreamEnded> {
        self.check_open()?;
        let (chunks, reader) = mpsc::channel(STREAM_CHUNKS);
        let (done, all_read) = oneshot::channel();
        let far = RecvStream {
            network: self.0.network.clone(),
            from: self.0.local,
            to: self.0.remote,
            chunks: reader,
            done: Some(done),
            closed: self.0.far_closed.subscribe(),
            heard: Arc::clone(&self.0.far_heard),
        };
        self.0.streams.send(far).map_err(|_| StreamEnded("the far end is gone".to_owned()))?;
        Ok(SendStream { connection: self.clone(), chunks: Some(chunks), all_read: Some(all_read) })
    }

    pub(crate) async fn accept(&self) -> Result<RecvStream, StreamEnded> {
        let stream = self.while_open(async { self.0.accepted.lock().await.recv().await }).await?;
        stream.ok_or_else(|| StreamEnded("the far end is gone".to_owned()))
    }

    pub(crate) fn send_datagram(&self, bytes: Bytes) {
        let side = &self.0;
        let mut state = side.network.lock();
        if state.killed.contains(&side.remote) {
            drop(state);
            side.events.unreachable_hint(side.remote);
            return;
        }
        let loss = state.loss;
        let lost = loss > 0.0 && state.chance.random_bool(loss);
        if lost || state.cuts.contains(&(side.local, side.remote)) {
            return;
        }
        let due = Instant::now() + state.latency;
        drop(state);
        side.far_heard.fetch_add(1, Ordering::Relaxed);
        // A full queue loses it, as any datagram may be lost.
        drop(side.datagrams.try_send((due, bytes)));
        // The acknowledgement that QUIC would send.
        if side.network.passes(side.remote, side.local) {
            side.heard.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) async fn read_datagram(&self) -> Result<Bytes, StreamEnded> {
        let arrived = self.while_open(async { self.0.arrived.lock().await.recv().await }).await?;
        let (due, bytes) = arrived.ok_or_else(|| StreamEnded("the far end is gone".to_owned()))?;
        tokio::time::sleep_until(due).await;
        Ok(bytes)
    }

    pub(crate) fn close(&self, why: &Refusal) {
        set_closed(&self.0.closed, Closed::Local(why.clone()));
        if self.0.network.passes(self.0.local, self.0.remote) {
            set_closed(&self.0.far_closed, Closed::Remote(why.clone()));
        }
    }

    pub(crate) async fn closed(&self) -> Closed {
        let mut over = self.0.closed.subscribe();
        let gone = || Closed::Lost("the connection is gone".to_owned());
        match over.wait_for(Option::is_some).await {
            Ok(closed) => closed.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }
}

/// The first end counts.
fn set_closed(closed: &watch::Sender<Option<Closed>>, why: Closed) {
    closed.send_if_modified(|present| {
        let first = present.is_none();
        if first {
            *present = Some(why);
        }
        first
    });
}

pub(crate) struct SendStream {
    connection: Connection,
    chunks: Option<mpsc::Sender<(Instant, Bytes)>>,
    all_read: Option<oneshot::Receiver<()>>,
}

impl SendStream {
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), StreamEnded> {
        let ended = || StreamEnded("the stream is finished".to_owned());
        let chunks = self.chunks.as_ref().ok_or_else(ended)?;
        let due = Instant::now() + self.connection.0.network.latency();
        let sent = self.connection.while_open(chunks.send((due, bytes))).await?;
        sent.map_err(|_| StreamEnded("the far end has stopped reading".to_owned()))
    }

    pub(crate) async fn finish(&mut self) -> Result<(), StreamEnded> {
        self.chunks = None;
        if let Some(all_read) = self.all_read.take() {
            // Dropped unread means that the far end has stopped, which ends it as well.
            drop(self.connection.while_open(all_read).await?);
        }
        Ok(())
    }
}

pub(crate) struct RecvStream {
    network: Network,
    from: SocketAddr,
    to: SocketAddr,
    chunks: mpsc::Receiver<(Instant, Bytes)>,
    done: Option<oneshot::Sender<()>>,
    closed: watch::Receiver<Option<Closed>>,
    heard: Arc<AtomicU64>,
}

impl RecvStream {
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, StreamEnded> {
        let (network, chunks) = (&self.network, &mut self.chunks);
        let read = async {
            let chunk = chunks.recv().await;
            if let Some((due, _)) = &chunk {
                tokio::time::sleep_until(*due).await;
                network.wait_for_passage(self.from, self.to).await;
            }
            chunk
        };
        tokio::select! {
            biased;
            _ = self.closed.wait_for(Option::is_some) => {
                Err(StreamEnded("the connection is closed".to_owned()))
            }
            chunk = read => {
                self.heard.fetch_add(1, Ordering::Relaxed);
                if chunk.is_none() && let Some(done) = self.done.take() {
                    // The writer may not wait for it.
                    let _ = done.send(());
                }
                Ok(chunk.map(|(_, bytes)| bytes))
            }
        }
    }
}
