//! What a process can do while it starts, handles and stops.

use std::any::Any;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::codec::DecodeError;
use purlin_proto::{
    CallError, Dest, Down, ExitReason, LinkDown, Message, Name, NodeEvent, NodeName, Pid,
    Reference, SpawnError,
};
use tokio::time::Instant;

use crate::actor::{Actor, Handler, Interrupt, Outcome};
use crate::item::{EncodedMessage, Item, Notice, Via};
use crate::messages::sealed::{Form, Incoming};
use crate::messages::{Messages, via};
use crate::process::Process;
use crate::refs::Ref;
use crate::reply::{Deferred, EncodedReply, Reply, Slot};
use crate::runtime::{RegisterError, Runtime};
use crate::task::Task;
use crate::timer::Timer;

/// The process, as its own handlers see it.
///
/// Handed to every handler; it cannot leave them. What needs a handler of the actor for what comes
/// back can only be asked for where that handler exists: [`monitor`](Self::monitor) needs
/// `Handler<Down>`, [`trap_exits`](Self::trap_exits) `Handler<LinkDown>`,
/// [`monitor_nodes`](Self::monitor_nodes) `Handler<NodeEvent>`, [`send_after`](Self::send_after)
/// `Handler<M>`.
pub struct Context<A: Actor> {
    process: Arc<Process>,
    batch: VecDeque<Item>,
    stopping: Option<ExitReason>,
    /// The slot of a reply that the present handler has deferred: an `Arc<Slot<R>>`.
    deferred: Option<Box<dyn Any + Send>>,
    on_down: Option<Via>,
    on_link_down: Option<Via>,
    on_node: Option<Via>,
    actor: PhantomData<fn() -> A>,
}

impl<A: Actor> Context<A> {
    pub(crate) fn new(process: Arc<Process>) -> Self {
        Self {
            process,
            batch: VecDeque::new(),
            stopping: None,
            deferred: None,
            on_down: None,
            on_link_down: None,
            on_node: None,
            actor: PhantomData,
        }
    }

    /// The pid of this process (OTP: `self()`).
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// This process, to hand to others.
    pub fn me(&self) -> Ref<A> {
        Ref::to(Arc::clone(&self.process))
    }

    /// The runtime that it runs in: spawning, names, and sending to destinations of any form.
    pub fn runtime(&self) -> &Runtime {
        &self.process.runtime
    }

    /// Sends a message; see [`Runtime::send`].
    pub fn send<M: Message>(&self, to: impl Into<Dest>, message: M) {
        self.runtime().send(to, message);
    }

    /// Calls a process; see [`Runtime::call`].
    pub async fn call<M: Message>(
        &self,
        to: impl Into<Dest>,
        message: M,
    ) -> Result<M::Reply, CallError> {
        self.runtime().call(to, message).await
    }

    // ----- ending and replying later -----

    /// Ends the process with this reason when the present handler has returned.
    ///
    /// For an orderly reason [`Actor::stop`] is called. What still waits in the mailbox is dropped,
    /// its callers are told.
    pub fn stop(&mut self, reason: ExitReason) {
        self.stopping.get_or_insert(reason);
    }

    /// Takes the reply of the present call, to be sent later from anywhere.
    ///
    /// The handler then returns [`noreply`](Self::noreply). `M` is the message in hand.
    pub fn defer<M: Message>(&mut self) -> Deferred<M::Reply> {
        let slot = Slot::<M::Reply>::new();
        let weak = Arc::downgrade(&slot);
        self.process.remember_deferred(weak);
        self.deferred = Some(Box::new(Arc::clone(&slot)));
        Deferred::new(slot)
    }

    /// What a handler returns that has deferred its reply (OTP: `{noreply, State}`).
    pub fn noreply<T>(&self) -> Outcome<T> {
        Err(Interrupt::no_reply())
    }

    // ----- links, monitors -----

    /// Links this process to another, as if the other had done it (OTP: `link/1`).
    ///
    /// When one of the two ends, the other gets an exit signal. Linking to a process that is dead
    /// or out of reach gives that signal at once, with `NoProcess` or `NoConnection`.
    pub fn link(&self, other: impl Into<Pid>) {
        self.runtime().link(&self.process, other.into());
    }

    /// Takes a link back, from both sides. No exit signal of it arrives after this returns.
    pub fn unlink(&self, other: impl Into<Pid>) {
        self.runtime().unlink(&self.process, other.into());
    }

    /// From now on, when a linked process ends, this one gets a [`LinkDown`] and lives on.
    ///
    /// An orderly exit of its own parent still ends it, as in OTP.
    pub fn trap_exits(&mut self)
    where
        A: Handler<LinkDown>,
    {
        self.on_link_down = Some(via::<A, LinkDown>);
        self.process.set_traps_exits(true);
    }

    /// Monitors a process or name: one [`Down`] comes when it ends, or cannot be reached.
    ///
    /// A name is resolved now; the monitor stays with the process. Monitoring oneself gives a
    /// reference and no `Down`.
    pub fn monitor(&mut self, target: impl Into<Dest>) -> Reference
    where
        A: Handler<Down>,
    {
        self.on_down = Some(via::<A, Down>);
        self.runtime().monitor(&self.process, target.into())
    }

    /// Takes a monitor back. Whether it was still active: if not, its `Down` has been delivered or
    /// lies in the mailbox.
    pub fn demonitor(&self, reference: Reference) -> bool {
        self.runtime().demonitor(&self.process, reference)
    }

    /// From now on a [`NodeEvent`] comes for every node that joins or is lost.
    pub fn monitor_nodes(&mut self)
    where
        A: Handler<NodeEvent>,
    {
        self.on_node = Some(via::<A, NodeEvent>);
        self.runtime().watch_nodes(self.process.serial, true);
    }

    /// Ends [`monitor_nodes`](Self::monitor_nodes).
    pub fn demonitor_nodes(&self) {
        self.runtime().watch_nodes(self.process.serial, false);
    }

    // ----- timers -----

    /// Sends a message to this process after a while, at least `delay` from now.
    ///
    /// The timer ends with the process.
    pub fn send_after<M: Message>(&self, delay: Duration, message: M) -> Timer
    where
        A: Handler<M>,
    {
        let item = Item::local(message, Reply::None, Some(via::<A, M>));
        Timer::start(&self.process, delay, item)
    }

    // ----- spawning -----

    /// Starts a process that is linked to this one from its first moment (OTP: `start_link`).
    ///
    /// Returns when its `start` has. A failing start is an error here and sends no exit signal.
    pub async fn spawn_link<B: Actor>(&self, args: B::Args) -> Result<Ref<B>, SpawnError> {
        self.runtime().spawn_by::<B>(&self.process, args, None, true, None).await
    }

    /// Starts a process that this one monitors from its first moment (OTP: `spawn_monitor`).
    pub async fn spawn_monitor<B: Actor>(
        &mut self,
        args: B::Args,
    ) -> Result<(Ref<B>, Reference), SpawnError>
    where
        A: Handler<Down>,
    {
        self.on_down = Some(via::<A, Down>);
        let reference = self.runtime().reference();
        let spawned =
            self.runtime().spawn_by::<B>(&self.process, args, None, false, Some(reference)).await?;
        Ok((spawned, reference))
    }

    /// Starts a linked process on another node, by its kind; see [`Runtime::spawn_on`].
    pub async fn spawn_link_on<B: Actor>(
        &self,
        node: &NodeName,
        args: B::Args,
    ) -> Result<Ref<B>, SpawnError> {
        self.runtime().spawn_by::<B>(&self.process, args, Some(*node), true, None).await
    }

    /// Runs a future as a process of its own, linked to this one.
    pub fn task<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        Task::start(self.runtime(), Some(&self.process), future)
    }

    /// Gives this process a name on its node.
    pub fn register(&self, name: impl Into<Name>) -> Result<(), RegisterError> {
        self.runtime().register(name.into(), self.pid())
    }

    // ----- the loop -----

    pub(crate) fn begin(&self, index: Option<usize>, deadline: Option<Instant>) {
        self.process.begin(index, deadline);
    }

    pub(crate) fn end(&self) {
        self.process.end();
    }

    pub(crate) fn settle_deferred<R>(&mut self, reply: Reply<R>) -> Result<(), ExitReason>
    where
        R: serde::Serialize + Send + 'static,
    {
        let slot = self.deferred.take().and_then(|slot| slot.downcast::<Arc<Slot<R>>>().ok());
        match slot {
            Some(slot) => {
                slot.put_reply(reply);
                Ok(())
            }
            None => {
                let reason = Interrupt::no_reply().into_reason();
                reply.fail(CallError::Exited(reason.clone()));
                Err(reason)
            }
        }
    }

    pub(crate) fn count_expired(&self) {
        self.runtime().counters().expired_calls.add();
    }

    pub(crate) fn count_not_understood(&self, message: &str) {
        self.runtime().counters().dropped_not_understood.add();
        tracing::debug!(pid = %self.pid(), kind = A::KIND, message, "message not understood");
    }

    pub(crate) fn not_understood(&self, message: EncodedMessage) {
        self.count_not_understood(message.name.as_str());
        if let Some(reply) = message.reply {
            let (kind, message) = (A::KIND.to_owned(), message.name.to_string());
            reply.send(Err(CallError::NotUnderstood { kind, message }));
        }
    }

    pub(crate) fn bad_message(
        &self,
        message: &str,
        error: &DecodeError,
        reply: Option<EncodedReply>,
    ) {
        self.count_not_understood(message);
        if let Some(reply) = reply {
            reply.send(Err(CallError::Decode { detail: format!("{message}: {error}") }));
        }
    }

    /// The next thing in the mailbox, or the reason to end.
    async fn next(&mut self) -> Result<Item, ExitReason> {
        loop {
            if let Some(reason) = self.stopping.take() {
                return Err(reason);
            }
            if !self.batch.is_empty() && !self.process.wants_end() {
                let item = self.batch.pop_front().expect("not empty");
                self.process.note_taken(self.batch.len());
                return Ok(item);
            }
            let (process, batch) = (&self.process, &mut self.batch);
            poll_fn(|cx| match process.wants_end() {
                // Only a reason is wanted: what is left of the batch stays.
                true => process.poll_take(cx, &mut VecDeque::new()),
                false => process.poll_take(cx, batch),
            })
            .await?;
        }
    }

    /// Handles messages until the process is to end; the reason why.
    pub(crate) async fn serve(&mut self, actor: &mut A) -> ExitReason {
        let reason = loop {
            let handled = match self.next().await {
                Ok(Item::Local(message)) => {
                    A::Messages::dispatch(actor, Incoming(Form::Local(message)), self).await
                }
                Ok(Item::Encoded(message)) => {
                    A::Messages::dispatch(actor, Incoming(Form::Encoded(message)), self).await
                }
                Ok(Item::Notice(notice)) => self.handle_notice(actor, *notice).await,
                Err(reason) => Err(reason),
            };
            if let Err(reason) = handled {
                break reason;
            }
        };
        self.process.set_exit(&reason);
        if reason.is_orderly() {
            actor.stop(&reason, self).await;
        }
        reason
    }

    async fn handle_notice(&mut self, actor: &mut A, notice: Notice) -> Result<(), ExitReason> {
        match notice {
            Notice::Down(down) => self.run(self.on_down, actor, down).await,
            Notice::Node(event) => self.run(self.on_node, actor, event).await,
            // As OTP's behaviours do: a parent's exit is not the program's to handle.
            Notice::LinkDown(LinkDown { pid, reason }) | Notice::Exit { from: pid, reason }
                if self.process.parent == Some(pid) || (pid.serial == 0 && reason.is_orderly()) =>
            {
                Err(reason)
            }
            Notice::LinkDown(link_down) => self.run(self.on_link_down, actor, link_down).await,
            Notice::Exit { from, reason } => {
                let link_down = LinkDown { pid: from, reason };
                self.run(self.on_link_down, actor, link_down).await
            }
        }
    }

    async fn run<M: Message>(
        &mut self,
        via: Option<Via>,
        actor: &mut A,
        message: M,
    ) -> Result<(), ExitReason> {
        let Some(via) = via else { return Ok(()) };
        let delivery = crate::item::Delivery { message, reply: Reply::None, via: None };
        via(actor, Box::new(delivery), self).await
    }
}

/// The whole life of an actor's process.
pub(crate) async fn run_actor<A: Actor>(process: Arc<Process>, args: A::Args) -> ExitReason {
    let mut ctx = Context::<A>::new(Arc::clone(&process));
    match A::start(args, &mut ctx).await {
        Ok(mut actor) => {
            process.set_started();
            ctx.serve(&mut actor).await
        }
        Err(interrupt) => interrupt.into_reason(),
    }
}

impl<A: Actor> std::fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("process", &self.process).finish_non_exhaustive()
    }
}
