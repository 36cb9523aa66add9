//! Endpoints of the transport without a node, on real sockets: they tell a test all they are told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use purlin::proto::{Name, NodeHello, NodeId, NodeName, Refusal, Role, View};
use purlin_transport::{
    Closed, Config, Credentials, DialError, Endpoint, Environment, Events, Flow, Frames, Link,
    Peer, Receiver, WireConfig,
};
use tokio::sync::mpsc;

use crate::memory::Cluster;

/// What an endpoint was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Up(NodeName),
    Down(NodeName, Closed),
    Frame(Flow, Bytes, Instant),
    Control(Bytes),
    Datagram(Bytes),
}

/// What an endpoint is told from now on.
pub struct Log(mpsc::UnboundedReceiver<Told>, Lie);

/// Whom it is told that it is dead, by whom and in which view: every node that dials.
type Lie = Arc<Mutex<Option<(NodeId, View)>>>;

impl Log {
    pub async fn next(&mut self) -> Told {
        let next = tokio::time::timeout(Duration::from_secs(10), self.0.recv()).await;
        next.expect("something within 10 s").expect("the endpoint lives")
    }

    /// From now on the endpoint refuses every node, as one that this life has declared down.
    pub fn declare_all_down(&self, by: NodeId, view: View) {
        *self.1.lock().unwrap() = Some((by, view));
    }

    /// The next frame; nothing else may come.
    pub async fn frame(&mut self) -> (Flow, Bytes, Instant) {
        loop {
            match self.next().await {
                Told::Frame(flow, frame, at) => return (flow, frame, at),
                Told::Control(_) | Told::Datagram(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// What has come by now and was not asked for.
    pub fn so_far(&mut self) -> Vec<Told> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }
}

/// An endpoint of a node on a free port of loopback.
pub fn endpoint(
    cluster: &Cluster,
    name: &'static str,
    change: impl FnOnce(&mut Config),
) -> (Endpoint, Log) {
    let credentials = cluster.credentials(name.into(), Role::Node);
    endpoint_of(credentials, |config| {
        config.cluster = Name::from("test");
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        config.node = Some(NodeHello { id: NodeId::new(name.into(), 1), address });
        change(config);
    })
}

/// An endpoint of anybody on a free port of loopback; of a client unless it is changed.
pub fn endpoint_of(credentials: Credentials, change: impl FnOnce(&mut Config)) -> (Endpoint, Log) {
    let mut config = Config::new(credentials, Name::from("purlin"));
    change(&mut config);
    let (tell, told) = mpsc::unbounded_channel();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let wire = WireConfig::Quic { listen, environment: Environment::system() };
    let lie = Lie::default();
    let ear = Arc::new(Ear(tell, Arc::clone(&lie)));
    (Endpoint::bind(config, wire, ear).unwrap(), Log(told, lie))
}

struct Ear(mpsc::UnboundedSender<Told>, Lie);

impl Ear {
    fn tell(&self, told: Told) {
        // The test may have ended.
        let _ = self.0.send(told);
    }
}

impl Events for Ear {
    fn admit(&self, peer: &Peer) -> Result<(), Refusal> {
        let lie = self.1.lock().unwrap();
        let Some(((by, view), node)) = lie.as_ref().zip(peer.node.as_ref()) else { return Ok(()) };
        let (creation, view) = (node.id.creation, Box::new(view.clone()));
        Err(Refusal::DeclaredDown { creation, by: *by, view })
    }

    fn up(&self, link: &Link) -> Arc<dyn Receiver> {
        self.tell(Told::Up(link.peer().name));
        Arc::new(Ear(self.0.clone(), Arc::clone(&self.1)))
    }

    fn down(&self, link: &Link, why: &Closed) {
        self.tell(Told::Down(link.peer().name, why.clone()));
    }

    fn unreachable(&self, _: NodeId, _: SocketAddr, _: &DialError) {}

    fn unreachable_hint(&self, _: SocketAddr) {}
}

impl Receiver for Ear {
    fn frames(&self, frames: &Frames<'_>) {
        for (flow, frame) in frames.owned() {
            self.tell(Told::Frame(flow, frame, Instant::now()));
        }
    }

    fn control(&self, frame: Bytes) {
        self.tell(Told::Control(frame));
    }

    fn datagram(&self, frame: Bytes) {
        self.tell(Told::Datagram(frame));
    }
}
