//! From settings to a running node.

mod assembly;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use purlin_proto::{GrantedPermissions, Labels, Name, NodeName, SpawnError};
use purlin_runtime::{
    Actor, KEYS_IN_MOTION, Keyed, KeyedActor, KeyedKinds, Kinds, Resolver, Stateful, Store,
    StoreError, Supervisor,
};
use purlin_transport::{BindError, Credentials, Network, WireConfig};

use crate::disk::{Disk, DiskError};
use crate::drain::DRAIN_LIMIT;
use crate::driver::NextCreation;
use crate::home::HomeError;
use crate::node::Node;
use crate::seeds::{SeedResolver, system_resolver};
use crate::tokens::{JoinError, Token};

pub(crate) use assembly::Given;

/// How long a node tries to join with a token.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);

/// The port that a node listens on unless it is told otherwise.
pub(crate) const PORT: u16 = 7400;

/// Faster than that membership would mistake a busy machine for a dead one.
const LEAST_DETECT_IN: Duration = Duration::from_secs(1);

/// Longer than this there is no gain: so long takes no thread to wake.
const LONGEST_BUSY_WAIT: Duration = Duration::from_millis(1);

/// Events that a slow subscriber may be behind.
const EVENTS: usize = 4_096;

/// What a node is to be; made by [`Node::builder`].
///
/// ```no_run
/// # async fn example() -> Result<(), purlin::StartError> {
/// use std::time::Duration;
/// use purlin::Node;
///
/// let node = Node::builder()
///     .name("b")
///     .listen("0.0.0.0:7400")
///     .seed("10.0.0.1:7400")
///     .detect_in(Duration::from_secs(5))
///     .start()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NodeBuilder {
    pub(crate) name: Option<NodeName>,
    pub(crate) cluster: Name,
    pub(crate) listen: Option<String>,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) seeds: Vec<String>,
    seed_resolver: SeedResolver,
    pub(crate) token: Option<Token>,
    pub(crate) expect: usize,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) labels: Labels,
    pub(crate) detect_in: Duration,
    pub(crate) kinds: Kinds,
    keyed: KeyedKinds,
    exclusive: bool,
    store: Option<Arc<dyn Store>>,
    keys_in_motion: usize,
    drain_limit: Duration,
    applications: Vec<(Name, Supervisor)>,
    ground: Option<Given>,
    clock: WallClock,
    chance: Option<u64>,
    resolver: Resolver,
    pub(crate) inflow_bytes: usize,
    pub(crate) lane_bytes: usize,
    pub(crate) mtu: u16,
    pub(crate) window: u32,
    pub(crate) busy_wait: Duration,
    clients: GrantedPermissions,
}

/// Tells the time of day: for creations, and for the times of events.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// It was not taken in with its token.
    #[error("not joined: {0}")]
    Join(#[from] JoinError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What this node has promised to other nodes cannot be read.
    #[error("authority.redb in the node's data directory cannot be used: {0}")]
    Disk(#[from] DiskError),
    /// The address to listen on is not one.
    #[error("cannot listen on {address:?}: {detail}; give HOST:PORT, as in 127.0.0.1:7400")]
    Listen {
        /// What was given.
        address: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The labels are too many or too long.
    #[error("{0}")]
    Labels(String),
    /// The states of its keyed processes cannot be read.
    #[error("{path}: {source}")]
    Store {
        /// The file they are in.
        path: PathBuf,
        /// What is wrong with it.
        source: StoreError,
    },
    /// The network's thread cannot be started.
    #[error("cannot start the network's thread: {0}")]
    Thread(std::io::Error),
    /// An application did not start; those before it were stopped, and the node.
    #[error("the application {name} did not start: {source}")]
    Application {
        /// Its name.
        name: Name,
        /// Why.
        source: SpawnError,
    },
    /// The node's own processes did not start.
    #[error("the node's own processes did not start: {0}")]
    System(String),
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            name: None,
            cluster: Name::new("purlin").expect("a name"),
            listen: None,
            advertise: None,
            seeds: Vec::new(),
            seed_resolver: system_resolver(),
            token: None,
            expect: 1,
            data_dir: None,
            labels: Labels::new(),
            detect_in: Duration::from_secs(5),
            kinds: Kinds::default(),
            keyed: KeyedKinds::default(),
            exclusive: false,
            store: None,
            keys_in_motion: KEYS_IN_MOTION,
            drain_limit: DRAIN_LIMIT,
            applications: Vec::new(),
            ground: None,
            clock: Arc::new(SystemTime::now),
            chance: None,
            resolver: Resolver::default(),
            inflow_bytes: purlin_runtime::INFLOW_BYTES,
            lane_bytes: purlin_transport::LANE_BYTES,
            mtu: purlin_transport::MTU,
            window: purlin_transport::WINDOW,
            busy_wait: purlin_transport::BUSY_WAIT,
            clients: GrantedPermissions::default(),
        }
    }
}

impl NodeBuilder {
    /// Its name, unique in the cluster; the host's name unless said otherwise.
    #[must_use]
    pub fn name(mut self, name: impl Into<NodeName>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The cluster it belongs to; `purlin` unless said otherwise.
    #[must_use]
    pub fn cluster(mut self, cluster: impl Into<Name>) -> Self {
        self.cluster = cluster.into();
        self
    }

    /// Where it listens, `HOST:PORT`; port 0 for any free one. Unless said otherwise,
    /// 127.0.0.1:7400, or any free port if that is taken.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Where others reach it, if that is not where it listens.
    #[must_use]
    pub fn advertise(mut self, address: SocketAddr) -> Self {
        self.advertise = Some(address);
        self
    }

    /// Adds a seed, `HOST:PORT`, through which it finds the others. All addresses of the host are
    /// tried, again and again.
    #[must_use]
    pub fn seed(mut self, address: impl Into<String>) -> Self {
        self.seeds.push(address.into());
        self
    }

    /// How the addresses of seeds are found; by the system's resolver unless said otherwise. It is
    /// asked every half minute, every 3 s while the node is alone, and may take 10 s. When it fails
    /// the addresses found before are kept.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use std::sync::Arc;
    ///
    /// let node = purlin::Node::builder().seed("everyone:7400").seed_resolver(Arc::new(|_| {
    ///     Box::pin(async { Ok(vec![SocketAddr::from(([10, 0, 0, 1], 7400))]) })
    /// }));
    /// ```
    #[must_use]
    pub fn seed_resolver(mut self, resolver: SeedResolver) -> Self {
        self.seed_resolver = resolver;
        self
    }

    /// Joins with a token that was made by `purlin token create` on another machine, through one of
    /// the seeds, before it starts; for that it tries 30 s. Once it has its credentials the token is
    /// not used again.
    ///
    /// ```no_run
    /// # async fn example(token: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let node = purlin::Node::builder().seed("10.0.0.1:7400").token(token.parse()?).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// How many members it must see at once, itself included, before it is ready; 1 unless said
    /// otherwise. Until then its applications do not start and [`start`](Self::start) does not
    /// return; it waits without a limit and says so every 10 s. It is a member meanwhile, since the
    /// others wait for it as well. OTP: `sync_nodes_mandatory`.
    #[must_use]
    pub fn expect(mut self, members: usize) -> Self {
        self.expect = members.max(1);
        self
    }

    /// Where credentials are kept; `$PURLIN_HOME` or `~/.purlin` unless said otherwise.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Adds a label, for people and placement.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Within this time a silent member is declared down; 5 s unless said otherwise, 1 s at least.
    /// After as long a silent connection to a node that is still a member ends with `noconnection`.
    #[must_use]
    pub fn detect_in(mut self, detect_in: Duration) -> Self {
        self.detect_in = detect_in;
        self
    }

    /// Adds a kind of actor that can be started here by name, from anywhere.
    #[must_use]
    pub fn actor<A: Actor>(mut self) -> Self {
        self.kinds = self.kinds.with::<A>();
        self
    }

    /// As [`actor`](Self::actor), for a kind whose state goes along when a child of a cluster supervisor
    /// is moved to another node; see [`Stateful`].
    ///
    /// ```
    /// use purlin::Node;
    /// use purlin::kinds::Counter;
    ///
    /// let node = Node::builder().movable::<Counter>();
    /// ```
    #[must_use]
    pub fn movable<A: Stateful>(mut self) -> Self {
        self.kinds = self.kinds.with_state::<A>();
        self
    }

    /// Makes a kind of actor a keyed one, of which there is one process for each key that is used;
    /// see [`Node::keyed`]. Every node of the cluster is to have it, for any may own a key.
    ///
    /// ```
    /// use std::time::Duration;
    /// use purlin::kinds::Counter;
    /// use purlin::{Keyed, Node};
    ///
    /// let idle = Duration::from_mins(2);
    /// let node = Node::builder().keyed::<Counter>(Keyed::new().passivate_after(idle));
    /// ```
    #[must_use]
    pub fn keyed<A: KeyedActor>(mut self, keyed: Keyed) -> Self {
        self.keyed = self.keyed.with::<A>(keyed);
        self
    }

    /// As [`keyed`](Self::keyed), for a kind whose state outlives its processes and moves with its
    /// keys; see [`Stateful`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use purlin::kinds::Counter;
    /// use purlin::{Keyed, Node};
    ///
    /// let idle = Duration::from_mins(2);
    /// let node = Node::builder().stateful::<Counter>(Keyed::new().passivate_after(idle));
    /// ```
    #[must_use]
    pub fn stateful<A: Stateful + KeyedActor>(mut self, keyed: Keyed) -> Self {
        self.keyed = self.keyed.with_state::<A>(keyed);
        self
    }

    /// Lets the node take part in deciding what may run only once: it renews a lease, and may be one
    /// of the voters. A node with an exclusive keyed kind does so anyway; one without, whose
    /// processes are to have exclusive global names, or on which exclusive children of cluster
    /// supervisors are to run, must be told.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Where the states of keyed processes are kept. Unless said otherwise that is a file in the
    /// node's data directory, on its own disk: after a crash of the node, a key starts elsewhere
    /// without what is there. A store that all nodes share has it.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// How long [`Node::drain`] takes at most, and `purlin start` when it is told to end: 20 s unless
    /// said otherwise. Then the node leaves with what is still there.
    #[must_use]
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = limit;
        self
    }

    /// How many keys this node hands over at once when they get other owners; 32 unless said
    /// otherwise.
    #[must_use]
    pub fn keys_in_motion(mut self, keys: usize) -> Self {
        self.keys_in_motion = keys;
        self
    }

    /// Adds a tree that starts and stops with the node (OTP: an application).
    ///
    /// Several start in the order they are given and stop in reverse. If one cannot be started, the
    /// node does not start. If one ends later because its root has given up, see
    /// [`Node::application_ended`].
    #[must_use]
    pub fn application(mut self, name: impl Into<Name>, root: Supervisor) -> Self {
        self.applications.push((name.into(), root));
        self
    }

    /// Puts the node into a network in memory instead, on the present tokio runtime: for tests,
    /// also on paused time.
    #[must_use]
    pub fn memory(self, network: Network, address: SocketAddr, credentials: Credentials) -> Self {
        let wire = WireConfig::Memory { network, address };
        let (next, disk): (NextCreation, _) = (Arc::new(|at_least| at_least), Disk::default());
        self.given(Given { wire, credentials, next, disk, store: None })
    }

    /// Puts the node on made-up ground instead of the system's, on the present tokio runtime.
    pub(crate) fn given(mut self, ground: Given) -> Self {
        self.ground = Some(ground);
        self
    }

    /// The clock it tells the time of day by; the system's unless said otherwise. Timers follow
    /// tokio's.
    #[must_use]
    pub fn wall_clock(mut self, clock: WallClock) -> Self {
        self.clock = clock;
        self
    }

    /// What messages of each other node may take up in mailboxes here, in bytes; 256 MiB unless said
    /// otherwise. Beyond that the other node's senders wait, or their messages are dropped and
    /// counted.
    #[must_use]
    pub fn inflow_bytes(mut self, bytes: usize) -> Self {
        self.inflow_bytes = bytes;
        self
    }

    /// What may wait to be sent in each of the four lanes to another node, in bytes; 4 MiB unless
    /// said otherwise. Beside it, up to four times as much of messages larger than 64 KiB, and the
    /// one that exceeds it.
    #[must_use]
    pub fn lane_bytes(mut self, bytes: usize) -> Self {
        self.lane_bytes = bytes;
        self
    }

    /// The largest UDP payload that is tried on the way to another node, 1,200 to 65,527 bytes;
    /// 8,952 unless said otherwise, which is right for jumbo frames and loopback. What the way does
    /// not carry is found out and not used.
    #[must_use]
    pub fn mtu(mut self, bytes: u16) -> Self {
        self.mtu = bytes.clamp(1_200, 65_527);
        self
    }

    /// Bytes of one stream to another node that may be under way; 256 KiB unless said otherwise. It
    /// bounds what a small message may find before it on the wire; large messages have two streams. A
    /// stream carries one window for each round trip: between data centres, the bandwidth wanted
    /// times the round trip is better.
    #[must_use]
    pub fn window(mut self, bytes: u32) -> Self {
        self.window = bytes.max(16 << 10);
        self
    }

    /// How long a worker goes on looking for packets before it sleeps; 50 µs unless said otherwise, zero
    /// turns it off. It saves waking a thread for each packet where the next one is near, at both ends;
    /// where the last ones were not, the worker sleeps at once. It gives its core to whoever else
    /// wants it, but a quota of processor time counts it as used. (OTP's `erl +sbwt`.)
    #[must_use]
    pub fn busy_wait(mut self, limit: Duration) -> Self {
        self.busy_wait = limit.min(LONGEST_BUSY_WAIT);
        self
    }

    /// What clients that are connected to this node may do, by their names, whatever their
    /// certificates say; nothing is said of any unless it is said here. Operators are not concerned.
    ///
    /// ```
    /// use purlin::Node;
    /// use purlin::proto::{GrantedPermissions, Permissions};
    ///
    /// let mut clients = GrantedPermissions::default();
    /// clients.add("shop-*", Permissions::new(vec!["call:global:shop".parse()?])?)?;
    /// let node = Node::builder().clients(clients);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn clients(mut self, granted: GrantedPermissions) -> Self {
        self.clients = granted;
        self
    }

    /// Which of two holders of a global name is kept, when there turn out to be two; the oldest
    /// unless said otherwise. All nodes should have the same.
    #[must_use]
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// Seeds what membership leaves to chance; different for each life of each node unless said
    /// otherwise.
    #[must_use]
    pub fn chance(mut self, seed: u64) -> Self {
        self.chance = Some(seed);
        self
    }

    /// Starts it. Returns when it listens, sees as many members as it [expects](Self::expect), and
    /// its applications run; finding the others goes on.
    ///
    /// Its processes run on the present tokio runtime. Not cancel safe: a node that is given up
    /// while it waits for others stays a member until the program ends.
    pub async fn start(self) -> Result<Node, StartError> {
        let (node, applications) = self.begin().await?;
        node.gathered().await;
        node.begin_applications(applications).await?;
        Ok(node)
    }

    /// Starts it as far as that can be done alone; what is left of it comes when it has
    /// [gathered](Node::gathered).
    pub(crate) async fn begin(mut self) -> Result<(Node, Vec<(Name, Supervisor)>), StartError> {
        let applications = std::mem::take(&mut self.applications);
        Ok((self.start_node().await?, applications))
    }
}

/// Milliseconds since 1970.
pub(crate) fn millis(clock: &WallClock) -> u64 {
    let since_1970 = clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// The host's name, as far as it is a node name.
pub(crate) fn host_name() -> NodeName {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let short = name.trim().split('.').next().unwrap_or_default();
    let name: String =
        short.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
    NodeName::new(name.trim_start_matches('-')).unwrap_or_else(|_| "node".into())
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .field("listen", &self.listen)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}
