//! Groups, topics and global names from the side of the process that uses them.

use std::collections::BTreeMap;

use purlin_proto::{Fence, Group, GroupEvent, Message, Name, NameConflict, Pid, Reference};

use super::EntryError;
use super::globals::GlobalError;
use crate::actor::{Actor, Handler};
use crate::context::Context;
use crate::messages::via;
use crate::raw::RawContext;

impl<A: Actor> Context<A> {
    /// Joins a group; see [`Runtime::join`](crate::Runtime::join).
    pub fn join(&self, group: impl Into<Group>) -> Result<(), EntryError> {
        self.runtime().join(group, self.pid())
    }

    /// Leaves a group, once; see [`Runtime::leave`](crate::Runtime::leave).
    pub fn leave(&self, group: impl Into<Group>) -> bool {
        self.runtime().leave(group, self.pid())
    }

    /// Who is in a group now; from now on a [`GroupEvent`] comes when processes join or leave it
    /// (OTP: `pg:monitor/1`).
    ///
    /// ```
    /// use purlin_runtime::{Actor, Context, GroupEvent, Handler, Outcome, Pid};
    ///
    /// /// Knows all workers of the cluster.
    /// struct Foreman {
    ///     workers: Vec<Pid>,
    /// }
    ///
    /// impl Actor for Foreman {
    ///     const KIND: &'static str = "foreman";
    ///     type Args = ();
    ///     type Messages = ();
    ///
    ///     async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
    ///         let (_, workers) = ctx.monitor_group("workers");
    ///         Ok(Self { workers })
    ///     }
    /// }
    ///
    /// impl Handler<GroupEvent> for Foreman {
    ///     async fn handle(&mut self, event: GroupEvent, _: &mut Context<Self>) -> Outcome {
    ///         self.workers.retain(|pid| !event.left.contains(pid));
    ///         self.workers.extend(event.joined);
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn monitor_group(&mut self, group: impl Into<Group>) -> (Reference, Vec<Pid>)
    where
        A: Handler<GroupEvent>,
    {
        self.on_group(via::<A, GroupEvent>);
        self.runtime().monitor_group(self.process(), group.into())
    }

    /// Which groups of a scope have members now, and whom; from now on a [`GroupEvent`] comes when
    /// processes join or leave any of them (OTP: `pg:monitor_scope/1`).
    pub fn monitor_scope(
        &mut self,
        scope: impl Into<Name>,
    ) -> (Reference, BTreeMap<Group, Vec<Pid>>)
    where
        A: Handler<GroupEvent>,
    {
        self.on_group(via::<A, GroupEvent>);
        self.runtime().monitor_scope(self.process(), scope.into())
    }

    /// Takes a monitor of a group or scope back; no [`GroupEvent`] of it comes after this returns.
    /// `false` if this process has none of this reference.
    pub fn demonitor_group(&self, reference: Reference) -> bool {
        self.runtime().demonitor_groups(self.process(), reference)
    }

    /// Subscribes to a topic; see [`Runtime::subscribe`](crate::Runtime::subscribe).
    pub fn subscribe(&self, topic: impl Into<Name>) -> Result<(), EntryError> {
        self.runtime().subscribe(topic, self.pid())
    }

    /// Ends a subscription; see [`Runtime::unsubscribe`](crate::Runtime::unsubscribe).
    pub fn unsubscribe(&self, topic: impl Into<Name>) -> bool {
        self.runtime().unsubscribe(topic, self.pid())
    }

    /// Publishes to a topic; see [`Runtime::publish`](crate::Runtime::publish).
    pub fn publish<M: Message + Clone>(&self, topic: impl Into<Name>, message: M) {
        self.runtime().publish(topic, message);
    }

    /// Gives this process a global name that no other process in the cluster has; see
    /// [`Runtime::register_global`](crate::Runtime::register_global).
    ///
    /// ```
    /// use purlin_runtime::{Actor, Context, Fence, Outcome};
    ///
    /// struct Leader {
    ///     /// To be given along with what it writes elsewhere.
    ///     fence: Fence,
    /// }
    ///
    /// impl Actor for Leader {
    ///     const KIND: &'static str = "leader";
    ///     type Args = ();
    ///     type Messages = ();
    ///
    ///     async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
    ///         let fence = ctx.register_global("leader").await?;
    ///         Ok(Self { fence })
    ///     }
    /// }
    /// ```
    pub async fn register_global(&self, name: impl Into<Name>) -> Result<Fence, GlobalError> {
        self.runtime().register_global(name, self.pid()).await
    }

    /// Gives this process a global name of the available kind; see
    /// [`Runtime::register_global_available`](crate::Runtime::register_global_available). If it is
    /// lost to another process, a [`NameConflict`] comes.
    ///
    /// ```
    /// use purlin_runtime::{Actor, Context, ExitReason, Handler, NameConflict, Outcome};
    ///
    /// struct Leader;
    ///
    /// impl Actor for Leader {
    ///     const KIND: &'static str = "leader";
    ///     type Args = ();
    ///     type Messages = ();
    ///
    ///     async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
    ///         ctx.register_global_available("leader")?;
    ///         Ok(Self)
    ///     }
    /// }
    ///
    /// impl Handler<NameConflict> for Leader {
    ///     async fn handle(&mut self, _: NameConflict, ctx: &mut Context<Self>) -> Outcome {
    ///         ctx.stop(ExitReason::Shutdown); // there is another one
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn register_global_available(&mut self, name: impl Into<Name>) -> Result<(), GlobalError>
    where
        A: Handler<NameConflict>,
    {
        self.on_name_conflict(via::<A, NameConflict>);
        self.runtime().register_global_available(name, self.pid())
    }
}

impl RawContext {
    /// Watches a group; see [`Context::monitor_group`]. [`Received::Group`] comes.
    ///
    /// [`Received::Group`]: crate::Received::Group
    pub fn monitor_group(&self, group: impl Into<Group>) -> (Reference, Vec<Pid>) {
        self.runtime().monitor_group(self.process(), group.into())
    }

    /// Watches all groups of a scope; see [`Context::monitor_scope`].
    pub fn monitor_scope(&self, scope: impl Into<Name>) -> (Reference, BTreeMap<Group, Vec<Pid>>) {
        self.runtime().monitor_scope(self.process(), scope.into())
    }

    /// Takes a monitor of a group or scope back; see [`Context::demonitor_group`].
    pub fn demonitor_group(&self, reference: Reference) -> bool {
        self.runtime().demonitor_groups(self.process(), reference)
    }
}
