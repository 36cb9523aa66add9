//! A bad road on loopback: a UDP relay that loses, delays, jams, is cut, and moves.
//!
//! Whoever is led over it is told [`Relay::address`] in place of the target's: by
//! `NodeBuilder::advertise`, by a seed, or by dialing it. Each source has a socket of its own towards
//! the target, as behind a NAT, so the target sees each at an address of the relay's.
//!
//! ```text
//! source ──► front socket ──► upstream socket of that source ──► target        Way::There
//! source ◄── front socket ◄── upstream socket of that source ◄── target        Way::Back
//! ```
//!
//! What is lost by chance, and how much later than others a packet comes, follows from the seed, the
//! way and the packet's number on it, not from time. Three things move:
//!
//! - [`change_port`](Relay::change_port): the source has a new address for the target, as when a NAT
//!   forgets it. The old port is closed.
//! - [`move_front`](Relay::move_front): the target has a new address for the sources.
//! - [`aim`](Relay::aim): somebody else is at the target's address.
//!
//! A dead target is silence: what the kernel says about closed ports is not handed on. It ends when
//! it is dropped. Time is the real one.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The system's default of 208 KiB loses packets that no setting says to lose.
const SOCKET_BUFFER: usize = 4 << 20;

/// What the road does to packets, on each of its ways.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The part of all packets that is lost, 0 to 1.
    pub loss: f64,
    /// How much later every packet comes.
    pub delay: Duration,
    /// By up to how much more some come later; so they overtake one another.
    pub jitter: Duration,
    /// What is left to chance follows from it.
    pub seed: u64,
    /// Bytes a second on each way, if there is a limit.
    pub bandwidth: Option<u32>,
    /// Bytes that may wait for the bandwidth on each way; what comes then is dropped.
    pub queue: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let (delay, jitter) = (Duration::ZERO, Duration::ZERO);
        Self { loss: 0.0, delay, jitter, seed: 1, bandwidth: None, queue: 256 << 10 }
    }
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the target.
    There,
    /// From the target.
    Back,
}

/// Packets of one way since the relay started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub passed: u64,
    /// By chance, by a cut, by a full queue, or because nobody is where it should go.
    pub dropped: u64,
}

/// A relay that runs; see the head of the module.
pub struct Relay {
    shared: Arc<Shared>,
    runtime: Handle,
    /// Its thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

struct Shared {
    state: Mutex<State>,
    /// Something is to be delivered earlier than known before.
    wake: Notify,
}

struct State {
    settings: Settings,
    target: Option<SocketAddr>,
    cut: bool,
    /// `None` only while the relay starts.
    front: Option<Ear>,
    upstream: HashMap<SocketAddr, Ear>,
    there: Line,
    back: Line,
    waiting: BinaryHeap<Waiting>,
}

/// A socket and the task that reads it.
struct Ear {
    /// For sending: tokio's would refuse what is sent before its first look at a new socket.
    socket: std::net::UdpSocket,
    reader: AbortHandle,
}

impl Ear {
    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// One way of the road.
#[derive(Default)]
struct Line {
    counts: Counts,
    /// Packets that have come to it.
    number: u64,
    /// So many of the next are dropped.
    drop_next: u64,
    /// When all that waits for the bandwidth has left.
    free_at: Option<Instant>,
}

struct Waiting {
    due: Instant,
    number: u64,
    way: Way,
    source: SocketAddr,
    bytes: Vec<u8>,
}

impl Relay {
    /// Starts a relay to a target, or to nobody until it is [aimed](Self::aim).
    pub fn start(target: impl Into<Option<SocketAddr>>, settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let guard = handle.enter();
        let state = State {
            settings,
            target: target.into(),
            cut: false,
            front: None,
            upstream: HashMap::new(),
            there: Line::default(),
            back: Line::default(),
            waiting: BinaryHeap::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() });
        shared.new_front();
        runtime.spawn(Arc::clone(&shared).deliver());
        drop(guard);
        let (running, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || {
                // Told by the sender's end.
                let _ = runtime.block_on(ended);
            })
            .unwrap();
        Self { shared, runtime: handle, _running: running }
    }

    /// Where sources send to.
    pub fn address(&self) -> SocketAddr {
        self.shared.lock().front.as_ref().map(Ear::address).expect("set at the start")
    }

    /// Where packets go from now on. What another one sends back is dropped.
    pub fn aim(&self, target: SocketAddr) {
        self.shared.lock().target = Some(target);
    }

    /// Changes what the road does, for packets that come from now on.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.lock().settings);
    }

    /// Lets nothing through, on both ways, nor what is under way.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.cut = true;
        state.waiting.clear();
    }

    pub fn heal(&self) {
        self.shared.lock().cut = false;
    }

    /// The target sees every source at a new address from now on.
    pub fn change_port(&self) {
        let _guard = self.runtime.enter();
        let mut state = self.shared.lock();
        let sources: Vec<_> = state.upstream.keys().copied().collect();
        for source in sources {
            let ear = self.shared.new_upstream(source);
            state.upstream.insert(source, ear);
        }
    }

    /// The sources see the target at a new address from now on, which is returned. What they send
    /// to the old one goes to a closed port.
    pub fn move_front(&self) -> SocketAddr {
        let _guard = self.runtime.enter();
        self.shared.new_front();
        self.address()
    }

    /// Drops so many packets that come next on this way.
    pub fn drop_next(&self, way: Way, packets: u64) {
        self.shared.lock().line(way).drop_next = packets;
    }

    pub fn counts(&self, way: Way) -> Counts {
        self.shared.lock().line(way).counts
    }

    /// Addresses at which the target sees sources.
    pub fn sources(&self) -> Vec<SocketAddr> {
        let state = self.shared.lock();
        state.upstream.values().map(Ear::address).collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_front(self: &Arc<Self>) {
        let (socket, ear) = open();
        let shared = Arc::downgrade(self);
        let reader = tokio::spawn(read(ear, move |bytes, source| {
            shared.upgrade().map(|shared| shared.arrived(Way::There, source, bytes))
        }));
        self.lock().front = Some(Ear { socket, reader: reader.abort_handle() });
    }

    fn new_upstream(self: &Arc<Self>, source: SocketAddr) -> Ear {
        let (socket, ear) = open();
        let shared = Arc::downgrade(self);
        let reader = tokio::spawn(read(ear, move |bytes, from| {
            let shared = shared.upgrade()?;
            let expected = shared.lock().target == Some(from);
            expected.then(|| shared.arrived(Way::Back, source, bytes));
            Some(())
        }));
        Ear { socket, reader: reader.abort_handle() }
    }

    fn arrived(self: &Arc<Self>, way: Way, source: SocketAddr, bytes: &[u8]) {
        let mut state = self.lock();
        if way == Way::There && !state.upstream.contains_key(&source) {
            let ear = self.new_upstream(source);
            state.upstream.insert(source, ear);
        }
        let now = Instant::now();
        let Some((number, due)) = state.pass(way, bytes.len(), now) else { return };
        if due <= now {
            state.send(way, source, bytes);
            return;
        }
        let first = state.waiting.peek().is_none_or(|first| due < first.due);
        state.waiting.push(Waiting { due, number, way, source, bytes: bytes.to_vec() });
        drop(state);
        if first {
            self.wake.notify_one();
        }
    }

    /// Delivers what waits, when it is due.
    async fn deliver(self: Arc<Self>) {
        loop {
            let next = self.lock().deliver_due(Instant::now());
            match next {
                None => self.wake.notified().await,
                Some(next) => tokio::select! {
                    () = tokio::time::sleep_until(next) => {}
                    () = self.wake.notified() => {}
                },
            }
        }
    }
}

impl State {
    fn line(&mut self, way: Way) -> &mut Line {
        match way {
            Way::There => &mut self.there,
            Way::Back => &mut self.back,
        }
    }

    /// The number of a packet that has come, and when it is to leave; `None` if it is dropped.
    fn pass(&mut self, way: Way, length: usize, now: Instant) -> Option<(u64, Instant)> {
        let (settings, cut) = (self.settings, self.cut);
        let line = self.line(way);
        line.number += 1;
        let number = line.number;
        let (lost, later) = chance(settings.seed, way, number);
        let told = line.drop_next > 0;
        line.drop_next = line.drop_next.saturating_sub(1);
        let left = match settings.bandwidth {
            None => Some(now),
            Some(bandwidth) => line.queue(length, bandwidth, settings.queue, now),
        };
        let passes = !cut && !told && lost >= settings.loss;
        let Some(left) = left.filter(|_| passes) else {
            line.counts.dropped += 1;
            return None;
        };
        Some((number, left + settings.delay + settings.jitter.mul_f64(later)))
    }

    fn send(&mut self, way: Way, source: SocketAddr, bytes: &[u8]) {
        let (ear, to) = match way {
            Way::There => (self.upstream.get(&source), self.target),
            Way::Back => (self.front.as_ref(), Some(source)),
        };
        let sent = ear.zip(to).is_some_and(|(ear, to)| ear.socket.send_to(bytes, to).is_ok());
        let counts = &mut self.line(way).counts;
        if sent {
            counts.passed += 1;
        } else {
            counts.dropped += 1;
        }
    }

    /// Sends what is due; when the next is.
    fn deliver_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(first) = self.waiting.peek() {
            if first.due > now {
                return Some(first.due);
            }
            let Waiting { way, source, bytes, .. } = self.waiting.pop()?;
            self.send(way, source, &bytes);
        }
        None
    }
}

impl Line {
    /// When a packet has left over a line of this bandwidth; `None` if its queue is full.
    fn queue(
        &mut self,
        length: usize,
        bandwidth: u32,
        queue: u32,
        now: Instant,
    ) -> Option<Instant> {
        let begins = self.free_at.map_or(now, |at| at.max(now));
        let bandwidth = f64::from(bandwidth);
        if (begins - now).as_secs_f64() * bandwidth > f64::from(queue) {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a packet is small")]
        let takes = Duration::from_secs_f64(length as f64 / bandwidth);
        self.free_at = Some(begins + takes);
        self.free_at
    }
}

/// Two numbers from 0 to 1 that belong to a packet.
fn chance(seed: u64, way: Way, number: u64) -> (f64, f64) {
    let salt = match way {
        Way::There => 1,
        Way::Back => 2,
    };
    let first = mix(seed ^ mix(number ^ mix(salt)));
    (unit(first), unit(mix(first)))
}

/// The finisher of splitmix64.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn unit(number: u64) -> f64 {
    let high = u32::try_from(number >> 32).expect("32 bits are left");
    f64::from(high) / f64::from(u32::MAX)
}

/// Hands on every packet and where it comes from, until that is no longer wanted.
async fn read(socket: UdpSocket, mut give: impl FnMut(&[u8], SocketAddr) -> Option<()>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // An error is about a packet before.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if give(&buffer[..length], from).is_none() {
            return;
        }
    }
}

/// A socket on a free port of loopback, once to send and once to read. Needs a tokio runtime.
fn open() -> (std::net::UdpSocket, UdpSocket) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    // Best effort: the system may allow less.
    drop(socket.set_recv_buffer_size(SOCKET_BUFFER));
    drop(socket.set_send_buffer_size(SOCKET_BUFFER));
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let socket = std::net::UdpSocket::from(socket);
    let ear = UdpSocket::from_std(socket.try_clone().unwrap()).unwrap();
    (socket, ear)
}

impl Ord for Waiting {
    /// The first that is due is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as the smallest buffer of the system holds at once.
    const PACKETS: u32 = 200;

    /// Sends numbered packets over a relay; those that come, in their order.
    async fn send(relay: &Relay, to: &UdpSocket, count: u32) -> Vec<u32> {
        let from = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let read = async {
            let (mut came, mut buffer) = (Vec::new(), [0; 4]);
            let quiet = Duration::from_millis(300);
            while let Ok(read) = tokio::time::timeout(quiet, to.recv_from(&mut buffer)).await {
                read.unwrap();
                came.push(u32::from_le_bytes(buffer));
            }
            came
        };
        let write = async {
            for number in 0..count {
                from.send_to(&number.to_le_bytes(), relay.address()).await.unwrap();
            }
        };
        tokio::join!(read, write).0
    }

    async fn over(settings: Settings) -> (Relay, Vec<u32>) {
        let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(target.local_addr().unwrap(), settings);
        let came = send(&relay, &target, PACKETS).await;
        (relay, came)
    }

    #[tokio::test]
    async fn a_good_road_passes_everything_in_order() {
        let (relay, came) = over(Settings::default()).await;

        assert_eq!(came, (0..PACKETS).collect::<Vec<_>>());
        assert_eq!(relay.counts(Way::There), Counts { passed: PACKETS.into(), dropped: 0 });
    }

    #[tokio::test]
    async fn what_is_lost_follows_from_the_seed() {
        let lossy = |seed| Settings { loss: 0.3, seed, ..Settings::default() };
        let (first, again, other) = tokio::join!(over(lossy(1)), over(lossy(1)), over(lossy(2)));

        assert_eq!(first.1, again.1);
        assert_ne!(first.1, other.1);
        assert!((110..170).contains(&first.1.len()), "{}", first.1.len());
        assert_eq!(first.0.counts(Way::There).dropped, u64::from(PACKETS) - first.1.len() as u64);
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_a_cut_lets_nothing_through() {
        let narrow = Settings { bandwidth: Some(4_000), queue: 400, ..Settings::default() };
        let (relay, came) = over(narrow).await;
        assert!((100..200).contains(&came.len()), "{} of 4 bytes through 400", came.len());

        let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        relay.aim(target.local_addr().unwrap());
        relay.set(|settings| settings.bandwidth = None);
        relay.cut();
        assert!(send(&relay, &target, 10).await.is_empty());
        relay.heal();
        relay.drop_next(Way::There, 3);
        assert_eq!(send(&relay, &target, 5).await, [3, 4]);
    }

    #[tokio::test]
    async fn a_changed_port_is_a_new_address_and_the_way_back_leads_there() {
        let (target, source) = (
            UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        );
        let relay = Relay::start(target.local_addr().unwrap(), Settings::default());
        let mut buffer = [0; 8];
        let mut seen = Vec::new();
        for _ in 0..2 {
            source.send_to(b"there", relay.address()).await.unwrap();
            let (_, from) = target.recv_from(&mut buffer).await.unwrap();
            assert_eq!(relay.sources(), [from]);
            seen.push(from);
            target.send_to(b"back", from).await.unwrap();
            let (_, from) = source.recv_from(&mut buffer).await.unwrap();
            assert_eq!(from, relay.address());
            relay.change_port();
        }
        assert_ne!(seen[0], seen[1]);
    }
}
