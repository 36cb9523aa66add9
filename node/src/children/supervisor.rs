//! Cluster supervisors as programs see them.

use std::fmt;
use std::time::Duration;

use purlin_proto::admin::CALL_TIMEOUT;
use purlin_proto::admin::children::{
    CHILDREN, CHILDREN_PAGE, ClusterChildError, ClusterChildInfo, GetClusterChild,
    ListClusterChildren, RestartClusterChild, StartClusterChild, StartedChild, StopClusterChild,
};
use purlin_proto::child::{ChildPlan, Intensity};
use purlin_proto::codec::EncodeError;
use purlin_proto::supervision::{Restart, Shutdown};
use purlin_proto::{
    CallError, ChildId, ChildPlacement, Codec, Dest, Key, Labels, Message, Mode, Name, Payload,
};
use purlin_runtime::{Actor, Ref, Runtime};
use tokio::time::{Instant, sleep};

use crate::node::Node;

/// Before a node that did not decide about a child is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// The id of the child that a singleton is.
const SINGLETON: &str = "singleton";

/// How a cluster supervisor keeps its children; see [`Node::cluster_supervisor`].
///
/// A value: it says with what the children are started that are started through it. It runs nowhere
/// by itself, so there is nothing to start and nothing that can fail.
///
/// ```
/// use std::time::Duration;
/// use purlin::ClusterSupervisor;
///
/// let jobs = ClusterSupervisor::new("jobs").available().intensity(5, Duration::from_mins(1));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ClusterSupervisor {
    name: Name,
    mode: Mode,
    intensity: Intensity,
    all: Option<Intensity>,
}

impl ClusterSupervisor {
    /// One of this name, 64 bytes at most. Its children are exclusive: there is at most one of each
    /// at every instant, and none where the majority of the voters cannot be reached. They run where
    /// their ids are on the ring, know their [`fence`](crate::Context::fence), and may be restarted
    /// three times in five seconds each.
    pub fn new(name: impl Into<Name>) -> Self {
        let intensity = Intensity { restarts: 3, period: Duration::from_secs(5) };
        Self { name: name.into(), mode: Mode::Exclusive, intensity, all: None }
    }

    /// Its children are of the available kind: in each part of a split one of each runs. When the
    /// parts meet again, one is kept: the one whose starter saw more members then, then the one that
    /// was started more often. The other ends with a [shutdown](crate::ExitReason::ShutdownWith) that
    /// names it.
    pub fn available(mut self) -> Self {
        self.mode = Mode::Available;
        self
    }

    /// Allows each child so many restarts, 16 at most, within this period, on whichever nodes it
    /// runs; one more and it is left alone, as [given up](crate::ClusterChildState::GaveUp).
    /// Restarts because its node is gone, or it is moved, do not count.
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        self.intensity = Intensity { restarts, period };
        self
    }

    /// Allows all children together so many restarts within this period; not limited unless said
    /// otherwise. The child that makes it one more is given up; unlike in OTP the others go on.
    pub fn intensity_of_all(mut self, restarts: u32, period: Duration) -> Self {
        self.all = Some(Intensity { restarts, period });
        self
    }
}

impl<T: Into<Name>> From<T> for ClusterSupervisor {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}

/// What a cluster supervisor is to run: data, so that any node can start it.
///
/// ```
/// use purlin::kinds::Counter;
/// use purlin::{ChildPlacement, ClusterChild, Restart};
///
/// let nightly = ClusterChild::actor::<Counter>("nightly", None)
///     .restart(Restart::Transient)
///     .placement(ChildPlacement::LeastLoaded);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ClusterChild {
    id: Key,
    kind: Name,
    args: Result<Payload, EncodeError>,
    restart: Restart,
    shutdown: Shutdown,
    placement: ChildPlacement,
}

impl ClusterChild {
    /// An actor that is started with these arguments, 1 KiB encoded at most; each node that it may
    /// run on has to know the kind. Permanent; shut down within 5 s; placed on the ring.
    ///
    /// # Panics
    ///
    /// If the actor's kind is no [`Name`].
    #[expect(clippy::needless_pass_by_value, reason = "as whatever starts an actor takes them")]
    pub fn actor<A: Actor>(id: impl Into<Key>, args: A::Args) -> Self {
        let kind = Name::new(A::KIND);
        let kind = kind.unwrap_or_else(|error| panic!("{:?} is no kind: {error}", A::KIND));
        let args = Payload::encode(Codec::Bincode, &args);
        Self { args, ..Self::kind(id, kind, Payload { codec: Codec::Json, bytes: "null".into() }) }
    }

    /// A kind by its name, with arguments that are encoded already.
    pub fn kind(id: impl Into<Key>, kind: impl Into<Name>, args: Payload) -> Self {
        Self {
            id: id.into(),
            kind: kind.into(),
            args: Ok(args),
            restart: Restart::Permanent,
            shutdown: Shutdown::Timeout(Duration::from_secs(5)),
            placement: ChildPlacement::Ring,
        }
    }

    /// Whether it is started again.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How it is stopped. In the cluster a kill gives up after 5 s.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Where it runs.
    pub fn placement(mut self, placement: ChildPlacement) -> Self {
        self.placement = placement;
        self
    }

    /// On a member with this label, the one with the fewest children.
    pub fn on_label(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.placement(ChildPlacement::Labels(Labels::from([(key.into(), value.into())])))
    }
}

impl ClusterChild {
    /// All that is to be known of it.
    pub(crate) fn plan(
        &self,
        supervisor: &ClusterSupervisor,
    ) -> Result<ChildPlan, ClusterChildError> {
        let detail = |error: EncodeError| ClusterChildError::Plan { detail: error.to_string() };
        let Self { id: _, kind, args, restart, shutdown, placement } = self.clone();
        let ClusterSupervisor { name: _, mode, intensity, all } = *supervisor;
        let args = args.map_err(detail)?;
        let supervisor_intensity = all;
        Ok(ChildPlan {
            kind,
            args,
            restart,
            shutdown,
            placement,
            mode,
            intensity,
            supervisor_intensity,
        })
    }
}

/// A cluster supervisor, as seen from one node; made by [`Node::cluster_supervisor`]. Cheap to clone,
/// keeps nothing alive.
#[derive(Clone)]
pub struct ClusterSupervisorRef {
    runtime: Runtime,
    supervisor: ClusterSupervisor,
}

impl Node {
    /// A supervisor whose children run anywhere in the cluster: started again elsewhere when their
    /// node is gone. By its name the same on every node; there is nothing to start.
    ///
    /// What it promises, and what becomes of it in a split: `node/ARCHITECTURE.md`.
    ///
    /// ```no_run
    /// # async fn example(node: &purlin::Node) -> anyhow::Result<()> {
    /// use purlin::kinds::{Add, Counter};
    /// use purlin::{ClusterChild, ClusterSupervisor};
    ///
    /// let jobs = node.cluster_supervisor(ClusterSupervisor::new("jobs").available());
    /// jobs.start_child(ClusterChild::actor::<Counter>("hits", None)).await?;
    /// let total = jobs.child::<Counter>("hits").call(Add(1)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cluster_supervisor(
        &self,
        supervisor: impl Into<ClusterSupervisor>,
    ) -> ClusterSupervisorRef {
        let runtime = self.runtime().clone();
        ClusterSupervisorRef { runtime, supervisor: supervisor.into() }
    }

    /// One process for the whole cluster (Akka: cluster singleton): the only child, `singleton`, of a
    /// cluster supervisor. Each node may ask for it, as when it starts; the first one is heard. It is
    /// reached as `child:NAME/singleton` too.
    ///
    /// Fails as [`start_child`](ClusterSupervisorRef::start_child) does.
    pub async fn singleton<A: Actor>(
        &self,
        supervisor: impl Into<ClusterSupervisor>,
        args: A::Args,
    ) -> Result<Ref<A>, ClusterChildError> {
        let supervisor = self.cluster_supervisor(supervisor);
        supervisor.start_child(ClusterChild::actor::<A>(SINGLETON, args)).await?;
        Ok(supervisor.child(SINGLETON))
    }
}

impl ClusterSupervisorRef {
    fn id(&self, child: impl Into<Key>) -> ChildId {
        ChildId::new(self.supervisor.name.clone(), child)
    }

    /// Has a child run from now on. Returns when this is recorded on three nodes, or on all if there
    /// are fewer; it is started then. Other nodes hear of it a moment later: a call from one that has
    /// not fails with [`NoProcess`](purlin_proto::CallError::NoProcess). Nothing happens if there is one
    /// of this id with the same plan, also one that has been given up or is done.
    ///
    /// Not cancel safe: it may have been recorded. Asking again is harmless.
    pub async fn start_child(
        &self,
        child: ClusterChild,
    ) -> Result<StartedChild, ClusterChildError> {
        let plan = child.plan(&self.supervisor)?;
        let child = self.id(child.id);
        self.ask(|| StartClusterChild {
            child: child.clone(),
            plan: plan.clone(),
            forwarded: false,
        })
        .await
    }

    /// Stops a child for good. Returns when this is recorded; it ends soon after, as its
    /// [`Shutdown`] says.
    pub async fn stop_child(&self, child: impl Into<Key>) -> Result<(), ClusterChildError> {
        let child = self.id(child);
        self.ask(|| StopClusterChild { child: child.clone(), forwarded: false }).await
    }

    /// Starts a child again that was given up, is poison or done; what was held against it is
    /// forgotten.
    pub async fn restart_child(&self, child: impl Into<Key>) -> Result<(), ClusterChildError> {
        let child = self.id(child);
        self.ask(|| RestartClusterChild { child: child.clone(), forwarded: false }).await
    }

    /// All its children, as this node sees them, by id.
    pub async fn children(&self) -> Result<Vec<ClusterChildInfo>, ClusterChildError> {
        let mut all: Vec<ClusterChildInfo> = Vec::new();
        loop {
            let after = all.last().map(|info| info.child.clone());
            let supervisor = Some(self.supervisor.name.clone());
            let page = self.call(ListClusterChildren { supervisor, after }).await;
            let page = page.map_err(ClusterChildError::NoAnswer)?;
            let full = page.len() >= CHILDREN_PAGE;
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }

    /// One of its children, as this node sees it.
    pub async fn which(
        &self,
        child: impl Into<Key>,
    ) -> Result<Option<ClusterChildInfo>, ClusterChildError> {
        let found = self.call(GetClusterChild { child: self.id(child) }).await;
        Ok(found.map_err(ClusterChildError::NoAnswer)?.map(|found| found.info))
    }

    /// The process of a child, wherever it runs at the time of each message.
    ///
    /// A call waits within its timeout while the child does not run, as when it is moved or its node
    /// is gone, and is [`NoProcess`](CallError::NoProcess) when there is no such child, or it is not
    /// to run. What is sent meanwhile is dropped and counted. A message that is on its way when the
    /// child ends is lost, and its caller told.
    pub fn child<A: Actor>(&self, child: impl Into<Key>) -> Ref<A> {
        Ref::named(&self.runtime, Dest::Child(self.id(child)))
    }

    async fn call<M: Message>(&self, message: M) -> Result<M::Reply, CallError> {
        let own: Name = CHILDREN.parse().expect("a name");
        self.runtime.call(Dest::Local(own), message).await
    }

    /// Asks until nodes agree who decides, 5 s at most.
    async fn ask<M, T>(&self, message: impl Fn() -> M) -> Result<T, ClusterChildError>
    where
        M: Message<Reply = Result<T, ClusterChildError>>,
    {
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            let answer = self.call(message()).await.map_err(ClusterChildError::NoAnswer)?;
            match answer {
                Err(ClusterChildError::NotOwner { .. }) if Instant::now() + PAUSE < deadline => {
                    sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    }
}

impl fmt::Debug for ClusterSupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterSupervisorRef").field(&self.supervisor.name).finish()
    }
}
