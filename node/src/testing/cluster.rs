//! A simulated cluster as a test sees it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use purlin_proto::NodeName;
use purlin_proto::admin::What;
use purlin_transport::WireConfig;
use purlin_transport::simulated::{Digest, Road, environment};
use tokio::sync::broadcast::error::RecvError;

use super::authority::Authority;
use super::disk::DiskState;
use super::log::Log;
use super::node::SimulatedNode;
use super::store::SimulatedStore;
use super::world::World;
use crate::builder::Given;
use crate::disk::Disk;
use crate::{Node, NodeBuilder};

type With = Rc<dyn Fn(NodeBuilder) -> NodeBuilder>;

type OnEvent = Arc<dyn Fn(NodeName, &What) + Send + Sync>;

/// So many nodes have an address.
const NODES: u8 = 250;

/// How many of the first nodes are everybody's seeds.
const SEEDS: usize = 3;

/// How long the nodes of a new cluster may take to see each other.
const GATHER: Duration = Duration::from_mins(1);

/// What a simulated cluster is to be; made by [`Cluster::builder`].
pub struct Builder {
    seed: u64,
    names: Vec<NodeName>,
    road: Road,
    with: With,
    on_event: OnEvent,
}

impl Builder {
    /// Adds so many nodes: `n0`, `n1`, …
    ///
    /// # Panics
    ///
    /// With more than 250 in all.
    #[must_use]
    pub fn nodes(mut self, count: usize) -> Self {
        let first = self.names.len();
        let name = |index| NodeName::new(&format!("n{index}")).expect("a name");
        self.names.extend((first..first + count).map(name));
        assert!(self.names.len() <= usize::from(NODES), "at most {NODES} nodes");
        self
    }

    /// Says what every road is like at first; [`Road::default`] unless said otherwise.
    #[must_use]
    pub fn roads(mut self, road: Road) -> Self {
        self.road = road;
        self
    }

    /// Says what each node is to be, at its every start: kinds, applications, labels, settings. Name,
    /// address, seeds and credentials are given to it.
    #[must_use]
    pub fn with(mut self, with: impl Fn(NodeBuilder) -> NodeBuilder + 'static) -> Self {
        self.with = Rc::new(with);
        self
    }

    /// Is told all that the nodes tell those who watch them, as it happens.
    #[must_use]
    pub fn on_event(mut self, tell: impl Fn(NodeName, &What) + Send + Sync + 'static) -> Self {
        self.on_event = Arc::new(tell);
        self
    }

    /// Starts the nodes, one after the other, and waits until they all see each other.
    ///
    /// # Panics
    ///
    /// If a node does not start, or they do not find each other within a minute. Within a tokio
    /// runtime, since the nodes have their own: a test is a plain `#[test]`.
    pub fn start(self) -> Cluster {
        let cluster = self.start_apart();
        cluster.run(async |cluster| {
            for name in cluster.names() {
                cluster.restart(name).await;
            }
            cluster.until_whole(GATHER).await;
        });
        cluster
    }

    /// Makes the cluster without starting a node; [`Cluster::restart`] starts each.
    pub fn start_apart(self) -> Cluster {
        let world = World::new(self.seed);
        world.network.set_roads(self.road);
        for (index, name) in (0..NODES).zip(self.names) {
            world.add_host(name, index);
        }
        let Self { seed, with, on_event, .. } = self;
        Cluster { seed, world, authority: Authority::new(), with, on_event }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// A cluster in one thread, on simulated time; see the [module](super).
pub struct Cluster {
    seed: u64,
    world: World,
    authority: Authority,
    with: With,
    on_event: OnEvent,
}

impl Cluster {
    /// Says what a cluster is to be. All that is left to chance in it comes from the seed.
    pub fn builder(seed: u64) -> Builder {
        let with: With = Rc::new(|node| node);
        let on_event: OnEvent = Arc::new(|_, _| ());
        Builder { seed, names: Vec::new(), road: Road::default(), with, on_event }
    }

    /// Runs a test: time goes on while it waits, and stands still while it does not.
    ///
    /// The test stands outside: it has no tokio clock and no tokio runtime, and what needs one
    /// panics. It waits by [`advance`](Self::advance), [`until`](Self::until) and for what it asks of
    /// nodes; what it wants to be done with tokio's time runs on a node ([`SimulatedNode::run`]).
    ///
    /// # Panics
    ///
    /// Within a tokio runtime.
    pub fn run<T>(&self, test: impl AsyncFnOnce(&Self) -> T) -> T {
        self.world.run(test(self))
    }

    /// What everything that is left to chance comes from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How long the cluster has been running.
    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// The nodes' names, whether they run or not.
    pub fn names(&self) -> Vec<NodeName> {
        self.world.names()
    }

    /// The names of the nodes that run.
    pub fn running(&self) -> Vec<NodeName> {
        self.names().into_iter().filter(|&name| self.node(name).is_running()).collect()
    }

    /// One of its nodes.
    ///
    /// # Panics
    ///
    /// If there is none of this name.
    pub fn node(&self, name: impl Into<NodeName>) -> SimulatedNode<'_> {
        let name = name.into();
        drop(self.world.host(name));
        SimulatedNode { world: &self.world, name }
    }

    /// What happened so far. The same seed and the same test give the same log.
    pub fn log(&self) -> Log {
        self.world.log.clone()
    }

    /// Sums over every packet so far. The same seed and the same test give the same sums.
    pub fn digest(&self) -> Digest {
        self.world.network.digest()
    }

    // ----- time -----

    /// Lets so much time pass.
    pub async fn advance(&self, span: Duration) {
        self.world.sleep(span).await;
    }

    /// Lets time pass until something is so.
    ///
    /// # Panics
    ///
    /// If it is not so within this time, saying what was wanted.
    pub async fn until(&self, within: Duration, wanted: &str, so: impl FnMut() -> bool) {
        assert!(self.is_so_within(within, so).await, "not within {within:?}: {wanted}");
    }

    /// Lets time pass until every node that runs sees all that run, and no other.
    ///
    /// # Panics
    ///
    /// If that takes longer, with what they see.
    pub async fn until_whole(&self, within: Duration) {
        let running = self.running();
        let views = || running.iter().map(|&name| self.node(name).members()).collect::<Vec<_>>();
        let agree = || views().iter().all(|view| *view == running);
        let whole = self.is_so_within(within, agree).await;
        assert!(whole, "not whole after {within:?}: {running:?} see {:?}", views());
    }

    async fn is_so_within(&self, within: Duration, mut so: impl FnMut() -> bool) -> bool {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        let end = self.now() + within;
        while !so() {
            if self.now() >= end {
                return false;
            }
            self.advance(LOOK_EVERY).await;
        }
        true
    }

    // ----- the network -----

    /// Says what every road is like from now on.
    pub fn set_roads(&self, road: &Road) {
        self.world.log.note(format_args!("all roads: {road:?}"));
        for from in self.names() {
            for to in self.names() {
                self.lay(from, to, road.clone());
            }
        }
    }

    /// Says what the road from one node to another is like from now on; the way back stays as it is.
    pub fn set_road(&self, from: impl Into<NodeName>, to: impl Into<NodeName>, road: Road) {
        let (from, to) = (from.into(), to.into());
        self.world.log.note(format_args!("road {from} -> {to}: {road:?}"));
        self.lay(from, to, road);
    }

    /// The road from one node to another as it is.
    pub fn road(&self, from: impl Into<NodeName>, to: impl Into<NodeName>) -> Road {
        let [from, to] = [from.into(), to.into()].map(|name| self.world.host(name).address);
        self.world.network.road(from, to)
    }

    fn lay(&self, from: NodeName, to: NodeName, road: Road) {
        let [from, to] = [from, to].map(|name| self.world.host(name).address);
        self.world.network.set_road(from, to, road);
    }

    fn set_cut(&self, from: NodeName, to: NodeName, cut: bool) {
        let road = Road { cut, flapping: None, ..self.road(from, to) };
        self.lay(from, to, road);
    }

    /// Cuts two nodes off from each other. Nobody is told.
    pub fn cut(&self, a: impl Into<NodeName>, b: impl Into<NodeName>) {
        let (a, b) = (a.into(), b.into());
        self.world.log.note(format_args!("cut {a} - {b}"));
        self.set_cut(a, b, true);
        self.set_cut(b, a, true);
    }

    /// Cuts one way alone: the second node does not hear the first any more.
    pub fn cut_one_way(&self, from: impl Into<NodeName>, to: impl Into<NodeName>) {
        let (from, to) = (from.into(), to.into());
        self.world.log.note(format_args!("cut {from} -> {to}"));
        self.set_cut(from, to, true);
    }

    /// Cuts every road between these nodes and all others.
    pub fn split(&self, side: &[NodeName]) {
        self.world.log.note(format_args!("split {side:?}"));
        for &a in side {
            for b in self.names().into_iter().filter(|b| !side.contains(b)) {
                self.set_cut(a, b, true);
                self.set_cut(b, a, true);
            }
        }
    }

    /// Lets two nodes reach each other again.
    pub fn join(&self, a: impl Into<NodeName>, b: impl Into<NodeName>) {
        let (a, b) = (a.into(), b.into());
        self.world.log.note(format_args!("join {a} - {b}"));
        self.set_cut(a, b, false);
        self.set_cut(b, a, false);
    }

    /// Makes every road good again, as [`Road::default`] is.
    pub fn heal(&self) {
        self.set_roads(&Road::default());
    }

    // ----- machines -----

    /// Ends a node as a power cut does: nothing that it would still say gets out, and packets to it
    /// are lost without a word. Destructors run, since Rust has no way around them, but after its
    /// socket is dead.
    pub fn crash(&self, name: impl Into<NodeName>) {
        let name = name.into();
        self.world.log.note(format_args!("crash {name}"));
        self.world.switch_off(name);
    }

    /// Ends a node as `kill -9` does: nothing that it would still say gets out, but its machine goes
    /// on, and answers packets to its port with ICMP port unreachable, as often as Linux does. Whether
    /// that arrives is up to the road back. Destructors run as in [`crash`](Self::crash).
    pub fn kill(&self, name: impl Into<NodeName>) {
        let name = name.into();
        self.world.log.note(format_args!("kill {name}"));
        self.world.end_process(name);
    }

    /// Starts a node that does not run, under its next creation, at its old address.
    ///
    /// # Panics
    ///
    /// If it runs, or does not start.
    pub async fn restart(&self, name: impl Into<NodeName>) {
        let name = name.into();
        self.world.log.note(format_args!("start {name}"));
        self.world.switch_on(name);
        let builder = self.equip(name);
        let (log, on_event) = (self.log(), Arc::clone(&self.on_event));
        let start = async move {
            let node = builder.start().await;
            if let Ok(node) = &node {
                tokio::spawn(tell(node.clone(), log, on_event));
            }
            node
        };
        match self.node(name).on(start).await {
            Some(Ok(node)) => self.world.host(name).node = Some(node),
            Some(Err(error)) => panic!("{name} does not start: {error}"),
            // Crashed while it started.
            None => {}
        }
    }

    /// Stops a node in good order, as [`Node::stop`] does. Its machine goes on, without it, as after
    /// a [`kill`](Self::kill).
    pub async fn stop(&self, name: impl Into<NodeName>) {
        let name = name.into();
        self.world.log.note(format_args!("stop {name}"));
        let stopped = self.node(name).run(|node| async move { node.stop().await }).await;
        if stopped.is_some() {
            self.world.end_process(name);
        }
    }

    /// Stops a machine from doing anything for a while, as a long garbage collection or a suspended
    /// virtual machine does. Packets wait at its socket; afterwards all its timers are late at once.
    pub fn freeze(&self, name: impl Into<NodeName>, span: Duration) {
        let name = name.into();
        self.world.log.note(format_args!("freeze {name} for {span:?}"));
        self.world.stop(name, span);
    }

    /// Makes a machine slow: after whatever it does, it does nothing for this time. Zero makes it
    /// fast again.
    pub fn slow(&self, name: impl Into<NodeName>, pause: Duration) {
        let name = name.into();
        self.world.log.note(format_args!("slow {name} by {pause:?}"));
        self.world.set_pause(name, pause);
    }

    /// Lets a machine's clocks run faster (above 1) or slower than the world's, now and after
    /// restarts.
    pub fn skew(&self, name: impl Into<NodeName>, rate: f64) {
        let name = name.into();
        self.world.log.note(format_args!("skew {name} by {rate}"));
        self.world.set_rate(name, rate);
    }

    /// Puts a machine's time of day ahead, from its next start on.
    pub fn set_ahead(&self, name: impl Into<NodeName>, ahead: Duration) {
        self.world.set_ahead(name.into(), ahead);
    }

    /// Says what a machine's disk is like from now on, also after restarts.
    pub fn set_disk(&self, name: impl Into<NodeName>, state: DiskState) {
        let name = name.into();
        self.world.log.note(format_args!("disk of {name}: {state:?}"));
        self.world.host(name).disk.set(state);
    }

    /// All that a node needs to start on its machine.
    fn equip(&self, name: NodeName) -> NodeBuilder {
        let mut builder = (self.with)(Node::builder()).name(name);
        let seeds = self.names().into_iter().take(SEEDS).filter(|&seed| seed != name);
        for seed in seeds {
            builder = builder.seed(self.world.host(seed).address.to_string());
        }
        let [chance, transport] = [(); 2].map(|()| self.world.number());
        let host = self.world.host(name);
        let machine = host.machine.as_ref().expect("it was switched on");
        let (wall, clock) = (machine.wall_clock(), machine.wall_clock());
        let socket = self.world.network.bind(host.address);
        let environment = environment(socket, Arc::new(move || wall.since_1970()), transport);
        let last = Arc::clone(&host.creation);
        let given = Given {
            wire: WireConfig::Quic { listen: host.address, environment },
            credentials: self.authority.node(name, host.index),
            next: Arc::new(move |at_least| {
                let next = at_least.max(last.load(Ordering::Relaxed) + 1);
                last.store(next, Ordering::Relaxed);
                next
            }),
            disk: Disk::Simulated(host.disk.clone()),
            store: Some(Arc::new(SimulatedStore(host.disk.clone()))),
        };
        builder.given(given).chance(chance).wall_clock(Arc::new(move || clock.now()))
    }
}

/// Puts into the log what a node tells.
async fn tell(node: Node, log: Log, on_event: OnEvent) {
    let mut events = node.0.events.subscribe();
    let name = node.id().name;
    drop(node);
    loop {
        match events.recv().await {
            Ok(what) => {
                log.note(format_args!("{name}: {what:?}"));
                on_event(name, &what);
            }
            Err(RecvError::Lagged(count)) => log.note(format_args!("{name}: {count} missed")),
            Err(RecvError::Closed) => return,
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("seed", &self.seed).finish_non_exhaustive()
    }
}
