//! Exclusive children of cluster supervisors on simulated machines: at most one of a child, at every
//! instant, and again one whatever happens to its node.
//!
//! Each process says when it begins, acts and is gone; the order is the world's, in which all machines
//! are one thread.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use purlin::prelude::*;
use purlin::proto::admin::{GetDrainPlan, SYSTEM};
use purlin::testing::Cluster;
use purlin::{
    ClusterChild, ClusterChildError, ClusterSupervisor, Dest, Fence, NodeBuilder, StartedChild,
};

const S: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);
const CHILDREN: usize = 12;

/// A loss is noticed, its lease runs out, and others take over within this.
const FAILOVER: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq)]
struct Act {
    child: String,
    node: NodeName,
    fence: Fence,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Begins,
    Acts,
    Ends,
}

thread_local! {
    static SEEN: RefCell<Vec<Act>> = const { RefCell::new(Vec::new()) };
}

/// What has been seen so far.
fn seen() -> Vec<Act> {
    SEEN.with_borrow(Clone::clone)
}

/// Says when it is dropped, whatever ends the process.
struct Place {
    child: String,
    node: NodeName,
    fence: Fence,
}

impl Place {
    fn note(&self, what: What) {
        let (child, node, fence) = (self.child.clone(), self.node, self.fence);
        // A machine that is dropped when the thread ends has nobody left to tell.
        let _ = SEEN.try_with(|seen| seen.borrow_mut().push(Act { child, node, fence, what }));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.note(What::Ends);
    }
}

struct Sentry {
    place: Place,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Watch;
impl Message for Watch {
    const NAME: &'static str = "sentry.watch";
    type Reply = NodeName;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Again;
impl Message for Again {
    const NAME: &'static str = "sentry.again";
    type Reply = ();
}

impl Actor for Sentry {
    const KIND: &'static str = "sentry";
    type Args = String;
    type Messages = (Watch, Again);

    async fn start(child: String, ctx: &mut Context<Self>) -> Outcome<Self> {
        let (node, fence) = (ctx.pid().node.name, ctx.fence().expect("it is exclusive"));
        let place = Place { child, node, fence };
        place.note(What::Begins);
        ctx.send_after(STEP, Again);
        Ok(Self { place })
    }
}

impl Handler<Watch> for Sentry {
    async fn handle(&mut self, _: Watch, _: &mut Context<Self>) -> Outcome<NodeName> {
        self.place.note(What::Acts);
        Ok(self.place.node)
    }
}

impl Handler<Again> for Sentry {
    async fn handle(&mut self, _: Again, ctx: &mut Context<Self>) -> Outcome {
        self.place.note(What::Acts);
        ctx.send_after(STEP, Again);
        Ok(())
    }
}

fn exclusive(builder: NodeBuilder) -> NodeBuilder {
    builder.actor::<Sentry>().exclusive()
}

fn three(seed: u64) -> Cluster {
    Cluster::builder(seed).nodes(3).with(exclusive).start()
}

async fn start(
    cluster: &Cluster,
    on: &'static str,
    name: String,
) -> Result<StartedChild, ClusterChildError> {
    let start = |node: Node| async move {
        let child = ClusterChild::actor::<Sentry>(Key::new(name.as_str()).unwrap(), name);
        node.cluster_supervisor(ClusterSupervisor::new("watch")).start_child(child).await
    };
    cluster.node(on).run(start).await.unwrap()
}

/// Starts all of them, and waits until they run.
async fn start_all(cluster: &Cluster) {
    // Views come a moment after members do.
    cluster.advance(10 * S).await;
    for number in 0..CHILDREN {
        let started = start(cluster, "n0", format!("c{number}")).await;
        assert_eq!(started, Ok(StartedChild::New), "c{number}");
    }
    cluster.until(10 * S, "all run", || running().len() == CHILDREN).await;
}

/// Where each runs, by what they have said of themselves.
fn running() -> BTreeMap<String, (NodeName, Fence)> {
    let mut running = BTreeMap::new();
    for act in seen() {
        match act.what {
            What::Begins => drop(running.insert(act.child, (act.node, act.fence))),
            What::Acts => {}
            What::Ends => {
                if running.get(&act.child).is_some_and(|(_, fence)| *fence == act.fence) {
                    running.remove(&act.child);
                }
            }
        }
    }
    running
}

/// How often each has begun.
fn begun() -> BTreeMap<String, usize> {
    let mut begun = BTreeMap::new();
    for act in seen().into_iter().filter(|act| act.what == What::Begins) {
        *begun.entry(act.child).or_default() += 1;
    }
    begun
}

/// Of each child: one has ended before the next begins, tokens rise, and none acts after a newer one
/// has begun.
fn never_two() {
    let (mut newest, mut present) = (BTreeMap::new(), BTreeMap::<String, Fence>::new());
    for act in seen() {
        let before = newest.get(&act.child).copied();
        match act.what {
            What::Begins => {
                assert!(before.is_none_or(|before| act.fence > before), "{act:?} after {before:?}");
                let other = present.insert(act.child.clone(), act.fence);
                assert_eq!(other, None, "{act:?} while another one runs");
                newest.insert(act.child, act.fence);
            }
            What::Acts => assert_eq!(before, Some(act.fence), "{act:?} acts after a newer one"),
            What::Ends => {
                let ended = present.remove(&act.child);
                assert_eq!(ended, Some(act.fence), "{act:?}");
            }
        }
    }
}

/// Asks each child from a node, where it is; those that answer.
async fn answer(cluster: &Cluster, from: NodeName) -> BTreeMap<String, NodeName> {
    let calls = |node: Node| async move {
        let call = |number| {
            let (node, name) = (node.clone(), format!("c{number}"));
            tokio::spawn(async move {
                let to = Dest::child("watch", Key::new(name.as_str()).unwrap());
                let at = node.call(to, Watch).await;
                at.ok().map(|at| (name, at))
            })
        };
        let mut answers = BTreeMap::new();
        for call in (0..CHILDREN).map(call).collect::<Vec<_>>() {
            answers.extend(call.await.unwrap());
        }
        answers
    };
    cluster.node(from).run(calls).await.unwrap_or_default()
}

#[test]
fn each_runs_once_and_is_reached_from_every_node() {
    three(1).run(async |cluster| {
        start_all(cluster).await;
        cluster.advance(10 * S).await;
        let places: BTreeMap<_, _> = running().into_iter().map(|(name, at)| (name, at.0)).collect();
        let nodes: std::collections::BTreeSet<_> = places.values().collect();
        assert!(nodes.len() > 1, "they are shared out: {places:?}");
        for from in cluster.names() {
            assert_eq!(answer(cluster, from).await, places, "from {from}");
        }
        assert!(begun().values().all(|count| *count == 1), "{:?}", begun());
        never_two();
    });
}

#[test]
fn when_a_node_is_lost_its_children_run_elsewhere_once() {
    for lost in ["n0", "n1", "n2"] {
        SEEN.take();
        three(3).run(async |cluster| {
            start_all(cluster).await;
            // So long that none is taken for the reason.
            cluster.advance(60 * S).await;
            let before = running();
            let there = |at: &(NodeName, Fence)| at.0 == lost.into();
            assert!(before.values().any(there), "{before:?}");

            cluster.crash(lost);
            cluster.until(FAILOVER, "all run again", || running().len() == CHILDREN).await;
            cluster.advance(20 * S).await;

            let (after, begun) = (running(), begun());
            for (name, at) in &before {
                let now = &after[name];
                // The new view may have moved others as well.
                match !there(at) && now == at {
                    true => assert_eq!(begun[name], 1),
                    false => assert!(now.1 > at.1 && begun[name] == 2, "{name}: {at:?}, {now:?}"),
                }
            }
            let from = cluster.running()[0];
            assert_eq!(answer(cluster, from).await.len(), CHILDREN);
            never_two();
        });
    }
}

#[test]
fn a_node_that_is_drained_leaves_when_they_run_elsewhere() {
    three(6).run(async |cluster| {
        start_all(cluster).await;
        cluster.advance(60 * S).await;
        let before = running();
        let leaving = NodeName::from("n1");
        let there = before.values().filter(|at| at.0 == leaving).count();
        assert!(there > 0, "{before:?}");
        let system = Dest::Remote(SYSTEM.parse().unwrap(), leaving);
        let plan = cluster.node("n0").call(system, GetDrainPlan).await.unwrap();
        assert_eq!(plan.moves.iter().map(|moved| moved.count).sum::<usize>(), there, "{plan:?}");

        let drained = cluster.node("n1").run(async |node| node.drain().await).await.unwrap();

        assert_eq!(drained.left, 0, "{drained:?}");
        let after = running();
        assert_eq!(after.len(), CHILDREN);
        for (name, at) in &before {
            match at.0 == leaving {
                true => assert!(after[name].0 != leaving && after[name].1 > at.1, "{name}"),
                false => assert_eq!(&after[name], at, "{name} has stayed"),
            }
        }
        for moved in &plan.moves {
            let went = |(name, at): (&String, &(NodeName, Fence))| {
                before[name].0 == leaving && at.0 == moved.to
            };
            let count = after.iter().filter(|at| went(*at)).count();
            assert_eq!(count, moved.count, "as planned: {plan:?}");
        }
        cluster.stop(leaving).await;
        assert_eq!(answer(cluster, "n0".into()).await.len(), CHILDREN);
        never_two();
    });
}

#[test]
fn the_smaller_side_of_a_split_stops_them_before_the_larger_one_begins() {
    three(4).run(async |cluster| {
        start_all(cluster).await;
        cluster.advance(60 * S).await;
        let before = running();
        let alone = NodeName::from("n0");
        assert!(before.values().any(|at| at.0 == alone), "{before:?}");

        cluster.split(&[alone]);
        let larger = || running().values().filter(|at| at.0 != alone).count();
        cluster.until(FAILOVER, "the larger side has all", || larger() == CHILDREN).await;
        cluster.advance(20 * S).await;
        assert_eq!(larger(), CHILDREN);
        assert_eq!(answer(cluster, "n1".into()).await.len(), CHILDREN);
        assert_eq!(answer(cluster, alone).await, BTreeMap::new(), "it has none and reaches none");

        cluster.heal();
        cluster.until_whole(60 * S).await;
        cluster.advance(30 * S).await;
        assert_eq!(running().len(), CHILDREN);
        for from in cluster.names() {
            assert_eq!(answer(cluster, from).await.len(), CHILDREN, "from {from}");
        }
        never_two();
    });
}

#[test]
fn where_nobody_takes_part_they_are_refused_with_what_to_do() {
    Cluster::builder(5).nodes(3).with(NodeBuilder::actor::<Sentry>).start().run(async |cluster| {
        cluster.advance(10 * S).await;
        let refused = start(cluster, "n0", "c0".to_owned()).await.unwrap_err();
        assert_eq!(refused, ClusterChildError::NoAuthority);
        assert!(refused.to_string().contains("NodeBuilder::exclusive()"), "{refused}");
    });
}
