//! What the actors of a simulated run tell, as it happens, and who checks it.
//!
//! A run happens on one thread, so its record is the thread's: an actor that is started remotely gets
//! bytes, and could not be handed one. What a crashed machine's actors would still tell while they
//! are dropped is not heard.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use purlin::proto::admin::ProcessDetail;
use purlin::testing::Log;
use purlin::{ExitReason, Holding, Key, NodeId, NodeName, Pid, Reference};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::views::View;
use crate::invariants::{self, Invariant};

/// A process by the pid that it was born with. Its node may take new creations, and it new pids.
pub type Who = Pid;

/// Something that an actor, or the run itself, saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It lives; under a name of its node, perhaps.
    Born { who: Who, name: Option<String> },
    /// It has dropped all it had.
    Ended { who: Who },
    /// A machine lost its power.
    Crashed { node: NodeName },
    /// A message was handed to the node.
    Sent { from: Who, to: Who, number: u64 },
    /// A message arrived, from a process whose pid then was `pid`.
    Delivered { by: Who, from: Who, pid: Pid, number: u64 },
    /// A monitor was made.
    Monitored { watcher: Who, reference: Reference, target: Who },
    /// It was taken back, and what it had told was thrown away.
    Demonitored { watcher: Who, reference: Reference },
    /// It fired.
    Down { watcher: Who, reference: Reference, reason: ExitReason },
    /// A link was made.
    Linked { by: Who, other: Who },
    /// It was taken back.
    Unlinked { by: Who, other: Who },
    /// It broke.
    LinkDown { at: Who, of: Who, reason: ExitReason },
    /// A life of a node is a member, as a process learns.
    NodeUp { at: Who, node: NodeId },
    /// It is none any more.
    NodeDown { at: Who, node: NodeId },
    /// A process has joined a group, once more perhaps.
    Joined { who: Who, group: &'static str },
    /// It has left it, once.
    Left { who: Who, group: &'static str },
    /// Something that was published came.
    Heard { by: Who, from: Who, topic: String, number: u64 },
    /// A process has got a global name.
    Named { who: Who, name: &'static str },
    /// It has given it up.
    Unnamed { who: Who, name: &'static str },
    /// It has been told that another one has it.
    NameLost { who: Who, name: &'static str },
    /// A process for a key lives.
    Activated { who: Who, key: Key },
    /// It has dropped all it had.
    Deactivated { who: Who },
    /// A supervisor has restarted a child.
    Restarted { supervisor: Pid, child: String },
    /// So many messages wait for a process that may have so many.
    Waiting { who: Pid, messages: usize, limit: usize },
}

/// What can be known without any invariant.
#[derive(Debug, Default)]
pub struct Facts {
    /// Nothing was done to the run that explains a loss.
    pub benign: bool,
    pub now: Duration,
    /// Those who live, and their present pids.
    pub alive: BTreeMap<Who, Pid>,
    /// Those who do not, and since when.
    pub ended: BTreeMap<Who, Duration>,
    /// Whose a pid is or was.
    pub pids: BTreeMap<Pid, Who>,
    /// Those whose mailboxes are meant to be full at times.
    pub deaf: BTreeSet<Who>,
    /// The processes of keys.
    pub keys: BTreeMap<Who, Key>,
    /// The last creation that each node had, and since when its processes have known it.
    pub creations: BTreeMap<NodeName, (u64, Duration)>,
    /// What the nodes say at the end of those who live,
    pub details: BTreeMap<Who, ProcessDetail>,
    /// and of all else.
    pub views: BTreeMap<NodeName, View>,
}

struct Record {
    facts: Facts,
    log: Log,
    seed: u64,
    nodes: Vec<NodeName>,
    acting: bool,
    invariants: Vec<Box<dyn Invariant>>,
    violations: Vec<String>,
}

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

fn with<T>(act: impl FnOnce(&mut Record) -> T) -> T {
    RECORD.with_borrow_mut(|record| act(record.as_mut().expect("a run is recorded")))
}

/// Begins a record on this thread.
pub fn begin(seed: u64, benign: bool, nodes: Vec<NodeName>, log: Log) {
    let facts = Facts { benign, ..Facts::default() };
    let invariants = invariants::all();
    let violations = Vec::new();
    let record = Record { facts, log, seed, nodes, acting: false, invariants, violations };
    RECORD.with_borrow_mut(|slot| *slot = Some(record));
}

/// Tells what happened.
pub fn tell(event: &Event) {
    with(|record| record.take(event));
}

/// Something is wrong that no event shows.
pub fn violation(what: String) {
    with(|record| record.violations.push(what));
}

/// Says under which pid a process goes now.
pub fn goes_as(who: Who, pid: Pid) {
    with(|record| {
        let facts = &mut record.facts;
        facts.pids.insert(pid, who);
        facts.alive.entry(who).and_modify(|present| *present = pid);
        let (creation, since) = facts.creations.entry(pid.node.name).or_default();
        if *creation < pid.node.creation {
            (*creation, *since) = (pid.node.creation, record.log.now());
        }
    });
}

/// Says that a process's mailbox is meant to be full at times.
pub fn is_deaf(who: Who) {
    with(|record| record.facts.deaf.insert(who));
}

/// Those who live and listen, with their present pids.
pub fn listeners() -> Vec<(Who, Pid)> {
    with(|record| {
        let Facts { alive, deaf, .. } = &record.facts;
        alive.iter().filter(|(who, _)| !deaf.contains(who)).map(|(w, p)| (*w, *p)).collect()
    })
}

/// Those who do not.
pub fn deaf() -> Vec<(Who, Pid)> {
    with(|record| {
        let Facts { alive, deaf, .. } = &record.facts;
        deaf.iter().filter_map(|who| Some((*who, *alive.get(who)?))).collect()
    })
}

pub fn whose(pid: Pid) -> Option<Who> {
    with(|record| record.facts.pids.get(&pid).copied())
}

pub fn nodes() -> Vec<NodeName> {
    with(|record| record.nodes.clone())
}

/// Chance for a process, from the run's seed and its place in it.
pub fn chance(who: Who) -> StdRng {
    let seed = with(|record| record.seed);
    let name = who.node.name.as_str().bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte));
    StdRng::seed_from_u64(seed ^ who.serial << 48 ^ name << 24 ^ who.node.creation)
}

/// Whether workers are to do anything.
pub fn acting() -> bool {
    with(|record| record.acting)
}

/// From now on workers act, or only listen. They listen at first.
pub fn act(acting: bool) {
    with(|record| record.acting = acting);
}

/// Lets every invariant look at what a node holds.
pub fn look(node: NodeName, holdings: &[Holding]) {
    with(|record| {
        record.facts.now = record.log.now();
        record.check(|invariant, facts| invariant.look(node, holdings, facts));
    });
}

/// Lets every invariant look at how it all ended, while those live who do.
pub fn end(details: BTreeMap<Who, ProcessDetail>, views: BTreeMap<NodeName, View>) {
    with(|record| {
        (record.facts.details, record.facts.views) = (details, views);
        record.facts.now = record.log.now();
        record.check(|invariant, facts| invariant.end(facts));
    });
}

/// Lets every invariant look at what is left when all workers have ended; whether it is nothing. What
/// is wrong is so only if it stays.
pub fn gone(views: BTreeMap<NodeName, View>, for_good: bool) -> bool {
    with(|record| {
        record.facts.views = views;
        record.facts.now = record.log.now();
        let Record { invariants, facts, .. } = record;
        if !for_good {
            return invariants.iter_mut().all(|invariant| invariant.gone(facts).is_ok());
        }
        record.check(|invariant, facts| invariant.gone(facts));
        false
    })
}

/// What was wrong, ever.
pub fn violations() -> Vec<String> {
    with(|record| record.violations.clone())
}

impl Record {
    fn check(&mut self, look: impl Fn(&mut dyn Invariant, &Facts) -> Result<(), String>) {
        for invariant in &mut self.invariants {
            if let Err(what) = look(&mut **invariant, &self.facts) {
                let what = format!("{} at {:?}: {what}", invariant.name(), self.facts.now);
                self.log.note(format_args!("VIOLATED {what}"));
                self.violations.push(what);
            }
        }
    }

    fn take(&mut self, event: &Event) {
        let facts = &mut self.facts;
        facts.now = self.log.now();
        match event {
            Event::Born { who, .. } => {
                facts.alive.insert(*who, *who);
                facts.pids.insert(*who, *who);
            }
            Event::Ended { who } => {
                // Otherwise its machine has crashed.
                if facts.alive.remove(who).is_none() {
                    return;
                }
                facts.ended.insert(*who, facts.now);
            }
            Event::Activated { who, key } => {
                facts.keys.insert(*who, key.clone());
            }
            Event::Deactivated { who } if facts.keys.remove(who).is_none() => return,
            Event::Crashed { node } => {
                facts.keys.retain(|who, _| who.node.name != *node);
                let lost: Vec<_> =
                    facts.alive.keys().filter(|who| who.node.name == *node).copied().collect();
                for who in lost {
                    facts.alive.remove(&who);
                    facts.ended.insert(who, facts.now);
                }
            }
            _ => {}
        }
        self.log.note(format_args!("{event:?}"));
        for invariant in &mut self.invariants {
            if let Err(what) = invariant.see(event, &self.facts) {
                let now = self.facts.now;
                let what = format!("{} at {now:?}: {what}, by {event:?}", invariant.name());
                self.log.note(format_args!("VIOLATED {what}"));
                self.violations.push(what);
            }
        }
    }
}
