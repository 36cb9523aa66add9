//! The seam between what we do with a connection and what carries it.
//!
//! Above it are handshake, lanes, bulk and peers, the same for both; below it either QUIC or a
//! network in memory. The enums are closed: whoever adds a third carrier finds every place.

pub(crate) mod joining;
pub(crate) mod memory;
pub(crate) mod quic;
mod seeded;
pub(crate) mod socket;

use std::net::SocketAddr;

use bytes::Bytes;

use crate::credentials::{Certified, Credentials};
use crate::error::{BindError, Closed, DialError, StreamEnded};
use crate::stats::Path;
use purlin_proto::Refusal;

/// What an endpoint is bound to.
#[derive(Debug, Clone)]
pub enum WireConfig {
    /// A UDP socket at this address; port 0 for any free one.
    Quic {
        /// Where to listen.
        listen: SocketAddr,
        /// Clock, chance and socket.
        environment: crate::Environment,
    },
    /// An address in a network in memory.
    Memory {
        /// The network.
        network: memory::Network,
        /// The address in it.
        address: SocketAddr,
    },
}

impl WireConfig {
    /// A number by chance, from the source of chance that was handed in.
    pub(crate) fn chance(&self) -> u64 {
        match self {
            Self::Quic { environment, .. } => environment.number(),
            Self::Memory { network, .. } => network.number(),
        }
    }
}

/// Accepts and dials.
pub(crate) enum Wire {
    Quic(quic::Wire),
    Memory(memory::Wire),
}

/// One connection, before anything is known of it but its certificate.
#[derive(Clone)]
pub(crate) enum Connection {
    Quic(quinn::Connection),
    Memory(memory::Connection),
}

pub(crate) enum SendStream {
    Quic(quinn::SendStream),
    Memory(memory::SendStream),
}

pub(crate) enum RecvStream {
    Quic(quinn::RecvStream),
    Memory(memory::RecvStream),
}

impl Wire {
    pub(crate) fn local_address(&self) -> SocketAddr {
        match self {
            Self::Quic(wire) => wire.local_address(),
            Self::Memory(wire) => wire.local_address(),
        }
    }

    /// The next connection that passed its handshake; `None` when the endpoint is closed. The inner
    /// future completes the handshake, or says why it failed and from where.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        match self {
            Self::Quic(wire) => wire.accept().await.map(Box::new).map(Incoming::Quic),
            Self::Memory(wire) => wire.accept().await.map(Incoming::Memory),
        }
    }

    pub(crate) async fn dial(&self, address: SocketAddr) -> Result<Connection, DialError> {
        match self {
            Self::Quic(wire) => wire.dial(address).await.map(Connection::Quic),
            Self::Memory(wire) => wire.dial(address).await.map(Connection::Memory),
        }
    }

    /// Shows other credentials in handshakes that begin from now on.
    pub(crate) fn set_credentials(&self, credentials: &Credentials) -> Result<(), BindError> {
        match self {
            Self::Quic(wire) => wire.set_credentials(credentials),
            Self::Memory(wire) => {
                wire.set_certified(credentials.certified());
                Ok(())
            }
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Quic(wire) => wire.close().await,
            Self::Memory(wire) => wire.close(),
        }
    }
}

/// A connection that somebody else began.
pub(crate) enum Incoming {
    Quic(Box<quinn::Incoming>),
    Memory(memory::Connection),
}

/// Who has completed a handshake.
pub(crate) enum Arrived {
    /// One with a certificate of our authority.
    Peer(Connection),
    /// One that has none, and may ask for one.
    Joiner(quinn::Connection),
    /// One that has none and wants to be a peer, or what it has names nobody; it has been told.
    Nobody(String),
}

impl Incoming {
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Quic(incoming) => socket::canonical(incoming.remote_address()),
            Self::Memory(connection) => connection.remote_address(),
        }
    }

    /// Whether it has proved that it is where its packets come from.
    pub(crate) fn is_proved(&self) -> bool {
        match self {
            Self::Quic(incoming) => incoming.remote_address_validated(),
            Self::Memory(_) => true,
        }
    }

    /// Asks it to prove that, and to begin again.
    pub(crate) fn ask_for_proof(self) {
        match self {
            // It can be asked once; who is asked has not been, and a network in memory cannot lie.
            Self::Quic(incoming) => drop(incoming.retry()),
            Self::Memory(_) => {}
        }
    }

    /// Gives it no answer, and forgets it.
    pub(crate) fn ignore(self) {
        match self {
            Self::Quic(incoming) => incoming.ignore(),
            Self::Memory(_) => {}
        }
    }

    pub(crate) async fn complete(self) -> Result<Arrived, DialError> {
        match self {
            Self::Quic(incoming) => quic::complete(*incoming).await,
            Self::Memory(connection) => Ok(Arrived::Peer(Connection::Memory(connection))),
        }
    }
}

impl Connection {
    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => socket::canonical(connection.remote_address()),
            Self::Memory(connection) => connection.remote_address(),
        }
    }

    /// What the far end's certificate proves.
    pub(crate) fn certified(&self) -> Result<Certified, String> {
        match self {
            Self::Quic(connection) => quic::certified(connection),
            Self::Memory(connection) => Ok(connection.certified()),
        }
    }

    /// Lets the far end send as much as one that has been admitted may.
    pub(crate) fn widen(&self) {
        match self {
            Self::Quic(connection) => quic::widen(connection),
            Self::Memory(_) => {}
        }
    }

    /// Higher priorities go first.
    pub(crate) async fn open(&self, priority: i32) -> Result<SendStream, StreamEnded> {
        match self {
            Self::Quic(connection) => {
                let stream = connection.open_uni().await.map_err(ended)?;
                // Fails only on a stream that is closed, which the first write will say.
                drop(stream.set_priority(priority));
                Ok(SendStream::Quic(stream))
            }
            Self::Memory(connection) => connection.open().map(SendStream::Memory),
        }
    }

    pub(crate) async fn accept(&self) -> Result<RecvStream, StreamEnded> {
        match self {
            Self::Quic(connection) => {
                connection.accept_uni().await.map(RecvStream::Quic).map_err(ended)
            }
            Self::Memory(connection) => connection.accept().await.map(RecvStream::Memory),
        }
    }

    /// Sends a datagram, or drops it: it may be lost anyway.
    pub(crate) fn send_datagram(&self, bytes: Bytes) {
        match self {
            // Too large, or the connection is over: lost, as any datagram may be.
            Self::Quic(connection) => drop(connection.send_datagram(bytes)),
            Self::Memory(connection) => connection.send_datagram(bytes),
        }
    }

    pub(crate) async fn read_datagram(&self) -> Result<Bytes, StreamEnded> {
        match self {
            Self::Quic(connection) => connection.read_datagram().await.map_err(ended),
            Self::Memory(connection) => connection.read_datagram().await,
        }
    }

    /// How many packets have come from the far end.
    pub(crate) fn heard(&self) -> u64 {
        match self {
            Self::Quic(connection) => connection.stats().udp_rx.datagrams,
            Self::Memory(connection) => connection.heard(),
        }
    }

    /// Two counts that both rise while what we send gets through: what we had room to send, and
    /// what was heard of it.
    pub(crate) fn progress(&self) -> (u64, u64) {
        match self {
            Self::Quic(connection) => {
                let stats = connection.stats();
                (stats.frame_tx.stream, stats.udp_rx.datagrams)
            }
            Self::Memory(connection) => connection.progress(),
        }
    }

    /// How good the way to the far end is.
    pub(crate) fn path(&self) -> Path {
        match self {
            Self::Quic(connection) => {
                let path = connection.stats().path;
                Path { rtt: path.rtt, sent: path.sent_packets, lost: path.lost_packets }
            }
            Self::Memory(connection) => connection.path(),
        }
    }

    pub(crate) fn close(&self, why: &Refusal) {
        match self {
            Self::Quic(connection) => quic::close(connection, why),
            Self::Memory(connection) => connection.close(why),
        }
    }

    /// Why the connection ended, in the words of one who has just dialed it; waits for its end.
    pub(crate) async fn dial_error(&self) -> DialError {
        match self {
            Self::Quic(connection) => quic::explain(&connection.closed().await),
            Self::Memory(connection) => match connection.closed().await {
                Closed::Remote(refusal) => DialError::Refused(refusal),
                Closed::Local(refusal) => DialError::Unacceptable(refusal),
                Closed::Lost(_) => DialError::NoAnswer,
            },
        }
    }

    pub(crate) async fn closed(&self) -> Closed {
        match self {
            Self::Quic(connection) => quic::closed(&connection.closed().await),
            Self::Memory(connection) => connection.closed().await,
        }
    }
}

impl SendStream {
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), StreamEnded> {
        match self {
            Self::Quic(stream) => stream.write_chunk(bytes).await.map_err(ended),
            Self::Memory(stream) => stream.write(bytes).await,
        }
    }

    /// Writes all of these in turn, and leaves nothing in them.
    pub(crate) async fn write_many(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamEnded> {
        match self {
            Self::Quic(stream) => stream.write_all_chunks(chunks).await.map_err(ended),
            Self::Memory(stream) => {
                for chunk in chunks {
                    stream.write(std::mem::take(chunk)).await?;
                }
                Ok(())
            }
        }
    }

    /// Ends the stream and waits until the far end has all of it.
    pub(crate) async fn finish(&mut self) -> Result<(), StreamEnded> {
        match self {
            Self::Quic(stream) => {
                stream.finish().map_err(ended)?;
                stream.stopped().await.map(drop).map_err(ended)
            }
            Self::Memory(stream) => stream.finish().await,
        }
    }
}

impl RecvStream {
    /// The next bytes in order; `None` at the end.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, StreamEnded> {
        /// More than a packet, less than what would make the copy of a tail expensive.
        const CHUNK: usize = 64 << 10;
        match self {
            Self::Quic(stream) => {
                let chunk = stream.read_chunk(CHUNK, true).await.map_err(ended)?;
                Ok(chunk.map(|chunk| chunk.bytes))
            }
            Self::Memory(stream) => stream.read().await,
        }
    }
}

impl RecvStream {
    /// Appends all the bytes that are there, waiting for some; `false` at the end.
    pub(crate) async fn read_many(&mut self, chunks: &mut Vec<Bytes>) -> Result<bool, StreamEnded> {
        const AT_ONCE: usize = 32;
        match self {
            Self::Quic(stream) => {
                let mut read: [Bytes; AT_ONCE] = Default::default();
                let count = stream.read_chunks(&mut read).await.map_err(ended)?;
                chunks.extend(read.into_iter().take(count.unwrap_or(0)));
                Ok(count.is_some())
            }
            Self::Memory(stream) => {
                let chunk = stream.read().await?;
                let more = chunk.is_some();
                chunks.extend(chunk);
                Ok(more)
            }
        }
    }
}

fn ended(error: impl std::fmt::Display) -> StreamEnded {
    StreamEnded(error.to_string())
}
