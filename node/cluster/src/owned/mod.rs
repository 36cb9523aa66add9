//! What each node says of its own processes, on every other node (groups, topics, names).
//!
//! Every entry is written by one node only, the one that owns the process; so there is nothing to
//! merge, no clock to compare, and no tombstone to keep for ever. An entry means nothing here: it is
//! bytes.
//!
//! # How it spreads
//!
//! - Each node has a log of its own entries and a replica of everyone else's.
//! - **Push**: when the own log grows, every peer gets a page, and the next one when it says that it
//!   has read that (`Said::Ask`). What changes meanwhile is in the next page. So one page at most is
//!   under way to a peer, however fast the log grows, and there is no queue.
//! - **Pull**: every 15 s one random peer is told how far all logs are read (`Said::Heads`); whoever
//!   lacks something asks for it, page by page. The peer may serve any log, not only its own.
//! - A reader that is too far behind gets a full copy, which takes the place of the old at once.
//!
//! # What if
//!
//! - *a node is down*: its replica goes in one step ([`Output::Vanished`]). Only logs of nodes that
//!   membership sees as live are read or served, and a life that was down is never live again; so
//!   nothing of it can come back.
//! - *a node comes back under a new creation*: its entries are in its own log as before, and go out
//!   under the new life. If it is this node, it sees everyone anew.
//! - *a link is lost*: with it, what was under way. Both ask again when there is a new one.
//! - *a peer sees us as live later than we see it*: it ignores what we said until then; when it sees
//!   us, it sends its log and asks for ours.
//! - *something is lost all the same*: the next comparison finds it.
//! - *a peer lies about another's log*: where there is a link to the owner, nobody else is believed;
//!   and what others said while there was none is read anew from the owner when there is one. It
//!   takes the place of the old in one step, so that nobody sees entries go and come back.
//! - *a peer sends what no log has*: [`Output::Violation`]; the link is to be closed. What cannot be
//!   decoded in an entry is its reader's affair, so that newer nodes may say more than older ones
//!   understand.
//!
//! # Bounds
//!
//! [`OWNED_ENTRIES`](purlin_proto::limits::OWNED_ENTRIES) an owner, of
//! [`OWNED_ENTRY_BYTES`](purlin_proto::limits::OWNED_ENTRY_BYTES) each, and as many removals. The
//! owner's program sees to it that its own log stays within.

mod log;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::limits::{MEMBERS, STATE_BYTES};
use purlin_proto::{NodeId, codec};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use log::{Blob, Bounds, Change};
use log::{Log, Read, Replica};
use wire::{Page, Position, Said};

use crate::membership::Time;

/// How often logs are compared with one random peer.
const SYNC_EVERY: Duration = Duration::from_secs(15);

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time has passed; see [`Owned::next_wake`].
    Tick,
    /// A life of a node is a member.
    Up(NodeId),
    /// A life of a node is over, or left.
    Down(NodeId),
    /// There is a new link to a node.
    Connected(NodeId),
    /// The link to a node is lost.
    Disconnected(NodeId),
    /// A node says something.
    Said {
        /// Which, proved.
        from: NodeId,
        /// What.
        bytes: Bytes,
    },
    /// Entries of this node have changed.
    Own(Vec<Change>),
    /// This node has come back under a new creation. Everyone else is to come
    /// [`Up`](Self::Up) again.
    Reincarnated(NodeId),
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell a node something, on the control stream of the link. If there is none, one is to be made,
    /// and this may be lost.
    Say {
        /// To whom.
        to: NodeId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Entries of another node have changed, all at once.
    Changed {
        /// Whose.
        owner: NodeId,
        /// Each key once.
        changes: Vec<Change>,
    },
    /// Everything of a node is gone.
    Vanished(NodeId),
    /// A node breaks the protocol.
    Violation {
        /// Which.
        peer: NodeId,
        /// How.
        detail: String,
    },
}

/// The own log of a node and its replicas of all others.
#[derive(Debug)]
pub struct Owned {
    me: NodeId,
    bounds: Bounds,
    own: Log,
    /// The nodes that are live.
    peers: BTreeMap<NodeId, Peer>,
    /// The nodes that there is a link to.
    linked: BTreeSet<NodeId>,
    chance: StdRng,
    next_sync: Time,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Peer {
    replica: Replica,
    /// How far it has read our log.
    at: Position,
    /// How far our log was when it came up, and whether it has read that.
    first: u64,
    has_read: bool,
    /// The position it will have when it has read the page that is under way to it.
    reading: Option<u64>,
}

impl Owned {
    /// A node without entries that knows nobody yet.
    pub fn new(me: NodeId, bounds: Bounds, seed: u64, now: Time) -> Self {
        Self {
            me,
            bounds,
            own: Log::new(bounds),
            peers: BTreeMap::new(),
            linked: BTreeSet::new(),
            chance: StdRng::seed_from_u64(seed),
            next_sync: now + SYNC_EVERY,
            outputs: VecDeque::new(),
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn next_wake(&self) -> Time {
        self.next_sync
    }

    /// Whether a node has read all that this one said before it was up, as far as it has said so.
    pub fn has_read(&self, peer: &NodeId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.has_read)
    }

    /// This node's entries, by key.
    pub fn own(&self) -> impl Iterator<Item = (&Blob, &Blob)> {
        self.own.entries()
    }

    /// Something happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Tick if now < self.next_sync => {}
            Input::Tick => {
                let jitter = self.chance.random_range(0.9..1.1);
                self.next_sync = now + SYNC_EVERY.mul_f64(jitter);
                self.sync();
            }
            Input::Up(peer) => {
                if peer != self.me && !self.peers.contains_key(&peer) {
                    let replica = Replica::new(self.bounds);
                    let (at, first) = (Position::default(), self.own.head());
                    let known = Peer { replica, at, first, has_read: first == 0, reading: None };
                    self.peers.insert(peer, known);
                    self.greet(peer);
                }
            }
            Input::Down(peer) => {
                if self.peers.remove(&peer).is_some() {
                    self.outputs.push_back(Output::Vanished(peer));
                }
            }
            Input::Connected(peer) => {
                self.linked.insert(peer);
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.replica.verify();
                }
                self.greet(peer);
            }
            Input::Disconnected(peer) => drop(self.linked.remove(&peer)),
            Input::Said { from, bytes } => self.said(from, &bytes),
            Input::Own(changes) => {
                for (key, value) in changes {
                    self.own.change(key, value);
                }
                let peers: Vec<_> = self.peers.keys().copied().collect();
                for peer in peers {
                    self.push(peer);
                }
            }
            Input::Reincarnated(me) => {
                self.me = me;
                let gone = std::mem::take(&mut self.peers).into_keys().map(Output::Vanished);
                self.outputs.extend(gone);
            }
        }
    }

    /// On a new link, or with a new member: nothing is under way, and both want each other's log.
    fn greet(&mut self, to: NodeId) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.reading = None;
        let at = peer.replica.position();
        self.say(to, &Said::Ask { owner: to, at, again: true });
        self.push(to);
    }

    /// Sends a peer the next page of our log, unless it is still reading one.
    fn push(&mut self, to: NodeId) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        // Who copies wants to hear its end, also of nothing.
        let lacks = peer.at.after < self.own.head() || peer.at.copy.is_some();
        if peer.reading.is_none() && lacks {
            let page = self.own.page(peer.at);
            peer.reading = Some(page.upto);
            self.say(to, &Said::Page { owner: self.me, page });
        }
    }

    /// Compares with a random peer.
    fn sync(&mut self) {
        if self.peers.is_empty() {
            return;
        }
        let chosen = self.chance.random_range(0..self.peers.len());
        let chosen = self.peers.keys().nth(chosen).copied();
        if let Some(peer) = chosen {
            self.say(peer, &Said::Heads { heads: self.heads(), answer: true });
        }
    }

    fn heads(&self) -> Vec<(NodeId, u64)> {
        let others = self.peers.iter().map(|(id, peer)| (*id, peer.replica.position().after));
        others.chain([(self.me, self.own.head())]).collect()
    }

    fn said(&mut self, from: NodeId, bytes: &[u8]) {
        if !self.peers.contains_key(&from) {
            return;
        }
        match codec::from_bytes(bytes, STATE_BYTES) {
            Ok(Said::Heads { heads, .. }) if heads.len() > MEMBERS => {
                self.violation(from, "more heads than members");
            }
            Ok(Said::Heads { heads, answer }) => {
                self.compare(from, &heads.into_iter().collect(), answer);
            }
            Ok(Said::Ask { owner, at, again }) => self.asked(from, owner, at, again),
            Ok(Said::Page { owner, page }) => self.read(from, owner, page),
            Err(error) => self.violation(from, error),
        }
    }

    fn violation(&mut self, peer: NodeId, detail: impl std::fmt::Display) {
        self.outputs.push_back(Output::Violation { peer, detail: detail.to_string() });
    }

    fn compare(&mut self, from: NodeId, heads: &BTreeMap<NodeId, u64>, answer: bool) {
        let mut lacks = false;
        let mut asks = Vec::new();
        for (owner, peer) in &self.peers {
            let at = peer.replica.position();
            let theirs = heads.get(owner).copied().unwrap_or(0);
            lacks |= theirs < peer.replica.log().head();
            if at.after < theirs {
                asks.push(Said::Ask { owner: *owner, at, again: true });
            }
        }
        for ask in asks {
            self.say(from, &ask);
        }
        // Whatever we have sent it: this is how far it is.
        if let (Some(&after), Some(peer)) = (heads.get(&self.me), self.peers.get_mut(&from))
            && after < self.own.head()
        {
            (peer.at, peer.reading) = (Position { after, copy: None }, None);
            self.push(from);
        }
        if answer && lacks {
            self.say(from, &Said::Heads { heads: self.heads(), answer: false });
        }
    }

    fn asked(&mut self, from: NodeId, owner: NodeId, at: Position, again: bool) {
        if owner != self.me {
            let replica = self.peers.get(&owner).map(|peer| peer.replica.log());
            if let Some(log) = replica.filter(|log| log.head() > at.after) {
                let page = log.page(at);
                self.say(from, &Said::Page { owner, page });
            }
            return;
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.has_read |= at.copy.is_none() && at.after >= peer.first;
        // Said before it had the page that is on its way.
        if !again && peer.reading.is_some_and(|upto| at.after < upto) {
            return;
        }
        (peer.at, peer.reading) = (at, None);
        self.push(from);
    }

    fn read(&mut self, from: NodeId, owner: NodeId, page: Page) {
        let Some(peer) = self.peers.get_mut(&owner) else { return };
        if owner != from && self.linked.contains(&owner) {
            tracing::debug!(%from, %owner, "entries of a node that speaks for itself");
            return;
        }
        let read = match peer.replica.take(page, owner == from) {
            Ok(read) => read,
            Err(invalid) => return self.violation(from, invalid),
        };
        let (at, again) = (peer.replica.position(), read == Read::Gap);
        // The owner waits for an answer to each page; whoever else has nothing new need not go on.
        if owner == from || read != Read::Known {
            self.say(from, &Said::Ask { owner, at, again });
        }
        if let Read::On(changes) = read
            && !changes.is_empty()
        {
            self.outputs.push_back(Output::Changed { owner, changes });
        }
    }

    fn say(&mut self, to: NodeId, said: &Said) {
        match codec::to_bytes(said) {
            Ok(bytes) => self.outputs.push_back(Output::Say { to, bytes }),
            Err(error) => tracing::error!(%to, %error, "cannot be said"),
        }
    }
}
