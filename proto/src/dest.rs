//! Where a message is to go.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{ParseIdError, Pid};
use crate::name::{Name, NameError, NodeName};
use crate::readable::text_when_readable;

/// Anything that can be sent to, called, monitored.
///
/// # Text form
///
/// | text | means |
/// |---|---|
/// | `web-1.1763700000000.42` | the process with this pid, wherever it lives |
/// | `hits` | the process registered as `hits` on the node that is asked |
/// | `hits@b` | the process registered as `hits` on node `b` |
///
/// ```
/// use purlin_proto::Dest;
///
/// let dest: Dest = "hits@b".parse()?;
/// assert_eq!(dest, Dest::Remote("hits".parse()?, "b".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dest {
    /// One process.
    Pid(Pid),
    /// A name on the node that resolves it. Resolved when the message arrives.
    Local(Name),
    /// A name on the given node. Resolved there, when the message arrives.
    Remote(Name, NodeName),
}

/// On the wire, with fixed variants.
#[derive(Serialize, Deserialize)]
enum DestFields {
    Pid(Pid),
    Local(Name),
    Remote(Name, NodeName),
}

impl From<Dest> for DestFields {
    fn from(dest: Dest) -> Self {
        match dest {
            Dest::Pid(pid) => Self::Pid(pid),
            Dest::Local(name) => Self::Local(name),
            Dest::Remote(name, node) => Self::Remote(name, node),
        }
    }
}

impl From<DestFields> for Dest {
    fn from(fields: DestFields) -> Self {
        match fields {
            DestFields::Pid(pid) => Self::Pid(pid),
            DestFields::Local(name) => Self::Local(name),
            DestFields::Remote(name, node) => Self::Remote(name, node),
        }
    }
}

text_when_readable!(Dest, DestFields);

/// Why a text is not a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDestError {
    /// It looks like a pid and is not one.
    #[error(transparent)]
    Pid(#[from] ParseIdError),
    /// The name, or the node's name behind `@`, is not a name.
    #[error("{text:?} is not a destination (a pid, NAME or NAME@NODE): {source}")]
    Name {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: NameError,
    },
}

impl Dest {
    /// Whether this text is taken for a pid rather than a name.
    fn looks_like_pid(text: &str) -> bool {
        text.starts_with('<') || text.parse::<Pid>().is_ok()
    }

    /// The node that this destination names; `None` for a name on the node that resolves it.
    pub fn node(&self) -> Option<NodeName> {
        match self {
            Self::Pid(pid) => Some(pid.node.name),
            Self::Local(_) => None,
            Self::Remote(_, node) => Some(*node),
        }
    }

    /// The pid, where it is one.
    pub fn pid(&self) -> Option<Pid> {
        match self {
            Self::Pid(pid) => Some(*pid),
            Self::Local(_) | Self::Remote(..) => None,
        }
    }
}

impl FromStr for Dest {
    type Err = ParseDestError;

    fn from_str(text: &str) -> Result<Self, ParseDestError> {
        if Self::looks_like_pid(text) {
            return Ok(Self::Pid(text.parse()?));
        }
        let name_error = |source| ParseDestError::Name { text: text.to_owned(), source };
        match text.rsplit_once('@') {
            None => Ok(Self::Local(Name::new(text).map_err(name_error)?)),
            Some((name, node)) => Ok(Self::Remote(
                Name::new(name).map_err(name_error)?,
                NodeName::new(node).map_err(name_error)?,
            )),
        }
    }
}

impl fmt::Display for Dest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => fmt::Display::fmt(pid, f),
            Self::Local(name) => fmt::Display::fmt(name, f),
            Self::Remote(name, node) => write!(f, "{name}@{node}"),
        }
    }
}

impl From<Pid> for Dest {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}

impl From<&Dest> for Dest {
    fn from(dest: &Dest) -> Self {
        dest.clone()
    }
}

impl From<Name> for Dest {
    fn from(name: Name) -> Self {
        Self::Local(name)
    }
}

impl From<(Name, NodeName)> for Dest {
    fn from((name, node): (Name, NodeName)) -> Self {
        Self::Remote(name, node)
    }
}

/// A literal destination, as in `node.call("hits@b", Add(5))`.
///
/// # Panics
///
/// On a text that is not a destination. Text that comes from outside is parsed instead.
impl From<&'static str> for Dest {
    fn from(text: &'static str) -> Self {
        match text.parse() {
            Ok(dest) => dest,
            Err(error) => panic!("{error}"),
        }
    }
}
