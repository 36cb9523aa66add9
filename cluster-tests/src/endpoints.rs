//! Endpoints of the transport without a node, on real sockets: they tell a test all they are told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use purlin::proto::{Name, NodeHello, NodeId, NodeName, Refusal, Role};
use purlin_transport::{
    Closed, Config, DialError, Endpoint, Environment, Events, Flow, Frames, Link, Peer, Receiver,
    WireConfig,
};
use tokio::sync::mpsc;

use crate::memory::Cluster;

/// What an endpoint was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Up(NodeName),
    Down(NodeName, Closed),
    Frame(Flow, Bytes, Instant),
}

/// What an endpoint is told from now on.
pub struct Log(mpsc::UnboundedReceiver<Told>);

impl Log {
    pub async fn next(&mut self) -> Told {
        let next = tokio::time::timeout(Duration::from_secs(10), self.0.recv()).await;
        next.expect("something within 10 s").expect("the endpoint lives")
    }

    /// The next frame; nothing else may come.
    pub async fn frame(&mut self) -> (Flow, Bytes, Instant) {
        match self.next().await {
            Told::Frame(flow, frame, at) => (flow, frame, at),
            other => panic!("{other:?}"),
        }
    }
}

/// An endpoint of a node on a free port of loopback.
pub fn endpoint(
    cluster: &Cluster,
    name: &'static str,
    change: impl FnOnce(&mut Config),
) -> (Endpoint, Log) {
    let credentials = cluster.credentials(name.into(), Role::Node);
    let mut config = Config::new(credentials, Name::from("test"));
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    config.node = Some(NodeHello { id: NodeId::new(name.into(), 1), address });
    change(&mut config);
    let (tell, told) = mpsc::unbounded_channel();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let wire = WireConfig::Quic { listen, environment: Environment::system() };
    (Endpoint::bind(config, wire, Arc::new(Ear(tell))).unwrap(), Log(told))
}

struct Ear(mpsc::UnboundedSender<Told>);

impl Ear {
    fn tell(&self, told: Told) {
        // The test may have ended.
        let _ = self.0.send(told);
    }
}

impl Events for Ear {
    fn admit(&self, _: &Peer) -> Result<(), Refusal> {
        Ok(())
    }

    fn up(&self, link: &Link) -> Arc<dyn Receiver> {
        self.tell(Told::Up(link.peer().name));
        Arc::new(Ear(self.0.clone()))
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

    fn control(&self, _: Bytes) {}

    fn datagram(&self, _: Bytes) {}
}
