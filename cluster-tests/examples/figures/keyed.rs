//! Keyed processes: the first call of a key, and very many of them.

use std::time::{Duration, Instant};

use purlin::prelude::*;
use purlin::{Name, Runtime};
use tokio::task::JoinSet;

use super::Figure;
use super::agent::Agent;
use super::rig::{Rig, median};

const NODES: u64 = 3;
const LIVE: u64 = 500_000;

/// Keys that are called one after the other.
const FIRST: usize = 2_000;

/// For so long after members have changed, who begins a key asks those that may have it still.
const UNSETTLED: Duration = Duration::from_secs(30);

/// Calls of each node that are under way at once when there are very many keys.
const AT_ONCE: usize = 128;

/// How often was this key called?
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Count;
impl Message for Count {
    const NAME: &'static str = "figures.count";
    type Reply = u64;
}

/// Counts the calls of a key; of the exclusive kind or not.
pub(crate) struct Counter<const EXCLUSIVE: bool>(u64);

pub(crate) type Available = Counter<false>;
pub(crate) type Exclusive = Counter<true>;

impl<const EXCLUSIVE: bool> Actor for Counter<EXCLUSIVE> {
    const KIND: &'static str = if EXCLUSIVE { "figures.exclusive" } else { "figures.available" };
    type Args = ();
    type Messages = (Count,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self(0))
    }
}

impl<const EXCLUSIVE: bool> KeyedActor for Counter<EXCLUSIVE> {
    fn args(_: &Key) {}
}

impl<const EXCLUSIVE: bool> Handler<Count> for Counter<EXCLUSIVE> {
    async fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Outcome<u64> {
        self.0 += 1;
        Ok(self.0)
    }
}

fn key(prefix: &str, number: u64) -> Key {
    Key::new(&format!("{prefix}-{number}")).unwrap()
}

async fn count(runtime: &Runtime, kind: &Name, key: Key) -> Result<u64, CallError> {
    let to = Dest::Key { kind: kind.clone(), key };
    runtime.call_timeout(to, Count, Duration::from_mins(1)).await
}

/// Call keys of other nodes, each twice, one after the other; the medians of the first call and of
/// the second.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FirstCalls {
    kind: Name,
    prefix: String,
}
impl Message for FirstCalls {
    const NAME: &'static str = "figures.first_calls";
    type Reply = (Duration, Duration);
}

impl Handler<FirstCalls> for Agent {
    async fn handle(
        &mut self,
        FirstCalls { kind, prefix }: FirstCalls,
        ctx: &mut Context<Self>,
    ) -> Outcome<(Duration, Duration)> {
        let runtime = ctx.runtime();
        let keys = (0..).map(|number| key(&prefix, number));
        let elsewhere = keys.filter(|key| runtime.key_owner(&kind, key) != runtime.name());
        let (mut first, mut again) = (Vec::new(), Vec::new());
        for key in elsewhere.take(FIRST) {
            for (expected, took) in [(1, &mut first), (2, &mut again)] {
                let begun = Instant::now();
                let counted = count(runtime, &kind, key.clone()).await?;
                took.push(begun.elapsed());
                assert_eq!(counted, expected, "{key}");
            }
        }
        Ok((median(first), median(again)))
    }
}

/// Call these keys once each, many at once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Use {
    kind: Name,
    numbers: std::ops::Range<u64>,
}
impl Message for Use {
    const NAME: &'static str = "figures.use";
    type Reply = ();
}

impl Handler<Use> for Agent {
    async fn handle(&mut self, Use { kind, numbers }: Use, ctx: &mut Context<Self>) -> Outcome {
        let mut calls = JoinSet::new();
        for part in 0..AT_ONCE {
            let (runtime, kind) = (ctx.runtime().clone(), kind.clone());
            let mine = numbers.clone().skip(part).step_by(AT_ONCE);
            calls.spawn(async move {
                for number in mine {
                    count(&runtime, &kind, key("live", number)).await?;
                }
                Ok::<_, CallError>(())
            });
        }
        while let Some(done) = calls.join_next().await {
            done??;
        }
        Ok(())
    }
}

pub(crate) fn keyed() -> Vec<Figure> {
    let rig = Rig::start(3);
    let available = Name::from(Available::KIND);
    let exclusive = Name::from(Exclusive::KIND);
    let first = |what, kind: &Name, prefix: &str| {
        let (first, again) =
            rig.ask(0, FirstCalls { kind: kind.clone(), prefix: prefix.to_owned() });
        let trips = first.as_secs_f64() / again.as_secs_f64();
        let measured = format!("{trips:.2}: {first:.1?}, the second call {again:.1?}");
        Figure::new(what, "<= 2 round trips p50", trips <= 2., measured)
    };
    let live = |what, kind: &Name| {
        let before = rig.memory();
        let share = LIVE / NODES + 1;
        let (_, took) = rig.ask_all(|node| {
            let from = node as u64 * share;
            Use { kind: kind.clone(), numbers: from..(from + share).min(LIVE) }
        });
        let bytes = (rig.memory() - before) / LIVE;
        let rate = LIVE as f64 / took.wall.as_secs_f64();
        let measured = format!("all live, {bytes} bytes each; {rate:.0} first calls/s, in {took}");
        Figure::new(what, "500,000 on 3 nodes", true, measured)
    };
    let mut figures = vec![
        first("keyed: available, members just changed", &available, "early"),
        first("keyed: exclusive, members just changed", &exclusive, "early"),
    ];
    std::thread::sleep(UNSETTLED);
    figures.extend([
        first("keyed: first call, available", &available, "first"),
        first("keyed: first call, exclusive", &exclusive, "first"),
        live("keyed: live keys, available", &available),
        live("keyed: live keys, exclusive", &exclusive),
    ]);
    figures
}
