//! How a node is put together from what its builder was told: the ground it stands on, then its
//! parts, each given what it needs of the others.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use purlin_cluster::{Config as ClusterConfig, Me, Membership, Owned, owned};
use purlin_proto::admin::What;
use purlin_proto::hello::check_labels;
use purlin_proto::revocation::SignedRevocation;
use purlin_proto::trust::SignedTrust;
use purlin_proto::{NodeHello, NodeId, NodeName, Role};
use purlin_runtime::{Config as RuntimeConfig, Observer, Runtime, Store, StoreError};
use purlin_transport::{
    BindError, Config as TransportConfig, Credentials, Endpoint, Environment, Events, WireConfig,
};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{
    EVENTS, JOIN_PATIENCE, LEAST_DETECT_IN, NodeBuilder, PORT, StartError, WallClock, host_name,
    millis,
};
use crate::application::Applications;
use crate::directory::Directory;
use crate::disk::Disk;
use crate::drain::Draining;
use crate::driver::{Driver, NextCreation};
use crate::entries::Spread;
use crate::events::Ear;
use crate::exclusive::{Exclusive, Settings, Task as ExclusiveTask};
use crate::guard::Guards;
use crate::home::{Home, NodeLock};
use crate::inputs::{Inputs, Told, queues};
use crate::names::Names;
use crate::net::Net;
use crate::node::{Node, Shared};
use crate::renewal::Renewal;
use crate::revoked::Known;
use crate::revoked::spread::Warden;
use crate::router::Router;
use crate::seeds::Seeds;
use crate::silence::Silence;
use crate::store::DiskStore;
use crate::tokens::JoinError;
use crate::tokens::desk::Desk;
use crate::tokens::joining::{Joined, Joining};
use crate::tokens::store::Tokens;
use crate::{children, names, system};

impl NodeBuilder {
    pub(super) async fn start_node(mut self) -> Result<Node, StartError> {
        check_labels(&self.labels).map_err(StartError::Labels)?;
        let name = self.name.unwrap_or_else(host_name);
        let wall = millis(&self.clock);
        if let Some(Given { wire, credentials, next, disk, store }) = self.ground.clone() {
            self.store = self.store.or(store);
            let (creation, net) = (next(wall), Net::shared());
            let (home, revoked, lock) = (None, (Vec::new(), None), None);
            let ground = Ground { credentials, home, revoked, lock, creation, next, net, disk };
            return self.build(name, ground, |_| Ok(wire.clone()));
        }
        let dir = Home::locate(self.data_dir.clone())?;
        self.join(name, dir.clone()).await?;
        let home = Home::open(dir)?;
        let (lock, credentials) = home.node(name)?;
        let creation = lock.next_creation(wall)?;
        let lock = Arc::new(lock);
        self.open_store(&lock).await?;
        // Nobody else has promised anything that it must not forget.
        let disk = match self.takes_part() {
            true => Disk::open(&lock.file("authority.redb"))?,
            false => Disk::default(),
        };
        let keeper = Arc::clone(&lock);
        let clock = Arc::clone(&self.clock);
        let next: NextCreation = Arc::new(move |at_least| {
            let at_least = at_least.max(millis(&clock));
            keeper.next_creation(at_least).unwrap_or_else(|error| {
                tracing::error!(%error, "the creation is not remembered");
                at_least
            })
        });
        let net = Net::own(name.as_str()).map_err(StartError::Thread)?;
        let revoked = (home.revocations()?, home.trust()?);
        let (home, lock) = (Some(home), Some(lock));
        let ground = Ground { credentials, home, revoked, lock, creation, next, net, disk };
        let listen = self.listen_addresses().await?;
        let (net, workers) = (ground.net.handle(), Handle::current());
        let environment = Environment::with_workers(net, &workers, self.busy_wait);
        self.build(name, ground, |attempt| {
            let listen = *listen.get(attempt).ok_or(())?;
            Ok(WireConfig::Quic { listen, environment: environment.clone() })
        })
    }

    /// Gets credentials with the token, if there is one.
    async fn join(&self, name: NodeName, dir: PathBuf) -> Result<(), JoinError> {
        let Some(token) = &self.token else { return Ok(()) };
        let joining = Joining {
            token,
            role: Role::Node,
            name,
            cluster: self.cluster.clone(),
            seeds: &self.seeds,
            resolver: &self.seed_resolver,
            patience: JOIN_PATIENCE,
        };
        match joining.run(dir).await? {
            Joined::Through(seed) => tracing::info!(%name, %seed, "joined with a token"),
            Joined::Before => tracing::debug!(%name, "has credentials, the token is not used"),
        }
        Ok(())
    }

    /// Opens the node's own store, if there is anything to keep and no other to keep it in.
    async fn open_store(&mut self, lock: &NodeLock) -> Result<(), StartError> {
        if self.store.is_none() && self.keyed.any_with_state() {
            let path = lock.file("state.redb");
            let file = path.clone();
            let opened = tokio::task::spawn_blocking(move || DiskStore::open(&file)).await;
            let opened = opened.unwrap_or(Err(StoreError::Closed));
            let store = opened.map_err(|source| StartError::Store { path, source })?;
            self.store = Some(Arc::new(store));
        }
        Ok(())
    }

    /// The addresses to try in turn.
    async fn listen_addresses(&self) -> Result<Vec<SocketAddr>, StartError> {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let Some(address) = &self.listen else {
            return Ok(vec![SocketAddr::new(local, PORT), SocketAddr::new(local, 0)]);
        };
        let bad = |detail: String| StartError::Listen { address: address.clone(), detail };
        let found = tokio::net::lookup_host(address).await.map_err(|e| bad(e.to_string()))?;
        found.take(1).map(Ok).collect::<Result<Vec<_>, _>>().and_then(|list| match list.len() {
            0 => Err(bad("it has no address".to_owned())),
            _ => Ok(list),
        })
    }

    fn runtime(&mut self, id: NodeId, observer: &Observer, inputs: &Inputs) -> Runtime {
        let mut config = RuntimeConfig::new(id);
        config.kinds = std::mem::take(&mut self.kinds);
        config.keyed = self.keyed.clone();
        if let Some(store) = self.store.take() {
            config.store = store;
        }
        config.keys_in_motion = self.keys_in_motion;
        config.observer = Some(Arc::clone(observer));
        config.inflow_bytes = self.inflow_bytes;
        config.resolver = std::mem::take(&mut self.resolver);
        let clock = Arc::clone(&self.clock);
        config.wall_ms = Arc::new(move || millis(&clock));
        let (runtime, changed) = (Runtime::new(config), inputs.clone());
        // The driver ends with the node; then nobody wants to know.
        runtime.on_entries(move || changed.tell(Told::Entries));
        runtime
    }

    fn takes_part(&self) -> bool {
        self.exclusive || self.keyed.any_exclusive()
    }

    fn leases(&self, chance: u64, disk: Disk) -> Settings {
        Settings {
            takes_part: self.takes_part(),
            seeds: !self.seeds.is_empty(),
            expect: self.expect,
            detect_in: self.patience(),
            clock: Arc::clone(&self.clock),
            chance,
            disk,
        }
    }

    fn desk(
        &self,
        ground: &Ground,
        runtime: &Runtime,
        membership: &Arc<OnceLock<Mutex<Membership>>>,
    ) -> Arc<Desk> {
        let (tokens, cluster) = (ground.home.clone().map(Tokens::new), self.cluster.clone());
        let clock = Arc::clone(&self.clock);
        Desk::new(tokens, cluster, runtime.downgrade(), Arc::clone(membership), clock)
    }

    /// Silence for so long is too long.
    fn patience(&self) -> Duration {
        self.detect_in.max(LEAST_DETECT_IN)
    }

    /// Listens where it can: at the first address that is not taken.
    fn bind(
        &self,
        credentials: &Credentials,
        ear: &Arc<dyn Events>,
        wire: impl Fn(usize) -> Result<WireConfig, ()>,
    ) -> Result<Endpoint, StartError> {
        let mut attempt = 0;
        loop {
            let mut config = TransportConfig::new(credentials.clone(), self.cluster.clone());
            config.lane_bytes = self.lane_bytes;
            config.mtu = self.mtu;
            config.window = self.window;
            // Silent links are ended by the driver; see `silence.rs`.
            config.idle_timeout = config.idle_timeout.max(2 * self.patience());
            let Ok(wire) = wire(attempt) else { unreachable!("the last attempt returns") };
            match Endpoint::bind(config, wire, Arc::clone(ear)) {
                Ok(endpoint) => return Ok(endpoint),
                Err(BindError::InUse(address)) if self.listen.is_none() && attempt == 0 => {
                    tracing::debug!(%address, "taken, listening on any free port");
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn build(
        mut self,
        name: NodeName,
        ground: Ground,
        wire: impl Fn(usize) -> Result<WireConfig, ()>,
    ) -> Result<Node, StartError> {
        let id = NodeId::new(name, ground.creation);
        let ((events, _), (inputs, waiting)) = (broadcast::channel(EVENTS), queues());
        let observer = observer(&events);
        let runtime = self.runtime(id, &observer, &inputs);
        let membership = Arc::new(OnceLock::new());
        let guards = Arc::new(Guards::new(std::mem::take(&mut self.clients)));
        let ((exclusive, told), revoked) = (Exclusive::new(), ground.known(&self.clock));
        let names = Arc::new(Names::new(Arc::clone(&exclusive)));
        let takes_part = self.takes_part();
        let desk = self.desk(&ground, &runtime, &membership);
        let ear: Arc<dyn Events> = Arc::new(Ear {
            runtime: runtime.downgrade(),
            membership: Arc::clone(&membership),
            inputs: inputs.clone(),
            hints: Arc::default(),
            desk: Arc::clone(&desk),
            exclusive: Arc::clone(&exclusive),
            guards: Arc::clone(&guards),
            revoked: Arc::clone(&revoked),
        });
        let _net = ground.net.handle().enter();
        let endpoint = self.bind(&ground.credentials, &ear, wire)?;
        let address = self.advertise.unwrap_or_else(|| endpoint.local_address());
        endpoint.set_node(Some(NodeHello { id, address }));

        let (started, patience) = (Instant::now(), self.patience());
        let me = Me { id, address, labels: std::mem::take(&mut self.labels) };
        let seed = self.chance.unwrap_or(ground.creation ^ (u64::from(std::process::id()) << 32));
        let (config, now) = (ClusterConfig { detect_in: patience }, started.elapsed());
        let state = Membership::new(config, me, seed, now);
        assert!(membership.set(Mutex::new(state)).is_ok(), "set once");

        let directory = Arc::new(Directory::new(name));
        let held = (Arc::clone(&exclusive), Arc::clone(&names));
        let router = Router::new(endpoint.clone(), Arc::clone(&directory), held);
        runtime.set_remote(Arc::new(router));
        let leases = ExclusiveTask::new(
            Arc::clone(&exclusive),
            told,
            (endpoint.clone(), Arc::clone(&directory), Arc::clone(&names)),
            (runtime.clone(), Arc::clone(&membership)),
            self.leases(seed, ground.disk),
        );
        let leases = ground.net.handle().spawn(leases.run()).abort_handle();
        let seeds = Arc::new(Mutex::new(Seeds::new(self.seeds)));
        let gathered = Arc::new(watch::Sender::new(1));
        let owned = Owned::new(id, owned::Bounds::default(), seed, now);
        let spread = Spread::new(owned, &endpoint, &runtime, &directory, started);
        let driver = Driver {
            membership: Arc::clone(&membership),
            inputs: waiting,
            shut: Vec::new(),
            endpoint: endpoint.clone(),
            runtime: runtime.clone(),
            directory: Arc::clone(&directory),
            observer,
            next_creation: ground.next,
            seeds: Arc::clone(&seeds),
            seed_resolver: self.seed_resolver,
            gathered: Arc::clone(&gathered),
            start: started,
            silence: Silence::new(patience),
            dialing: BTreeSet::new(),
            dials: JoinSet::new(),
            resolving: JoinSet::new(),
            spread,
            warden: Warden::new(Arc::clone(&revoked), endpoint.clone()),
        };
        let driver = ground.net.handle().spawn(driver.run()).abort_handle();
        let shared = Arc::new(Shared {
            runtime,
            endpoint,
            membership,
            directory,
            inputs,
            events,
            cluster: self.cluster,
            address,
            started,
            leave: watch::Sender::new(false),
            net: ground.net,
            lock: ground.lock,
            driver,
            exclusive,
            names,
            leases,
            clock: self.clock,
            desk,
            guards,
            revoked,
            renewal: Renewal::new(&ground.credentials),
            applications: Applications::new(),
            seeds,
            expects: self.expect,
            detect_in: patience,
            gathered,
            ready: AtomicBool::new(false),
            placed: AtomicUsize::new(0),
            drain: Draining::new(self.drain_limit),
        });
        begin(shared, takes_part)
    }
}

/// Starts the node's own processes.
fn begin(node: Arc<Shared>, takes_part: bool) -> Result<Node, StartError> {
    system::start(&node)?;
    children::start(&node)?;
    if takes_part {
        names::start(&node)?;
    }
    if let Some(lock) = &node.lock {
        lock.running(node.runtime.id(), node.address)?;
    }
    Ok(Node(node))
}

fn observer(events: &broadcast::Sender<What>) -> Observer {
    let publish = events.clone();
    // Nobody may be subscribed.
    Arc::new(move |what| drop(publish.send(what)))
}

/// What a node is given to stand on, where that is not the system's.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) wire: WireConfig,
    pub(crate) credentials: Credentials,
    pub(crate) next: NextCreation,
    pub(crate) disk: Disk,
    /// Where states of keys are kept, unless the program says otherwise.
    pub(crate) store: Option<Arc<dyn Store>>,
}

/// What a node stands on.
struct Ground {
    credentials: Credentials,
    home: Option<Home>,
    /// Certificates that were revoked, and authorities, as far as the directory remembers.
    revoked: (Vec<SignedRevocation>, Option<SignedTrust>),
    lock: Option<Arc<NodeLock>>,
    creation: u64,
    next: NextCreation,
    net: Net,
    disk: Disk,
}

impl Ground {
    /// What is known of revoked certificates from before.
    fn known(&self, clock: &WallClock) -> Arc<Known> {
        let (home, clock) = (self.home.clone(), Arc::clone(clock));
        let (revoked, trust) = self.revoked.clone();
        Known::new(home, revoked, trust, self.credentials.authorities(), clock)
    }
}
