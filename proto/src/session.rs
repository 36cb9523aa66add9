//! What a client and the node it is connected to say to each other.
//!
//! On the node a client is a process of its own, its session: it sends, calls and monitors on the
//! client's behalf, so that a client needs no address of its own, cannot speak in another's name,
//! and leaves nothing behind when its connection ends. What the session receives it passes on.
//! Everything else a client may want to know (members, processes, trees) is a call to the process
//! named [`SYSTEM`](crate::admin::SYSTEM) on some node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dest::Dest;
use crate::error::{CallError, SpawnError};
use crate::group::Group;
use crate::id::{Pid, Reference};
use crate::message::MessageName;
use crate::name::{Name, NodeName};
use crate::notice::{Down, GroupEvent};
use crate::payload::Payload;
use crate::reason::ExitReason;

/// What a client wants.
///
/// A [`Reference`] is the client's own: chosen by it, unique on its connection, repeated in what
/// comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request {
    /// Send a message; nothing comes back.
    Send {
        /// To whom.
        to: Dest,
        /// Which message.
        message: MessageName,
        /// Its body.
        payload: Payload,
    },
    /// Call; [`Update::Reply`] comes back.
    Call {
        /// Names the call.
        reference: Reference,
        /// To whom.
        to: Dest,
        /// What is left until the client gives up.
        remaining: Duration,
        /// Which message.
        message: MessageName,
        /// Its body.
        payload: Payload,
    },
    /// Monitor; one [`Update::Down`] comes back, now or later.
    Monitor {
        /// Names the monitor.
        reference: Reference,
        /// Whom.
        target: Dest,
    },
    /// Take a monitor back.
    Demonitor {
        /// The monitor.
        reference: Reference,
    },
    /// Start a process; [`Update::Spawned`] comes back.
    Spawn {
        /// Names the request.
        reference: Reference,
        /// The kind of actor.
        kind: Name,
        /// Its arguments.
        args: Payload,
        /// A name to register it under.
        name: Option<Name>,
        /// The node it is to run on; none for the one that the client is connected to.
        on: Option<NodeName>,
        /// What is left until the client gives up.
        remaining: Duration,
    },
    /// Ask a process to end; nothing comes back.
    Exit {
        /// Which process.
        target: Dest,
        /// The reason it should end with.
        reason: ExitReason,
    },
    /// Tell who is in a group, and from then on who joins and leaves it; [`Update::Group`]s come back
    /// until it is taken back ([`Demonitor`](Self::Demonitor)).
    MonitorGroup {
        /// Names the monitor.
        reference: Reference,
        /// Which.
        group: Group,
    },
}

/// What a node tells its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Update {
    /// The first one: the pid of the session. Messages sent to it reach the client.
    Welcome {
        /// The session's pid.
        session: Pid,
    },
    /// Answers a call.
    Reply {
        /// The call.
        reference: Reference,
        /// The reply in the codec of the question, or why there is none.
        result: Result<Payload, CallError>,
    },
    /// Answers a spawn.
    Spawned {
        /// The request.
        reference: Reference,
        /// The new process, or why there is none.
        result: Result<Pid, SpawnError>,
    },
    /// A monitored process ended; the reference is the client's.
    Down(Down),
    /// Somebody sent a message to the session.
    Message {
        /// Which message.
        message: MessageName,
        /// Its body.
        payload: Payload,
    },
    /// A request to which nothing else comes back was not done: the client may not do that.
    Forbidden {
        /// What was tried, as `send global:billing`.
        what: String,
    },
    /// Processes have joined or left a group that the client monitors; those that are in it at the
    /// beginning have joined. The reference is the client's.
    Group(GroupEvent),
    /// What the client may do at this node, in place of what its certificate says: each permission as
    /// its text. Comes before [`Welcome`](Self::Welcome), to a client whose hello has
    /// [`Capabilities::PERMITTED`](crate::Capabilities::PERMITTED).
    Permitted {
        /// All of it.
        may: Vec<String>,
    },
}
