//! Global names of both kinds: given on three nodes at once, and looked up.

use std::hint::black_box;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use purlin::prelude::*;
use purlin::{GlobalError, Name, Runtime};

use super::Figure;
use super::agent::{Agent, idle, until};
use super::rig::Rig;

const NAMES: u32 = 100_000;

fn names(from: u32, step: u32) -> impl Iterator<Item = Name> {
    let numbers = (from..NAMES).step_by(step as usize);
    numbers.map(|number| Name::new(&format!("name-{number}")).unwrap())
}

/// Give a process these names, and wait until all of all nodes are known here; how long the first
/// took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TakeNames {
    from: u32,
    step: u32,
    exclusive: bool,
}
impl Message for TakeNames {
    const NAME: &'static str = "figures.take_names";
    type Reply = Duration;
}

impl Handler<TakeNames> for Agent {
    async fn handle(&mut self, take: TakeNames, ctx: &mut Context<Self>) -> Outcome<Duration> {
        let (runtime, begun) = (ctx.runtime(), Instant::now());
        let holder = idle(runtime);
        match take.exclusive {
            true => take_exclusive(runtime, names(take.from, take.step), holder).await?,
            false => {
                for name in names(take.from, take.step) {
                    runtime.register_global_available(name, holder)?;
                }
            }
        }
        let given = begun.elapsed();
        let mut all = names(0, 1).peekable();
        let known = || {
            while all.next_if(|name| runtime.whereis_global(name).is_some()).is_some() {}
            all.peek().is_none()
        };
        until(known).await;
        Ok(given)
    }
}

/// Asks for names of which each has one holder at most, some of them at once.
async fn take_exclusive(
    runtime: &Runtime,
    names: impl Iterator<Item = Name>,
    holder: Pid,
) -> Result<(), GlobalError> {
    const AT_ONCE: usize = 256;
    let ask = |name: Name| async move { runtime.register_global(name, holder).await };
    let mut asked = stream::iter(names.map(ask)).buffer_unordered(AT_ONCE);
    while asked.try_next().await?.is_some() {}
    Ok(())
}

/// Look up all names; how long one took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LookUp;
impl Message for LookUp {
    const NAME: &'static str = "figures.look_up";
    type Reply = Duration;
}

impl Handler<LookUp> for Agent {
    async fn handle(&mut self, _: LookUp, ctx: &mut Context<Self>) -> Outcome<Duration> {
        let names: Vec<_> = names(0, 1).collect();
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            for name in &names {
                black_box(ctx.runtime().whereis_global(name));
            }
            best = best.min(begun.elapsed() / NAMES);
        }
        Ok(best)
    }
}

pub(crate) fn names_of_three() -> Vec<Figure> {
    let rig = Rig::start(3);
    let figure = registered(&rig, false);
    let one = rig.ask(0, LookUp);
    let goal = Duration::from_micros(1);
    let measured = format!("{one:.0?}, among 100,000; every node knows all, so none is uncached");
    let looked_up = Figure::new("names: look-up", "< 1 µs", one < goal, measured);
    vec![figure, looked_up, registered(&Rig::start(3), true)]
}

fn registered(rig: &Rig, exclusive: bool) -> Figure {
    let step = 3;
    let ask = |node: usize| TakeNames { from: u32::try_from(node).unwrap(), step, exclusive };
    let (given, took) = rig.ask_all(ask);
    let given = given.into_iter().max().unwrap();
    let rate = f64::from(NAMES) / took.wall.as_secs_f64();
    let measured = format!("{rate:.0}/s: given in {given:.1?}, known by all in {took}");
    let what = match exclusive {
        true => "exclusive names: 100,000 from 3 nodes",
        false => "available names: 100,000 from 3 nodes",
    };
    Figure::new(what, ">= 50,000/s", rate >= 50_000., measured)
}
