//! The machines, the network between them, and the order in which things happen.
//!
//! One thread does everything, one thing after the other. At each moment the test runs until it
//! waits, and each machine for which there is something to do, in the order of their names; then
//! time goes on to the next moment: the arrival of a packet, a wait of the test that is over, or the
//! next tick. A machine's timers are good to a millisecond, as tokio's are, and so ticks are one
//! apart; packets arrive at their own times between them.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use purlin_proto::NodeName;
use purlin_transport::simulated::Network;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::SimulatedDisk;
use super::log::Log;
use super::machine::Machine;
use crate::Node;

/// How far apart timers are looked at.
const TICK: Duration = Duration::from_millis(1);

/// The time of day when a world begins: 2026-01-01.
const BEGINNING: Duration = Duration::from_hours(490_896);

pub(super) struct World {
    seed: u64,
    state: RefCell<State>,
    pub(super) network: Network,
    pub(super) log: Log,
}

struct State {
    now: Duration,
    chance: StdRng,
    hosts: BTreeMap<NodeName, Host>,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    slept: u64,
}

/// What stays when a node's machine crashes: its name, its address, its disk.
pub(super) struct Host {
    pub(super) address: SocketAddr,
    pub(super) index: u8,
    /// The last creation, as on its disk.
    pub(super) creation: Arc<AtomicU64>,
    /// What its node remembers besides.
    pub(super) disk: SimulatedDisk,
    pub(super) machine: Option<Machine>,
    pub(super) node: Option<Node>,
    /// There is something for it to do.
    due: bool,
    /// It does nothing before this time.
    stopped_until: Duration,
    /// It stops for so long after each turn.
    pause: Duration,
    /// How fast its clocks run.
    rate: f64,
    /// By how much its time of day is ahead.
    ahead: Duration,
}

/// Whether the test has something to do.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let network = Network::new(chance.random());
        let state = State {
            now: Duration::ZERO,
            chance,
            hosts: BTreeMap::new(),
            sleepers: BTreeMap::new(),
            slept: 0,
        };
        Self { seed, state: RefCell::new(state), network, log: Log::default() }
    }

    pub(super) fn now(&self) -> Duration {
        self.state.borrow().now
    }

    /// A number by chance, for one life of a node.
    pub(super) fn number(&self) -> u64 {
        self.state.borrow_mut().chance.random()
    }

    pub(super) fn add_host(&self, name: NodeName, index: u8) {
        let host = Host {
            address: SocketAddr::from(([10, 0, 0, index + 1], 7400)),
            index,
            creation: Arc::default(),
            // Of its own chance, so that all else is as it would be.
            disk: SimulatedDisk::new(self.seed ^ u64::from(index) << 32),
            machine: None,
            node: None,
            due: false,
            stopped_until: Duration::ZERO,
            pause: Duration::ZERO,
            rate: 1.0,
            ahead: Duration::ZERO,
        };
        self.state.borrow_mut().hosts.insert(name, host);
    }

    pub(super) fn names(&self) -> Vec<NodeName> {
        self.state.borrow().hosts.keys().copied().collect()
    }

    /// # Panics
    ///
    /// If there is no such host.
    pub(super) fn host(&self, name: NodeName) -> RefMut<'_, Host> {
        RefMut::map(self.state.borrow_mut(), |state| {
            let Some(host) = state.hosts.get_mut(&name) else {
                panic!("there is no node {name} in this cluster")
            };
            host
        })
    }

    /// Switches a machine on, with nothing on it.
    pub(super) fn switch_on(&self, name: NodeName) {
        let now = self.now();
        let mut host = self.host(name);
        assert!(host.machine.is_none(), "{name} is running");
        let wall = BEGINNING + host.ahead + now;
        host.machine = Some(Machine::new(now, host.rate, wall).expect("a tokio runtime"));
        host.due = true;
        host.stopped_until = Duration::ZERO;
    }

    /// Ends a machine and all that runs on it. Its socket is dead first.
    pub(super) fn switch_off(&self, name: NodeName) {
        self.network.close(self.host(name).address);
        self.end(name);
    }

    /// Ends all that runs on a machine, which goes on and tells those who ask for it. Its socket is
    /// dead first.
    pub(super) fn end_process(&self, name: NodeName) {
        self.network.refuse(self.host(name).address);
        self.end(name);
    }

    fn end(&self, name: NodeName) {
        let (machine, node) = {
            let mut host = self.host(name);
            (host.machine.take(), host.node.take())
        };
        // What is dropped there may do what it likes; the state is not borrowed.
        if let Some(machine) = machine {
            machine.crash();
        }
        drop(node);
    }

    pub(super) fn stop(&self, name: NodeName, span: Duration) {
        let until = self.now() + span;
        self.host(name).stopped_until = until;
    }

    pub(super) fn set_pause(&self, name: NodeName, pause: Duration) {
        self.host(name).pause = pause;
    }

    pub(super) fn set_rate(&self, name: NodeName, rate: f64) {
        let now = self.now();
        let mut host = self.host(name);
        host.rate = rate;
        if let Some(machine) = &mut host.machine {
            machine.set_rate(now, rate);
        }
    }

    pub(super) fn set_ahead(&self, name: NodeName, ahead: Duration) {
        self.host(name).ahead = ahead;
    }

    /// Runs the world until a future of the test is done.
    pub(super) fn run<T>(&self, test: impl Future<Output = T>) -> T {
        let mut test = pin!(test);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        loop {
            let mut busy = true;
            while busy {
                busy = woken.0.swap(false, Ordering::Relaxed);
                if busy && let Poll::Ready(done) = test.as_mut().poll(&mut cx) {
                    return done;
                }
                busy |= self.turns();
            }
            self.go_on();
        }
    }

    /// Gives every machine its turn that has something to do; whether there was one.
    fn turns(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let now = state.now;
        let mut any = false;
        for host in state.hosts.values_mut() {
            any |= host.turn(now);
        }
        any
    }

    /// Lets time go on to when something happens next.
    fn go_on(&self) {
        let mut state = self.state.borrow_mut();
        let tick = next_tick(state.now);
        let over = state.sleepers.first_key_value().map(|((due, _), _)| *due);
        let now = [self.network.next(), over].into_iter().flatten().fold(tick, Duration::min);
        let now = now.max(state.now);
        state.now = now;
        self.log.set_now(now);
        let arrived = self.network.advance(now);
        for host in state.hosts.values_mut() {
            host.due |= now == tick || arrived.contains(&host.address);
        }
        while let Some(entry) = state.sleepers.first_entry()
            && entry.key().0 <= now
        {
            entry.remove().wake();
        }
    }

    pub(super) async fn sleep(&self, span: Duration) {
        let due = self.now() + span;
        std::future::poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.now >= due {
                return Poll::Ready(());
            }
            state.slept += 1;
            let key = (due, state.slept);
            state.sleepers.insert(key, cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Host {
    fn turn(&mut self, now: Duration) -> bool {
        let Some(machine) = &mut self.machine else { return false };
        if now < self.stopped_until || !(self.due || machine.is_woken()) {
            return false;
        }
        self.due = false;
        machine.turn(now);
        if self.pause > Duration::ZERO {
            self.stopped_until = now + self.pause;
        }
        true
    }
}

fn next_tick(now: Duration) -> Duration {
    let ticks = now.as_nanos() / TICK.as_nanos() + 1;
    Duration::from_nanos(u64::try_from(ticks * TICK.as_nanos()).unwrap_or(u64::MAX))
}

impl Drop for World {
    fn drop(&mut self) {
        for name in self.names() {
            self.switch_off(name);
        }
    }
}
