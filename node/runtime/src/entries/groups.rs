//! Groups of processes of all nodes (OTP: `pg`).
//!
//! A process is in a group as often as it has joined. On its own node that is so at once; other nodes
//! hear of it, so views may differ for a moment, and between the sides of a split for as long as it
//! lasts. When all nodes see each other and nothing changes, all see the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use purlin_proto::admin::GroupInfo;
use purlin_proto::limits::PAGE_ENTRIES;
use purlin_proto::{EntryKey, Group, Name, NodeId, NodeName, Pick, Pid, Reference};
use rustc_hash::FxHashMap;

use super::info::behind;
use super::members::Members;
use super::monitors::Monitor;
use super::{EntryError, News};
use crate::process::Process;
use crate::registry::Cleanup;
use crate::relations::Address;
use crate::runtime::{Runtime, lock};

pub(crate) struct Groups {
    state: Mutex<State>,
    news: Arc<News>,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<Group, Members>,
    /// The groups of each process of this node that is in any.
    own: FxHashMap<u64, BTreeSet<Group>>,
    /// The groups that each other node has members of.
    of: BTreeMap<NodeId, BTreeSet<Group>>,
    watched: Watched,
}

/// Who is told of what.
#[derive(Default)]
struct Watched {
    groups: BTreeMap<Group, Vec<Arc<Monitor>>>,
    scopes: BTreeMap<Name, Vec<Arc<Monitor>>>,
    /// What each process of this node watches.
    by: FxHashMap<u64, BTreeMap<Reference, Target>>,
}

#[derive(Debug, Clone)]
enum Target {
    Group(Group),
    Scope(Name),
}

/// What a change has to tell, to be told when the lock is released.
type Told = Vec<(Vec<Arc<Monitor>>, Group, Vec<(Address, i64)>)>;

impl Watched {
    fn of(&self, group: &Group) -> Vec<Arc<Monitor>> {
        let groups = self.groups.get(group).into_iter().flatten();
        let scopes = self.scopes.get(&group.scope).into_iter().flatten();
        groups.chain(scopes).cloned().collect()
    }

    fn remove(&mut self, target: &Target, reference: Reference) {
        let silence = |list: &mut Vec<Arc<Monitor>>| {
            list.retain(|monitor| {
                if monitor.reference == reference {
                    monitor.silence();
                }
                monitor.reference != reference
            });
            list.is_empty()
        };
        match target {
            Target::Group(group) => {
                if self.groups.get_mut(group).is_some_and(silence) {
                    self.groups.remove(group);
                }
            }
            Target::Scope(scope) => {
                if self.scopes.get_mut(scope).is_some_and(silence) {
                    self.scopes.remove(scope);
                }
            }
        }
    }
}

impl State {
    /// Sets how often a process has joined; what that has to tell.
    fn set(&mut self, group: &Group, member: Address, count: u32, told: &mut Told) -> u32 {
        let members = self.groups.entry(group.clone()).or_default();
        let before = match member {
            Address::Local(serial) => members.here.set(serial, count),
            Address::Remote(pid) => {
                let bag = members.there.entry(pid.node).or_default();
                let before = bag.set(pid.serial, count);
                if bag.is_empty() {
                    members.there.remove(&pid.node);
                    let groups = self.of.entry(pid.node).or_default();
                    groups.remove(group);
                    if groups.is_empty() {
                        self.of.remove(&pid.node);
                    }
                } else if before == 0 {
                    self.of.entry(pid.node).or_default().insert(group.clone());
                }
                before
            }
        };
        if members.is_empty() {
            self.groups.remove(group);
        }
        let change = i64::from(count) - i64::from(before);
        if change != 0 {
            let monitors = self.watched.of(group);
            if !monitors.is_empty() {
                told.push((monitors, group.clone(), vec![(member, change)]));
            }
        }
        before
    }
}

fn tell(told: Told) {
    for (monitors, group, changes) in told {
        for monitor in monitors {
            monitor.add(&group, &changes);
        }
    }
}

impl Groups {
    pub(super) fn new(news: Arc<News>) -> Self {
        Self { state: Mutex::default(), news }
    }

    fn join(self: &Arc<Self>, group: &Group, process: &Process) -> Result<(), EntryError> {
        let (serial, mut told) = (process.serial, Vec::new());
        let mut state = lock(&self.state);
        let joined = state.groups.get(group).map_or(0, |members| members.here.count(serial));
        if joined == 0 {
            self.news.reserve()?;
        }
        let this: Weak<Self> = Arc::downgrade(self);
        if !process.clean_up_with(this) {
            self.news.release(usize::from(joined == 0));
            return Err(EntryError::NoProcess);
        }
        state.set(group, Address::Local(serial), joined.saturating_add(1), &mut told);
        state.own.entry(serial).or_default().insert(group.clone());
        drop(state);
        self.news.note([EntryKey::Member(group.clone(), serial)]);
        tell(told);
        Ok(())
    }

    fn leave(&self, group: &Group, serial: u64) -> bool {
        let mut told = Vec::new();
        let mut state = lock(&self.state);
        let joined = state.groups.get(group).map_or(0, |members| members.here.count(serial));
        let Some(left) = joined.checked_sub(1) else { return false };
        state.set(group, Address::Local(serial), left, &mut told);
        if left == 0 {
            let groups = state.own.entry(serial).or_default();
            groups.remove(group);
            if groups.is_empty() {
                state.own.remove(&serial);
            }
            self.news.release(1);
        }
        drop(state);
        self.news.note([EntryKey::Member(group.clone(), serial)]);
        tell(told);
        true
    }

    /// How often a process of this node has joined.
    pub(super) fn joined(&self, group: &Group, serial: u64) -> Option<u32> {
        let state = lock(&self.state);
        let count = state.groups.get(group)?.here.count(serial);
        (count > 0).then_some(count)
    }

    /// What another node has said of its processes: how often each is in which group now.
    pub(super) fn changed(&self, of: NodeId, changes: Vec<(Group, u64, u32)>) {
        let mut told = Vec::new();
        let mut state = lock(&self.state);
        for (group, serial, count) in changes {
            state.set(&group, Address::Remote(of.pid(serial)), count, &mut told);
        }
        drop(state);
        tell(told);
    }

    /// All members of a node are gone, at once.
    pub(super) fn vanished(&self, node: NodeId) {
        let mut told = Vec::new();
        let mut state = lock(&self.state);
        for group in state.of.remove(&node).unwrap_or_default() {
            let Some(members) = state.groups.get_mut(&group) else { continue };
            let bag = members.there.remove(&node).unwrap_or_default();
            if members.is_empty() {
                state.groups.remove(&group);
            }
            let monitors = state.watched.of(&group);
            if !monitors.is_empty() {
                let gone = |(serial, count)| (Address::Remote(node.pid(serial)), -i64::from(count));
                told.push((monitors, group, bag.iter().map(gone).collect()));
            }
        }
        drop(state);
        tell(told);
    }

    /// One page of the groups behind this one.
    pub(super) fn infos(&self, after: Option<Group>, us: NodeName) -> Vec<GroupInfo> {
        let state = lock(&self.state);
        let groups = state.groups.range(behind(after)).take(PAGE_ENTRIES);
        groups
            .map(|(group, members)| GroupInfo {
                scope: group.scope.clone(),
                name: group.name.clone(),
                members: members.len(),
                nodes: members.nodes(us),
            })
            .collect()
    }

    /// Looks at the members of a group, or changes whose turn it is.
    pub(super) fn with<T>(&self, group: &Group, look: impl FnOnce(&mut Members) -> T) -> Option<T> {
        lock(&self.state).groups.get_mut(group).map(look)
    }

    fn monitor(
        self: &Arc<Self>,
        process: &Arc<Process>,
        target: &Target,
        reference: Reference,
    ) -> Vec<(Group, Vec<(Address, u32)>)> {
        let monitor = Monitor::new(reference, process);
        let mut state = lock(&self.state);
        let this: Weak<Self> = Arc::downgrade(self);
        // One that is ending needs not be told.
        if process.clean_up_with(this) {
            match target.clone() {
                Target::Group(group) => state.watched.groups.entry(group).or_default(),
                Target::Scope(scope) => state.watched.scopes.entry(scope).or_default(),
            }
            .push(monitor);
            let by = state.watched.by.entry(process.serial).or_default();
            by.insert(reference, target.clone());
        }
        let watched = |group: &Group| match target {
            Target::Group(one) => group == one,
            Target::Scope(scope) => group.scope == *scope,
        };
        let groups = state.groups.iter().filter(|(group, _)| watched(group));
        groups.map(|(group, members)| (group.clone(), members.iter().collect())).collect()
    }

    fn demonitor(&self, serial: u64, reference: Reference) -> bool {
        let mut state = lock(&self.state);
        let Some(by) = state.watched.by.get_mut(&serial) else { return false };
        let Some(target) = by.remove(&reference) else { return false };
        if by.is_empty() {
            state.watched.by.remove(&serial);
        }
        state.watched.remove(&target, reference);
        true
    }
}

impl Cleanup for Groups {
    fn ended(&self, serial: u64) {
        let mut told = Vec::new();
        let mut state = lock(&self.state);
        let groups = state.own.remove(&serial).unwrap_or_default();
        for group in &groups {
            state.set(group, Address::Local(serial), 0, &mut told);
        }
        for (reference, target) in state.watched.by.remove(&serial).unwrap_or_default() {
            state.watched.remove(&target, reference);
        }
        drop(state);
        self.news.release(groups.len());
        self.news.note(groups.into_iter().map(|group| EntryKey::Member(group, serial)));
        tell(told);
    }
}

impl Runtime {
    /// Puts a process of this node into a group (OTP: `pg:join/2`).
    ///
    /// It may join as often as it likes, and is in the group until it has left as often, or ended.
    /// This node sees it at once, others soon.
    pub fn join(&self, group: impl Into<Group>, pid: Pid) -> Result<(), EntryError> {
        let own = self.is_own(&pid).then(|| self.process(pid.serial)).flatten();
        self.0.entries.groups.join(&group.into(), &*own.ok_or(EntryError::NoProcess)?)
    }

    /// Takes a process of this node out of a group, once (OTP: `pg:leave/2`); `false` if it is not
    /// in it.
    pub fn leave(&self, group: impl Into<Group>, pid: Pid) -> bool {
        self.is_own(&pid) && self.0.entries.groups.leave(&group.into(), pid.serial)
    }

    /// The members of a group on all nodes, by pid, each as often as it has joined (OTP:
    /// `pg:get_members/1`).
    pub fn members_of(&self, group: impl Into<Group>) -> Vec<Pid> {
        let members = self.0.entries.groups.with(&group.into(), |members| members.iter().collect());
        self.pids(members.unwrap_or_default())
    }

    /// The members of a group on this node, as [`members_of`](Self::members_of) (OTP:
    /// `pg:get_local_members/1`).
    pub fn local_members_of(&self, group: impl Into<Group>) -> Vec<Pid> {
        let here = |members: &mut Members| {
            members.here.iter().map(|(serial, count)| (Address::Local(serial), count)).collect()
        };
        self.pids(self.0.entries.groups.with(&group.into(), here).unwrap_or_default())
    }

    fn pids(&self, members: Vec<(Address, u32)>) -> Vec<Pid> {
        let mut pids: Vec<_> = members
            .into_iter()
            .flat_map(|(member, count)| std::iter::repeat_n(self.pid_of(member), count as usize))
            .collect();
        pids.sort_unstable();
        pids
    }

    /// The groups that have members, in all scopes, by scope and name (OTP: `pg:which_groups/1`).
    pub fn groups(&self) -> Vec<Group> {
        lock(&self.0.entries.groups.state).groups.keys().cloned().collect()
    }

    /// Watches a group for a process; who is in it now (OTP: `pg:monitor/1`).
    pub(crate) fn monitor_group(
        &self,
        process: &Arc<Process>,
        group: Group,
    ) -> (Reference, Vec<Pid>) {
        let reference = self.reference();
        let groups = self.0.entries.groups.monitor(process, &Target::Group(group), reference);
        let members = groups.into_iter().flat_map(|(_, members)| members).collect();
        (reference, self.pids(members))
    }

    /// Watches all groups of a scope for a process; which there are now, and who is in them (OTP:
    /// `pg:monitor_scope/1`).
    pub(crate) fn monitor_scope(
        &self,
        process: &Arc<Process>,
        scope: Name,
    ) -> (Reference, BTreeMap<Group, Vec<Pid>>) {
        let reference = self.reference();
        let groups = self.0.entries.groups.monitor(process, &Target::Scope(scope), reference);
        let groups = groups.into_iter().map(|(group, members)| (group, self.pids(members)));
        (reference, groups.collect())
    }

    /// Takes a monitor of a group or scope back; `false` if the process has none of this reference.
    pub(crate) fn demonitor_groups(&self, process: &Process, reference: Reference) -> bool {
        self.0.entries.groups.demonitor(process.serial, reference)
    }

    /// All members of a group, each once.
    pub(crate) fn every_member(&self, group: &Group) -> Vec<Address> {
        let all = |members: &mut Members| members.iter().map(|(member, _)| member).collect();
        self.0.entries.groups.with(group, all).unwrap_or_default()
    }

    /// One member of a group.
    pub(crate) fn pick(&self, group: &Group, pick: &Pick) -> Option<Address> {
        let (entries, us) = (&self.0.entries, self.name());
        let chance = entries.chance();
        let groups = &entries.groups;
        match pick {
            Pick::All | Pick::Random => groups.with(group, |members| members.random(chance))?,
            Pick::RoundRobin => groups.with(group, Members::next)?,
            Pick::Nearest => {
                let (here, nodes) = groups
                    .with(group, |members| (members.random_here(chance), members.nodes(us)))?;
                here.or_else(|| {
                    let nearest = self.0.remote.get().and_then(|remote| remote.nearest(&nodes));
                    let near = |members: &mut Members| match nearest {
                        Some(node) => members.random_on(node, chance),
                        None => members.random(chance),
                    };
                    groups.with(group, near)?
                })
            }
            Pick::Key(key) => {
                let key = key.as_bytes();
                let nodes = groups.with(group, |members| members.nodes(us))?;
                let owner = match (&nodes[..], self.0.remote.get()) {
                    (_, None) | ([_], _) => None,
                    (_, Some(remote)) => remote.owner(key, &nodes),
                };
                // The ring may know of them a moment later.
                let owner = owner.or(nodes.into_iter().min())?;
                groups.with(group, |members| members.owner_on(owner, us, key))?
            }
        }
    }
}
