//! What membership is told, and what it wants done. Closed enums: a log of them replays a run.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::{Labels, NodeId, NodeName, Refusal, View};
use serde::{Deserialize, Serialize};

/// Time since some start that all calls agree on.
pub type Time = Duration;

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// The present life.
    pub id: NodeId,
    /// Where others reach it.
    pub address: SocketAddr,
    /// What it says about itself.
    pub labels: Labels,
}

impl Me {
    pub(super) fn member(&self, now: Time) -> Member {
        let Self { id, address, labels } = self.clone();
        Member { id, address, labels, state: State::Up, since: now }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time has passed; see [`Membership::next_wake`](crate::Membership::next_wake).
    Tick,
    /// These are the seeds, resolved; they replace those before. Dialed again and again while this
    /// node is alone, and from time to time later.
    Join {
        /// Their addresses.
        seeds: Vec<SocketAddr>,
    },
    /// A link to a node is established, by either side.
    Connected {
        /// The life at the far end, proved.
        peer: NodeId,
        /// Where it says it can be reached.
        address: SocketAddr,
    },
    /// A link to a node has ended. Only for the history: a node may be well without a link.
    Disconnected {
        /// The life at the far end.
        peer: NodeId,
        /// Why, for people.
        why: String,
    },
    /// A datagram of membership has come.
    Datagram {
        /// From whom, proved.
        from: NodeId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A frame of membership has come on the control stream.
    State {
        /// From whom, proved.
        from: NodeId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Packets have come from a node. Any packet counts as life.
    Heard {
        /// From whom.
        peer: NodeId,
    },
    /// The system says that nothing listens at an address. It may be forged.
    UnreachableHint {
        /// The address.
        address: SocketAddr,
    },
    /// A node closed the link because it stops.
    Stopping {
        /// Which.
        peer: NodeId,
    },
    /// A node refused or closed a link because it holds this life for dead
    /// ([`Refusal::DeclaredDown`]), or answered our own refusal with that
    /// ([`Membership::answer`](crate::Membership::answer)).
    DeclaredDown {
        /// The creation of this node that it spoke of; an earlier one is no news.
        creation: u64,
        /// Which.
        by: NodeId,
        /// Where it was reached.
        at: SocketAddr,
        /// Whom it sees.
        view: Box<View>,
    },
    /// A node refused a link because it knows a newer life of this node
    /// ([`Refusal::Superseded`]). An older one than this life is no news.
    Superseded {
        /// The newest creation known.
        newest: u64,
    },
    /// Leave the cluster.
    Leave,
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect to this address, whoever is there.
    Dial {
        /// The address.
        address: SocketAddr,
    },
    /// Send a datagram, connecting if needed.
    Datagram {
        /// To whom.
        to: NodeId,
        /// Where.
        address: SocketAddr,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Send a frame on the control stream of the link, if there is one.
    State {
        /// To whom.
        to: NodeId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Make this node send any packet, now.
    Probe {
        /// Which.
        to: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// End the link to a life that is over, or that breaks the protocol.
    Disconnect {
        /// Which.
        peer: NodeId,
        /// What it is told.
        why: Refusal,
    },
    /// Tell everyone who wants to know.
    Event(Event),
    /// Nothing is remembered of a node that has long been gone, or of one among too many.
    Forgotten(NodeName),
    /// This life is over for others. Take a creation of at least this, end all links, and call
    /// [`Membership::reincarnated`](crate::Membership::reincarnated).
    Reincarnate {
        /// The smallest creation to take.
        at_least: u64,
    },
}

/// What changed in the view of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A life of a node is a member. Once for each life.
    Up(Member),
    /// A member does not answer.
    Suspect(NodeId),
    /// A suspected member answers.
    Alive(NodeId),
    /// A life of a node is over. Once for each life that was up; it never comes back.
    Down {
        /// Which.
        id: NodeId,
        /// Why.
        why: Why,
    },
    /// A member left in good order.
    Left(NodeId),
    /// What a member says about itself has become known, or has changed.
    Labels(NodeId),
}

/// Why a life is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It did not answer, here or elsewhere.
    Silent,
    /// Its port is closed and it does not answer.
    PortClosed,
    /// The node has a newer life.
    Restarted,
    /// This node has come back under a new creation, and sees everyone anew.
    Rejoining,
    /// It belongs to the smaller side of a split that has healed, and comes back.
    OtherSide,
}

/// A member, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The life.
    pub id: NodeId,
    /// Where it is.
    pub address: SocketAddr,
    /// What it says about itself; empty until it is known.
    pub labels: Labels,
    /// What is thought of it.
    pub state: State,
    /// Since when.
    pub since: Time,
}

/// What is thought of a member. On the wire as a number in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It answers.
    Up,
    /// It does not answer and has a little time left.
    Suspect,
    /// This life is over.
    Down,
    /// It left.
    Left,
}

impl State {
    /// Up or suspect: still a member.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Up | Self::Suspect)
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Silent => "it did not answer",
            Self::PortClosed => "its port is closed and it did not answer",
            Self::Restarted => "the node has a newer life",
            Self::Rejoining => "this node came back under a new creation",
            Self::OtherSide => "it was on the smaller side of a split",
        })
    }
}
