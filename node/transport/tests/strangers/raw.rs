//! Connections by quinn alone, for peers that do what ours never would.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use purlin_proto::{Capabilities, Hello, NodeHello, NodeId, Versions, codec};
use purlin_transport::{Environment, Identity};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use crate::support::Authority;

/// Believes everyone.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384]
    }
}

/// What one dials with: a protocol, and a certificate or none.
pub(super) fn config(
    protocol: &[u8],
    shown: Option<(&Authority, Identity)>,
) -> quinn::ClientConfig {
    let crypto = Environment::system().crypto;
    let tls = rustls::ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut tls = match shown {
        None => tls.with_no_client_auth(),
        Some((authority, identity)) => {
            let (chain, key) = authority.pair(identity);
            let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            tls.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    tls.alpn_protocols = vec![protocol.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// An endpoint at an address of loopback.
pub(super) fn at(ip: IpAddr) -> quinn::Endpoint {
    quinn::Endpoint::client(SocketAddr::new(ip, 0)).unwrap()
}

/// A connection without a certificate, over a protocol.
pub(super) async fn stranger(
    to: SocketAddr,
    protocol: &[u8],
) -> (quinn::Endpoint, quinn::Connection) {
    let endpoint = at([127, 0, 0, 1].into());
    let dialed = endpoint.connect_with(config(protocol, None), to, "node.purlin");
    let connection = dialed.unwrap().await.unwrap();
    (endpoint, connection)
}

/// A connection of one with a certificate, who has said nothing yet.
pub(super) async fn certified(
    to: SocketAddr,
    authority: &Authority,
    identity: Identity,
) -> (quinn::Endpoint, quinn::Connection) {
    let endpoint = at([127, 0, 0, 1].into());
    let config = config(b"purlin/1", Some((authority, identity)));
    let connection = endpoint.connect_with(config, to, "node.purlin").unwrap().await.unwrap();
    (endpoint, connection)
}

/// Says hello as a node, on a control stream that stays open, and returns when the answer comes.
pub(super) async fn greet(connection: &quinn::Connection, name: &'static str) -> quinn::SendStream {
    let node =
        NodeHello { id: NodeId::new(name.into(), 1), address: "127.0.0.1:1".parse().unwrap() };
    let hello = Hello {
        versions: Versions::OURS,
        cluster: "test".parse().unwrap(),
        name: name.into(),
        node: Some(node),
        capabilities: Capabilities::default(),
        association: 1,
        ended: 0,
    };
    let mut body = BytesMut::new();
    body.put_u32_le(0);
    codec::encode(&hello, &mut body).unwrap();
    let mut control = connection.open_uni().await.unwrap();
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    control.write_all(&[&[1][..], &length, &body].concat()).await.unwrap();
    connection.accept_uni().await.unwrap();
    control
}
