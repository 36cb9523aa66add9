//! Calls and spawns that are out to other nodes, until they are answered, given up or lost.

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
    Spawned(oneshot::Sender<Result<Pid, SpawnError>>, Newborn),
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
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    pub(crate) fn insert(&self, reference: Reference, node: NodeName, wanted: Wanted) {
        lock(&self.0).insert(reference, Entry { node, wanted });
    }

    /// Takes what waits for this answer, if it comes from the node that was asked.
    pub(crate) fn take(&self, reference: Reference, from: NodeId) -> Option<Wanted> {
        let mut entries = lock(&self.0);
        if entries.get(&reference)?.node != from.name {
            return None;
        }
        entries.remove(&reference).map(|entry| entry.wanted)
    }

    /// Nobody waits for it any more; `sent` says whether it may be answered all the same.
    pub(crate) fn forget(&self, reference: Reference, sent: bool) {
        let mut entries = lock(&self.0);
        match entries.get_mut(&reference).map(|entry| &mut entry.wanted) {
            Some(wanted @ Wanted::Spawned(_, Newborn { link: true, .. })) if sent => {
                let Wanted::Spawned(_, newborn) = wanted else { unreachable!("just matched") };
                *wanted = Wanted::Abandoned(*newborn);
            }
            Some(_) => drop(entries.remove(&reference)),
            None => {}
        }
    }

    pub(crate) fn connection_lost(&self, node: NodeName) {
        let mut entries = lock(&self.0);
        let lost: Vec<_> = entries.extract_if(|_, entry| entry.node == node).collect();
        drop(entries);
        for (_, entry) in lost {
            // Who gave up needs no answer.
            match entry.wanted {
                Wanted::Reply(sender) => drop(sender.send(Err(CallError::NoConnection))),
                Wanted::Spawned(sender, _) => drop(sender.send(Err(SpawnError::NoConnection))),
                Wanted::Abandoned(_) => {}
            }
        }
    }
}
