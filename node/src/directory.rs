//! Where each node is, for whoever sends: what membership knows, without its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use purlin_cluster::Ring;
use purlin_proto::{NodeId, NodeName};

/// Nodes by name, and the ring of those that are live.
pub(crate) struct Directory {
    us: NodeName,
    state: RwLock<State>,
}

struct State {
    nodes: BTreeMap<NodeName, Place>,
    ring: Arc<Ring>,
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
        Self { us, state: RwLock::new(State { nodes: BTreeMap::new(), ring }) }
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
        self.state.write().unwrap_or_else(PoisonError::into_inner).ring = Arc::new(ring);
    }
}
