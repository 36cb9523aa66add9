//! Nodes of this process on real sockets, under one authority, each behind a relay.

use std::path::PathBuf;
use std::time::Duration;

use purlin::proto::admin::{GetStatus, SYSTEM, Status};
use purlin::{Dest, Name, Node, NodeBuilder};

use crate::memory::until_sees;
use crate::numbered::Receiver;
use crate::relay::{Relay, Settings};

/// The data directory of a cluster.
pub struct Home(tempfile::TempDir);

/// Two nodes that see each other. `b` has dialed, over the relay to `a`.
pub struct Pair {
    pub home: Home,
    pub a: Node,
    pub b: Node,
    pub to_a: Relay,
    pub to_b: Relay,
}

impl Default for Home {
    fn default() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Home {
    pub fn dir(&self) -> PathBuf {
        self.0.path().join("home")
    }

    /// A node on a free port of loopback that notices silence within a second or so.
    pub fn builder(&self, name: &'static str) -> NodeBuilder {
        Node::builder()
            .name(name)
            .data_dir(self.dir())
            .listen("127.0.0.1:0")
            .detect_in(Duration::from_secs(1))
            .actor::<Receiver>()
    }

    /// A node that says of itself that it is where the relay is, which leads there from now on.
    pub async fn start_behind(&self, relay: &Relay, builder: NodeBuilder) -> Node {
        let node = builder.advertise(relay.address()).start().await.unwrap();
        relay.aim(node.listen_address());
        node
    }
}

impl Pair {
    pub async fn start(settings: Settings, kinds: impl Fn(NodeBuilder) -> NodeBuilder) -> Self {
        let home = Home::default();
        let (to_a, to_b) = (Relay::start(None, settings), Relay::start(None, settings));
        let a = home.start_behind(&to_a, kinds(home.builder("a"))).await;
        let builder = kinds(home.builder("b")).seed(to_a.address().to_string());
        let b = home.start_behind(&to_b, builder).await;
        until_sees(&a, 2).await;
        until_sees(&b, 2).await;
        // What a node says comes after it is up, so all that watch nodes from now on are told no more.
        for (from, of) in [(&a, &b), (&b, &a)] {
            status(from, Dest::Remote(Name::new(SYSTEM).unwrap(), of.id().name)).await;
        }
        Self { home, a, b, to_a, to_b }
    }

    /// Lets nothing through between the two, whoever dials.
    pub fn cut(&self) {
        self.to_a.cut();
        self.to_b.cut();
    }

    pub fn heal(&self) {
        self.to_a.heal();
        self.to_b.heal();
    }

    pub async fn stop(&self) {
        tokio::join!(self.a.stop(), self.b.stop());
    }
}

/// What a node counts under a name.
pub async fn counter(node: &Node, name: &str) -> u64 {
    let counters = status(node, Dest::Local(Name::new(SYSTEM).unwrap())).await.counters;
    counters.iter().find(|counter| counter.name == name).map_or(0, |counter| counter.count)
}

async fn status(from: &Node, of: Dest) -> Status {
    from.call(of, GetStatus).await.unwrap()
}

/// Waits for a condition, up to a limit.
pub async fn until(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("waited for {what}"));
}
