//! Processes that take from their mailbox themselves.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use purlin_proto::codec::DecodeError;
use purlin_proto::{
    CallError, Codec, Dest, Down, ExitReason, GroupEvent, LinkDown, Message, MessageName,
    NameConflict, NodeEvent, NodeName, Payload, Pid, Reference, SpawnError,
};

use crate::actor::Actor;
use crate::hosted::{Hosted, HostedChild, Left};
use crate::item::{Delivery, EncodedMessage, Item, Notice};
use crate::mailbox::Batch;
use crate::process::Process;
use crate::refs::Ref;
use crate::relations::Address;
use crate::reply::Reply;
use crate::runtime::Runtime;
use crate::spawn::SpawnOptions;
use crate::supervisor::{Supervisor, SupervisorRef};

/// What a process started with [`Runtime::spawn_raw`] can do.
///
/// ```
/// use purlin_runtime::{Received, RawKind, Runtime};
/// use purlin_runtime::ExitReason;
///
/// static WATCHER: RawKind = RawKind::new("watcher");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::local("a".into());
/// let task = runtime.task(async {});
/// let target = task.pid().ok_or("not started")?;
/// let (tell, told) = tokio::sync::oneshot::channel();
/// runtime.spawn_raw(&WATCHER, |mut ctx| async move {
///     ctx.monitor(target);
///     if let Received::Down(down) = ctx.receive().await? {
///         let _ = tell.send(down.reason);
///     }
///     Ok(())
/// })?;
/// assert!(matches!(told.await?, ExitReason::Normal | ExitReason::NoProcess));
/// # Ok(())
/// # }
/// ```
pub struct RawContext {
    process: Arc<Process>,
    batch: Batch,
}

/// Something from the mailbox of a raw process.
#[derive(Debug)]
#[non_exhaustive]
pub enum Received {
    /// A message, of any type.
    Message(Untyped),
    /// A monitored process ended.
    Down(Down),
    /// A linked process ended, and this one traps exits.
    LinkDown(LinkDown),
    /// This process was asked to end, and traps exits.
    Exit {
        /// By whom; serial 0 for the node itself.
        from: Pid,
        /// The reason it should end with.
        reason: ExitReason,
    },
    /// A node joined or was lost.
    Node(NodeEvent),
    /// Processes have joined or left a group that this one monitors.
    Group(GroupEvent),
    /// This process has lost a global name.
    NameConflict(NameConflict),
}

/// The end of a raw process: an exit signal reached it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the process is to end: {0}")]
pub struct Ended(pub ExitReason);

impl RawContext {
    pub(crate) fn new(process: Arc<Process>) -> Self {
        Self { process, batch: Batch::default() }
    }

    /// The pid of this process.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The runtime that it runs in.
    pub fn runtime(&self) -> &Runtime {
        &self.process.runtime
    }

    /// Takes the next thing from the mailbox, waiting for it. Cancel safe.
    pub async fn receive(&mut self) -> Result<Received, Ended> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// As [`receive`](Self::receive), for hand-written futures.
    pub fn poll_receive(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Received, Ended>> {
        let received = loop {
            match self.batch.pop(&self.process).map(|item| self.received(item)) {
                Some(Some(received)) => break received,
                Some(None) => {}
                None => ready!(self.process.poll_take(cx, &mut self.batch)).map_err(Ended)?,
            }
        };
        self.process.note_taken(self.batch.len());
        self.process.end();
        Poll::Ready(Ok(received))
    }

    /// What an item of the mailbox is; `None` if it has become nothing.
    fn received(&self, item: Item) -> Option<Received> {
        Some(match item {
            Item::Local(message) => Received::Message(Untyped(Form::Local(message))),
            Item::Encoded(message) => Received::Message(Untyped(Form::Encoded(message))),
            Item::Notice(notice) => match *notice {
                Notice::Down(down) => Received::Down(down),
                Notice::LinkDown(link_down) => Received::LinkDown(link_down),
                Notice::Exit { from, reason } => Received::Exit { from, reason },
                Notice::Node(event) => Received::Node(event),
                Notice::Group(monitor) => Received::Group(monitor.take(&self.process)?),
                Notice::NameConflict(conflict) => Received::NameConflict(conflict),
            },
        })
    }

    /// Links this process to another; see [`Context::link`](crate::Context::link).
    pub fn link(&self, other: impl Into<Pid>) {
        self.runtime().link(&self.process, other.into());
    }

    /// Takes a link back; see [`Context::unlink`](crate::Context::unlink).
    pub fn unlink(&self, other: impl Into<Pid>) {
        self.runtime().unlink(&self.process, other.into());
    }

    /// Whether exits of linked processes, and requests to end, come as messages.
    pub fn trap_exits(&self, trap: bool) {
        self.process.set_traps_exits(trap);
    }

    /// Monitors a process or name; see [`Context::monitor`](crate::Context::monitor).
    pub fn monitor(&self, target: impl Into<Dest>) -> Reference {
        self.runtime().monitor(&self.process, target.into())
    }

    /// Takes a monitor back; see [`Context::demonitor`](crate::Context::demonitor).
    pub fn demonitor(&self, reference: Reference) -> bool {
        self.runtime().demonitor(&self.process, reference)
    }

    /// Takes a monitor back, and what it may have said already; see
    /// [`Context::demonitor_flush`](crate::Context::demonitor_flush).
    pub fn demonitor_flush(&mut self, reference: Reference) -> bool {
        let active = self.demonitor(reference);
        if !active {
            self.batch.flush_down(reference);
            self.process.flush_down(reference);
        }
        active
    }

    /// Starts a process that is linked to this one from its first moment; see
    /// [`Context::spawn_link`](crate::Context::spawn_link).
    pub fn spawn_link<B: Actor>(
        &self,
        args: B::Args,
    ) -> impl Future<Output = Result<Ref<B>, SpawnError>> + Send + use<B> {
        self.spawn_related(None, args, true, None)
    }

    /// As [`spawn_link`](Self::spawn_link), on another node.
    pub fn spawn_link_on<B: Actor>(
        &self,
        node: NodeName,
        args: B::Args,
    ) -> impl Future<Output = Result<Ref<B>, SpawnError>> + Send + use<B> {
        self.spawn_related(Some(node), args, true, None)
    }

    /// Starts a process that this one monitors from its first moment, here or on another node; see
    /// [`Context::spawn_monitor`](crate::Context::spawn_monitor). The reference is that of the
    /// [`Received::Down`] to come.
    pub fn spawn_monitor<B: Actor>(
        &self,
        node: Option<NodeName>,
        args: B::Args,
    ) -> impl Future<Output = Result<(Ref<B>, Reference), SpawnError>> + Send + use<B> {
        let reference = self.runtime().reference();
        let spawned = self.spawn_related(node, args, false, Some(reference));
        async move { Ok((spawned.await?, reference)) }
    }

    /// Starts a child of a cluster supervisor on this node, of a kind by its name, linked to this process
    /// from its first moment, which it takes for its parent. See [`HostedChild`].
    pub fn spawn_child_link(
        &self,
        kind: &str,
        args: Payload,
        child: HostedChild,
    ) -> (impl Future<Output = Result<Pid, SpawnError>> + Send + use<>, Left) {
        let runtime = self.runtime().clone();
        let (hosted, left) = Hosted::new(child);
        let options = SpawnOptions {
            parent: Some(self.pid()),
            link: Some(Address::Local(self.process.serial)),
            hosted: Some(Box::new(hosted)),
            ..SpawnOptions::default()
        };
        let unknown =
            || SpawnError::UnknownKind { kind: kind.to_owned(), known: runtime.kinds().names() };
        let started = runtime
            .kind(kind)
            .map(|kind| kind.spawn(runtime.clone(), args, options))
            .ok_or_else(unknown);
        (async move { Ok(started?.await?.pid()) }, left)
    }

    /// Starts a supervisor that is linked to this process, and takes it for its parent (OTP:
    /// `supervisor:start_link`).
    pub fn supervise_link(
        &self,
        supervisor: Supervisor,
    ) -> impl Future<Output = Result<SupervisorRef, SpawnError>> + Send + use<> {
        let process = Arc::clone(&self.process);
        async move {
            let options = SpawnOptions {
                parent: Some(process.pid()),
                link: Some(Address::Local(process.serial)),
                ..SpawnOptions::default()
            };
            let runtime = process.runtime.clone();
            let started = crate::supervisor::start(&runtime, supervisor, options).await?;
            Ok(SupervisorRef::from_pid(&runtime, started.pid()))
        }
    }

    fn spawn_related<B: Actor>(
        &self,
        node: Option<NodeName>,
        args: B::Args,
        link: bool,
        monitor: Option<Reference>,
    ) -> impl Future<Output = Result<Ref<B>, SpawnError>> + Send + use<B> {
        let process = Arc::clone(&self.process);
        async move { process.runtime.clone().spawn_by::<B>(&process, args, node, link, monitor).await }
    }

    /// From now on a [`Received::Node`] comes for every node that joins or is lost.
    pub fn monitor_nodes(&self) {
        self.runtime().watch_nodes(&self.process, true);
    }

    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

/// Calls that it has taken out of the mailbox and not handled are told its exit reason.
impl Drop for RawContext {
    fn drop(&mut self) {
        self.batch.clear(&self.process);
    }
}

impl fmt::Debug for RawContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawContext").field("process", &self.process).finish_non_exhaustive()
    }
}

/// A message of any type, and the way back to its caller if it was called.
pub struct Untyped(Form);

enum Form {
    Local(Box<dyn crate::item::LocalMessage>),
    Encoded(Box<EncodedMessage>),
}

/// A message that was taken as an `M`, or why its body is none.
pub type Taken<M> = Result<(M, Answer<<M as Message>::Reply>), DecodeError>;

/// The way back of a call that was taken with [`Untyped::take`]; dropping it tells the caller.
pub struct Answer<R: Send + 'static>(Reply<R>);

impl<R: serde::Serialize + Send + 'static> Answer<R> {
    /// Sends the reply; nothing happens if the message was not called.
    pub fn send(self, value: R) {
        self.0.send(value);
    }
}

impl<R: Send + 'static> fmt::Debug for Answer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Untyped {
    /// Takes it for something that cannot travel, if it is that.
    pub(crate) fn into_local<T: 'static>(self) -> Result<Box<T>, Self> {
        match self.0 {
            Form::Local(message) if message.message_type() == std::any::TypeId::of::<T>() => {
                Ok(message.into_any().downcast().expect("its type was compared"))
            }
            other => Err(Self(other)),
        }
    }

    /// Its name on the wire.
    pub fn name(&self) -> &str {
        match &self.0 {
            Form::Local(message) => message.name(),
            Form::Encoded(message) => message.name.as_str(),
        }
    }

    /// Takes it for a message of type `M`, if it is one by its name; else hands it back.
    ///
    /// A body of another form is an error, and its caller is told.
    pub fn take<M: Message>(self) -> Result<Taken<M>, Self> {
        if self.name() != M::NAME {
            return Err(self);
        }
        match self.0 {
            Form::Local(message) => match message.into_any().downcast::<Delivery<M>>() {
                Ok(delivery) => {
                    let message = delivery.message.expect("not handled yet");
                    Ok(Ok((message, Answer(delivery.reply))))
                }
                // Two types under one name.
                Err(_) => Ok(Err(DecodeError::Malformed { detail: "another type".to_owned() })),
            },
            Form::Encoded(message) => {
                let EncodedMessage { payload, reply, .. } = *message;
                match payload.decode() {
                    Ok(value) => {
                        let reply = reply.map_or(Reply::None, Reply::Encoded);
                        Ok(Ok((value, Answer(reply))))
                    }
                    Err(error) => {
                        if let Some(reply) = reply {
                            let detail = format!("{}: {error}", M::NAME);
                            reply.send(Err(CallError::Decode { detail }));
                        }
                        Ok(Err(error))
                    }
                }
            }
        }
    }

    /// Its encoded form, to be passed on; in `codec` if it has none yet.
    ///
    /// A call that is passed on without its reply being sent ends as
    /// [`Dropped`](CallError::Dropped).
    pub fn into_payload(
        self,
        codec: Codec,
    ) -> Result<(MessageName, Payload), purlin_proto::codec::EncodeError> {
        let message = match self.0 {
            Form::Local(message) => message.encode(codec)?,
            Form::Encoded(message) => *message,
        };
        Ok((message.name, message.payload))
    }

    /// Refuses it: a caller is told that this process does not understand it.
    pub fn refuse(self, kind: &str) {
        let message = self.name().to_owned();
        let error = CallError::NotUnderstood { kind: kind.to_owned(), message };
        match self.0 {
            Form::Local(local) => local.fail(error),
            Form::Encoded(encoded) => {
                if let Some(reply) = encoded.reply {
                    reply.send(Err(error));
                }
            }
        }
    }
}

impl fmt::Debug for Untyped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Untyped").field(&self.name()).finish()
    }
}
