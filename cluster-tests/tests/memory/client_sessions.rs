//! A client against a node that does what no good node does. On the network in memory, with time
//! that stands still.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use purlin::proto::session::{Request, Update};
use purlin::proto::{
    CallError, Codec, Dest, Down, ExitReason, Frame, MessageName, Name, NodeHello, NodeId, Payload,
    Reference, Refusal, Role,
};
use purlin_client::{Client, Monitor};
use purlin_cluster_tests::memory::Cluster;
use purlin_transport::{
    Closed, Config, DialError, Endpoint, Events, Flow, Frames, Link, Peer, Priority, Receiver,
    WireConfig,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A node that says only what the test says.
struct Fake {
    address: SocketAddr,
    id: NodeId,
    endpoint: Endpoint,
    said: mpsc::UnboundedReceiver<(Link, Said)>,
}

#[derive(Debug)]
enum Said {
    Connected,
    Request(Request),
}

struct Ear(mpsc::UnboundedSender<(Link, Said)>);

struct Taker(mpsc::UnboundedSender<(Link, Said)>, Link);

impl Events for Ear {
    fn admit(&self, _: &Peer) -> Result<(), Refusal> {
        Ok(())
    }

    fn up(&self, link: &Link) -> Arc<dyn Receiver> {
        drop(self.0.send((link.clone(), Said::Connected)));
        Arc::new(Taker(self.0.clone(), link.clone()))
    }

    fn down(&self, _: &Link, _: &Closed) {}

    fn unreachable(&self, _: NodeId, _: SocketAddr, _: &DialError) {}

    fn unreachable_hint(&self, _: SocketAddr) {}
}

impl Receiver for Taker {
    fn frames(&self, frames: &Frames<'_>) {
        for (_, frame) in frames.owned() {
            if let Frame::Request(request) = Frame::decode(frame).unwrap() {
                drop(self.0.send((self.1.clone(), Said::Request(request))));
            }
        }
    }

    fn control(&self, _: Bytes) {}

    fn datagram(&self, _: Bytes) {}
}

impl Fake {
    fn start(cluster: &mut Cluster, name: &'static str) -> Self {
        let credentials = cluster.credentials(name.into(), Role::Node);
        let address = cluster.next_address();
        let id = NodeId::new(name.into(), 1);
        let mut config = Config::new(credentials, Name::from("purlin"));
        config.node = Some(NodeHello { id, address });
        let wire = WireConfig::Memory { network: cluster.network.clone(), address };
        let (sender, said) = mpsc::unbounded_channel();
        let endpoint = Endpoint::bind(config, wire, Arc::new(Ear(sender))).unwrap();
        Self { address, id, endpoint, said }
    }

    /// Takes a connection and welcomes it.
    async fn welcome(&mut self) -> Link {
        let (link, said) = self.said.recv().await.unwrap();
        assert!(matches!(said, Said::Connected), "{said:?}");
        tell(&link, Update::Welcome { session: self.id.pid(1) });
        link
    }

    async fn request(&mut self) -> Request {
        match self.said.recv().await.unwrap().1 {
            Said::Request(request) => request,
            other @ Said::Connected => panic!("{other:?}"),
        }
    }
}

fn tell(link: &Link, update: Update) {
    let frame = Frame::Update(update);
    let sent = link.send(Flow(0), Priority::User, &mut |out| frame.encode(out).is_ok());
    assert!(matches!(sent, purlin_transport::Sent::Accepted));
}

async fn connect(cluster: &mut Cluster, nodes: &mut [&mut Fake]) -> (Client, Link) {
    let credentials = cluster.credentials("client".into(), Role::Operator);
    let seeds: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    let builder = Client::builder(seeds).memory(cluster.network.clone(), cluster.next_address());
    let (client, link) = tokio::join!(builder.connect(credentials), nodes[0].welcome());
    (client.unwrap(), link)
}

fn number(value: i64) -> Payload {
    Payload::encode(Codec::Bincode, &value).unwrap()
}

async fn ask(client: &Client, timeout: Duration) -> Result<Payload, CallError> {
    client.call_raw("x", MessageName::from(Name::from("test.ask")), number(0), timeout).await
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_reply_that_comes_too_late_answers_nothing_else() {
    let mut cluster = Cluster::empty();
    let mut node = Fake::start(&mut cluster, "a");
    let (client, link) = connect(&mut cluster, &mut [&mut node]).await;

    let (late, first) = tokio::join!(ask(&client, SECOND), node.request());
    assert_eq!(late, Err(CallError::Timeout));
    let answered = async {
        let Request::Call { reference, .. } = first else { panic!("{first:?}") };
        tell(&link, Update::Reply { reference, result: Ok(number(1)) });
        let second = node.request().await;
        let Request::Call { reference, .. } = second else { panic!("{second:?}") };
        tell(&link, Update::Reply { reference, result: Ok(number(2)) });
    };
    let (reply, ()) = tokio::join!(ask(&client, SECOND), answered);
    assert_eq!(reply, Ok(number(2)));
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_ends_with_the_connection_and_the_next_goes_through_another_node() {
    let mut cluster = Cluster::empty();
    let mut a = Fake::start(&mut cluster, "a");
    let mut b = Fake::start(&mut cluster, "b");
    let (client, _link) = connect(&mut cluster, &mut [&mut a, &mut b]).await;
    let monitor: Monitor = client.monitor("x").await.unwrap();
    let first = client.session();

    let ends = async {
        a.request().await;
        a.request().await;
        a.endpoint.close(&Refusal::Stopping).await;
    };
    let (call, ()) = tokio::join!(ask(&client, 10 * SECOND), ends);
    assert_eq!(call, Err(CallError::NoConnection));
    let down = monitor.down().await;
    assert_eq!((down.target, down.reason), (Dest::from("x"), ExitReason::NoConnection));

    let answers = async {
        let link = b.welcome().await;
        let request = b.request().await;
        let Request::Call { reference, .. } = request else { panic!("{request:?}") };
        tell(&link, Update::Reply { reference, result: Ok(number(3)) });
    };
    let (reply, ()) = tokio::join!(ask(&client, 10 * SECOND), answers);
    assert_eq!(reply, Ok(number(3)));
    assert_ne!(client.session(), first);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_opens_no_session_is_no_connection() {
    let mut cluster = Cluster::empty();
    let node = Fake::start(&mut cluster, "a");
    let credentials = cluster.credentials("client".into(), Role::Operator);
    let seeds = [node.address.to_string()];
    let builder = Client::builder(seeds).memory(cluster.network.clone(), cluster.next_address());

    let begun = Instant::now();
    let refused = builder.timeout(2 * SECOND).connect(credentials).await.unwrap_err();

    assert!(begun.elapsed() <= 2 * SECOND + SECOND / 10, "{:?}", begun.elapsed());
    assert!(refused.to_string().contains("no session was opened"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_frame_end_the_connection_and_not_the_client() {
    let mut cluster = Cluster::empty();
    let mut node = Fake::start(&mut cluster, "a");
    let (client, link) = connect(&mut cluster, &mut [&mut node]).await;

    let garbage = &mut |out: &mut bytes::BytesMut| {
        out.extend_from_slice(&[0xff; 9]);
        true
    };
    assert!(matches!(
        link.send(Flow(0), Priority::User, garbage),
        purlin_transport::Sent::Accepted
    ));

    let again = node.welcome().await;
    let answers = async {
        let request = node.request().await;
        let Request::Call { reference, .. } = request else { panic!("{request:?}") };
        tell(&again, Update::Reply { reference, result: Ok(number(4)) });
    };
    let (reply, ()) = tokio::join!(ask(&client, 10 * SECOND), answers);
    assert_eq!(reply, Ok(number(4)));
}

#[tokio::test(start_paused = true)]
async fn answers_to_questions_that_nobody_asked_are_nothing() {
    let mut cluster = Cluster::empty();
    let mut node = Fake::start(&mut cluster, "a");
    let (client, link) = connect(&mut cluster, &mut [&mut node]).await;

    let reference = Reference(4_711);
    let target = Dest::from("x");
    tell(&link, Update::Reply { reference, result: Ok(number(9)) });
    tell(&link, Update::Spawned { reference, result: Ok(node.id.pid(9)) });
    tell(&link, Update::Down(Down { reference, target, reason: ExitReason::Normal }));
    let answers = async {
        let request = node.request().await;
        let Request::Call { reference, .. } = request else { panic!("{request:?}") };
        tell(&link, Update::Reply { reference, result: Ok(number(5)) });
    };
    let (reply, ()) = tokio::join!(ask(&client, SECOND), answers);
    assert_eq!(reply, Ok(number(5)));
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_last_clone_is_dropped_arrives() {
    let mut cluster = Cluster::empty();
    let mut node = Fake::start(&mut cluster, "a");
    let (client, _link) = connect(&mut cluster, &mut [&mut node]).await;

    let message = MessageName::from(Name::from("test.tell"));
    for n in 0..1_000 {
        client.send_raw("x", message.clone(), number(n)).await.unwrap();
    }
    drop(client);

    for n in 0..1_000 {
        let Request::Send { payload, .. } = node.request().await else { panic!("another request") };
        assert_eq!(payload, number(n));
    }
}
