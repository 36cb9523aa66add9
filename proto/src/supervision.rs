//! What a supervisor answers, as ordinary messages: from another node or the command line too.
//!
//! `purlin call PID supervisor.which_children` prints the children of one. Starting a child needs
//! code, so it is not among them: see `SupervisorRef::start_child` of the runtime.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::SpawnError;
use crate::id::Pid;
use crate::message::Message;
use crate::reason::ExitReason;

/// Declares a message: its type, name on the wire and reply.
macro_rules! message {
    ($type:ty, $name:literal, $reply:ty) => {
        impl Message for $type {
            const NAME: &'static str = $name;
            type Reply = $reply;
        }
    };
}

/// Whether a child is started again when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// After an abnormal end only.
    Transient,
    /// Never; it is forgotten.
    Temporary,
}

impl Restart {
    /// Whether a child is started again that has ended with this reason.
    pub fn follows(self, reason: &ExitReason) -> bool {
        self.follows_end(reason.is_orderly())
    }

    /// Whether a child is started again that has ended like that, orderly or not.
    pub fn follows_end(self, orderly: bool) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => !orderly,
            Self::Temporary => false,
        }
    }
}

/// How a child is stopped by its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shutdown {
    /// It is killed.
    BrutalKill,
    /// It is asked with `Shutdown`, and killed if it has not ended after so long.
    Timeout(Duration),
    /// It is asked with `Shutdown`, and waited for. For supervisors.
    Infinity,
}

/// Which child is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildKey {
    /// By its id in the supervisor.
    Id(String),
    /// By the pid it has now. The only way in a dynamic supervisor, whose children have no ids.
    Pid(Pid),
}

impl From<&str> for ChildKey {
    fn from(id: &str) -> Self {
        Self::Id(id.to_owned())
    }
}

impl From<Pid> for ChildKey {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}

/// What children are there? The newest first, as in OTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhichChildren;
message!(WhichChildren, "supervisor.which_children", Vec<ChildInfo>);

/// How many are there?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CountChildren;
message!(CountChildren, "supervisor.count_children", ChildCounts);

/// Stop a child, as its spec says how. It stays known, unless it is temporary or in a dynamic
/// supervisor; it is not started again by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TerminateChild {
    /// Which.
    pub child: ChildKey,
}
message!(TerminateChild, "supervisor.terminate_child", Result<(), ChildError>);

/// Start a child again that is not running.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestartChild {
    /// Its id.
    pub id: String,
}
message!(RestartChild, "supervisor.restart_child", Result<Option<Pid>, ChildError>);

/// Forget a child that is not running.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteChild {
    /// Its id.
    pub id: String,
}
message!(DeleteChild, "supervisor.delete_child", Result<(), ChildError>);

/// One child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildInfo {
    /// Its id; none in a dynamic supervisor.
    pub id: Option<String>,
    /// Its pid while it runs.
    pub pid: Option<Pid>,
    /// What it is doing.
    pub state: ChildState,
    /// Whether it is a supervisor itself.
    pub supervisor: bool,
    /// How often it was started again.
    pub restarts: u64,
    /// Its last ends, the latest first.
    pub exits: Vec<PastExit>,
}

/// What a child is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChildState {
    /// It runs.
    Running,
    /// It has ended and is to be started again, when its backoff is over.
    Restarting,
    /// It does not run and will not by itself.
    Stopped,
}

/// One end of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastExit {
    /// The process that ended; none if it could not be started.
    pub pid: Option<Pid>,
    /// Why.
    pub reason: String,
    /// Seconds since.
    pub ago_s: f64,
    /// Seconds that it had lived.
    pub lived_s: f64,
}

/// Answers [`CountChildren`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChildCounts {
    /// All that are known.
    pub specs: usize,
    /// Those that run.
    pub active: usize,
    /// Those that are to be started again.
    pub restarting: usize,
    /// Those that are supervisors.
    pub supervisors: usize,
    /// Those that are not.
    pub workers: usize,
}

/// Why a supervisor did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// There is a child with this id, and it runs.
    #[error("a child with this id is running as {0}")]
    AlreadyStarted(Pid),
    /// There is a child with this id; it does not run.
    #[error("a child with this id is known and not running: restart or delete it")]
    AlreadyPresent,
    /// There is no such child.
    #[error("no such child")]
    NotFound,
    /// It runs.
    #[error("it is running: terminate it first")]
    Running,
    /// It is to be started again by itself.
    #[error("it is about to be restarted")]
    Restarting,
    /// The supervisor has as many children as it may.
    #[error("the supervisor has as many children as it may: {limit}")]
    MaxChildren {
        /// How many.
        limit: usize,
    },
    /// Its spec contradicts itself or the supervisor's.
    #[error("{detail}")]
    Spec {
        /// How.
        detail: String,
    },
    /// A dynamic supervisor forgets a child that ends, and knows none by an id.
    #[error("a dynamic supervisor does not do this")]
    Dynamic,
    /// It could not be started.
    #[error("the child was not started: {0}")]
    Start(SpawnError),
    /// The supervisor is dead, out of reach, or did not answer in time.
    #[error("the supervisor does not answer: {0}")]
    NoSupervisor(crate::error::CallError),
}
