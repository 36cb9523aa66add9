//! What can be told of the processes of a node while they run.
//!
//! Read from outside, one small lock at a time: a process that never yields is shown like any
//! other, and a listing is not a snapshot.

use std::collections::HashMap;

use purlin_proto::Dest;
use purlin_proto::admin::{NameInfo, ProcessDetail, ProcessInfo, ProcessState, TreeNode};
use purlin_proto::limits::PAGE_ENTRIES;

use crate::process::{Phase, Process};
use crate::runtime::Runtime;

impl Runtime {
    /// How many processes live.
    pub fn process_count(&self) -> usize {
        self.0.table.len()
    }

    /// The processes with serials larger than this, by serial, one page of them.
    pub fn processes_after(&self, serial: u64) -> Vec<ProcessInfo> {
        self.0.table.after(serial).iter().take(PAGE_ENTRIES).map(|p| line(p)).collect()
    }

    /// All about one process of this node; `None` if there is none.
    pub fn process_detail(&self, target: &Dest) -> Option<ProcessDetail> {
        let serial = match target {
            Dest::Pid(pid) => self.is_own(pid).then_some(pid.serial),
            Dest::Remote(_, node) if *node != self.name() => None,
            Dest::Local(name) | Dest::Remote(name, _) => self.serial_of(name),
            Dest::Key { kind, key } => self.find_keyed(kind, key).map(|process| process.serial),
            _ => None,
        };
        self.process(serial?).map(|process| detail(&process))
    }

    /// The names of this node, whose they are, and what those are.
    pub fn name_infos(&self) -> Vec<NameInfo> {
        let known = |(name, pid): (_, purlin_proto::Pid)| {
            let process = self.process(pid.serial)?;
            Some(NameInfo { name, pid, node: self.name(), kind: process.class.kind.to_owned() })
        };
        self.names().into_iter().filter_map(known).collect()
    }

    /// Every process under the one that started it.
    pub fn tree(&self) -> Vec<TreeNode> {
        let all = self.0.table.after(0);
        let mut children: HashMap<u64, Vec<u64>> = HashMap::new();
        let mut roots = Vec::new();
        let alive: HashMap<u64, &Process> = all.iter().map(|p| (p.serial, &**p)).collect();
        for process in &all {
            match process.parent().filter(|p| self.is_own(p) && alive.contains_key(&p.serial)) {
                Some(parent) => children.entry(parent.serial).or_default().push(process.serial),
                None => roots.push(process.serial),
            }
        }
        roots.iter().filter_map(|serial| subtree(*serial, &alive, &children)).collect()
    }
}

fn subtree(
    serial: u64,
    alive: &HashMap<u64, &Process>,
    children: &HashMap<u64, Vec<u64>>,
) -> Option<TreeNode> {
    let process = alive.get(&serial)?;
    let mark = process.relations(|relations| relations.mark.clone()).flatten();
    let below = children.get(&serial).map_or(&[][..], Vec::as_slice);
    Some(TreeNode {
        pid: process.pid(),
        kind: process.class.kind.to_owned(),
        name: process.name(),
        child_id: mark.as_ref().map(|mark| mark.id.to_string()),
        restarts: mark.as_ref().map_or(0, |mark| mark.history.restarts()),
        last_exit: mark.and_then(|mark| mark.history.exits().into_iter().next()),
        children: below.iter().filter_map(|child| subtree(*child, alive, children)).collect(),
    })
}

fn line(process: &Process) -> ProcessInfo {
    let counts = process.relations(|r| (r.links.len(), r.monitors.len()));
    let (links, monitors) = counts.unwrap_or_default();
    ProcessInfo {
        pid: process.pid(),
        node: process.runtime.name(),
        kind: process.class.kind.to_owned(),
        name: process.name(),
        mailbox: process.mailbox_len(),
        handled: process.handled(),
        dropped: process.dropped(),
        links,
        monitors,
        uptime_s: process.age().as_secs_f64(),
    }
}

fn detail(process: &Process) -> ProcessDetail {
    let runtime = &process.runtime;
    let lists = process.relations(|r| {
        let links: Vec<_> = r.links.keys().copied().collect();
        let monitors: Vec<_> = r.monitors.values().map(|m| m.target.clone()).collect();
        let watchers: Vec<_> = r.watchers.keys().map(|(address, _)| *address).collect();
        (links, monitors, watchers)
    });
    let (links, monitors, watchers) = lists.unwrap_or_default();
    let handling = process.handling();
    let state = match (process.phase(), handling) {
        (Phase::Starting, _) => ProcessState::Starting,
        (Phase::Dead | Phase::Ignored, _) => ProcessState::Exiting,
        (Phase::Alive, _) if process.is_ending() => ProcessState::Exiting,
        (Phase::Alive, Some(_)) => ProcessState::Running,
        (Phase::Alive, None) => ProcessState::Waiting,
    };
    ProcessDetail {
        pid: process.pid(),
        node: runtime.name(),
        kind: process.class.kind.to_owned(),
        name: process.name(),
        state,
        handling: handling.map(str::to_owned),
        mailbox: process.mailbox_len(),
        handled: process.handled(),
        dropped: process.dropped(),
        traps_exits: process.traps_exits(),
        links: links.into_iter().map(|address| runtime.pid_of(address)).collect(),
        monitors,
        monitored_by: watchers.into_iter().map(|address| runtime.pid_of(address)).collect(),
        parent: process.parent(),
        uptime_s: process.age().as_secs_f64(),
        messages: process.class.messages.iter().map(|&name| name.to_owned()).collect(),
    }
}
