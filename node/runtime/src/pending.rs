//! Calls and spawns that are out to other nodes, until they are answered, given up or lost.
//!
//! An entry is made before its request is sent, since the answer may come at once, and is gone while
//! that waits for room: what is lost meanwhile is none of its business. A connection may still be
//! lost, on another thread, between the two, and the request go out over the next one. What is born
//! of that must not live on, linked to somebody who was told that there is no connection; so it is
//! [abandoned](Wanted::Abandoned).

use std::sync::Mutex;

use purlin_proto::{CallError, NodeId, NodeName, Payload, Pid, Reference, SpawnError};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::runtime::lock;

#[derive(Default)]
pub(crate) struct Pending(Mutex<FxHashMap<Reference, Entry>>);

struct Entry {
    node: NodeName,
    wanted: Wanted,
}

pub(crate) enum Wanted {
    Reply(oneshot::Sender<Result<Payload, CallError>>),
    /// `sent` is false until the request is on its way.
    Spawned {
        asker: oneshot::Sender<Result<Pid, SpawnError>>,
        newborn: Newborn,
        sent: bool,
    },
    /// Whoever asked for a linked process has given up: it must not live on unlinked.
    Abandoned(Newborn),
}

/// What the new process is to be to the one that asked for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newborn {
    pub(crate) parent: u64,
    pub(crate) link: bool,
    pub(crate) monitor: Option<Reference>,
}

impl Pending {
    pub(crate) fn insert(&self, reference: Reference, node: NodeName, wanted: Wanted) {
        lock(&self.0).insert(reference, Entry { node, wanted });
    }

    /// How many wait for an answer.
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Takes what waits for this answer, if it comes from the node that was asked.
    pub(crate) fn take(&self, reference: Reference, from: NodeId) -> Option<Wanted> {
        let mut entries = lock(&self.0);
        if entries.get(&reference)?.node != from.name {
            return None;
        }
        entries.remove(&reference).map(|entry| entry.wanted)
    }

    /// The request for a process is on its way.
    pub(crate) fn sent(&self, reference: Reference) {
        let mut entries = lock(&self.0);
        let wanted = entries.get_mut(&reference).map(|entry| &mut entry.wanted);
        if let Some(Wanted::Spawned { sent, .. }) = wanted {
            *sent = true;
        }
    }

    /// The request could not be sent: nothing will come of it.
    pub(crate) fn unsent(&self, reference: Reference) {
        lock(&self.0).remove(&reference);
    }

    /// Nobody waits for it any more. Who is being born linked is waited for all the same.
    pub(crate) fn forget(&self, reference: Reference) {
        let mut entries = lock(&self.0);
        let Some(entry) = entries.get_mut(&reference) else { return };
        match &entry.wanted {
            Wanted::Spawned { newborn, sent: true, .. } if newborn.link => {
                entry.wanted = Wanted::Abandoned(*newborn);
            }
            Wanted::Abandoned(_) => {}
            Wanted::Spawned { .. } | Wanted::Reply(_) => drop(entries.remove(&reference)),
        }
    }

    pub(crate) fn connection_lost(&self, node: NodeName) {
        let mut entries = lock(&self.0);
        let lost: Vec<_> = entries.extract_if(|_, entry| entry.node == node).collect();
        for (reference, entry) in &lost {
            if let Wanted::Spawned { newborn, sent: false, .. } = entry.wanted
                && newborn.link
            {
                entries.insert(*reference, Entry { node, wanted: Wanted::Abandoned(newborn) });
            }
        }
        drop(entries);
        for (_, entry) in lost {
            // Who gave up needs no answer.
            match entry.wanted {
                Wanted::Reply(asker) => drop(asker.send(Err(CallError::NoConnection))),
                Wanted::Spawned { asker, .. } => {
                    drop(asker.send(Err(SpawnError::NoConnection)));
                }
                Wanted::Abandoned(_) => {}
            }
        }
    }
}
