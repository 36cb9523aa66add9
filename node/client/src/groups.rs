//! Who joins and leaves a group, as a client gets it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use purlin_proto::session::Request;
use purlin_proto::{CallError, Group, GroupEvent, Pid, Reference};
use tokio::sync::Notify;

use crate::client::Client;

/// What has happened to a group and has not been told yet: for each process how often it has joined
/// less how often it has left. So a slow reader holds as much as the group has members.
#[derive(Default)]
pub(crate) struct Changes {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    changes: BTreeMap<Pid, i64>,
    /// Who is in it has been told by the node.
    begun: bool,
    over: bool,
}

impl Changes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, event: &GroupEvent) {
        let mut state = self.lock();
        state.begun = true;
        let joined = event.joined.iter().map(|pid| (*pid, 1));
        for (pid, change) in joined.chain(event.left.iter().map(|pid| (*pid, -1))) {
            let sum = state.changes.entry(pid).or_default();
            *sum += change;
            if *sum == 0 {
                state.changes.remove(&pid);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.changed.notify_one();
    }
}

/// A client's monitor of a group. Dropping it takes it back.
///
/// ```no_run
/// # use purlin_client::{CallError, Client};
/// # async fn example(client: Client) -> Result<(), CallError> {
/// let mut workers = client.monitor_group("workers").await?;
/// while let Some(change) = workers.next().await {
///     println!("{:?} have joined, {:?} have left", change.joined, change.left);
/// }
/// # Ok(())
/// # }
/// ```
pub struct GroupMonitor {
    client: Client,
    reference: Reference,
    group: Group,
    changes: Arc<Changes>,
    told: bool,
}

impl Client {
    /// Monitors a group, as the connected node sees it: tells who is in it, and from then on who joins
    /// and leaves, until the connection is lost.
    pub async fn monitor_group(&self, group: impl Into<Group>) -> Result<GroupMonitor, CallError> {
        let group = group.into();
        let connection = self.connection();
        let reference = connection.reference();
        let changes = connection.expect_changes(reference);
        let monitor = GroupMonitor { client: self.clone(), reference, group, changes, told: false };
        // Dropped if this fails, which takes it back.
        let request = Request::MonitorGroup { reference, group: monitor.group.clone() };
        self.ask(&request).await?;
        Ok(monitor)
    }
}

impl GroupMonitor {
    /// What has changed since it was last asked; the first time, those who are in the group have
    /// joined, also if nobody is. Who joins and leaves in between is in none. `None` when the
    /// connection has been lost. Cancel safe.
    pub async fn next(&mut self) -> Option<GroupEvent> {
        loop {
            {
                let mut state = self.changes.lock();
                if !state.changes.is_empty() || (state.begun && !self.told) {
                    self.told = true;
                    return Some(self.event(&std::mem::take(&mut state.changes)));
                }
                if state.over {
                    return None;
                }
            }
            self.changes.changed.notified().await;
        }
    }

    fn event(&self, changes: &BTreeMap<Pid, i64>) -> GroupEvent {
        let often = |sign: i64| {
            let changed = changes.iter().filter(move |(_, change)| change.signum() == sign);
            let times = |change: &i64| usize::try_from(change.unsigned_abs()).unwrap_or(usize::MAX);
            changed.flat_map(move |(pid, change)| std::iter::repeat_n(*pid, times(change)))
        };
        let (joined, left) = (often(1).collect(), often(-1).collect());
        GroupEvent { reference: self.reference, group: self.group.clone(), joined, left }
    }
}

impl Drop for GroupMonitor {
    fn drop(&mut self) {
        let connection = self.client.connection();
        if connection.forget(self.reference) {
            // Without a connection there is no monitor either; if the queue is full, changes will come
            // that nobody waits for.
            let _ = connection.request(&Request::Demonitor { reference: self.reference });
        }
    }
}

impl std::fmt::Debug for GroupMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupMonitor").field("group", &self.group).finish_non_exhaustive()
    }
}
