//! A tree on every node whose children crash, now and then so often that their supervisor gives up.

use std::time::Duration;

use purlin::prelude::*;
use purlin::{Interrupt, Pid};
use rand::RngExt;
use rand::rngs::StdRng;

use super::record::{self, Event};
use super::worker::{Deaf, Worker};

pub const INTENSITY: usize = 3;
pub const PERIOD: Duration = Duration::from_secs(5);

/// The child of the root, which may be restarted as often as it likes.
pub const ROOT_CHILD: &str = "fragiles";

/// What runs on a node as well where kinds are exclusive.
pub const NAMES: &str = "purlin.names";

/// What runs on a node without workers, by kind.
pub const KINDS: [&str; 10] = [
    "application",
    "purlin",
    "purlin.children",
    "simulation.deaf",
    "simulation.fragile",
    "simulation.fragile",
    "simulation.fragile",
    "simulation.nurse",
    "supervisor",
    "supervisor",
];

/// The root: never gives up.
pub fn tree() -> Supervisor {
    let mut fragiles = Supervisor::new(Strategy::OneForOne).intensity(INTENSITY, PERIOD);
    for name in ["f0", "f1", "f2"] {
        let child = ChildSpec::actor::<Fragile>(name, name.to_owned());
        fragiles = fragiles.child(child.name(name));
    }
    Supervisor::new(Strategy::OneForOne)
        .intensity(1_000, PERIOD)
        .child(ChildSpec::supervisor(ROOT_CHILD, fragiles))
        .child(ChildSpec::actor::<Deaf>("deaf", ()).name("deaf"))
        .child(ChildSpec::actor::<Nurse>("nurse", ()).name("nurse"))
}

/// Starts workers where there are few.
pub struct Nurse {
    chance: StdRng,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Look;

impl Message for Look {
    const NAME: &'static str = "simulation.look";
    type Reply = ();
}

impl Actor for Nurse {
    const KIND: &'static str = "simulation.nurse";
    type Args = ();
    type Messages = ();

    async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
        ctx.send_after(Duration::ZERO, Look);
        let me = ctx.pid();
        Ok(Self { chance: record::chance(me) })
    }
}

impl Handler<Look> for Nurse {
    async fn handle(&mut self, _: Look, ctx: &mut Context<Self>) -> Outcome {
        let here = ctx.pid().node.name;
        let few =
            || record::listeners().iter().filter(|(who, _)| who.node.name == here).count() < 3;
        while record::acting() && few() {
            ctx.runtime().spawn::<Worker>(self.chance.random()).await?;
        }
        ctx.send_after(Duration::from_millis(500), Look);
        Ok(())
    }
}

/// Crashes, or is done, after a while.
pub struct Fragile {
    who: Pid,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Break {
    crash: bool,
}

impl Message for Break {
    const NAME: &'static str = "simulation.break";
    type Reply = ();
}

impl Actor for Fragile {
    const KIND: &'static str = "simulation.fragile";
    type Args = String;
    type Messages = (Break,);

    async fn start(name: String, ctx: &mut Context<Self>) -> Outcome<Self> {
        let who = ctx.pid();
        record::tell(&Event::Born { who, name: Some(name) });
        record::is_deaf(who);
        let mut chance = record::chance(who);
        let life: f64 = chance.random();
        // Most live for seconds; where one does not, its successors may not either.
        let life = Duration::from_secs_f64(life * life * 12.0);
        if record::acting() {
            ctx.send_after(life, Break { crash: chance.random_bool(0.8) });
        }
        Ok(Self { who })
    }
}

impl Handler<Break> for Fragile {
    async fn handle(&mut self, Break { crash }: Break, ctx: &mut Context<Self>) -> Outcome {
        match crash && record::acting() {
            true => Err(Interrupt::exit(ExitReason::Other("fragile".into()))),
            false => {
                ctx.stop(ExitReason::Normal);
                Ok(())
            }
        }
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        record::tell(&Event::Ended { who: self.who });
    }
}
