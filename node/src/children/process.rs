//! The process `purlin.children`: what wakes it, and in which order it works.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use purlin_proto::admin::children::{CHILDREN, HostRefusal};
use purlin_proto::{CallError, ChildId, Dest, ExitReason, Mode, NodeEvent, NodeId, NodeName};
use purlin_runtime::{Interrupt, Outcome, RawContext, RawKind, Received};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, MissedTickBehavior, sleep_until};

use super::copies::Copied;
use super::handover::take_over;
use super::host::{Host, Started};
use super::owner::Owner;
use super::past::Past;
use crate::StartError;
use crate::builder::millis;
use crate::node::Shared;

static KIND: RawKind = RawKind::new("purlin.children");

/// How often every child is looked at, whatever has happened.
const SWEEP: Duration = Duration::from_secs(5);

/// Its like on another node.
pub(super) fn at(node: NodeName) -> Dest {
    Dest::Remote(CHILDREN.parse().expect("a name"), node)
}

/// Starts it.
pub(crate) fn start(node: &Arc<Shared>) -> Result<(), StartError> {
    let weak = Arc::downgrade(node);
    let clock = crate::WallClock::clone(&node.clock);
    let failed = |error: String| StartError::System(error);
    let body = move |ctx| {
        let (host, owner, past) = (Host::new(clock), Owner::new(), Past::default());
        Children { ctx, node: weak, tasks: JoinSet::new(), host, owner, past }.run()
    };
    let pid = node.runtime.spawn_raw(&KIND, body).map_err(|error| failed(error.to_string()))?;
    let name = CHILDREN.parse().map_err(|error| failed(format!("{error}")))?;
    node.runtime.register(name, pid).map_err(|error| failed(error.to_string()))
}

/// Something that it has begun is over.
pub(super) enum Done {
    /// A start on this node.
    Started(Started),
    /// A start that was asked of a node.
    Hosted {
        child: ChildId,
        on: NodeId,
        mode: Mode,
        result: Result<Result<(), HostRefusal>, CallError>,
    },
    /// An end that was asked of a node.
    Ended {
        child: ChildId,
        result: Result<(), CallError>,
    },
    Copied(Copied),
    /// A node has handed over, or failed to.
    HandedOver(NodeName),
    /// A request was sent on and answered.
    Forwarded,
}

pub(super) struct Children {
    pub(super) ctx: RawContext,
    pub(super) node: Weak<Shared>,
    pub(super) tasks: JoinSet<Done>,
    pub(super) host: Host,
    pub(super) owner: Owner,
    pub(super) past: Past,
}

impl Children {
    async fn run(mut self) -> Outcome {
        self.ctx.trap_exits(true);
        self.ctx.monitor_nodes();
        let runtime = self.ctx.runtime().clone();
        let mut holdings = runtime.watch_holdings();
        let leaving = self.node.upgrade().map(|node| node.directory.watch_leaving());
        // The node is gone before it has begun.
        let Some(mut leaving) = leaving else { return Ok(()) };
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = [self.host.due(), self.owner.due()].into_iter().flatten().min();
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => self.done(done.ok()),
                received = self.ctx.receive() => match received? {
                    Received::Exit { reason, .. } => return self.stop(reason).await,
                    received => self.received(received),
                },
                () = runtime.children().changed() => {}
                () = holdings.changed() => self.owner.look_at_all(&runtime),
                // A node that is about to leave takes nothing and decides nothing.
                Ok(()) = leaving.changed() => self.owner.members_changed(&runtime),
                _ = sweep.tick() => self.owner.look_at_all(&runtime),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            self.host.overdue(&self.ctx);
            self.take_changed();
            if self.work().is_none() {
                return Ok(());
            }
        }
    }

    fn received(&mut self, received: Received) {
        match received {
            Received::Message(message) => self.asked(message),
            Received::LinkDown(down) => {
                self.host.link_down(&self.ctx, down);
            }
            Received::Node(event) => {
                let runtime = self.ctx.runtime().clone();
                if let NodeEvent::Up { node, .. } = event {
                    self.owner.settle(node.name);
                    runtime.children().set_settling(true);
                    let asked = take_over(runtime.clone(), node.name);
                    self.tasks.spawn(async move { Done::HandedOver(asked.await) });
                }
                self.owner.members_changed(&runtime);
            }
            _ => {}
        }
    }

    fn done(&mut self, done: Option<Done>) {
        // A task that has panicked has been reported as such; what it was for is looked at again.
        let Some(done) = done else { return };
        match done {
            Done::Started(started) => self.host.started(&self.ctx, started),
            Done::Hosted { child, on, mode, result } => {
                self.owner.hosted(child, on, mode, &result);
            }
            Done::Ended { child, result } => self.owner.ended(child, &result),
            Done::Copied(copied) => self.owner.copied(copied),
            Done::HandedOver(from) => {
                if self.owner.settled(from) {
                    self.resume();
                }
            }
            Done::Forwarded => {}
        }
    }

    /// Notes what has changed anywhere.
    fn take_changed(&mut self) {
        let Some(node) = self.node.upgrade() else { return };
        let runtime = self.ctx.runtime();
        let changed: BTreeSet<_> = runtime.children().take_changed();
        for child in changed {
            let seen = runtime.children().see(&child, runtime.id());
            self.past.look(&child, &seen, millis(&node.clock));
            self.host.seen(&self.ctx, &child);
            self.owner.look_at(child);
        }
    }

    /// The node stops: nothing more is decided or taken, and what runs here is ended.
    async fn stop(mut self, reason: ExitReason) -> Outcome {
        self.host.end_all(&self.ctx);
        while self.host.has_running() {
            let due = self.host.due();
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => {
                    if let Ok(Done::Started(started)) = done {
                        self.host.started(&self.ctx, started);
                    }
                }
                received = self.ctx.receive() => match received? {
                    Received::LinkDown(down) => {
                        self.host.link_down(&self.ctx, down);
                    }
                    Received::Message(message) => self.asked_while_stopping(message),
                    _ => {}
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            self.host.overdue(&self.ctx);
        }
        Err(Interrupt::exit(reason))
    }
}
