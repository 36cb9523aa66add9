//! Strangers by quinn alone: they know a cluster's authority, as anybody may, and have no certificate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use purlin_transport::Environment;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::UdpSocket;

/// What a stranger dials with, over a protocol.
pub fn config(home: &Path, protocol: &[u8]) -> quinn::ClientConfig {
    let authority = CertificateDer::from_pem_file(home.join("authority.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(Environment::system().crypto)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// An endpoint at an address of loopback.
pub fn at(ip: impl Into<IpAddr>) -> quinn::Endpoint {
    quinn::Endpoint::client(SocketAddr::new(ip.into(), 0)).unwrap()
}

/// The first packets of so many handshakes, each of another connection.
pub async fn first_packets(home: &Path, count: usize) -> Vec<Vec<u8>> {
    const FIRST: usize = 1_200;
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = sink.local_addr().unwrap();
    let (endpoint, config) = (at(Ipv4Addr::LOCALHOST), config(home, b"purlin/1"));
    let (mut packets, mut dialing) = (Vec::new(), Vec::new());
    for _ in 0..count {
        // Kept, or it would say that it is closed.
        dialing.push(endpoint.connect_with(config.clone(), to, "node.purlin").unwrap());
        let mut packet = vec![0; 2_000];
        let read = tokio::time::timeout(Duration::from_secs(5), sink.recv(&mut packet));
        let length = read.await.unwrap().unwrap();
        packet.truncate(length);
        assert!(packet.len() >= FIRST, "a first packet is padded");
        packets.push(packet);
    }
    packets
}
