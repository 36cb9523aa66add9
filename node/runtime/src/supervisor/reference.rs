//! A supervisor from outside, and what it is asked.

use std::any::{Any, TypeId};
use std::fmt;

use purlin_proto::codec::EncodeError;
use purlin_proto::supervision::{
    ChildCounts, ChildError, ChildInfo, ChildKey, CountChildren, DeleteChild, RestartChild,
    TerminateChild, WhichChildren,
};
use purlin_proto::{CallError, Codec, Dest, ExitReason, Pid};
use tokio::sync::oneshot;

use super::spec::ChildSpec;
use crate::item::{EncodedMessage, Item, LocalMessage, Via};
use crate::raw::{Answer, Untyped};
use crate::runtime::Runtime;

/// A supervisor: started with [`Runtime::supervise`] or
/// [`Runtime::supervise_dynamic`](Runtime::supervise_dynamic), or found by its pid, also on another
/// node.
///
/// It keeps nothing alive. Requests wait for their turn behind the restart that the supervisor may
/// be busy with; they have an hour.
///
/// ```
/// # use purlin_runtime::{Actor, ChildSpec, Context, Outcome, Runtime, Strategy, Supervisor};
/// # struct Worker;
/// # impl Actor for Worker {
/// #     const KIND: &'static str = "worker";
/// #     type Args = u32;
/// #     type Messages = ();
/// #     async fn start(_: u32, _: &mut Context<Self>) -> Outcome<Self> { Ok(Self) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::local("a".into());
/// let root = runtime.supervise(Supervisor::new(Strategy::OneForOne)).await?;
/// let pid = root.start_child(ChildSpec::actor::<Worker>("w", 7)).await?;
/// assert_eq!(root.which_children().await?[0].pid, pid);
/// root.terminate_child("w").await?;
/// assert_eq!(root.count_children().await?.active, 0);
/// root.delete_child("w").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SupervisorRef {
    runtime: Runtime,
    pid: Pid,
}

impl SupervisorRef {
    /// Takes a pid for a supervisor.
    pub fn from_pid(runtime: &Runtime, pid: Pid) -> Self {
        Self { runtime: runtime.clone(), pid }
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it lives on this node.
    pub fn is_alive(&self) -> bool {
        self.runtime.is_alive(self.pid)
    }

    /// Asks it to end; see [`Runtime::exit`]. Its children are stopped first.
    pub fn exit(&self, reason: ExitReason) {
        self.runtime.exit(self.pid, reason);
    }

    /// Adds a child and starts it (OTP: `start_child`). Its pid; `None` if its start chose not to
    /// run. If it cannot be started it is not added. On this node only: a spec holds code.
    pub async fn start_child(&self, child: ChildSpec) -> Result<Option<Pid>, ChildError> {
        let (answer, answered) = oneshot::channel();
        let own = self.runtime.is_own(&self.pid);
        let process = own.then(|| self.runtime.process(self.pid.serial)).flatten();
        let Some(process) = process else {
            return Err(ChildError::NoSupervisor(CallError::NoProcess));
        };
        let start = Item::Local(Box::new(StartChild { child, answer }));
        self.runtime.deliver(Some(&process), start);
        answered.await.unwrap_or(Err(ChildError::NoSupervisor(CallError::NoProcess)))
    }

    /// Stops a child, by its id or pid, as its spec says how (OTP: `terminate_child`). It stays
    /// known and is not restarted by itself; a temporary one, or one of a dynamic supervisor, is
    /// forgotten.
    pub async fn terminate_child(&self, child: impl Into<ChildKey>) -> Result<(), ChildError> {
        self.ask(TerminateChild { child: child.into() }).await?
    }

    /// Starts a child again that is not running (OTP: `restart_child`).
    pub async fn restart_child(&self, id: impl Into<String>) -> Result<Option<Pid>, ChildError> {
        self.ask(RestartChild { id: id.into() }).await?
    }

    /// Forgets a child that is not running (OTP: `delete_child`).
    pub async fn delete_child(&self, id: impl Into<String>) -> Result<(), ChildError> {
        self.ask(DeleteChild { id: id.into() }).await?
    }

    /// Its children, the newest first (OTP: `which_children`).
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, ChildError> {
        self.ask(WhichChildren).await
    }

    /// How many there are (OTP: `count_children`).
    pub async fn count_children(&self) -> Result<ChildCounts, ChildError> {
        self.ask(CountChildren).await
    }

    async fn ask<M: purlin_proto::Message>(&self, message: M) -> Result<M::Reply, ChildError> {
        let answer = self.runtime.call_timeout(self.pid, message, super::PATIENCE).await;
        answer.map_err(ChildError::NoSupervisor)
    }
}

impl From<&SupervisorRef> for Dest {
    fn from(supervisor: &SupervisorRef) -> Self {
        Self::Pid(supervisor.pid)
    }
}

impl From<&SupervisorRef> for Pid {
    fn from(supervisor: &SupervisorRef) -> Self {
        supervisor.pid
    }
}

impl fmt::Display for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pid.fmt(f)
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SupervisorRef").field(&self.pid).finish()
    }
}

/// The one request that cannot travel.
pub(super) struct StartChild {
    pub(super) child: ChildSpec,
    pub(super) answer: oneshot::Sender<Result<Option<Pid>, ChildError>>,
}

impl LocalMessage for StartChild {
    fn name(&self) -> &'static str {
        "supervisor.start_child"
    }

    fn message_type(&self) -> TypeId {
        TypeId::of::<Self>()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }

    fn via(&self) -> Option<Via> {
        None
    }

    fn encode(self: Box<Self>, _: Codec) -> Result<EncodedMessage, EncodeError> {
        Err(EncodeError::Value { detail: "a child's spec holds code".to_owned() })
    }

    fn fail(self: Box<Self>, error: CallError) {
        // Whoever asked may have gone.
        drop(self.answer.send(Err(ChildError::NoSupervisor(error))));
    }
}

/// What a supervisor is asked.
pub(super) enum Asked {
    Start(Box<StartChild>),
    Terminate(ChildKey, Answer<Result<(), ChildError>>),
    Restart(String, Answer<Result<Option<Pid>, ChildError>>),
    Delete(String, Answer<Result<(), ChildError>>),
    Which(Answer<Vec<ChildInfo>>),
    Count(Answer<ChildCounts>),
}

impl Asked {
    /// `None` if it is nothing that a supervisor understands; its caller has been told.
    pub(super) fn of(message: Untyped) -> Option<Self> {
        let message = match message.into_local::<StartChild>() {
            Ok(start) => return Some(Self::Start(start)),
            Err(message) => message,
        };
        let message = match message.take::<TerminateChild>() {
            Ok(taken) => return taken.ok().map(|(ask, to)| Self::Terminate(ask.child, to)),
            Err(message) => message,
        };
        let message = match message.take::<RestartChild>() {
            Ok(taken) => return taken.ok().map(|(ask, to)| Self::Restart(ask.id, to)),
            Err(message) => message,
        };
        let message = match message.take::<DeleteChild>() {
            Ok(taken) => return taken.ok().map(|(ask, to)| Self::Delete(ask.id, to)),
            Err(message) => message,
        };
        let message = match message.take::<WhichChildren>() {
            Ok(taken) => return taken.ok().map(|(_, to)| Self::Which(to)),
            Err(message) => message,
        };
        match message.take::<CountChildren>() {
            Ok(taken) => taken.ok().map(|(_, to)| Self::Count(to)),
            Err(message) => {
                message.refuse("supervisor");
                None
            }
        }
    }
}
