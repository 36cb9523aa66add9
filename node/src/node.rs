//! A running node.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use purlin_cluster::{Input, Member, Membership, Ring, State};
use purlin_proto::admin::What;
use purlin_proto::{
    CallError, Dest, ExitReason, Gauge, Group, Key, Message, Name, NodeId, NodeName, Pid,
    Placement, Refusal, SpawnError,
};
use purlin_runtime::{Actor, GlobalError, KeyedActor, Ref, Runtime, Supervisor, SupervisorRef};
use purlin_transport::Endpoint;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;

use crate::application::{Applications, Ended as ApplicationEnded};
use crate::builder::{NodeBuilder, StartError, WallClock};
use crate::directory::Directory;
use crate::drain::Draining;
use crate::exclusive::Exclusive;
use crate::guard::Guards;
use crate::home::NodeLock;
use crate::inputs::{Inputs, Told};
use crate::names::Names;
use crate::net::Net;
use crate::renewal::Renewal;
use crate::revoked::Known;
use crate::seeds::Seeds;
use crate::tokens::desk::Desk;

/// How often a node that waits for others says so.
const WAITING_EVERY: Duration = Duration::from_secs(10);

/// So many labels are told to whom asks for others.
const LABELS_TOLD: usize = 50;

/// How long the processes of a node may take to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A running node: its processes, and its place in the cluster. Cheap to clone.
///
/// Dropping it does not stop it; [`stop`](Self::stop) does.
#[derive(Clone)]
pub struct Node(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) runtime: Runtime,
    pub(crate) endpoint: Endpoint,
    pub(crate) membership: Arc<OnceLock<Mutex<Membership>>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) inputs: Inputs,
    pub(crate) events: broadcast::Sender<What>,
    pub(crate) cluster: Name,
    pub(crate) address: SocketAddr,
    pub(crate) started: Instant,
    pub(crate) leave: watch::Sender<bool>,
    pub(crate) net: Net,
    pub(crate) lock: Option<Arc<NodeLock>>,
    pub(crate) driver: tokio::task::AbortHandle,
    pub(crate) exclusive: Arc<Exclusive>,
    pub(crate) names: Arc<Names>,
    pub(crate) leases: tokio::task::AbortHandle,
    pub(crate) clock: WallClock,
    pub(crate) desk: Arc<Desk>,
    pub(crate) guards: Arc<Guards>,
    pub(crate) revoked: Arc<Known>,
    pub(crate) renewal: Renewal,
    pub(crate) applications: Applications,
    pub(crate) seeds: Arc<Mutex<Seeds>>,
    pub(crate) expects: usize,
    /// How long it takes to notice that a node is down.
    pub(crate) detect_in: Duration,
    pub(crate) gathered: Arc<watch::Sender<usize>>,
    pub(crate) ready: AtomicBool,
    /// How often one of several members was chosen.
    pub(crate) placed: AtomicUsize,
    pub(crate) drain: Draining,
}

impl Shared {
    pub(crate) fn membership(&self) -> MutexGuard<'_, Membership> {
        let membership = self.membership.get().expect("set before the node is made");
        membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn place(&self, placement: &Placement) -> Result<NodeName, SpawnError> {
        if let Placement::Node(name) = placement {
            return Ok(*name);
        }
        let membership = self.membership();
        let is_up = |member: &&Member| {
            member.state == State::Up && !self.directory.is_draining(member.id.name)
        };
        let up = || membership.members().filter(is_up);
        let fit: Vec<_> = up().filter(|m| placement.fits(&m.labels)).map(|m| m.id.name).collect();
        if fit.is_empty() {
            let labels = up().flat_map(|m| m.labels.iter().map(|(k, v)| format!("{k}={v}")));
            let present: BTreeSet<_> = labels.collect();
            let present = present.into_iter().take(LABELS_TOLD).collect();
            let wanted = placement.to_string();
            return Err(SpawnError::NoMember { wanted, present });
        }
        let turn = self.placed.fetch_add(1, Ordering::Relaxed);
        Ok(fit[turn % fit.len()])
    }

    pub(crate) fn ask_to_leave(&self) {
        self.leave.send_replace(true);
    }
}

impl Node {
    /// Says what a node is to be.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Which life of which node this is. The creation changes when the node comes back after it was
    /// declared down.
    pub fn id(&self) -> NodeId {
        self.0.runtime.id()
    }

    /// Where others reach it.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Where it listens.
    pub fn listen_address(&self) -> SocketAddr {
        self.0.endpoint.local_address()
    }

    /// What the node holds right now: processes, calls that are out, bytes that wait in mailboxes and
    /// lanes, each beside its bound. For metrics, and for tests that look for leaks.
    ///
    /// ```
    /// # fn tell(node: &purlin::Node) {
    /// for gauge in node.gauges() {
    ///     println!("{} {} of {:?}", gauge.what, gauge.now, gauge.bound);
    /// }
    /// # }
    /// ```
    pub fn gauges(&self) -> Vec<Gauge> {
        let mut gauges = self.0.runtime.gauges();
        gauges.extend(self.0.endpoint.gauges());
        gauges
    }

    /// Its processes: everything that needs no other node.
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// The ring of the members that are live, as this node sees them.
    pub fn ring(&self) -> Arc<Ring> {
        self.0.directory.ring()
    }

    /// The members that are live, as this node sees them, itself included, by name.
    pub fn members(&self) -> Vec<NodeName> {
        // Not membership's own, which is ahead: whom this tells can be sent to.
        self.0.directory.live()
    }

    /// Starts an actor here; see [`Runtime::spawn`].
    pub async fn spawn<A: Actor>(&self, args: A::Args) -> Result<Ref<A>, SpawnError> {
        self.0.runtime.spawn::<A>(args).await
    }

    /// Starts an actor on another node; see [`Runtime::spawn_on`].
    pub async fn spawn_on<A: Actor>(
        &self,
        node: &NodeName,
        args: A::Args,
    ) -> Result<Ref<A>, SpawnError> {
        self.0.runtime.spawn_on::<A>(node, args).await
    }

    /// Starts an actor on a member that is up and has certain labels, or on a node by its name; of
    /// several members that fit each is chosen in turn.
    ///
    /// [`SpawnError::NoMember`] if there is none; otherwise it fails as
    /// [`spawn_on`](Self::spawn_on) does.
    ///
    /// ```no_run
    /// # async fn example(node: &purlin::Node) -> Result<(), purlin::SpawnError> {
    /// use purlin::Placement;
    /// use purlin::kinds::Counter;
    ///
    /// let hits = node.spawn_where::<Counter>(&Placement::label("zone", "eu"), None).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn spawn_where<A: Actor>(
        &self,
        placement: &Placement,
        args: A::Args,
    ) -> Result<Ref<A>, SpawnError> {
        self.spawn_on::<A>(&self.place(placement)?, args).await
    }

    /// The node that fits a placement, as this node sees the members; of several each in turn.
    pub fn place(&self, placement: &Placement) -> Result<NodeName, SpawnError> {
        self.0.place(placement)
    }

    /// Starts a supervisor; see [`Runtime::supervise`].
    pub async fn supervise(&self, supervisor: Supervisor) -> Result<SupervisorRef, SpawnError> {
        self.0.runtime.supervise(supervisor).await
    }

    /// Sends a message; see [`Runtime::send`].
    pub fn send<M: Message>(&self, to: impl Into<Dest>, message: M) {
        self.0.runtime.send(to, message);
    }

    /// Sends a message to many processes, encoded once; see [`Runtime::send_all`].
    pub fn send_all<M: Message + Clone>(
        &self,
        to: impl IntoIterator<Item = impl Into<Dest>>,
        message: M,
    ) {
        self.0.runtime.send_all(to, message);
    }

    /// Calls a process; see [`Runtime::call`].
    pub async fn call<M: Message>(
        &self,
        to: impl Into<Dest>,
        message: M,
    ) -> Result<M::Reply, CallError> {
        self.0.runtime.call(to, message).await
    }

    /// The process of a key, wherever it runs. It is started at the key's owner on the ring when it
    /// is first sent to, and again after it has ended; see [`NodeBuilder::keyed`].
    ///
    /// Of an exclusive kind, which is the default, a key has at most one process in the cluster at
    /// every instant; messages to it wait while its node has no lease from the voters, or the node
    /// that had the key may still run it. Of an [available](purlin_runtime::Keyed::available) one it
    /// may have two during a split, and for about the time it takes to detect a lost node whenever
    /// members come or go.
    ///
    /// When a key gets another owner its process ends ([`Actor::stop`]), and begins there: anew, or where
    /// the old one was if the kind has a state ([`NodeBuilder::stateful`]).
    ///
    /// ```no_run
    /// # async fn example(node: &purlin::Node) -> Result<(), purlin::CallError> {
    /// use purlin::kinds::{Add, Counter};
    ///
    /// let visits = node.keyed::<Counter>("front-page");
    /// let total = visits.call(Add(1)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn keyed<A: KeyedActor>(&self, key: impl Into<Key>) -> Ref<A> {
        self.0.runtime.keyed(key)
    }

    /// Publishes a message to a topic; see [`Runtime::publish`].
    pub fn publish<M: Message + Clone>(&self, topic: impl Into<Name>, message: M) {
        self.0.runtime.publish(topic, message);
    }

    /// The members of a group on all nodes; see [`Runtime::members_of`].
    pub fn members_of(&self, group: impl Into<Group>) -> Vec<Pid> {
        self.0.runtime.members_of(group)
    }

    /// The process that has a global name; see [`Runtime::whereis_global`].
    pub fn whereis_global(&self, name: impl Into<Name>) -> Option<Pid> {
        self.0.runtime.whereis_global(&name.into())
    }

    /// The process that has a global name, asked for where this node knows of none; see
    /// [`Runtime::find_global`].
    pub async fn find_global(&self, name: impl Into<Name>) -> Result<Option<Pid>, GlobalError> {
        self.0.runtime.find_global(name).await
    }

    /// Asks a process to end; see [`Runtime::exit`].
    pub fn exit(&self, target: impl Into<Dest>, reason: ExitReason) {
        self.0.runtime.exit(target, reason);
    }

    /// Returns when this node has seen as many members at once as it expects; says every now and
    /// then that it waits.
    pub(crate) async fn gathered(&self) {
        let expects = self.0.expects;
        let mut seen = self.0.gathered.subscribe();
        let mut wait = std::pin::pin!(async {
            // The sender lives as long as this node.
            let _ = seen.wait_for(|seen| *seen >= expects).await;
        });
        while tokio::time::timeout(WAITING_EVERY, &mut wait).await.is_err() {
            let members = *self.0.gathered.borrow();
            tracing::warn!(members, expects, "not ready, waiting for members");
        }
    }

    /// The last step of a start.
    pub(crate) async fn begin_applications(
        &self,
        applications: Vec<(Name, Supervisor)>,
    ) -> Result<(), StartError> {
        let started = self.0.applications.start(self.runtime(), applications).await;
        if let Err((name, source)) = started {
            self.stop().await;
            return Err(StartError::Application { name, source });
        }
        self.0.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns when somebody has asked this node to leave, as `purlin leave` and `purlin drain` do. The
    /// owner of the node then calls [`drain`](Self::drain) and [`stop`](Self::stop).
    pub async fn asked_to_leave(&self) {
        let mut leave = self.0.leave.subscribe();
        // The sender lives as long as this node.
        let _ = leave.wait_for(|leave| *leave).await;
    }

    /// Returns when an application ([`NodeBuilder::application`]) has ended by itself. The owner of
    /// the node then calls [`stop`](Self::stop) and ends with a failure, as `purlin start` does.
    pub async fn application_ended(&self) -> ApplicationEnded {
        self.0.applications.ended().await
    }

    /// Stops in good order: its applications in reverse, then the other processes (roots of the
    /// tree first asked, 10 s at most), then everything that was sent is delivered, then the others
    /// are told, then the connections end. A node that takes nothing holds it up for 4 s, one to
    /// which something gets through for a minute at most.
    pub async fn stop(&self) {
        let shared = &self.0;
        shared.applications.stop(&shared.runtime, GRACE).await;
        shared.runtime.shutdown(GRACE).await;
        let (endpoint, inputs) = (shared.endpoint.clone(), shared.inputs.clone());
        shared.exclusive.leave().await;
        let closing = async move {
            // Whoever has the farewell takes nothing more from us.
            endpoint.flush().await;
            let (done, said) = oneshot::channel();
            inputs.tell(Told::Input(Input::Leave));
            inputs.tell(Told::Done(done));
            // The farewell is with the control streams; or there is no driver to say it.
            let _ = said.await;
            endpoint.close(&Refusal::Stopping).await;
        };
        // `None` only when the network's thread is gone already.
        let _ = shared.net.run(closing).await;
        shared.driver.abort();
        shared.leases.abort();
        if let Some(lock) = &shared.lock {
            lock.stopped();
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}
