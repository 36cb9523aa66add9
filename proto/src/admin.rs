//! What an operator can ask of a node, as ordinary messages.
//!
//! Every node runs a process registered as [`SYSTEM`]; `purlin members` and all other reading
//! commands are calls to it. So any client, or any process, can ask the same, of any node, as JSON
//! too: `purlin call purlin@b node.status`.
//!
//! The field names here are those of `--format json` and stay. Pids, node ids and destinations are
//! text in JSON.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child::ChildId;
use crate::dest::Dest;
use crate::error::SpawnError;
use crate::hello::Labels;
use crate::id::{NodeId, Pid};
use crate::join::{JoinAnswer, JoinRequest, TokenId};
use crate::message::Message;
use crate::name::{Name, NodeName};
use crate::placement::Placement;
use crate::supervision::PastExit;

/// The name that every node's system process is registered under.
pub const SYSTEM: &str = "purlin";

/// Declares a message: its type, name on the wire and reply.
macro_rules! message {
    ($type:ty, $name:literal, $reply:ty) => {
        impl Message for $type {
            const NAME: &'static str = $name;
            type Reply = $reply;
        }
    };
}

mod certificates;
pub mod children;
mod drain;
mod entries;
mod keyed;
pub mod names;

pub use certificates::{Believe, GetTrust, ListRevocations, Renew, Revoke, TrustInfo};
pub use drain::{
    Drain, DrainPlan, DrainRest, Drained, GetDrainPlan, GetDrainRest, Move, SeesDraining,
};
pub use entries::{
    GlobalNameInfo, GroupInfo, GroupMemberInfo, JoinGroup, LeaveGroup, ListGlobalNames,
    ListGroupMembers, ListGroups, ListTopics, RegisterGlobal, SubscribeTopic, TakeGlobal,
    TopicInfo, UnsubscribeTopic, WhereIsGlobal,
};
pub use keyed::{
    DropHeldSnapshot, DropSnapshot, FollowKey, KeepSnapshot, KeyedInfo, ListKeyed, ReleaseHeldKey,
    ReleaseKey, Released, TakeKey,
};

/// What is this node, and how is it?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetStatus;
message!(GetStatus, "node.status", Status);

/// Answers [`GetStatus`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub name: NodeName,
    /// The life of it that answers.
    pub id: NodeId,
    /// Where others reach it.
    pub address: SocketAddr,
    /// The cluster's name.
    pub cluster: Name,
    /// How many members it sees as up, itself included.
    pub members_up: usize,
    /// How many it waits for before it is ready; 1 unless it was told to expect more.
    pub expects: usize,
    /// Whether it has seen as many at once, and its applications run.
    pub ready: bool,
    /// The seeds it was given, and whether they answer.
    pub seeds: Vec<SeedInfo>,
    /// How many processes run on it.
    pub processes: usize,
    /// Seconds since it started.
    pub uptime_s: f64,
    /// The version of the program.
    pub version: String,
    /// The kinds of actor that can be started on it.
    pub kinds: Vec<String>,
    /// What was lost or refused, by reason, since it started.
    pub counters: Vec<Counter>,
    /// When its certificate expires, in milliseconds since 1970.
    pub certificate_expires_ms: Option<u64>,
}

/// A seed of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedInfo {
    /// HOST:PORT, as it was given.
    pub seed: String,
    /// The addresses that it resolves to.
    pub addresses: Vec<SocketAddr>,
    /// Whether a node has answered at one of them, the last time it was tried.
    pub answers: bool,
    /// Why not.
    pub error: Option<String>,
}

/// How often something happened on a node since it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// What, as `dropped.no_process`.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// Who is a member, as this node sees it?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListMembers;
message!(ListMembers, "node.members", Vec<MemberInfo>);

/// One member, as the asked node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Its name.
    pub name: NodeName,
    /// Its life.
    pub id: NodeId,
    /// Where it is.
    pub address: SocketAddr,
    /// What the asked node thinks of it.
    pub state: MemberState,
    /// Seconds it has been in this state.
    pub since_s: f64,
    /// What it says about itself.
    pub labels: Labels,
    /// How long a packet takes there and back, in milliseconds; none without a connection.
    pub rtt_ms: Option<f64>,
    /// The part of the packets to it that were lost, 0 to 1, since it was connected.
    pub loss: Option<f64>,
    /// When its certificate expires, in milliseconds since 1970; none without a connection.
    pub certificate_expires_ms: Option<u64>,
}

/// What a node thinks of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It answers.
    Up,
    /// It does not answer and has a little time left to do so.
    Suspect,
    /// This life of it is over.
    Down,
    /// It left in good order.
    Left,
    /// It answers, and is about to leave: what runs on it moves elsewhere.
    Draining,
}

impl MemberState {
    /// Up, draining or suspect: still a member.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Up | Self::Suspect | Self::Draining)
    }

    /// Up or draining: it can be asked.
    pub fn answers(self) -> bool {
        matches!(self, Self::Up | Self::Draining)
    }
}

/// Which processes run on this node?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListProcesses {
    /// Only those with a larger serial: asks for the next page.
    pub after: u64,
}
message!(ListProcesses, "node.processes", Vec<ProcessInfo>);

/// One process, in a line. At most [`PAGE_ENTRIES`](crate::limits::PAGE_ENTRIES) a page, by serial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its pid.
    pub pid: Pid,
    /// The node it runs on.
    pub node: NodeName,
    /// Its kind.
    pub kind: String,
    /// Its name, if it has one.
    pub name: Option<Name>,
    /// Messages waiting for it.
    pub mailbox: usize,
    /// Messages it has handled.
    pub handled: u64,
    /// Messages dropped because its mailbox was full.
    pub dropped: u64,
    /// How many processes it is linked to.
    pub links: usize,
    /// How many it monitors.
    pub monitors: usize,
    /// Seconds since it started.
    pub uptime_s: f64,
}

/// Tell all about one process of this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetProcess {
    /// Its pid, or its name on this node.
    pub target: Dest,
}
message!(GetProcess, "node.process", Option<ProcessDetail>);

/// Answers [`GetProcess`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessDetail {
    /// Its pid.
    pub pid: Pid,
    /// The node it runs on.
    pub node: NodeName,
    /// Its kind.
    pub kind: String,
    /// Its name, if it has one.
    pub name: Option<Name>,
    /// What it is doing.
    pub state: ProcessState,
    /// The message it is handling, if it is.
    pub handling: Option<String>,
    /// Messages waiting for it.
    pub mailbox: usize,
    /// Messages it has handled.
    pub handled: u64,
    /// Messages dropped because its mailbox was full.
    pub dropped: u64,
    /// Whether exits of linked processes reach it as messages.
    pub traps_exits: bool,
    /// Processes it is linked to.
    pub links: Vec<Pid>,
    /// What it monitors.
    pub monitors: Vec<Dest>,
    /// Processes that monitor it; serial 0 stands for all of another node that do.
    pub monitored_by: Vec<Pid>,
    /// The process that started it, if one did.
    pub parent: Option<Pid>,
    /// Seconds since it started.
    pub uptime_s: f64,
    /// Messages it accepts.
    pub messages: Vec<String>,
}

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    /// Its `start` has not returned.
    Starting,
    /// It waits for messages.
    Waiting,
    /// It handles one.
    Running,
    /// It is ending.
    Exiting,
}

/// What supervises what on this node?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetTree;
message!(GetTree, "node.tree", Vec<TreeNode>);

/// A process and those it started. Processes without a living parent are roots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TreeNode {
    /// Its pid.
    pub pid: Pid,
    /// Its kind.
    pub kind: String,
    /// Its name, if it has one.
    pub name: Option<Name>,
    /// Its id in its supervisor, if it has one.
    pub child_id: Option<String>,
    /// How often its supervisor has restarted it.
    pub restarts: u64,
    /// Why it ended the last time.
    pub last_exit: Option<PastExit>,
    /// What it started.
    pub children: Vec<TreeNode>,
}

/// Why did a process of this node end, or why was it restarted?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetWhy {
    /// Its pid, or its name on this node. A pid may be of a process that is gone.
    pub target: Dest,
}
message!(GetWhy, "node.why", Option<Why>);

/// Answers [`GetWhy`]; none if nothing is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The process asked about.
    pub pid: Pid,
    /// Its kind.
    pub kind: String,
    /// Its name, if it has or had one.
    pub name: Option<Name>,
    /// Whether it lives.
    pub alive: bool,
    /// Its id in its supervisor, if it has one.
    pub child_id: Option<String>,
    /// How often its supervisor has restarted it.
    pub restarts: u64,
    /// The ends that are known: its own, or those before it under the same supervisor. The latest
    /// first.
    pub exits: Vec<PastExit>,
}

/// What has this node seen happen to a member?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetNodeWhy {
    /// Which.
    pub node: NodeName,
}
message!(GetNodeWhy, "node.node_why", NodeWhy);

/// Answers [`GetNodeWhy`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeWhy {
    /// The node that answers.
    pub seen_by: NodeName,
    /// The member, as it sees it; none if it knows of none.
    pub member: Option<MemberInfo>,
    /// Its probes that were not answered in time.
    pub probes_failed: u64,
    /// How often the member came under suspicion.
    pub suspected: u64,
    /// How often it refuted that.
    pub refuted: u64,
    /// How often it was stalled itself; known only to the node that is asked about.
    pub stalls: u64,
    /// For how many seconds at most.
    pub longest_stall_s: f64,
    /// The last things that happened, the oldest first.
    pub events: Vec<NodePast>,
}

/// Something that happened to a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodePast {
    /// When, or when the last time, in milliseconds since 1970 by the clock of the node that saw it.
    pub at_ms: u64,
    /// How often in a row.
    pub times: u32,
    /// What: `up`, `connected`, `disconnected`, `unanswered` (a probe), `suspected`, `alive`,
    /// `port_closed`, `answered`, `down`, `left`; and by the node itself `stalled`, `accused`,
    /// `declared_down`, `returned`.
    pub event: String,
    /// Which node had to do with it: who told of it, or who accused.
    pub by: Option<NodeId>,
    /// More of it.
    pub detail: Option<String>,
}

/// Which names are registered on this node?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListNames;
message!(ListNames, "node.names", Vec<NameInfo>);

/// One registered name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameInfo {
    /// The name.
    pub name: Name,
    /// The process that has it.
    pub pid: Pid,
    /// The node it runs on.
    pub node: NodeName,
    /// Its kind.
    pub kind: String,
}

/// Which process has this name on this node?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhereIs {
    /// The name.
    pub name: Name,
}
message!(WhereIs, "node.whereis", Option<Pid>);

/// Who owns this key on the ring of live members?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetOwner {
    /// The key.
    pub key: String,
}
message!(GetOwner, "node.owner", OwnerInfo);

/// Answers [`GetOwner`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerInfo {
    /// The key.
    pub key: String,
    /// The shard that it falls into.
    pub shard: u16,
    /// The member that owns the shard.
    pub owner: NodeName,
    /// The members that would own it next, in order.
    pub successors: Vec<NodeName>,
    /// Tells two rings apart; members that agree on who is up show the same, in hexadecimal.
    pub ring: String,
}

/// What may run at most once, as this node sees it: who decides, and its own lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetExclusive;
message!(GetExclusive, "node.exclusive", ExclusiveInfo);

/// Answers [`GetExclusive`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExclusiveInfo {
    /// Whether this node has exclusive kinds, so that it wants a lease.
    pub takes_part: bool,
    /// Which authority it belongs to, if it knows of one.
    pub authority: Option<String>,
    /// The nodes that vote, by name.
    pub voters: Vec<NodeName>,
    /// The voter that gives leases, as far as it is known here.
    pub leader: Option<NodeName>,
    /// Whether this node votes.
    pub votes: bool,
    /// Whether what it promises as a voter survives a restart.
    pub durable: bool,
    /// The number of the newest ring view known here; 0 for none.
    pub epoch: u64,
    /// Its members.
    pub members: Vec<NodeId>,
    /// For how long this node's lease is good, in seconds; none without a lease.
    pub lease_s: Option<f64>,
}

/// On which member is something to run? Of several that fit each is chosen in turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Place {
    /// What is wanted of it.
    pub on: Placement,
}
message!(Place, "node.place", Result<NodeName, SpawnError>);

/// Leave the cluster and stop; what can move is moved first, see [`Drain`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leave;
message!(Leave, "node.leave", ());

/// Was this token made from the data directory of this node? It can sign for it then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KnowsToken {
    /// Which.
    pub token: TokenId,
}
message!(KnowsToken, "node.knows_token", bool);

/// Take in whoever has sent this to another member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakeIn {
    /// What it sent.
    pub request: JoinRequest,
    /// From where, for the log.
    pub from: SocketAddr,
}
message!(TakeIn, "node.take_in", JoinAnswer);

/// Send every [`Event`] of this node to this process, until it ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subscribe {
    /// The process that wants them.
    pub subscriber: Pid,
}
message!(Subscribe, "node.subscribe", ());

/// Something that happened on a node, for people and monitoring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970 by the node's clock.
    pub at_ms: u64,
    /// The node that saw it.
    pub node: NodeName,
    /// What it was.
    pub what: What,
}
message!(Event, "node.event", ());

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum What {
    /// A life of a node became a member.
    NodeUp {
        /// Which.
        id: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// A member does not answer.
    NodeSuspect {
        /// Which.
        id: NodeId,
    },
    /// A suspected member answered after all.
    NodeAlive {
        /// Which.
        id: NodeId,
    },
    /// A life of a node is over.
    NodeDown {
        /// Which.
        id: NodeId,
        /// Why it is held for dead.
        why: String,
    },
    /// A member left in good order.
    NodeLeft {
        /// Which.
        id: NodeId,
    },
    /// A process ended with an abnormal reason.
    ProcessCrashed {
        /// Which.
        pid: Pid,
        /// Its kind.
        kind: String,
        /// The name it had.
        name: Option<Name>,
        /// Why.
        reason: String,
    },
    /// A supervisor restarted a child.
    ChildRestarted {
        /// The supervisor.
        supervisor: Pid,
        /// The child's id in it.
        child: String,
        /// The new process.
        pid: Pid,
        /// How often this child has been restarted.
        restarts: u64,
        /// Why the one before it ended.
        reason: String,
    },
    /// A name was registered.
    NameRegistered {
        /// The name.
        name: Name,
        /// The process.
        pid: Pid,
    },
    /// A name was given up, or its process ended.
    NameReleased {
        /// The name.
        name: Name,
        /// The process that had it.
        pid: Pid,
    },
    /// A child of a cluster supervisor is placed anew, stopped, or given up; seen by every node.
    ClusterChild {
        /// Which.
        child: ChildId,
        /// What has happened to it.
        event: String,
        /// Whether somebody should look: it is given up.
        alert: bool,
    },
    /// The subscriber was too slow: so many events are missing here.
    Missed {
        /// How many.
        count: u64,
    },
}

/// The default time that a call or spawn waits for its answer (OTP's default).
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
