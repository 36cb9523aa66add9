//! What moves elsewhere when a node is drained: the children that run on it.
//!
//! Their owners have other nodes take them over, as they see that this one takes none any more; here is only said what that
//! comes to, and waited for. A child counts until it runs elsewhere, so that none is missing when the
//! node leaves; unless it is not wanted any more, or no other member takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use purlin_cluster::Ring;
use purlin_cluster::children::{Members, Scene, place};
use purlin_proto::admin::Move;
use purlin_proto::child::{ChildRecord, Desired};
use purlin_proto::{ChildId, Mode, NodeName};

use super::owner::{look_up, owner_of};
use crate::drain::Mover;
use crate::node::Shared;

/// The children that run on this node.
#[derive(Default)]
pub(crate) struct HostedChildren {
    /// Those that have not moved yet; none has before it begins.
    left: Mutex<Option<BTreeSet<ChildId>>>,
}

impl HostedChildren {
    fn left(&self) -> MutexGuard<'_, Option<BTreeSet<ChildId>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mover for HostedChildren {
    fn plan(&self, node: &Shared, others: &Ring) -> Vec<Move> {
        let mut members = without_us(node);
        let rings = Rings { all: others, exclusive: &node.next_holders() };
        let mut counts = BTreeMap::new();
        for (child, record) in here(node) {
            let Some(to) = destination(node, &rings, &members, &child, &record) else { continue };
            *counts.entry((child.supervisor, to)).or_default() += 1;
            if let Some(host) = members.live.get_mut(&to) {
                host.children += 1;
            }
        }
        let moves = counts.into_iter();
        let named = |(of, to), count| Move { what: format!("children of {of}"), to, count };
        moves.map(|(key, count)| named(key, count)).collect()
    }

    fn begin(&self, node: &Shared) {
        let all = here(node).into_iter().map(|(child, _)| child).collect();
        *self.left() = Some(all);
    }

    fn left(&self, node: &Shared) -> usize {
        let others = node.directory.ring_without(node.runtime.name());
        let mut left = self.left();
        let Some(left) = left.as_mut() else {
            return here(node).len();
        };
        let (us, members) = (node.runtime.id(), without_us(node));
        let rings = Rings { all: &others, exclusive: &node.next_holders() };
        left.retain(|child| {
            let seen = node.runtime.children().see(child, us);
            let Some(record) = seen.record.filter(|record| record.desired == Desired::Run) else {
                return false;
            };
            let mut live = seen.runs.iter().filter(|(_, run)| run.ended().is_none());
            let runs_here = live.clone().any(|(on, _)| *on == us);
            let has_moved = !runs_here && live.any(|(on, _)| *on != us);
            !has_moved && destination(node, &rings, &members, child, &record).is_some()
        });
        left.len()
    }
}

/// The children that are wanted, and run here or were placed here to.
fn here(node: &Shared) -> Vec<(ChildId, ChildRecord)> {
    let (children, us) = (node.runtime.children(), node.runtime.id());
    let mut here = Vec::new();
    for child in children.after(None, usize::MAX) {
        let record = children.see(&child, us).record;
        let Some(record) = record.filter(|record| record.desired == Desired::Run) else { continue };
        let runs = children.own_run(&child).is_some_and(|run| run.ended().is_none());
        if runs || record.placed.is_some_and(|placed| placed.node == us) {
            here.push((child, record));
        }
    }
    here
}

/// The members, of which this one takes nothing.
fn without_us(node: &Shared) -> Members {
    let mut members = look_up(node, &BTreeMap::new());
    if let Some(us) = members.live.get_mut(&node.runtime.name()) {
        us.takes = false;
    }
    members
}

/// Of other members that are not about to leave.
struct Rings<'a> {
    all: &'a Ring,
    /// Of those that hold what is exclusive.
    exclusive: &'a Ring,
}

/// Where a child goes; `None` if it cannot go anywhere.
fn destination(
    node: &Shared,
    rings: &Rings<'_>,
    members: &Members,
    child: &ChildId,
    record: &ChildRecord,
) -> Option<NodeName> {
    let ring = match record.plan.mode {
        Mode::Available => rings.all,
        Mode::Exclusive => rings.exclusive,
    };
    let owner = owner_of(ring, child, node.runtime.name());
    let (runs, odd_for) = (&[], Duration::ZERO);
    let scene = Scene { record, runs, members, owner, now_ms: 0, odd_for, left: false, others: 0 };
    place(&scene).map(|there| there.name)
}
