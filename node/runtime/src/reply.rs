//! The way back of a call.
//!
//! Whoever holds a reply must send it; dropping it tells the caller so at once. If it is dropped
//! because its process is ending, the caller is told the exit reason instead, as soon as that is
//! known: until then it is an orphan of the process.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use purlin_proto::{
    CallError, Codec, Direct, DirectKind, Envelope, ExitReason, NodeId, Payload, Reference, Signal,
    Target,
};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actor::Interrupt;
use crate::current;
use crate::runtime::Runtime;

/// Who waits for the reply to a message; nobody, if it was sent and not called.
pub(crate) enum Reply<R> {
    None,
    Typed(TypedReply<R>),
    /// Boxed, for it is large and few messages have one.
    Encoded(Box<EncodedReply>),
}

/// A caller on this node that knows the type.
pub(crate) struct TypedReply<R> {
    sender: Option<oneshot::Sender<Result<R, CallError>>>,
    /// Told to the receiver's nested calls.
    deadline: Instant,
    /// Called here, dropped without a word by an ending process: see [`orphan`].
    erase: fn(oneshot::Sender<Result<R, CallError>>) -> Orphan,
}

/// A caller that wants bytes: on another node, or a client's session.
pub(crate) struct EncodedReply {
    codec: Codec,
    deadline: Instant,
    sink: Option<Sink>,
}

/// Where the bytes of a reply go.
pub(crate) enum Sink {
    /// To a caller that knows the type.
    Translate(Box<dyn FnOnce(Result<Payload, CallError>) + Send>),
    Channel(oneshot::Sender<Result<Payload, CallError>>),
    Wire {
        runtime: Runtime,
        caller: NodeId,
        to: u64,
        callee: u64,
        reference: Reference,
    },
}

/// A caller that is told the exit reason of an ending process.
pub(crate) type Orphan = Box<dyn FnOnce(CallError) + Send>;

/// What becomes of a reply that is dropped unsent.
fn abandon(make: impl FnOnce() -> Orphan) {
    let orphan = make();
    let ending = current::with(|process| {
        (std::thread::panicking() || process.is_ending()).then(|| Arc::clone(process))
    });
    match ending.flatten() {
        Some(process) => process.adopt(orphan),
        None => orphan(CallError::Dropped),
    }
}

impl<R: Send + 'static> Reply<R> {
    pub(crate) fn typed(deadline: Instant) -> (Self, oneshot::Receiver<Result<R, CallError>>) {
        let (sender, receiver) = oneshot::channel();
        let erase = |sender: oneshot::Sender<Result<R, CallError>>| -> Orphan {
            // A caller that no longer waits needs no answer.
            Box::new(move |error| drop(sender.send(Err(error))))
        };
        (Self::Typed(TypedReply { sender: Some(sender), deadline, erase }), receiver)
    }

    pub(crate) fn fail(self, error: CallError) {
        match self {
            Self::None => {}
            Self::Typed(mut typed) => {
                if let Some(sender) = typed.sender.take() {
                    drop(sender.send(Err(error)));
                }
            }
            Self::Encoded(encoded) => encoded.send(Err(error)),
        }
    }

    /// Whether the caller has given up. Costs a clock reading for callers elsewhere only.
    pub(crate) fn is_expired(&self) -> bool {
        match self {
            Self::None => false,
            Self::Typed(typed) => typed.sender.as_ref().is_none_or(oneshot::Sender::is_closed),
            Self::Encoded(encoded) => encoded.is_expired(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Typed(typed) => Some(typed.deadline),
            Self::Encoded(encoded) => Some(encoded.deadline),
        }
    }
}

impl<R: Serialize + Send + 'static> Reply<R> {
    pub(crate) fn send(self, value: R) {
        match self {
            Self::None => {}
            Self::Typed(mut typed) => {
                if let Some(sender) = typed.sender.take() {
                    // A caller that no longer waits needs no answer.
                    drop(sender.send(Ok(value)));
                }
            }
            Self::Encoded(encoded) => encoded.send_value(&value),
        }
    }
}

impl<R: Serialize + serde::de::DeserializeOwned + Send + 'static> Reply<R> {
    /// For a receiver that answers in bytes: translates them for a caller that knows the type.
    pub(crate) fn into_encoded(self, codec: Codec) -> Option<Box<EncodedReply>> {
        match self {
            Self::None => None,
            Self::Encoded(encoded) => Some(encoded),
            Self::Typed(mut typed) => {
                let sender = typed.sender.take()?;
                let sink = Sink::Translate(Box::new(move |result| {
                    let value = result.and_then(|payload: Payload| {
                        let detail = |error| CallError::Decode { detail: format!("{error}") };
                        payload.decode::<R>().map_err(detail)
                    });
                    // A caller that no longer waits needs no answer.
                    drop(sender.send(value));
                }));
                Some(EncodedReply::new(codec, typed.deadline, sink))
            }
        }
    }
}

impl<R> Drop for TypedReply<R> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            abandon(|| (self.erase)(sender));
        }
    }
}

impl EncodedReply {
    #[expect(clippy::unnecessary_box_returns, reason = "it is kept in a box")]
    pub(crate) fn new(codec: Codec, deadline: Instant, sink: Sink) -> Box<Self> {
        Box::new(Self { codec, deadline, sink: Some(sink) })
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn is_expired(&self) -> bool {
        let closed = match &self.sink {
            Some(Sink::Channel(sender)) => sender.is_closed(),
            Some(Sink::Wire { .. } | Sink::Translate(_)) => false,
            None => true,
        };
        closed || Instant::now() >= self.deadline
    }

    pub(crate) fn send(mut self, result: Result<Payload, CallError>) {
        if let Some(sink) = self.sink.take() {
            sink.send(result);
        }
    }

    fn send_value<R: Serialize>(mut self, value: &R) {
        let codec = self.codec;
        match self.sink.take() {
            Some(Sink::Wire { runtime, caller, to, callee, reference }) => {
                let what = DirectKind::Reply { reference, codec };
                let direct = Direct { to: &Target::Serial(to), from: callee, what, value };
                runtime.answer_direct(caller, &direct);
            }
            Some(sink) => {
                let payload = Payload::encode(codec, value)
                    .map_err(|error| CallError::Decode { detail: format!("reply: {error}") });
                sink.send(payload);
            }
            None => {}
        }
    }
}

impl Drop for EncodedReply {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            abandon(|| Box::new(move |error| sink.send(Err(error))));
        }
    }
}

impl Sink {
    fn send(self, result: Result<Payload, CallError>) {
        match self {
            // A caller that no longer waits needs no answer.
            Self::Channel(sender) => drop(sender.send(result)),
            Self::Translate(translate) => translate(result),
            Self::Wire { runtime, caller, to, callee, reference } => {
                let signal = Signal::Reply { reference, result };
                let envelope = Envelope { to: Target::Serial(to), from: callee, signal };
                runtime.answer(caller, envelope);
            }
        }
    }
}

/// A reply that will be sent later, from anywhere: another handler, a task, a thread.
///
/// Made by [`Context::defer`](crate::Context::defer). Dropping it unsent tells the caller
/// [`CallError::Dropped`] at once. When the process that deferred it ends first, the caller is told
/// the exit reason.
pub struct Deferred<R: Send + 'static> {
    slot: Arc<Slot<R>>,
}

/// Where a deferred reply and its value meet; either may come first.
pub(crate) struct Slot<R>(Mutex<SlotState<R>>);

enum SlotState<R> {
    Empty,
    Reply(Reply<R>),
    Value(R),
    /// Nobody will send: dropped before the handler returned.
    Dropped,
    Done,
}

/// A reply whose handler has returned without it: takes the slot that the handler has made, an
/// `Arc<Slot<R>>`, and puts the reply there. Without one, the process has broken its word.
pub(crate) type Deferral =
    Box<dyn FnOnce(Option<Box<dyn Any + Send>>) -> Result<(), ExitReason> + Send>;

/// What the process keeps of the replies it has deferred, without their types.
pub(crate) trait FailLater: Send + Sync {
    fn fail(&self, error: CallError);
}

impl<R: Serialize + Send + 'static> Slot<R> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(SlotState::Empty)))
    }

    fn change(&self, next: impl FnOnce(SlotState<R>) -> SlotState<R>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *state, SlotState::Done);
        *state = next(before);
    }

    pub(crate) fn deferral(reply: Reply<R>) -> Deferral {
        Box::new(move |slot| match slot.and_then(|slot| slot.downcast::<Arc<Self>>().ok()) {
            Some(slot) => {
                slot.put_reply(reply);
                Ok(())
            }
            None => {
                let reason = Interrupt::no_reply().into_reason();
                reply.fail(CallError::Exited(reason.clone()));
                Err(reason)
            }
        })
    }

    /// The handler has returned: the way back is known.
    pub(crate) fn put_reply(&self, reply: Reply<R>) {
        self.change(|before| match before {
            SlotState::Empty => SlotState::Reply(reply),
            SlotState::Value(value) => {
                reply.send(value);
                SlotState::Done
            }
            SlotState::Dropped => {
                reply.fail(CallError::Dropped);
                SlotState::Done
            }
            other => other,
        });
    }
}

impl<R: Send + 'static> FailLater for Slot<R> {
    fn fail(&self, error: CallError) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let SlotState::Reply(reply) = std::mem::replace(&mut *state, SlotState::Done) {
            reply.fail(error);
        }
    }
}

impl<R: Serialize + Send + 'static> Deferred<R> {
    pub(crate) fn new(slot: Arc<Slot<R>>) -> Self {
        Self { slot }
    }

    /// Sends the reply. If the caller has given up it is dropped.
    pub fn send(self, value: R) {
        self.slot.change(|before| match before {
            SlotState::Empty => SlotState::Value(value),
            SlotState::Reply(reply) => {
                reply.send(value);
                SlotState::Done
            }
            other => other,
        });
    }
}

impl<R: Send + 'static> Drop for Deferred<R> {
    fn drop(&mut self) {
        let mut state = self.slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            SlotState::Empty => *state = SlotState::Dropped,
            SlotState::Reply(_) => {
                let before = std::mem::replace(&mut *state, SlotState::Done);
                drop(state);
                if let SlotState::Reply(reply) = before {
                    // Not `fail(Dropped)`: when its process is ending, the reason is told.
                    drop(reply);
                }
            }
            SlotState::Value(_) | SlotState::Dropped | SlotState::Done => {}
        }
    }
}

impl<R: Send + 'static> std::fmt::Debug for Deferred<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deferred").finish_non_exhaustive()
    }
}

/// A deferred reply as the process remembers it.
pub(crate) type WeakDeferred = Weak<dyn FailLater>;

/// What is left until a deadline, not below zero.
pub(crate) fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
