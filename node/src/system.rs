//! The process registered as `purlin` on every node: answers what an operator asks.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use purlin_cluster::Ring;
use purlin_proto::admin::{
    self, Believe, Drain, DropHeldSnapshot, DropSnapshot, Event, FollowKey, GetDrainPlan,
    GetDrainRest, GetExclusive, GetNodeWhy, GetOwner, GetProcess, GetStatus, GetTree, GetTrust,
    GetWhy, JoinGroup, KeepSnapshot, KnowsToken, Leave, LeaveGroup, ListGlobalNames,
    ListGroupMembers, ListGroups, ListKeyed, ListMembers, ListNames, ListProcesses,
    ListRevocations, ListTopics, OwnerInfo, Place, RegisterGlobal, ReleaseHeldKey, ReleaseKey,
    Renew, Revoke, SeesDraining, Status, Subscribe, SubscribeTopic, TakeGlobal, TakeIn, TakeKey,
    UnsubscribeTopic, What, WhereIs, WhereIsGlobal,
};
use purlin_proto::join::{Admission, JoinRefusal};
use purlin_proto::{ExitReason, Message, Pid};
use purlin_runtime::{Answer, Outcome, RawContext, RawKind, Received, Runtime, Untyped};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinSet;

use crate::builder::WallClock;
use crate::inputs::Told;
use crate::node::{Node, Shared};
use crate::{renewal, views};

static SYSTEM: RawKind = RawKind::new("purlin");

/// Requests to join, or questions about tokens, that wait for the disk at once.
const JOINS: usize = 64;

/// How many successors of an owner are told.
const SUCCESSORS: usize = 3;

/// How long it is gone when somebody has ended it.
const BACK_AFTER: Duration = Duration::from_millis(100);

/// Starts it; its name is taken before anything else can be. Whoever may end processes may end this
/// one too, and a node that cannot be asked anything cannot be told to leave either; so it comes back
/// until the node stops.
pub(crate) fn start(node: &Arc<Shared>) -> Result<(), crate::StartError> {
    keep(node, begin)
}

/// Starts a process that the node cannot be without; what `begin` returns says when it has ended.
pub(crate) fn keep(node: &Arc<Shared>, begin: Begin) -> Result<(), crate::StartError> {
    let mut ended = begin(node)?;
    let weak = Arc::downgrade(node);
    node.net.handle().spawn(async move {
        loop {
            // Nothing is ever sent: it is dropped with the process.
            let _ = ended.await;
            ended = loop {
                tokio::time::sleep(BACK_AFTER).await;
                let Some(node) = weak.upgrade().filter(|node| !node.runtime.is_stopping()) else {
                    return;
                };
                match begin(&node) {
                    Ok(ended) => break ended,
                    Err(error) => tracing::warn!(%error, "a process of the node's own is missing"),
                }
            };
            tracing::warn!("a process of the node's own was ended, and is back");
        }
    });
    Ok(())
}

/// Starts a process once; what is returned says when it has ended.
pub(crate) type Begin = fn(&Arc<Shared>) -> Result<oneshot::Receiver<()>, crate::StartError>;

/// Starts it once.
fn begin(node: &Arc<Shared>) -> Result<oneshot::Receiver<()>, crate::StartError> {
    let weak = Arc::downgrade(node);
    let events = node.events.subscribe();
    let clock = WallClock::clone(&node.clock);
    let runtime = &node.runtime;
    let failed = |error: String| crate::StartError::System(error);
    let (alive, ended) = oneshot::channel::<()>();
    let pid = runtime
        .spawn_raw(&SYSTEM, move |ctx| async move {
            let _alive = alive;
            System::new(ctx, weak, events, clock).run().await
        })
        .map_err(|error| failed(error.to_string()))?;
    name_it(runtime, pid, admin::SYSTEM)?;
    Ok(ended)
}

/// Gives a process of the node's own its name; without it, it ends.
pub(crate) fn name_it(runtime: &Runtime, pid: Pid, name: &str) -> Result<(), crate::StartError> {
    let failed = |error: String| crate::StartError::System(error);
    let name = name.parse().map_err(|error| failed(format!("{error}")))?;
    let registered = runtime.register(name, pid);
    if registered.is_err() {
        runtime.exit(pid, ExitReason::Killed);
    }
    registered.map_err(|error| failed(error.to_string()))
}

struct System {
    ctx: RawContext,
    node: Weak<Shared>,
    events: broadcast::Receiver<What>,
    subscribers: BTreeSet<Pid>,
    clock: WallClock,
    joins: JoinSet<()>,
}

impl System {
    fn new(
        ctx: RawContext,
        node: Weak<Shared>,
        events: broadcast::Receiver<What>,
        clock: WallClock,
    ) -> Self {
        let (subscribers, joins) = (BTreeSet::new(), JoinSet::new());
        Self { ctx, node, events, subscribers, clock, joins }
    }

    async fn run(mut self) -> Outcome {
        // Ends with this process.
        let mut keeper = JoinSet::new();
        keeper.spawn(renewal::keep(Weak::clone(&self.node)));
        loop {
            tokio::select! {
                biased;
                received = self.ctx.receive() => match received? {
                    Received::Message(message) => {
                        let Some(node) = self.node.upgrade() else { return Ok(()) };
                        self.answer(&node, message);
                    }
                    Received::Down(down) => {
                        down.target.pid().map(|pid| self.subscribers.remove(&pid));
                    }
                    _ => {}
                },
                Some(_) = self.joins.join_next() => {}
                event = self.events.recv() => match event {
                    Ok(what) => self.publish(&what),
                    Err(broadcast::error::RecvError::Lagged(count)) => {
                        self.publish(&What::Missed { count });
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
            }
        }
    }

    fn publish(&self, what: &What) {
        if self.subscribers.is_empty() {
            return;
        }
        let at_ms = crate::builder::millis(&self.clock);
        let node = self.ctx.runtime().name();
        for subscriber in &self.subscribers {
            self.ctx.runtime().send(*subscriber, Event { at_ms, node, what: what.clone() });
        }
    }

    fn answer(&mut self, node: &Arc<Shared>, message: Untyped) {
        let runtime = node.runtime.clone();
        let message = reply(Some(message), |_: GetStatus| status(node));
        let message = reply(message, |_: ListMembers| views::members(node));
        let message = reply(message, |ask: ListProcesses| runtime.processes_after(ask.after));
        let message = reply(message, |ask: GetProcess| runtime.process_detail(&ask.target));
        let message = reply(message, |_: GetTree| runtime.tree());
        let message = reply(message, |ask: GetWhy| runtime.why(&ask.target));
        let message = reply(message, |ask: GetNodeWhy| views::why(node, ask.node));
        let message = reply(message, |_: ListNames| runtime.name_infos());
        let message = reply(message, |ask: WhereIs| runtime.whereis(&ask.name));
        let message = reply(message, |ask: ListKeyed| runtime.keyed_infos(&ask));
        let message = reply(message, |ask: GetOwner| owner(node, ask));
        let message = reply(message, |ask: Place| node.place(&ask.on));
        let message = reply(message, |_: GetExclusive| node.exclusive.info());
        let message = reply(message, |_: Leave| node.ask_to_leave());
        let message = reply(message, |_: ListRevocations| node.revoked.list());
        let message = take(message, |ask: Revoke, answer| self.revoke(node, ask, answer));
        let message = reply(message, |_: GetTrust| node.renewal.trust_info(&node.revoked));
        let message = take(message, |ask: Believe, answer| self.believe(node, ask, answer));
        let message = take(message, |ask: Renew, answer| self.renew(node, ask, answer));
        let message = about_keys(&runtime, message);
        let message = about_draining(node, message);
        let message = reply(message, |ask: Subscribe| {
            if self.subscribers.insert(ask.subscriber) {
                self.ctx.monitor(ask.subscriber);
            }
        });
        let message = self.joining(node, message);
        if let Some(message) = about_entries(&runtime, message) {
            message.refuse("purlin");
        }
    }

    /// Hands revocations to the driver, which heeds them.
    fn revoke(&mut self, node: &Shared, ask: Revoke, reply: Answer<Result<usize, String>>) {
        if self.joins.len() >= JOINS {
            return reply.send(Err("too many ask at once: try again".to_owned()));
        }
        let (answer, heeded) = oneshot::channel();
        // The driver ends with the node; then there is no answer, which says so.
        node.inputs.tell(Told::Revoke { revocations: ask.revocations, answer });
        self.joins.spawn(async move {
            if let Ok(heeded) = heeded.await {
                reply.send(heeded);
            }
        });
    }

    /// Hands other authorities to the driver.
    fn believe(&mut self, node: &Shared, ask: Believe, reply: Answer<Result<bool, String>>) {
        if self.joins.len() >= JOINS {
            return reply.send(Err("too many ask at once: try again".to_owned()));
        }
        let (answer, heeded) = oneshot::channel();
        // The driver ends with the node; then there is no answer, which says so.
        node.inputs.tell(Told::Believe { trust: ask.trust, answer });
        self.joins.spawn(async move {
            if let Ok(heeded) = heeded.await {
                reply.send(heeded);
            }
        });
    }

    /// Has a certificate made anew, here or by another member.
    fn renew(&mut self, node: &Arc<Shared>, ask: Renew, reply: Answer<Result<Admission, String>>) {
        if self.joins.len() >= JOINS {
            return reply.send(Err("too many ask at once: try again".to_owned()));
        }
        let node = Arc::clone(node);
        self.joins.spawn(async move { reply.send(renewal::sign::renew(&node, ask).await) });
    }

    /// What has to do with tokens is on disk, which nobody else is to wait for.
    fn joining(&mut self, node: &Arc<Shared>, message: Option<Untyped>) -> Option<Untyped> {
        let full = self.joins.len() >= JOINS;
        let desk = Arc::clone(&node.desk);
        let message = take(message, |ask: KnowsToken, answer| {
            if !full {
                self.joins.spawn(async move {
                    // Without an answer the caller tells that there was none.
                    if let Ok(known) = desk.knows(ask.token).await {
                        answer.send(known);
                    }
                });
            }
        });
        let desk = Arc::clone(&node.desk);
        take(message, |ask: TakeIn, answer| match full {
            true => answer.send(Err(JoinRefusal::Busy)),
            false => {
                self.joins.spawn(async move {
                    answer.send(desk.take_in(ask.request, ask.from).await);
                });
            }
        })
    }
}

/// Answers what concerns groups, topics and global names.
fn about_entries(runtime: &Runtime, message: Option<Untyped>) -> Option<Untyped> {
    fn said<E: Display>(result: Result<(), E>) -> Result<(), String> {
        result.map_err(|error| error.to_string())
    }
    let message = reply(message, |ask: ListGroups| runtime.group_infos(ask.after));
    let message =
        reply(message, |ask: ListGroupMembers| runtime.group_members(&ask.group, ask.after));
    let message = reply(message, |ask: JoinGroup| said(runtime.join(ask.group, ask.pid)));
    let message = reply(message, |ask: LeaveGroup| runtime.leave(ask.group, ask.pid));
    let message = reply(message, |ask: ListTopics| runtime.topic_infos(ask.after));
    let message = reply(message, |ask: SubscribeTopic| said(runtime.subscribe(ask.topic, ask.pid)));
    let message = reply(message, |ask: UnsubscribeTopic| runtime.unsubscribe(ask.topic, ask.pid));
    let message = reply(message, |ask: ListGlobalNames| runtime.global_infos(ask.after));
    let here = runtime.clone();
    let message = take(message, |ask: WhereIsGlobal, answer| {
        tokio::spawn(async move {
            // Otherwise the answer is dropped, which says that it is not known.
            if let Ok(found) = here.find_global(ask.name).await {
                answer.send(found);
            }
        });
    });
    let here = runtime.clone();
    let message = take(message, |ask: TakeGlobal, answer| {
        // Others decide about it. Who asks gives up after as long.
        tokio::spawn(async move {
            let given = here.register_global(ask.name, ask.pid).await;
            answer.send(given.map_err(|error| error.to_string()));
        });
    });
    reply(message, |ask: RegisterGlobal| said(runtime.register_global_available(ask.name, ask.pid)))
}

/// Does what there is mostly nothing to wait for, here; or in a task, when there is.
fn at_once(work: impl Future<Output = ()> + Send + 'static) {
    let mut work = Box::pin(work);
    let begun = work.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
    if begun.is_pending() {
        tokio::spawn(work);
    }
}

/// Answers what nodes ask each other when keys move.
fn about_keys(runtime: &Runtime, message: Option<Untyped>) -> Option<Untyped> {
    let message = reply(message, |ask: TakeKey| runtime.take_key(&ask.kind, &ask.key));
    let here = runtime.clone();
    let message = take(message, |ask: FollowKey, answer| {
        at_once(async move { answer.send(here.follow_key(&ask.kind, &ask.key).await) });
    });
    let here = runtime.clone();
    let message = take(message, |ask: ReleaseKey, answer| {
        let stateful = here.is_stateful(&ask.kind);
        let release = async move {
            // Otherwise the reply is dropped, which says so.
            if let Some(released) = here.release_key(&ask.kind, &ask.key).await {
                answer.send(released);
            }
        };
        match stateful {
            // Its store is asked, which may be the user's.
            true => drop(tokio::spawn(release)),
            false => at_once(release),
        }
    });
    let here = runtime.clone();
    let message = take(message, |ask: ReleaseHeldKey, answer| {
        tokio::spawn(async move {
            if let Some(released) = here.release_held_key(&ask).await {
                answer.send(released);
            }
        });
    });
    let here = runtime.clone();
    let message = take(message, |ask: DropHeldSnapshot, answer| {
        tokio::spawn(async move { answer.send(here.drop_held_snapshot(&ask).await) });
    });
    let here = runtime.clone();
    let message = take(message, |ask: KeepSnapshot, answer| {
        tokio::spawn(async move { answer.send(here.keep_snapshot(ask).await) });
    });
    let here = runtime.clone();
    take(message, |ask: DropSnapshot, answer| {
        tokio::spawn(async move {
            here.drop_snapshot(&ask.kind, &ask.key, ask.at).await;
            answer.send(());
        });
    })
}

/// Answers what has to do with taking a node out of service.
fn about_draining(node: &Arc<Shared>, message: Option<Untyped>) -> Option<Untyped> {
    let message = reply(message, |_: GetDrainPlan| node.drain_plan());
    let message = reply(message, |_: GetDrainRest| node.drain_rest());
    let message =
        reply(message, |ask: SeesDraining| !node.directory.ring().members().contains(&ask.node));
    take(message, |_: Drain, answer| {
        let node = Node(Arc::clone(node));
        tokio::spawn(async move {
            answer.send(node.drain().await);
            node.0.ask_to_leave();
        });
    })
}

/// Answers a message if it is an `M`; else hands it on.
pub(crate) fn reply<M: Message>(
    message: Option<Untyped>,
    answer: impl FnOnce(M) -> M::Reply,
) -> Option<Untyped> {
    take(message, |message: M, reply| reply.send(answer(message)))
}

/// Takes a message if it is an `M`; else hands it on.
pub(crate) fn take<M: Message>(
    message: Option<Untyped>,
    act: impl FnOnce(M, Answer<M::Reply>),
) -> Option<Untyped> {
    match message?.take::<M>() {
        Ok(Ok((message, reply))) => {
            act(message, reply);
            None
        }
        // Malformed; the caller has been told.
        Ok(Err(_)) => None,
        Err(other) => Some(other),
    }
}

fn status(node: &Shared) -> Status {
    let runtime = &node.runtime;
    let mut counters = runtime.counters().snapshot();
    for (name, count) in node.endpoint.stats().snapshot() {
        counters.push(admin::Counter { name: name.to_owned(), count });
    }
    counters.extend(node.desk.counts.snapshot());
    counters.extend(node.guards.snapshot());
    let live: BTreeSet<_> = {
        let membership = node.membership();
        membership.members().filter(|m| m.state.is_live()).map(|m| m.address).collect()
    };
    let seeds = node.seeds.lock().unwrap_or_else(PoisonError::into_inner).info(&live);
    Status {
        name: runtime.name(),
        id: runtime.id(),
        address: node.address,
        cluster: node.cluster.clone(),
        members_up: node.membership().live().count(),
        expects: node.expects,
        ready: node.ready.load(Ordering::Acquire),
        seeds,
        processes: runtime.process_count(),
        uptime_s: node.started.elapsed().as_secs_f64(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kinds: runtime.kinds().names(),
        counters,
        certificate_expires_ms: node.renewal.expires_ms(),
    }
}

fn owner(node: &Shared, ask: GetOwner) -> OwnerInfo {
    let ring = node.directory.ring();
    let shard = Ring::shard_of(ask.key.as_bytes());
    let mut preference = ring.preference(shard, 1 + SUCCESSORS);
    // A node is always a member of its own ring.
    let owner = ring.owner_of(shard).unwrap_or_else(|| node.runtime.name());
    preference.retain(|name| *name != owner);
    let digest = format!("{:016x}", ring.digest());
    OwnerInfo { key: ask.key, shard, owner, successors: preference, ring: digest }
}
