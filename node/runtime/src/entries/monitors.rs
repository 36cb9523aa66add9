//! Who watches groups, and what is still to be told.
//!
//! A monitor has one notice in its process's mailbox at most. What happens while that waits is drawn
//! together here: for each member, how often it has joined less how often it has left. So a slow
//! watcher of a busy group holds as much memory as the group, and not as much as has happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use purlin_proto::{Group, GroupEvent, Pid, Reference};

use crate::item::Notice;
use crate::process::Process;
use crate::relations::Address;
use crate::runtime::lock;

/// One watcher of a group or scope.
pub(crate) struct Monitor {
    pub(super) reference: Reference,
    process: Weak<Process>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    changes: BTreeMap<Group, BTreeMap<Address, i64>>,
    /// Whether a notice is in the mailbox.
    told: bool,
}

impl Monitor {
    pub(super) fn new(reference: Reference, process: &Arc<Process>) -> Arc<Self> {
        let (process, pending) = (Arc::downgrade(process), Mutex::default());
        Arc::new(Self { reference, process, pending })
    }

    /// Members have joined more often by so much, or less.
    pub(super) fn add(self: &Arc<Self>, group: &Group, changes: &[(Address, i64)]) {
        let mut pending = lock(&self.pending);
        let of_group = pending.changes.entry(group.clone()).or_default();
        for (member, change) in changes {
            let sum = of_group.entry(*member).or_default();
            *sum += change;
            if *sum == 0 {
                of_group.remove(member);
            }
        }
        if of_group.is_empty() {
            pending.changes.remove(group);
        }
        let tell = !pending.told && !pending.changes.is_empty();
        pending.told |= tell;
        drop(pending);
        if tell {
            self.notify();
        }
    }

    fn notify(self: &Arc<Self>) {
        if let Some(process) = self.process.upgrade() {
            process.notify(Notice::Group(Arc::clone(self)));
        }
    }

    /// What the notice that was in the mailbox has to tell, of one group; the next gets another
    /// notice. Nothing if all of it has cancelled out.
    pub(crate) fn take(self: &Arc<Self>, process: &Process) -> Option<GroupEvent> {
        let mut pending = lock(&self.pending);
        let first = pending.changes.pop_first();
        pending.told = !pending.changes.is_empty();
        let more = pending.told;
        drop(pending);
        if more {
            self.notify();
        }
        let (group, changes) = first?;
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for (member, change) in changes {
            let pid = process.runtime.pid_of(member);
            repeat(pid, change, &mut joined);
            repeat(pid, -change, &mut left);
        }
        Some(GroupEvent { reference: self.reference, group, joined, left })
    }

    /// Nothing more is told.
    pub(super) fn silence(&self) {
        lock(&self.pending).changes.clear();
    }
}

fn repeat(pid: Pid, times: i64, list: &mut Vec<Pid>) {
    let times = usize::try_from(times).unwrap_or(0);
    list.extend(std::iter::repeat_n(pid, times));
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Monitor").field(&self.reference).finish()
    }
}
