//! What can be told of groups, topics and global names, page by page.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use purlin_proto::admin::{GlobalNameInfo, GroupInfo, GroupMemberInfo, TopicInfo};
use purlin_proto::limits::PAGE_ENTRIES;
use purlin_proto::{Group, Name, Pid};

use crate::runtime::Runtime;

/// What comes behind a key, or everything.
pub(super) fn behind<K>(after: Option<K>) -> (Bound<K>, Bound<K>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

impl Runtime {
    /// The groups behind this one that have members, by scope and name, one page of them.
    pub fn group_infos(&self, after: Option<Group>) -> Vec<GroupInfo> {
        self.0.entries.groups.infos(after, self.name())
    }

    /// The members of a group with larger pids, by pid, one page of them.
    pub fn group_members(&self, group: &Group, after: Option<Pid>) -> Vec<GroupMemberInfo> {
        let mut members = self.members_of(group);
        members.retain(|pid| after.is_none_or(|after| *pid > after));
        let info = |same: &[Pid]| GroupMemberInfo {
            pid: same[0],
            node: same[0].node.name,
            joined: u32::try_from(same.len()).unwrap_or(u32::MAX),
        };
        members.chunk_by(Pid::eq).map(info).take(PAGE_ENTRIES).collect()
    }

    /// The topics behind this one that anybody subscribes to, by name, one page of them.
    pub fn topic_infos(&self, after: Option<Name>) -> Vec<TopicInfo> {
        self.0.entries.topics.infos(after)
    }

    /// The global names behind this one and their holders, by name, one page of them.
    pub fn global_infos(&self, after: Option<Name>) -> Vec<GlobalNameInfo> {
        let entries = &self.0.entries;
        let info = |(name, holder): (Name, super::globals::Holder)| GlobalNameInfo {
            name,
            pid: holder.pid,
            node: holder.pid.node.name,
            since_ms: holder.since_ms,
            fence: None,
        };
        let available = entries.globals.holders(after.clone(), self.id()).into_iter().map(info);
        let exclusive = entries.exclusive_names.infos(after, self.id());
        // Of a name that has been given both ways the exclusive one holds.
        let by_name: BTreeMap<Name, GlobalNameInfo> =
            available.chain(exclusive).map(|info| (info.name.clone(), info)).collect();
        by_name.into_values().take(PAGE_ENTRIES).collect()
    }

    /// The global names that processes of this node have, of either kind, by name.
    pub fn own_global_names(&self) -> BTreeSet<Name> {
        let mut names = self.0.entries.globals.own_names();
        names.extend(self.own_exclusive_names());
        names
    }
}
