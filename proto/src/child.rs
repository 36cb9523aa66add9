//! Children of cluster supervisors: which, what is wanted of each, and what runs.
//!
//! A [`ChildRecord`] is what is wanted. It is written by the owner of the child's shard and copied to
//! every node; of two records the one with the higher version holds. A [`ChildRun`] is what runs, said
//! by the node where it runs. Both travel as entries ([`EntryKey`](crate::EntryKey)).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::hello::Labels;
use crate::id::NodeId;
use crate::key::Key;
use crate::limits::{
    CHILD_ARGS_BYTES, CHILD_NAME_BYTES, CHILD_REASON_BYTES, CHILD_RESTARTS, LABEL_BYTES,
};
use crate::name::{Name, NameError, NodeName};
use crate::payload::Payload;
use crate::readable::text_when_readable;
use crate::reason::ExitReason;
use crate::supervision::{Restart, Shutdown};

/// A child of a cluster supervisor, the same on all nodes.
///
/// Prints as `SUPERVISOR/CHILD` and parses back.
///
/// ```
/// use purlin_proto::ChildId;
///
/// let child: ChildId = "jobs/nightly".parse()?;
/// assert_eq!(child, ChildId::new("jobs", "nightly"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId {
    /// The supervisor's name.
    pub supervisor: Name,
    /// Which of its children.
    pub child: Key,
}

impl ChildId {
    /// A child of a supervisor.
    pub fn new(supervisor: impl Into<Name>, child: impl Into<Key>) -> Self {
        Self { supervisor: supervisor.into(), child: child.into() }
    }
}

/// On the wire.
#[derive(Serialize, Deserialize)]
struct ChildIdFields(Name, Key);

impl From<ChildId> for ChildIdFields {
    fn from(id: ChildId) -> Self {
        Self(id.supervisor, id.child)
    }
}

impl From<ChildIdFields> for ChildId {
    fn from(ChildIdFields(supervisor, child): ChildIdFields) -> Self {
        Self { supervisor, child }
    }
}

text_when_readable!(ChildId, ChildIdFields);

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.supervisor, self.child)
    }
}

/// Why a text is not a child.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no child of a cluster supervisor, as in jobs/nightly: {detail}")]
pub struct ParseChildIdError {
    text: String,
    detail: String,
}

impl FromStr for ChildId {
    type Err = ParseChildIdError;

    fn from_str(text: &str) -> Result<Self, ParseChildIdError> {
        let failed = |detail: String| ParseChildIdError { text: text.to_owned(), detail };
        let (supervisor, child) =
            text.split_once('/').ok_or_else(|| failed("there is no slash".to_owned()))?;
        let named = |error: NameError| failed(error.to_string());
        let supervisor = Name::new(supervisor).map_err(named)?;
        Ok(Self { supervisor, child: Key::new(child).map_err(named)? })
    }
}

/// How many of a child there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// At most one at every instant; it does not run where the authority cannot be reached.
    Exclusive,
    /// At least one in each part of a split.
    Available,
}

/// Where a child is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildPlacement {
    /// At the owner of its id on the ring. It moves when the ring does.
    Ring,
    /// On the member with all these labels that has the fewest children. It stays there.
    Labels(Labels),
    /// On the member that has the fewest children. It stays there.
    LeastLoaded,
}

/// Reads what is [printed](fmt::Display): `ring`, `least-loaded`, or labels as in `label:zone=eu`.
impl FromStr for ChildPlacement {
    type Err = crate::PlacementError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ring" => Ok(Self::Ring),
            "least-loaded" => Ok(Self::LeastLoaded),
            _ => crate::placement::labels(text).map(Self::Labels),
        }
    }
}

impl fmt::Display for ChildPlacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring => f.write_str("ring"),
            Self::Labels(labels) => crate::Placement::Labels(labels.clone()).fmt(f),
            Self::LeastLoaded => f.write_str("least-loaded"),
        }
    }
}

/// So many restarts within so long, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intensity {
    /// How many; at most [`CHILD_RESTARTS`] for a child.
    pub restarts: u32,
    /// Within how long.
    pub period: Duration,
}

/// What is wanted of a child: everything that is needed to start it on any node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildPlan {
    /// The kind of actor.
    pub kind: Name,
    /// What it is started with; at most [`CHILD_ARGS_BYTES`].
    pub args: Payload,
    /// Whether it is started again when it has ended.
    pub restart: Restart,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// Where it is to run.
    pub placement: ChildPlacement,
    /// How many of it there may be.
    pub mode: Mode,
    /// How often it may be restarted.
    pub intensity: Intensity,
    /// How often all children of its supervisor may be, if that is limited.
    pub supervisor_intensity: Option<Intensity>,
}

impl ChildPlan {
    /// Why this cannot be the plan of a child, if it cannot.
    pub fn check(&self, of: &ChildId) -> Result<(), String> {
        for name in [self.kind.as_str(), of.supervisor.as_str(), of.child.as_str()] {
            if name.len() > CHILD_NAME_BYTES {
                return Err(format!("{name:?} is longer than {CHILD_NAME_BYTES} bytes"));
            }
        }
        if self.mode == Mode::Exclusive && self.placement != ChildPlacement::Ring {
            return Err("an exclusive child runs at the owner of its id on the ring".to_owned());
        }
        let args = self.args.bytes.len();
        if args > CHILD_ARGS_BYTES {
            return Err(format!("arguments of {args} bytes, at most {CHILD_ARGS_BYTES} are kept"));
        }
        if self.intensity.restarts > CHILD_RESTARTS {
            let restarts = self.intensity.restarts;
            return Err(format!("{restarts} restarts, at most {CHILD_RESTARTS} are counted"));
        }
        let ChildPlacement::Labels(labels) = &self.placement else { return Ok(()) };
        crate::hello::check_labels(labels)?;
        let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > LABEL_BYTES {
            return Err(format!("labels of {bytes} bytes, at most {LABEL_BYTES} for a child"));
        }
        Ok(())
    }
}

/// What is wanted of a child, and how it came to be where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRecord {
    /// Rises with each change; of two records the higher one holds, then the one of the greater
    /// [`by`](Self::by).
    pub version: u64,
    /// Who has written this version.
    pub by: NodeName,
    /// What is to be started.
    pub plan: ChildPlan,
    /// Whether it is to run.
    pub desired: Desired,
    /// How often it has been started; each start has a higher one.
    pub generation: u64,
    /// Where it was started last, or is about to be.
    pub placed: Option<Placed>,
    /// Why there.
    pub cause: Cause,
    /// How often it was started again after it had ended by itself.
    pub restarts: u64,
    /// When, in milliseconds since 1970, those that still count.
    pub crashes: Vec<u64>,
    /// Nodes that went down soon after it had been started on them, one after the other.
    pub deaths: Vec<NodeName>,
}

impl ChildRecord {
    /// Whether this one holds rather than another.
    pub fn outdates(&self, other: &Self) -> bool {
        (self.version, self.by) > (other.version, other.by)
    }
}

/// Whether a child is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It is.
    Run,
    /// It was stopped then, in milliseconds since 1970, and is forgotten after a while.
    Stopped(u64),
    /// It has ended for good, as its restart type says, with this reason.
    Done(String),
    /// It was restarted too often.
    GaveUp(GaveUp),
    /// Nodes went down soon after it was started on them: [`ChildRecord::deaths`].
    Poison,
}

/// What was too often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaveUp {
    /// Whether it was all children of the supervisor together.
    pub of_supervisor: bool,
    /// How it ended the last time.
    pub reason: String,
}

/// Where a child was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// On which life of which node.
    pub node: NodeId,
    /// As which generation.
    pub generation: u64,
    /// When, in milliseconds since 1970 by the clock of who wrote the record.
    pub at_ms: u64,
}

/// Why a child was started where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody asked for it.
    Asked,
    /// It had ended with this reason.
    Ended(String),
    /// The node that it ran on went down, or left.
    NodeGone(NodeId),
    /// Its place is another one, since members have changed or the node where it was leaves; where
    /// it was.
    Moved(NodeId),
    /// It ran twice, as it may after a split, and this one was kept.
    Kept,
}

/// A process of a child, said by the node where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRun {
    /// As which generation it was started.
    pub generation: u64,
    /// The process; 0 if it could not be started.
    pub serial: u64,
    /// How many members who had it started saw then.
    pub view: u32,
    /// Since when, in milliseconds since 1970 by the clock of its node.
    pub since_ms: u64,
    /// What has become of it.
    pub state: RunState,
}

impl ChildRun {
    /// Whether its process runs.
    pub fn is_live(&self) -> bool {
        self.state == RunState::Live
    }

    /// How it has ended by itself.
    pub fn ended(&self) -> Option<&ChildEnd> {
        match &self.state {
            RunState::Ended(end) => Some(end),
            RunState::Live | RunState::LetGo { .. } => None,
        }
    }
}

/// What has become of a process of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// It runs.
    Live,
    /// It has ended by itself, and the owner of its shard has not dealt with that yet.
    Ended(ChildEnd),
    /// It has ended since the child is to run elsewhere. What comes for it is sent on, and its state is
    /// kept for its next host.
    LetGo {
        /// The node that has asked for it last, if any has.
        to: Option<NodeName>,
    },
}

/// How a process of a child has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildEnd {
    /// Whether in good order.
    pub orderly: bool,
    /// Its reason, cut to [`CHILD_REASON_BYTES`].
    pub reason: String,
}

impl From<&ExitReason> for ChildEnd {
    fn from(reason: &ExitReason) -> Self {
        let mut text = reason.to_string();
        if text.len() > CHILD_REASON_BYTES {
            text.truncate(text.floor_char_boundary(CHILD_REASON_BYTES));
        }
        Self { orderly: reason.is_orderly(), reason: text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::limits::OWNED_ENTRY_BYTES;
    use crate::{Codec, EntryKey, EntryValue};

    fn largest() -> ChildRecord {
        let long = |len: usize| "x".repeat(len);
        let node = NodeName::new(&long(32)).expect("a name");
        let intensity = Intensity { restarts: CHILD_RESTARTS, period: Duration::MAX };
        let label = long(LABEL_BYTES - 1);
        let args = Payload { codec: Codec::Bincode, bytes: vec![0; CHILD_ARGS_BYTES].into() };
        ChildRecord {
            version: u64::MAX,
            by: node,
            plan: ChildPlan {
                kind: Name::new(&long(64)).expect("a name"),
                args,
                restart: Restart::Permanent,
                shutdown: Shutdown::Timeout(Duration::MAX),
                placement: ChildPlacement::Labels([("k".into(), label)].into()),
                mode: Mode::Available,
                intensity,
                supervisor_intensity: Some(intensity),
            },
            desired: Desired::GaveUp(GaveUp {
                of_supervisor: true,
                reason: long(CHILD_REASON_BYTES),
            }),
            generation: u64::MAX,
            placed: Some(Placed {
                node: NodeId::new(node, u64::MAX),
                generation: u64::MAX,
                at_ms: u64::MAX,
            }),
            cause: Cause::Ended(long(CHILD_REASON_BYTES)),
            restarts: u64::MAX,
            crashes: vec![u64::MAX; CHILD_RESTARTS as usize + 1],
            deaths: vec![node; 2],
        }
    }

    #[test]
    fn the_largest_record_fits_an_entry() {
        let record = largest();
        let longest = "s".repeat(CHILD_NAME_BYTES);
        let supervisor = Name::new(&longest).expect("a name");
        let child = ChildId { supervisor, child: Key::new(&longest).expect("a key") };
        assert_eq!(record.plan.check(&child), Ok(()));
        let key = EntryKey::Child(child);

        let bytes = codec::to_bytes(&key).expect("a key").len()
            + codec::to_bytes(&EntryValue::Child(Box::new(record))).expect("a record").len();

        assert!(bytes <= OWNED_ENTRY_BYTES, "{bytes}");
    }

    #[test]
    fn a_plan_that_is_too_large_is_refused_with_the_limit() {
        let child = ChildId::new("jobs", "nightly");
        let mut plan = largest().plan;
        plan.args.bytes = vec![0; CHILD_ARGS_BYTES + 1].into();
        assert!(plan.check(&child).expect_err("too large").contains("1024"));
        let mut plan = largest().plan;
        plan.intensity.restarts += 1;
        assert!(plan.check(&child).is_err());
    }

    #[test]
    fn a_placement_reads_back_as_it_is_printed() {
        for text in ["ring", "least-loaded", "label:disk=ssd,zone=eu"] {
            assert_eq!(text.parse::<ChildPlacement>().expect(text).to_string(), text);
        }
        for text in ["", "b", "label:", "zone=eu"] {
            let error = text.parse::<ChildPlacement>().expect_err(text).to_string();
            assert!(error.contains("label:KEY=VALUE"), "{error}");
        }
    }

    #[test]
    fn a_child_reads_back_as_it_is_printed() {
        for text in ["jobs/nightly", "jobs/a/b", "jobs/anna@example.org"] {
            assert_eq!(text.parse::<ChildId>().expect(text).to_string(), text);
        }
        for text in ["jobs", "/x", "jobs/", "a b/c", ""] {
            let error = text.parse::<ChildId>().expect_err(text).to_string();
            assert!(error.contains("jobs/nightly"), "{error}");
        }
    }
}
