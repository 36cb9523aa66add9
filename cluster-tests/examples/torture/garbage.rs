//! Strangers in great numbers: garbage, unfinished handshakes, connections that are not gone on with.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin_cluster_tests::hostile::strangers::{at, config, first_packets};
use purlin_cluster_tests::process::Cluster;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::support::{check, client, honest, run, start, taken, talk};

/// Packets of garbage a second.
const RATE: u32 = 10_000;

/// The honest ones are answered so soon, in 99 of 100.
const P99: Duration = Duration::from_millis(20);

/// Sends what `make` makes, so many a second, until it is told to stop; how much it was.
fn throw(
    to: SocketAddr,
    stop: Arc<AtomicBool>,
    mut make: impl FnMut(&mut StdRng) -> Vec<u8> + Send + 'static,
) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let sockets: Vec<_> = (2..34)
            .map(|host| UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0)).unwrap())
            .collect();
        let (mut chance, begun, mut sent) = (StdRng::seed_from_u64(1), Instant::now(), 0_u32);
        while !stop.load(Ordering::Relaxed) {
            while f64::from(sent) > begun.elapsed().as_secs_f64() * f64::from(RATE) {
                std::thread::sleep(Duration::from_micros(200));
            }
            let socket = &sockets[sent as usize % sockets.len()];
            // What the kernel has no room for is lost, as on any network.
            drop(socket.send_to(&make(&mut chance), to));
            sent += 1;
        }
        sent.into()
    })
}

/// Ten thousand packets a second: half of them first packets of handshakes that are not gone on with,
/// the rest bytes by chance that look like QUIC's.
pub(crate) fn garbage(length: Duration) -> Outcome {
    run(async {
        let cluster = Cluster::default();
        let node = start(&cluster, "tortured", &[]);
        let friend = honest(&cluster, &node).await;
        let first = first_packets(&cluster.data_dir(), 2_000).await;
        let quiet = talk(&friend, length / 4).await.unwrap()?;
        let stop = Arc::new(AtomicBool::new(false));
        let thrown = throw(node.address.parse().unwrap(), Arc::clone(&stop), move |chance| {
            if chance.random() {
                return first[chance.random_range(0..first.len())].clone();
            }
            let mut bytes = vec![0; chance.random_range(20..1_300)];
            chance.fill_bytes(&mut bytes);
            // A long header of QUIC 1, or a short one.
            let long: bool = chance.random();
            bytes[0] = if long { 0xc0 | bytes[0] } else { 0x40 | bytes[0] & 0x3f };
            if long {
                bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
            }
            bytes
        });
        let talking = talk(&friend, length);
        tokio::time::sleep(length / 2).await;
        let begun = Instant::now();
        let newcomer = client(&cluster, &node).await;
        let newcomer = newcomer.map_err(|error| format!("nobody gets in: {error}"))?;
        let (came, after) = (begun.elapsed(), taken(&node));
        let counters = newcomer.status().await.map_err(|error| error.to_string())?.counters;
        let latencies = talking.await.unwrap();
        stop.store(true, Ordering::Relaxed);
        let sent = thrown.join().unwrap();
        let latencies = latencies?;
        let counted: Vec<_> = counters
            .iter()
            .filter(|counter| counter.name.starts_with("handshakes."))
            .map(|counter| format!("{} {}", counter.name, counter.count))
            .collect();
        let figures = format!(
            "{:.0} packets/s; {latencies} (before: {:.1?}); a newcomer in {came:.1?}; {} MiB; {}",
            rate(sent, length),
            quiet.part(0.99),
            after.mib,
            counted.join(", ")
        );
        check(latencies.part(0.99) < P99, figures)
    })
}

pub(crate) fn rate(count: u64, length: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = count as f64 / length.as_secs_f64();
    rate
}

/// Something small at every port of the host's loopback, by UDP and TCP, the node's among them.
pub(crate) fn port_scan(_: Duration) -> Outcome {
    run(async {
        let cluster = Cluster::default();
        let node = start(&cluster, "tortured", &[]);
        let friend = honest(&cluster, &node).await;
        let talking = talk(&friend, Duration::from_secs(5));
        let begun = Instant::now();
        let scan = tokio::task::spawn_blocking(|| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut open = 0;
            for port in 1..=u16::MAX {
                let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                // Refused by the kernel where nobody listens.
                drop(socket.send_to(&[0; 8], to));
                if std::net::TcpStream::connect_timeout(&to, Duration::from_millis(5)).is_ok() {
                    open += 1;
                }
            }
            open
        });
        let (open, took) = (scan.await.unwrap(), begun.elapsed());
        let latencies = talking.await.unwrap()?;
        let figures = format!("65535 ports in {took:.1?}, {open} open by TCP; {latencies}");
        check(latencies.part(0.99) < P99, figures)
    })
}

/// A thousand strangers who complete a handshake, ask to join with a few bytes, and say no more. Each
/// who is shown out comes back at once.
pub(crate) fn slow_loris(length: Duration) -> Outcome {
    const STRANGERS: u8 = 250;
    const EACH: usize = 4;
    run(async {
        let cluster = Cluster::default();
        let node = start(&cluster, "tortured", &[]);
        let friend = honest(&cluster, &node).await;
        let before = taken(&node);
        let to: SocketAddr = node.address.parse().unwrap();
        let config = config(&cluster.data_dir(), b"purlin-join/1");
        let (ends, inside) = (Instant::now() + length, Arc::new(AtomicU64::new(0)));
        let mut strangers = JoinSet::new();
        for host in 1..=STRANGERS {
            let endpoint = at(Ipv4Addr::new(127, 0, 1, host));
            for _ in 0..EACH {
                let (endpoint, config) = (endpoint.clone(), config.clone());
                let inside = Arc::clone(&inside);
                strangers.spawn(async move {
                    while Instant::now() < ends {
                        let dialing = endpoint.connect_with(config.clone(), to, "node.purlin");
                        let Ok(Ok(connection)) =
                            tokio::time::timeout(Duration::from_secs(5), dialing.unwrap()).await
                        else {
                            continue;
                        };
                        inside.fetch_add(1, Ordering::Relaxed);
                        let Ok(mut stream) = connection.open_uni().await else { continue };
                        // Shown out, sooner or later.
                        drop(stream.write_all(&[1]).await);
                        connection.closed().await;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                });
            }
        }
        let talking = talk(&friend, length);
        tokio::time::sleep(length / 2).await;
        let begun = Instant::now();
        let newcomer = client(&cluster, &node).await;
        newcomer.map_err(|error| format!("nobody gets in: {error}"))?;
        let (came, during) = (begun.elapsed(), taken(&node));
        let latencies = talking.await.unwrap()?;
        strangers.shutdown().await;
        let figures = format!(
            "1000 strangers, {} connections; {latencies}; a newcomer in {came:.1?}; {} files, {} MiB \
             more",
            inside.load(Ordering::Relaxed),
            during.files,
            during.mib.saturating_sub(before.mib)
        );
        check(during.mib < before.mib + 100 && during.files < before.files + 10, figures)
    })
}
