//! A cluster in memory.

use std::net::SocketAddr;
use std::time::Duration;

use purlin::proto::{NodeName, Permission, Role};
use purlin::{Network, Node, NodeBuilder};
use purlin_transport::{Credentials, Identity, NODE_DNS_NAME};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

/// Nodes on one network, under one authority.
pub struct Cluster {
    pub network: Network,
    issuer: Issuer<'static, KeyPair>,
    authority: String,
    pub nodes: Vec<Node>,
    next_port: u16,
}

impl Cluster {
    /// A cluster without nodes.
    pub fn empty() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { network: Network::new(1), issuer, authority, nodes: Vec::new(), next_port: 1 }
    }

    /// Nodes `n0`, `n1`, … that all see each other.
    pub async fn start(count: usize, kinds: impl Fn(NodeBuilder) -> NodeBuilder) -> Self {
        let mut cluster = Self::empty();
        for index in 0..count {
            cluster.join(&format!("n{index}"), &kinds).await;
        }
        cluster.until_all_see(count).await;
        cluster
    }

    pub fn credentials(&self, name: NodeName, role: Role) -> Credentials {
        self.certified(name, role, &[])
    }

    /// The credentials of a client that may do no more than this.
    pub fn bound_client(&self, name: NodeName, may: &[&str]) -> Credentials {
        self.certified(name, Role::Client, may)
    }

    fn certified(&self, name: NodeName, role: Role, may: &[&str]) -> Credentials {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let uri = Identity { name, role }.to_uri();
        let dns = NODE_DNS_NAME.to_owned().try_into().unwrap();
        params.subject_alt_names =
            vec![SanType::URI(uri.try_into().unwrap()), SanType::DnsName(dns)];
        for may in may {
            let uri = may.parse::<Permission>().unwrap().to_uri();
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Credentials::from_pem(&self.authority, &certificate, &key.serialize_pem()).unwrap()
    }

    pub fn next_address(&mut self) -> SocketAddr {
        let port = self.next_port;
        self.next_port += 1;
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    /// Adds a node; the first one is everybody's seed.
    pub async fn join(&mut self, name: &str, kinds: impl Fn(NodeBuilder) -> NodeBuilder) -> Node {
        let address = self.next_address();
        self.join_at(name, address, kinds).await
    }

    pub async fn join_at(
        &mut self,
        name: &str,
        address: SocketAddr,
        kinds: impl Fn(NodeBuilder) -> NodeBuilder,
    ) -> Node {
        let name = NodeName::new(name).unwrap();
        let credentials = self.credentials(name, Role::Node);
        let mut builder =
            kinds(Node::builder()).name(name).memory(self.network.clone(), address, credentials);
        if let Some(seed) = self.nodes.first() {
            builder = builder.seed(seed.address().to_string());
        }
        let node = builder.start().await.unwrap();
        self.nodes.push(node.clone());
        node
    }

    /// Waits until every node sees so many members, itself included.
    pub async fn until_all_see(&self, count: usize) {
        for node in &self.nodes {
            until_sees(node, count).await;
        }
    }

    pub fn cut(&self, a: &Node, b: &Node) {
        self.network.cut(a.address(), b.address());
    }

    pub fn heal(&self, a: &Node, b: &Node) {
        self.network.heal(a.address(), b.address());
    }
}

/// Waits until a node sees so many members, a minute at most.
pub async fn until_sees(node: &Node, count: usize) {
    for _ in 0..1200 {
        if node.members().len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} sees {:?}, not {count} members", node.id(), node.members());
}
