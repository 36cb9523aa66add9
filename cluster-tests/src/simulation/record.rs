//! What the actors of a simulated run tell, as it happens, and who checks it.
//!
//! A run happens on one thread, so its record is the thread's: an actor that is started remotely gets
//! bytes, and could not be handed one. What a crashed machine's actors would still tell while they
//! are dropped is not heard.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use purlin::proto::admin::ProcessDetail;
use purlin::testing::Log;
use purlin::{ExitReason, Fence, Gauge, Key, NodeId, NodeName, Pid, Reference};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::schedule::Part;
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
    /// The only process of an exclusive key, or of a child, lives; under its fence if it is exclusive.
    Begun { who: Who, of: String, fence: Option<Fence> },
    /// It does something.
    Acted { who: Who, of: String, fence: Option<Fence> },
    /// It is about to fail.
    Failed { who: Who, of: String },
    /// It has dropped all it had.
    Over { who: Who },
    /// A machine does nothing for a while, or is slow; until then its processes may be late.
    Late { node: NodeName, until: Duration },
    /// A supervisor has restarted a child.
    Restarted { supervisor: Pid, child: String },
    /// So many messages wait for a process that may have so many.
    Waiting { who: Pid, messages: usize, limit: usize },
}

/// What should not have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of what did not hold.
    pub invariant: &'static str,
    pub at: Duration,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}: {}", self.invariant, self.at, self.what)
    }
}

/// What can be known without any invariant.
#[derive(Debug, Default)]
pub struct Facts {
    /// Nothing was done to the run that explains a loss.
    pub benign: bool,
    pub part: Part,
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
    /// The only ones of something, what that is, and under which fence.
    pub only: BTreeMap<Who, (String, Option<Fence>)>,
    /// Until when processes of a node may be late.
    pub late: BTreeMap<NodeName, Duration>,
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
    starts: BTreeMap<NodeName, u64>,
    leaving: BTreeMap<(NodeName, u64), bool>,
    invariants: Vec<Box<dyn Invariant>>,
    violations: Vec<Violation>,
}

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

fn with<T>(act: impl FnOnce(&mut Record) -> T) -> T {
    RECORD.with_borrow_mut(|record| act(record.as_mut().expect("a run is recorded")))
}

/// Begins a record on this thread.
pub fn begin(seed: u64, benign: bool, part: Part, nodes: Vec<NodeName>, log: Log) {
    let record = Record {
        facts: Facts { benign, part, ..Facts::default() },
        log,
        seed,
        nodes,
        acting: false,
        starts: BTreeMap::new(),
        leaving: BTreeMap::new(),
        invariants: invariants::all(),
        violations: Vec::new(),
    };
    RECORD.with_borrow_mut(|slot| *slot = Some(record));
}

/// Tells what happened.
pub fn tell(event: &Event) {
    with(|record| record.take(event));
}

/// Something is wrong that no event shows.
pub fn violation(invariant: &'static str, what: String) {
    with(|record| record.violated(invariant, what));
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

/// What runs besides.
pub fn part() -> Part {
    with(|record| record.facts.part)
}

/// A node starts once more.
pub fn starts(node: NodeName) {
    with(|record| *record.starts.entry(node).or_default() += 1);
}

/// A node is being taken out of service; returns which of its starts that is, unless it was already.
pub fn leaves(node: NodeName) -> Option<u64> {
    with(|record| {
        let start = record.starts.get(&node).copied()?;
        record.leaving.insert((node, start), false).is_none().then_some(start)
    })
}

/// It is out of service.
pub fn has_left(node: NodeName, start: u64) {
    with(|record| record.leaving.insert((node, start), true));
}

/// The nodes that are being taken out of service, and whether they are.
pub fn leaving() -> Vec<(NodeName, bool)> {
    with(|record| {
        let Record { starts, leaving, .. } = record;
        leaving.retain(|(node, start), _| starts.get(node) == Some(start));
        leaving.iter().map(|((node, _), out)| (*node, *out)).collect()
    })
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
pub fn look(node: NodeName, gauges: &[Gauge]) {
    with(|record| {
        record.facts.now = record.log.now();
        record.check(|invariant, facts| invariant.look(node, gauges, facts));
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
pub fn violations() -> Vec<Violation> {
    with(|record| record.violations.clone())
}

impl Record {
    fn check(&mut self, look: impl Fn(&mut dyn Invariant, &Facts) -> Result<(), String>) {
        let mut wrong = Vec::new();
        for invariant in &mut self.invariants {
            if let Err(what) = look(&mut **invariant, &self.facts) {
                wrong.push((invariant.name(), what));
            }
        }
        for (invariant, what) in wrong {
            self.violated(invariant, what);
        }
    }

    fn violated(&mut self, invariant: &'static str, what: String) {
        let violation = Violation { invariant, at: self.log.now(), what };
        self.log.note(format_args!("VIOLATED {violation}"));
        self.violations.push(violation);
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
            Event::Begun { who, of, fence } => {
                facts.only.insert(*who, (of.clone(), *fence));
            }
            Event::Over { who } if facts.only.remove(who).is_none() => return,
            Event::Late { node, until } => {
                let late = facts.late.entry(*node).or_default();
                *late = (*late).max(*until);
            }
            Event::Crashed { node } => {
                facts.keys.retain(|who, _| who.node.name != *node);
                facts.only.retain(|who, _| who.node.name != *node);
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
        self.check(|invariant, facts| {
            invariant.see(event, facts).map_err(|what| format!("{what}, by {event:?}"))
        });
    }
}
