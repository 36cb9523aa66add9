//! Groups of processes, and which of their members a message is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{Name, NameError};
use crate::readable::text_when_readable;

/// The scope of a group that names none (OTP's default scope).
const SCOPE: &str = "pg";

/// The name of a group of processes of all nodes (OTP: `pg`), in a scope.
///
/// Scopes keep programs apart that use the same names. Prints as `NAME`, or `SCOPE/NAME` if the scope
/// is not `pg`, and parses back.
///
/// ```
/// use purlin_proto::Group;
///
/// let group: Group = "jobs/workers".parse()?;
/// assert_eq!(group, Group::scoped("jobs", "workers"));
/// assert_eq!(Group::new("workers"), Group::scoped("pg", "workers"));
/// # Ok::<(), purlin_proto::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// The scope.
    pub scope: Name,
    /// The name in it.
    pub name: Name,
}

impl Group {
    /// A group of the scope `pg`.
    pub fn new(name: impl Into<Name>) -> Self {
        Self { scope: Self::default_scope(), name: name.into() }
    }

    /// A group of another scope.
    pub fn scoped(scope: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { scope: scope.into(), name: name.into() }
    }

    /// The scope of groups that name none.
    pub fn default_scope() -> Name {
        Name::new(SCOPE).expect("a name")
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope.as_str() {
            SCOPE => write!(f, "{}", self.name),
            scope => write!(f, "{scope}/{}", self.name),
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Group {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            None => Ok(Self::new(Name::new(text)?)),
            Some((scope, name)) => Ok(Self::scoped(Name::new(scope)?, Name::new(name)?)),
        }
    }
}

impl From<Name> for Group {
    fn from(name: Name) -> Self {
        Self::new(name)
    }
}

impl From<&Self> for Group {
    fn from(group: &Self) -> Self {
        group.clone()
    }
}

/// A literal group.
///
/// # Panics
///
/// On a text that is not the name of a group. Text that comes from outside is parsed instead.
impl From<&'static str> for Group {
    fn from(text: &'static str) -> Self {
        match text.parse() {
            Ok(group) => group,
            Err(error) => panic!("{text:?} is not a group: {error}"),
        }
    }
}

/// On the wire.
#[derive(Serialize, Deserialize)]
struct GroupFields {
    scope: Name,
    name: Name,
}

impl From<Group> for GroupFields {
    fn from(Group { scope, name }: Group) -> Self {
        Self { scope, name }
    }
}

impl From<GroupFields> for Group {
    fn from(GroupFields { scope, name }: GroupFields) -> Self {
        Self { scope, name }
    }
}

text_when_readable!(Group, GroupFields);

/// Which members of a group a message is for. Picked by the node that sends, from the members that it
/// knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pick {
    /// Each of them, once however often it has joined; a call goes to one, at random.
    #[default]
    All,
    /// One at random.
    Random,
    /// One after the other, in turn; each node has a turn of its own.
    RoundRobin,
    /// One of the same node; if there is none, of the node with the shortest round trip known.
    Nearest,
    /// One of the node that owns this key among those that have members: the owner on the ring, or
    /// who would own it next. Always the same one while members and nodes are the same.
    Key(String),
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Random => f.write_str("random"),
            Self::RoundRobin => f.write_str("round-robin"),
            Self::Nearest => f.write_str("nearest"),
            Self::Key(key) => write!(f, "key={key}"),
        }
    }
}

/// A text that is not a [`Pick`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no way to pick members; there are all, random, round-robin, nearest and key=KEY")]
pub struct ParsePickError(String);

impl FromStr for Pick {
    type Err = ParsePickError;

    fn from_str(text: &str) -> Result<Self, ParsePickError> {
        match text {
            "all" => Ok(Self::All),
            "random" => Ok(Self::Random),
            "round-robin" => Ok(Self::RoundRobin),
            "nearest" => Ok(Self::Nearest),
            other => match other.strip_prefix("key=") {
                Some(key) => Ok(Self::Key(key.to_owned())),
                None => Err(ParsePickError(text.to_owned())),
            },
        }
    }
}
