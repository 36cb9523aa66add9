//! What is published to a topic, as a client gets it.

use purlin_proto::admin::{SubscribeTopic, UnsubscribeTopic};
use purlin_proto::codec::DecodeError;
use purlin_proto::{CallError, Message, MessageName, Name, Payload, Pid};
use tokio::sync::broadcast;

use crate::client::{Client, system};
use crate::connection::SessionMessage;

/// What is published to a topic, as it comes. Ends with the connection; dropping it does not end the
/// subscription of the client's session, [`unsubscribe`](Self::unsubscribe) does.
///
/// The messages of all topics that a client subscribes to come to its one session, and each
/// subscription sees all of them.
///
/// ```no_run
/// # use purlin_client::{CallError, Client, Message};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Debug, Serialize, Deserialize)]
/// struct Rain(u32);
///
/// impl Message for Rain {
///     const NAME: &'static str = "weather.rain";
///     type Reply = ();
/// }
///
/// # async fn example(client: Client) -> Result<(), CallError> {
/// let mut weather = client.subscribe("weather").await?;
/// while let Some(rain) = weather.next::<Rain>().await {
///     println!("{rain:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    session: Pid,
    topic: Name,
    messages: broadcast::Receiver<SessionMessage>,
}

/// Why something that was published is not at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// The reader was too slow, and so many messages are gone.
    #[error("{count} messages were missed")]
    Missed {
        /// How many.
        count: u64,
    },
    /// A message of this name has another form.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Client {
    /// Publishes a message to a topic; see [`send`](Self::send).
    pub async fn publish<M: Message>(
        &self,
        topic: impl Into<Name>,
        message: M,
    ) -> Result<(), CallError> {
        self.send(purlin_proto::Dest::Topic(topic.into()), message).await
    }

    /// Subscribes to a topic: what is published to it on any node comes from now on, until the
    /// connection is lost.
    pub async fn subscribe(&self, topic: impl Into<Name>) -> Result<Subscription, CallError> {
        let (topic, messages) = (topic.into(), self.messages());
        let session = self.session().ok_or(CallError::NoConnection)?;
        let asked = SubscribeTopic { topic: topic.clone(), pid: session };
        match self.call(system(None), asked).await? {
            Ok(()) => Ok(Subscription { client: self.clone(), session, topic, messages }),
            // Another session by now, or a node that is full.
            Err(detail) => {
                tracing::debug!(%topic, detail, "not subscribed");
                Err(CallError::Overloaded)
            }
        }
    }
}

impl Subscription {
    /// The topic.
    pub fn topic(&self) -> &Name {
        &self.topic
    }

    /// The next message of this type; others are passed over. `None` when the connection has been
    /// lost. Cancel safe.
    pub async fn next<M: Message>(&mut self) -> Option<Result<M, SubscriptionError>> {
        loop {
            match self.next_encoded().await? {
                Ok((name, payload)) if name.as_str() == M::NAME => {
                    return Some(payload.decode().map_err(SubscriptionError::Decode));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next message of any type, in its encoded form. `None` when the connection has been lost.
    /// Cancel safe.
    pub async fn next_encoded(
        &mut self,
    ) -> Option<Result<(MessageName, Payload), SubscriptionError>> {
        let mut session = self.client.sessions();
        tokio::select! {
            biased;
            message = self.messages.recv() => match message {
                Ok(message) => Some(Ok(message)),
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    Some(Err(SubscriptionError::Missed { count }))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            },
            _ = session.wait_for(|present| *present != Some(self.session)) => None,
        }
    }

    /// Ends the subscription, for all of this client's.
    pub async fn unsubscribe(self) -> Result<(), CallError> {
        let asked = UnsubscribeTopic { topic: self.topic, pid: self.session };
        self.client.call(system(None), asked).await.map(drop)
    }
}
