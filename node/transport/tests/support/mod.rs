//! A small language for tests of links: fabrics (QUIC, memory), nodes that record what they get.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::{NodeHello, NodeId, NodeName, Refusal};
use purlin_transport::{
    Answering, Certified, Closed, Config, Credentials, DialError, Endpoint, Environment, Events,
    Fingerprint, Flow, Frames, Identity, Link, Network, Peer, Receiver, WireConfig,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Notify;

/// Who signs the certificates of a test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        Fingerprint::of(&der)
    }

    /// A certificate and its key, as PEM.
    pub(crate) fn pair(&self, identity: Identity) -> (String, String) {
        self.pair_with(identity, |_| {})
    }

    pub(crate) fn issue(&self, identity: Identity) -> Credentials {
        self.issue_with(identity, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        identity: Identity,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Credentials {
        let (certificate, key) = self.pair_with(identity, change);
        Credentials::from_pem(&self.pem, &certificate, &key).unwrap()
    }

    fn pair_with(
        &self,
        identity: Identity,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let uri = SanType::URI(identity.to_uri().try_into().unwrap());
        params.subject_alt_names = vec![uri];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if identity.role == purlin_proto::Role::Node {
            let dns = purlin_transport::NODE_DNS_NAME.to_owned().try_into().unwrap();
            params.subject_alt_names.push(SanType::DnsName(dns));
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// What carries the connections of a test.
pub(crate) enum Fabric {
    Quic,
    Memory(Network, std::sync::atomic::AtomicU16),
}

impl Fabric {
    pub(crate) fn memory() -> Self {
        Self::Memory(Network::new(7), std::sync::atomic::AtomicU16::new(1))
    }

    fn wire(&self) -> WireConfig {
        match self {
            Self::Quic => WireConfig::Quic {
                listen: "127.0.0.1:0".parse().unwrap(),
                environment: Environment::system(),
            },
            Self::Memory(network, port) => {
                let port = port.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let address = SocketAddr::from(([10, 0, 0, 1], port));
                WireConfig::Memory { network: network.clone(), address }
            }
        }
    }
}

/// What an endpoint was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Up(NodeName),
    Down(NodeName, Closed),
    Answered(Refusal),
    Unreachable(NodeId),
    Hint(SocketAddr),
    Asked(Bytes),
    Frame(Flow, Bytes),
    Control(Bytes),
    Datagram(Bytes),
}

#[derive(Default)]
pub(crate) struct Record {
    seen: Mutex<Vec<Seen>>,
    changed: Notify,
    disbelieve: Mutex<Option<Refusal>>,
    refuse: Mutex<Option<Refusal>>,
    answer: Mutex<Option<Refusal>>,
    /// What is done while an end is being told.
    on_end: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Record {
    fn add(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
        self.changed.notify_waiters();
    }

    pub(crate) fn believe_nobody(&self, why: Refusal) {
        *self.disbelieve.lock().unwrap() = Some(why);
    }

    pub(crate) fn refuse_all(&self, why: Refusal) {
        *self.refuse.lock().unwrap() = Some(why);
    }

    pub(crate) fn answer_all(&self, why: Refusal) {
        *self.answer.lock().unwrap() = Some(why);
    }

    /// What is done while the next end is being told.
    pub(crate) fn on_end(&self, act: impl FnOnce() + Send + 'static) {
        *self.on_end.lock().unwrap() = Some(Box::new(act));
    }

    fn ended(&self, seen: Seen) {
        let act = self.on_end.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
        self.add(seen);
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn frames(&self) -> Vec<(Flow, Bytes)> {
        let frame = |seen| match seen {
            Seen::Frame(flow, bytes) => Some((flow, bytes)),
            _ => None,
        };
        self.all().into_iter().filter_map(frame).collect()
    }

    /// Waits, 20 s at most, until what was seen satisfies a condition.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[Seen]) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if condition(&self.seen.lock().unwrap()) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
            let seen = self.all();
            let kinds: Vec<_> =
                seen.iter().filter(|s| !matches!(s, Seen::Frame(..))).take(20).collect();
            panic!("waited for {what}; {} seen, besides frames {kinds:?}", seen.len());
        }
    }
}

struct Recorder(Arc<Record>);

impl Events for Recorder {
    fn believe(&self, _: &Certified) -> Result<(), Refusal> {
        self.0.disbelieve.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn admit(&self, _: &Peer) -> Result<(), Refusal> {
        self.0.refuse.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn answer(&self, _: &Refusal) -> Option<Refusal> {
        self.0.answer.lock().unwrap().clone()
    }

    fn answered(&self, _: SocketAddr, refusal: &Refusal) {
        self.0.add(Seen::Answered(refusal.clone()));
    }

    /// Whoever knocks is answered with the same.
    fn join(&self, _: SocketAddr, request: Bytes) -> Answering<'_> {
        self.0.add(Seen::Asked(request.clone()));
        let answer = request.starts_with(b"knock").then_some(request);
        Box::pin(async move { answer })
    }

    fn up(&self, link: &Link) -> Arc<dyn Receiver> {
        self.0.add(Seen::Up(link.peer().name));
        Arc::new(Recorder(Arc::clone(&self.0)))
    }

    fn down(&self, link: &Link, why: &Closed) {
        self.0.ended(Seen::Down(link.peer().name, why.clone()));
    }

    fn unreachable(&self, node: NodeId, _: SocketAddr, _: &DialError) {
        self.0.ended(Seen::Unreachable(node));
    }

    fn unreachable_hint(&self, address: SocketAddr) {
        self.0.add(Seen::Hint(address));
    }
}

impl Receiver for Recorder {
    fn frames(&self, frames: &Frames<'_>) {
        frames.owned().for_each(|(flow, frame)| self.0.add(Seen::Frame(flow, frame)));
    }

    fn control(&self, frame: Bytes) {
        self.0.add(Seen::Control(frame));
    }

    fn datagram(&self, frame: Bytes) {
        self.0.add(Seen::Datagram(frame));
    }
}

/// An endpoint of a node, and what it has seen.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) record: Arc<Record>,
    pub(crate) id: NodeId,
}

impl Node {
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_address()
    }

    /// Sends a frame as a user would, waiting while the lane is full.
    pub(crate) async fn send(&self, to: &Node, flow: Flow, frame: &Bytes) {
        use purlin_transport::{Priority, Sent};
        loop {
            let endpoint = &self.endpoint;
            match endpoint.send_bytes(to.id, to.address(), flow, Priority::User, frame) {
                Sent::Accepted => return,
                Sent::Full => endpoint.ready(&to.id, flow).await,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A world of a test: a fabric and an authority.
pub(crate) struct World {
    pub(crate) fabric: Fabric,
    pub(crate) authority: Authority,
}

impl World {
    pub(crate) fn new(fabric: Fabric) -> Self {
        Self { fabric, authority: Authority::new() }
    }

    pub(crate) fn node(&self, name: &'static str) -> Node {
        self.node_with(name, 1, |_| {})
    }

    pub(crate) fn node_with(
        &self,
        name: &'static str,
        creation: u64,
        change: impl FnOnce(&mut Config),
    ) -> Node {
        let identity = Identity { name: name.into(), role: purlin_proto::Role::Node };
        self.endpoint(self.authority.issue(identity), creation, change)
    }

    pub(crate) fn endpoint(
        &self,
        credentials: Credentials,
        creation: u64,
        change: impl FnOnce(&mut Config),
    ) -> Node {
        Self::endpoint_on(self.fabric.wire(), credentials, creation, change)
    }

    pub(crate) fn endpoint_on(
        wire: WireConfig,
        credentials: Credentials,
        creation: u64,
        change: impl FnOnce(&mut Config),
    ) -> Node {
        let id = NodeId::new(credentials.identity().name, creation);
        let mut config = Config::new(credentials, "test".parse().unwrap());
        config.node = Some(NodeHello { id, address: "127.0.0.1:1".parse().unwrap() });
        config.idle_timeout = Duration::from_secs(2);
        config.keep_alive = Duration::from_millis(500);
        change(&mut config);
        let record = Arc::new(Record::default());
        let events = Arc::new(Recorder(Arc::clone(&record)));
        let endpoint = Endpoint::bind(config, wire, events).unwrap();
        Node { endpoint, record, id }
    }
}

/// The frames of each flow, in the order they came.
pub(crate) fn by_flow(frames: Vec<(Flow, Bytes)>) -> HashMap<Flow, Vec<Bytes>> {
    let mut flows: HashMap<Flow, Vec<Bytes>> = HashMap::new();
    for (flow, frame) in frames {
        flows.entry(flow).or_default().push(frame);
    }
    flows
}
