//! Where the two parties of a scenario are: both on one node, or on two.
//!
//! A scenario is written once, as `async fn(Place)`; [`places!`] makes a test of it for each place.

use std::time::Duration;

use purlin::{Node, NodeBuilder, Outcome, RawContext, RawKind};
use purlin_cluster_tests::memory::Cluster;
use tokio::sync::oneshot;

use crate::actors::{Clock, Doomed, Parent, Worker};

/// A place to run a scenario in.
pub(crate) struct Place {
    pub(crate) cluster: Cluster,
    /// Where whoever acts is.
    pub(crate) here: Node,
    /// Where the other one is; the same node in a local place.
    pub(crate) there: Node,
}

impl Place {
    pub(crate) async fn local() -> Self {
        let cluster = Cluster::start(1, kinds).await;
        let node = cluster.nodes[0].clone();
        Self { here: node.clone(), there: node, cluster }
    }

    pub(crate) async fn remote() -> Self {
        let cluster = Cluster::start(2, kinds).await;
        let [here, there] = &cluster.nodes[..] else { unreachable!() };
        Self { here: here.clone(), there: there.clone(), cluster }
    }

    pub(crate) fn is_local(&self) -> bool {
        self.here.id() == self.there.id()
    }

    /// From now on everything is on its way for a while, so that what both sides do at once passes
    /// each other.
    pub(crate) fn be_far(&self) {
        self.cluster.network.set_latency(Duration::from_millis(50));
    }

    pub(crate) fn cut(&self) {
        self.cluster.cut(&self.here, &self.there);
    }

    pub(crate) fn heal(&self) {
        self.cluster.heal(&self.here, &self.there);
    }
}

/// Every kind of these tests.
pub(crate) fn kinds(builder: NodeBuilder) -> NodeBuilder {
    builder.actor::<Worker>().actor::<Clock>().actor::<Parent>().actor::<Doomed>()
}

static SCENE: RawKind = RawKind::new("scene");

/// Runs a future as a raw process of a node; what it returns, within ten minutes.
pub(crate) async fn run_on<T, Fut>(
    node: &Node,
    body: impl FnOnce(RawContext) -> Fut + Send + 'static,
) -> T
where
    T: Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let scene = move |ctx| {
        let body = body(ctx);
        async move {
            let _ = tell.send(body.await);
            Outcome::Ok(())
        }
    };
    node.runtime().spawn_raw(&SCENE, scene).unwrap();
    let limit = Duration::from_mins(10);
    tokio::time::timeout(limit, told).await.expect("done in time").expect("the scene lives")
}

/// Lets what is on its way arrive.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// Waits until a condition holds, a minute at most.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited for {what}");
}

/// One of a node's counters.
pub(crate) fn count(node: &Node, name: &str) -> u64 {
    let counters = node.runtime().counters().snapshot();
    counters.into_iter().find(|counter| counter.name == name).expect("a counter").count
}

/// Makes tests of scenarios: those that hold in `both` places, those for one of them only,
/// and those that need threads and real time.
macro_rules! places {
    (
        both { $($(#[$both_meta:meta])* $both:ident)* }
        $(local { $($(#[$local_meta:meta])* $local:ident)* })?
        $(remote { $($(#[$remote_meta:meta])* $remote:ident)* })?
        $(local_on_threads { $($(#[$local_threads_meta:meta])* $local_threads:ident)* })?
        $(remote_on_threads { $($(#[$remote_threads_meta:meta])* $remote_threads:ident)* })?
    ) => {
        mod local {
            $(
                $(#[$both_meta])*
                #[tokio::test(start_paused = true)]
                async fn $both() { super::$both(crate::place::Place::local().await).await; }
            )*
            $($(
                $(#[$local_meta])*
                #[tokio::test(start_paused = true)]
                async fn $local() { super::$local(crate::place::Place::local().await).await; }
            )*)?
        }

        mod local_on_threads {
            $($(
                $(#[$local_threads_meta])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $local_threads() { super::$local_threads(crate::place::Place::local().await).await; }
            )*)?
        }

        mod remote {
            $(
                $(#[$both_meta])*
                #[tokio::test(start_paused = true)]
                async fn $both() { super::$both(crate::place::Place::remote().await).await; }
            )*
            $($(
                $(#[$remote_meta])*
                #[tokio::test(start_paused = true)]
                async fn $remote() { super::$remote(crate::place::Place::remote().await).await; }
            )*)?
        }

        mod remote_on_threads {
            $($(
                $(#[$remote_threads_meta])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $remote_threads() { super::$remote_threads(crate::place::Place::remote().await).await; }
            )*)?
        }
    };
}

pub(crate) use places;
