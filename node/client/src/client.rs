//! The handle: sending, calling, monitoring, starting, asking.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use purlin_proto::admin::{
    self, CALL_TIMEOUT, Event, GetStatus, ListGroupMembers, ListMembers, MemberInfo, MemberState,
    Status, Subscribe, WhereIs, WhereIsGlobal,
};
use purlin_proto::session::Request;
use purlin_proto::{
    CallError, Capabilities, Codec, Dest, Down, ExitReason, Group, Message, MessageName, Name,
    NodeName, Payload, Pid, Reference, Refusal, Role, SpawnError,
};
use purlin_transport::{
    BindError, Config, Credentials, Endpoint, Environment, Network, Sent, WireConfig,
};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::connection::{Connection, Ear, SessionMessage, keep_connected};
use crate::renewal;

/// A client has no membership to tell it that its node is dead: silence does, soon.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A time-out beyond what the clock can count never comes; thirty years are as good.
const LONGEST: Duration = Duration::from_hours(30 * 365 * 24);

/// A connection to a cluster. Cheap to clone; ends, in the background, when the last clone is
/// dropped: [`close`](Self::close) waits for the end.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    connection: Arc<Connection>,
    endpoint: Endpoint,
    /// What connects again, and what looks after the certificate.
    keepers: Vec<AbortHandle>,
    /// How long requests may take unless said otherwise.
    patience: Duration,
}

impl Inner {
    fn stop_keepers(&self) {
        self.keepers.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Inner {
    /// The link's own tasks would keep it alive.
    fn drop(&mut self) {
        self.stop_keepers();
        // Without a runtime those tasks are gone too, and the node hears silence.
        if let Ok(runtime) = Handle::try_current() {
            let endpoint = self.endpoint.clone();
            runtime.spawn(async move { endpoint.close(&Refusal::Stopping).await });
        }
    }
}

/// The UDP payload that a frame of Ethernet has room for, less what tunnels mostly take.
const ETHERNET: u16 = 1_452;

/// How a client connects.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    seeds: Vec<String>,
    cluster: Name,
    timeout: Duration,
    call_timeout: Duration,
    memory: Option<(Network, SocketAddr)>,
    renewal: bool,
    mtu: u16,
}

/// Why a client is not connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No node could be reached, or none would have us.
    #[error("no node could be reached: {}", failures.join("; "))]
    NoNode {
        /// What happened at each address.
        failures: Vec<String>,
    },
    /// No local socket could be had, or the credentials cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// What [`Client::spawn`] may be told besides kind and arguments.
#[derive(Debug, Clone, Default)]
pub struct SpawnOptions {
    /// The name to register it under.
    pub name: Option<Name>,
    /// The node it is to run on; the connected one unless said otherwise.
    pub on: Option<NodeName>,
    /// How long its start may take; 5 s unless said otherwise.
    pub timeout: Option<Duration>,
}

impl ClientBuilder {
    /// The cluster's name; `purlin` unless said otherwise.
    #[must_use]
    pub fn cluster(mut self, cluster: impl Into<Name>) -> Self {
        self.cluster = cluster.into();
        self
    }

    /// How long the first connection may take; 5 s unless said otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long calls and other requests may take unless they say otherwise; 5 s if this is not
    /// said.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Whether the client has its certificate made anew when a quarter of its time is left, and keeps
    /// it in the directory that the credentials were read from; it does unless said otherwise.
    /// Without such a directory, or if it cannot be written, the new certificate is used until the
    /// program ends.
    #[must_use]
    pub fn renewal(mut self, renewal: bool) -> Self {
        self.renewal = renewal;
        self
    }

    /// The largest UDP payload that is tried, 1,200 to 65,527 bytes; 1,452 unless said otherwise, as
    /// Ethernet has room for. One that moves much data by loopback or jumbo frames may take
    /// [`MTU`](purlin_transport::MTU), as nodes do. Each connection begins with some probes up to that
    /// size, which cost both sides half as much as everything else that is done for it.
    #[must_use]
    pub fn mtu(mut self, bytes: u16) -> Self {
        self.mtu = bytes;
        self
    }

    /// Connects over a network in memory instead, for tests.
    #[must_use]
    pub fn memory(mut self, network: Network, address: SocketAddr) -> Self {
        self.memory = Some((network, address));
        self
    }

    /// Connects to the first node that answers.
    pub async fn connect(self, credentials: Credentials) -> Result<Client, ConnectError> {
        let certified = credentials.certified();
        let bound = certified.identity.role == Role::Client && !certified.permissions.is_partial();
        let connection = Connection::new(self.seeds, bound.then(|| certified.permissions.clone()));
        let renewal = self.renewal.then(|| credentials.clone());
        let mut config = Config::new(credentials, self.cluster);
        (config.idle_timeout, config.keep_alive) = (IDLE_TIMEOUT, KEEP_ALIVE);
        (config.capabilities, config.mtu) = (Capabilities::PERMITTED, self.mtu);
        let bind = |wire| {
            let ear = Arc::new(Ear(Arc::downgrade(&connection)));
            Endpoint::bind(config.clone(), wire, ear)
        };
        let endpoint = match self.memory {
            Some((network, address)) => bind(WireConfig::Memory { network, address })?,
            None => {
                let quic = |ip| {
                    let listen = SocketAddr::new(ip, 0);
                    bind(WireConfig::Quic { listen, environment: Environment::system() })
                };
                // Reaches nodes of both kinds; where there is no IPv6, those that can be reached.
                quic(Ipv6Addr::UNSPECIFIED.into())
                    .or_else(|_| quic(Ipv4Addr::UNSPECIFIED.into()))?
            }
        };
        connection
            .try_all(&endpoint, Instant::now() + self.timeout)
            .await
            .map_err(|failures| ConnectError::NoNode { failures })?;
        let keeper = tokio::spawn(keep_connected(Arc::downgrade(&connection), endpoint.clone()));
        let patience = self.call_timeout;
        Ok(Client(Arc::new_cyclic(|inner| {
            let renewer = renewal
                .map(|credentials| tokio::spawn(renewal::keep(Weak::clone(inner), credentials)));
            let keepers = [Some(keeper), renewer].into_iter().flatten();
            let keepers = keepers.map(|keeper| keeper.abort_handle()).collect();
            Inner { connection, endpoint, keepers, patience }
        })))
    }
}

impl Client {
    /// Connects to the first of these nodes (`HOST:PORT`) that answers, within 5 s.
    ///
    /// All addresses of a host are tried, in turn but without waiting long for one that is silent. If the connection is lost later, the client connects
    /// again by itself, to any of them or to another member it has learned of.
    pub async fn connect(
        seeds: impl IntoIterator<Item = impl Into<String>>,
        credentials: Credentials,
    ) -> Result<Self, ConnectError> {
        Self::builder(seeds).connect(credentials).await
    }

    /// As [`connect`](Self::connect), with more to say.
    pub fn builder(seeds: impl IntoIterator<Item = impl Into<String>>) -> ClientBuilder {
        ClientBuilder {
            seeds: seeds.into_iter().map(Into::into).collect(),
            cluster: Name::new("purlin").expect("a name"),
            timeout: Duration::from_secs(5),
            call_timeout: CALL_TIMEOUT,
            memory: None,
            renewal: true,
            mtu: ETHERNET,
        }
    }

    /// Ends the connection in good order: what was sent is delivered, and the node knows at once.
    /// That is given up when nothing gets through for 2 s, and after 30 s. For all clones. A program
    /// that ends without waiting for it may lose what it sent last, and its node notices after some
    /// seconds of silence.
    pub async fn close(&self) {
        self.0.stop_keepers();
        self.0.endpoint.close(&Refusal::Stopping).await;
    }

    /// The address of the node that it is connected to; `None` while it is looking for one.
    pub fn connected_to(&self) -> Option<SocketAddr> {
        self.0.connection.address()
    }

    /// The pid of its session: messages sent to it reach [`events`](Self::events). It changes with
    /// each connection; `None` while there is none.
    pub fn session(&self) -> Option<Pid> {
        *self.0.connection.session().borrow()
    }

    /// Shows other credentials from the next connection on.
    pub(crate) fn show(&self, credentials: &Credentials) -> Result<(), String> {
        self.0.endpoint.set_credentials(credentials).map_err(|error| error.to_string())
    }

    /// Waits for a connection until the deadline.
    async fn connected(&self, deadline: Instant) -> bool {
        let mut session = self.0.connection.session();
        let wait = session.wait_for(Option::is_some);
        tokio::time::timeout_at(deadline, wait).await.is_ok_and(|found| found.is_ok())
    }

    /// As [`request`](Self::request), for one that the node does not answer.
    async fn tell(&self, request: &Request, deadline: Instant) -> Result<(), CallError> {
        sent(self.request(request, deadline).await)?;
        match self.0.connection.forbidden(request) {
            Some(what) => Err(CallError::Forbidden { what }),
            None => Ok(()),
        }
    }

    /// Hands a request to the link, waiting while its queue is full, until the deadline.
    async fn request(&self, request: &Request, deadline: Instant) -> Sent {
        let connection = &self.0.connection;
        loop {
            match connection.request(request) {
                Sent::Full => {
                    let room = tokio::time::timeout_at(deadline, connection.ready()).await;
                    if room.is_err() {
                        return Sent::Full;
                    }
                }
                other => return other,
            }
        }
    }

    /// Sends a message. If there is no connection it waits for one, 5 s at most
    /// ([`ClientBuilder::call_timeout`]). Once accepted it may be lost in all cases in which a
    /// process's message would be; also if it is for a pid, and the client's certificate allows only
    /// processes of some kinds, of which this is none ([`Permission`](purlin_proto::Permission)).
    pub async fn send<M: Message>(&self, to: impl Into<Dest>, message: M) -> Result<(), CallError> {
        let payload = encode(&message)?;
        self.send_raw(to, MessageName::of::<M>(), payload).await
    }

    /// As [`send`](Self::send), for a message in its encoded form.
    pub async fn send_raw(
        &self,
        to: impl Into<Dest>,
        message: MessageName,
        payload: Payload,
    ) -> Result<(), CallError> {
        let to = to.into();
        let deadline = Instant::now() + self.0.patience;
        if !self.connected(deadline).await {
            return Err(CallError::NoConnection);
        }
        self.tell(&Request::Send { to, message, payload }, deadline).await
    }

    /// Calls a process and waits for its reply, 5 s at most ([`ClientBuilder::call_timeout`]).
    ///
    /// When the connection is lost meanwhile it ends with
    /// [`NoConnection`](CallError::NoConnection): the message may have been handled or not.
    pub async fn call<M: Message>(
        &self,
        to: impl Into<Dest>,
        message: M,
    ) -> Result<M::Reply, CallError> {
        self.call_timeout(to, message, self.0.patience).await
    }

    /// As [`call`](Self::call), with another timeout.
    pub async fn call_timeout<M: Message>(
        &self,
        to: impl Into<Dest>,
        message: M,
        timeout: Duration,
    ) -> Result<M::Reply, CallError> {
        let payload = encode(&message)?;
        let reply = self.call_raw(to, MessageName::of::<M>(), payload, timeout).await?;
        reply.decode().map_err(|error| CallError::Decode { detail: format!("reply: {error}") })
    }

    /// As [`call`](Self::call), for a message in its encoded form; the reply has the same codec.
    pub async fn call_raw(
        &self,
        to: impl Into<Dest>,
        message: MessageName,
        payload: Payload,
        timeout: Duration,
    ) -> Result<Payload, CallError> {
        let to = to.into();
        let deadline = Instant::now() + timeout.min(LONGEST);
        if !self.connected(deadline).await {
            return Err(CallError::NoConnection);
        }
        let connection = &self.0.connection;
        let reference = connection.reference();
        let reply = connection.expect_reply(reference);
        let _forget = Forget { connection, reference };
        let remaining = deadline.saturating_duration_since(Instant::now());
        let request = Request::Call { reference, to, remaining, message, payload };
        sent(self.request(&request, deadline).await)?;
        answer(reply, deadline).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Monitors a process or name: one [`Down`] comes when it ends, cannot be reached, or the
    /// client's own connection is lost.
    pub async fn monitor(&self, target: impl Into<Dest>) -> Result<Monitor, CallError> {
        let target = target.into();
        let deadline = Instant::now() + self.0.patience;
        if !self.connected(deadline).await {
            return Err(CallError::NoConnection);
        }
        let connection = &self.0.connection;
        let reference = connection.reference();
        let down = connection.expect_down(reference, target.clone());
        let request = Request::Monitor { reference, target: target.clone() };
        let asked = self.tell(&request, deadline).await;
        if let Err(error) = asked {
            connection.forget(reference);
            return Err(error);
        }
        Ok(Monitor { client: self.clone(), reference, target, down })
    }

    /// Starts a process of a kind by its name.
    pub async fn spawn(
        &self,
        kind: Name,
        args: Payload,
        options: SpawnOptions,
    ) -> Result<Pid, SpawnError> {
        let timeout = options.timeout.unwrap_or(self.0.patience);
        let deadline = Instant::now() + timeout.min(LONGEST);
        if !self.connected(deadline).await {
            return Err(SpawnError::NoConnection);
        }
        let connection = &self.0.connection;
        let reference = connection.reference();
        let spawned = connection.expect_spawned(reference);
        let _forget = Forget { connection, reference };
        let SpawnOptions { name, on, .. } = options;
        let remaining = deadline.saturating_duration_since(Instant::now());
        let request = Request::Spawn { reference, kind, args, name, on, remaining };
        match self.request(&request, deadline).await {
            Sent::Accepted => {}
            Sent::Full => return Err(SpawnError::Overloaded),
            Sent::Unreachable => return Err(SpawnError::NoConnection),
            Sent::NotEncodable => {
                return Err(SpawnError::Args { detail: "larger than a frame may be".to_owned() });
            }
        }
        answer(spawned, deadline).await.unwrap_or(Err(SpawnError::Timeout))
    }

    /// Asks a process to end.
    pub async fn exit(&self, target: impl Into<Dest>, reason: ExitReason) -> Result<(), CallError> {
        let target = target.into();
        let deadline = Instant::now() + self.0.patience;
        if !self.connected(deadline).await {
            return Err(CallError::NoConnection);
        }
        self.tell(&Request::Exit { target, reason }, deadline).await
    }

    /// The process that has this name, on the connected node or another.
    pub async fn whereis(
        &self,
        name: Name,
        node: Option<NodeName>,
    ) -> Result<Option<Pid>, CallError> {
        self.call(system(node), WhereIs { name }).await
    }

    /// The process that has a global name, as the connected node knows it.
    pub async fn whereis_global(&self, name: impl Into<Name>) -> Result<Option<Pid>, CallError> {
        self.call(system(None), WhereIsGlobal { name: name.into() }).await
    }

    /// The members of a group on all nodes, each as often as it has joined, as the connected node
    /// sees them; a page of them, if there are very many.
    pub async fn members_of(&self, group: impl Into<Group>) -> Result<Vec<Pid>, CallError> {
        let asked = ListGroupMembers { group: group.into(), after: None };
        let members = self.call(system(None), asked).await?;
        let pids = members.iter().map(|m| std::iter::repeat_n(m.pid, m.joined as usize));
        Ok(pids.flatten().collect())
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Hands on a request, when there is a connection.
    pub(crate) async fn ask(&self, request: &Request) -> Result<(), CallError> {
        let deadline = Instant::now() + self.0.patience;
        if !self.connected(deadline).await {
            return Err(CallError::NoConnection);
        }
        self.tell(request, deadline).await
    }

    /// What comes to the session, from now on.
    pub(crate) fn messages(&self) -> broadcast::Receiver<SessionMessage> {
        self.0.connection.messages()
    }

    /// The pid of the session, as it changes.
    pub(crate) fn sessions(&self) -> watch::Receiver<Option<Pid>> {
        self.0.connection.session()
    }

    /// The members, as the connected node sees them.
    pub async fn members(&self) -> Result<Vec<MemberInfo>, CallError> {
        let members = self.call(system(None), ListMembers).await?;
        let live = members.iter().filter(|m| m.state == MemberState::Up);
        self.0.connection.learn(live.map(|member| member.address));
        Ok(members)
    }

    /// How the connected node is.
    pub async fn status(&self) -> Result<Status, CallError> {
        self.call(system(None), GetStatus).await
    }

    /// What happens on these nodes from now on: members up and down, crashes, restarts, names. On
    /// the connected one if none is named.
    ///
    /// Ends with the connection. [`Events::also`] adds nodes later.
    pub async fn events(
        &self,
        nodes: impl IntoIterator<Item = NodeName>,
    ) -> Result<Events, CallError> {
        let messages = self.0.connection.messages();
        let mut nodes: Vec<_> = nodes.into_iter().map(Some).collect();
        if nodes.is_empty() {
            nodes.push(None);
        }
        let subscriber = self.session().ok_or(CallError::NoConnection)?;
        let events = Events { client: self.clone(), session: subscriber, messages };
        for node in nodes {
            events.also(node).await?;
        }
        Ok(events)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("connected_to", &self.connected_to()).finish_non_exhaustive()
    }
}

/// A monitor of a client. Dropping it takes it back.
#[derive(Debug)]
pub struct Monitor {
    client: Client,
    reference: Reference,
    target: Dest,
    down: oneshot::Receiver<Down>,
}

impl Monitor {
    /// Waits for the one notice.
    pub async fn down(mut self) -> Down {
        match (&mut self.down).await {
            Ok(down) => down,
            // Only when the client's own tasks are being torn down.
            Err(_) => Down {
                reference: self.reference,
                target: self.target.clone(),
                reason: ExitReason::NoConnection,
            },
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let connection = &self.client.0.connection;
        if connection.forget(self.reference) {
            let request = Request::Demonitor { reference: self.reference };
            // Without a connection there is no monitor either; if the queue is full, a notice will
            // come that nobody waits for.
            let _ = connection.request(&request);
        }
    }
}

/// Events of nodes, as they come.
#[derive(Debug)]
pub struct Events {
    client: Client,
    session: Pid,
    messages: broadcast::Receiver<SessionMessage>,
}

impl Events {
    /// From now on also what happens on this node; on the connected one if it is `None`. What it
    /// returns does not borrow from here, so that it can go on while events are taken.
    pub fn also(
        &self,
        node: Option<NodeName>,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<> {
        let (client, subscriber) = (self.client.clone(), self.session);
        async move { client.call(system(node), Subscribe { subscriber }).await }
    }

    /// The next event; `None` when the connection has been lost. Cancel safe.
    ///
    /// A reader that is too slow gets [`admin::What::Missed`], with their number, in place of the
    /// events that it missed.
    pub async fn next(&mut self) -> Option<Event> {
        let mut session = self.client.0.connection.session();
        loop {
            tokio::select! {
                biased;
                message = self.messages.recv() => match message {
                    Ok((name, payload)) if name.as_str() == Event::NAME => {
                        match payload.decode() {
                            Ok(event) => return Some(event),
                            Err(error) => tracing::debug!(%error, "malformed event"),
                        }
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(count)) => {
                        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                        let at_ms = now.map_or(0, |now| now.as_millis());
                        return Some(Event {
                            at_ms: u64::try_from(at_ms).unwrap_or(u64::MAX),
                            node: self.session.node.name,
                            what: admin::What::Missed { count },
                        });
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                _ = session.wait_for(|present| *present != Some(self.session)) => return None,
            }
        }
    }
}

/// Forgets what a request waits for, when it has its answer or has given up.
struct Forget<'a> {
    connection: &'a Connection,
    reference: Reference,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.connection.forget(self.reference);
    }
}

async fn answer<T>(receiver: oneshot::Receiver<T>, deadline: Instant) -> Option<T> {
    tokio::time::timeout_at(deadline, receiver).await.ok()?.ok()
}

fn sent(sent: Sent) -> Result<(), CallError> {
    match sent {
        Sent::Accepted => Ok(()),
        Sent::Full => Err(CallError::Overloaded),
        Sent::Unreachable => Err(CallError::NoConnection),
        Sent::NotEncodable => Err(CallError::Decode {
            detail: "the message is larger than a frame may be".to_owned(),
        }),
    }
}

fn encode<M: Message>(message: &M) -> Result<Payload, CallError> {
    Payload::encode(Codec::Bincode, message)
        .map_err(|error| CallError::Decode { detail: error.to_string() })
}

/// The system process of a node.
pub(crate) fn system(node: Option<NodeName>) -> Dest {
    let name = Name::new(admin::SYSTEM).expect("a name");
    match node {
        None => Dest::Local(name),
        Some(node) => Dest::Remote(name, node),
    }
}
