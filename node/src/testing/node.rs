//! A node of a simulated cluster as a test sees it.

use purlin_proto::{CallError, Dest, Message, NodeId, NodeName, SpawnError};
use purlin_runtime::{Actor, Ref};
use tokio::sync::oneshot;

use super::world::World;
use crate::Node;

/// A node of a simulated cluster, whether it runs or not.
///
/// What is asked of it happens on its machine, by its clock; the test waits, and time passes. When
/// it does not run, or crashes meanwhile, that is said in each method.
#[derive(Clone, Copy)]
pub struct SimulatedNode<'a> {
    pub(super) world: &'a World,
    pub(super) name: NodeName,
}

impl SimulatedNode<'_> {
    /// Its name.
    pub fn name(&self) -> NodeName {
        self.name
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.world.host(self.name).node.is_some()
    }

    /// Looks at it from outside, at this moment, by its clock; `None` if it does not run. What waits
    /// is for [`run`](Self::run).
    pub fn look<T>(&self, look: impl FnOnce(&Node) -> T) -> Option<T> {
        let (node, handle) = {
            let host = self.world.host(self.name);
            (host.node.clone()?, host.machine.as_ref()?.handle().clone())
        };
        let _clock = handle.enter();
        Some(look(&node))
    }

    fn node(&self) -> Option<Node> {
        self.world.host(self.name).node.clone()
    }

    /// Its present life; `None` if it does not run.
    pub fn id(&self) -> Option<NodeId> {
        self.look(Node::id)
    }

    /// The members that it sees, by name; none if it does not run.
    pub fn members(&self) -> Vec<NodeName> {
        self.look(Node::members).unwrap_or_default()
    }

    /// Runs a future on the machine; `None` if it is off or crashes meanwhile.
    pub(super) async fn on<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        {
            let host = self.world.host(self.name);
            // Whoever waited may have given up.
            host.machine.as_ref()?.handle().spawn(async move { drop(done.send(future.await)) });
        }
        result.await.ok()
    }

    /// Runs something on the node, by its clock; `None` if it does not run, or crashes meanwhile.
    ///
    /// It goes on if the test does not wait for it any more.
    pub async fn run<T, F>(&self, task: impl FnOnce(Node) -> F + Send + 'static) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        let node = self.node()?;
        self.on(async move { task(node).await }).await
    }

    /// Starts an actor there; [`SpawnError::Stopping`] if the node does not run.
    pub async fn spawn<A: Actor>(&self, args: A::Args) -> Result<Ref<A>, SpawnError> {
        let started = self.run(move |node| async move { node.spawn::<A>(args).await });
        started.await.unwrap_or(Err(SpawnError::Stopping))
    }

    /// Lets it start an actor on another node; [`SpawnError::Stopping`] if this one does not run.
    pub async fn spawn_on<A: Actor>(
        &self,
        there: impl Into<NodeName>,
        args: A::Args,
    ) -> Result<Ref<A>, SpawnError> {
        let there = there.into();
        let started = self.run(move |node| async move { node.spawn_on::<A>(&there, args).await });
        started.await.unwrap_or(Err(SpawnError::Stopping))
    }

    /// Lets it call a process, anywhere; [`CallError::NoConnection`] if it does not run.
    pub async fn call<M: Message>(
        &self,
        to: impl Into<Dest>,
        message: M,
    ) -> Result<M::Reply, CallError> {
        let to = to.into();
        let reply = self.run(move |node| async move { node.call(to, message).await });
        reply.await.unwrap_or(Err(CallError::NoConnection))
    }

    /// Lets it send a message to a process, anywhere; lost if it does not run.
    pub async fn send<M: Message>(&self, to: impl Into<Dest>, message: M) {
        let to = to.into();
        self.run(move |node| async move { node.send(to, message) }).await;
    }
}

impl std::fmt::Debug for SimulatedNode<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimulatedNode").field(&self.name).finish()
    }
}
