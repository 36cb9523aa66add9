//! Where each node is, for whoever sends: what membership knows, without its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use purlin_cluster::Ring;
use purlin_proto::{NodeId, NodeName};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::past::Past;

/// For so long after a change of members a key may still have a process where it was before.
const UNSETTLED: Duration = Duration::from_secs(30);

/// So many of those who would own a key next are asked whether they had it; more than one, since
/// several nodes may have joined at once.
const EARLIER: usize = 3;

/// So many are asked for the state of a key after a change of members, of whom many may have come.
const NEIGHBOURS: usize = 8;

/// Nodes by name, and the ring of those that are live.
pub(crate) struct Directory {
    us: NodeName,
    state: RwLock<State>,
    /// Rings that keys belonged to until lately.
    pub(crate) past: Past,
    /// Those about to leave, as of the last time that the rings were made.
    leaving: watch::Sender<BTreeSet<NodeName>>,
}

struct State {
    nodes: BTreeMap<NodeName, Place>,
    /// Of those that keys may belong to.
    ring: Arc<Ring>,
    /// Of all that are live, those that are about to leave among them.
    all: Arc<Ring>,
    draining: BTreeSet<NodeName>,
    /// Of what is above but the rings, which follow.
    changes: u64,
    /// When the ring last changed.
    changed: Instant,
}

/// The latest life of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) live: bool,
    /// Whether it has read all entries that this node had when it came up.
    pub(crate) has_read: bool,
}

impl Directory {
    pub(crate) fn new(us: NodeName) -> Self {
        let ring = Arc::new(Ring::new([us]));
        let (nodes, changed, all) = (BTreeMap::new(), Instant::now(), Arc::clone(&ring));
        let draining = BTreeSet::new();
        let state = RwLock::new(State { nodes, ring, all, draining, changes: 0, changed });
        Self { us, state, past: Past::new(), leaving: watch::Sender::default() }
    }

    pub(crate) fn us(&self) -> NodeName {
        self.us
    }

    pub(crate) fn find(&self, name: NodeName) -> Option<Place> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).nodes.get(&name).copied()
    }

    /// The nodes that can be sent to, this one included, by name.
    pub(crate) fn live(&self) -> Vec<NodeName> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let live = state.nodes.iter().filter(|(_, place)| place.live).map(|(name, _)| *name);
        live.chain([self.us]).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How often the nodes that are live, or those about to leave, have changed. The ring follows.
    pub(crate) fn changes(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).changes
    }

    pub(crate) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).ring)
    }

    /// Those that may have owned a key of ours until a moment ago: without us they would own it, or
    /// they are about to leave.
    pub(crate) fn earlier_owners(&self, key: &[u8]) -> Vec<NodeName> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match state.changed.elapsed() > UNSETTLED && state.draining.is_empty() {
            true => Vec::new(),
            false => state.around(key, EARLIER, self.us),
        }
    }

    /// Those that may know something of a key of ours: they would own it next, or did before it.
    pub(crate) fn neighbours(&self, key: &[u8]) -> Vec<NodeName> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let count = if state.changed.elapsed() > UNSETTLED { EARLIER } else { NEIGHBOURS };
        state.around(key, count, self.us)
    }

    /// Notes whether a node is about to leave; whether that is news.
    pub(crate) fn set_draining(&self, name: NodeName, draining: bool) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let news = match draining {
            true => state.draining.insert(name),
            false => state.draining.remove(&name),
        };
        state.changes += u64::from(news);
        news
    }

    /// Whether a node is about to leave.
    pub(crate) fn is_draining(&self, name: NodeName) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).draining.contains(&name)
    }

    /// Changes when the ring has been made anew because a node is about to leave, or is not any more.
    pub(crate) fn watch_leaving(&self) -> watch::Receiver<BTreeSet<NodeName>> {
        self.leaving.subscribe()
    }

    pub(crate) fn up(&self, id: NodeId, address: SocketAddr) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let known = state.nodes.get(&id.name).filter(|known| known.id == id && known.live);
        let has_read = known.is_some_and(|known| known.has_read);
        state.changes += 1;
        state.nodes.insert(id.name, Place { id, address, live: true, has_read });
    }

    /// A node has read all entries that this one had when it came up.
    pub(crate) fn note_reader(&self, id: NodeId) {
        if self.find(id.name).is_some_and(|place| place.id == id && !place.has_read) {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = state.nodes.get_mut(&id.name).filter(|place| place.id == id) {
                place.has_read = true;
            }
        }
    }

    pub(crate) fn down(&self, id: NodeId) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = state.nodes.get_mut(&id.name).filter(|place| place.id == id) {
            place.live = false;
            state.changes += 1;
        }
    }

    /// A node that is down need not be known any more.
    pub(crate) fn forget(&self, name: NodeName) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.nodes.get(&name).is_some_and(|place| !place.live) {
            state.nodes.remove(&name);
        }
    }

    /// Nobody is known any more.
    pub(crate) fn clear(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.nodes.clear();
        state.changes += 1;
    }

    /// These are live: makes the rings anew, if they are others. `live` is in order.
    pub(crate) fn set_live(&self, live: &[NodeName]) {
        let (draining, ring, all) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.draining.clone(), Arc::clone(&state.ring), Arc::clone(&state.all))
        };
        // Built without the lock, since that takes its time; only one does. News of many members at
        // once cost one ring, not one each.
        let made = |of: Vec<NodeName>, before: &Arc<Ring>| match before.members() == of {
            true => Arc::clone(before),
            false => Arc::new(Ring::new(of)),
        };
        let all = made(live.to_vec(), &all);
        let ring = match draining.is_empty() {
            true => Arc::clone(&all),
            false => {
                let stay = live.iter().copied().filter(|name| !draining.contains(name));
                made(stay.collect(), &ring)
            }
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.ring.digest() != ring.digest() {
            state.changed = Instant::now();
            self.past.note(Arc::clone(&state.ring));
        }
        (state.ring, state.all) = (ring, all);
        drop(state);
        self.leaving.send_if_modified(|leaving| {
            let news = *leaving != draining;
            *leaving = draining;
            news
        });
    }

    /// The ring as it will be without a node.
    pub(crate) fn ring_without(&self, name: NodeName) -> Ring {
        let members = self.ring().members().to_vec();
        Ring::new(members.into_iter().filter(|member| *member != name))
    }
}

impl State {
    /// So many other nodes that come first for a key, and those among them that are about to leave.
    fn around(&self, key: &[u8], count: usize, us: NodeName) -> Vec<NodeName> {
        let count = count + self.draining.len();
        let next = self.all.preference(Ring::shard_of(key), 1 + count);
        next.into_iter().filter(|name| *name != us).take(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_ring_will_follow_is_counted_before_it_does() {
        let [us, other] = ["a", "b"].map(NodeName::from);
        let directory = Directory::new(us);
        let id = NodeId::new(other, 1);
        let mut before = directory.changes();
        let mut counted = |what: &str, expected: bool| {
            assert_eq!(directory.changes() != before, expected, "{what}");
            before = directory.changes();
        };

        directory.up(id, ([127, 0, 0, 1], 1).into());
        counted("up", true);
        directory.set_live(&[us, other]);
        counted("its ring", false);
        directory.set_draining(other, true);
        counted("about to leave", true);
        directory.set_draining(other, true);
        counted("which was known", false);
        directory.down(NodeId::new(other, 2));
        counted("another life is down", false);
        directory.down(id);
        counted("down", true);
        assert_eq!(directory.ring().members(), [us, other]);
        assert_eq!(directory.live(), [us]);
    }
}
