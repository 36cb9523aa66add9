//! The first words: both sides say who they are, and check it against the certificate.
//!
//! The dialing side opens its control stream and sends its hello; the other checks it, asks its
//! owner, opens its own and answers with its hello or a refusal. Nothing else is read before. What
//! a hello may take is bounded in bytes and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use purlin_proto::limits::HELLO_BYTES;
use purlin_proto::{Hello, Refusal, Role, codec};

use crate::control::{Reader, kind, put_frame};
use crate::credentials::Identity;
use crate::error::{Closed, DialError, StreamEnded};
use crate::wire::{Connection, SendStream};

/// How long either side may take for its part.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Ahead of lanes and bulk.
const CONTROL_PRIORITY: i32 = 100;

/// The first frame of a control stream.
#[derive(Debug, Serialize, Deserialize)]
enum Greeting {
    Hello(Hello),
    Refused(Refusal),
}

/// Opens our control stream and says hello on it.
pub(crate) async fn say_hello(
    connection: &Connection,
    hello: &Hello,
) -> Result<SendStream, StreamEnded> {
    greet(connection, &Greeting::Hello(hello.clone())).await
}

/// Says no, on the stream and with the close, so that one of them gets through. Who is told that it
/// was declared down may answer the same with its own close; that answer is returned.
pub(crate) async fn refuse(connection: &Connection, why: &Refusal) -> Option<Refusal> {
    /// For the frame to arrive before the close, which makes the far end drop what it has not read;
    /// and for the answer.
    const LINGER: Duration = Duration::from_millis(500);
    let said = async {
        let mut stream = greet(connection, &Greeting::Refused(why.clone())).await.ok()?;
        // The close says it as well.
        drop(stream.finish().await);
        if !matches!(why, Refusal::DeclaredDown { .. }) {
            return None;
        }
        match connection.closed().await {
            Closed::Remote(answer) => {
                match believe(answer, connection.certified().ok()?.identity) {
                    DialError::Refused(answer) => Some(answer),
                    _ => None,
                }
            }
            Closed::Local(_) | Closed::Lost(_) => None,
        }
    };
    let answer = tokio::time::timeout(LINGER, said).await.unwrap_or_default();
    connection.close(why);
    answer
}

async fn greet(connection: &Connection, greeting: &Greeting) -> Result<SendStream, StreamEnded> {
    let mut stream = connection.open(CONTROL_PRIORITY).await?;
    let body = codec::to_bytes(greeting).map_err(|error| StreamEnded(error.to_string()))?;
    let mut bytes = BytesMut::from(&[kind::CONTROL][..]);
    put_frame(&body, &mut bytes);
    stream.write(bytes.freeze()).await?;
    Ok(stream)
}

/// Reads the far end's hello.
pub(crate) async fn hear_hello(connection: &Connection) -> Result<(Hello, Reader), DialError> {
    let hear = async {
        let mut reader = Reader::new(connection.accept().await?);
        if reader.byte().await? != kind::CONTROL {
            return Err(StreamEnded("the first stream is not the control stream".to_owned()));
        }
        let frame = reader.frame(HELLO_BYTES).await?;
        Ok((frame, reader))
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, hear).await {
        Ok(Ok((frame, reader))) => parse(&frame).map(|hello| (hello, reader)),
        Ok(Err(ended)) => Err(how_it_ended(connection, ended).await),
        Err(_) => Err(DialError::NoAnswer),
    }
}

fn parse(frame: &Bytes) -> Result<Hello, DialError> {
    match codec::from_bytes(frame, HELLO_BYTES) {
        Ok(Greeting::Hello(hello)) => Ok(hello),
        Ok(Greeting::Refused(why)) => Err(DialError::Refused(why)),
        Err(error) => Err(DialError::Lost(format!("its hello is malformed: {error}"))),
    }
}

/// A stream that ended in the handshake: the close of the connection may say why.
async fn how_it_ended(connection: &Connection, ended: StreamEnded) -> DialError {
    /// The stream's end comes from the close, so this is at hand.
    const AT_HAND: Duration = Duration::from_millis(100);
    match tokio::time::timeout(AT_HAND, connection.dial_error()).await {
        Ok(error) => error,
        Err(_) => DialError::Lost(ended.to_string()),
    }
}

/// A refusal, unless it speaks for another node than the one that the certificate proves.
pub(crate) fn believe(why: Refusal, proved: Identity) -> DialError {
    match &why {
        Refusal::DeclaredDown { by, .. } if by.name != proved.name => {
            DialError::Lost(format!("{} refuses in the name of {}", proved.name, by.name))
        }
        _ => DialError::Refused(why),
    }
}

/// Checks a hello against our own and against the certificate.
pub(crate) fn check(theirs: &Hello, ours: &Hello, proved: Identity) -> Result<(), Refusal> {
    if ours.versions.agree(theirs.versions).is_none() {
        return Err(Refusal::Version { theirs: ours.versions, ours: theirs.versions });
    }
    if theirs.cluster != ours.cluster {
        return Err(Refusal::Cluster { theirs: ours.cluster.clone() });
    }
    if theirs.name != proved.name {
        let detail = format!("the hello says {}, the certificate {}", theirs.name, proved.name);
        return Err(Refusal::Identity { detail });
    }
    match (theirs.is_node(), proved.role) {
        (true, Role::Node) | (false, Role::Client | Role::Operator) => {}
        (true, Role::Client | Role::Operator) => {
            let detail = "a client's certificate cannot be used as a node".to_owned();
            return Err(Refusal::Role { detail });
        }
        (false, Role::Node) => {
            let detail = "a node's certificate cannot be used as a client".to_owned();
            return Err(Refusal::Role { detail });
        }
    }
    if let Some(node) = &theirs.node {
        if node.id.name != theirs.name {
            let detail = format!("its node id {} is not of {}", node.id, theirs.name);
            return Err(Refusal::Identity { detail });
        }
        node.check().map_err(|detail| Refusal::Protocol { detail })?;
    }
    Ok(())
}
