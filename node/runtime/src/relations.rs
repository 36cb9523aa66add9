//! What a process has to do with others: links, monitors, timers, and whoever waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::task::Waker;

use purlin_proto::{Dest, NodeName, Pid, Reference};
use tokio::task::AbortHandle;

use crate::few::Few;
use crate::inflow::Stop;
use crate::registry::Cleanup;
use crate::reply::{Orphan, WeakDeferred};
use crate::spawn::Announce;
use crate::supervisor::History;

/// A process on this node by its serial, or one elsewhere by its pid.
///
/// Not simply a pid, because the creation in the pids of this node changes when the node comes back
/// under a new one, and its processes stay who they are to one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Address {
    Local(u64),
    Remote(Pid),
}

impl Address {
    pub(crate) fn is_on(&self, node: NodeName) -> bool {
        matches!(self, Self::Remote(pid) if pid.node.name == node)
    }
}

/// What most processes have little of; made when first needed.
#[derive(Default)]
pub(crate) struct Relations {
    pub(crate) links: Few<Address, Link>,
    pub(crate) monitors: Few<Reference, Box<Monitoring>>,
    pub(crate) watchers: Few<(Address, Reference), ()>,
    /// Nodes that any of these ever led to; this process is listed in the runtime's index of each.
    pub(crate) nodes: Few<NodeName, ()>,
    /// Whether it is told what becomes of nodes.
    pub(crate) watches_nodes: bool,
    pub(crate) timers: BTreeMap<u64, AbortHandle>,
    pub(crate) mark: Option<ChildMark>,
    /// What it owns elsewhere; see [`Cleanup`].
    pub(crate) cleanups: Vec<Weak<dyn Cleanup>>,
    /// Who started it, if that was a process of another node.
    pub(crate) parent: Option<Pid>,
    pub(crate) announce: Option<Announce>,
    /// Waits for the mailbox, where that is not the task's own waker.
    pub(crate) receiver: Option<Waker>,
    pub(crate) orphans: Vec<Orphan>,
    pub(crate) deferred: Vec<WeakDeferred>,
    /// Senders that wait for room in the mailbox.
    pub(crate) senders: Vec<Weak<Waker>>,
    /// Nodes that have been told to stop sending to it.
    pub(crate) stopped: Vec<Stop>,
}

/// One end of a link.
///
/// Both ends may link and unlink at once. They agree in the end, because a `Link` that was sent
/// before its sender saw our `Unlink` is void on both sides: here, since we are unlinking; there,
/// since our `Unlink` takes it back. Only when the other end has itself unlinked in between does its
/// `Link` stand, and then ours does there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Active,
    /// Taken back and not acknowledged: what comes of it is void.
    Unlinking {
        request: Reference,
        /// Made anew by this end since.
        ours: bool,
        /// Made anew by the other end since, after an unlink of its own.
        theirs: bool,
        /// Whether the other end has unlinked as well since.
        crossed: bool,
    },
}

/// A monitor as its watcher keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Monitoring {
    pub(crate) target: Dest,
    /// Unknown for a name on another node.
    pub(crate) address: Option<Address>,
    /// The node that this process is told of when it is lost. None for a process of this node, and
    /// for one that is watched together with others, see `watched.rs`.
    pub(crate) node: Option<NodeName>,
}

/// What a supervisor notes on its child.
#[derive(Debug, Clone)]
pub(crate) struct ChildMark {
    pub(crate) id: Arc<str>,
    pub(crate) history: History,
}

impl Relations {
    /// This process links itself to another; or it was born linked.
    pub(crate) fn link(&mut self, to: Address) {
        match self.links.get_mut(&to) {
            Some(Link::Unlinking { ours, .. }) => *ours = true,
            Some(Link::Active) => {}
            None => drop(self.links.insert(to, Link::Active)),
        }
    }

    /// This process takes a link back; whether there is one, so that the other is to be told.
    pub(crate) fn unlink(&mut self, from: Address, request: Reference) -> bool {
        let Some(link) = self.links.get_mut(&from) else { return false };
        let is_link = !matches!(link, Link::Unlinking { ours: false, theirs: false, .. });
        if is_link {
            *link = Link::Unlinking { request, ours: false, theirs: false, crossed: false };
        }
        is_link
    }

    /// Another process has linked itself to this one.
    pub(crate) fn linked_by(&mut self, other: Address) {
        match self.links.get_mut(&other) {
            Some(Link::Unlinking { theirs, crossed: true, .. }) => *theirs = true,
            Some(Link::Unlinking { crossed: false, .. } | Link::Active) => {}
            None => drop(self.links.insert(other, Link::Active)),
        }
    }

    /// Another process has taken back its link to this one.
    pub(crate) fn unlinked_by(&mut self, other: Address) {
        match self.links.get_mut(&other) {
            Some(Link::Unlinking { theirs, crossed, .. }) => (*theirs, *crossed) = (false, true),
            Some(Link::Active) => drop(self.links.remove(&other)),
            None => {}
        }
    }

    pub(crate) fn unlinked(&mut self, from: Address, acknowledged: Reference) {
        if let Some(Link::Unlinking { request, .. }) = self.links.get(&from)
            && *request == acknowledged
        {
            self.settle(from);
        }
    }

    /// The unlink is done with: there is a link if it was made anew.
    pub(crate) fn settle(&mut self, other: Address) {
        match self.links.get_mut(&other) {
            Some(Link::Unlinking { ours: false, theirs: false, .. }) => {
                self.links.remove(&other);
            }
            Some(link) => *link = Link::Active,
            None => {}
        }
    }

    /// The processes that are to be told of this one's end.
    pub(crate) fn linked(&self) -> impl Iterator<Item = Address> {
        let tell =
            |link: &Link| !matches!(link, Link::Unlinking { ours: false, theirs: false, .. });
        self.links.iter().filter(move |(_, link)| tell(link)).map(|(address, _)| *address)
    }
}
