//! Who is meant: a node's life, a process, a reference.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{NameError, NodeName};
use crate::readable::text_when_readable;

/// One life of a node: its name and its creation.
///
/// The name stays when a node restarts; the creation (OTP's word) rises with every life, so that
/// what belonged to an earlier one is never mistaken for the present one. A creation is the wall
/// clock in milliseconds when the life began, or one more than the last one known, whichever is
/// larger.
///
/// Prints as `name.creation` and parses back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// The name, which stays over restarts.
    pub name: NodeName,
    /// The life, which rises with each restart.
    pub creation: u64,
}

impl NodeId {
    /// The life `creation` of the node `name`.
    pub const fn new(name: NodeName, creation: u64) -> Self {
        Self { name, creation }
    }

    /// The process `serial` of this life.
    pub const fn pid(self, serial: u64) -> Pid {
        Pid { node: self, serial }
    }
}

/// The identity of one process, valid on every node of the cluster.
///
/// A pid is never reused: the serial counts up while a node lives, and [`NodeId::creation`] tells
/// the node's lives apart. It is small and `Copy`; holding one keeps nothing alive, and the process
/// it names may be long gone.
///
/// # Text form
///
/// Prints as `node.creation.serial` and parses back, so that one can be pasted from a log line into
/// the command line; there are no angle brackets as in Erlang, because a shell would take them for
/// redirections. With them it parses too.
///
/// ```
/// use purlin_proto::Pid;
///
/// let pid: Pid = "web-1.1763700000000.42".parse()?;
/// assert_eq!(pid.serial, 42);
/// assert_eq!(pid.to_string(), "web-1.1763700000000.42");
/// assert_eq!("<web-1.1763700000000.42>".parse(), Ok(pid));
/// # Ok::<(), purlin_proto::ParseIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid {
    /// The life of the node that the process runs on.
    pub node: NodeId,
    /// Counts the processes of that life; starts at 1.
    pub serial: u64,
}

/// Names one monitor, link request or call, on the node that made it and while it lives (OTP's
/// reference).
///
/// Never reused. It means nothing on other nodes: they only hand it back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference(pub u64);

/// Why a text is not a [`NodeId`] or [`Pid`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// A part is missing.
    #[error("{text:?} is not {expected}")]
    Form {
        /// What was given.
        text: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// The node's name is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// On the wire a node id is its name and creation.
type NodeIdFields = (NodeName, u64);

impl From<NodeId> for NodeIdFields {
    fn from(id: NodeId) -> Self {
        (id.name, id.creation)
    }
}

impl From<NodeIdFields> for NodeId {
    fn from((name, creation): NodeIdFields) -> Self {
        Self { name, creation }
    }
}

/// On the wire a pid is its node and serial.
type PidFields = (NodeId, u64);

impl From<Pid> for PidFields {
    fn from(pid: Pid) -> Self {
        (pid.node, pid.serial)
    }
}

impl From<PidFields> for Pid {
    fn from((node, serial): PidFields) -> Self {
        Self { node, serial }
    }
}

text_when_readable!(NodeId, NodeIdFields);
text_when_readable!(Pid, PidFields);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.creation)
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let form = || ParseIdError::Form {
            text: text.to_owned(),
            expected: "a node id: name.creation, as in web-1.1763700000000",
        };
        let (name, creation) = text.rsplit_once('.').ok_or_else(form)?;
        let creation = parse_number(creation).ok_or_else(form)?;
        Ok(Self::new(NodeName::new(name)?, creation))
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.serial)
    }
}

impl FromStr for Pid {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let form = || ParseIdError::Form {
            text: text.to_owned(),
            expected: "a pid: node.creation.serial, as in web-1.1763700000000.42",
        };
        let bare = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(text);
        let (node, serial) = bare.rsplit_once('.').ok_or_else(form)?;
        let serial = parse_number(serial).ok_or_else(form)?;
        match node.parse() {
            Ok(node) => Ok(Self { node, serial }),
            Err(ParseIdError::Form { .. }) => Err(form()),
            Err(error) => Err(error),
        }
    }
}

/// Digits only: `u64::from_str` would also take a sign.
fn parse_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
