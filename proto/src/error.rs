//! How a call and a spawn can fail, the same for processes, clients and the wire.

use serde::{Deserialize, Serialize};

use crate::id::Pid;
use crate::name::{Name, NodeName};
use crate::reason::ExitReason;

/// Why a call has no reply.
///
/// Except for `Timeout` and `NoConnection` it is certain whether the message was handled: with
/// `Exited` it may have been handled in part, with all others it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No reply before the deadline. A reply that comes later is dropped and counted.
    #[error("no reply before the deadline")]
    Timeout,
    /// There is no such process, or no longer.
    #[error("no such process")]
    NoProcess,
    /// Its node cannot be reached, or was lost while the call was out.
    #[error("its node is not reachable")]
    NoConnection,
    /// The process ended while it had the call.
    #[error("the process ended: {0}")]
    Exited(ExitReason),
    /// The process does not accept this message.
    #[error("a {kind:?} process does not understand {message:?}")]
    NotUnderstood {
        /// The kind of the process that was called.
        kind: String,
        /// The name of the message.
        message: String,
    },
    /// The message, or its reply, does not have the expected form.
    #[error("the message or its reply has another form: {detail}")]
    Decode {
        /// What is wrong with it.
        detail: String,
    },
    /// A queue on the way is full.
    #[error("overloaded: a queue on the way is full")]
    Overloaded,
    /// The process dropped the call without replying.
    #[error("the process dropped the call without a reply")]
    Dropped,
    /// A process called itself, which could only end by the deadline.
    #[error("a process cannot call itself")]
    SelfCall,
    /// The owner of the key does not know the kind as a keyed one.
    #[error("no keyed kind {kind:?} on {node}; it has: {}", known.join(", "))]
    NotKeyed {
        /// The kind of the destination.
        kind: String,
        /// The owner of the key.
        node: NodeName,
        /// The keyed kinds that it has.
        known: Vec<String>,
    },
    /// Nodes disagree about who owns the key, as they may for a moment when members come or go: the
    /// message was sent on once and not again. Trying again after a moment finds the owner.
    #[error("{node} does not own {key} and the message was sent on already; try again")]
    NotOwner {
        /// The destination.
        key: String,
        /// The node that refused.
        node: NodeName,
    },
    /// The client's permissions do not allow it; nothing was done.
    #[error("forbidden: the client's permissions do not allow: {what}")]
    Forbidden {
        /// What was tried, as `call global:billing`.
        what: String,
    },
}

/// Why a process was not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The node has no actor of this kind.
    #[error("no kind {kind:?} on that node; it has: {}", known.join(", "))]
    UnknownKind {
        /// The kind asked for.
        kind: String,
        /// The kinds that the node has.
        known: Vec<String>,
    },
    /// The arguments are not those of the kind.
    #[error("arguments of another form: {detail}")]
    Args {
        /// What is wrong with them.
        detail: String,
    },
    /// `start` failed; nothing is left of the process.
    #[error("start failed: {0}")]
    Start(ExitReason),
    /// The name is taken; nothing was started.
    #[error("the name {name} is taken by {holder}")]
    NameTaken {
        /// The name asked for.
        name: Name,
        /// The process that has it.
        holder: Pid,
    },
    /// The node cannot be reached, or was lost before it answered: the process may run.
    #[error("its node is not reachable")]
    NoConnection,
    /// No answer before the deadline: the process may run.
    #[error("no answer before the deadline")]
    Timeout,
    /// The node has as many processes as it may, or a queue on the way is full.
    #[error("overloaded: the node has as many processes as it may, or a queue on the way is full")]
    Overloaded,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// `start` chose not to run (OTP: `ignore`). Not a failure; nothing is left of the process.
    #[error("start chose not to run")]
    Ignored,
    /// No member that is up has the labels that were asked for; nothing was started.
    #[error("no member that is up has {wanted}; there {}", there_are(present))]
    NoMember {
        /// The labels asked for.
        wanted: String,
        /// The labels of those that are up, each once, as `zone=eu`.
        present: Vec<String>,
    },
    /// The client's permissions do not allow it; nothing was started.
    #[error("forbidden: the client's permissions do not allow: {what}")]
    Forbidden {
        /// What was tried, as `spawn counter on b`.
        what: String,
    },
}

fn there_are(labels: &[String]) -> String {
    if labels.is_empty() {
        return "are no labels".to_owned();
    }
    format!("is {}", labels.join(", "))
}
