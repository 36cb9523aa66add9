//! Sending and calling: from a destination to a mailbox, here or elsewhere.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use purlin_proto::admin::CALL_TIMEOUT;
use purlin_proto::codec::EncodeError;
use purlin_proto::{
    CallError, Dest, Direct, DirectKind, Envelope, Key, Message, MessageName, Name, Payload,
    Reference, Signal, Target,
};
use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use crate::current;
use crate::entries::send::Several;
use crate::item::{EncodedMessage, Item, Via};
use crate::mailbox::WhenFull;
use crate::panics;
use crate::pending::Wanted;
use crate::process::{Process, Rejected};
use crate::remote::{Peer, Priority, Sent, flow};
use crate::reply::{EncodedReply, Reply, Sink, remaining};
use crate::runtime::Runtime;
use crate::spawn::Forget;
use crate::timer::LONGEST;

/// Where a destination leads.
pub(crate) enum Route {
    Here(Option<Arc<Process>>),
    There(Peer, Target),
    /// To the process of a key that this node owns; it may have to be started.
    Key(Name, Key),
    /// To many, or nobody: not for calls.
    Several(Several),
}

impl Runtime {
    /// Sends a message: it arrives, or is dropped and counted. Never waits, never fails (OTP: `!`).
    ///
    /// To a group or topic it is sent to each of its processes, encoded once, also for those of this
    /// node; they need accept it from anywhere.
    ///
    /// Messages of one process to another arrive in the order they were sent; of what tasks send that
    /// are no processes, those to the same address (a pid, a name, a key) do. A message is dropped
    /// when the receiver is gone or out of reach, or when its mailbox or the queue to its node is
    /// full; see [`send_wait`](Self::send_wait).
    pub fn send<M: Message>(&self, to: impl Into<Dest>, message: M) {
        let to = to.into();
        self.note_cast(&to);
        let route = self.route(&to);
        self.send_to(&route, message, None);
    }

    /// As [`send`](Self::send), but waits while the receiver's mailbox, or the queue to its node, is
    /// full. Cancel safe: when dropped before it returns, the message is not sent. For several
    /// processes at once, a group or topic, it does not wait.
    pub async fn send_wait<M: Message>(&self, to: impl Into<Dest>, message: M) {
        let to = to.into();
        self.note_cast(&to);
        let route = self.route(&to);
        self.send_wait_to(route, message, None).await;
    }

    /// Calls a process and waits for its reply, 5 s at most (OTP: `gen_server:call/2`).
    ///
    /// Within a call that is being handled, the deadline is no later than that call's. Cancel safe:
    /// when dropped, the reply is dropped, but the message may be handled.
    pub async fn call<M: Message>(
        &self,
        to: impl Into<Dest>,
        message: M,
    ) -> Result<M::Reply, CallError> {
        self.call_timeout(to, message, CALL_TIMEOUT).await
    }

    /// As [`call`](Self::call), with another timeout.
    pub async fn call_timeout<M: Message>(
        &self,
        to: impl Into<Dest>,
        message: M,
        timeout: Duration,
    ) -> Result<M::Reply, CallError> {
        let to = to.into();
        let timeout = self.when_there(&to, timeout).await?;
        self.call_to(self.route_one(&to)?, message, timeout, None).await
    }

    /// Waits, if this is a child that does not run, until it does; what is left of the timeout.
    pub(crate) async fn when_there(
        &self,
        to: &Dest,
        timeout: Duration,
    ) -> Result<Duration, CallError> {
        if !matches!(to, Dest::Child(_)) {
            return Ok(timeout);
        }
        let deadline = deadline(timeout);
        // Not on the way of most calls, so boxed: they need not carry it.
        Box::pin(self.child_runs(to, deadline)).await?;
        Ok(remaining(deadline))
    }

    /// Sends a message in its encoded form.
    pub fn send_encoded(&self, to: impl Into<Dest>, name: MessageName, payload: Payload) {
        let to = to.into();
        self.note_cast(&to);
        match self.route(&to) {
            Route::Here(process) => {
                let message = EncodedMessage { name, payload, reply: None, charge: None };
                self.deliver(process.as_deref(), Item::Encoded(Box::new(message)));
            }
            Route::There(peer, target) => {
                let signal = Signal::Send { message: name, payload, waits: false };
                self.send_user(peer, target, signal);
            }
            Route::Key(kind, key) => {
                let message = EncodedMessage { name, payload, reply: None, charge: None };
                self.deliver_key(&kind, &key, Item::Encoded(Box::new(message)));
            }
            Route::Several(several) => self.send_several_encoded(&several, &name, &payload),
        }
    }

    /// Calls with a message in its encoded form (OTP: `send_request`).
    ///
    /// The call is out when this returns, unless it is to a child of a cluster supervisor that does
    /// not run; what it returns is awaited for the reply, in the codec of the question.
    pub fn request_encoded(
        &self,
        to: &Dest,
        name: MessageName,
        payload: Payload,
        timeout: Duration,
    ) -> impl Future<Output = Result<Payload, CallError>> + Send + use<> {
        // Whoever asks need not wait for the answer before it sends something else.
        self.note_cast(to);
        let deadline = deadline(timeout);
        let absent = matches!(to, Dest::Child(child) if self.whereis_child(child).is_none());
        let (out, later) = match absent {
            false => (Some(self.request_now(to, name, payload, deadline)), None),
            true => (None, Some((self.clone(), to.clone(), name, payload))),
        };
        async move {
            match (out, later) {
                (Some(out), _) => out.await,
                (None, Some((runtime, to, name, payload))) => {
                    runtime.child_runs(&to, deadline).await?;
                    runtime.request_now(&to, name, payload, deadline).await
                }
                (None, None) => unreachable!("one of the two"),
            }
        }
    }

    fn request_now(
        &self,
        to: &Dest,
        name: MessageName,
        payload: Payload,
        deadline: Instant,
    ) -> impl Future<Output = Result<Payload, CallError>> + Send + use<> {
        let asked = match self.route_one(to) {
            Err(error) => Err(error),
            Ok(Route::Several(_)) => unreachable!("one process is called"),
            Ok(Route::Here(process)) => {
                let (sender, receiver) = oneshot::channel();
                let sink = Sink::Channel(sender);
                let reply = Some(EncodedReply::new(payload.codec, deadline, sink));
                let message = EncodedMessage { name, payload, reply, charge: None };
                self.deliver(process.as_deref(), Item::Encoded(Box::new(message)));
                Ok((None, receiver))
            }
            Ok(Route::Key(kind, key)) => {
                let (sender, receiver) = oneshot::channel();
                let reply = EncodedReply::new(payload.codec, deadline, Sink::Channel(sender));
                let message = EncodedMessage { name, payload, reply: Some(reply), charge: None };
                self.deliver_key(&kind, &key, Item::Encoded(Box::new(message)));
                Ok((None, receiver))
            }
            Ok(Route::There(peer, to)) if self.is_stopped(peer, &to) => Err(CallError::Overloaded),
            Ok(Route::There(peer, to)) => self
                .call_remote(peer, deadline, |reference, remaining| {
                    let signal = Signal::Call { reference, remaining, message: name, payload };
                    let envelope = Envelope { to, from: self.sender(), signal };
                    Ok(self.send_remote(peer, &envelope, Priority::User))
                })
                .map(|(reference, receiver)| (Some(reference), receiver)),
        };
        let runtime = self.clone();
        async move {
            let (reference, receiver) = asked?;
            let _forget = reference.map(|reference| Forget { runtime: &runtime, reference });
            answer(deadline, receiver).await
        }
    }

    // ----- routing -----

    pub(crate) fn route(&self, to: &Dest) -> Route {
        match to {
            Dest::Pid(pid) if self.is_own(pid) => Route::Here(self.process(pid.serial)),
            Dest::Pid(pid) if pid.node.name == self.name() => Route::Here(None),
            Dest::Pid(pid) => Route::There(Peer::Life(pid.node), Target::Serial(pid.serial)),
            Dest::Remote(name, node) if *node != self.name() => {
                Route::There(Peer::Name(*node), Target::Name(name.clone()))
            }
            Dest::Local(name) | Dest::Remote(name, _) => {
                Route::Here(self.serial_of(name).and_then(|serial| self.process(serial)))
            }
            Dest::Key { kind, key } => self.route_key(kind, key),
            _ => self.route_entry(to),
        }
    }

    /// Puts a message into a mailbox, or tells its caller and the counters why not.
    pub(crate) fn deliver(&self, to: Option<&Process>, item: Item) {
        let Some(process) = to else { return self.dropped_dead(item) };
        if let Some(item) = self.offer(process, item) {
            self.dropped_full(process, item);
        }
    }

    pub(crate) fn dropped_dead(&self, item: Item) {
        self.counters().dropped_no_process.add();
        item.fail(CallError::NoProcess);
    }

    pub(crate) fn dropped_full(&self, process: &Process, item: Item) {
        self.counters().dropped_mailbox_full.add();
        process.count_dropped();
        item.fail(CallError::Overloaded);
    }

    /// As [`deliver`](Self::deliver), but what may wait for room is handed back.
    fn offer(&self, process: &Process, item: Item) -> Option<Item> {
        self.pushed(process, process.push(item))
    }

    /// What is to be done when a mailbox has been offered a message; what may wait for room is
    /// handed back.
    pub(crate) fn pushed(
        &self,
        process: &Process,
        pushed: Result<Option<Item>, (Rejected, Item)>,
    ) -> Option<Item> {
        match pushed {
            Ok(None) => None,
            Ok(Some(oldest)) => {
                // In the sender, who has nothing to do with it.
                panics::contained("a message was dropped", || self.dropped_full(process, oldest));
                None
            }
            Err((Rejected::Dead, item)) => {
                self.dropped_dead(item);
                None
            }
            Err((Rejected::Full, item)) => match process.class.mailbox.when_full() {
                WhenFull::Wait => Some(item),
                WhenFull::DropNewest | WhenFull::DropOldest => {
                    self.dropped_full(process, item);
                    None
                }
            },
        }
    }

    /// Waits for room if the receiver's policy is to wait.
    async fn deliver_wait(&self, process: &Arc<Process>, item: Item) {
        let mut waiting = self.offer(process, item);
        while let Some(item) = waiting {
            self.local_room(process).await;
            waiting = self.offer(process, item);
        }
    }

    pub(crate) fn send_to<M: Message>(&self, route: &Route, message: M, via: Option<Via>) {
        match route {
            Route::Here(process) => {
                self.deliver(process.as_deref(), Item::local(message, Reply::None, via));
            }
            Route::There(peer, to) => self.send_there(*peer, to, &message),
            Route::Key(kind, key) => {
                self.deliver_key(kind, key, Item::local(message, Reply::None, via));
            }
            Route::Several(several) => self.send_several(several, &message),
        }
    }

    /// Sends a message to another node, or drops it.
    pub(crate) fn send_there<M: Message>(&self, peer: Peer, to: &Target, message: &M) {
        if self.is_stopped(peer, to) {
            return self.counters().dropped_mailbox_full.add();
        }
        let what = DirectKind::Send(M::NAME);
        let direct = Direct { to, from: self.sender(), what, value: message };
        match self.send_direct(peer, &direct, Priority::User) {
            Ok(sent) => self.count_sent(sent, 1),
            Err(error) => self.count_not_encodable(M::NAME, &error, 1),
        }
    }

    /// Sends a message to another node, or drops it, unless it has to wait for room; whether it was
    /// one or the other.
    pub(crate) fn send_if_room<M: Message>(&self, peer: Peer, to: &Target, message: &M) -> bool {
        if self.is_stopped(peer, to) {
            return false;
        }
        let what = DirectKind::SendWait(M::NAME);
        let direct = Direct { to, from: self.sender(), what, value: message };
        match self.send_direct(peer, &direct, Priority::User) {
            Ok(Sent::Full) => return false,
            Ok(sent) => self.count_sent(sent, 1),
            Err(error) => self.count_not_encodable(M::NAME, &error, 1),
        }
        true
    }

    /// Returns when a message for another node may find room. Cancel safe.
    async fn room_there(&self, peer: Peer, to: &Target) {
        if self.is_stopped(peer, to) {
            self.0.stopped.free(peer.name(), to).await;
        } else if let Some(remote) = self.0.remote.get() {
            remote.ready(peer, flow(self.sender(), to)).await;
        }
    }

    /// Whether a receiver on another node has no room, as that node has told.
    pub(crate) fn is_stopped(&self, peer: Peer, to: &Target) -> bool {
        self.0.stopped.holds(peer.name(), to)
    }

    pub(crate) fn send_user(&self, peer: Peer, to: Target, signal: Signal) {
        self.send_from(self.sender(), peer, to, signal);
    }

    pub(crate) fn send_from(&self, from: u64, peer: Peer, to: Target, signal: Signal) {
        if self.is_stopped(peer, &to) {
            return self.counters().dropped_mailbox_full.add();
        }
        let envelope = Envelope { to, from, signal };
        let sent = self.send_remote(peer, &envelope, Priority::User);
        self.count_sent(sent, 1);
    }

    /// Counts a message that was not sent, once for each of its receivers.
    pub(crate) fn count_sent(&self, sent: Sent, receivers: u64) {
        let counters = self.counters();
        match sent {
            Sent::Accepted => {}
            Sent::Full => counters.dropped_link_full.add_many(receivers),
            Sent::Unreachable => counters.dropped_no_connection.add_many(receivers),
            Sent::Gone => counters.dropped_old_life.add_many(receivers),
            Sent::NotEncodable => counters.dropped_not_encodable.add_many(receivers),
        }
    }

    /// Sends a message when there is room for it.
    pub(crate) async fn send_wait_to<M: Message>(
        &self,
        route: Route,
        message: M,
        via: Option<Via>,
    ) {
        let route = match route {
            Route::Key(kind, key) if self.is_switching(&kind, &key) => {
                Box::pin(self.switched(&kind, &key)).await;
                self.route_again(&kind, &key)
            }
            route => route,
        };
        match route {
            Route::Here(Some(process)) => {
                // A fast sender and its receiver go in step.
                consume_budget().await;
                self.deliver_wait(&process, Item::local(message, Reply::None, via)).await;
            }
            Route::Here(None) => self.counters().dropped_no_process.add(),
            Route::Several(several) => self.send_several(&several, &message),
            Route::Key(kind, key) => {
                consume_budget().await;
                let item = Item::local(message, Reply::None, via);
                self.deliver_key_wait(&kind, &key, item).await;
            }
            Route::There(peer, to) => {
                // As for a process of this node.
                consume_budget().await;
                while !self.send_if_room(peer, &to, &message) {
                    self.room_there(peer, &to).await;
                }
            }
        }
    }

    pub(crate) fn count_not_encodable(&self, message: &str, error: &EncodeError, receivers: u64) {
        self.counters().dropped_not_encodable.add_many(receivers);
        tracing::warn!(message, %error, "message dropped");
    }

    /// Returns when the mailbox of a process of this node may have room, or it is dead.
    pub(crate) async fn local_room(&self, process: &Process) {
        let mut waiting = None;
        poll_fn(|cx| {
            let waker = waiting.get_or_insert_with(|| Arc::new(cx.waker().clone()));
            if Arc::weak_count(waker) > 0 || !process.wait_for_room(waker) {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    // ----- calls -----

    pub(crate) async fn call_to<M: Message>(
        &self,
        route: Route,
        message: M,
        timeout: Duration,
        via: Option<Via>,
    ) -> Result<M::Reply, CallError> {
        let deadline = deadline(timeout);
        let route = match route {
            Route::Key(kind, key) if self.is_switching(&kind, &key) => {
                let switched = tokio::time::timeout_at(deadline, self.switched(&kind, &key));
                Box::pin(switched).await.map_err(|_| CallError::Timeout)?;
                self.route_again(&kind, &key)
            }
            route => route,
        };
        match route {
            Route::Several(_) => unreachable!("one process is called"),
            Route::Here(process) => {
                if process.as_ref().is_some_and(is_current) {
                    return Err(CallError::SelfCall);
                }
                let (reply, receiver) = Reply::typed(deadline);
                let item = Item::local(message, reply, via);
                let Some(process) = process else {
                    self.dropped_dead(item);
                    return Err(CallError::NoProcess);
                };
                if let Some(item) = self.offer(&process, item) {
                    // Not on the way of most calls, so boxed: they need not carry it.
                    let waits = Box::pin(self.deliver_wait(&process, item));
                    if tokio::time::timeout_at(deadline, waits).await.is_err() {
                        return Err(CallError::Overloaded);
                    }
                }
                answer(deadline, receiver).await
            }
            Route::Key(kind, key) => {
                let process = self.find_keyed(&kind, &key);
                if process.is_some_and(|process| is_current(&process)) {
                    return Err(CallError::SelfCall);
                }
                let (reply, receiver) = Reply::typed(deadline);
                let item = Item::local(message, reply, via);
                if let Some((process, item)) = self.offer_key(&kind, &key, item) {
                    let waits = Box::pin(async {
                        self.local_room(&process).await;
                        self.deliver_key_wait(&kind, &key, item).await;
                    });
                    if tokio::time::timeout_at(deadline, waits).await.is_err() {
                        return Err(CallError::Overloaded);
                    }
                }
                answer(deadline, receiver).await
            }
            Route::There(peer, to) => self.call_there(peer, to, message, deadline).await,
        }
    }

    /// Calls a process of another node and waits for its reply.
    pub(crate) async fn call_there<M: Message>(
        &self,
        peer: Peer,
        to: Target,
        message: M,
        deadline: Instant,
    ) -> Result<M::Reply, CallError> {
        let (reference, receiver) = loop {
            if self.is_stopped(peer, &to) {
                let free = self.0.stopped.free(peer.name(), &to);
                let free = tokio::time::timeout_at(deadline, free).await;
                free.map_err(|_| CallError::Overloaded)?;
            }
            let asked = self.call_remote(peer, deadline, |reference, remaining| {
                let what = DirectKind::Call { message: M::NAME, reference, remaining };
                let direct = Direct { to: &to, from: self.sender(), what, value: &message };
                self.send_direct(peer, &direct, Priority::User)
            });
            match asked {
                Err(CallError::Overloaded) => self.room_by(peer, &to, deadline).await?,
                asked => break asked?,
            }
        };
        let forget = Forget { runtime: self, reference };
        let answered = answer(deadline, receiver).await;
        if answered.is_ok() {
            forget.not_needed();
        }
        let bad = |error| CallError::Decode { detail: format!("reply: {error}") };
        answered?.decode().map_err(bad)
    }

    /// Sends a call to another node; what is returned gets the answer.
    pub(crate) fn call_remote(
        &self,
        peer: Peer,
        deadline: Instant,
        send: impl FnOnce(Reference, Duration) -> Result<Sent, EncodeError>,
    ) -> Result<(Reference, oneshot::Receiver<Result<Payload, CallError>>), CallError> {
        let reference = self.reference();
        let (caller, receiver) = oneshot::channel();
        self.0.pending.insert(reference, peer.name(), Wanted::Reply(caller));
        let error = match send(reference, remaining(deadline)) {
            Ok(Sent::Accepted) => return Ok((reference, receiver)),
            Ok(Sent::Full) => CallError::Overloaded,
            Ok(Sent::Unreachable) => CallError::NoConnection,
            Ok(Sent::Gone) => CallError::NoProcess,
            Ok(Sent::NotEncodable) => {
                CallError::Decode { detail: "the message is larger than a frame may be".to_owned() }
            }
            Err(error) => CallError::Decode { detail: error.to_string() },
        };
        self.0.pending.unsent(reference);
        Err(error)
    }

    /// Waits until the queue to a node has room, at most until a deadline.
    pub(crate) async fn room_by(
        &self,
        peer: Peer,
        to: &Target,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let Some(remote) = self.0.remote.get() else { return Err(CallError::NoConnection) };
        let room = tokio::time::timeout_at(deadline, remote.ready(peer, flow(self.sender(), to)));
        room.await.map_err(|_| CallError::Overloaded)
    }
}

/// The deadline of a call: its own, or that of the call in hand if that is sooner.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    // What a client says is left may be anything.
    let own = Instant::now() + timeout.min(LONGEST);
    let inherited = current::with(|process| process.deadline()).flatten();
    inherited.map_or(own, |inherited| own.min(inherited))
}

/// Whether a process is the one that is being polled.
fn is_current(process: &Arc<Process>) -> bool {
    current::with(|me| Arc::ptr_eq(me, process)).unwrap_or(false)
}

/// Waits for an answer until the deadline.
pub(crate) async fn answer<T>(
    deadline: Instant,
    receiver: oneshot::Receiver<Result<T, CallError>>,
) -> Result<T, CallError> {
    match tokio::time::timeout_at(deadline, receiver).await {
        Ok(Ok(result)) => result,
        // Only when the tokio runtime is being torn down.
        Ok(Err(_)) => Err(CallError::NoProcess),
        Err(_) => Err(CallError::Timeout),
    }
}
