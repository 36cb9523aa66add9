//! What the process [`CHILDREN`] of every node is asked about children of cluster supervisors: by
//! programs and the command line, and by its like on other nodes.

use serde::{Deserialize, Serialize};

use crate::child::{ChildId, ChildPlan, ChildRecord, Mode};
use crate::error::CallError;
use crate::id::{NodeId, Pid};
use crate::message::Message;
use crate::name::{Name, NodeName};
use crate::snapshot::Snapshot;

/// The name of that process, on every node.
pub const CHILDREN: &str = "purlin.children";

/// Most children in one page of an answer, or in one copy.
pub const CHILDREN_PAGE: usize = 256;

/// Have a child run. Nothing changes if there is one of this id with the same plan already, also if
/// it has been given up or is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartClusterChild {
    /// Which.
    pub child: ChildId,
    /// What is to run.
    pub plan: ChildPlan,
    /// Whether a node has sent this on already.
    pub forwarded: bool,
}
message!(StartClusterChild, "node.children_start", Result<StartedChild, ClusterChildError>);

/// What [`StartClusterChild`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartedChild {
    /// There was none; it is being started.
    New,
    /// There is one, with this plan.
    Present(ClusterChildState),
}

/// Stop a child for good and forget it. Answered when that is recorded; it ends soon after.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StopClusterChild {
    /// Which.
    pub child: ChildId,
    /// Whether a node has sent this on already.
    pub forwarded: bool,
}
message!(StopClusterChild, "node.children_stop", Result<(), ClusterChildError>);

/// Start a child again that was given up or is done; what was counted against it is forgotten.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestartClusterChild {
    /// Which.
    pub child: ChildId,
    /// Whether a node has sent this on already.
    pub forwarded: bool,
}
message!(RestartClusterChild, "node.children_restart", Result<(), ClusterChildError>);

/// Which children are there, as the asked node sees it? At most [`CHILDREN_PAGE`] a page, by id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListClusterChildren {
    /// Only those of this supervisor.
    pub supervisor: Option<Name>,
    /// Only those behind this one.
    pub after: Option<ChildId>,
}
message!(ListClusterChildren, "node.children_list", Vec<ClusterChildInfo>);

/// What is this child doing, as the asked node sees it, and why does it run where it runs?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetClusterChild {
    /// Which.
    pub child: ChildId,
}
message!(GetClusterChild, "node.children_why", Option<ClusterChildWhy>);

/// One child of a cluster supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterChildInfo {
    /// Which.
    pub child: ChildId,
    /// Its kind.
    pub kind: String,
    /// What it is doing.
    pub state: ClusterChildState,
    /// Its process, while it runs.
    pub pid: Option<Pid>,
    /// Where it runs, or was placed last.
    pub node: Option<NodeName>,
    /// Seconds that it has run, by the clocks of its node and the asked one; 0 unless it runs.
    pub since_s: f64,
    /// How often it was started again after it had ended by itself.
    pub restarts: u64,
    /// How often it has been started.
    pub generation: u64,
    /// How many there may be.
    pub mode: Mode,
    /// Who decides about it.
    pub owner: NodeName,
    /// Why it does not run, or why it runs where it does.
    pub why: String,
}

/// What a child of a cluster supervisor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterChildState {
    /// It runs.
    Running,
    /// It is about to.
    Starting,
    /// It runs more than once, since the cluster was split.
    Twice,
    /// It was stopped.
    Stopped,
    /// It has ended for good.
    Done,
    /// It was restarted too often, and is left alone.
    GaveUp,
    /// Nodes went down with it, and it is left alone.
    Poison,
}

impl ClusterChildState {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Twice => "twice",
            Self::Stopped => "stopped",
            Self::Done => "done",
            Self::GaveUp => "gave up",
            Self::Poison => "poison",
        }
    }
}

/// Answers [`GetClusterChild`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterChildWhy {
    /// How it is.
    pub info: ClusterChildInfo,
    /// Where it is to run.
    pub placement: String,
    /// Which node has said this.
    pub seen_by: NodeName,
    /// The last things that this node has seen happen to it, the oldest first.
    pub events: Vec<ChildPast>,
}

/// Something that happened to a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildPast {
    /// When it was seen, in milliseconds since 1970 by the clock of the node that saw it.
    pub at_ms: u64,
    /// What.
    pub event: String,
}

/// Why a cluster supervisor did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterChildError {
    /// There is a child of this id with another plan; it stays as it is.
    #[error("there is a child of this id with another plan: stop it first")]
    Differs,
    /// There is no such child.
    #[error("no such child")]
    NotFound,
    /// It runs, or is about to.
    #[error("it runs, or is about to")]
    Running,
    /// The plan cannot be kept.
    #[error("{detail}")]
    Plan {
        /// Why not.
        detail: String,
    },
    /// This node says as much of its processes and children as it may.
    #[error("the node has as many entries as it may")]
    Full,
    /// Too many requests wait already.
    #[error("overloaded: too many requests are waiting")]
    Overloaded,
    /// An exclusive child, but the node that was to decide knows of nobody who says which node may
    /// run it: no node takes part in that, or none has since the cluster began. Nodes do that are
    /// built with `NodeBuilder::exclusive()`, or have an exclusive keyed kind.
    #[error(
        "nothing in this cluster can promise that there is one at most: build its nodes with \
         `NodeBuilder::exclusive()`, and try again when they are up"
    )]
    NoAuthority,
    /// Nodes disagree about who decides about it, as they may for a moment when members come or go.
    #[error("{node} does not decide about it and this was sent on already; try again")]
    NotOwner {
        /// Who says so.
        node: NodeName,
    },
    /// The node that decides about it does not answer. It may have done it.
    #[error("the node that decides about it does not answer: {0}")]
    NoAnswer(CallError),
}

// ----- between nodes -----

/// Keep these records, written by the node that sends them. Answered when they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeepChildren {
    /// At most [`CHILDREN_PAGE`].
    pub records: Vec<(ChildId, ChildRecord)>,
}
message!(KeepChildren, "node.children_keep", ());

/// Start a child on the asked node. Answered when it has started, or could not be: the node says
/// which by its entry. Asking again for the same generation does nothing more; asking for one that the
/// asked node knows to be outdated is refused ([`HostRefusal::Stale`]).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostChild {
    /// Which life of the asked node is meant.
    pub on: NodeId,
    /// Which.
    pub child: ChildId,
    /// What.
    pub plan: ChildPlan,
    /// As which generation.
    pub generation: u64,
    /// How many members the asking node sees.
    pub view: u32,
}
message!(HostChild, "node.children_host", Result<(), HostRefusal>);

/// As [`HostChild`], of a child that may run, or have run, on another node, and is to move: the asked
/// node asks that one to let go of it ([`ReleaseChild`]), and starts it with its state when it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakeChild {
    /// What is to be started.
    pub host: HostChild,
    /// Where it was before.
    pub from: NodeId,
}
message!(TakeChild, "node.children_take", Result<(), HostRefusal>);

/// Let go of a child for the asking node: send on what comes for it, work off what has come, end it, and
/// hand over its state. Answered when it has ended, at once if it does not run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseChild {
    /// Which.
    pub child: ChildId,
    /// Who asks, and has its mailbox open.
    pub to: NodeId,
    /// The generation that runs there next; only earlier ones are let go.
    pub generation: u64,
    /// Those that need not be asked first: they have it no more, or wait for this answer.
    pub but: Vec<NodeId>,
}
message!(ReleaseChild, "node.children_release", ChildReleased);

/// Answers [`ReleaseChild`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildReleased {
    /// It has ended here; this is its state, if its kind has one and it has ended in good order.
    Free(Option<Snapshot>),
    /// A later generation, or the same, runs here: whoever asks is behind.
    Stale {
        /// Which.
        generation: u64,
    },
    /// It has not run here, or another node has asked for it since: that one has its last state, if it
    /// has begun there.
    Elsewhere(Option<NodeId>),
}

/// Why a node does not start a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum HostRefusal {
    /// It is about to stop, or takes nothing more.
    #[error("{detail}")]
    No {
        /// Why.
        detail: String,
    },
    /// It runs another generation of it.
    #[error("it runs it as generation {generation}")]
    Other {
        /// Which.
        generation: u64,
    },
    /// It has been placed again, or is not wanted any more, as the node knows: the order is an old one.
    #[error("no generation before {newest} is started any more")]
    Stale {
        /// The oldest that would be started.
        newest: u64,
    },
}

/// End a child of the asked node, up to this generation, as its plan says, and forget that it has
/// run. Answered when it has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndChild {
    /// Which.
    pub child: ChildId,
    /// No later one.
    pub generation: u64,
    /// Which one was kept, if it is ended because there are two.
    pub kept: Option<Pid>,
}
message!(EndChild, "node.children_end", ());

/// Hand over the records that the asked node has and the asking one is to decide about now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandOverChildren {
    /// Who asks.
    pub to: NodeName,
    /// Only those behind this one.
    pub after: Option<ChildId>,
}
message!(HandOverChildren, "node.children_hand_over", HandedOver);

/// Answers [`HandOverChildren`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandedOver {
    /// The asking node is no member yet as this one sees it, or has not read what this one says in
    /// entries, or something is under way: ask again.
    NotYet,
    /// So many of them, by id; fewer than [`CHILDREN_PAGE`] are the last.
    Page(Vec<(ChildId, ChildRecord)>),
}
