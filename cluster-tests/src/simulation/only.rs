//! What there is one of in the whole cluster: processes of exclusive keys, and children of cluster
//! supervisors. They say when they begin, act and are gone.

use std::time::Duration;

use purlin::prelude::*;
use purlin::testing::Cluster;
use purlin::{ClusterChild, ClusterChildError, ClusterSupervisor, Fence, Interrupt, NodeBuilder};

use super::record::{self, Event, Who};
use super::schedule::Part;
use super::shared::{IDLE, WhoIs};

/// The keys of the exclusive kind.
pub const KEYS: [&str; 4] = ["x0", "x1", "x2", "x3"];

/// The cluster supervisors, and their children.
pub const SINGLE: &str = "single";
pub const MANY: &str = "many";
pub const CHILDREN: [&str; 3] = ["c0", "c1", "c2"];

/// Each child may be restarted so often within this time.
pub const INTENSITY: u32 = 3;
pub const PERIOD: Duration = Duration::from_secs(5);

/// How often it acts by itself.
const STEP: Duration = Duration::from_millis(100);

/// What a program is told that it is built from.
pub fn kinds(part: Part, node: NodeBuilder) -> NodeBuilder {
    match part {
        Part::None => node,
        Part::Keys => node.keyed::<Only>(Keyed::exclusive().passivate_after(IDLE)),
        Part::Children => node.actor::<Only>().exclusive(),
    }
}

/// Everyone whom workers call.
pub fn all(part: Part) -> Vec<Dest> {
    match part {
        Part::None => Vec::new(),
        Part::Keys => KEYS.into_iter().map(|key| Dest::key(Only::KIND, key)).collect(),
        Part::Children => children().map(|(of, child)| Dest::child(of, child)).collect(),
    }
}

/// The children, each with its supervisor.
pub fn children() -> impl Iterator<Item = (&'static str, &'static str)> {
    [SINGLE, MANY].into_iter().flat_map(|of| CHILDREN.into_iter().map(move |child| (of, child)))
}

fn supervisor(name: &'static str) -> ClusterSupervisor {
    let supervisor = ClusterSupervisor::new(name).intensity(INTENSITY, PERIOD);
    if name == MANY { supervisor.available() } else { supervisor }
}

/// Lets a node that has just started ask for all children until it has got them, as programs do.
pub async fn start_children(cluster: &Cluster, on: NodeName) {
    let start = |node: Node| async move {
        tokio::spawn(async move {
            for (of, child) in children() {
                let wanted = || ClusterChild::actor::<Only>(child, Key::new(child).expect("a key"));
                while let Err(error) =
                    node.cluster_supervisor(supervisor(of)).start_child(wanted()).await
                {
                    if matches!(error, ClusterChildError::Differs | ClusterChildError::Plan { .. })
                    {
                        let what = format!("{of}/{child} does not start: {error}");
                        return record::violation("children start", what);
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
    };
    // Its machine may have crashed meanwhile.
    cluster.node(on).run(start).await;
}

/// One of its kind.
pub struct Only {
    who: Who,
    /// What it is the only one of.
    of: String,
    fence: Option<Fence>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Again;

impl Message for Again {
    const NAME: &'static str = "simulation.again";
    type Reply = ();
}

impl Actor for Only {
    const KIND: &'static str = "simulation.only";
    type Args = Key;
    type Messages = (WhoIs,);

    async fn start(key: Key, ctx: &mut Context<Self>) -> Outcome<Self> {
        let (who, fence) = (ctx.pid(), ctx.fence());
        // Children of both supervisors go by the same keys; those without a fence are available.
        let of = match (record::part(), fence) {
            (Part::Children, Some(_)) => format!("{SINGLE}/{key}"),
            (Part::Children, None) => format!("{MANY}/{key}"),
            _ => key.to_string(),
        };
        record::tell(&Event::Begun { who, of: of.clone(), fence });
        ctx.send_after(STEP, Again);
        Ok(Self { who, of, fence })
    }
}

impl KeyedActor for Only {
    fn args(key: &Key) -> Key {
        key.clone()
    }
}

impl Only {
    fn act(&self) {
        record::tell(&Event::Acted { who: self.who, of: self.of.clone(), fence: self.fence });
    }

    /// Half of it later: a freeze may come in between.
    async fn work(&self) {
        self.act();
        tokio::time::sleep(STEP / 4).await;
        self.act();
    }
}

impl Handler<WhoIs> for Only {
    async fn handle(&mut self, WhoIs { crash }: WhoIs, _: &mut Context<Self>) -> Outcome<Who> {
        self.work().await;
        if crash && record::acting() {
            record::tell(&Event::Failed { who: self.who, of: self.of.clone() });
            return Err(Interrupt::exit(ExitReason::Other("done for".into())));
        }
        Ok(self.who)
    }
}

impl Handler<Again> for Only {
    async fn handle(&mut self, _: Again, ctx: &mut Context<Self>) -> Outcome {
        // A key's process that nobody uses is to end.
        if record::acting() {
            self.work().await;
            ctx.send_after(STEP, Again);
        }
        Ok(())
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        record::tell(&Event::Over { who: self.who });
    }
}
