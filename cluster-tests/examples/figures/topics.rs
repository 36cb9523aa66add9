//! Publishing from one node to subscribers on three.
//!
//! Each node's subscribers count together; the one that gets a node's last copy of a message that asks
//! for it tells the publisher. So a round ends when every subscriber has everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use purlin::prelude::*;
use purlin::{Name, RawContext, RawKind, Received};
use tokio::sync::oneshot;

use super::Figure;
use super::agent::Agent;
use super::rig::{Rig, median};

const MEASURED: Duration = Duration::from_secs(2);
const UNDER_WAY: u64 = 100;
const NODES: usize = 3;

static SUBSCRIBER: RawKind = RawKind::new("figures.subscriber");
static PUBLISHER: RawKind = RawKind::new("figures.publisher");

/// 64 bytes, and who is to be told that a node has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct News {
    body: [u64; 8],
    tell: Option<Pid>,
}
impl Message for News {
    const NAME: &'static str = "figures.news";
    type Reply = ();
}

#[derive(Debug, Serialize, Deserialize)]
struct Arrived;
impl Message for Arrived {
    const NAME: &'static str = "figures.arrived";
    type Reply = ();
}

/// Make so many subscribers of a topic.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Subscribe {
    topic: Name,
    count: usize,
}
impl Message for Subscribe {
    const NAME: &'static str = "figures.subscribe";
    type Reply = ();
}

impl Handler<Subscribe> for Agent {
    async fn handle(&mut self, subscribe: Subscribe, ctx: &mut Context<Self>) -> Outcome {
        let (arrived, of) = (Arc::new(AtomicUsize::new(0)), subscribe.count);
        for _ in 0..of {
            let arrived = Arc::clone(&arrived);
            let body = move |mut ctx: RawContext| async move {
                loop {
                    let Received::Message(message) = ctx.receive().await? else { continue };
                    let Ok(Ok((News { tell: Some(to), .. }, _))) = message.take() else { continue };
                    if (arrived.fetch_add(1, Ordering::Relaxed) + 1) % of == 0 {
                        ctx.runtime().send(to, Arrived);
                    }
                }
            };
            let pid = ctx.runtime().spawn_raw(&SUBSCRIBER, body)?;
            ctx.runtime().subscribe(subscribe.topic.clone(), pid)?;
        }
        Ok(())
    }
}

/// Publish to a topic for a while, so many messages at once, each time until these nodes have them
/// all; how long each time took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Publish {
    topic: Name,
    at_once: u64,
    nodes: usize,
}
impl Message for Publish {
    const NAME: &'static str = "figures.publish";
    type Reply = Vec<Duration>;
}

impl Handler<Publish> for Agent {
    async fn handle(
        &mut self,
        publish: Publish,
        ctx: &mut Context<Self>,
    ) -> Outcome<Vec<Duration>> {
        let (tell, told) = oneshot::channel();
        let body = move |mut ctx: RawContext| async move {
            let (begun, mut rounds) = (Instant::now(), Vec::new());
            while begun.elapsed() < MEASURED {
                let started = Instant::now();
                for number in 1..=publish.at_once {
                    let tell = (number == publish.at_once).then_some(ctx.pid());
                    ctx.runtime().publish(publish.topic.clone(), News { body: [number; 8], tell });
                }
                for _ in 0..publish.nodes {
                    ctx.receive().await?;
                }
                rounds.push(started.elapsed());
            }
            // Whoever asked may have given up.
            drop(tell.send(rounds));
            Ok(())
        };
        ctx.runtime().spawn_raw(&PUBLISHER, body)?;
        Ok(told.await?)
    }
}

pub(crate) fn topics() -> Vec<Figure> {
    let rig = Rig::start(NODES);
    [("publish to 1", 1), ("publish to 10", 10), ("publish to 1,000", 1_000)]
        .map(|(what, subscribers)| publish(&rig, what, subscribers))
        .into()
}

fn publish(rig: &Rig, what: &'static str, subscribers: usize) -> Figure {
    let topic = Name::new(&format!("topic-{subscribers}")).unwrap();
    // The only one is on another node than the publisher.
    rig.ask_all(|node| {
        let count = (subscribers + node) / NODES;
        Subscribe { topic: topic.clone(), count }
    });
    let nodes = subscribers.min(NODES);
    // What nodes want is known everywhere by then.
    std::thread::sleep(Duration::from_millis(500));
    let alone = rig.ask(0, Publish { topic: topic.clone(), at_once: 1, nodes });
    let (rounds, took) = rig.took(|| rig.ask(0, Publish { topic, at_once: UNDER_WAY, nodes }));
    let (count, seconds) = (rounds.len() as f64 * UNDER_WAY as f64, took.wall.as_secs_f64());
    let measured = format!(
        "{:.0}/s, {:.0} delivered/s (cpu {:.2?} of {seconds:.1} s); alone {:.0?} until told that \
         all have it",
        count / seconds,
        count * subscribers as f64 / seconds,
        took.cpu,
        median(alone)
    );
    Figure { what, goal: "-", measured, met: None }
}
