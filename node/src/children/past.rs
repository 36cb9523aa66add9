//! What has happened to each child, as far as this node has seen it: for `purlin why CHILD`.

use std::collections::{BTreeMap, VecDeque};

use purlin_proto::ChildId;
use purlin_proto::NodeId;
use purlin_proto::admin::children::ChildPast;
use purlin_proto::child::{Cause, ChildRecord, ChildRun, Desired, RunState};
use purlin_runtime::ChildSeen;

/// Events that are remembered of each child.
const EVENTS: usize = 12;

#[derive(Default)]
pub(super) struct Past(BTreeMap<ChildId, Story>);

#[derive(Default)]
struct Story {
    version: u64,
    runs: BTreeMap<NodeId, ChildRun>,
    events: VecDeque<ChildPast>,
}

impl Past {
    /// Looks at a child that has changed.
    pub(super) fn look(&mut self, child: &ChildId, seen: &ChildSeen, now_ms: u64) {
        let Some(record) = &seen.record else {
            if seen.runs.is_empty() {
                self.0.remove(child);
            }
            return;
        };
        let story = self.0.entry(child.clone()).or_default();
        if story.version != record.version {
            story.version = record.version;
            story.add(now_ms, describe(record));
        }
        let runs: BTreeMap<_, _> = seen.runs.iter().cloned().collect();
        for (node, run) in &runs {
            if story.runs.get(node) == Some(run) {
                continue;
            }
            let pid = node.pid(run.serial);
            story.add(
                now_ms,
                match &run.state {
                    RunState::Live => format!("runs on {} as {pid}", node.name),
                    RunState::LetGo { .. } => format!("{pid} has ended, to run elsewhere"),
                    RunState::Ended(end) if run.serial == 0 => {
                        format!("was not started on {}: {}", node.name, end.reason)
                    }
                    RunState::Ended(end) => format!("{pid} has ended: {}", end.reason),
                },
            );
        }
        let gone: Vec<_> = story.runs.iter().filter(|(node, _)| !runs.contains_key(node)).collect();
        let gone: Vec<_> = gone
            .into_iter()
            .filter(|(_, run)| run.is_live())
            .map(|(node, run)| format!("{} is gone", node.pid(run.serial)))
            .collect();
        for event in gone {
            story.add(now_ms, event);
        }
        story.runs = runs;
    }

    /// The oldest first.
    pub(super) fn events(&self, child: &ChildId) -> Vec<ChildPast> {
        self.0.get(child).map(|story| story.events.iter().cloned().collect()).unwrap_or_default()
    }
}

impl Story {
    fn add(&mut self, at_ms: u64, event: String) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(ChildPast { at_ms, event });
    }
}

/// What a version of a record says.
pub(super) fn describe(record: &ChildRecord) -> String {
    match &record.desired {
        Desired::Run => match record.placed {
            None => "is to run".to_owned(),
            Some(placed) => {
                let (node, generation) = (placed.node.name, placed.generation);
                format!("placed on {node}, generation {generation}: {}", why(&record.cause))
            }
        },
        Desired::Stopped(_) => "stopped".to_owned(),
        Desired::Done(reason) => format!("done: it has ended with {reason}"),
        Desired::GaveUp(gave) => {
            let whose = if gave.of_supervisor { "all children together" } else { "it" };
            format!("given up: {whose} restarted too often, at last: {}", gave.reason)
        }
        Desired::Poison => {
            let nodes: Vec<_> = record.deaths.iter().map(ToString::to_string).collect();
            format!(
                "poison: soon after it was started on them, these went down: {}",
                nodes.join(", ")
            )
        }
    }
}

/// Why it was placed where it is.
pub(super) fn why(cause: &Cause) -> String {
    match cause {
        Cause::Asked => "asked for".to_owned(),
        Cause::Ended(reason) => format!("restarted, it had ended: {reason}"),
        Cause::NodeGone(node) => format!("{node}, where it was, is gone"),
        Cause::Moved(node) => format!("moved from {}, the members have changed", node.name),
        Cause::Kept => "it ran twice, this one was kept".to_owned(),
    }
}
