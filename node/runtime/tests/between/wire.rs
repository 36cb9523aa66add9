//! Two runtimes and the frames between them, which lie still until a test delivers them.
//!
//! As on a real link, the frames of one flow keep their order and those of different flows need not.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use purlin_proto::{Envelope, Frame, Pieces, Signal};
use purlin_runtime::{
    Config, Down, KeyedKinds, LinkDown, NodeId, NodeName, Peer, Pid, Priority, RawContext, RawKind,
    Received, Remote, Runtime, Sent,
};
use tokio::sync::{mpsc, oneshot};

/// What one node sends to another.
struct Wire {
    state: Mutex<WireState>,
}

struct WireState {
    sent: Sent,
    /// Flow and frame.
    under_way: VecDeque<(u64, Bytes)>,
    log: Vec<(u64, Bytes)>,
    told: Vec<Frame>,
    /// Who owns all keys, as the sending node sees it.
    owner: Option<NodeName>,
    /// And who did until lately.
    earlier: Option<NodeName>,
    /// What happens while the next frame is being sent.
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Wire {
    fn new() -> Arc<Self> {
        let (under_way, log, told) = (VecDeque::new(), Vec::new(), Vec::new());
        let (sent, owner, earlier, meanwhile) = (Sent::Accepted, None, None, None);
        let state = WireState { sent, under_way, log, told, owner, earlier, meanwhile };
        Arc::new(Self { state: Mutex::new(state) })
    }
}

impl Remote for Wire {
    fn send_large(&self, to: Peer, from: u64, priority: Priority, frame: Pieces) -> Sent {
        self.send(to, from, priority, &mut |out| {
            out.extend_from_slice(&frame.clone().into_bytes());
            true
        })
    }

    fn tell(&self, _: NodeName, frame: &Frame) {
        self.state.lock().unwrap().told.push(frame.clone());
    }

    fn send(
        &self,
        _: Peer,
        from: u64,
        _: Priority,
        encode: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Sent {
        let meanwhile = self.state.lock().unwrap().meanwhile.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut state = self.state.lock().unwrap();
        if state.sent != Sent::Accepted {
            return state.sent;
        }
        let mut frame = BytesMut::new();
        if !encode(&mut frame) {
            return Sent::NotEncodable;
        }
        let frame = frame.freeze();
        state.under_way.push_back((from, frame.clone()));
        state.log.push((from, frame));
        Sent::Accepted
    }

    fn key_owner(&self, _: &[u8]) -> Option<NodeName> {
        self.state.lock().unwrap().owner
    }

    fn owners_are_new(&self) -> bool {
        self.state.lock().unwrap().earlier.is_some()
    }

    fn earlier_owner(&self, _: &[u8], _: bool) -> Option<NodeName> {
        self.state.lock().unwrap().earlier
    }

    fn ready(&self, _: Peer, _: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(Duration::from_millis(1)))
    }
}

/// Two nodes, `a` and `b`.
pub(crate) struct Pair {
    pub(crate) a: Runtime,
    pub(crate) b: Runtime,
    a_to_b: Arc<Wire>,
    b_to_a: Arc<Wire>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::configured(|_| {})
    }

    /// As [`new`](Self::new), both with these keyed kinds.
    pub(crate) fn with(keyed: &KeyedKinds) -> Self {
        Self::configured(|config| config.keyed = keyed.clone())
    }

    /// As [`new`](Self::new), both configured so.
    pub(crate) fn configured(configure: impl Fn(&mut Config)) -> Self {
        let runtime = |name: &'static str| {
            let mut config = Config::new(NodeId::new(name.into(), 1));
            configure(&mut config);
            Runtime::new(config)
        };
        let (a, b) = (runtime("a"), runtime("b"));
        let (a_to_b, b_to_a) = (Wire::new(), Wire::new());
        a.set_remote(Arc::clone(&a_to_b) as Arc<dyn Remote>);
        b.set_remote(Arc::clone(&b_to_a) as Arc<dyn Remote>);
        Self { a, b, a_to_b, b_to_a }
    }

    fn between(&self, from: &Runtime) -> (&Wire, &Runtime) {
        if from.name() == self.a.name() { (&self.a_to_b, &self.b) } else { (&self.b_to_a, &self.a) }
    }

    /// The signals that a node has sent since this was last asked: by which flow, and what.
    pub(crate) fn sent_by(&self, from: &Runtime) -> Vec<(u64, Envelope)> {
        let log = std::mem::take(&mut self.between(from).0.state.lock().unwrap().log);
        log.into_iter().map(|(flow, frame)| (flow, decode(frame))).collect()
    }

    /// What a node has told about the way itself since this was last asked.
    pub(crate) fn told_by(&self, from: &Runtime) -> Vec<Frame> {
        std::mem::take(&mut self.between(from).0.state.lock().unwrap().told)
    }

    /// The frames that a node has sent since this was last asked, in bytes.
    pub(crate) fn sizes_sent_by(&self, from: &Runtime) -> Vec<usize> {
        let log = std::mem::take(&mut self.between(from).0.state.lock().unwrap().log);
        log.into_iter().map(|(_, frame)| frame.len()).collect()
    }

    /// Delivers what a node has sent by the flows that are chosen; what it delivered.
    pub(crate) fn deliver_if(&self, from: &Runtime, chosen: impl Fn(u64) -> bool) -> usize {
        let (wire, to) = self.between(from);
        let all = std::mem::take(&mut wire.state.lock().unwrap().under_way);
        let (now, later): (VecDeque<_>, VecDeque<_>) =
            all.into_iter().partition(|(flow, _)| chosen(*flow));
        wire.state.lock().unwrap().under_way = later;
        let count = now.len();
        for (_, frame) in now {
            to.inbound(from.id()).envelope(decode(frame)).unwrap();
        }
        count
    }

    pub(crate) fn deliver(&self, from: &Runtime) -> usize {
        self.deliver_if(from, |_| true)
    }

    /// Delivers everything, and lets the processes act on it, until nothing more happens.
    pub(crate) async fn settle(&self) {
        let mut quiet = 0;
        while quiet < 3 {
            let delivered = self.deliver(&self.a) + self.deliver(&self.b);
            tokio::time::sleep(Duration::from_millis(1)).await;
            quiet = if delivered == 0 { quiet + 1 } else { 0 };
        }
    }

    /// Who owns all keys, as a node sees it from now on.
    pub(crate) fn set_owner(&self, seen_by: &Runtime, owner: &Runtime) {
        self.between(seen_by).0.state.lock().unwrap().owner = Some(owner.name());
    }

    /// And another one from now on, which both know.
    pub(crate) fn change_owner(&self, owner: &Runtime) {
        for wire in [&self.a_to_b, &self.b_to_a] {
            let mut state = wire.state.lock().unwrap();
            state.earlier = state.owner.replace(owner.name());
        }
    }

    /// What becomes of all that is sent from now on.
    pub(crate) fn answer(&self, from: &Runtime, sent: Sent) {
        self.between(from).0.state.lock().unwrap().sent = sent;
    }

    /// What happens while the next frame of a node is being sent.
    pub(crate) fn meanwhile(&self, from: &Runtime, meanwhile: impl FnOnce() + Send + 'static) {
        self.between(from).0.state.lock().unwrap().meanwhile = Some(Box::new(meanwhile));
    }

    /// The connection is lost, with all that is on its way; a new one can be made.
    pub(crate) fn lose(&self) {
        for wire in [&self.a_to_b, &self.b_to_a] {
            wire.state.lock().unwrap().under_way.clear();
        }
        self.a.connection_lost(self.b.name());
        self.b.connection_lost(self.a.name());
    }
}

fn decode(frame: Bytes) -> Envelope {
    match Frame::decode(frame) {
        Ok(Frame::Envelope(envelope)) => envelope,
        other => panic!("{other:?}"),
    }
}

/// How many of these are what is asked for.
pub(crate) fn count(sent: &[(u64, Envelope)], what: impl Fn(&Signal) -> bool) -> usize {
    sent.iter().filter(|(_, envelope)| what(&envelope.signal)).count()
}

static HAND: RawKind = RawKind::new("hand");

type Order = Box<dyn FnOnce(&mut RawContext) + Send>;

/// A raw process that does what a test orders, as itself, and hands it all it receives.
pub(crate) struct Hand {
    pub(crate) pid: Pid,
    runtime: Runtime,
    orders: mpsc::UnboundedSender<Order>,
    got: mpsc::UnboundedReceiver<Received>,
}

impl Hand {
    pub(crate) fn start(runtime: &Runtime) -> Self {
        let (orders, mut ordered) = mpsc::unbounded_channel::<Order>();
        let (tell, got) = mpsc::unbounded_channel();
        let body = |mut ctx: RawContext| async move {
            loop {
                tokio::select! {
                    biased;
                    Some(order) = ordered.recv() => order(&mut ctx),
                    received = ctx.receive() => drop(tell.send(received?)),
                }
            }
        };
        let pid = runtime.spawn_raw(&HAND, body).unwrap();
        Self { pid, runtime: runtime.clone(), orders, got }
    }

    pub(crate) fn many(runtime: &Runtime, count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::start(runtime)).collect()
    }

    /// Has it do something, and waits until it is done.
    pub(crate) async fn does<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut RawContext) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = oneshot::channel();
        let order = move |ctx: &mut RawContext| drop(tell.send(order(ctx)));
        assert!(self.orders.send(Box::new(order)).is_ok(), "the hand lives");
        told.await.unwrap()
    }

    /// Ends it, and waits until it is gone.
    pub(crate) async fn end(&self, reason: purlin_runtime::ExitReason) {
        self.runtime.exit(self.pid, reason);
        let pid = self.pid;
        while self.runtime.process_detail(&pid.into()).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// All that it has received and the test has not seen.
    pub(crate) async fn rest(&mut self) -> Vec<Received> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        std::iter::from_fn(|| self.got.try_recv().ok()).collect()
    }

    /// All downs among the rest; there is nothing else.
    pub(crate) async fn downs(&mut self) -> Vec<Down> {
        let rest = self.rest().await.into_iter();
        rest.map(|received| match received {
            Received::Down(down) => down,
            other => panic!("{other:?}"),
        })
        .collect()
    }

    /// All ends of links among the rest; there is nothing else.
    pub(crate) async fn link_downs(&mut self) -> Vec<LinkDown> {
        let rest = self.rest().await.into_iter();
        rest.map(|received| match received {
            Received::LinkDown(link_down) => link_down,
            other => panic!("{other:?}"),
        })
        .collect()
    }
}
