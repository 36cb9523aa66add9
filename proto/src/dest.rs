//! Where a message is to go.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::child::{ChildId, ParseChildIdError};
use crate::group::{Group, ParsePickError, Pick};
use crate::id::{ParseIdError, Pid};
use crate::key::Key;
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
/// | `global:hits` | the process that has the global name `hits`, wherever it lives |
/// | `group:workers` | every member of the group `workers`; for a call one of them, at random |
/// | `group:jobs/workers` | the same in the scope `jobs` |
/// | `group:workers:nearest` | one member; see [`Pick`] for `random`, `round-robin`, `key=KEY` |
/// | `topic:news` | every subscriber of the topic `news`; it cannot be called |
/// | `key:cart/42` | the process of the keyed kind `cart` for the key `42`, at the key's owner |
/// | `child:jobs/nightly` | the child `nightly` of the cluster supervisor `jobs`, wherever it runs |
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
    /// A global name. Resolved by the node that sends.
    Global(Name),
    /// Members of a group. Picked by the node that sends.
    Group(Group, Pick),
    /// The subscribers of a topic.
    Topic(Name),
    /// The process of a keyed kind for a key. The owner is looked up by the node that sends, and
    /// starts the process if it does not run.
    Key {
        /// The kind of actor.
        kind: Name,
        /// Which of its processes.
        key: Key,
    },
    /// A child of a cluster supervisor. Found by the node that sends; a call waits while it does not
    /// run, as when it is being moved.
    Child(ChildId),
}

/// On the wire, with fixed variants.
#[derive(Serialize, Deserialize)]
enum DestFields {
    Pid(Pid),
    Local(Name),
    Remote(Name, NodeName),
    Global(Name),
    Group(Group, Pick),
    Topic(Name),
    Key(Name, Key),
    Child(ChildId),
}

impl From<Dest> for DestFields {
    fn from(dest: Dest) -> Self {
        match dest {
            Dest::Pid(pid) => Self::Pid(pid),
            Dest::Local(name) => Self::Local(name),
            Dest::Remote(name, node) => Self::Remote(name, node),
            Dest::Global(name) => Self::Global(name),
            Dest::Group(group, pick) => Self::Group(group, pick),
            Dest::Topic(name) => Self::Topic(name),
            Dest::Key { kind, key } => Self::Key(kind, key),
            Dest::Child(child) => Self::Child(child),
        }
    }
}

impl From<DestFields> for Dest {
    fn from(fields: DestFields) -> Self {
        match fields {
            DestFields::Pid(pid) => Self::Pid(pid),
            DestFields::Local(name) => Self::Local(name),
            DestFields::Remote(name, node) => Self::Remote(name, node),
            DestFields::Global(name) => Self::Global(name),
            DestFields::Group(group, pick) => Self::Group(group, pick),
            DestFields::Topic(name) => Self::Topic(name),
            DestFields::Key(kind, key) => Self::Key { kind, key },
            DestFields::Child(child) => Self::Child(child),
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
    #[error(
        "{text:?} is not a destination (a pid, NAME, NAME@NODE, global:NAME, key:KIND/KEY, …): {source}"
    )]
    Name {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// What stands before `:` is none of the forms that there are.
    #[error(
        "{text:?} is not a destination: before the colon may be global, group, topic, key or \
         child, as in global:NAME, group:NAME, group:SCOPE/NAME:nearest, topic:NAME, \
         key:KIND/KEY, child:SUPERVISOR/CHILD"
    )]
    Form {
        /// What was given.
        text: String,
    },
    /// There is no key behind the kind.
    #[error("{text:?} is not a destination: a key is written key:KIND/KEY, as in key:cart/42")]
    NoKey {
        /// What was given.
        text: String,
    },
    /// It is no child.
    #[error(transparent)]
    Child(#[from] ParseChildIdError),
    /// The members of a group cannot be picked like that.
    #[error(transparent)]
    Pick(#[from] ParsePickError),
}

impl Dest {
    /// The process that has a global name.
    pub fn global(name: impl Into<Name>) -> Self {
        Self::Global(name.into())
    }

    /// Every member of a group; for a call one of them, at random. A member that calls its own group
    /// may be picked itself, which is [`SelfCall`](crate::CallError::SelfCall).
    pub fn group(group: impl Into<Group>) -> Self {
        Self::Group(group.into(), Pick::All)
    }

    /// One member of a group, or what else [`Pick`] says.
    ///
    /// ```
    /// use purlin_proto::{Dest, Pick};
    ///
    /// let dest = Dest::one_of("workers", Pick::Key("user:42".into()));
    /// assert_eq!(dest.to_string(), "group:workers:key=user:42");
    /// ```
    pub fn one_of(group: impl Into<Group>, pick: Pick) -> Self {
        Self::Group(group.into(), pick)
    }

    /// Every subscriber of a topic.
    pub fn topic(name: impl Into<Name>) -> Self {
        Self::Topic(name.into())
    }

    /// The process of a keyed kind for a key.
    ///
    /// ```
    /// use purlin_proto::Dest;
    ///
    /// let dest = Dest::key("cart", 42);
    /// assert_eq!(dest.to_string(), "key:cart/42");
    /// ```
    pub fn key(kind: impl Into<Name>, key: impl Into<Key>) -> Self {
        Self::Key { kind: kind.into(), key: key.into() }
    }

    /// A child of a cluster supervisor.
    ///
    /// ```
    /// use purlin_proto::Dest;
    ///
    /// let dest = Dest::child("jobs", "nightly");
    /// assert_eq!(dest.to_string(), "child:jobs/nightly");
    /// ```
    pub fn child(supervisor: impl Into<Name>, child: impl Into<Key>) -> Self {
        Self::Child(ChildId::new(supervisor, child))
    }

    /// Whether this text is taken for a pid rather than a name.
    fn looks_like_pid(text: &str) -> bool {
        text.starts_with('<') || text.parse::<Pid>().is_ok()
    }

    /// The node that this destination names; `None` for what the node that is asked resolves.
    pub fn node(&self) -> Option<NodeName> {
        match self {
            Self::Pid(pid) => Some(pid.node.name),
            Self::Remote(_, node) => Some(*node),
            Self::Local(_)
            | Self::Global(_)
            | Self::Group(..)
            | Self::Topic(_)
            | Self::Key { .. }
            | Self::Child(_) => None,
        }
    }

    /// The pid, where it is one.
    pub fn pid(&self) -> Option<Pid> {
        match self {
            Self::Pid(pid) => Some(*pid),
            _ => None,
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
        if let Some((form, rest)) = text.split_once(':') {
            return match form {
                "global" => Ok(Self::Global(Name::new(rest).map_err(name_error)?)),
                "topic" => Ok(Self::Topic(Name::new(rest).map_err(name_error)?)),
                "group" => {
                    let (group, pick) = rest.split_once(':').unwrap_or((rest, "all"));
                    Ok(Self::Group(group.parse().map_err(name_error)?, pick.parse()?))
                }
                "key" => {
                    let no_key = || ParseDestError::NoKey { text: text.to_owned() };
                    let (kind, key) = rest.split_once('/').ok_or_else(no_key)?;
                    let kind = Name::new(kind).map_err(name_error)?;
                    Ok(Self::Key { kind, key: Key::new(key).map_err(name_error)? })
                }
                "child" => Ok(Self::Child(rest.parse()?)),
                _ => Err(ParseDestError::Form { text: text.to_owned() }),
            };
        }
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
            Self::Global(name) => write!(f, "global:{name}"),
            Self::Group(group, Pick::All) => write!(f, "group:{group}"),
            Self::Group(group, pick) => write!(f, "group:{group}:{pick}"),
            Self::Topic(name) => write!(f, "topic:{name}"),
            Self::Key { kind, key } => write!(f, "key:{kind}/{key}"),
            Self::Child(child) => write!(f, "child:{child}"),
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
