//! Copies of records with those that own them next: one message under way to each, with all that has
//! come up meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use purlin_proto::admin::children::{CHILDREN_PAGE, KeepChildren};
use purlin_proto::{CallError, ChildId, NodeName};
use purlin_runtime::Runtime;

use super::process::at;

/// A successor that has not confirmed by then is left out.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Copies {
    queues: BTreeMap<NodeName, Queue>,
    /// Which version of a child is to be confirmed, and by whom still.
    open: BTreeMap<ChildId, (u64, BTreeSet<NodeName>)>,
}

#[derive(Default)]
struct Queue {
    wanted: BTreeSet<ChildId>,
    under_way: bool,
}

/// Versions that a node was sent.
pub(super) struct Copied {
    to: NodeName,
    versions: Vec<(ChildId, u64)>,
    result: Result<(), CallError>,
}

impl Copies {
    /// Whether copies of a child are under way.
    pub(super) fn has(&self, child: &ChildId) -> bool {
        self.open.contains_key(child)
    }

    /// Has a version copied to these nodes; `false` if there are none, so that it need not be.
    pub(super) fn copy(
        &mut self,
        child: &ChildId,
        version: u64,
        to: impl IntoIterator<Item = NodeName>,
    ) -> bool {
        let to: BTreeSet<_> = to.into_iter().collect();
        if to.is_empty() {
            return false;
        }
        for node in &to {
            self.queues.entry(*node).or_default().wanted.insert(child.clone());
        }
        self.open.insert(child.clone(), (version, to));
        true
    }

    /// The messages to be sent now.
    pub(super) fn pump(
        &mut self,
        runtime: &Runtime,
    ) -> Vec<impl Future<Output = Copied> + Send + use<>> {
        let idle = self.queues.iter_mut().filter(|(_, q)| !q.under_way && !q.wanted.is_empty());
        idle.map(|(to, queue)| {
            queue.under_way = true;
            let mut records = Vec::new();
            while let Some(child) = queue.wanted.pop_first() {
                let seen = runtime.children().see(&child, runtime.id());
                records.extend(seen.record.map(|record| (child, record)));
                if records.len() >= CHILDREN_PAGE {
                    break;
                }
            }
            let versions = records.iter().map(|(child, r)| (child.clone(), r.version)).collect();
            let (to, runtime) = (*to, runtime.clone());
            async move {
                let keep = KeepChildren { records };
                let result = runtime.call_timeout(at(to), keep, PATIENCE).await;
                Copied { to, versions, result }
            }
        })
        .collect()
    }

    /// A message was answered, or was not; the children that nothing more is to be confirmed of, with
    /// their versions.
    pub(super) fn copied(&mut self, copied: Copied) -> Vec<(ChildId, u64)> {
        let Copied { to, versions, result } = copied;
        if let Err(error) = &result {
            // One that is down is no member any more, or will not be.
            tracing::debug!(%to, %error, children = versions.len(), "records are not copied");
        }
        let mut all = Vec::new();
        for (child, sent) in versions {
            let Some((version, by)) = self.open.get_mut(&child) else { continue };
            if sent < *version {
                continue;
            }
            by.remove(&to);
            if by.is_empty() {
                all.push((child.clone(), *version));
                self.open.remove(&child);
            }
        }
        if let Some(queue) = self.queues.get_mut(&to) {
            queue.under_way = false;
            if queue.wanted.is_empty() {
                self.queues.remove(&to);
            }
        }
        all
    }

    /// The child is another node's affair now.
    pub(super) fn forget(&mut self, child: &ChildId) {
        self.open.remove(child);
    }
}
