//! Packets on their way, in the order in which they will arrive.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use xxhash_rust::xxh3::Xxh3;

use super::icmp::ClosedPort;
use super::road::{Fate, Road};
use super::socket::{Inbox, Socket};

/// Two sums over every packet so far: equal if and only if (by all but chance) two runs were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many packets were sent.
    pub packets: u64,
    /// Over when, from where, where to, how long, and what became of it.
    pub shape: u64,
    /// Over the bytes.
    pub content: u64,
}

/// The network. Cheap to clone; all clones are the same network.
///
/// ```
/// use std::time::Duration;
/// use purlin_transport::simulated::{Network, Road};
///
/// let network = Network::new(7);
/// let [a, b] = [1, 2].map(|host| std::net::SocketAddr::from(([10, 0, 0, host], 7400)));
/// network.set_road(a, b, Road { cut: true, ..Road::default() }); // a hears b, b does not hear a
/// assert_eq!(network.next(), None);
/// ```
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    now: Duration,
    chance: StdRng,
    road: Road,
    roads: BTreeMap<(SocketAddr, SocketAddr), Road>,
    /// Until when each road is busy with what was sent.
    busy: BTreeMap<(SocketAddr, SocketAddr), Duration>,
    sockets: BTreeMap<SocketAddr, Arc<Inbox>>,
    closed: BTreeMap<SocketAddr, ClosedPort>,
    air: BinaryHeap<Reverse<Packet>>,
    packets: u64,
    shape: Xxh3,
    content: Xxh3,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    arrival: Duration,
    // Those that arrive together come in the order in which they were sent.
    sent: u64,
    from: SocketAddr,
    to: SocketAddr,
    load: Load,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    Udp(Bytes),
    /// ICMP port unreachable, from the machine with the closed port.
    Unreachable,
}

/// What stands for an ICMP message in the sums: its eight bytes of head, and as much of the packet.
const ICMP: &[u8] = b"port unreachable";

impl Network {
    /// A network without sockets, all of whose roads are as [`Road::default`] says.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            chance: StdRng::seed_from_u64(seed),
            road: Road::default(),
            roads: BTreeMap::new(),
            busy: BTreeMap::new(),
            sockets: BTreeMap::new(),
            closed: BTreeMap::new(),
            air: BinaryHeap::new(),
            packets: 0,
            shape: Xxh3::new(),
            content: Xxh3::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket at this address. One that was there before is closed.
    pub fn bind(&self, address: SocketAddr) -> Arc<Socket> {
        let inbox = Arc::new(Inbox::default());
        let mut state = self.lock();
        state.closed.remove(&address);
        let before = state.sockets.insert(address, Arc::clone(&inbox));
        drop(state);
        if let Some(before) = before {
            before.close();
        }
        Arc::new(Socket::new(self.clone(), address, inbox))
    }

    /// Closes the socket at an address: from now on it sends nothing and nothing arrives there. Its
    /// machine says nothing of that, as one without power.
    pub fn close(&self, address: SocketAddr) {
        let mut state = self.lock();
        state.closed.remove(&address);
        let socket = state.sockets.remove(&address);
        drop(state);
        if let Some(socket) = socket {
            socket.close();
        }
    }

    /// Closes the socket at an address, whose machine goes on: it tells those who send there.
    pub fn refuse(&self, address: SocketAddr) {
        self.close(address);
        self.lock().closed.insert(address, ClosedPort::default());
    }

    /// Makes every road like this one, but for those that [`set_road`](Self::set_road) has made.
    pub fn set_roads(&self, road: Road) {
        self.lock().road = road;
    }

    /// Makes the road from one address to another.
    pub fn set_road(&self, from: SocketAddr, to: SocketAddr, road: Road) {
        self.lock().roads.insert((from, to), road);
    }

    /// The road from one address to another as it is.
    pub fn road(&self, from: SocketAddr, to: SocketAddr) -> Road {
        self.lock().road(from, to).clone()
    }

    /// When the next packet arrives; `None` when none is on its way.
    pub fn next(&self) -> Option<Duration> {
        self.lock().air.peek().map(|Reverse(packet)| packet.arrival)
    }

    /// Says what time it is, and hands over what has arrived by then: returns where.
    pub fn advance(&self, now: Duration) -> Vec<SocketAddr> {
        let mut state = self.lock();
        debug_assert!(state.now <= now, "time goes on");
        state.now = now;
        let mut arrived = Vec::new();
        while state.air.peek().is_some_and(|Reverse(packet)| packet.arrival <= now) {
            let Some(Reverse(packet)) = state.air.pop() else { break };
            let Packet { from, to, load, .. } = packet;
            let Some(inbox) = state.sockets.get(&to) else {
                if matches!(load, Load::Udp(_)) {
                    state.refuse(from, to);
                }
                continue;
            };
            match load {
                Load::Udp(bytes) => inbox.push(from, bytes),
                Load::Unreachable => inbox.unreachable(from),
            }
            if arrived.last() != Some(&to) {
                arrived.push(to);
            }
        }
        arrived
    }

    /// What was sent so far.
    pub fn digest(&self) -> Digest {
        let state = self.lock();
        Digest {
            packets: state.packets,
            shape: state.shape.digest(),
            content: state.content.digest(),
        }
    }

    pub(super) fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.lock().send(from, to, bytes, || Load::Udp(Bytes::copy_from_slice(bytes)));
    }
}

impl State {
    fn send(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        load: impl FnOnce() -> Load,
    ) {
        let Self { road, roads, busy, chance, now, .. } = self;
        let road = roads.get(&(from, to)).unwrap_or(road);
        let busy = busy.entry((from, to)).or_default();
        let fate = road.fate(*now, bytes.len(), busy, chance);
        self.note(from, to, bytes, fate);
        let (first, second) = match fate {
            Fate::Arrives(first) => (first, None),
            Fate::Twice(first, second) => (first, Some(second)),
            Fate::Lost | Fate::Cut | Fate::TooLarge | Fate::Full => return,
        };
        let (sent, load) = (self.packets, load());
        for delay in [Some(first), second].into_iter().flatten() {
            let arrival = self.now + delay;
            self.air.push(Reverse(Packet { arrival, sent, from, to, load: load.clone() }));
        }
    }

    /// A packet has come to where no socket is.
    fn refuse(&mut self, from: SocketAddr, to: SocketAddr) {
        let now = self.now;
        if self.closed.get_mut(&to).is_some_and(|port| port.answers(from, now)) {
            self.send(to, from, ICMP, || Load::Unreachable);
        }
    }

    fn road(&self, from: SocketAddr, to: SocketAddr) -> &Road {
        self.roads.get(&(from, to)).unwrap_or(&self.road)
    }

    fn note(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], fate: Fate) {
        let (now, length) = (self.now, bytes.len());
        tracing::trace!(?now, %from, %to, length, ?fate, "packet");
        self.packets += 1;
        let shape = format!("{} {from} {to} {length} {fate:?}\n", now.as_nanos());
        self.shape.update(shape.as_bytes());
        self.content.update(bytes);
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("digest", &self.digest()).finish_non_exhaustive()
    }
}
