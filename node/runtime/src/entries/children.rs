//! Children of cluster supervisors: what is wanted of each, and what runs, on all nodes.
//!
//! A record is kept by every node, whoever has written it, and outlives its writer: only a higher
//! version takes its place. It is *told* by the node that decides about the child, as one of its own
//! entries, so that those who join later hear of it. A run is told by the node where it runs and goes
//! with it, as everything that is an entry does.
//!
//! Who decides, and what, is not known here: see `node/src/children/`. It is woken by every change
//! ([`ChildTable::changed`]) and looks at what is so by then.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use purlin_proto::child::{ChildRecord, ChildRun, Desired};
use purlin_proto::{CallError, ChildId, Dest, EntryKey, NodeId, NodeName, Pid};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{EntryError, News};
use crate::relations::Address;
use crate::runtime::{Runtime, lock};

/// What was sent to a child before it moved, longer ago, has arrived.
const RECENT: Duration = Duration::from_secs(10);

/// What this node knows of the children of cluster supervisors.
#[derive(Debug)]
pub struct ChildTable {
    start: Instant,
    /// Milliseconds after the start up to when some have moved lately.
    moved_until_ms: AtomicU64,
    state: Mutex<State>,
    news: Arc<News>,
    /// For the one that decides.
    changed: Notify,
    /// For those that wait for a child to run.
    appeared: Notify,
    settling: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<ChildId, Kept>,
    /// By serials of this node, so that they stay true when it comes back under a new creation.
    own: BTreeMap<ChildId, ChildRun>,
    others: BTreeMap<ChildId, BTreeMap<NodeId, ChildRun>>,
    /// What each other node has told something about.
    of: BTreeMap<NodeId, BTreeSet<ChildId>>,
    places: BTreeMap<ChildId, Place>,
    changed: BTreeSet<ChildId>,
}

/// Where a child was seen to run last; this node has no name here.
#[derive(Debug)]
struct Place {
    at: Option<NodeName>,
    /// And where before, until then.
    before: Option<(Option<NodeName>, Instant)>,
}

#[derive(Debug)]
struct Kept {
    record: ChildRecord,
    /// Whether this node tells it.
    own: bool,
    /// Which version others tell, and who has written that.
    told: BTreeMap<NodeId, (u64, NodeName)>,
}

/// A child as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildSeen {
    /// What is wanted of it; `None` if only runs of it are known.
    pub record: Option<ChildRecord>,
    /// Its processes, by node; those that have ended as well.
    pub runs: Vec<(NodeId, ChildRun)>,
}

impl ChildTable {
    pub(super) fn new(news: Arc<News>) -> Self {
        let (changed, appeared) = (Notify::new(), Notify::new());
        let (start, moved_until_ms) = (Instant::now(), AtomicU64::new(0));
        let (state, settling) = (Mutex::default(), AtomicBool::new(false));
        Self { start, moved_until_ms, state, news, changed, appeared, settling }
    }

    fn note(&self, state: &mut State, child: &ChildId) {
        state.changed.insert(child.clone());
        if state.has_moved(child) {
            let until = (self.start.elapsed() + RECENT).as_millis();
            self.moved_until_ms.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Release);
        }
        self.changed.notify_one();
    }

    /// Whether any child has moved lately: quick.
    pub(crate) fn have_moved(&self) -> bool {
        let until = self.moved_until_ms.load(Ordering::Acquire);
        until > 0 && self.start.elapsed().as_millis() < u128::from(until)
    }

    /// Where a child ran until it moved, if that was lately.
    pub(crate) fn earlier_place(&self, child: &ChildId, us: NodeName) -> Option<NodeName> {
        let state = lock(&self.state);
        let (place, until) = state.places.get(child)?.before?;
        (until.elapsed() < RECENT).then(|| place.unwrap_or(us))
    }

    /// Returns when children have changed that were not [taken](Self::take_changed) yet. Cancel safe.
    /// For one task only.
    pub async fn changed(&self) {
        while lock(&self.state).changed.is_empty() {
            self.changed.notified().await;
        }
    }

    /// The children that have changed since this was last called.
    pub fn take_changed(&self) -> BTreeSet<ChildId> {
        std::mem::take(&mut lock(&self.state).changed)
    }

    /// Whether other nodes are still to tell which children there are: a child that is not known is
    /// waited for until then.
    pub fn set_settling(&self, settling: bool) {
        self.settling.store(settling, Ordering::Release);
        self.appeared.notify_waiters();
    }

    // ----- records -----

    /// Keeps a record if it outdates what is known; whether it did.
    pub fn keep(&self, child: &ChildId, record: ChildRecord) -> bool {
        let mut state = lock(&self.state);
        let told = match state.records.get_mut(child) {
            Some(kept) if !record.outdates(&kept.record) => return false,
            Some(kept) => {
                kept.record = record;
                kept.own
            }
            None => {
                let kept = Kept { record, own: false, told: BTreeMap::new() };
                state.records.insert(child.clone(), kept);
                false
            }
        };
        self.note(&mut state, child);
        drop(state);
        if told {
            self.news.note([EntryKey::Child(child.clone())]);
        }
        // It may be one now that nobody need wait for.
        self.appeared.notify_waiters();
        true
    }

    /// Has this node tell a record to all others, as an entry.
    pub fn tell(&self, child: &ChildId) -> Result<(), EntryError> {
        let mut state = lock(&self.state);
        let Some(kept) = state.records.get_mut(child).filter(|kept| !kept.own) else {
            return Ok(());
        };
        self.news.reserve()?;
        kept.own = true;
        drop(state);
        self.news.note([EntryKey::Child(child.clone())]);
        Ok(())
    }

    /// Leaves that to another node.
    pub fn untell(&self, child: &ChildId) {
        let mut state = lock(&self.state);
        let Some(kept) = state.records.get_mut(child).filter(|kept| kept.own) else { return };
        kept.own = false;
        self.news.release(1);
        drop(state);
        self.news.note([EntryKey::Child(child.clone())]);
    }

    /// Whether another node tells the record of a child as it is known here, or a newer one.
    pub fn is_told_by(&self, child: &ChildId, node: NodeId) -> bool {
        let state = lock(&self.state);
        state.records.get(child).is_some_and(|kept| {
            let known = (kept.record.version, kept.record.by);
            kept.told.get(&node).is_some_and(|told| *told >= known)
        })
    }

    /// Forgets a record, for good if nobody tells it any more.
    pub fn forget(&self, child: &ChildId) {
        self.untell(child);
        let mut state = lock(&self.state);
        state.records.remove(child);
        self.note(&mut state, child);
    }

    /// The record that this node tells, as an entry.
    pub(super) fn told(&self, child: &ChildId) -> Option<ChildRecord> {
        lock(&self.state).records.get(child).filter(|kept| kept.own).map(|kept| kept.record.clone())
    }

    pub(super) fn record_told(&self, of: NodeId, child: &ChildId, record: Option<ChildRecord>) {
        match record {
            Some(record) => {
                let told = (record.version, record.by);
                self.keep(child, record);
                let mut state = lock(&self.state);
                if let Some(kept) = state.records.get_mut(child) {
                    kept.told.insert(of, told);
                }
                state.of.entry(of).or_default().insert(child.clone());
                self.note(&mut state, child);
            }
            None => {
                let mut state = lock(&self.state);
                if let Some(kept) = state.records.get_mut(child) {
                    kept.told.remove(&of);
                    // Who decided about it has forgotten it.
                    let stopped = matches!(kept.record.desired, Desired::Stopped(_));
                    if stopped && !kept.own && kept.told.is_empty() {
                        state.records.remove(child);
                    }
                }
                state.tidy(of, child);
                self.note(&mut state, child);
            }
        }
    }

    // ----- runs -----

    /// Says what runs of a child on this node.
    pub fn set_run(&self, child: &ChildId, run: Option<ChildRun>) -> Result<(), EntryError> {
        let mut state = lock(&self.state);
        match (state.own.contains_key(child), &run) {
            (false, Some(_)) => self.news.reserve()?,
            (true, None) => self.news.release(1),
            (false, None) => return Ok(()),
            (true, Some(_)) => {}
        }
        match run {
            Some(run) => state.own.insert(child.clone(), run),
            None => state.own.remove(child),
        };
        self.note(&mut state, child);
        drop(state);
        self.news.note([EntryKey::ChildRun(child.clone())]);
        self.appeared.notify_waiters();
        Ok(())
    }

    /// What runs of a child on this node.
    pub fn own_run(&self, child: &ChildId) -> Option<ChildRun> {
        lock(&self.state).own.get(child).cloned()
    }

    pub(super) fn run_told(&self, of: NodeId, child: &ChildId, run: Option<ChildRun>) {
        let mut state = lock(&self.state);
        match run {
            Some(run) => {
                state.others.entry(child.clone()).or_default().insert(of, run);
                state.of.entry(of).or_default().insert(child.clone());
            }
            None => {
                state.remove_run(of, child);
                state.tidy(of, child);
            }
        }
        self.note(&mut state, child);
        drop(state);
        self.appeared.notify_waiters();
    }

    pub(super) fn vanished(&self, of: NodeId) {
        let mut state = lock(&self.state);
        for child in state.of.remove(&of).unwrap_or_default() {
            state.remove_run(of, &child);
            if let Some(kept) = state.records.get_mut(&child) {
                kept.told.remove(&of);
            }
            state.changed.insert(child);
        }
        self.changed.notify_one();
    }

    // ----- looking -----

    /// Everything that is known of a child; `us` is this node.
    pub fn see(&self, child: &ChildId, us: NodeId) -> ChildSeen {
        lock(&self.state).see(child, us)
    }

    /// One page of the children behind this one, by id.
    pub fn after(&self, after: Option<&ChildId>, count: usize) -> Vec<ChildId> {
        let state = lock(&self.state);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let records = state.records.range::<ChildId, _>((from, Bound::Unbounded));
        records.take(count).map(|(child, _)| child.clone()).collect()
    }

    /// How many processes of children run on each node.
    pub fn loads(&self, us: NodeId) -> BTreeMap<NodeId, usize> {
        let state = lock(&self.state);
        let mut loads = BTreeMap::new();
        let others = state.others.values().flatten().map(|(node, run)| (*node, run));
        for (node, run) in others.chain(state.own.values().map(|run| (us, run))) {
            *loads.entry(node).or_default() += usize::from(run.is_live());
        }
        loads
    }

    /// How often other children of the same supervisor have crashed since then, as far as that is
    /// remembered; in milliseconds since 1970.
    pub fn crashes(&self, but: &ChildId, since_ms: u64) -> u32 {
        let state = lock(&self.state);
        let siblings = state
            .records
            .iter()
            .filter(|(child, _)| child.supervisor == but.supervisor && *child != but);
        let crashes = siblings.flat_map(|(_, kept)| &kept.record.crashes);
        u32::try_from(crashes.filter(|at| **at >= since_ms).count()).unwrap_or(u32::MAX)
    }

    /// The process that has a child: of several the one that was placed last.
    fn holder(&self, child: &ChildId, us: NodeId) -> Option<Pid> {
        let state = lock(&self.state);
        let ChildSeen { record, runs } = state.see(child, us);
        let placed = record.and_then(|record| record.placed);
        // A node that has let go of it sends on what comes.
        let leading = runs.into_iter().filter(|(_, run)| run.ended().is_none());
        let best = leading.max_by_key(|(node, run)| {
            let is_there = placed.is_some_and(|placed| placed.node == *node);
            (run.is_live(), is_there, run.view, run.generation)
        });
        best.map(|(node, run)| node.pid(run.serial))
    }

    /// Whether it is worth waiting for a child to run.
    fn is_wanted(&self, child: &ChildId) -> bool {
        match lock(&self.state).records.get(child) {
            Some(kept) => kept.record.desired == Desired::Run,
            None => self.settling.load(Ordering::Acquire),
        }
    }
}

impl State {
    /// Notes where a child runs by now; whether that is another place.
    fn has_moved(&mut self, child: &ChildId) -> bool {
        let record = self.records.get(child).map(|kept| &kept.record);
        let placed = record.and_then(|record| record.placed);
        let others = self.others.get(child).into_iter().flatten();
        let others = others.map(|(node, run)| (Some(*node), run));
        let all = others.chain(self.own.get(child).map(|run| (None, run)));
        let there = |node: Option<NodeId>| placed.is_some_and(|placed| node == Some(placed.node));
        let live = all.filter(|(_, run)| run.is_live());
        let best = live.max_by_key(|(node, run)| (there(*node), run.view, run.generation));
        let at = best.map(|(node, _)| node.map(|node| node.name));
        match (self.places.get_mut(child), at) {
            (Some(place), Some(at)) if place.at != at => {
                place.before = Some((place.at, Instant::now()));
                place.at = at;
                return true;
            }
            (None, Some(at)) => {
                self.places.insert(child.clone(), Place { at, before: None });
            }
            (Some(_), None) if !self.records.contains_key(child) => {
                self.places.remove(child);
            }
            _ => {}
        }
        false
    }

    /// Another node has taken something back.
    fn tidy(&mut self, of: NodeId, child: &ChildId) {
        let told = self.records.get(child).is_some_and(|kept| kept.told.contains_key(&of));
        let runs = self.others.get(child).is_some_and(|runs| runs.contains_key(&of));
        if let Some(children) = self.of.get_mut(&of).filter(|_| !told && !runs) {
            children.remove(child);
        }
    }

    fn remove_run(&mut self, of: NodeId, child: &ChildId) {
        let Some(runs) = self.others.get_mut(child) else { return };
        runs.remove(&of);
        if runs.is_empty() {
            self.others.remove(child);
        }
    }

    fn see(&self, child: &ChildId, us: NodeId) -> ChildSeen {
        let record = self.records.get(child).map(|kept| kept.record.clone());
        let others = self.others.get(child).into_iter().flatten();
        let own = self.own.get(child).map(|run| (us, run.clone()));
        let runs = others.map(|(node, run)| (*node, run.clone())).chain(own).collect();
        ChildSeen { record, runs }
    }
}

impl Runtime {
    /// What this node knows of the children of cluster supervisors.
    pub fn children(&self) -> &ChildTable {
        &self.0.entries.children
    }

    /// The process of a child of a cluster supervisor, as this node sees it.
    pub fn whereis_child(&self, child: &ChildId) -> Option<Pid> {
        self.children().holder(child, self.id())
    }

    pub(crate) fn child_address(&self, child: &ChildId) -> Option<Address> {
        self.whereis_child(child).map(|pid| self.address_of(&pid))
    }

    /// If this leads to a child that does not run: waits until it does. Fails when there is none, it
    /// is not to run, or the deadline has come: no message was sent then.
    pub(crate) async fn child_runs(&self, to: &Dest, deadline: Instant) -> Result<(), CallError> {
        let Dest::Child(child) = to else { return Ok(()) };
        loop {
            let mut appeared = std::pin::pin!(self.children().appeared.notified());
            // From here on nothing is missed.
            appeared.as_mut().enable();
            if self.whereis_child(child).is_some() {
                return Ok(());
            }
            if !self.children().is_wanted(child)
                || tokio::time::timeout_at(deadline, appeared).await.is_err()
            {
                return Err(CallError::NoProcess);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use purlin_proto::child::{Cause, ChildPlacement, ChildPlan, Intensity};
    use purlin_proto::supervision::{Restart, Shutdown};
    use purlin_proto::{Codec, Mode, Payload};

    use super::*;

    fn record(version: u64, by: &'static str) -> ChildRecord {
        let plan = ChildPlan {
            kind: "counter".into(),
            args: Payload { codec: Codec::Json, bytes: "null".into() },
            restart: Restart::Permanent,
            shutdown: Shutdown::BrutalKill,
            placement: ChildPlacement::Ring,
            mode: Mode::Available,
            intensity: Intensity { restarts: 2, period: Duration::from_secs(5) },
            supervisor_intensity: None,
        };
        ChildRecord {
            version,
            by: by.into(),
            plan,
            desired: Desired::Run,
            generation: 1,
            placed: None,
            cause: Cause::Asked,
            restarts: 0,
            crashes: Vec::new(),
            deaths: Vec::new(),
        }
    }

    #[test]
    fn of_two_records_of_a_version_the_lesser_is_not_the_one_that_is_known() {
        let table = ChildTable::new(Arc::default());
        let (child, other) = (ChildId::new("jobs", "a"), NodeId::new("m".into(), 1));
        table.keep(&child, record(3, "n"));

        table.record_told(other, &child, Some(record(3, "m")));
        assert!(!table.is_told_by(&child, other));

        table.record_told(other, &child, Some(record(3, "n")));
        assert!(table.is_told_by(&child, other));
    }
}
