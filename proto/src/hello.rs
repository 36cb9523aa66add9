//! The first words on a connection: who is calling, of which cluster, speaking which versions.
//!
//! The dialing side sends a [`Hello`] on its control stream; the other answers with its own, or
//! with a [`Refusal`] that says why and closes. Nothing else is read before. What a hello claims is
//! believed only as far as the certificate proves it: [`Hello::name`] and [`Hello::is_node`] must
//! be those of the certificate.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::limits::{CREATION, LABEL_BYTES, LABELS};
use crate::name::{Name, NodeName};
use crate::serial::Serial;

/// The newest protocol version this build speaks.
pub const VERSION: u16 = 1;

/// The oldest protocol version this build still speaks.
pub const OLDEST_VERSION: u16 = 1;

/// A range of protocol versions; both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Versions {
    /// What this build speaks.
    pub const OURS: Self = Self { oldest: OLDEST_VERSION, newest: VERSION };

    /// The newest version that both speak, if there is one.
    pub fn agree(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest && newest >= other.oldest).then_some(newest)
    }
}

/// What a certificate lets its holder be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs processes and is a member.
    Node,
    /// Talks to processes as far as its permissions go; is not a member.
    Client,
    /// A client that may do everything a client can, and administer nodes.
    Operator,
}

/// Optional abilities, one bit each; an unknown bit is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// A client that understands [`Update::Permitted`](crate::session::Update::Permitted).
    pub const PERMITTED: Self = Self(1);

    /// Whether all of these are there.
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// Where and what a node is, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHello {
    /// The life that speaks.
    pub id: NodeId,
    /// Where others reach it.
    pub address: SocketAddr,
}

impl NodeHello {
    /// Checks the bounds of what a node says about itself.
    pub fn check(&self) -> Result<(), String> {
        if self.id.creation > CREATION {
            return Err(format!("creation {} is above {CREATION}", self.id.creation));
        }
        Ok(())
    }
}

/// The first frame of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions that the sender speaks.
    pub versions: Versions,
    /// The cluster it belongs to; both sides must name the same.
    pub cluster: Name,
    /// Its name: of the node, or of the client's certificate.
    pub name: NodeName,
    /// Set by nodes only.
    pub node: Option<NodeHello>,
    /// What it is able to do beyond its version.
    pub capabilities: Capabilities,
    /// Names this association (the life of one connection); chosen by the dialing side, repeated
    /// in the answer.
    pub association: u64,
    /// The last association with this peer that the sender knows has ended, 0 for none. It tells a
    /// reconnect from two simultaneous dials.
    pub ended: u64,
}

impl Hello {
    /// Whether the sender claims to be a node. Which kind of client it is otherwise is in its
    /// certificate alone.
    pub fn is_node(&self) -> bool {
        self.node.is_some()
    }
}

/// Why a connection is refused, or ended for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No version in common.
    #[error("it speaks protocol versions {}-{}, we speak {}-{}: upgrade the older side",
        theirs.oldest, theirs.newest, ours.oldest, ours.newest)]
    Version {
        /// What the refusing side speaks.
        theirs: Versions,
        /// What the refused side speaks.
        ours: Versions,
    },
    /// Another cluster.
    #[error("it belongs to cluster {theirs:?}: check --cluster and the seed addresses")]
    Cluster {
        /// The cluster of the refusing side.
        theirs: Name,
    },
    /// The certificate does not say what the hello says.
    #[error("certificate and hello do not agree: {detail}")]
    Identity {
        /// What differs.
        detail: String,
    },
    /// The certificate's role may not do this.
    #[error("not allowed: {detail}")]
    Role {
        /// What was tried.
        detail: String,
    },
    /// Both sides dialed at once and the other connection is kept.
    #[error("another connection between the two nodes is kept")]
    Duplicate,
    /// The refusing side holds this life of the node for dead. One of the two must come back under
    /// a new creation; which of them, both tell from their views.
    #[error("{by} has declared down creation {creation} of this node")]
    DeclaredDown {
        /// The life that is held for dead.
        creation: u64,
        /// The life that refuses.
        by: NodeId,
        /// Whom the refusing side sees.
        view: Box<View>,
    },
    /// This life is older than one already seen.
    #[error("a newer life of that node is known: creation {newest}")]
    Superseded {
        /// The newest creation known.
        newest: u64,
    },
    /// A live member with this name exists elsewhere.
    #[error("the name {name} is taken by a live member at {address}")]
    NameTaken {
        /// The name in question.
        name: NodeName,
        /// Where its holder is.
        address: SocketAddr,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// The node has as many connections as it may.
    #[error("the node has as many connections as it may")]
    Busy,
    /// It sent something that is not of the protocol.
    #[error("protocol violation: {detail}")]
    Protocol {
        /// What it was.
        detail: String,
    },
    /// The node is coming back and takes the cluster's state from another first.
    #[error("the node is just joining: try again")]
    Joining,
    /// Nothing has come over the connection for as long as a node may be silent.
    #[error("nothing came over the connection for too long")]
    Silent,
    /// The certificate of the refused side was revoked.
    #[error("the certificate {serial} has been revoked: a new one is had with a new token")]
    Revoked {
        /// Its number.
        serial: Serial,
    },
}

/// Whom a node sees as live, itself included, in short: enough to tell how much of it another view
/// shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// How many.
    pub members: u32,
    /// The smallest name among them.
    pub first: NodeName,
    /// The smallest hashes of their ids, rising; all of them if they are at most
    /// [`VIEW_SAMPLE`](crate::limits::VIEW_SAMPLE).
    pub sample: Vec<u64>,
}

/// Free-form facts about a node (`zone=a`), for people and placement.
pub type Labels = BTreeMap<String, String>;

/// Checks the bounds of a set of labels.
pub fn check_labels(labels: &Labels) -> Result<(), String> {
    if labels.len() > LABELS {
        return Err(format!("at most {LABELS} labels, these are {}", labels.len()));
    }
    match labels
        .iter()
        .find(|(k, v)| k.is_empty() || k.len() > LABEL_BYTES || v.len() > LABEL_BYTES)
    {
        None => Ok(()),
        Some((key, _)) => {
            Err(format!("label {key:?}: key and value have 1 to {LABEL_BYTES} bytes"))
        }
    }
}
