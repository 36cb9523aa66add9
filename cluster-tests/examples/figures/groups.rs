//! A large group, all of one node, seen by three.

use std::time::{Duration, Instant};

use purlin::prelude::*;

use super::Figure;
use super::agent::{Agent, idle, until};
use super::rig::Rig;

const MEMBERS: usize = 10_000;
const GROUP: &str = "figures";

/// Make processes, to join a group later.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Make;
impl Message for Make {
    const NAME: &'static str = "figures.make";
    type Reply = Vec<Pid>;
}

impl Handler<Make> for Agent {
    async fn handle(&mut self, _: Make, ctx: &mut Context<Self>) -> Outcome<Vec<Pid>> {
        Ok((0..MEMBERS).map(|_| idle(ctx.runtime())).collect())
    }
}

/// Have these processes of this node join, then wait until the group is complete here; how long the
/// joining took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Join(Vec<Pid>);
impl Message for Join {
    const NAME: &'static str = "figures.join";
    type Reply = Duration;
}

impl Handler<Join> for Agent {
    async fn handle(&mut self, Join(pids): Join, ctx: &mut Context<Self>) -> Outcome<Duration> {
        let (runtime, begun) = (ctx.runtime(), Instant::now());
        for pid in pids {
            runtime.join(GROUP, pid)?;
        }
        let joined = begun.elapsed();
        let seen = || {
            let infos = runtime.group_infos(None);
            infos.iter().any(|info| info.name.as_str() == GROUP && info.members == MEMBERS)
        };
        until(seen).await;
        Ok(joined)
    }
}

pub(crate) fn groups() -> Vec<Figure> {
    let rig = Rig::start(3);
    let pids = rig.ask(0, Make);
    let ask = |node: usize| Join(if node == 0 { pids.clone() } else { Vec::new() });
    let (joined, took) = rig.ask_all(ask);
    let measured = format!("{took}, joined in {:.1?}", joined[0]);
    let met = took.wall < Duration::from_millis(500);
    vec![Figure::new("groups: 10,000 join, seen by all of 3", "< 500 ms", met, measured)]
}
