//! One connection for each pair of nodes: who is connected, who is being dialed, what waits.
//!
//! What is sent to a node that is not connected waits here, not at the attempt to connect; so
//! whichever connection comes about carries it, in its order.
//!
//! # Two connections to one node
//!
//! | a hello arrives while | decision |
//! |---|---|
//! | nothing is known of the node | accepted |
//! | we dial it, and have not greeted it yet | accepted; ours ends before its hello |
//! | we greet it, and its name is smaller than ours | accepted; ours will be refused there |
//! | we greet it, and our name is smaller | refused: it accepts ours |
//! | we accept another connection of this life, or a newer one | refused |
//! | connected to an older life of it | the old one is closed, the new accepted |
//! | connected to a newer life of it | refused |
//! | connected, and it says that our connection has ended on its side | replaced |
//! | connected otherwise | refused: it dialed before it accepted ours |
//!
//! Both sides come to the same choice, because the smaller name's greeting is kept and a side that
//! has accepted a connection does not greet.
//!
//! A dial may never get an answer, at an address that is not the node's any more: it keeps nobody
//! out. It looks again when it knows whom it has reached, before it says hello ([`Peers::greet`]):
//! from then on it counts as above until it is established or has failed; and it ends there if a
//! connection of that node is accepted by now.
//! Either the smaller name greets and refuses the other's hello, or it accepts that and does not
//! greet: never both, so no connection that has carried anything is replaced by its twin.
//!
//! # When one ends
//!
//! What is sent to a node after its connection has ended must not go out over the next one until all
//! who had to do with it have been told: who links to it anew, and is told of the old one after that,
//! would think that the new link is gone, and the other side would not. So the node is
//! [ending](State::Ending) until [`Events::down`](crate::Events::down) or
//! [`Events::unreachable`](crate::Events::unreachable) has returned, and nothing is taken for it: user
//! frames wait as for room, system frames find it unreachable. The same holds for what waits for an older life of a node that turns out to be a new one.
//!
//! # When an address changes
//!
//! The side that has dialed keeps its connection when its address or port changes (RFC 9000, section
//! 9): the other side sees its next packet come from there, asks the new address to prove itself and
//! goes on. Until that packet, at the latest the next keep-alive, what is sent to it is lost and sent
//! again. The side that was dialed cannot move: its packets from elsewhere are not believed, the link
//! ends by silence, and a new one is dialed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use purlin_proto::limits::FRAME_BYTES;
use purlin_proto::{Hello, NodeId, NodeName, Pieces, Refusal};

use crate::lanes::{self, HEAD};
use crate::link::{Flow, Link, Priority, Sent};

/// Bytes of user frames that may wait for one node while it is dialed; of system frames as much
/// again.
const WAITING_BYTES: usize = 16 << 20;

/// All of it must fit into one lane of the connection that comes of the dial, so it is less where
/// lanes are smaller than usual.
fn most_of_users(lane_bytes: usize) -> usize {
    WAITING_BYTES.min(lanes::most_system(lane_bytes) / 2)
}

/// The most that may wait for one node.
pub(crate) fn most_waiting(lane_bytes: usize) -> usize {
    2 * most_of_users(lane_bytes) + FRAME_BYTES
}

/// After a dial has failed sends are refused for this long, doubled for each failure.
const BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Present links by name.
pub(crate) type Links = FxHashMap<NodeName, Link>;

pub(crate) struct Peers {
    lane_bytes: usize,
    entries: BTreeMap<NodeName, Entry>,
}

struct Entry {
    state: State,
    waiting: Vec<(Flow, Pieces)>,
    waiting_bytes: usize,
    /// Connections that we have dialed and greet it on.
    greeting: u32,
    /// The association and life of a connection of it that we have accepted and not yet installed.
    welcoming: Option<(u64, u64)>,
    /// The last association that we know has ended.
    ended: u64,
    failures: u32,
    not_before: Option<Instant>,
    /// Rises with each change, for those who wait for one.
    changes: watch::Sender<u64>,
}

enum State {
    Idle,
    Dialing {
        to: NodeId,
        at: SocketAddr,
    },
    Up(Link),
    /// Its end is being told: nothing is taken for it meanwhile.
    Ending,
}

/// What a dial finds when it knows which node it has reached.
pub(crate) enum Greet {
    /// It may say hello, and what it says of the last association that has ended.
    Go { ended: u64 },
    /// There is a link.
    Linked(Link),
    /// Another connection of it is being accepted.
    Welcoming,
}

/// What became of a frame for a node.
pub(crate) enum Queued {
    Link(Link),
    Waiting,
    /// It waits, and the node is to be dialed.
    Dial,
    Refused(Sent),
    /// So much of the node's own waits that some of it would be lost unseen.
    Jammed,
}

impl Peers {
    pub(crate) fn new(lane_bytes: usize) -> Self {
        Self { lane_bytes, entries: BTreeMap::new() }
    }

    fn entry(&mut self, name: NodeName) -> &mut Entry {
        self.entries.entry(name).or_insert_with(|| Entry {
            state: State::Idle,
            waiting: Vec::new(),
            waiting_bytes: 0,
            greeting: 0,
            welcoming: None,
            ended: 0,
            failures: 0,
            not_before: None,
            changes: watch::Sender::new(0),
        })
    }

    pub(crate) fn link_to(&self, name: NodeName) -> Option<&Link> {
        match &self.entries.get(&name)?.state {
            State::Up(link) => Some(link),
            State::Idle | State::Dialing { .. } | State::Ending => None,
        }
    }

    pub(crate) fn links(&self) -> Links {
        let up = |(name, entry): (&NodeName, &Entry)| match &entry.state {
            State::Up(link) => Some((*name, link.clone())),
            State::Idle | State::Dialing { .. } | State::Ending => None,
        };
        self.entries.iter().filter_map(up).collect()
    }

    /// How many connections are being made, and how many bytes wait for one at most.
    pub(crate) fn dials(&self) -> [usize; 2] {
        let being_made = |entry: &Entry| {
            let dialing = usize::from(matches!(entry.state, State::Dialing { .. }));
            dialing + entry.greeting as usize + usize::from(entry.welcoming.is_some())
        };
        let waiting = self.entries.values().map(|entry| entry.waiting_bytes).max();
        [self.entries.values().map(being_made).sum(), waiting.unwrap_or(0)]
    }

    pub(crate) fn changes(&mut self, name: NodeName) -> watch::Receiver<u64> {
        self.entry(name).changes.subscribe()
    }

    /// Whether the node is being dialed now, or may be dialed soon.
    pub(crate) fn is_between_links(&self, name: NodeName) -> bool {
        let state = self.entries.get(&name).map(|entry| &entry.state);
        matches!(state, Some(State::Dialing { .. } | State::Ending))
    }

    /// A node that is being dialed.
    pub(crate) fn dialing(&self) -> Option<NodeName> {
        let is_dialing = |e: &Entry| matches!(e.state, State::Dialing { .. });
        let mut dialing = self.entries.iter().filter(|(_, entry)| is_dialing(entry));
        dialing.next().map(|(name, _)| *name)
    }

    /// Where a frame for this life of a node goes.
    pub(crate) fn queue(
        &mut self,
        to: NodeId,
        at: SocketAddr,
        flow: Flow,
        priority: Priority,
        now: Instant,
        frame: &Pieces,
    ) -> Queued {
        let most = most_of_users(self.lane_bytes);
        let entry = self.entry(to.name);
        let dial = match &entry.state {
            State::Up(link) if is_of(link, &to) => return Queued::Link(link.clone()),
            // Connected to another life of it, or dialing one: this one is not there.
            State::Up(_) => return Queued::Refused(Sent::Unreachable),
            State::Ending => {
                return Queued::Refused(match priority {
                    Priority::User => Sent::Full,
                    Priority::System => Sent::Unreachable,
                });
            }
            State::Dialing { to: id, .. } if *id != to => {
                return Queued::Refused(Sent::Unreachable);
            }
            State::Dialing { .. } => false,
            State::Idle if entry.not_before.is_some_and(|at| now < at) => {
                return Queued::Refused(Sent::Unreachable);
            }
            State::Idle => true,
        };
        match priority {
            Priority::User if entry.waiting_bytes >= most => return Queued::Refused(Sent::Full),
            Priority::System if entry.waiting_bytes >= 2 * most => return Queued::Jammed,
            Priority::User | Priority::System => {}
        }
        entry.waiting_bytes += frame.len() + HEAD;
        entry.waiting.push((flow, frame.clone()));
        if dial {
            entry.state = State::Dialing { to, at };
            Queued::Dial
        } else {
            Queued::Waiting
        }
    }

    /// The dial has failed. What waited is given up, unless a connection has come about meanwhile.
    pub(crate) fn dial_failed(&mut self, id: NodeId, now: Instant) -> bool {
        let entry = self.entry(id.name);
        if !matches!(entry.state, State::Dialing { to, .. } if to == id) {
            return false;
        }
        // Refused for a while, so that nothing is taken before this has been told.
        entry.state = State::Idle;
        entry.give_up();
        let backoff = BACKOFF.saturating_mul(1 << entry.failures.min(6)).min(LONGEST_BACKOFF);
        entry.failures += 1;
        entry.not_before = Some(now + backoff);
        entry.changes.send_modify(|count| *count += 1);
        true
    }

    /// What waits for a life of a node is lost, as its owner says; the address, if anything was to
    /// wait. To be followed by [`ended`](Self::ended) when that has been told.
    pub(crate) fn abandon(&mut self, id: NodeId) -> Option<SocketAddr> {
        self.abandon_if(id.name, |to| to == id).map(|(_, at)| at)
    }

    /// The same for what waits for any other life than this one, which is there.
    pub(crate) fn abandon_others(&mut self, id: NodeId) -> Option<(NodeId, SocketAddr)> {
        self.abandon_if(id.name, |to| to != id)
    }

    fn abandon_if(
        &mut self,
        name: NodeName,
        which: impl Fn(NodeId) -> bool,
    ) -> Option<(NodeId, SocketAddr)> {
        let entry = self.entries.get_mut(&name)?;
        let State::Dialing { to, at } = entry.state else { return None };
        which(to).then(|| {
            entry.give_up();
            entry.state = State::Ending;
            entry.changes.send_modify(|count| *count += 1);
            (to, at)
        })
    }

    /// Nothing is known any more of a node that nothing is going on with. One that comes back is new.
    pub(crate) fn forget(&mut self, name: NodeName) {
        let quiet = |entry: &Entry| {
            matches!(entry.state, State::Idle) && entry.greeting == 0 && entry.welcoming.is_none()
        };
        if self.entries.get(&name).is_some_and(quiet) {
            self.entries.remove(&name);
        }
    }

    /// Drops what waits for any node.
    pub(crate) fn give_up_all(&mut self) {
        self.entries.values_mut().for_each(Entry::give_up);
    }

    /// Whether a dial may say hello, now that it knows to whom; if so, [`greeted`](Self::greeted)
    /// is called when it is established or has failed.
    pub(crate) fn greet(&mut self, name: NodeName) -> Greet {
        let entry = self.entry(name);
        match &entry.state {
            State::Up(link) => Greet::Linked(link.clone()),
            _ if entry.welcoming.is_some() => Greet::Welcoming,
            State::Idle | State::Dialing { .. } | State::Ending => {
                entry.greeting += 1;
                Greet::Go { ended: entry.ended }
            }
        }
    }

    pub(crate) fn greeted(&mut self, name: NodeName) {
        self.entry(name).greeting -= 1;
    }

    /// Whether a connection that a node has begun is to be accepted; see the head. If so,
    /// [`welcomed`](Self::welcomed) is called when it is installed or has failed.
    pub(crate) fn admit(
        &mut self,
        us: NodeName,
        theirs: &Hello,
        id: NodeId,
    ) -> Result<(), Refusal> {
        let entry = self.entry(id.name);
        let ours_is_kept = us < id.name;
        match &entry.state {
            State::Idle | State::Dialing { .. } | State::Ending => {
                match entry.greeting > 0 && ours_is_kept {
                    true => Err(Refusal::Duplicate),
                    false => Ok(()),
                }
            }
            State::Up(link) => {
                let known = link.peer().node.as_ref().map_or(0, |node| node.id.creation);
                match id.creation.cmp(&known) {
                    std::cmp::Ordering::Greater => Ok(()),
                    std::cmp::Ordering::Less => Err(Refusal::Superseded { newest: known }),
                    std::cmp::Ordering::Equal if theirs.ended == link.peer().association => Ok(()),
                    std::cmp::Ordering::Equal => Err(Refusal::Duplicate),
                }
            }
        }?;
        if entry.welcoming.is_some_and(|(_, creation)| creation >= id.creation) {
            return Err(Refusal::Duplicate);
        }
        entry.welcoming = Some((theirs.association, id.creation));
        Ok(())
    }

    pub(crate) fn welcomed(&mut self, name: NodeName, association: u64) {
        let entry = self.entry(name);
        entry.welcoming = entry.welcoming.filter(|(welcoming, _)| *welcoming != association);
    }

    /// Puts a link in its place, which is free; what waited goes out over it.
    pub(crate) fn install(&mut self, id: NodeId, link: &Link) {
        let entry = self.entry(id.name);
        entry.state = State::Up(link.clone());
        entry.failures = 0;
        entry.not_before = None;
        entry.waiting_bytes = 0;
        for (flow, frame) in entry.waiting.drain(..) {
            // The queue of a new link is empty, and has room for what may wait.
            link.send_large(flow, Priority::System, frame);
        }
        entry.changes.send_modify(|count| *count += 1);
    }

    /// A link has ended; if it is the present one of its node, nothing is taken for that until
    /// [`ended`](Self::ended).
    pub(crate) fn remove(&mut self, id: NodeId, link: &Link) {
        let entry = self.entry(id.name);
        let association = link.peer().association;
        if matches!(&entry.state, State::Up(up) if up.peer().association == association) {
            entry.state = State::Ending;
            entry.ended = association;
        }
    }

    /// All have been told.
    pub(crate) fn ended(&mut self, name: NodeName) {
        let entry = self.entry(name);
        if matches!(entry.state, State::Ending) {
            entry.state = State::Idle;
            entry.changes.send_modify(|count| *count += 1);
        }
    }
}

impl Entry {
    fn give_up(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }
}

/// Whether a link leads to this life of a node.
pub(crate) fn is_of(link: &Link, id: &NodeId) -> bool {
    link.peer().node.as_ref().is_some_and(|node| node.id == *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_forgotten_when_nothing_goes_on_with_it() {
        let mut peers = Peers::new(1 << 20);
        let id = NodeId::new("a".into(), 1);
        let (at, now) = (SocketAddr::from(([127, 0, 0, 1], 1)), Instant::now());
        let frame = bytes::Bytes::from_static(b"frame").into();
        let queued = peers.queue(id, at, Flow(0), Priority::User, now, &frame);
        assert!(matches!(queued, Queued::Dial));

        peers.forget(id.name);
        assert_eq!(peers.dials()[0], 1, "it is being dialed");

        assert!(peers.dial_failed(id, now));
        peers.forget(id.name);
        assert_eq!(peers.entries.len(), 0);
    }
}
