//! What the system itself tells a process; typed messages like any other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::dest::Dest;
use crate::hello::Labels;
use crate::id::{NodeId, Pid, Reference};
use crate::message::Message;
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
