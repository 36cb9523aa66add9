//! QUIC by quinn and rustls.
//!
//! TLS 1.3 only, both sides prove who they are, ALPN `purlin/1`. Who has no certificate yet speaks
//! ALPN `purlin-join/1`, and gets no further than `joining.rs`: that is decided in [`complete`], and
//! nowhere else. `AES` goes before `ChaCha20`: where
//! the machine has AES instructions it is nearly twice as fast.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ConnectError, ConnectionError, IdleTimeout, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{CipherSuite, RootCertStore};
use tokio::task::JoinHandle;

use purlin_proto::limits::HELLO_BYTES;
use purlin_proto::{Refusal, codec};

use super::{Arrived, Connection, seeded, socket};
use crate::credentials::{Certified, Credentials, NODE_DNS_NAME};
use crate::endpoint::{Config, Events};
use crate::environment::Environment;
use crate::error::{BindError, Closed, DialError};

const ALPN: &[u8] = b"purlin/1";

/// What is spoken by those who have no certificate yet.
pub(crate) const JOIN_ALPN: &[u8] = b"purlin-join/1";

/// The application's close code; what it means is in the reason.
const CLOSE_CODE: u32 = 1;

/// Streams that the far end may have open: control, lanes, bulk, and a few to grow.
const STREAMS: u32 = 32;

/// And before it has been admitted: its first one, and one more, by which a joiner betrays itself.
const STRANGERS_STREAMS: u32 = 2;

/// What the far end may have sent and we not read, in all; before it has been admitted. Afterwards
/// its streams bound it. More than any greeting or request, so that neither waits for the window.
const STRANGERS_BYTES: u32 = 128 << 10;

/// First packets that wait until the endpoint looks at them, and what may come after each, and after
/// all of them. It looks at once; this is for when it does not.
const WAITING: usize = 1_024;
const WAITING_BYTES: u64 = 64 << 10;
const ALL_WAITING_BYTES: u64 = 16 << 20;

const DATAGRAM_BUFFER: usize = 1 << 20;

/// Packets of the largest size that may be under way before any was acknowledged. quinn's 12,000
/// bytes are one probe for a larger MTU and one packet: whatever comes next waits for the probe,
/// even the close of the connection, which is then never sent.
const FIRST_PACKETS: u64 = 4;

pub(crate) struct Wire {
    endpoint: quinn::Endpoint,
    /// What dials show from now on.
    client: Mutex<quinn::ClientConfig>,
    /// Of connections that we dial, and of those that others do.
    dialed: Arc<TransportConfig>,
    accepted: Arc<TransportConfig>,
    environment: Environment,
    hints: Option<JoinHandle<()>>,
}

impl Wire {
    pub(crate) fn bind(
        listen: SocketAddr,
        environment: &Environment,
        config: &Config,
        events: Arc<dyn Events>,
    ) -> Result<Self, BindError> {
        let bad = |error: String| BindError::Credentials(error);
        let dialed = Arc::new(transport(config));
        let mut accepted = transport(config);
        accepted
            .max_concurrent_uni_streams(VarInt::from_u32(STRANGERS_STREAMS))
            .receive_window(VarInt::from_u32(STRANGERS_BYTES));
        let accepted = Arc::new(accepted);
        let client = client_config(&config.credentials, environment, &dialed).map_err(bad)?;
        let server = server_config(&config.credentials, environment, &accepted).map_err(bad)?;
        let mut endpoint_config = seeded::endpoint(environment);
        let largest = endpoint_config.max_udp_payload_size(config.mtu);
        largest.map_err(|error| bad(error.to_string()))?;
        let runtime = Arc::clone(&environment.runtime);
        let bound = match &environment.socket {
            Some(socket) => {
                let errors = environment.errors.clone().map(socket::Errors::Given);
                socket::Bound { socket: Arc::clone(socket), errors }
            }
            None => {
                let executor = environment.executor.as_deref();
                socket::bind(listen, config.mtu, &*runtime, executor)?
            }
        };
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config,
            Some(server),
            bound.socket,
            runtime,
        )
        .map_err(|source| BindError::Address { address: listen, source })?;
        let hints = bound.errors.map(|errors| {
            tokio::spawn(async move {
                errors.watch(|address| events.unreachable_hint(address)).await;
            })
        });
        let (client, environment) = (Mutex::new(client), environment.clone());
        Ok(Self { endpoint, client, dialed, accepted, environment, hints })
    }

    /// Shows other credentials in handshakes that begin from now on.
    pub(crate) fn set_credentials(&self, credentials: &Credentials) -> Result<(), BindError> {
        let (environment, bad) = (&self.environment, |error: String| BindError::Credentials(error));
        let client = client_config(credentials, environment, &self.dialed).map_err(bad)?;
        let server = server_config(credentials, environment, &self.accepted).map_err(bad)?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        self.endpoint.set_server_config(Some(server));
        Ok(())
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.endpoint.local_addr().expect("a bound socket has an address")
    }

    pub(crate) async fn accept(&self) -> Option<quinn::Incoming> {
        self.endpoint.accept().await
    }

    pub(crate) async fn dial(&self, address: SocketAddr) -> Result<quinn::Connection, DialError> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connecting = self.endpoint.connect_with(client, address, NODE_DNS_NAME).map_err(
            |error| match error {
                ConnectError::EndpointStopping => DialError::Closed,
                other => DialError::Lost(other.to_string()),
            },
        )?;
        connecting.await.map_err(|error| explain(&error))
    }

    pub(crate) async fn close(&self) {
        /// For the last packets to leave; the far ends learn it by silence otherwise.
        const LINGER: Duration = Duration::from_millis(300);
        self.endpoint.close(VarInt::from_u32(CLOSE_CODE), &encode_refusal(&Refusal::Stopping));
        // A far end that does not answer must not hold us.
        drop(tokio::time::timeout(LINGER, self.endpoint.wait_idle()).await);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(hints) = &self.hints {
            hints.abort();
        }
    }
}

/// Completes a handshake. A peer has shown a certificate of our authority; whoever has none may be
/// a joiner, if it said so, and nothing else.
pub(crate) async fn complete(incoming: quinn::Incoming) -> Result<Arrived, DialError> {
    let connection = incoming.await.map_err(|error| explain(&error))?;
    let spoken = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    if spoken.and_then(|data| data.protocol).as_deref() == Some(JOIN_ALPN) {
        return Ok(Arrived::Joiner(connection));
    }
    match certified(&connection) {
        Ok(_) => Ok(Arrived::Peer(Connection::Quic(connection))),
        Err(detail) => {
            close(&connection, &Refusal::Identity { detail: detail.clone() });
            Ok(Arrived::Nobody(detail))
        }
    }
}

pub(crate) fn certified(connection: &quinn::Connection) -> Result<Certified, String> {
    let identity = connection.peer_identity().ok_or("it has no certificate")?;
    let chain = identity
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| "its certificate is of an unknown kind")?;
    Certified::of(chain.first().ok_or("it has no certificate")?)
}

/// Grants a connection that somebody else began what it would have had if we had.
pub(crate) fn widen(connection: &quinn::Connection) {
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS));
    connection.set_receive_window(VarInt::MAX);
}

pub(crate) fn close(connection: &quinn::Connection, why: &Refusal) {
    connection.close(VarInt::from_u32(CLOSE_CODE), &encode_refusal(why));
}

fn encode_refusal(why: &Refusal) -> BytesMut {
    let mut reason = BytesMut::new();
    codec::encode(why, &mut reason).expect("a refusal is plain data");
    reason
}

pub(crate) fn closed(error: &ConnectionError) -> Closed {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            match codec::from_bytes(&close.reason, HELLO_BYTES) {
                Ok(refusal) => Closed::Remote(refusal),
                Err(_) => Closed::Lost(error.to_string()),
            }
        }
        other => Closed::Lost(other.to_string()),
    }
}

/// Says which side's certificate is at fault, and what to do.
pub(super) fn explain(error: &ConnectionError) -> DialError {
    match error {
        ConnectionError::TimedOut => DialError::NoAnswer,
        ConnectionError::LocallyClosed => DialError::Closed,
        ConnectionError::ConnectionClosed(close) => match tls_alert(close.error_code) {
            Some(alert) => DialError::OurCertificate(alert_text(alert)),
            None => DialError::Lost(error.to_string()),
        },
        ConnectionError::TransportError(transport) => match tls_alert(transport.code) {
            Some(alert) => DialError::TheirCertificate(alert_text(alert)),
            None => DialError::Lost(error.to_string()),
        },
        ConnectionError::ApplicationClosed(_) => match closed(error) {
            Closed::Remote(refusal) => DialError::Refused(refusal),
            Closed::Local(_) | Closed::Lost(_) => DialError::Lost(error.to_string()),
        },
        other => DialError::Lost(other.to_string()),
    }
}

/// QUIC carries TLS alerts as `0x100 + alert` (RFC 9001, section 4.8).
fn tls_alert(code: quinn::TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

fn alert_text(alert: u8) -> String {
    match alert {
        42 | 43 | 46 => "it is not a certificate for this use: a client's certificate cannot \
                         serve as a node, nor a node's name be another's; issue one of the right \
                         role"
            .to_owned(),
        44 => "it has been revoked: issue a new one".to_owned(),
        45 => {
            "it has expired, or is not valid yet: check the clocks; `purlin cert show` tells when, \
             and it is made anew where the authority is, or had with a new token"
                .to_owned()
        }
        // 51 (bad signature) when both authorities have the same name.
        48 | 51 => {
            "its authority is unknown: both sides need certificates of the same authority, see \
               --data-dir and PURLIN_HOME"
                .to_owned()
        }
        116 => "there is none: start with credentials of the cluster's authority".to_owned(),
        120 => "it does not speak this protocol (ALPN purlin/1)".to_owned(),
        other => format!("TLS alert {other}"),
    }
}

/// A larger packet by less than this is not looked for.
const LEAST_GAIN: u16 = 200;

fn transport(config: &Config) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    // Each probe is a packet of padding, which costs both sides as much as a handshake's signature: six
    // of them find jumbo frames, and five the frames of Ethernet but for 30 bytes.
    discovery.upper_bound(config.mtu).minimum_change(LEAST_GAIN);
    transport.mtu_discovery_config(Some(discovery));
    let idle = IdleTimeout::try_from(config.idle_timeout).unwrap_or(VarInt::MAX.into());
    let mut congestion = quinn::congestion::CubicConfig::default();
    congestion.initial_window(FIRST_PACKETS * u64::from(config.mtu));
    transport
        .congestion_controller_factory(Arc::new(congestion))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(config.window))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(config.keep_alive));
    transport
}

pub(super) fn provider(environment: &Environment) -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = (*environment.crypto).clone();
    let slow = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        suite if suite == slow => 2,
        _ => 1,
    });
    Arc::new(provider)
}

/// The wall clock, for QUIC.
struct Clock(Arc<dyn TimeProvider>);

impl quinn::TimeSource for Clock {
    fn now(&self) -> SystemTime {
        let since_1970 = self.0.current_time().map(|now| now.as_secs()).unwrap_or_default();
        UNIX_EPOCH + Duration::from_secs(since_1970)
    }
}

fn roots(credentials: &Credentials) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in &credentials.authority {
        roots.add(certificate.clone()).map_err(|error| format!("authority: {error}"))?;
    }
    Ok(Arc::new(roots))
}

/// What we show: our chain; to a joiner, who knows no more of the authority than its fingerprint,
/// the authority's certificates besides.
#[derive(Debug)]
struct Certificates {
    peers: Arc<CertifiedKey>,
    joiners: Arc<CertifiedKey>,
}

impl Certificates {
    fn new(
        credentials: &Credentials,
        provider: &rustls::crypto::CryptoProvider,
    ) -> Result<Self, rustls::Error> {
        let (chain, key) = (credentials.chain.clone(), credentials.key.clone_key());
        let peers = CertifiedKey::from_der(chain, key, provider)?;
        let mut joiners = peers.clone();
        joiners.cert.extend(credentials.authority.iter().cloned());
        Ok(Self { peers: Arc::new(peers), joiners: Arc::new(joiners) })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let joins = |mut spoken: Box<dyn Iterator<Item = &[u8]>>| spoken.all(|p| p == JOIN_ALPN);
        let joiner = hello.alpn().is_some_and(|spoken| joins(Box::new(spoken)));
        Some(Arc::clone(if joiner { &self.joiners } else { &self.peers }))
    }
}

fn client_config(
    credentials: &Credentials,
    environment: &Environment,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ClientConfig, String> {
    let text = |error: rustls::Error| error.to_string();
    let time = Arc::clone(&environment.time);
    let mut tls = rustls::ClientConfig::builder_with_details(provider(environment), time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(text)?
        .with_root_certificates(roots(credentials)?)
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(text)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::clone(transport));
    seeded::client(&mut config, environment);
    Ok(config)
}

fn server_config(
    credentials: &Credentials,
    environment: &Environment,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, String> {
    let text = |error: rustls::Error| error.to_string();
    let provider = provider(environment);
    // TLS cannot ask for certificates by ALPN; `complete` turns away peers that have none.
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(credentials)?, Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| error.to_string())?;
    let certificates = Certificates::new(credentials, &provider).map_err(text)?;
    let time = Arc::clone(&environment.time);
    let mut tls = rustls::ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(text)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificates));
    tls.alpn_protocols = vec![ALPN.to_vec(), JOIN_ALPN.to_vec()];
    let tls = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::clone(transport));
    config
        .max_incoming(WAITING)
        .incoming_buffer_size(WAITING_BYTES)
        .incoming_buffer_size_total(ALL_WAITING_BYTES);
    config.time_source(Arc::new(Clock(Arc::clone(&environment.time))));
    seeded::server(&mut config, environment);
    Ok(config)
}
