//! From a message to its handler.
//!
//! [`Messages`] is implemented for tuples of up to twelve message types, which makes the table from
//! type and wire name to handler at compile time: a short chain of comparisons, no map, no boxed
//! future.

use std::any::TypeId;
use std::future::Future;

use either::Either;
use purlin_proto::{CallError, ExitReason, Message, Payload};

use crate::actor::{Actor, Handler, Interrupt, Kind};
use crate::context::Context;
use crate::item::{BoxFuture, Delivery, LocalMessage};
use crate::process::Process;
use crate::reply::Reply;

/// The messages that the actor `A` accepts from anywhere: a tuple of [`Message`] types, for each of
/// which `A` is a [`Handler`].
///
/// Implemented for `()` and tuples of up to twelve types; a tuple of one is written `(Add,)`.
pub trait Messages<A: Actor>: sealed::Sealed {
    /// Their names on the wire.
    const NAMES: &'static [&'static str];

    #[doc(hidden)]
    fn open(message: sealed::Encoded<'_>) -> Option<sealed::Local>;

    #[doc(hidden)]
    fn dispatch<'a>(
        actor: &'a mut A,
        message: sealed::Local,
        ctx: &'a mut Context<A>,
    ) -> impl Future<Output = Result<(), ExitReason>> + Send + 'a;
}

pub(crate) mod sealed {
    use purlin_proto::Codec;

    use crate::item::LocalMessage;
    use crate::process::Process;
    use crate::reply::EncodedReply;

    pub trait Sealed {}

    /// A message on its way to a handler.
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
}

use sealed::{Encoded, Local};

// The futures here are parts of every process of the kind, also of an idle one. So none is an
// `async fn`, which holds its parameters twice; the choice between handlers is an `Either`, which
// adds nothing to the largest of them; and what need not lie in them lies in the message's box.
macro_rules! messages {
    ($($message:ident = $index:literal),*) => {
        impl<$($message: Message),*> sealed::Sealed for ($($message,)*) {}

        impl<Me, $($message),*> Messages<Me> for ($($message,)*)
        where
            Me: Actor $(+ Handler<$message>)*,
            $($message: Message,)*
        {
            const NAMES: &'static [&'static str] = &[$($message::NAME),*];

            fn open(message: Encoded<'_>) -> Option<Local> {
                $(if message.name == $message::NAME.as_bytes() {
                    return decode::<$message>(message, Me::KIND);
                })*
                not_understood(message, Me::KIND);
                None
            }

            fn dispatch<'a>(
                actor: &'a mut Me,
                message: Local,
                ctx: &'a mut Context<Me>,
            ) -> impl Future<Output = Result<(), ExitReason>> + Send + 'a {
                let _wanted = message.0.message_type();
                choose!(actor, message, ctx, _wanted, Me, $($message = $index),*)
            }
        }
    };
}

macro_rules! choose {
    ($actor:ident, $message:ident, $ctx:ident, $wanted:ident, $me:ident,) => {
        handle_unlisted($actor, $message.0, $ctx)
    };
    ($actor:ident, $message:ident, $ctx:ident, $wanted:ident, $me:ident,
     $first:ident = $index:literal $(, $rest:ident = $rest_index:literal)*) => {
        if $wanted == TypeId::of::<$first>() {
            let delivery = typed::<$first>($message.0);
            Either::Left(handle::<$me, $first>($actor, delivery, Some($index), $ctx))
        } else {
            Either::Right(choose!(
                $actor, $message, $ctx, $wanted, $me, $($rest = $rest_index),*
            ))
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

#[expect(clippy::unnecessary_box_returns, reason = "it stays where it is")]
fn typed<M: Message>(message: Box<dyn LocalMessage>) -> Box<Delivery<M>> {
    message.into_any().downcast().expect("its type was compared")
}

fn decode<M: Message>(encoded: Encoded<'_>, kind: &str) -> Option<Local> {
    let Encoded { codec, body, reply, process, .. } = encoded;
    match Payload::decode_from::<M>(codec, body) {
        Ok(message) => {
            let reply = reply.map_or(Reply::None, Reply::Encoded);
            let delivery = Delivery { message: Some(message), reply, via: None };
            Some(Local(Box::new(delivery)))
        }
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
) -> BoxFuture<'a, Result<(), ExitReason>> {
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
) -> BoxFuture<'a, Result<(), ExitReason>> {
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

/// Runs the handler and sends its reply.
fn handle<'a, A: Handler<M>, M: Message>(
    actor: &'a mut A,
    mut delivery: Box<Delivery<M>>,
    index: Option<usize>,
    ctx: &'a mut Context<A>,
) -> impl Future<Output = Result<(), ExitReason>> + Send + use<'a, A, M> {
    let expired = delivery.reply.is_expired();
    if !expired {
        ctx.begin(index, delivery.reply.deadline());
    }
    async move {
        if expired {
            ctx.count_expired();
            // Nobody waits for it.
            delivery.reply.fail(CallError::Timeout);
            return Ok(());
        }
        let message = delivery.message.take().expect("handled once");
        let outcome = actor.handle(message, ctx).await;
        ctx.end();
        let reply = delivery.reply;
        match outcome {
            Ok(value) => reply.send(value),
            Err(Interrupt(Kind::NoReply)) => ctx.settle_deferred(reply)?,
            Err(interrupt) => {
                let reason = interrupt.into_reason();
                reply.fail(CallError::Exited(reason.clone()));
                return Err(reason);
            }
        }
        Ok(())
    }
}
