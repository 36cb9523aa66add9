//! One established connection, and the tasks that work for it.
//!
//! A [`Link`] is a handle: cheap to clone, good for sending until the connection ends, then
//! everything is refused. Its end is told exactly once, after the last frame has been delivered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, OnceCell, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use purlin_proto::limits::{DATAGRAM_BYTES, FRAME_BYTES};
use purlin_proto::{Capabilities, Hello, NodeHello, NodeName, Pieces, Refusal, Role};

use crate::bulk;
use crate::control::{self, CONTROL_BYTES, Reader, kind};
use crate::credentials::Certified;
use crate::error::{Closed, StreamEnded};
use crate::executor::Executor;
use crate::finish::Finished;
use crate::frames::{Cut, Frames, keep};
use crate::gauges::Load;
use crate::lanes::{BadEntry, Entry, Held, LARGE, Lane, Parser, Put};
use crate::reassembly::{Complete, Reassembly};
use crate::stats::Path;
use crate::wire::{Connection, SendStream};

/// Frames of one flow keep their order; flows do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow(pub u32);

/// What may be refused when a lane is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Refused when the lane is full.
    User,
    /// Always taken. If nothing leaves while these pile up, the connection is given up.
    System,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the queue.
    Accepted,
    /// The queue is full.
    Full,
    /// There is no connection.
    Unreachable,
    /// The encoder failed, or the frame is larger than
    /// [`FRAME_BYTES`](purlin_proto::limits::FRAME_BYTES).
    NotEncodable,
}

/// Who is at the far end, proved by its certificate where a certificate can prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// All that its certificate proves.
    pub certified: Certified,
    /// Which life of a node it is, and where it says it can be reached; nodes only. If it says that it
    /// listens on all its addresses, that is where its packets come from.
    pub node: Option<NodeHello>,
    /// Where its packets come from.
    pub address: SocketAddr,
    /// Names this connection on both sides.
    pub association: u64,
    /// Whether we dialed.
    pub dialed: bool,
    /// What it is able to do beyond the version.
    pub capabilities: Capabilities,
}

impl Peer {
    pub(crate) fn of(
        hello: &Hello,
        certified: Certified,
        address: SocketAddr,
        association: u64,
        dialed: bool,
    ) -> Self {
        let role = certified.identity.role;
        let node = hello.node.clone().map(|mut node| {
            if node.address.ip().is_unspecified() {
                node.address.set_ip(address.ip());
            }
            node
        });
        let (name, capabilities) = (hello.name, hello.capabilities);
        Self { name, role, certified, node, address, association, dialed, capabilities }
    }
}

/// Takes what arrives on one link. Called by the link's tasks, so it must not block.
pub trait Receiver: Send + Sync {
    /// Frames that came together; frames of one flow come in their order.
    fn frames(&self, frames: &Frames<'_>);
    /// A control frame; in order among themselves.
    fn control(&self, frame: Bytes);
    /// A datagram; may be lost, never doubled by us.
    fn datagram(&self, frame: Bytes);
}

/// One established connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    peer: Peer,
    connection: Connection,
    lanes: Vec<Arc<Lane>>,
    control: control::Outbox,
    bulk: [bulk::Outbox; bulk::STREAMS],
    next_bulk: AtomicU64,
    /// Read for each delivery, written when the link starts and when it ends.
    delivery: RwLock<Delivery>,
    reassembly: Mutex<Reassembly>,
    arriving: Vec<Mutex<Arriving>>,
    /// Something held was delivered.
    released: Notify,
    lanes_finished: OnceCell<()>,
    /// Tasks that may still deliver something.
    reading: Arc<watch::Sender<usize>>,
    tasks: Mutex<JoinSet<()>>,
    /// Who polls the tasks; `None` for the runtime they are on.
    executor: Option<Arc<Executor>>,
}

/// Where frames go.
///
/// A receiver keeps its link, so the link must let the receiver go at its end, or neither is ever
/// freed; what the receiver feeds learns of the end by that.
enum Delivery {
    NotYet,
    To(Arc<dyn Receiver>),
    Over,
}

/// What arrives in one lane.
#[derive(Default)]
struct Arriving {
    held: Held,
    /// Frames that may be delivered; kept for its memory.
    free: Vec<Cut>,
}

/// Of lanes and of bulk alike: streams take turns, a packet each, so a large frame costs small ones a
/// packet's time. Less for bulk would be none at all while lanes fill the road.
const PRIORITY: i32 = 0;

/// What may wait behind markers in one lane before the lane is not read any more.
pub(crate) const HELD_BYTES: usize = FRAME_BYTES;

/// A graceful end is given up when nothing has got through for so long,
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// and after so long in any case.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// The two control streams of a connection that has said hello.
pub(crate) struct ControlStreams {
    pub(crate) writer: SendStream,
    pub(crate) reader: Reader,
}

impl Link {
    pub(crate) fn new(
        peer: Peer,
        connection: Connection,
        lanes: usize,
        lane_bytes: usize,
        executor: Option<Arc<Executor>>,
    ) -> Self {
        Self(Arc::new(Inner {
            peer,
            connection,
            lanes: (0..lanes).map(|_| Arc::new(Lane::new(lane_bytes))).collect(),
            control: control::Outbox::default(),
            bulk: std::array::from_fn(|_| bulk::Outbox::default()),
            next_bulk: AtomicU64::new(1),
            delivery: RwLock::new(Delivery::NotYet),
            reassembly: Mutex::default(),
            arriving: (0..MAX_LANES).map(|_| Mutex::default()).collect(),
            released: Notify::new(),
            lanes_finished: OnceCell::new(),
            reading: Arc::new(watch::Sender::new(0)),
            tasks: Mutex::new(JoinSet::new()),
            executor,
        }))
    }

    /// Who is at the far end.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// How many packets have come from the far end. When it rises, the far end lives.
    pub fn heard(&self) -> u64 {
        self.0.connection.heard()
    }

    /// How good the way to the far end is.
    pub fn path(&self) -> Path {
        self.0.connection.path()
    }

    /// Where its packets come from now; a peer may change its address and stay connected.
    pub fn address(&self) -> SocketAddr {
        self.0.connection.remote_address()
    }

    /// Sends a frame: `encode` writes it and says whether it could. Never waits.
    pub fn send(
        &self,
        flow: Flow,
        priority: Priority,
        encode: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Sent {
        let put = self.lane(flow).put(flow, priority, || self.bulk_id(), encode);
        self.settle(put, flow)
    }

    /// Sends a frame that is encoded already and may be large, in pieces or whole; it is not copied if
    /// it is.
    pub fn send_large(&self, flow: Flow, priority: Priority, frame: impl Into<Pieces>) -> Sent {
        let frame = frame.into();
        if frame.len() <= LARGE {
            return self.send_bytes(flow, priority, &frame.into_bytes());
        }
        let put = self.lane(flow).put_large(flow, priority, || self.bulk_id(), frame);
        self.settle(put, flow)
    }

    fn bulk_id(&self) -> u64 {
        self.0.next_bulk.fetch_add(1, Ordering::Relaxed)
    }

    fn settle(&self, put: Put, flow: Flow) -> Sent {
        match put {
            Put::Done => Sent::Accepted,
            Put::Bulk { id, frame } => {
                let stream = usize::try_from(id % bulk::STREAMS as u64).expect("small");
                self.0.bulk[stream].push(id, frame, Arc::clone(self.lane(flow)), flow);
                Sent::Accepted
            }
            Put::Refused(sent) => sent,
            Put::Jammed => {
                let detail = "nothing is read while system frames pile up".to_owned();
                self.close(&Refusal::Protocol { detail });
                Sent::Unreachable
            }
        }
    }

    /// Sends a frame that is encoded already.
    pub fn send_bytes(&self, flow: Flow, priority: Priority, frame: &[u8]) -> Sent {
        self.send(flow, priority, &mut |out| {
            out.extend_from_slice(frame);
            true
        })
    }

    /// Returns when a frame of this flow may fit, or the link has ended. Cancel safe.
    pub async fn ready(&self, flow: Flow) {
        self.lane(flow).ready(flow).await;
    }

    /// What waits on its way.
    pub(crate) fn load(&self) -> Load {
        let lanes = self.0.lanes.iter().map(|lane| lane.bytes());
        let (lane, large) =
            lanes.fold((0, 0), |most, (small, large)| (most.0.max(small), most.1.max(large)));
        let held = (0..self.0.arriving.len()).map(|lane| self.arriving(lane).held.bytes()).max();
        let (unfinished, early) = self.reassembly().bytes();
        let control = self.0.control.bytes();
        Load { lane, large, control, held: held.unwrap_or(0), unfinished, early }
    }

    /// How many tasks serve it.
    pub(crate) fn tasks(&self) -> usize {
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.len()
    }

    fn lane(&self, flow: Flow) -> &Arc<Lane> {
        let lanes = &self.0.lanes;
        &lanes[flow.0 as usize % lanes.len()]
    }

    /// Sends a control frame.
    pub fn send_control(&self, frame: Bytes) -> Sent {
        if self.0.control.push(frame) { Sent::Accepted } else { Sent::Full }
    }

    /// Sends a datagram of at most [`DATAGRAM_BYTES`]; it may be lost.
    pub fn send_datagram(&self, frame: Bytes) -> Sent {
        if frame.len() > DATAGRAM_BYTES {
            return Sent::NotEncodable;
        }
        self.0.connection.send_datagram(frame);
        Sent::Accepted
    }

    /// Ends the connection at once; what has not left is lost.
    pub fn close(&self, why: &Refusal) {
        self.0.connection.close(why);
    }

    /// Ends the connection when everything accepted so far has arrived; or when nothing has got
    /// through for 2 s, as to a far end that does not read, and after 30 s at most.
    pub async fn close_gracefully(&self, why: &Refusal) {
        self.finish_lanes().await;
        self.get_through(async { drop(self.0.control.finish().await) }).await;
        self.close(why);
    }

    /// Returns when every frame accepted so far has arrived, within the same bounds. Lanes take no
    /// more from then on; control frames and datagrams still pass.
    pub(crate) async fn finish_lanes(&self) {
        let finish = async {
            for lane in &self.0.lanes {
                // Large frames first: what follows them in their flow is in the lane already.
                lane.drained().await;
            }
            let lanes = self.0.lanes.iter().map(|lane| lane.finish());
            let bulk = self.0.bulk.iter().map(bulk::Outbox::finish);
            for finished in lanes.chain(bulk).collect::<Vec<_>>() {
                // Ended with the connection: then there is nothing to wait for.
                drop(finished.await);
            }
        };
        let once = async {
            self.get_through(finish).await;
            self.0.lanes.iter().for_each(|lane| lane.close());
        };
        self.0.lanes_finished.get_or_init(|| once).await;
    }

    /// Waits for something that the far end is to have. On a bad road megabytes take their time; a
    /// far end that does not read, or is not there, must not hold us.
    async fn get_through(&self, sent: impl Future<Output = ()>) {
        let mut sent = std::pin::pin!(async {
            tokio::select! {
                biased;
                () = sent => {}
                _ = self.0.connection.closed() => {}
            }
        });
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let mut before = self.0.connection.progress();
        while tokio::time::timeout(FLUSH_PATIENCE, &mut sent).await.is_err() {
            let now = self.0.connection.progress();
            if now.0 == before.0 || now.1 == before.1 || Instant::now() >= deadline {
                return;
            }
            before = now;
        }
    }

    // ----- the tasks -----

    /// Runs the link. `ended` is called once, when nothing more will be delivered.
    pub(crate) fn run(
        &self,
        receiver: Arc<dyn Receiver>,
        streams: ControlStreams,
        ended: impl FnOnce(&Self, &Closed) + Send + 'static,
    ) {
        {
            let mut delivery = self.0.delivery.write().unwrap_or_else(PoisonError::into_inner);
            if matches!(*delivery, Delivery::NotYet) {
                *delivery = Delivery::To(receiver);
            }
        }
        let ControlStreams { writer, reader } = streams;
        for index in 0..self.0.lanes.len() {
            self.guard(|link| async move { link.write_lane(index).await });
        }
        for index in 0..bulk::STREAMS {
            self.guard(move |link| async move { link.write_bulk(index).await });
        }
        self.guard(|link| async move { link.write_control(writer).await });
        self.guard_reader(|link| async move { link.read_control(reader).await });
        self.guard_reader(|link| async move { link.accept_streams().await });
        self.guard(|link| async move { link.read_datagrams().await });
        let link = self.clone();
        // Not among the link's own tasks, which it ends.
        tokio::spawn(async move {
            // Also if the tokio runtime is shut down meanwhile: see `Delivery`.
            let _end = OnDrop(|| {
                link.end();
            });
            let closed = link.0.connection.closed().await;
            if let Closed::Remote(_) = &closed {
                link.read_out().await;
            }
            ended(&link, &closed);
        });
    }

    /// Lets nothing more be delivered, and ends the tasks; `false` if that has been done before.
    pub(crate) fn end(&self) -> bool {
        let mut delivery = self.0.delivery.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *delivery, Delivery::Over);
        drop(delivery);
        if matches!(before, Delivery::Over) {
            return false;
        }
        for lane in &self.0.lanes {
            lane.close();
        }
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        true
    }

    /// Runs a task; if it finds that the far end breaks the protocol, the link is closed.
    fn guard<F>(&self, task: impl FnOnce(Self) -> F)
    where
        F: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let task = self.clone().guarded(task(self.clone()));
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.0.executor {
            Some(executor) => tasks.spawn_on(executor.run(Box::pin(task)), executor.network()),
            None => tasks.spawn(task),
        };
    }

    async fn guarded(self, task: impl Future<Output = Result<(), Fault>>) {
        match task.await {
            // The connection has ended, which is told by its own task.
            Ok(()) | Err(Fault::Ended(_)) => {}
            Err(Fault::Protocol(BadEntry(detail))) => {
                tracing::warn!(peer = %self.peer().name, detail, "protocol violation");
                self.close(&Refusal::Protocol { detail });
            }
        }
    }

    /// As [`guard`](Self::guard), for a task that delivers what it reads.
    fn guard_reader<F>(&self, task: impl FnOnce(Self) -> F)
    where
        F: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let reading = Reading::begin(&self.0.reading);
        self.guard(|link| {
            let task = task(link);
            async move {
                let _reading = reading;
                task.await
            }
        });
    }

    /// Returns when all that had arrived before the close has been delivered. The far end closes
    /// when QUIC has acknowledged its last bytes, which is before they have been read.
    async fn read_out(&self) {
        let mut reading = self.0.reading.subscribe();
        let done = reading.wait_for(|count| *count == 0);
        drop(tokio::time::timeout(FLUSH_PATIENCE, done).await);
    }

    async fn write_lane(self, index: usize) -> Result<(), Fault> {
        let number = u8::try_from(index).expect("MAX_LANES fits");
        let mut stream = self.0.connection.open(PRIORITY).await?;
        stream.write(Bytes::copy_from_slice(&[kind::LANE, number])).await?;
        let mut batch = Vec::new();
        loop {
            match self.0.lanes[index].take(&mut batch).await {
                Ok(()) => {
                    stream.write_many(&mut batch).await?;
                    batch.clear();
                }
                Err(finished) => return finish(stream, finished).await,
            }
        }
    }

    async fn write_bulk(self, index: usize) -> Result<(), Fault> {
        let mut stream = self.0.connection.open(PRIORITY).await?;
        stream.write(Bytes::from_static(&[kind::BULK])).await?;
        let mut batch = bulk::Batch::default();
        loop {
            match self.0.bulk[index].next(&mut batch).await {
                Ok(()) => {
                    stream.write_many(batch.bytes()).await?;
                    batch.settle();
                }
                Err(finished) => return finish(stream, finished).await,
            }
        }
    }

    async fn write_control(self, mut stream: SendStream) -> Result<(), Fault> {
        loop {
            match self.0.control.take().await {
                Ok(batch) => stream.write(batch).await?,
                Err(finished) => return finish(stream, finished).await,
            }
        }
    }

    async fn read_control(self, mut reader: Reader) -> Result<(), Fault> {
        loop {
            let frame = reader.frame(CONTROL_BYTES).await?;
            self.deliver(|receiver| receiver.control(frame));
        }
    }

    async fn read_datagrams(self) -> Result<(), Fault> {
        loop {
            let frame = self.0.connection.read_datagram().await?;
            self.deliver(|receiver| receiver.datagram(frame));
        }
    }

    async fn accept_streams(self) -> Result<(), Fault> {
        loop {
            let mut reader = Reader::new(self.0.connection.accept().await?);
            self.guard_reader(|link| async move {
                match reader.byte().await? {
                    kind::LANE => {
                        let index = usize::from(reader.byte().await?);
                        link.read_lane(index, reader).await
                    }
                    kind::BULK => link.read_bulk(reader).await,
                    other => Err(BadEntry(format!("a stream of unknown kind {other}")).into()),
                }
            });
        }
    }

    async fn read_lane(self, index: usize, reader: Reader) -> Result<(), Fault> {
        if index >= MAX_LANES {
            return Err(BadEntry(format!("lane {index}")).into());
        }
        let (first, mut stream) = reader.into_parts();
        let mut parser = Parser::default();
        let mut chunks = vec![first];
        loop {
            for chunk in chunks.drain(..) {
                parser.feed(chunk, |chunk, entries| self.entries(index, chunk, entries))?;
            }
            self.wait_for_release(index).await;
            if !stream.read_many(&mut chunks).await? {
                return Ok(());
            }
        }
    }

    /// Stops reading a lane while too much waits behind markers in it. Nothing is released any more
    /// once the connection has ended, and the rest is little.
    async fn wait_for_release(&self, index: usize) {
        loop {
            let released = self.0.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if self.arriving(index).held.bytes() < HELD_BYTES {
                return;
            }
            tokio::select! {
                biased;
                () = released => {}
                _ = self.0.connection.closed() => return,
            }
        }
    }

    fn arriving(&self, lane: usize) -> MutexGuard<'_, Arriving> {
        self.0.arriving[lane].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reassembly(&self) -> MutexGuard<'_, Reassembly> {
        self.0.reassembly.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes entries that came together: what is free is delivered together.
    fn entries(&self, lane: usize, chunk: &Bytes, entries: &[Entry]) -> Result<(), BadEntry> {
        let mut arriving = self.arriving(lane);
        let Arriving { held, free } = &mut *arriving;
        free.clear();
        for entry in entries {
            match entry {
                Entry::Frame(cut) if held.holds(cut.flow) => {
                    held.frame(cut.flow, keep(chunk, cut.at.clone()));
                }
                Entry::Frame(cut) => free.push(cut.clone()),
                Entry::Marker { flow, id, length } => {
                    let bytes = self.reassembly().marker(lane, *flow, *id, *length)?;
                    held.marker(*flow, *id, bytes);
                    // What came before it goes first.
                    self.deliver_frames(chunk, free);
                    free.clear();
                    self.release(held, *flow);
                }
            }
        }
        self.deliver_frames(chunk, free);
        Ok(())
    }

    /// Delivers what is free of a flow, under the lock of its lane.
    fn release(&self, held: &mut Held, flow: Flow) {
        while let Some(frame) = held.next(flow) {
            let at = 0..frame.len();
            self.deliver_frames(&frame, &[Cut { flow, at }]);
        }
        self.0.released.notify_waiters();
    }

    async fn read_bulk(self, reader: Reader) -> Result<(), Fault> {
        let (first, mut stream) = reader.into_parts();
        let mut parser = bulk::Parser::default();
        let (mut chunks, mut complete) = (vec![first], Vec::new());
        loop {
            {
                let mut reassembly = self.reassembly();
                for chunk in chunks.drain(..) {
                    parser.feed(chunk, |id, total, part| {
                        complete.extend(reassembly.chunk(id, total, part)?);
                        Ok(())
                    })?;
                }
            }
            for Complete { lane, flow, id, frame } in complete.drain(..) {
                let mut arriving = self.arriving(lane);
                arriving.held.complete(flow, id, frame);
                self.release(&mut arriving.held, flow);
            }
            if !stream.read_many(&mut chunks).await? {
                return Ok(());
            }
        }
    }

    fn deliver_frames(&self, chunk: &Bytes, cuts: &[Cut]) {
        if !cuts.is_empty() {
            self.deliver(|receiver| receiver.frames(&Frames::new(chunk, cuts)));
        }
    }

    /// Hands something to the receiver, unless the link is over.
    fn deliver(&self, deliver: impl FnOnce(&dyn Receiver)) {
        let delivery = self.0.delivery.read().unwrap_or_else(PoisonError::into_inner);
        if let Delivery::To(receiver) = &*delivery {
            deliver(&**receiver);
        }
    }
}

/// Finishes a stream and tells who asked for it.
async fn finish(mut stream: SendStream, finished: Finished) -> Result<(), Fault> {
    stream.finish().await?;
    // Whoever asked may have given up.
    let _ = finished.send(());
    Ok(())
}

/// Counts as a task that reads while it lives.
struct Reading(Arc<watch::Sender<usize>>);

impl Reading {
    fn begin(reading: &Arc<watch::Sender<usize>>) -> Self {
        reading.send_modify(|count| *count += 1);
        Self(Arc::clone(reading))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Lanes that a far end may use; more than we ever open.
pub(crate) const MAX_LANES: usize = 16;

/// Why a task of a link ended.
enum Fault {
    Ended(#[expect(dead_code, reason = "seen in a debugger")] StreamEnded),
    Protocol(BadEntry),
}

impl From<StreamEnded> for Fault {
    fn from(ended: StreamEnded) -> Self {
        Self::Ended(ended)
    }
}

impl From<BadEntry> for Fault {
    fn from(bad: BadEntry) -> Self {
        Self::Protocol(bad)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("peer", &self.0.peer).finish_non_exhaustive()
    }
}

/// Does something when it is dropped.
pub(crate) struct OnDrop<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
