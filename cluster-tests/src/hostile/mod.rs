//! A member of the cluster that has been taken over: a genuine certificate, and the transport in the
//! hands of the test.

pub mod frames;
pub mod harm;
pub mod strangers;
pub mod voices;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use purlin::Node;
use purlin::proto::{Frame, NodeHello, NodeId, NodeName, Refusal};
use purlin_transport::{Closed, Credentials, DialError, Endpoint, Flow, Link, Priority};

use crate::endpoints::{Log, Told, endpoint_of};
use crate::sockets::Home;

/// The member.
pub struct Evil {
    pub endpoint: Endpoint,
    pub log: Log,
    id: NodeId,
}

impl Evil {
    /// Takes over a node of this home: it starts and stops once, as it should.
    pub async fn new(home: &Home, name: &'static str) -> Self {
        let node = home.builder(name).start().await.unwrap();
        // Above the life that it has just ended.
        let id = NodeId::new(name.into(), node.id().creation + 1);
        node.stop().await;
        let (endpoint, log) = endpoint_of(node_credentials(&home.dir(), id.name), |_| {});
        let mut evil = Self { endpoint, log, id };
        evil.reborn(id.creation);
        evil
    }

    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Says from now on that it is that life.
    pub fn reborn(&mut self, creation: u64) {
        self.id = NodeId::new(self.id.name, creation);
        let address = self.endpoint.local_address();
        self.endpoint.set_node(Some(NodeHello { id: self.id, address }));
    }

    /// Connects to a node, as often as it takes; under a new creation if its present life is over.
    pub async fn connect(&mut self, to: &Node) -> Link {
        for _ in 0..200 {
            match self.endpoint.dial(to.listen_address(), None).await {
                Ok(link) => return link,
                Err(DialError::Refused(Refusal::DeclaredDown { .. })) => {
                    self.reborn(self.id.creation + 1);
                }
                Err(DialError::Refused(Refusal::Superseded { newest })) => self.reborn(newest + 1),
                // A connection that has just ended may not have ended there.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("{} is not let in", self.id);
    }

    /// Why the connection was closed, 10 s at most.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Told::Down(_, why) = self.log.next().await {
                return why;
            }
        }
    }
}

/// Says a frame, whatever it is.
pub fn say(link: &Link, frame: &Frame) {
    say_bytes(link, &frame.to_bytes().unwrap());
}

pub fn say_bytes(link: &Link, frame: &[u8]) {
    link.send_large(Flow(1), Priority::System, Bytes::copy_from_slice(frame));
}

/// The credentials of a node, from its data directory.
pub fn node_credentials(home: &Path, name: NodeName) -> Credentials {
    let read = |path: &str| std::fs::read_to_string(home.join(path)).unwrap();
    let of = |file: &str| read(&format!("nodes/{name}/{file}"));
    Credentials::from_pem(&read("authority.pem"), &of("node.pem"), &of("node.key")).unwrap()
}
