//! Where each node is, for whoever sends: what membership knows, without its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use purlin_cluster::Ring;
use purlin_proto::{NodeId, NodeName};
use tokio::time::Instant;

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
}

struct State {
    nodes: BTreeMap<NodeName, Place>,
    ring: Arc<Ring>,
    /// When the ring last changed.
    changed: Instant,
}

/// The latest life of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) live: bool,
}

impl Directory {
    pub(crate) fn new(us: NodeName) -> Self {
        let ring = Arc::new(Ring::new([us]));
        let (nodes, changed) = (BTreeMap::new(), Instant::now());
        Self { us, state: RwLock::new(State { nodes, ring, changed }) }
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

    pub(crate) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).ring)
    }

    /// Those that may have owned a key of ours until a moment ago: without us they would own it.
    pub(crate) fn earlier_owners(&self, key: &[u8]) -> Vec<NodeName> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.changed.elapsed() > UNSETTLED {
            return Vec::new();
        }
        let next = state.ring.preference(Ring::shard_of(key), 1 + EARLIER);
        next.into_iter().filter(|name| *name != self.us).take(EARLIER).collect()
    }

    /// Those that may know something of a key of ours: they would own it next, or did before it.
    pub(crate) fn neighbours(&self, key: &[u8]) -> Vec<NodeName> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let count = if state.changed.elapsed() > UNSETTLED { EARLIER } else { NEIGHBOURS };
        let next = state.ring.preference(Ring::shard_of(key), 1 + count);
        next.into_iter().filter(|name| *name != self.us).take(count).collect()
    }

    pub(crate) fn up(&self, id: NodeId, address: SocketAddr) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.nodes.insert(id.name, Place { id, address, live: true });
    }

    pub(crate) fn down(&self, id: NodeId) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = state.nodes.get_mut(&id.name).filter(|place| place.id == id) {
            place.live = false;
        }
    }

    /// Nobody is known any more.
    pub(crate) fn clear(&self) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).nodes.clear();
    }

    pub(crate) fn set_ring(&self, ring: Ring) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.ring.digest() != ring.digest() {
            state.changed = Instant::now();
        }
        state.ring = Arc::new(ring);
    }
}
