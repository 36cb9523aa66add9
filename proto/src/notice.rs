//! What the system itself tells a process; typed messages like any other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::dest::Dest;
use crate::group::Group;
use crate::hello::Labels;
use crate::id::{NodeId, Pid, Reference};
use crate::message::Message;
use crate::name::Name;
use crate::reason::ExitReason;

/// A monitored process ended, or cannot be watched any more (OTP: `'DOWN'`).
///
/// Comes exactly once for each monitor that is not taken back, after everything that the process
/// sent to the watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// The monitor, as `monitor` returned it.
    pub reference: Reference,
    /// What was monitored, as it was given to `monitor`.
    pub target: Dest,
    /// Its exit reason, `NoProcess` or `NoConnection`.
    pub reason: ExitReason,
}

impl Message for Down {
    const NAME: &'static str = "purlin.down";
    type Reply = ();
}

/// A linked process ended and this one traps exits (OTP: `'EXIT'`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDown {
    /// The process that ended, or the one that called `exit`.
    pub pid: Pid,
    /// Its exit reason.
    pub reason: ExitReason,
}

impl Message for LinkDown {
    const NAME: &'static str = "purlin.link-down";
    type Reply = ();
}

/// A node joined or was lost.
///
/// `Up` comes before any message of that life of the node, `Down` after all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeEvent {
    /// A life of a node became a member.
    Up {
        /// Which life of which node.
        node: NodeId,
        /// Where it is.
        address: SocketAddr,
        /// What it says about itself.
        labels: Labels,
    },
    /// A life of a node was declared down, or left. It stays down.
    Down {
        /// Which life of which node.
        node: NodeId,
        /// Whether it left in good order.
        left: bool,
    },
}

impl Message for NodeEvent {
    const NAME: &'static str = "purlin.node-event";
    type Reply = ();
}

/// Processes have joined or left a group that this one monitors (OTP: `{Ref, join, Group, Pids}` and
/// `{Ref, leave, …}`).
///
/// Together they tell what has changed since the members that `monitor_group` returned. They are
/// drawn together while they wait: a process that joins and leaves before this is handled is in none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEvent {
    /// The monitor, as `monitor_group` or `monitor_scope` returned it.
    pub reference: Reference,
    /// The group.
    pub group: Group,
    /// Who has joined, as often as it has.
    pub joined: Vec<Pid>,
    /// Who has left, as often as it has; also those that have ended, or whose node is down.
    pub left: Vec<Pid>,
}

impl Message for GroupEvent {
    const NAME: &'static str = "purlin.group-event";
    type Reply = ();
}

/// This process has lost a global name: another one had it as well, on the other side of a split or
/// at the same moment, and was kept. It comes once for each name lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameConflict {
    /// The name.
    pub name: Name,
    /// Who has it now.
    pub winner: Pid,
}

impl Message for NameConflict {
    const NAME: &'static str = "purlin.name-conflict";
    type Reply = ();
}
