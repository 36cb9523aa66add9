//! The end of a simulated network that QUIC sees.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::network::Network;
use crate::ErrorQueue;

/// As much as a socket of the system keeps for one who does not read; more is lost.
const SOCKET_BUFFER: usize = 4 << 20;

/// As many errors as a socket keeps for one who does not read them; more are lost.
const ERRORS: usize = 1_000;

/// What has arrived and was not read yet.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Arrived>);

#[derive(Debug, Default)]
struct Arrived {
    packets: VecDeque<(SocketAddr, Bytes)>,
    bytes: usize,
    reader: Option<Waker>,
    /// Where packets of this socket met a closed port.
    unreachable: VecDeque<SocketAddr>,
    error_reader: Option<Waker>,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, from: SocketAddr, bytes: Bytes) {
        let mut arrived = self.lock();
        if arrived.bytes + bytes.len() > SOCKET_BUFFER {
            return;
        }
        arrived.bytes += bytes.len();
        arrived.packets.push_back((from, bytes));
        let reader = arrived.reader.take();
        drop(arrived);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// A packet of this socket met a closed port.
    pub(super) fn unreachable(&self, destination: SocketAddr) {
        let mut arrived = self.lock();
        if arrived.unreachable.len() < ERRORS {
            arrived.unreachable.push_back(destination);
        }
        let reader = arrived.error_reader.take();
        drop(arrived);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(super) fn close(&self) {
        let mut arrived = self.lock();
        // Whoever reads is not told: a dead machine's socket is not read any more.
        *arrived = Arrived { closed: true, ..Arrived::default() };
    }
}

/// A socket of a simulated [`Network`]; made by [`Network::bind`].
pub struct Socket {
    network: Network,
    address: SocketAddr,
    inbox: Arc<Inbox>,
}

impl Socket {
    pub(super) fn new(network: Network, address: SocketAddr, inbox: Arc<Inbox>) -> Self {
        Self { network, address, inbox }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Always)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.inbox.lock().closed {
            return Ok(());
        }
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for packet in transmit.contents.chunks(size) {
            self.network.send(self.address, transmit.destination, packet);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = self.inbox.lock();
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Some((from, bytes)) = arrived.packets.pop_front() else { break };
            arrived.bytes -= bytes.len();
            // A longer one is cut off, as the system does.
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            *meta = RecvMeta { addr: from, len, stride: len, ecn: None, dst_ip: None };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        arrived.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl ErrorQueue for Socket {
    fn poll_unreachable(&self, cx: &mut Context<'_>) -> Poll<SocketAddr> {
        let mut arrived = self.inbox.lock();
        if let Some(destination) = arrived.unreachable.pop_front() {
            return Poll::Ready(destination);
        }
        arrived.error_reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("address", &self.address).finish_non_exhaustive()
    }
}

/// There is always room to send.
#[derive(Debug)]
struct Always;

impl UdpPoller for Always {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
