//! What a process can do while it starts, handles and stops.

use std::any::Any;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use either::Either;
use purlin_proto::{
    CallError, Dest, Down, ExitReason, Fence, LinkDown, Message, Name, NodeEvent, NodeName, Pid,
    Reference, SpawnError, zero_copy,
};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use crate::actor::{Actor, Handler, Interrupt, Kind, Outcome};
use crate::aside::aside;
use crate::hosted::Left;
use crate::item::{BoxFuture, Delivery, Item, Notice, Via};
use crate::keyed::stateful::Kept;
use crate::mailbox::{Batch, inner};
use crate::messages::sealed::{Encoded, Handled, Local, Unfinished};
use crate::messages::{Messages, via};
use crate::panics;
use crate::process::Process;
use crate::refs::Ref;
use crate::reply::{Deferred, Reply, Slot};
use crate::runtime::{RegisterError, Runtime};
use crate::task::Task;
use crate::timer::{Idle, IdleTimeout, Timer};

/// The process, as its own handlers see it.
///
/// Handed to every handler; it cannot leave them. What needs a handler of the actor for what comes
/// back can only be asked for where that handler exists: [`monitor`](Self::monitor) needs
/// `Handler<Down>`, [`trap_exits`](Self::trap_exits) `Handler<LinkDown>`,
/// [`monitor_nodes`](Self::monitor_nodes) `Handler<NodeEvent>`, [`send_after`](Self::send_after)
/// `Handler<M>`.
pub struct Context<A: Actor> {
    process: Arc<Process>,
    /// What was taken out of the mailbox; made with the first message.
    batch: Batch,
    /// What most processes do not need; made when first needed. Never locked: see [`Batch`].
    more: Option<Box<Mutex<More>>>,
    /// The coarse time when it last let others have their turn.
    turn: u32,
    actor: PhantomData<fn() -> A>,
}

#[derive(Default)]
struct More {
    stopping: Option<ExitReason>,
    /// The slot of a reply that the present handler has deferred: an `Arc<Slot<R>>`.
    deferred: Option<Box<dyn Any + Send>>,
    on_down: Option<Via>,
    on_link_down: Option<Via>,
    on_node: Option<Via>,
    on_group: Option<Via>,
    on_name_conflict: Option<Via>,
    /// To be handled before anything in the mailbox.
    next: VecDeque<Item>,
    idle: Option<Box<Idle>>,
    /// Of a keyed process with state.
    kept: Option<Box<Kept>>,
    /// Of a child of a cluster supervisor with state: where it leaves it.
    leaves: Option<Left>,
}

impl<A: Actor> Context<A> {
    pub(crate) fn new(process: Arc<Process>) -> Self {
        let turn = process.runtime.coarse_time();
        Self { process, batch: Batch::default(), more: None, turn, actor: PhantomData }
    }

    fn more(&mut self) -> &mut More {
        inner(self.more.get_or_insert_default())
    }

    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub(crate) fn on_group(&mut self, via: Via) {
        self.more().on_group = Some(via);
    }

    pub(crate) fn keep(&mut self, kept: Kept) {
        self.more().kept = Some(Box::new(kept));
    }

    pub(crate) fn kept(&mut self) -> Option<&mut Kept> {
        self.more_if_any()?.kept.as_deref_mut()
    }

    pub(crate) fn leave_in(&mut self, left: Left) {
        self.more().leaves = Some(left);
    }

    pub(crate) fn leaves(&mut self) -> Option<Left> {
        self.more_if_any()?.leaves.clone()
    }

    pub(crate) fn on_name_conflict(&mut self, via: Via) {
        self.more().on_name_conflict = Some(via);
    }

    fn more_if_any(&mut self) -> Option<&mut More> {
        self.more.as_mut().map(|more| inner(more))
    }

    /// The pid of this process (OTP: `self()`).
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// This process, to hand to others.
    pub fn me(&self) -> Ref<A> {
        Ref::to(Arc::clone(&self.process))
    }

    /// The fencing token of this process, greater than that of every earlier process of its key on
    /// any node; `None` unless it is exclusive. To be given along with what it writes elsewhere.
    pub fn fence(&self) -> Option<Fence> {
        self.runtime().fence_of(self.process.serial)
    }

    /// The runtime that it runs in: spawning, names, and sending to destinations of any form.
    pub fn runtime(&self) -> &Runtime {
        &self.process.runtime
    }

    /// Sends a message; see [`Runtime::send`].
    pub fn send<M: Message>(&self, to: impl Into<Dest>, message: M) {
        self.runtime().send(to, message);
    }

    /// Sends a message to many processes, encoded once; see [`Runtime::send_all`].
    pub fn send_all<M: Message + Clone>(
        &self,
        to: impl IntoIterator<Item = impl Into<Dest>>,
        message: M,
    ) {
        self.runtime().send_all(to, message);
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
        self.more().stopping.get_or_insert(reason);
    }

    /// Has a message handled as soon as the present handler, or `start`, has returned: before
    /// anything that waits in the mailbox (OTP: `{continue, Continue}`).
    ///
    /// For what is part of the work at hand but must not keep a caller, or the one who starts this
    /// process, waiting. Several are handled in the order they were given.
    pub fn continue_with<M: Message>(&mut self, message: M)
    where
        A: Handler<M>,
    {
        let item = Item::local(message, Reply::None, Some(via::<A, M>));
        self.more().next.push_back(item);
    }

    /// From now on an [`IdleTimeout`] comes whenever nothing has come for this long; `None` ends it
    /// (OTP: the `Timeout` that a callback returns, which holds for one wait).
    ///
    /// It comes once for each idle time, so a process that stays idle gets it again and again.
    pub fn idle_timeout(&mut self, after: impl Into<Option<Duration>>)
    where
        A: Handler<IdleTimeout>,
    {
        self.more().idle =
            after.into().map(|after| Box::new(Idle::new(after, via::<A, IdleTimeout>)));
    }

    /// Gives memory back that an idle process does not need: room in its mailbox that a burst has
    /// left behind (OTP: `hibernate`). The next message makes it anew.
    pub fn shrink(&mut self) {
        self.batch.shrink();
        self.process.shrink();
    }

    /// Runs what computes long, or blocks, on a thread of its own kind and waits for it.
    ///
    /// A handler that does not come to an `await` keeps one of the few threads that all processes
    /// share; longer than 100 ms, it is counted and warned of. The process handles nothing else
    /// meanwhile. If it is killed, the closure still runs to its end. A panic in the closure is a
    /// panic of the process.
    pub async fn blocking<T: Send + 'static>(
        &self,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let computed = self.runtime().0.executor.spawn_blocking(compute).await;
        match computed {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => {
                    panics::forget();
                    resume_unwind(panic)
                }
                // Not started, because tokio is shutting down: so is this process.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Takes the reply of the present call, to be sent later from anywhere.
    ///
    /// The handler then returns [`noreply`](Self::noreply). `M` is the message in hand.
    pub fn defer<M: Message>(&mut self) -> Deferred<M::Reply> {
        let slot = Slot::<M::Reply>::new();
        let weak = Arc::downgrade(&slot);
        self.process.remember_deferred(weak);
        self.more().deferred = Some(Box::new(Arc::clone(&slot)));
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
        self.more().on_link_down = Some(via::<A, LinkDown>);
        self.process.set_traps_exits(true);
    }

    /// Monitors a process or name: one [`Down`] comes when it ends, or cannot be reached.
    ///
    /// A name or key is resolved now; the monitor stays with the process. For a key that has no process
    /// none is started: the `Down` comes at once, with `NoProcess`. Monitoring oneself gives a
    /// reference and no `Down`.
    pub fn monitor(&mut self, target: impl Into<Dest>) -> Reference
    where
        A: Handler<Down>,
    {
        self.more().on_down = Some(via::<A, Down>);
        self.runtime().monitor(&self.process, target.into())
    }

    /// Takes a monitor back. Whether it was still active: if not, its `Down` has been delivered or
    /// lies in the mailbox.
    pub fn demonitor(&self, reference: Reference) -> bool {
        self.runtime().demonitor(&self.process, reference)
    }

    /// As [`demonitor`](Self::demonitor), and no `Down` of it is handled after this returns, even if
    /// it lies in the mailbox (OTP: `demonitor(Ref, [flush])`). Takes time with the mailbox's length
    /// when the monitor was no longer active.
    pub fn demonitor_flush(&mut self, reference: Reference) -> bool {
        let active = self.demonitor(reference);
        if !active {
            self.batch.flush_down(reference);
            self.process.flush_down(reference);
        }
        active
    }

    /// From now on a [`NodeEvent`] comes for every node that joins or is lost.
    pub fn monitor_nodes(&mut self)
    where
        A: Handler<NodeEvent>,
    {
        self.more().on_node = Some(via::<A, NodeEvent>);
        self.runtime().watch_nodes(&self.process, true);
    }

    /// Ends [`monitor_nodes`](Self::monitor_nodes).
    pub fn demonitor_nodes(&self) {
        self.runtime().watch_nodes(&self.process, false);
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
        self.more().on_down = Some(via::<A, Down>);
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

    fn take_deferred(&mut self) -> Option<Box<dyn Any + Send>> {
        self.more_if_any()?.deferred.take()
    }

    pub(crate) fn count_expired(&self) {
        self.runtime().counters().expired_calls.add();
    }

    /// The next thing in the mailbox, or the reason to end. Others get their turn after a while,
    /// however full the mailbox is.
    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Next, ExitReason>> {
        if let Some(reason) = self.more_if_any().and_then(|more| more.stopping.take()) {
            return Poll::Ready(Err(reason));
        }
        if self.process.wants_end() {
            // Only a reason is wanted: what is left of the batch stays.
            return self.process.poll_take(cx, &mut Batch::default()).map(|taken| match taken {
                Ok(()) => Err(ExitReason::Killed),
                Err(reason) => Err(reason),
            });
        }
        ready!(pin!(consume_budget()).poll(cx));
        let now = self.process.runtime.coarse_time();
        if self.turn != now {
            self.turn = now;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(item) = self.more_if_any().and_then(|more| more.next.pop_front()) {
            return Poll::Ready(Ok(Next::Item(item)));
        }
        let next = loop {
            if let Some(next) = self.pop() {
                break next;
            }
            match self.process.poll_take(cx, &mut self.batch) {
                Poll::Ready(taken) => taken?,
                Poll::Pending => {
                    let idle = self.more_if_any().and_then(|more| more.idle.as_mut());
                    let Some(idle) = idle else { return Poll::Pending };
                    return idle.poll(cx).map(|item| Ok(Next::Item(item)));
                }
            }
        };
        if let Some(idle) = self.more_if_any().and_then(|more| more.idle.as_mut()) {
            idle.note_busy();
        }
        let arrival = usize::from(matches!(next, Next::Arrival));
        self.process.note_taken(self.batch.len() - arrival);
        Poll::Ready(Ok(next))
    }

    /// The next of the batch.
    fn pop(&mut self) -> Option<Next> {
        match self.batch.is_arrival() {
            true => Some(Next::Arrival),
            false => self.batch.pop(&self.process).map(Next::Item),
        }
    }

    fn handle_notice<'a>(&'a mut self, actor: &'a mut A, notice: Notice) -> BoxFuture<'a, Handled> {
        let ignored = || Box::pin(std::future::ready(Ok(())));
        let Some(more) = self.more_if_any() else { return ignored() };
        let (on_down, on_node, on_link_down) = (more.on_down, more.on_node, more.on_link_down);
        let (on_group, on_name_conflict) = (more.on_group, more.on_name_conflict);
        match notice {
            Notice::Down(down) => self.run(on_down, actor, down),
            Notice::Node(event) => self.run(on_node, actor, event),
            Notice::Group(monitor) => match monitor.take(&self.process) {
                Some(event) => self.run(on_group, actor, event),
                None => ignored(),
            },
            Notice::NameConflict(conflict) => self.run(on_name_conflict, actor, conflict),
            // As OTP's behaviours do: a parent's exit is not the program's to handle.
            Notice::LinkDown(LinkDown { pid, reason }) | Notice::Exit { from: pid, reason }
                if self.is_parent(pid) || (pid.serial == 0 && reason.is_orderly()) =>
            {
                Box::pin(std::future::ready(Err(Unfinished::Exit(reason))))
            }
            Notice::LinkDown(link_down) => self.run(on_link_down, actor, link_down),
            Notice::Exit { from, reason } => {
                let link_down = LinkDown { pid: from, reason };
                self.run(on_link_down, actor, link_down)
            }
        }
    }

    fn is_parent(&self, pid: Pid) -> bool {
        self.process.parent().is_some_and(|parent| self.runtime().is_same(parent, pid))
    }

    fn run<'a, M: Message>(
        &'a mut self,
        via: Option<Via>,
        actor: &'a mut A,
        message: M,
    ) -> BoxFuture<'a, Handled> {
        match via {
            Some(via) => {
                let delivery = Delivery { message: Some(message), reply: Reply::None, via: None };
                via(actor, Box::new(delivery), self)
            }
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }
}

/// Where the state of an actor's process comes from, and what becomes of it at an orderly end.
pub(crate) trait Origin<A: Actor>: Send {
    fn begin(self, ctx: &mut Context<A>) -> impl Future<Output = Outcome<A>> + Send;

    fn end(
        actor: &mut A,
        reason: &ExitReason,
        ctx: &mut Context<A>,
    ) -> impl Future<Output = ()> + Send;
}

/// Arguments, and nothing.
pub(crate) struct Args<T>(pub(crate) T);

impl<A: Actor> Origin<A> for Args<A::Args> {
    fn begin(self, ctx: &mut Context<A>) -> impl Future<Output = Outcome<A>> + Send {
        A::start(self.0, ctx)
    }

    fn end(
        actor: &mut A,
        reason: &ExitReason,
        ctx: &mut Context<A>,
    ) -> impl Future<Output = ()> + Send {
        actor.stop(reason, ctx)
    }
}

/// The whole life of an actor's process.
pub(crate) fn run_actor<A: Actor>(
    ctx: Context<A>,
    args: A::Args,
) -> impl Future<Output = ExitReason> + Send {
    run_from(ctx, Args(args))
}

/// The same from another origin. Its size is paid by every process of the kind: see `messages.rs`.
#[expect(clippy::manual_async_fn, reason = "an async fn would hold its parameters twice")]
pub(crate) fn run_from<A: Actor, O: Origin<A>>(
    mut ctx: Context<A>,
    origin: O,
) -> impl Future<Output = ExitReason> + Send {
    async move {
        let mut actor = match origin.begin(&mut ctx).await {
            Ok(actor) => actor,
            Err(Interrupt(Kind::Ignore)) => {
                ctx.process.set_ignored();
                return ExitReason::Normal;
            }
            Err(interrupt) => return interrupt.into_reason(),
        };
        ctx.process.set_started();
        let reason = loop {
            let handled = match poll_fn(|cx| ctx.poll_next(cx)).await {
                Ok(next) => handle_next(&mut actor, next, &mut ctx),
                Err(reason) => break reason,
            };
            match handled.await {
                Ok(()) => {}
                Err(Unfinished::Exit(reason)) => break reason,
                Err(Unfinished::Deferred(deferral)) => {
                    if let Err(reason) = deferral(ctx.take_deferred()) {
                        break reason;
                    }
                }
            }
        };
        ctx.process.set_exit(&reason);
        if reason.is_orderly() {
            O::end(&mut actor, &reason, &mut ctx).await;
        }
        reason
    }
}

/// What a process takes out of its mailbox.
enum Next {
    Item(Item),
    /// The first of the batch, a small message of another node: decoded where it lies, by whoever
    /// handles it, as each time that it is moved costs as much as all the rest.
    Arrival,
}

fn handle_next<'a, A: Actor>(
    actor: &'a mut A,
    next: Next,
    ctx: &'a mut Context<A>,
) -> impl Future<Output = Handled> + Send + 'a {
    let message = match next {
        Next::Arrival => ctx.batch.read(&ctx.process, A::Messages::decode).flatten(),
        Next::Item(Item::Local(message)) => Some(A::Messages::find(Local(message))),
        Next::Item(Item::Encoded(mut message)) => {
            let reply = message.reply.take();
            let (name, payload) = (message.name.as_str().as_bytes(), &message.payload);
            let (codec, body) = (payload.codec, &payload.bytes[..]);
            let encoded = Encoded { name, codec, body, reply, process: &ctx.process };
            let decode = || A::Messages::decode(encoded);
            aside(body.len(), || zero_copy::reading(&payload.bytes, decode))
        }
        Next::Item(Item::Notice(notice)) => {
            return Either::Left(ctx.handle_notice(actor, *notice));
        }
    };
    match message {
        Some(message) => Either::Right(A::Messages::dispatch(actor, message, ctx)),
        None => Either::Left(Box::pin(std::future::ready(Ok(()))) as BoxFuture<'a, _>),
    }
}

/// Calls that it has taken out of the mailbox and not handled are told its exit reason.
impl<A: Actor> Drop for Context<A> {
    fn drop(&mut self) {
        self.batch.clear(&self.process);
    }
}

impl<A: Actor> std::fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("process", &self.process).finish_non_exhaustive()
    }
}
