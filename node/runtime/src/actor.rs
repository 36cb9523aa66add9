//! What a user writes: an actor, its handlers, and how they end.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use purlin_proto::{ExitReason, Fault, Message};

use crate::context::Context;
use crate::mailbox::Mailbox;
use crate::messages::Messages;
use crate::raw::Ended;

/// How a process behaves: its state, and what it accepts.
///
/// A value of the type is the state of one process; it is made by [`start`](Self::start) on the
/// process itself and dropped there. Handlers run one at a time, in the order of arrival.
///
/// # Example
///
/// ```
/// use purlin_runtime::{Actor, Context, Handler, Message, Outcome, Runtime};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize)]
/// struct Add(i64);
/// impl Message for Add {
///     const NAME: &'static str = "counter.add";
///     type Reply = i64;
/// }
///
/// struct Counter {
///     total: i64,
/// }
///
/// impl Actor for Counter {
///     const KIND: &'static str = "counter";
///     type Args = i64;
///     type Messages = (Add,);
///
///     async fn start(total: i64, _: &mut Context<Self>) -> Outcome<Self> {
///         Ok(Self { total })
///     }
/// }
///
/// impl Handler<Add> for Counter {
///     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Outcome<i64> {
///         self.total += n;
///         Ok(self.total)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::local("a".into());
/// let counter = runtime.spawn::<Counter>(10).await?;
/// counter.send(Add(1));
/// assert_eq!(counter.call(Add(1)).await?, 12);
/// # Ok(())
/// # }
/// ```
pub trait Actor: Sized + Send + 'static {
    /// What other nodes and the command line call it.
    const KIND: &'static str;

    /// What it is started with; can be sent, so that it can be started on other nodes.
    type Args: Serialize + DeserializeOwned + Send + 'static;

    /// Every message that it accepts from anywhere, as a tuple: `(Add, Read)`, `(Add,)` or `()`.
    type Messages: Messages<Self>;

    /// How many messages wait for it, and what becomes of more; see [`Mailbox`].
    const MAILBOX: Mailbox = Mailbox::DEFAULT;

    /// Makes the state (OTP: `init`). Whoever starts the process waits until this returns; if it
    /// fails, so does the start, and nothing is left.
    fn start(
        args: Self::Args,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Outcome<Self>> + Send;

    /// Called before an orderly end, by [`Context::stop`], a shutdown or a normal exit (OTP:
    /// `terminate`). Not called when the process is killed, crashes or panics.
    fn stop(
        &mut self,
        reason: &ExitReason,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (reason, ctx);
        async {}
    }
}

/// An actor that accepts the message `M`.
///
/// Let it crash: an error returned with `?` ends the process with that error as its exit reason,
/// and the caller gets [`CallError::Exited`](purlin_proto::CallError::Exited). What a caller should
/// handle belongs into `M::Reply`.
pub trait Handler<M: Message>: Actor {
    /// Handles one message. For a message that was sent and not called, the reply is dropped.
    ///
    /// The process does nothing else meanwhile. When it is killed the future is dropped at an
    /// `await`.
    fn handle(
        &mut self,
        message: M,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Outcome<M::Reply>> + Send;
}

/// What starting and handling return.
pub type Outcome<T = ()> = Result<T, Interrupt>;

/// Why a handler returns no value: the process ends, or the reply comes later.
///
/// Every error becomes one with `?`. It is not an error itself, so that it cannot be wrapped by
/// accident.
#[derive(Debug)]
pub struct Interrupt(pub(crate) Kind);

#[derive(Debug)]
pub(crate) enum Kind {
    Exit(ExitReason),
    NoReply,
    Ignore,
}

impl Interrupt {
    /// Ends the process with this reason.
    pub fn exit(reason: ExitReason) -> Self {
        Self(Kind::Exit(reason))
    }

    /// What [`Actor::start`] returns that chooses not to run (OTP: `ignore`). Not a failure: a
    /// supervisor goes on without this child, others get [`SpawnError::Ignored`].
    ///
    /// [`SpawnError::Ignored`]: purlin_proto::SpawnError::Ignored
    pub fn ignore() -> Self {
        Self(Kind::Ignore)
    }

    /// The reply comes later, by what [`Context::defer`] returned (OTP: `noreply`).
    pub(crate) fn no_reply() -> Self {
        Self(Kind::NoReply)
    }

    /// The exit reason; a missing reply is a mistake of the program and says so.
    pub(crate) fn into_reason(self) -> ExitReason {
        match self.0 {
            Kind::Exit(reason) => reason,
            Kind::NoReply => ExitReason::error("noreply without a deferred reply"),
            Kind::Ignore => ExitReason::error("only a start can be ignored"),
        }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Interrupt {
    fn from(error: E) -> Self {
        let error = match error.into().downcast::<Ended>() {
            // An exit signal that reached a raw process is its reason, not an error of it.
            Ok(ended) => return Self::exit(ended.0),
            Err(error) => error,
        };
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.ends_with(&cause_text) {
                message.push_str(": ");
                message.push_str(&cause_text);
            }
            source = cause.source();
        }
        let backtrace = Backtrace::capture();
        let backtrace =
            (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        Self(Kind::Exit(ExitReason::Error(Fault::new(message, backtrace))))
    }
}
