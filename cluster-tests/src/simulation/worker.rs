//! The workload: processes that do to each other all that processes can, and tell what they see.

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::prelude::*;
use purlin::{Interrupt, Reference};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::record::{self, Event, Who};
use super::shared::{News, Shared};

/// So many live at once, in the whole cluster.
const POPULATION: usize = 24;

pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Larger messages than this take another way through the transport.
const LARGE: usize = 100 << 10;

/// A message that tells whether it was lost, repeated, reordered or spoiled.
#[derive(Debug, Serialize, Deserialize)]
pub struct Numbered {
    from: Who,
    pid: Pid,
    number: u64,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
}

impl Message for Numbered {
    const NAME: &'static str = "simulation.numbered";
    type Reply = ();
}

/// Answered at once.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ping;

impl Message for Ping {
    const NAME: &'static str = "simulation.ping";
    type Reply = ();
}

/// Its turn to do something.
#[derive(Debug, Serialize, Deserialize)]
pub struct Act;

impl Message for Act {
    const NAME: &'static str = "simulation.act";
    type Reply = ();
}

pub struct Worker {
    pub(super) who: Who,
    pub(super) chance: StdRng,
    pub(super) shared: Shared,
    sent: BTreeMap<Who, u64>,
    monitors: Vec<Reference>,
    links: Vec<Pid>,
}

impl Actor for Worker {
    const KIND: &'static str = "simulation.worker";
    type Args = u64;
    type Messages = (Numbered, Ping, News);

    async fn start(seed: u64, ctx: &mut Context<Self>) -> Outcome<Self> {
        let who = ctx.pid();
        record::tell(&Event::Born { who, name: None });
        let mut worker = Self {
            who,
            chance: StdRng::seed_from_u64(seed),
            shared: Shared::default(),
            sent: BTreeMap::new(),
            monitors: Vec::new(),
            links: Vec::new(),
        };
        ctx.monitor_nodes();
        if worker.chance.random_bool(0.7) {
            ctx.trap_exits();
        }
        worker.wait(ctx);
        Ok(worker)
    }
}

impl Worker {
    fn wait(&mut self, ctx: &mut Context<Self>) {
        let wait = Duration::from_micros(self.chance.random_range(2_000..150_000));
        ctx.send_after(wait, Act);
    }

    fn peer(&mut self) -> Option<(Who, Pid)> {
        let others: Vec<_> =
            record::listeners().into_iter().filter(|(who, _)| *who != self.who).collect();
        others.choose(&mut self.chance).copied()
    }

    fn send(&mut self, ctx: &Context<Self>, (to, at): (Who, Pid), size: usize) {
        let number = self.sent.entry(to).or_default();
        *number += 1;
        let (number, from, pid) = (*number, self.who, ctx.pid());
        let body = vec![number.to_le_bytes()[0]; size];
        record::tell(&Event::Sent { from, to, number });
        ctx.send(at, Numbered { from, pid, number, body });
    }

    fn send_some(&mut self, ctx: &Context<Self>) {
        let Some(peer) = self.peer() else { return };
        for _ in 0..self.chance.random_range(1..=6) {
            let large = self.chance.random_bool(0.02);
            let size = self.chance.random_range(0..200) + if large { LARGE } else { 0 };
            self.send(ctx, peer, size);
        }
    }

    /// Sends more than a mailbox takes.
    fn flood(&mut self, ctx: &Context<Self>) {
        let deaf = record::deaf();
        let Some(&(who, pid)) = deaf.choose(&mut self.chance) else { return };
        for _ in 0..3 * DEAF_LIMIT {
            self.send(ctx, (who, pid), 20);
        }
    }

    async fn call(&mut self, ctx: &Context<Self>) {
        let Some((_, pid)) = self.peer() else { return };
        // Any answer is one; that there is one is what matters, and that it comes in time.
        let begun = tokio::time::Instant::now();
        drop(ctx.runtime().call_timeout(pid, Ping, CALL_TIMEOUT).await);
        let took = begun.elapsed();
        // A machine that was frozen is late for everything.
        if took > CALL_TIMEOUT + Duration::from_secs(12) {
            record::violation("calls end in time", format!("one took {took:?}"));
        }
    }

    fn monitor(&mut self, ctx: &mut Context<Self>) {
        let Some((target, pid)) = self.peer() else { return };
        let reference = ctx.monitor(pid);
        self.monitors.push(reference);
        record::tell(&Event::Monitored { watcher: self.who, reference, target });
    }

    fn demonitor(&mut self, ctx: &mut Context<Self>) {
        if self.monitors.is_empty() {
            return;
        }
        let reference = self.monitors.swap_remove(self.chance.random_range(0..self.monitors.len()));
        ctx.demonitor_flush(reference);
        record::tell(&Event::Demonitored { watcher: self.who, reference });
    }

    fn link(&mut self, ctx: &Context<Self>) {
        let Some((other, pid)) = self.peer() else { return };
        record::tell(&Event::Linked { by: self.who, other });
        self.links.push(pid);
        ctx.link(pid);
    }

    fn unlink(&mut self, ctx: &Context<Self>) {
        if self.links.is_empty() {
            return;
        }
        let pid = self.links.swap_remove(self.chance.random_range(0..self.links.len()));
        ctx.unlink(pid);
        if let Some(other) = record::whose(pid) {
            record::tell(&Event::Unlinked { by: self.who, other });
        }
    }

    async fn spawn(&mut self, ctx: &Context<Self>) {
        let nodes = record::nodes();
        let Some(node) = nodes.choose(&mut self.chance) else { return };
        let seed = self.chance.random();
        if record::listeners().len() >= POPULATION {
            return;
        }
        if self.chance.random_bool(0.5) {
            // It may fail for good reasons: the node is gone, or does not answer.
            drop(ctx.runtime().spawn_on::<Self>(node, seed).await);
        } else if let Ok(child) = ctx.spawn_link_on::<Self>(node, seed).await
            && let Some(other) = record::whose(child.pid())
        {
            record::tell(&Event::Linked { by: self.who, other });
            self.links.push(child.pid());
        }
    }
}

impl Handler<Act> for Worker {
    async fn handle(&mut self, _: Act, ctx: &mut Context<Self>) -> Outcome {
        record::goes_as(self.who, ctx.pid());
        if record::acting() {
            match self.chance.random_range(0..100) {
                0..33 => self.send_some(ctx),
                33..39 => self.call(ctx).await,
                39..49 => self.monitor(ctx),
                49..54 => self.demonitor(ctx),
                54..61 => self.link(ctx),
                61..67 => self.unlink(ctx),
                67..75 => self.spawn(ctx).await,
                75..77 => self.flood(ctx),
                77..93 => self.share(ctx).await,
                93..96 => {
                    // Last words, and then the end: whoever is told of it has got them.
                    self.send_some(ctx);
                    ctx.stop(ExitReason::Normal);
                }
                96..98 => return Err(Interrupt::exit(ExitReason::Other("done for".into()))),
                _ => {
                    if let Some((_, pid)) = self.peer() {
                        ctx.runtime().exit(pid, ExitReason::Kill);
                    }
                }
            }
        }
        self.wait(ctx);
        Ok(())
    }
}

impl Handler<Numbered> for Worker {
    async fn handle(&mut self, message: Numbered, ctx: &mut Context<Self>) -> Outcome {
        record::goes_as(self.who, ctx.pid());
        arrived(self.who, &message);
        Ok(())
    }
}

impl Handler<Ping> for Worker {
    async fn handle(&mut self, _: Ping, _: &mut Context<Self>) -> Outcome {
        Ok(())
    }
}

impl Handler<Down> for Worker {
    async fn handle(&mut self, down: Down, _: &mut Context<Self>) -> Outcome {
        let Down { reference, reason, .. } = down;
        self.monitors.retain(|monitor| *monitor != reference);
        record::tell(&Event::Down { watcher: self.who, reference, reason });
        Ok(())
    }
}

impl Handler<LinkDown> for Worker {
    async fn handle(
        &mut self,
        LinkDown { pid, reason }: LinkDown,
        _: &mut Context<Self>,
    ) -> Outcome {
        self.links.retain(|link| *link != pid);
        if let Some(of) = record::whose(pid) {
            record::tell(&Event::LinkDown { at: self.who, of, reason });
        }
        Ok(())
    }
}

impl Handler<NodeEvent> for Worker {
    async fn handle(&mut self, event: NodeEvent, ctx: &mut Context<Self>) -> Outcome {
        let at = self.who;
        record::goes_as(at, ctx.pid());
        record::tell(&match event {
            NodeEvent::Up { node, .. } => Event::NodeUp { at, node },
            NodeEvent::Down { node, .. } => Event::NodeDown { at, node },
        });
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        record::tell(&Event::Ended { who: self.who });
    }
}

fn arrived(by: Who, message: &Numbered) {
    let Numbered { from, pid, number, ref body } = *message;
    if *body != vec![number.to_le_bytes()[0]; body.len()] {
        record::violation("messages are whole", format!("{number} from {from} to {by} is spoiled"));
    }
    record::tell(&Event::Delivered { by, from, pid, number });
}

pub const DEAF_LIMIT: usize = 8;

/// Takes its time for each message, so that its mailbox is full now and then.
pub struct Deaf {
    who: Who,
}

impl Actor for Deaf {
    const KIND: &'static str = "simulation.deaf";
    type Args = ();
    type Messages = (Numbered, Ping);
    const MAILBOX: Mailbox = Mailbox::bounded(DEAF_LIMIT, WhenFull::Wait);

    async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
        let who = ctx.pid();
        record::tell(&Event::Born { who, name: None });
        record::is_deaf(who);
        Ok(Self { who })
    }
}

impl Handler<Numbered> for Deaf {
    async fn handle(&mut self, message: Numbered, ctx: &mut Context<Self>) -> Outcome {
        record::goes_as(self.who, ctx.pid());
        arrived(self.who, &message);
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}

impl Handler<Ping> for Deaf {
    async fn handle(&mut self, _: Ping, _: &mut Context<Self>) -> Outcome {
        Ok(())
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        record::tell(&Event::Ended { who: self.who });
    }
}
