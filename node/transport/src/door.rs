//! The door for those who have no certificate yet: one request, one answer, and out.
//!
//! Whoever comes here has proved nothing, so everything is bounded: how many are inside, in all and
//! from one source; the bytes of a request; the time for it and for the answer. The request is the
//! first stream to its end; a second stream ends the connection. What a request means is the
//! owner's ([`Events::join`]); it is answered with one stream.
//!
//! What a joiner may send unread is what anybody may who has not been admitted: the little of
//! `wire/quic.rs` `STRANGERS_BYTES`, and as many datagrams as the buffer for them has room for. That
//! is 1.2 MiB each; [`AT_ONCE`] bounds it to 20 MiB in all.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::Refusal;
use purlin_proto::limits::JOIN_REQUEST_BYTES;

use crate::crowd::source_of;
use crate::endpoint::Events;
use crate::handshake::HANDSHAKE_TIMEOUT;

/// Who may be inside at once.
const AT_ONCE: usize = 16;

/// And from one source: an IPv4 address, or an IPv6 network of 64 bits.
const FROM_ONE_SOURCE: usize = 4;

/// How long the owner may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer may take to arrive.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// An answer in the making.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Option<Bytes>> + Send + 'a>>;

/// Counts who is inside.
#[derive(Default)]
pub(crate) struct Door {
    inside: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A place inside, until it is dropped.
struct Place<'a> {
    door: &'a Door,
    source: IpAddr,
}

impl Door {
    /// Serves one; an error is what it is to be told with the close.
    pub(crate) async fn serve(
        &self,
        from: SocketAddr,
        joiner: &quinn::Connection,
        events: &dyn Events,
    ) -> Result<(), Refusal> {
        let _place = self.enter(from.ip()).ok_or(Refusal::Busy)?;
        let request = tokio::time::timeout(HANDSHAKE_TIMEOUT, read(joiner));
        let request = request.await.unwrap_or(Err(Refusal::Silent))?;
        let answer = tokio::select! {
            answer = tokio::time::timeout(ANSWER_TIMEOUT, events.join(from, request)) => answer,
            more = joiner.accept_uni() => return Err(violation(match more {
                Ok(_) => "a joiner has one request".to_owned(),
                Err(error) => format!("gone before it was answered: {error}"),
            })),
        };
        let answer = answer.map_err(|_| Refusal::Busy)?;
        let answer = answer.ok_or_else(|| violation("not a request to join".to_owned()))?;
        let delivered = tokio::time::timeout(DELIVERY_TIMEOUT, write(joiner, answer)).await;
        delivered.unwrap_or(Err(Refusal::Silent))
    }

    fn enter(&self, address: IpAddr) -> Option<Place<'_>> {
        let source = source_of(address);
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = inside.get(&source).copied().unwrap_or_default();
        if of_source >= FROM_ONE_SOURCE || inside.values().sum::<usize>() >= AT_ONCE {
            return None;
        }
        inside.insert(source, of_source + 1);
        Some(Place { door: self, source })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inside = self.door.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = inside.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.source);
            }
        }
    }
}

async fn read(joiner: &quinn::Connection) -> Result<Bytes, Refusal> {
    let mut stream = joiner.accept_uni().await.map_err(|error| violation(error.to_string()))?;
    let request = stream.read_to_end(JOIN_REQUEST_BYTES).await;
    request.map(Bytes::from).map_err(|error| violation(error.to_string()))
}

async fn write(joiner: &quinn::Connection, answer: Bytes) -> Result<(), Refusal> {
    let ended = |error: &dyn std::fmt::Display| violation(format!("not answered: {error}"));
    let mut stream = joiner.open_uni().await.map_err(|error| ended(&error))?;
    stream.write_chunk(answer).await.map_err(|error| ended(&error))?;
    stream.finish().map_err(|error| ended(&error))?;
    // The joiner closes the connection as soon as it has the answer; that is as good.
    drop(stream.stopped().await);
    Ok(())
}

fn violation(detail: String) -> Refusal {
    Refusal::Protocol { detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_leaves_room_for_others_and_all_of_them_are_bounded() {
        let door = Door::default();
        let from = |host: u8| IpAddr::from([10, 0, 0, host]);

        let flood: Vec<_> = (0..100).filter_map(|_| door.enter(from(1))).collect();
        assert_eq!(flood.len(), FROM_ONE_SOURCE);
        let others: Vec<_> = (2..100).filter_map(|host| door.enter(from(host))).collect();
        assert_eq!(flood.len() + others.len(), AT_ONCE);

        drop(flood);
        assert!(door.enter(from(1)).is_some());
        drop(others);
        assert!(door.inside.lock().expect("not poisoned").is_empty());
    }
}
