//! Endpoints: quinn's defaults, or what Purlin sets.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{CipherSuite, RootCertStore};
use socket2::{Domain, Protocol, Socket, Type};

/// As in `node/transport/src/wire/`.
const SOCKET_BUFFER: usize = 4 << 20;
const STREAM_WINDOW: u32 = 256 << 10;
/// Purlin tries 8,952 bytes, in sends of seven packets at most. quinn's own socket always sends ten
/// together, and loses all of what does not fit into 64 KiB.
const MTU: u16 = 6_500;
const KEEP_ALIVE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(crate) enum Settings {
    Defaults,
    LikePurlin,
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        match std::env::var("PEER_BARE").as_deref() {
            Ok("defaults") => Self::Defaults,
            _ => Self::LikePurlin,
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Defaults => "quinn's defaults (socket buffers of the system, 1.25 MB windows)",
            Self::LikePurlin => {
                "Purlin's socket buffers (4 MiB), stream window (256 KiB) and nearly its MTU (6,500)"
            }
        }
    }

    pub(crate) fn server(self) -> Result<(Endpoint, CertificateDer<'static>)> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let crypto = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())?;
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto)?));
        config.transport_config(self.transport());
        Ok((self.endpoint(Some(config))?, cert.der().clone()))
    }

    pub(crate) fn client(self, certificate: Vec<u8>) -> Result<Endpoint> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(certificate))?;
        let crypto = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto)?));
        config.transport_config(self.transport());
        let mut endpoint = self.endpoint(None)?;
        endpoint.set_default_client_config(config);
        Ok(endpoint)
    }

    fn transport(self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        // Enough for 100 pairs.
        transport.max_concurrent_bidi_streams(VarInt::from_u32(128));
        if let Self::LikePurlin = self {
            transport
                .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
                .keep_alive_interval(Some(KEEP_ALIVE));
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(MTU);
            transport.mtu_discovery_config(Some(discovery));
        }
        Arc::new(transport)
    }

    fn endpoint(self, server: Option<ServerConfig>) -> Result<Endpoint> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        let address: std::net::SocketAddr = "127.0.0.1:0".parse()?;
        socket.bind(&address.into())?;
        if let Self::LikePurlin = self {
            // Best effort: the system may allow less.
            drop(socket.set_recv_buffer_size(SOCKET_BUFFER));
            drop(socket.set_send_buffer_size(SOCKET_BUFFER));
        }
        let runtime = Arc::new(quinn::TokioRuntime);
        let socket = UdpSocket::from(socket);
        let mut config = EndpointConfig::default();
        if let Self::LikePurlin = self {
            config.max_udp_payload_size(MTU)?;
        }
        Ok(Endpoint::new(config, server, socket, runtime)?)
    }
}

/// `AES` first, as Purlin has it.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 2,
        _ => 1,
    });
    Arc::new(provider)
}
