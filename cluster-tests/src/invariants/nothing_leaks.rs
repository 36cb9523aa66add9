//! When all is healed and all workers have ended, nothing is left of them: no process, call, monitor,
//! entry, account or byte on its way; each node has one link to each other; and all have as many
//! tasks, since all do the same.

use super::Invariant;
use crate::simulation::only;
use crate::simulation::record::{Event, Facts};
use crate::simulation::schedule::Part;
use crate::simulation::tree::{KINDS, NAMES};
use crate::simulation::views::View;

/// What is to be nothing.
const NOTHING: [&str; 13] = [
    "calls.pending",
    "monitors.remote",
    "monitors.remote_by_name",
    "processes.related",
    "inflow.bytes",
    "receivers.stopped",
    "keyed",
    "waiting.bytes",
    "lane.bytes",
    "lane.large_bytes",
    "held.bytes",
    "unfinished.bytes",
    "early.bytes",
];

/// The node's own process for children of cluster supervisors.
const WATCHING: usize = 1;

pub(super) struct NothingLeaks;

impl Invariant for NothingLeaks {
    fn name(&self) -> &'static str {
        "nothing leaks"
    }

    fn see(&mut self, _: &Event, _: &Facts) -> Result<(), String> {
        Ok(())
    }

    fn gone(&mut self, facts: &Facts) -> Result<(), String> {
        let others = facts.views.len() - 1;
        for (node, view) in &facts.views {
            if view.kinds.iter().filter(|kind| **kind != NAMES).ne(KINDS.iter()) {
                return Err(format!("{node} has {:?}", view.kinds));
            }
            if let Some(what) = NOTHING.into_iter().find(|what| view.holds(what) > 0) {
                return Err(format!("{node} holds {} of {what}", view.holds(what)));
            }
            // What was stopped is remembered for an hour, on each node at most once.
            let remembered =
                if facts.part == Part::Children { only::children().count() } else { 0 };
            let entries = view.holds("entries.own");
            if entries > remembered {
                return Err(format!("{node} says {entries} things of its own"));
            }
            let watching = view.holds("processes.watching_nodes");
            if watching != WATCHING {
                return Err(format!("{watching} processes of {node} watch nodes"));
            }
            let (links, dials) = (view.holds("links"), view.holds("dials"));
            if (links, dials) != (others, 0) {
                return Err(format!("{node} has {links} links, makes {dials}, to {others} others"));
            }
        }
        // Those who vote do more than others, and do not all.
        let tasks = |view: &View| if facts.part == Part::None { view.tasks } else { 0 };
        let mut tasks = facts
            .views
            .values()
            .map(|view| (tasks(view), view.holds("names"), view.holds("tasks.transport")));
        let first = tasks.next();
        match tasks.find(|tasks| Some(*tasks) != first) {
            Some(other) => {
                Err(format!("tasks and names of one node: {first:?}, another {other:?}"))
            }
            None => Ok(()),
        }
    }
}
