//! A process and what it is known to accept.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::admin::CALL_TIMEOUT;
use purlin_proto::{CallError, Dest, ExitReason, Message, Pid, Target};
use tokio::task::coop::consume_budget;

use crate::actor::{Actor, Handler};
use crate::messages::via;
use crate::process::Process;
use crate::remote::Peer;
use crate::route::{Route, deadline};
use crate::runtime::Runtime;

/// A process that runs the actor `A`, here or on another node.
///
/// It keeps nothing alive: the process may be long gone, then messages are dropped and calls fail.
/// Cheap to clone. To tell another node of a process, send its [`pid`](Self::pid).
///
/// The example of [`Actor`] shows it in use.
pub struct Ref<A> {
    runtime: Runtime,
    place: Place,
    actor: PhantomData<fn() -> A>,
}

#[derive(Clone)]
enum Place {
    Here(Arc<Process>),
    There(Pid),
    Named(Dest),
}

/// Where a process of another node is.
fn there(pid: &Pid) -> (Peer, Target) {
    (Peer::Life(pid.node), Target::Serial(pid.serial))
}

impl<A: Actor> Ref<A> {
    pub(crate) fn to(process: Arc<Process>) -> Self {
        let runtime = process.runtime.clone();
        Self { runtime, place: Place::Here(process), actor: PhantomData }
    }

    pub(crate) fn to_pid(runtime: &Runtime, pid: Pid) -> Self {
        let here = runtime.is_own(&pid).then(|| runtime.process(pid.serial)).flatten();
        let place = here.map_or(Place::There(pid), Place::Here);
        Self { runtime: runtime.clone(), place, actor: PhantomData }
    }

    /// Takes a pid for a process that runs `A`.
    ///
    /// If it runs something else, it answers what it understands and
    /// [`CallError::NotUnderstood`] to the rest.
    pub fn from_pid(runtime: &Runtime, pid: Pid) -> Self {
        Self::to_pid(runtime, pid)
    }

    /// Whoever has a name, on this node or another (`"hits"`, `"hits@b"`, `"global:hits"`), or is in
    /// a group (`"group:workers:nearest"`), at the time of each send: so it stays good when the
    /// process is restarted under the same name.
    ///
    /// [`pid`](Self::pid) is that of the present holder, for a name of this node or a global one.
    pub fn named(runtime: &Runtime, name: impl Into<Dest>) -> Self {
        Self { runtime: runtime.clone(), place: Place::Named(name.into()), actor: PhantomData }
    }

    /// Its pid. For a name without a holder, and for one of another node, one that no process has.
    pub fn pid(&self) -> Pid {
        match &self.place {
            Place::Here(process) => process.pid(),
            Place::There(pid) => *pid,
            Place::Named(name) => self.runtime.holder(name).unwrap_or_else(|| {
                // Serials begin with 1.
                self.runtime.id().pid(0)
            }),
        }
    }

    fn route(&self) -> Route {
        match &self.place {
            Place::Here(process) => Route::Here(Some(Arc::clone(process))),
            Place::There(pid) => {
                let (peer, to) = there(pid);
                Route::There(peer, to)
            }
            Place::Named(name) => self.runtime.route(name),
        }
    }

    fn route_one(&self) -> Result<Route, CallError> {
        match &self.place {
            Place::Named(name) => self.runtime.route_one(name),
            Place::Here(_) | Place::There(_) => Ok(self.route()),
        }
    }

    fn note_cast(&self) {
        if let Place::Named(name) = &self.place {
            self.runtime.note_cast(name);
        }
    }

    fn dest(&self) -> Dest {
        match &self.place {
            Place::Named(name) => name.clone(),
            Place::Here(_) | Place::There(_) => Dest::Pid(self.pid()),
        }
    }

    /// Sends a message; see [`Runtime::send`].
    pub fn send<M: Message>(&self, message: M)
    where
        A: Handler<M>,
    {
        if let Place::There(pid) = &self.place {
            let (peer, to) = there(pid);
            return self.runtime.send_there(peer, &to, &message);
        }
        self.note_cast();
        self.runtime.send_to(&self.route(), message, Some(via::<A, M>));
    }

    /// Sends a message, waiting while the way is full; see [`Runtime::send_wait`].
    pub async fn send_wait<M: Message>(&self, message: M)
    where
        A: Handler<M>,
    {
        if let Place::There(pid) = &self.place {
            // A fast sender and its receiver go in step.
            consume_budget().await;
            let (peer, to) = there(pid);
            // Mostly there is room; then nothing needs to be kept while it waits.
            if self.runtime.send_if_room(peer, &to, &message) {
                return;
            }
        }
        self.note_cast();
        self.runtime.send_wait_to(self.route(), message, Some(via::<A, M>)).await;
    }

    /// Calls it and waits for its reply, 5 s at most; see [`Runtime::call`].
    pub async fn call<M: Message>(&self, message: M) -> Result<M::Reply, CallError>
    where
        A: Handler<M>,
    {
        self.call_timeout(message, CALL_TIMEOUT).await
    }

    /// As [`call`](Self::call), with another timeout.
    pub async fn call_timeout<M: Message>(
        &self,
        message: M,
        timeout: Duration,
    ) -> Result<M::Reply, CallError>
    where
        A: Handler<M>,
    {
        let timeout = match &self.place {
            Place::Named(name) => self.runtime.when_there(name, timeout).await?,
            Place::Here(_) => timeout,
            Place::There(pid) => {
                let (peer, to) = there(pid);
                return self.runtime.call_there(peer, to, message, deadline(timeout)).await;
            }
        };
        self.runtime.call_to(self.route_one()?, message, timeout, Some(via::<A, M>)).await
    }

    /// Asks it to end; see [`Runtime::exit`].
    pub fn exit(&self, reason: ExitReason) {
        self.runtime.exit(self.dest(), reason);
    }

    /// Whether it lives on this node. A process elsewhere can only be monitored.
    pub fn is_alive(&self) -> bool {
        self.runtime.is_alive(self.pid())
    }
}

impl<A> Clone for Ref<A> {
    fn clone(&self) -> Self {
        Self { runtime: self.runtime.clone(), place: self.place.clone(), actor: PhantomData }
    }
}

impl<A: Actor> fmt::Debug for Ref<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref<{}>({})", A::KIND, self.dest())
    }
}

impl<A: Actor> From<&Ref<A>> for Dest {
    fn from(to: &Ref<A>) -> Self {
        to.dest()
    }
}

impl<A: Actor> From<&Ref<A>> for Pid {
    fn from(to: &Ref<A>) -> Self {
        to.pid()
    }
}
