//! The UDP socket under QUIC, and what its error queue tells.
//!
//! QUIC has no reset when a process is killed. But where the host lives, its kernel answers a
//! packet to the closed port with ICMP port unreachable, and Linux keeps that in the socket's error
//! queue together with the address the packet was for. It is a hint, no more: anyone on the path
//! can forge it.
//!
//! The same error would come back from the next `sendmsg` or `recvmsg`, where it says nothing about
//! the packet at hand. quinn's own socket takes it for the packet's and drops that, so that a closed
//! port would cost packets to others; among them the one that asks a peer with a new address to prove
//! it, which comes right after one to the old address. So packets are sent here, again if need be.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use quinn::udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::environment::ErrorQueue;
use crate::error::BindError;
use crate::executor::Executor;

/// What one send may carry, in however many packets: an IPv4 datagram less its heads.
const SEND_BYTES: usize = 65_507;

/// The most that one datagram can be.
const DATAGRAM_BYTES: usize = 65_535;

/// The default of 208 KiB loses thousands of packets even on loopback.
const SOCKET_BUFFER: usize = 4 << 20;

pub(crate) struct Bound {
    pub(crate) socket: Arc<dyn AsyncUdpSocket>,
    pub(crate) errors: Option<Errors>,
}

pub(crate) fn bind(
    address: SocketAddr,
    mtu: u16,
    runtime: &dyn quinn::Runtime,
    executor: Option<&Executor>,
) -> Result<Bound, BindError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        _ => BindError::Address { address, source },
    };
    let socket = open(address).map_err(failed)?;
    // Best effort: the system may allow less.
    drop(socket.set_recv_buffer_size(SOCKET_BUFFER));
    drop(socket.set_send_buffer_size(SOCKET_BUFFER));
    let socket = UdpSocket::from(socket);
    // Who waits for the one is woken for the other: tokio cannot wait for errors alone.
    let _workers = executor.map(Executor::enter_workers);
    let held = executor.map(Executor::held).unwrap_or_default();
    let errors = SystemErrors::of(&socket, address).map(Errors::System);
    if errors.is_none() {
        tracing::warn!(%address, "no error queue: a killed node will be noticed by silence alone");
    }
    let twin = socket.try_clone().map_err(failed)?;
    let state = UdpSocketState::new(UdpSockRef::from(&twin)).map_err(failed)?;
    let segments = (SEND_BYTES / usize::from(mtu)).max(1);
    let received = DATAGRAM_BYTES.div_ceil(usize::from(mtu));
    let inner = runtime.wrap_udp_socket(socket).map_err(failed)?;
    Ok(Bound {
        socket: Arc::new(Hardened { inner, twin, state, segments, received, held }),
        errors,
    })
}

/// A socket of IPv6 takes IPv4 as well, whatever the system's default is.
fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// quinn's socket without the errors that are about other packets.
#[derive(Debug)]
struct Hardened {
    /// Reads, and waits until the socket is ready.
    inner: Arc<dyn AsyncUdpSocket>,
    /// The same socket, to send, and to read when it does not tell.
    twin: UdpSocket,
    state: UdpSocketState,
    /// Packets in one send.
    segments: usize,
    /// Packets of the largest size that the system may hand over as one, so that they hold all of them
    /// if they are smaller: they came in one datagram, as far as it is concerned.
    received: usize,
    /// Nobody waits until the socket is ready: it has to be tried.
    held: Arc<AtomicBool>,
}

/// Errors about other packets that one packet may meet; one more and it is taken for its own.
const ERRORS: usize = 8;

/// Errors that an ICMP message about some earlier packet leaves behind.
fn is_about_another_packet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

impl AsyncUdpSocket for Hardened {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        for _ in 0..ERRORS {
            match self.state.try_send(UdpSockRef::from(&self.twin), transmit) {
                Ok(()) => return Ok(()),
                // Which cleared it.
                Err(error) if is_about_another_packet(&error) => {}
                // Tells tokio as well that the socket is to be waited for.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.inner.try_send(transmit);
                }
                Err(error) => {
                    // As probes for a larger MTU are meant to be.
                    tracing::trace!(to = %transmit.destination, %error, "packet not sent");
                    return Ok(());
                }
            }
        }
        // Lost, as any packet may be.
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.inner.poll_recv(cx, buffers, meta) {
                Poll::Ready(Err(error)) if is_about_another_packet(&error) => {}
                Poll::Pending if self.held.load(Ordering::Relaxed) => {
                    match self.state.recv(UdpSockRef::from(&self.twin), buffers, meta) {
                        Ok(count) => return Poll::Ready(Ok(count)),
                        Err(error) if is_about_another_packet(&error) => {}
                        Err(_) => return Poll::Pending,
                    }
                }
                other => return other,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Never more than fit into one send: the system refuses larger ones, which quinn takes for a
    /// probe that was too large, and all of it would be lost.
    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments().min(self.segments)
    }

    fn max_receive_segments(&self) -> usize {
        // quinn makes room for so many of the largest: 18 MB for each endpoint, if it were 64.
        self.inner.max_receive_segments().min(self.received)
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// The error queue of a socket: the system's, or the one that was handed in with the socket.
pub(crate) enum Errors {
    System(SystemErrors),
    Given(Arc<dyn ErrorQueue>),
}

impl Errors {
    /// Tells the destination of every packet that could not be delivered, for ever.
    pub(crate) async fn watch(self, tell: impl Fn(SocketAddr)) {
        match self {
            Self::System(errors) => errors.watch(tell).await,
            Self::Given(errors) => loop {
                tell(poll_fn(|cx| errors.poll_unreachable(cx)).await);
            },
        }
    }
}

#[derive(Debug)]
pub(crate) struct SystemErrors {
    socket: AsyncFd<UdpSocket>,
}

/// So many are taken before anything else gets its turn.
const AT_ONCE: usize = 32;

impl SystemErrors {
    fn of(socket: &UdpSocket, address: SocketAddr) -> Option<Self> {
        // A socket of IPv6 takes IPv4 as well.
        setsockopt(socket, sockopt::Ipv4RecvErr, &true).ok()?;
        if address.is_ipv6() {
            setsockopt(socket, sockopt::Ipv6RecvErr, &true).ok()?;
        }
        let twin = socket.try_clone().ok()?;
        #[expect(deprecated, reason = "its successor is unsafe code; this one owns the socket")]
        let socket = AsyncFd::with_interest(twin, Interest::ERROR).ok()?;
        Some(Self { socket })
    }

    async fn watch(self, tell: impl Fn(SocketAddr)) {
        loop {
            let Ok(mut ready) = self.socket.ready(Interest::ERROR).await else { return };
            match (0..AT_ONCE).map_while(|_| self.take()).map(&tell).count() {
                // Others run on this thread as well, and anybody may send these.
                AT_ONCE => tokio::task::yield_now().await,
                _ => ready.clear_ready(),
            }
        }
    }

    /// Takes one error; `None` when there are no more.
    fn take(&self) -> Option<SocketAddr> {
        loop {
            let mut payload = [0_u8; 64];
            let mut slices = [IoSliceMut::new(&mut payload)];
            let fd = self.socket.get_ref().as_raw_fd();
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            match recvmsg::<SockaddrStorage>(fd, &mut slices, None, flags) {
                Ok(message) => {
                    if let Some(address) = message.address.as_ref().and_then(to_std) {
                        return Some(address);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

/// An IPv4 address as such, also when it comes from a socket of IPv6.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    address.as_sockaddr_in6().map(|v6| canonical(SocketAddr::from((v6.ip(), v6.port()))))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_costs_no_packet_to_another() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let Bound { socket, errors } = bind(local, 1_452, &quinn::TokioRuntime, None).unwrap();
        let watch = tokio::spawn(errors.unwrap().watch(|_| {}));
        let mut poller = Arc::clone(&socket).create_io_poller();
        poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        let live = UdpSocket::bind(local).unwrap();
        live.set_nonblocking(true).unwrap();
        let closed = UdpSocket::bind(local).unwrap().local_addr().unwrap();
        let send = |destination| {
            let transmit = Transmit {
                destination,
                ecn: None,
                contents: b"x",
                segment_size: None,
                src_ip: None,
            };
            socket.try_send(&transmit).unwrap();
        };

        let mut came = 0;
        for _ in 0..100 {
            send(closed);
            send(live.local_addr().unwrap());
            tokio::task::yield_now().await;
            came += usize::from(live.recv(&mut [0; 8]).is_ok());
        }

        assert_eq!(came, 100);
        watch.abort();
    }

    #[tokio::test]
    async fn what_the_system_hands_over_as_one_is_as_long_as_it_came() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        for mtu in [1_200, 8_952, 65_527] {
            let bind = || bind(local, mtu, &quinn::TokioRuntime, None).unwrap().socket;
            let (from, to) = (bind(), bind());
            let mut poller = Arc::clone(&from).create_io_poller();
            poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
            let packets = 60.min(UdpSocketState::max_gso_segments(&state_of(local)));
            let contents = vec![7; 1_000 * packets];
            let transmit = Transmit {
                destination: to.local_addr().unwrap(),
                ecn: None,
                contents: &contents,
                segment_size: Some(1_000),
                src_ip: None,
            };
            from.try_send(&transmit).unwrap();

            let mut came = 0;
            while came < contents.len() {
                let mut buffer = vec![0; usize::from(mtu) * to.max_receive_segments()];
                let (mut slices, mut metas) =
                    ([IoSliceMut::new(&mut buffer)], [RecvMeta::default()]);
                let received = poll_fn(|cx| to.poll_recv(cx, &mut slices, &mut metas));
                assert_eq!(received.await.unwrap(), 1);
                assert_eq!(metas[0].stride, 1_000, "{mtu}");
                came += metas[0].len;
            }

            assert_eq!(came, contents.len(), "{mtu}");
        }
    }

    fn state_of(local: SocketAddr) -> UdpSocketState {
        UdpSocketState::new(UdpSockRef::from(&UdpSocket::bind(local).unwrap())).unwrap()
    }
}
