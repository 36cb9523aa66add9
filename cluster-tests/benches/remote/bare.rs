//! The same with nothing but quinn: what the wire itself costs on this machine, now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// Serves echoes on streams that begin with 0, and swallows those that begin with 1. The
/// certificate goes to the client by the first line.
pub(crate) async fn serve() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let crypto = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto).unwrap()));
    let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let digits: Vec<_> = cert.der().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{} {}", endpoint.local_addr().unwrap(), digits.concat());
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        tokio::spawn(async move {
            let mut kind = [0_u8];
            receive.read_exact(&mut kind).await.unwrap();
            if kind[0] == 0 {
                let mut frame = [0_u8; 64];
                while receive.read_exact(&mut frame).await.is_ok() {
                    send.write_all(&frame).await.unwrap();
                }
            } else {
                while receive.read_chunk(1 << 20, true).await.unwrap().is_some() {}
                send.write_all(&[1]).await.unwrap();
                send.finish().unwrap();
            }
        });
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) async fn connect(line: &str) -> Connection {
    let (address, hex) = line.split_once(' ').unwrap();
    let pairs = hex.as_bytes().chunks(2);
    let der: Vec<u8> = pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(der)).unwrap();
    let crypto = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint.connect(address.parse().unwrap(), "localhost").unwrap().await.unwrap()
}

pub(crate) async fn echo(connection: &Connection, times: usize) -> Vec<Duration> {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[0]).await.unwrap();
    let mut took = Vec::with_capacity(times);
    let mut frame = [7_u8; 64];
    for _ in 0..times {
        let begun = Instant::now();
        send.write_all(&frame).await.unwrap();
        receive.read_exact(&mut frame).await.unwrap();
        took.push(begun.elapsed());
    }
    took
}

/// Bytes a second on one stream, in writes of 64 KiB.
pub(crate) async fn stream(connection: &Connection, bytes: u64) -> f64 {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let begun = Instant::now();
    send.write_all(&[1]).await.unwrap();
    let block = vec![7_u8; 64 << 10];
    for _ in 0..bytes / block.len() as u64 {
        send.write_all(&block).await.unwrap();
    }
    send.finish().unwrap();
    receive.read_to_end(8).await.unwrap();
    bytes as f64 / begun.elapsed().as_secs_f64()
}
