//! What lies in a mailbox.
//!
//! A message from this node lies there as the value that was sent, behind a vtable, and is found by
//! its type; one from elsewhere lies there as it came, and is decoded by the process that handles
//! it. Both end in the same handler.

use std::any::{Any, TypeId};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use purlin_proto::codec::EncodeError;
use purlin_proto::{
    CallError, Codec, Down, ExitReason, LinkDown, Message, MessageName, NameConflict, NodeEvent,
    Payload, Pid, Reference,
};

use crate::entries::monitors::Monitor;
use crate::inflow::Charge;
use crate::messages::sealed::Handled;
use crate::reply::{EncodedReply, Reply};

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One entry of a mailbox. Three words, so that long mailboxes are short.
pub(crate) enum Item {
    /// A message of this node.
    Local(Box<dyn LocalMessage>),
    /// A message in its encoded form.
    Encoded(Box<EncodedMessage>),
    /// Something that the system says.
    Notice(Box<Notice>),
}

/// A message that was sent by a process of this node.
pub(crate) trait LocalMessage: Any + Send {
    fn name(&self) -> &'static str;
    fn message_type(&self) -> TypeId;
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
    /// How the receiving actor's handler is found when the message is not in its `Messages`.
    fn via(&self) -> Option<Via>;
    /// The encoded form, for receivers that want no types.
    fn encode(self: Box<Self>, codec: Codec) -> Result<EncodedMessage, EncodeError>;
    /// Tells a waiting caller why there will be no reply.
    fn fail(self: Box<Self>, error: CallError);
}

/// Calls a handler that only the sender knew of: `(actor, message, context)`, all erased.
pub(crate) type Via = for<'a> fn(
    &'a mut (dyn Any + Send),
    Box<dyn LocalMessage>,
    &'a mut (dyn Any + Send),
) -> BoxFuture<'a, Handled>;

/// A typed message and who waits for its reply.
pub(crate) struct Delivery<M: Message> {
    /// Taken by the handler.
    pub(crate) message: Option<M>,
    pub(crate) reply: Reply<M::Reply>,
    pub(crate) via: Option<Via>,
}

impl<M: Message> LocalMessage for Delivery<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn message_type(&self) -> TypeId {
        TypeId::of::<M>()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }

    fn via(&self) -> Option<Via> {
        self.via
    }

    fn encode(self: Box<Self>, codec: Codec) -> Result<EncodedMessage, EncodeError> {
        let message = self.message.as_ref().expect("not handled yet");
        let payload = Payload::encode(codec, message)?;
        let reply = self.reply.into_encoded(codec);
        Ok(EncodedMessage { name: MessageName::of::<M>(), payload, reply, charge: None })
    }

    fn fail(self: Box<Self>, error: CallError) {
        self.reply.fail(error);
    }
}

/// A message in its encoded form and who waits for its reply.
pub(crate) struct EncodedMessage {
    pub(crate) name: MessageName,
    pub(crate) payload: Payload,
    /// Boxed, for it is large and few messages have one.
    pub(crate) reply: Option<Box<EncodedReply>>,
    /// What it takes up of another node's share, if it came alone from there.
    pub(crate) charge: Option<Charge>,
}

/// What the system tells a process.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Down(Down),
    LinkDown(LinkDown),
    /// A process that traps exits was asked to end.
    Exit {
        from: Pid,
        reason: ExitReason,
    },
    Node(NodeEvent),
    /// A monitor of groups has something to tell.
    Group(Arc<Monitor>),
    NameConflict(NameConflict),
}

impl Item {
    pub(crate) fn local<M: Message>(message: M, reply: Reply<M::Reply>, via: Option<Via>) -> Self {
        Self::Local(Box::new(Delivery { message: Some(message), reply, via }))
    }

    pub(crate) fn notice(notice: Notice) -> Self {
        Self::Notice(Box::new(notice))
    }

    /// What it takes up of another node's share.
    pub(crate) fn charged(&self) -> usize {
        match self {
            Self::Encoded(message) => message.charge.as_ref().map_or(0, Charge::bytes),
            Self::Local(_) | Self::Notice(_) => 0,
        }
    }

    /// Whether it is what a monitor has to say.
    pub(crate) fn is_down(&self, reference: Reference) -> bool {
        matches!(self, Self::Notice(notice)
            if matches!(&**notice, Notice::Down(down) if down.reference == reference))
    }

    /// Tells a waiting caller, if there is one, why there will be no reply.
    pub(crate) fn fail(self, error: CallError) {
        match self {
            Self::Local(message) => message.fail(error),
            Self::Encoded(message) => {
                if let Some(reply) = message.reply {
                    reply.send(Err(error));
                }
            }
            Self::Notice(_) => {}
        }
    }
}
