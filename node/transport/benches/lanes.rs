//! What it costs to put a small frame into a lane, and to get it across: time and allocations.
//!
//! `cargo bench -p purlin-transport --bench lanes`. Frames of 64 bytes over the network in memory:
//! no encryption, no system calls.
//!
//! - *bursts*, on one thread: nothing else runs while a burst is put in, so the first line is the
//!   lane alone, with one wake of its writer for each burst; its buffer is free again by then, as it
//!   is not while batches are on their way. The second is all the rest: writer, channel, reader, a
//!   receiver that counts. That network takes a millisecond for each chunk, which passes at once, as
//!   time is paused; its timer is in the figure.
//! - *threads* put frames in at once, while the link's tasks take them out on two others: the time
//!   until the last is in, over the frames of all of them. So the waiting for the lane's lock is in
//!   it, that for a core where there are not enough, and the allocations of the link's tasks. The
//!   lanes are so large that nothing is refused.
//!
//! The allocator is the system's and counts: the first line says what an allocation adds to the
//! times. Machines differ: compare lines of one run.

#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use purlin_proto::{NodeHello, NodeId, Refusal, Role};
use purlin_transport::{
    Closed, Config, Credentials, DialError, Endpoint, Events, Flow, Frames, Identity, LANE_BYTES,
    Link, NODE_DNS_NAME, Network, Peer, Priority, Receiver, Sent, WireConfig,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};
use tokio::sync::Notify;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const FRAME: [u8; 64] = [7; 64];

/// What something cost, and how often it was done.
#[derive(Default)]
struct Cost {
    took: Duration,
    allocations: usize,
    bytes: usize,
}

/// Begins to measure.
fn begin() -> (Instant, Stats) {
    (Instant::now(), ALLOCATOR.stats())
}

impl Cost {
    fn add(&mut self, (begun, before): (Instant, Stats)) {
        self.took += begun.elapsed();
        let made = ALLOCATOR.stats() - before;
        self.allocations += made.allocations + made.reallocations;
        self.bytes += made.bytes_allocated;
    }

    fn line(&self, name: &str, count: u64) {
        let of_each = |sum: f64| sum / count as f64;
        println!(
            "{name:<34} {:>8.1} ns {:>8.3} allocations {:>8.1} bytes",
            of_each(self.took.as_secs_f64() * 1e9),
            of_each(self.allocations as f64),
            of_each(self.bytes as f64),
        );
    }
}

/// Both ends: takes everything and counts it.
#[derive(Clone, Default)]
struct Count(Arc<(AtomicU64, Notify)>);

impl Count {
    async fn reaches(&self, count: u64) {
        while self.0.0.load(Ordering::Relaxed) < count {
            self.0.1.notified().await;
        }
    }
}

impl Receiver for Count {
    fn frames(&self, frames: &Frames<'_>) {
        self.0.0.fetch_add(frames.len() as u64, Ordering::Relaxed);
        self.0.1.notify_one();
    }

    fn control(&self, _: Bytes) {}

    fn datagram(&self, _: Bytes) {}
}

impl Events for Count {
    fn admit(&self, _: &Peer) -> Result<(), Refusal> {
        Ok(())
    }

    fn up(&self, _: &Link) -> Arc<dyn Receiver> {
        Arc::new(self.clone())
    }

    fn down(&self, _: &Link, _: &Closed) {}

    fn unreachable(&self, _: NodeId, _: SocketAddr, _: &DialError) {}

    fn unreachable_hint(&self, _: SocketAddr) {}
}

/// Two nodes with a link from one to the other; what the other has got.
struct Pair {
    link: Link,
    got: Count,
    _ends: [Endpoint; 2],
}

impl Pair {
    async fn connect(lane_bytes: usize) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = authority.self_signed(&key).unwrap().pem();
        let (issuer, network, got) =
            (Issuer::new(authority, key), Network::new(7), Count::default());
        let ends = [("a", 1), ("b", 2)].map(|(name, port)| {
            let credentials = credentials(name, &issuer, &pem);
            let address = SocketAddr::from(([10, 0, 0, 1], port));
            let mut config = Config::new(credentials, "bench".parse().unwrap());
            config.node = Some(NodeHello { id: NodeId::new(name.into(), 1), address });
            config.lane_bytes = lane_bytes;
            let wire = WireConfig::Memory { network: network.clone(), address };
            Endpoint::bind(config, wire, Arc::new(got.clone())).unwrap()
        });
        let link = ends[0].dial(ends[1].local_address(), None).await.unwrap();
        Self { link, got, _ends: ends }
    }

    fn put(&self, flow: Flow) -> Sent {
        self.link.send(flow, Priority::User, &mut |out| {
            out.extend_from_slice(black_box(&FRAME));
            true
        })
    }
}

fn credentials(name: &'static str, issuer: &Issuer<'_, KeyPair>, authority: &str) -> Credentials {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let uri = Identity { name: name.into(), role: Role::Node }.to_uri();
    params.subject_alt_names = vec![
        SanType::URI(uri.try_into().unwrap()),
        SanType::DnsName(NODE_DNS_NAME.to_owned().try_into().unwrap()),
    ];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Credentials::from_pem(authority, &certificate.pem(), &key.serialize_pem()).unwrap()
}

async fn bursts(size: u64, count: u64) {
    let pair = Pair::connect(LANE_BYTES).await;
    let (mut putting, mut rest) = (Cost::default(), Cost::default());
    // The first tenth warms up.
    let warm = count / 10 / size * size;
    let mut sent = 0;
    while sent < warm + count {
        if sent == warm {
            (putting, rest) = (Cost::default(), Cost::default());
        }
        let begun = begin();
        for _ in 0..size {
            assert_eq!(pair.put(Flow(0)), Sent::Accepted);
        }
        putting.add(begun);
        sent += size;
        let begun = begin();
        pair.got.reaches(sent).await;
        rest.add(begun);
    }
    let measured = sent - warm;
    putting.line(&format!("put into a lane, bursts of {size}"), measured);
    rest.line("  all the rest of the way", measured);
}

/// Each of some threads sends frames of a flow of its own.
fn threads(name: &str, flows: &[u32], executor: &tokio::runtime::Runtime) {
    const COUNT: u64 = 1_000_000;
    const ROUNDS: u64 = 5;
    let pair = executor.block_on(Pair::connect(1 << 30));
    let mut cost = Cost::default();
    for round in 0..=ROUNDS {
        if round == 1 {
            cost = Cost::default();
        }
        let begun = begin();
        std::thread::scope(|scope| {
            for &flow in flows {
                let (pair, flow) = (&pair, Flow(flow));
                scope.spawn(move || {
                    for _ in 0..COUNT / flows.len() as u64 {
                        assert_eq!(pair.put(flow), Sent::Accepted);
                    }
                });
            }
        });
        cost.add(begun);
        executor.block_on(pair.got.reaches((round + 1) * COUNT));
    }
    cost.line(name, ROUNDS * COUNT);
}

fn main() {
    let mut cost = Cost::default();
    let begun = begin();
    (0..1_000_000).for_each(|_| drop(black_box(Box::new(7_u64))));
    cost.add(begun);
    cost.line("an allocation and its end, counted", 1_000_000);

    let mut paused = tokio::runtime::Builder::new_current_thread();
    let paused = paused.enable_all().start_paused(true).build().unwrap();
    for (size, count) in [(1, 100_000), (16, 1_000_000), (128, 1_000_000), (1024, 1_000_000)] {
        paused.block_on(bursts(size, count));
    }
    let mut executor = tokio::runtime::Builder::new_multi_thread();
    let executor = executor.worker_threads(2).enable_all().build().unwrap();
    threads("1 thread", &[0], &executor);
    threads("4 threads, a lane each", &[0, 1, 2, 3], &executor);
    threads("4 threads, one lane", &[0, 16, 32, 48], &executor);
}
