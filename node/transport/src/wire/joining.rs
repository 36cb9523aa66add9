//! The side that has no certificate yet: it asks once, of a node whose authority it can tell.
//!
//! All it knows of the authority is a fingerprint. The node shows the authority's certificate after
//! its own; the one with the fingerprint becomes the only root that the node's certificate is then
//! checked against, by rustls' own verifier, as it would be by a member. Whoever cannot show such a
//! chain never sees the request: it leaves after the handshake, and there is no early data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

use purlin_proto::limits::JOIN_ANSWER_BYTES;

use super::quic::{self, JOIN_ALPN};
use crate::credentials::NODE_DNS_NAME;
use crate::environment::Environment;
use crate::error::DialError;
use crate::handshake::HANDSHAKE_TIMEOUT;

/// Longer than the far end takes for its part, which may have to ask others.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Tells a certificate from all others: its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// That of a certificate, as DER.
    pub fn of(certificate: &[u8]) -> Self {
        let digest = digest(&SHA256, certificate);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// Asks the node at an address to be taken in, and returns its answer.
///
/// `request` is sent to no one but a node with a certificate of the authority that has this
/// fingerprint; anyone else is [`DialError::TheirCertificate`]. Takes 20 s at most. Not cancel safe:
/// the far end may have taken the request.
pub async fn ask_to_join(
    address: SocketAddr,
    authority: Fingerprint,
    request: Bytes,
) -> Result<Bytes, DialError> {
    let lost = |error: &dyn std::fmt::Display| DialError::Lost(error.to_string());
    let local: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut endpoint =
        quinn::Endpoint::client(SocketAddr::new(local, 0)).map_err(|error| lost(&error))?;
    endpoint.set_default_client_config(config(authority).map_err(|error| lost(&error))?);
    let connecting = endpoint.connect(address, NODE_DNS_NAME).map_err(|error| lost(&error))?;
    let connected = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await;
    let connection =
        connected.map_err(|_| DialError::NoAnswer)?.map_err(|error| quic::explain(&error))?;
    let exchange = tokio::time::timeout(ANSWER_TIMEOUT, exchange(&connection, request)).await;
    let answer = match exchange {
        Ok(Some(answer)) => Ok(answer),
        // The far end's close says why.
        Ok(None) => Err(quic::explain(&connection.closed().await)),
        Err(_) => Err(DialError::NoAnswer),
    };
    endpoint.close(VarInt::from_u32(0), b"");
    // For the close to leave.
    drop(tokio::time::timeout(Duration::from_millis(300), endpoint.wait_idle()).await);
    answer
}

/// `None` if the connection has ended, or is closed here because the answer is none.
async fn exchange(connection: &quinn::Connection, request: Bytes) -> Option<Bytes> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.write_chunk(request).await.ok()?;
    stream.finish().ok()?;
    let mut answer = connection.accept_uni().await.ok()?;
    match answer.read_to_end(JOIN_ANSWER_BYTES).await {
        Ok(answer) => Some(answer.into()),
        Err(_) => {
            connection.close(VarInt::from_u32(0), b"");
            None
        }
    }
}

fn config(authority: Fingerprint) -> Result<quinn::ClientConfig, String> {
    let environment = Environment::system();
    let provider = quic::provider(&environment);
    let verifier = Pinned { authority, provider: Arc::clone(&provider) };
    let mut tls = rustls::ClientConfig::builder_with_details(provider, environment.time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    let tls = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(ANSWER_TIMEOUT).map_err(|error| error.to_string())?;
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(64 << 10))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle));
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Believes a node of the authority with this fingerprint.
#[derive(Debug)]
struct Pinned {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = others
            .iter()
            .find(|other| Fingerprint::of(other) == self.authority)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(certificate, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
