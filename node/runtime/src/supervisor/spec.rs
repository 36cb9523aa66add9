//! What a supervisor starts, and how it starts it again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::supervision::{Restart, Shutdown};
use purlin_proto::{Name, SpawnError};

use super::backoff::Backoff;
use super::dynamic::DynamicSupervisor;
use super::reference::SupervisorRef;
use crate::actor::{Actor, Outcome};
use crate::item::BoxFuture;
use crate::process::Process;
use crate::raw::RawContext;
use crate::runtime::Runtime;
use crate::spawn::{RawKind, SpawnOptions};

/// Which children are restarted when one ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// That one.
    OneForOne,
    /// All: the others are stopped in reverse order, then all are started in order.
    OneForAll,
    /// That one and those after it, likewise.
    RestForOne,
}

/// Whether a supervisor ends by itself when its significant children have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// When one of them has ended by itself.
    AnySignificant,
    /// When all of them have.
    AllSignificant,
}

/// What a new child needs to know: its runtime, and how it is related to its supervisor.
pub(super) type StartChild = Arc<
    dyn Fn(Runtime, SpawnOptions) -> BoxFuture<'static, Result<Arc<Process>, SpawnError>>
        + Send
        + Sync,
>;

/// One child of a supervisor.
#[derive(Clone)]
pub struct ChildSpec {
    pub(super) id: Arc<str>,
    pub(super) name: Option<Name>,
    pub(super) restart: Restart,
    pub(super) shutdown: Shutdown,
    pub(super) significant: bool,
    pub(super) is_supervisor: bool,
    pub(super) start: StartChild,
}

impl ChildSpec {
    /// An actor, started with a copy of these arguments each time. Permanent; shut down within 5 s.
    pub fn actor<A: Actor>(id: impl Into<String>, args: A::Args) -> Self
    where
        A::Args: Clone + Sync,
    {
        let start: StartChild = Arc::new(move |runtime: Runtime, options| {
            let args = args.clone();
            Box::pin(async move { runtime.start_actor::<A>(args, options).await })
        });
        Self::new(id, Shutdown::Timeout(Duration::from_secs(5)), start)
    }

    /// A supervisor with children of its own. Permanent; waited for however long it takes.
    pub fn supervisor(id: impl Into<String>, supervisor: Supervisor) -> Self {
        let start: StartChild = Arc::new(move |runtime: Runtime, options| {
            let supervisor = supervisor.clone();
            Box::pin(async move { super::process::start(&runtime, supervisor, options).await })
        });
        Self { is_supervisor: true, ..Self::new(id, Shutdown::Infinity, start) }
    }

    /// A dynamic supervisor. Permanent; waited for however long it takes.
    pub fn dynamic_supervisor(id: impl Into<String>, supervisor: DynamicSupervisor) -> Self {
        let start: StartChild = Arc::new(move |runtime: Runtime, options| {
            Box::pin(async move { super::dynamic::start(&runtime, supervisor, options) })
        });
        Self { is_supervisor: true, ..Self::new(id, Shutdown::Infinity, start) }
    }

    /// A process from a closure, called anew for each start; see [`Runtime::spawn_raw`]. Permanent;
    /// shut down within 5 s.
    pub fn raw<F, Fut>(id: impl Into<String>, kind: &'static RawKind, body: F) -> Self
    where
        F: Fn(RawContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let body = Arc::new(body);
        let start: StartChild = Arc::new(move |runtime: Runtime, options| {
            let body = Arc::clone(&body);
            let started = runtime.launch_raw(kind, options, false, move |ctx| body(ctx));
            Box::pin(std::future::ready(started))
        });
        Self::new(id, Shutdown::Timeout(Duration::from_secs(5)), start)
    }

    fn new(id: impl Into<String>, shutdown: Shutdown, start: StartChild) -> Self {
        Self {
            id: id.into().into(),
            name: None,
            restart: Restart::default(),
            shutdown,
            significant: false,
            is_supervisor: false,
            start,
        }
    }

    /// Does something with each process that is started for it.
    pub(super) fn also(mut self, tell: impl Fn(&Process) + Send + Sync + 'static) -> Self {
        let (start, tell) = (Arc::clone(&self.start), Arc::new(tell));
        self.start = Arc::new(move |runtime, options| {
            let (started, tell) = (start(runtime, options), Arc::clone(&tell));
            Box::pin(async move {
                let process = started.await?;
                tell(&process);
                Ok(process)
            })
        });
        self
    }

    /// Its end by itself counts for the supervisor's [`AutoShutdown`]. Not for a permanent child,
    /// which never ends for good.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.significant = true;
        self
    }

    /// Registers it under a name on its node, each time it is started.
    #[must_use]
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether it is started again; [`Restart::Permanent`] unless said otherwise.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How it is stopped.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }
}

impl ChildSpec {
    pub(super) fn check(&self, auto_shutdown: AutoShutdown) -> Result<(), String> {
        let id = &self.id;
        if self.significant && auto_shutdown == AutoShutdown::Never {
            return Err(format!("child {id:?} is significant where nothing ends by itself"));
        }
        if self.significant && self.restart == Restart::Permanent {
            return Err(format!("child {id:?} is significant, so it cannot be permanent"));
        }
        Ok(())
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("restart", &self.restart)
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}

/// What a supervisor is to do; started with [`Runtime::supervise`].
///
/// The module's head in the source, and `node/examples/supervised.rs`, show whole trees.
#[derive(Debug, Clone)]
pub struct Supervisor {
    pub(super) strategy: Strategy,
    pub(super) intensity: usize,
    pub(super) period: Duration,
    pub(super) auto_shutdown: AutoShutdown,
    pub(super) backoff: Option<Backoff>,
    pub(super) children: Vec<ChildSpec>,
}

impl Supervisor {
    /// One without children, that allows one restart in five seconds, as OTP's does.
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            intensity: 1,
            period: Duration::from_secs(5),
            auto_shutdown: AutoShutdown::Never,
            backoff: None,
            children: Vec::new(),
        }
    }

    /// Allows at most `restarts` within `period`; one more and it gives up.
    #[must_use]
    pub fn intensity(mut self, restarts: usize, period: Duration) -> Self {
        (self.intensity, self.period) = (restarts, period);
        self
    }

    /// Ends, with `Shutdown`, when significant children have ended by themselves; never unless said
    /// otherwise (OTP: `auto_shutdown`).
    #[must_use]
    pub fn auto_shutdown(mut self, when: AutoShutdown) -> Self {
        self.auto_shutdown = when;
        self
    }

    /// Waits before each restart; does not unless said otherwise.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Why these settings contradict one another, if they do.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut ids = BTreeSet::new();
        for child in &self.children {
            if !ids.insert(&child.id) {
                return Err(format!("two children have the id {:?}", child.id));
            }
            child.check(self.auto_shutdown)?;
        }
        Ok(())
    }

    /// Adds a child, started after those before it.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }
}

impl Runtime {
    /// Starts a supervisor and its children; returns when all have started.
    ///
    /// If one cannot be started, those before it are stopped in reverse order, and the error says
    /// which one it was.
    pub async fn supervise(&self, supervisor: Supervisor) -> Result<SupervisorRef, SpawnError> {
        let process = super::process::start(self, supervisor, SpawnOptions::default()).await?;
        Ok(SupervisorRef::from_pid(self, process.pid()))
    }
}
