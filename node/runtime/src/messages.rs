//! From a message to its handler.
//!
//! [`Messages`] is implemented for tuples of up to twelve message types, which makes the table from
//! type and wire name to handler at compile time: a short chain of comparisons, no map, no boxed
//! future.

use std::any::TypeId;
use std::future::Future;

use purlin_proto::{CallError, ExitReason, Message};

use crate::actor::{Actor, Handler, Kind};
use crate::context::Context;
use crate::item::{BoxFuture, Delivery, EncodedMessage, LocalMessage};
use crate::reply::Reply;

/// The messages that the actor `A` accepts from anywhere: a tuple of [`Message`] types, for each of
/// which `A` is a [`Handler`].
///
/// Implemented for `()` and tuples of up to twelve types; a tuple of one is written `(Add,)`.
pub trait Messages<A: Actor>: sealed::Sealed {
    /// Their names on the wire.
    const NAMES: &'static [&'static str];

    #[doc(hidden)]
    fn dispatch(
        actor: &mut A,
        message: sealed::Incoming,
        ctx: &mut Context<A>,
    ) -> impl Future<Output = Result<(), ExitReason>> + Send;
}

pub(crate) mod sealed {
    use crate::item::{EncodedMessage, LocalMessage};

    pub trait Sealed {}

    /// A message on its way to a handler.
    #[expect(missing_debug_implementations, reason = "holds a user's value, seen by no user")]
    pub struct Incoming(pub(crate) Form);

    pub(crate) enum Form {
        Local(Box<dyn LocalMessage>),
        Encoded(Box<EncodedMessage>),
    }
}

use sealed::{Form, Incoming};

macro_rules! messages {
    ($($message:ident = $index:literal),*) => {
        impl<$($message: Message),*> sealed::Sealed for ($($message,)*) {}

        impl<Me, $($message),*> Messages<Me> for ($($message,)*)
        where
            Me: Actor $(+ Handler<$message>)*,
            $($message: Message,)*
        {
            const NAMES: &'static [&'static str] = &[$($message::NAME),*];

            async fn dispatch(
                actor: &mut Me,
                message: Incoming,
                ctx: &mut Context<Me>,
            ) -> Result<(), ExitReason> {
                match message.0 {
                    Form::Local(local) => {
                        let _wanted = local.message_type();
                        $(if _wanted == TypeId::of::<$message>() {
                            return handle_local::<Me, $message>(actor, local, Some($index), ctx)
                                .await;
                        })*
                        handle_unlisted(actor, local, ctx).await
                    }
                    Form::Encoded(encoded) => {
                        let _wanted = encoded.name.as_str();
                        $(if _wanted == $message::NAME {
                            return handle_encoded::<Me, $message>(actor, encoded, $index, ctx)
                                .await;
                        })*
                        ctx.not_understood(*encoded);
                        Ok(())
                    }
                }
            }
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

async fn handle_local<A: Handler<M>, M: Message>(
    actor: &mut A,
    message: Box<dyn LocalMessage>,
    index: Option<usize>,
    ctx: &mut Context<A>,
) -> Result<(), ExitReason> {
    let delivery = message.into_any().downcast::<Delivery<M>>().expect("its type was compared");
    let Delivery { message, reply, .. } = *delivery;
    handle(actor, message, reply, index, ctx).await
}

async fn handle_encoded<A: Handler<M>, M: Message>(
    actor: &mut A,
    encoded: Box<EncodedMessage>,
    index: usize,
    ctx: &mut Context<A>,
) -> Result<(), ExitReason> {
    let EncodedMessage { payload, reply, .. } = *encoded;
    match payload.decode::<M>() {
        Ok(message) => {
            let reply = reply.map_or(Reply::None, Reply::Encoded);
            handle(actor, message, reply, Some(index), ctx).await
        }
        Err(error) => {
            ctx.bad_message(M::NAME, &error, reply);
            Ok(())
        }
    }
}

/// A message that is not in `A::Messages`, sent by one who knew that `A` handles it.
async fn handle_unlisted<A: Actor>(
    actor: &mut A,
    message: Box<dyn LocalMessage>,
    ctx: &mut Context<A>,
) -> Result<(), ExitReason> {
    match message.via() {
        Some(via) => via(actor, message, ctx).await,
        None => {
            let (kind, name) = (A::KIND.to_owned(), message.name().to_owned());
            ctx.count_not_understood(&name);
            message.fail(CallError::NotUnderstood { kind, message: name });
            Ok(())
        }
    }
}

/// The way to a handler that only the sender knows of; see [`Via`](crate::item::Via).
pub(crate) fn via<'a, A: Handler<M>, M: Message>(
    actor: &'a mut (dyn std::any::Any + Send),
    message: Box<dyn LocalMessage>,
    ctx: &'a mut (dyn std::any::Any + Send),
) -> BoxFuture<'a, Result<(), ExitReason>> {
    match (actor.downcast_mut::<A>(), ctx.downcast_mut::<Context<A>>()) {
        (Some(actor), Some(ctx)) => Box::pin(handle_local::<A, M>(actor, message, None, ctx)),
        // The pid of the reference named a process of another kind.
        _ => Box::pin(async move {
            let (kind, name) = ("?".to_owned(), M::NAME.to_owned());
            message.fail(CallError::NotUnderstood { kind, message: name });
            Ok(())
        }),
    }
}

/// Runs the handler and sends its reply.
async fn handle<A: Handler<M>, M: Message>(
    actor: &mut A,
    message: M,
    reply: Reply<M::Reply>,
    index: Option<usize>,
    ctx: &mut Context<A>,
) -> Result<(), ExitReason> {
    if reply.is_expired() {
        ctx.count_expired();
        // Nobody waits for it.
        reply.fail(CallError::Timeout);
        return Ok(());
    }
    ctx.begin(index, reply.deadline());
    let outcome = actor.handle(message, ctx).await;
    ctx.end();
    match outcome {
        Ok(value) => reply.send(value),
        Err(interrupt) => match interrupt.0 {
            Kind::NoReply => ctx.settle_deferred(reply)?,
            Kind::Exit(reason) => {
                reply.fail(CallError::Exited(reason.clone()));
                return Err(reason);
            }
        },
    }
    Ok(())
}
