//! Clock, chance and socket, as values.
//!
//! quinn and rustls ask for time and chance through what is handed in here; so the real transport
//! runs on simulated time over a simulated network too (`simulated/`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::AsyncUdpSocket;
use rustls::crypto::CryptoProvider;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::runtime::Handle;

use crate::executor::{Executor, QuinnRuntime};

/// Tells of packets that met a closed port, as a system's error queue does.
pub trait ErrorQueue: Send + Sync {
    /// The destination of the next such packet; one task at a time waits for it.
    fn poll_unreachable(&self, cx: &mut Context<'_>) -> Poll<SocketAddr>;
}

/// What the transport takes from its surroundings.
#[derive(Clone)]
pub struct Environment {
    /// Timers and the monotonic clock of QUIC; also where its tasks run.
    pub runtime: Arc<dyn quinn::Runtime>,
    /// The wall clock that certificates are checked against.
    pub time: Arc<dyn TimeProvider>,
    /// Cryptography and its source of chance.
    pub crypto: Arc<CryptoProvider>,
    /// Seeds QUIC's own chance, its keys and its connection ids; `None` for the system's.
    pub seed: Option<[u8; 32]>,
    /// The socket; `None` to bind one of the system's.
    pub socket: Option<Arc<dyn AsyncUdpSocket>>,
    /// The error queue of that socket, if it has one.
    pub errors: Option<Arc<dyn ErrorQueue>>,
    /// Polls the tasks; `None` for the runtime they are on.
    pub(crate) executor: Option<Arc<Executor>>,
}

impl Environment {
    /// A number by chance: from the seed, or from the cryptography's source.
    pub(crate) fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        match &self.seed {
            Some(seed) => bytes.copy_from_slice(&seed[..8]),
            // A source that fails leaves zeros; then associations are counted from there.
            None => drop(self.crypto.secure_random.fill(&mut bytes)),
        }
        u64::from_le_bytes(bytes)
    }

    /// The system's clocks, chance and sockets, on the present tokio runtime.
    pub fn system() -> Self {
        Self {
            runtime: Arc::new(quinn::TokioRuntime),
            time: Arc::new(DefaultTimeProvider),
            crypto: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            seed: None,
            socket: None,
            errors: None,
            executor: None,
        }
    }

    /// As [`system`](Self::system), for an endpoint that is bound on the runtime `network`, whose
    /// tasks are polled by `workers`: what is sent and handled there then needs no other thread. If
    /// all workers are held by something that does not yield, the thread of `network` takes over
    /// within 20 ms. Before a worker sleeps it looks for packets for `busy_wait`, where that pays;
    /// [`BUSY_WAIT`](crate::BUSY_WAIT) is a good choice, zero turns it off.
    pub fn with_workers(network: &Handle, workers: &Handle, busy_wait: Duration) -> Self {
        let executor = Executor::new(network, workers, busy_wait);
        let runtime = Arc::new(QuinnRuntime(Arc::clone(&executor)));
        Self { runtime, executor: Some(executor), ..Self::system() }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("seeded", &self.seed.is_some()).finish_non_exhaustive()
    }
}
