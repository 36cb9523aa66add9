//! From a message to its handler.
//!
//! [`Messages`] is implemented for tuples of up to twelve message types, which makes the table from
//! type and wire name to handler at compile time: a short chain of comparisons, no map, no boxed
//! future.

use std::any::TypeId;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use either::Either;
use pin_project_lite::pin_project;
use purlin_proto::{CallError, Message, Payload};

use crate::actor::{Actor, Handler, Interrupt, Kind, Outcome};
use crate::context::Context;
use crate::current;
use crate::item::{BoxFuture, Delivery, LocalMessage};
use crate::process::Process;
use crate::reply::{EncodedReply, Reply, Slot};

/// The messages that the actor `A` accepts from anywhere: a tuple of [`Message`] types, for each of
/// which `A` is a [`Handler`].
///
/// Implemented for `()` and tuples of up to twelve types; a tuple of one is written `(Add,)`.
pub trait Messages<A: Actor>: sealed::Sealed {
    /// Their names on the wire.
    const NAMES: &'static [&'static str];

    /// One of them, by its type.
    #[doc(hidden)]
    type One: Send;

    #[doc(hidden)]
    fn decode(message: sealed::Encoded<'_>) -> Option<Self::One>;

    #[doc(hidden)]
    fn find(message: sealed::Local) -> Self::One;

    #[doc(hidden)]
    fn dispatch<'a>(
        actor: &'a mut A,
        message: Self::One,
        ctx: &'a mut Context<A>,
    ) -> impl Future<Output = sealed::Handled> + Send + 'a;
}

pub(crate) mod sealed {
    use purlin_proto::{Codec, ExitReason, Message};

    use super::Origin;
    use crate::item::LocalMessage;
    use crate::process::Process;
    use crate::reply::{Deferral, EncodedReply};

    pub trait Sealed {}

    /// A message of this node on its way to a handler.
    #[expect(missing_debug_implementations, reason = "holds a user's value, seen by no user")]
    pub struct Local(pub(crate) Box<dyn LocalMessage>);

    /// One that is still to be decoded, where it lies.
    #[expect(missing_debug_implementations, reason = "seen by no user")]
    pub struct Encoded<'a> {
        /// UTF-8.
        pub(crate) name: &'a [u8],
        pub(crate) codec: Codec,
        pub(crate) body: &'a [u8],
        pub(crate) reply: Option<Box<EncodedReply>>,
        pub(crate) process: &'a Process,
    }

    /// A message whose handler is known, and who waits for its reply.
    #[expect(missing_debug_implementations, reason = "holds a user's value, seen by no user")]
    pub struct Given<M: Message> {
        pub(crate) message: M,
        pub(crate) origin: Origin<M>,
    }

    /// What is left to do when a handler has returned and the loop cannot just go on.
    #[expect(missing_debug_implementations, reason = "seen by no user")]
    pub enum Unfinished {
        /// The process is to end.
        Exit(ExitReason),
        /// The handler has deferred its reply.
        Deferred(Deferral),
    }

    /// What a handler's end leads to.
    pub(crate) type Handled = Result<(), Unfinished>;
}

use sealed::{Encoded, Given, Handled, Local, Unfinished};

/// Where a message came from, which is where its reply goes. Two words, as it is part of every
/// process of the kind.
pub(crate) enum Origin<M: Message> {
    /// Its box, the message taken out.
    Here(Box<Delivery<M>>),
    Elsewhere(Option<Box<EncodedReply>>),
}

impl<M: Message> Origin<M> {
    fn take_reply(&mut self) -> Reply<M::Reply> {
        match self {
            Self::Here(delivery) => std::mem::replace(&mut delivery.reply, Reply::None),
            Self::Elsewhere(reply) => reply.take().map_or(Reply::None, Reply::Encoded),
        }
    }

    fn deadline(&self) -> Option<tokio::time::Instant> {
        match self {
            Self::Here(delivery) => delivery.reply.deadline(),
            Self::Elsewhere(reply) => reply.as_ref().map(|reply| reply.deadline()),
        }
    }

    /// Whether the caller has given up.
    fn is_expired(&self) -> bool {
        match self {
            Self::Here(delivery) => delivery.reply.is_expired(),
            Self::Elsewhere(reply) => reply.as_ref().is_some_and(|reply| reply.is_expired()),
        }
    }
}

// The futures here are parts of every process of the kind, also of an idle one. So none is an
// `async fn`, which holds its parameters twice; the choice between handlers is an `Either`, which
// adds nothing to the largest of them; and what need not lie in them lies in the message's box. A
// message of another node has no box: it goes from its bytes into its handler's future.
macro_rules! messages {
    ($($message:ident = $index:literal),*) => {
        impl<$($message: Message),*> sealed::Sealed for ($($message,)*) {}

        impl<Me, $($message),*> Messages<Me> for ($($message,)*)
        where
            Me: Actor $(+ Handler<$message>)*,
            $($message: Message,)*
        {
            const NAMES: &'static [&'static str] = &[$($message::NAME),*];

            type One = one!($($message),*);

            fn decode(message: Encoded<'_>) -> Option<Self::One> {
                decode!(message, Me, $($message),*)
            }

            fn find(message: Local) -> Self::One {
                let _type = message.0.message_type();
                find!(message, _type, $($message),*)
            }

            fn dispatch<'a>(
                actor: &'a mut Me,
                message: Self::One,
                ctx: &'a mut Context<Me>,
            ) -> impl Future<Output = Handled> + Send + 'a {
                choose!(actor, message, ctx, Me, $($message = $index),*)
            }
        }
    };
}

/// The type of one of these, or of one that is not listed.
macro_rules! one {
    () => { Local };
    ($first:ident $(, $rest:ident)*) => { Either<Given<$first>, one!($($rest),*)> };
}

macro_rules! decode {
    ($message:ident, $me:ident,) => {{
        not_understood($message, $me::KIND);
        None
    }};
    ($message:ident, $me:ident, $first:ident $(, $rest:ident)*) => {
        if $message.name == $first::NAME.as_bytes() {
            decode::<$first>($message, $me::KIND).map(Either::Left)
        } else {
            decode!($message, $me, $($rest),*).map(Either::Right)
        }
    };
}

macro_rules! find {
    ($message:ident, $type:ident,) => { $message };
    ($message:ident, $type:ident, $first:ident $(, $rest:ident)*) => {
        if $type == TypeId::of::<$first>() {
            Either::Left(typed::<$first>($message.0))
        } else {
            Either::Right(find!($message, $type, $($rest),*))
        }
    };
}

macro_rules! choose {
    ($actor:ident, $message:ident, $ctx:ident, $me:ident,) => {
        handle_unlisted($actor, $message.0, $ctx)
    };
    ($actor:ident, $message:ident, $ctx:ident, $me:ident,
     $first:ident = $index:literal $(, $rest:ident = $rest_index:literal)*) => {
        match $message {
            Either::Left(given) => {
                Either::Left(handle::<$me, $first>($actor, given, Some($index), $ctx))
            }
            Either::Right(message) => Either::Right(choose!(
                $actor, message, $ctx, $me, $($rest = $rest_index),*
            )),
        }
    };
}

messages!();
messages!(M0 = 0);
messages!(M0 = 0, M1 = 1);
messages!(M0 = 0, M1 = 1, M2 = 2);
messages!(M0 = 0, M1 = 1, M2 = 2, M3 = 3);
messages!(M0 = 0, M1 = 1, M2 = 2, M3 = 3, M4 = 4);
messages!(M0 = 0, M1 = 1, M2 = 2, M3 = 3, M4 = 4, M5 = 5);
messages!(M0 = 0, M1 = 1, M2 = 2, M3 = 3, M4 = 4, M5 = 5, M6 = 6);
messages!(M0 = 0, M1 = 1, M2 = 2, M3 = 3, M4 = 4, M5 = 5, M6 = 6, M7 = 7);
messages!(M0 = 0, M1 = 1, M2 = 2, M3 = 3, M4 = 4, M5 = 5, M6 = 6, M7 = 7, M8 = 8);
messages!(M0 = 0, M1 = 1, M2 = 2, M3 = 3, M4 = 4, M5 = 5, M6 = 6, M7 = 7, M8 = 8, M9 = 9);
messages!(M0 = 0, M1 = 1, M2 = 2, M3 = 3, M4 = 4, M5 = 5, M6 = 6, M7 = 7, M8 = 8, M9 = 9, M10 = 10);
messages!(
    M0 = 0,
    M1 = 1,
    M2 = 2,
    M3 = 3,
    M4 = 4,
    M5 = 5,
    M6 = 6,
    M7 = 7,
    M8 = 8,
    M9 = 9,
    M10 = 10,
    M11 = 11
);

fn typed<M: Message>(message: Box<dyn LocalMessage>) -> Given<M> {
    let mut delivery: Box<Delivery<M>> =
        message.into_any().downcast().expect("its type was compared");
    let message = delivery.message.take().expect("handled once");
    Given { message, origin: Origin::Here(delivery) }
}

fn decode<M: Message>(encoded: Encoded<'_>, kind: &str) -> Option<Given<M>> {
    let Encoded { codec, body, reply, process, .. } = encoded;
    match Payload::decode_from::<M>(codec, body) {
        Ok(message) => Some(Given { message, origin: Origin::Elsewhere(reply) }),
        Err(error) => {
            count_not_understood(process, kind, M::NAME);
            if let Some(reply) = reply {
                let detail = format!("{}: {error}", M::NAME);
                reply.send(Err(CallError::Decode { detail }));
            }
            None
        }
    }
}

fn not_understood(message: Encoded<'_>, kind: &str) {
    let name = String::from_utf8_lossy(message.name);
    count_not_understood(message.process, kind, &name);
    if let Some(reply) = message.reply {
        let (kind, message) = (kind.to_owned(), name.into_owned());
        reply.send(Err(CallError::NotUnderstood { kind, message }));
    }
}

fn count_not_understood(process: &Process, kind: &str, message: &str) {
    process.runtime.counters().dropped_not_understood.add();
    tracing::debug!(pid = %process.pid(), kind, message, "message not understood");
}

/// A message that is not in `A::Messages`, sent by one who knew that `A` handles it.
fn handle_unlisted<'a, A: Actor>(
    actor: &'a mut A,
    message: Box<dyn LocalMessage>,
    ctx: &'a mut Context<A>,
) -> BoxFuture<'a, Handled> {
    if let Some(via) = message.via() {
        return via(actor, message, ctx);
    }
    let (kind, name) = (A::KIND.to_owned(), message.name().to_owned());
    count_not_understood(ctx.process(), &kind, &name);
    message.fail(CallError::NotUnderstood { kind, message: name });
    Box::pin(std::future::ready(Ok(())))
}

/// The way to a handler that only the sender knows of; see [`Via`](crate::item::Via).
pub(crate) fn via<'a, A: Handler<M>, M: Message>(
    actor: &'a mut (dyn std::any::Any + Send),
    message: Box<dyn LocalMessage>,
    ctx: &'a mut (dyn std::any::Any + Send),
) -> BoxFuture<'a, Handled> {
    match (actor.downcast_mut::<A>(), ctx.downcast_mut::<Context<A>>()) {
        (Some(actor), Some(ctx)) => Box::pin(handle::<A, M>(actor, typed(message), None, ctx)),
        // The pid of the reference named a process of another kind.
        _ => {
            let (kind, name) = ("?".to_owned(), M::NAME.to_owned());
            message.fail(CallError::NotUnderstood { kind, message: name });
            Box::pin(std::future::ready(Ok(())))
        }
    }
}

/// Begins to run the handler, unless its caller has given up.
fn handle<'a, A: Handler<M>, M: Message>(
    actor: &'a mut A,
    given: Given<M>,
    index: Option<usize>,
    ctx: &'a mut Context<A>,
) -> impl Future<Output = Handled> + Send + use<'a, A, M> {
    let Given { message, mut origin } = given;
    let handler = if origin.is_expired() {
        ctx.count_expired();
        // Nobody waits for it.
        origin.take_reply().fail(CallError::Timeout);
        None
    } else {
        ctx.begin(index, origin.deadline());
        Some(actor.handle(message, ctx))
    };
    Handling { handler, origin }
}

pin_project! {
    /// A handler that runs; sends its reply when it returns.
    struct Handling<F, M: Message> {
        // None for a call that came too late.
        #[pin]
        handler: Option<F>,
        origin: Origin<M>,
    }
}

impl<M: Message, F: Future<Output = Outcome<M::Reply>>> Future for Handling<F, M> {
    type Output = Handled;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Handled> {
        let this = self.project();
        let Some(handler) = this.handler.as_pin_mut() else { return Poll::Ready(Ok(())) };
        let outcome = ready!(handler.poll(cx));
        current::with(|process| process.end());
        if outcome.is_ok() && matches!(this.origin, Origin::Elsewhere(None)) {
            return Poll::Ready(Ok(()));
        }
        let reply = this.origin.take_reply();
        Poll::Ready(match outcome {
            Ok(value) => {
                reply.send(value);
                Ok(())
            }
            Err(Interrupt(Kind::NoReply)) => Err(Unfinished::Deferred(Slot::deferral(reply))),
            Err(interrupt) => {
                let reason = interrupt.into_reason();
                reply.fail(CallError::Exited(reason.clone()));
                Err(Unfinished::Exit(reason))
            }
        })
    }
}
