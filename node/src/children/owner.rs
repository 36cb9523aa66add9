//! The owner of shards: looks at each child that falls into one of them, and does the next thing.
//!
//! What woke it does not matter. A child is looked at when something about it has changed, when
//! members have, when what was begun for it is over, and every few seconds; one thing at most is under
//! way for a child. What is decided, and why, is in `purlin_cluster::children`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use purlin_cluster::Ring;
use purlin_cluster::children::{End, Host as Member, Members, Pace, SETTLE, Scene, Step, decide};
use purlin_proto::admin::What;
use purlin_proto::admin::children::{EndChild, HostChild, HostRefusal, TakeChild};
use purlin_proto::child::{Cause, ChildRecord, ChildRun, Desired};
use purlin_proto::{CallError, ChildId, Mode, NodeId, NodeName};
use purlin_runtime::{ChildSeen, Runtime};
use tokio::time::{Duration, Instant};

use super::copies::{Copied, Copies};
use super::past::describe;
use super::process::{Children, Done, at};
use super::requests::{Request, Waiting};
use crate::builder::millis;
use crate::node::Shared;

/// Starts that are under way at once.
const AT_ONCE: usize = 64;

/// Starts a second.
const PER_SECOND: u32 = 500;

/// Children that are being moved at once.
const MOVES: usize = 32;

/// Those that own a child's shard next and have copies of its record.
const SUCCESSORS: usize = 2;

/// A node that has refused a child takes none for so long.
const REFUSED: Duration = Duration::from_secs(5);

/// How long a start may take before it is asked for again.
const START: Duration = Duration::from_mins(1);

/// Before something that has failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// What its owner does not tell for so long is told by all who know it: the owner may not.
const UNTOLD: Duration = Duration::from_secs(10);

/// How long a stopped child is remembered.
const STOPPED: Duration = Duration::from_hours(1);

/// So old may the counted children of each member be.
const COUNTED: Duration = Duration::from_millis(100);

pub(super) struct Owner {
    due: BTreeSet<ChildId>,
    later: BTreeSet<(Instant, ChildId)>,
    work: BTreeMap<ChildId, Work>,
    pub(super) copies: Copies,
    pub(super) waiting: Waiting,
    pace: Pace,
    /// Those that wait until fewer are under way.
    paced: BTreeSet<ChildId>,
    moving: BTreeSet<ChildId>,
    refused: BTreeMap<NodeId, Instant>,
    /// Nodes that have not handed over yet, and how often they have come up meanwhile.
    unsettled: BTreeMap<NodeName, usize>,
    /// Since when their owners do not tell what is known here.
    untold: BTreeMap<ChildId, Instant>,
    /// This life of this node, and until when it decides nothing since it has just come back and
    /// sees nobody yet.
    life: Option<NodeId>,
    alone_until: Option<Instant>,
    members: Option<Seen>,
    began: Instant,
}

/// The members as they were when last looked up.
struct Seen {
    members: Members,
    at: Instant,
    /// [`Directory::changes`](crate::directory::Directory::changes) before.
    changes: u64,
}

/// What this node does, or knows it has done, about a child.
#[derive(Default)]
struct Work {
    busy: bool,
    /// The version that is known to have copies.
    copied: u64,
    /// What runs, and since when that contradicts the record.
    odd: Option<(Instant, Vec<(NodeId, ChildRun)>)>,
    /// What its host has said to have started, and until when that need not be seen.
    confirmed: Option<(u64, Instant)>,
    /// Its next host does not know how to take it over: the present one has to end it first.
    ends_first: bool,
}

impl Owner {
    pub(super) fn new() -> Self {
        Self {
            due: BTreeSet::new(),
            later: BTreeSet::new(),
            work: BTreeMap::new(),
            copies: Copies::default(),
            waiting: Waiting::default(),
            pace: Pace::new(AT_ONCE, PER_SECOND),
            paced: BTreeSet::new(),
            moving: BTreeSet::new(),
            refused: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            untold: BTreeMap::new(),
            life: None,
            alone_until: None,
            members: None,
            began: Instant::now(),
        }
    }

    /// When there is something to do again.
    pub(super) fn due(&self) -> Option<Instant> {
        let later = self.later.first().map(|(at, _)| *at);
        let paced = self.pace.due().filter(|_| !self.paced.is_empty());
        let paced = paced.map(|at| self.began + at);
        later.into_iter().chain(paced).chain(self.alone_until).min()
    }

    pub(super) fn look_at(&mut self, child: ChildId) {
        self.due.insert(child);
    }

    pub(super) fn look_at_all(&mut self, runtime: &Runtime) {
        self.due.extend(runtime.children().after(None, usize::MAX));
    }

    fn look_later(&mut self, child: ChildId, after: Duration) {
        self.later.insert((Instant::now() + after, child));
    }

    pub(super) fn members_changed(&mut self, runtime: &Runtime) {
        self.members = None;
        self.look_at_all(runtime);
    }

    // ----- handing over -----

    /// A node has come up and is asked what it has for us.
    pub(super) fn settle(&mut self, with: NodeName) {
        *self.unsettled.entry(with).or_default() += 1;
    }

    /// It has answered, or has not; whether nothing is left to wait for.
    pub(super) fn settled(&mut self, with: NodeName) -> bool {
        if let Some(asked) = self.unsettled.get_mut(&with) {
            *asked -= 1;
            if *asked == 0 {
                self.unsettled.remove(&with);
            }
        }
        self.is_settled()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.unsettled.is_empty() && self.alone_until.is_none()
    }

    /// Notes which life this is, and the time; whether it may decide again.
    fn is_back(&mut self, life: NodeId, patience: Duration) -> bool {
        let now = Instant::now();
        if self.life.replace(life).is_some_and(|before| before != life) {
            self.alone_until = Some(now + patience);
        }
        self.alone_until.take_if(|until| *until <= now).is_some() && self.is_settled()
    }

    pub(super) fn take_held(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.waiting.held)
    }

    /// Whether something is under way that others are not to interfere with.
    pub(super) fn is_busy(&self, child: &ChildId) -> bool {
        self.work.get(child).is_some_and(|work| work.busy)
    }

    /// Whether the owner of a child does not tell what is known here, and has not for a while.
    fn is_untold(&mut self, child: &ChildId) -> bool {
        let now = Instant::now();
        now - *self.untold.entry(child.clone()).or_insert(now) >= UNTOLD
    }

    // ----- what was begun is over -----

    pub(super) fn copied(&mut self, copied: Copied) {
        for (child, version) in self.copies.copied(copied) {
            let work = self.work.entry(child.clone()).or_default();
            work.copied = work.copied.max(version);
            self.waiting.copied(&child, version);
            self.due.insert(child);
        }
    }

    pub(super) fn hosted(
        &mut self,
        child: ChildId,
        on: NodeId,
        mode: Mode,
        result: &Result<Result<(), HostRefusal>, CallError>,
    ) {
        self.pace.end();
        self.due.append(&mut self.paced);
        self.moving.remove(&child);
        let work = self.work.entry(child.clone()).or_default();
        work.busy = false;
        match result {
            Ok(Ok(())) => {
                if let Some((_, until)) = &mut work.confirmed {
                    *until = Instant::now() + SETTLE;
                }
                self.look_later(child.clone(), SETTLE);
            }
            // A version that knows no moves.
            Err(CallError::NotUnderstood { .. }) if !work.ends_first => {
                work.confirmed = None;
                work.ends_first = true;
            }
            // It may run nowhere else: its host knows an older ring view than we do, or a newer one.
            Ok(Err(_)) if mode == Mode::Exclusive => {
                work.confirmed = None;
                tracing::debug!(%child, %on, ?result, "refused");
                return self.look_later(child, PAUSE);
            }
            Ok(Err(HostRefusal::No { .. })) | Err(CallError::NoProcess | CallError::Dropped) => {
                work.confirmed = None;
                tracing::debug!(%child, %on, ?result, "refused");
                let again = self.refused.insert(on, Instant::now() + REFUSED).is_some();
                self.members = None;
                if again {
                    // There may be no other place for it.
                    return self.look_later(child, PAUSE);
                }
            }
            Ok(Err(_)) | Err(_) => {
                work.confirmed = None;
                tracing::debug!(%child, %on, ?result, "not started");
                return self.look_later(child, PAUSE);
            }
        }
        self.due.insert(child);
    }

    pub(super) fn ended(&mut self, child: ChildId, result: &Result<(), CallError>) {
        let work = self.work.entry(child.clone()).or_default();
        work.busy = false;
        // That it is gone may be seen a little later.
        let pause = if result.is_ok() { PAUSE / 10 } else { PAUSE };
        self.look_later(child, pause);
    }
}

impl Children {
    /// Decides again, after it could not.
    pub(super) fn resume(&mut self) {
        let runtime = self.ctx.runtime().clone();
        runtime.children().set_settling(false);
        self.owner.look_at_all(&runtime);
        let held = self.owner.take_held();
        for request in held {
            self.request(request);
        }
    }

    /// Does what is to be done by now; `None` if the node is gone.
    pub(super) fn work(&mut self) -> Option<()> {
        let node = self.node.upgrade()?;
        let now = Instant::now();
        if self.owner.is_back(node.runtime.id(), node.detect_in) {
            self.resume();
        }
        let owner = &mut self.owner;
        while owner.later.first().is_some_and(|(at, _)| *at <= now) {
            owner.due.extend(owner.later.pop_first().map(|(_, child)| child));
        }
        if owner.pace.due().is_some_and(|at| owner.began + at <= now) {
            owner.due.append(&mut owner.paced);
        }
        if owner.due.is_empty() {
            return Some(());
        }
        let ring = node.directory.ring();
        let due = std::mem::take(&mut owner.due);
        for child in due {
            self.look(&node, &ring, child);
        }
        for message in self.owner.copies.pump(&node.runtime) {
            self.tasks.spawn(async move { Done::Copied(message.await) });
        }
        Some(())
    }

    fn look(&mut self, node: &Arc<Shared>, ring: &Ring, child: ChildId) {
        let (runtime, us) = (&node.runtime, node.runtime.id());
        let ChildSeen { record, runs } = runtime.children().see(&child, us);
        let Some(record) = record else {
            self.owner.work.remove(&child);
            self.owner.untold.remove(&child);
            return;
        };
        let owner = owner_of(ring, &child, us.name);
        if owner != us.name {
            return self.others(node, &child, owner);
        }
        self.owner.untold.remove(&child);
        if !self.owner.is_settled() {
            // All are looked at when it is.
            return;
        }
        if let Err(error) = runtime.children().tell(&child) {
            tracing::error!(%child, %error, "nobody can be told of a child");
        }
        if self.owner.is_busy(&child) {
            return;
        }
        let now = Instant::now();
        let members = self.owner.members(node).clone();
        let runs: Vec<_> = runs.into_iter().filter(|(on, _)| members.is_live(*on)).collect();
        let place = match record.plan.mode {
            Mode::Available => owner,
            // Its host makes sure that it may run it.
            Mode::Exclusive => runtime.exclusive_owner(&ring_key(&child)).unwrap_or(owner),
        };
        let gone = record.placed.filter(|placed| !members.is_live(placed.node));
        let left = gone.is_some_and(|placed| has_left(node, placed.node));
        let ended = runs.iter().any(|(_, run)| run.ended().is_some());
        let now_ms = millis(&node.clock);
        let others = if ended { siblings(runtime, &child, &record, now_ms) } else { 0 };
        let work = self.owner.work.entry(child.clone()).or_default();
        let scene = |odd_for| Scene {
            record: &record,
            runs: &runs,
            members: &members,
            owner: place,
            now_ms,
            odd_for,
            left,
            others,
        };
        work.odd.take_if(|(_, seen)| *seen != runs);
        let odd_for = work.odd.as_ref().map_or(Duration::ZERO, |(since, _)| now - *since);
        let step = decide(&scene(odd_for));
        if step == Step::Settle {
            work.odd.get_or_insert_with(|| (now, runs.clone()));
            return self.owner.look_later(child, SETTLE.saturating_sub(odd_for));
        }
        work.odd = None;
        self.act(node, ring, child, &record, &runs, step);
    }

    /// A child that is another node's affair.
    fn others(&mut self, node: &Shared, child: &ChildId, owner: NodeName) {
        let children = node.runtime.children();
        let place = node.directory.find(owner).filter(|place| place.live);
        if place.is_some_and(|place| children.is_told_by(child, place.id)) {
            self.owner.untold.remove(child);
            children.untell(child);
        } else if self.owner.is_untold(child)
            && let Err(error) = children.tell(child)
        {
            tracing::error!(%child, %error, "nobody can be told of a child");
        }
        let busy = self.owner.is_busy(child);
        if !busy {
            self.owner.work.remove(child);
            self.owner.moving.remove(child);
        }
        self.owner.copies.forget(child);
        self.owner.waiting.refuse(child, node.runtime.name());
    }

    fn act(
        &mut self,
        node: &Arc<Shared>,
        ring: &Ring,
        child: ChildId,
        record: &ChildRecord,
        runs: &[(NodeId, ChildRun)],
        step: Step,
    ) {
        match step {
            Step::Settle => {}
            Step::Rest => {
                self.owner.moving.remove(&child);
                self.copy_for_waiting(ring, &child, record.version);
                self.rest(node, &child, record, runs);
            }
            Step::Nowhere => {
                tracing::debug!(%child, placement = %record.plan.placement, "no member takes it");
                self.owner.moving.remove(&child);
                self.copy_for_waiting(ring, &child, record.version);
            }
            Step::Write(next) => {
                let moves = matches!(next.cause, Cause::Moved(_)) && !runs.is_empty();
                if moves && !self.owner.moving.contains(&child) {
                    if self.owner.moving.len() >= MOVES {
                        return self.owner.look_later(child, PAUSE);
                    }
                    self.owner.moving.insert(child.clone());
                }
                self.write(node, ring, &child, *next);
            }
            Step::Start => self.order(node, ring, child, record),
            Step::End { on, generation, why } => self.end(node, child, on, generation, why),
        }
    }

    /// Nothing is to be done about it.
    fn rest(
        &mut self,
        node: &Shared,
        child: &ChildId,
        record: &ChildRecord,
        runs: &[(NodeId, ChildRun)],
    ) {
        if let Desired::Stopped(at_ms) = record.desired {
            let age = Duration::from_millis(millis(&node.clock).saturating_sub(at_ms));
            if runs.is_empty() && age > STOPPED {
                node.runtime.children().forget(child);
            }
        }
        if !self.owner.copies.has(child) {
            self.owner.work.remove(child);
        }
    }

    /// What is to be answered when it has copies is to have them.
    fn copy_for_waiting(&mut self, ring: &Ring, child: &ChildId, version: u64) {
        if self.owner.waiting.has(child) && !self.owner.copies.has(child) {
            self.copy(ring, child, version);
        }
    }

    /// Has copies made of what the table has by now.
    fn copy(&mut self, ring: &Ring, child: &ChildId, version: u64) {
        let shard = shard_of(child);
        let me = self.ctx.runtime().name();
        let next = ring.preference(shard, 1 + SUCCESSORS).into_iter().filter(|name| *name != me);
        if !self.owner.copies.copy(child, version, next) {
            let work = self.owner.work.entry(child.clone()).or_default();
            work.copied = version;
            self.owner.waiting.copied(child, version);
            self.owner.look_at(child.clone());
        }
    }

    /// Changes a record, and tells whoever watches.
    pub(super) fn write(
        &mut self,
        node: &Shared,
        ring: &Ring,
        child: &ChildId,
        record: ChildRecord,
    ) {
        let event = describe(&record);
        let alert = matches!(record.desired, Desired::GaveUp(_) | Desired::Poison);
        if alert {
            tracing::error!(%child, event, "a child is left alone");
        } else {
            tracing::debug!(%child, event, "child");
        }
        // Nobody may be subscribed.
        drop(node.events.send(What::ClusterChild { child: child.clone(), event, alert }));
        let placed = record.placed;
        let version = record.version;
        node.runtime.children().keep(child, record);
        if let (Some(seen), Some(placed)) = (&mut self.owner.members, placed)
            && let Some(host) = seen.members.live.get_mut(&placed.node.name)
        {
            host.children += 1;
        }
        self.copy(ring, child, version);
    }

    fn order(&mut self, node: &Shared, ring: &Ring, child: ChildId, record: &ChildRecord) {
        let Some(placed) = record.placed else { return };
        let now = Instant::now();
        let work = self.owner.work.entry(child.clone()).or_default();
        if work.copied < record.version {
            if !self.owner.copies.has(&child) {
                self.copy(ring, &child, record.version);
            }
            return;
        }
        if work.confirmed.is_some_and(|(version, until)| version == record.version && now < until) {
            return;
        }
        let from = match record.cause {
            Cause::Moved(from) => Some(from),
            _ => None,
        };
        let from = from.filter(|from| {
            node.directory.find(from.name).is_some_and(|place| place.id == *from && place.live)
                || *from == node.runtime.id()
        });
        if let Some(from) = from.filter(|_| work.ends_first) {
            let seen = node.runtime.children().see(&child, node.runtime.id());
            if let Some((_, run)) = seen.runs.iter().find(|(on, _)| *on == from) {
                return self.end(node, child, from, run.generation, End::Moved);
            }
        }
        if !self.owner.pace.begin(now - self.owner.began) {
            self.owner.paced.insert(child);
            return;
        }
        let ends_first = work.ends_first;
        work.busy = true;
        work.confirmed = Some((record.version, now));
        let ask = HostChild {
            on: placed.node,
            child: child.clone(),
            plan: record.plan.clone(),
            generation: placed.generation,
            view: self.owner.members(node).count(),
        };
        tracing::debug!(%child, on = %placed.node, generation = placed.generation, "ordered");
        let (runtime, to) = (node.runtime.clone(), at(placed.node.name));
        let mode = record.plan.mode;
        self.tasks.spawn(async move {
            let result = match from.filter(|_| !ends_first) {
                Some(from) => runtime.call_timeout(to, TakeChild { host: ask, from }, START).await,
                None => runtime.call_timeout(to, ask, START).await,
            };
            Done::Hosted { child, on: placed.node, mode, result }
        });
    }

    fn end(&mut self, node: &Shared, child: ChildId, on: NodeId, generation: u64, why: End) {
        let kept = match why {
            End::Twice(kept, serial) => Some(kept.pid(serial)),
            End::Unwanted | End::Moved | End::Dealt => None,
        };
        if let Some(kept) = kept {
            tracing::warn!(%child, %kept, ended = %on, "a child ran twice");
        }
        self.owner.work.entry(child.clone()).or_default().busy = true;
        let runtime = node.runtime.clone();
        let ask = EndChild { child: child.clone(), generation, kept };
        self.tasks.spawn(async move {
            let result = runtime.call_timeout(at(on.name), ask, START).await;
            Done::Ended { child, result }
        });
    }
}

impl Owner {
    /// The members, looked up anew when they have changed or a little time has passed.
    fn members(&mut self, node: &Shared) -> &Members {
        let at = Instant::now();
        self.refused.retain(|_, until| *until > at);
        // The ring may be without a node before its end is told of here: as a member it would be taken
        // for one that is not to have the child any more.
        let changes = node.directory.changes();
        let fresh = |seen: &Seen| at - seen.at < COUNTED && seen.changes == changes;
        let kept = self.members.take().filter(fresh);
        let look = || Seen { members: look_up(node, &self.refused), at, changes };
        &self.members.insert(kept.unwrap_or_else(look)).members
    }
}

pub(super) fn look_up(node: &Shared, refused: &BTreeMap<NodeId, Instant>) -> Members {
    let us = node.runtime.id();
    let loads = node.runtime.children().loads(us);
    // Those that can be sent to; membership may be ahead.
    let place = |name: NodeName| match name == us.name {
        true => Some(us),
        false => node.directory.find(name).map(|place| place.id),
    };
    let live: Vec<_> = node.directory.live().into_iter().filter_map(place).collect();
    let membership = node.membership();
    let host = |id: NodeId| {
        let labels = match id == us {
            true => membership.me().labels.clone(),
            false => membership.member(id.name)?.labels.clone(),
        };
        let children = loads.get(&id).copied().unwrap_or(0);
        let takes = !refused.contains_key(&id) && !node.directory.is_draining(id.name);
        Some((id.name, Member { id, labels, children, takes }))
    };
    let live = live.into_iter().filter_map(host).collect();
    drop(membership);
    Members { me: us.name, live, detect_in: node.detect_in }
}

/// Whether this life of a node is known to have left in good order.
fn has_left(node: &Shared, id: NodeId) -> bool {
    let membership = node.membership();
    let member = membership.member(id.name);
    member.is_some_and(|member| member.id == id && member.state == purlin_cluster::State::Left)
}

/// Restarts of the other children of a supervisor that count, if any do.
fn siblings(runtime: &Runtime, child: &ChildId, record: &ChildRecord, now_ms: u64) -> u32 {
    let Some(all) = record.plan.supervisor_intensity else { return 0 };
    let period = u64::try_from(all.period.as_millis()).unwrap_or(u64::MAX);
    runtime.children().crashes(child, now_ms.saturating_sub(period))
}

/// What is looked up on the ring for a child.
pub(super) fn ring_key(child: &ChildId) -> Box<[u8]> {
    child.to_string().into_bytes().into()
}

/// The shard that a child falls into.
fn shard_of(child: &ChildId) -> u16 {
    Ring::shard_of(&ring_key(child))
}

/// Who decides about a child.
pub(super) fn owner_of(ring: &Ring, child: &ChildId, us: NodeName) -> NodeName {
    // A node is always a member of its own ring.
    ring.owner_of(shard_of(child)).unwrap_or(us)
}
