//! Monitors of other nodes' processes: one on the wire for all that watch the same one here.
//!
//! For each process elsewhere that is watched there is one [`Entry`]: the wire's monitor, in the name
//! of this node (serial 0), and its watchers here. The target has one relation, its end is one `Down`
//! on the wire, and this node tells it to each watcher, sorted by reference. What makes a `Down` come
//! exactly once is not this table but the watcher's own list (`relations.rs` `monitors`): whatever is
//! told of a monitor that is no longer there is nothing.
//!
//! # Order
//!
//! A monitor is a signal: what a watcher sends to the target afterwards comes after it. If a watcher
//! says "crash" and dies to know why, it must not hear `noproc` because the monitor that it shares
//! came by another flow and later. So an entry keeps account of what has certainly arrived:
//!
//! | who comes | what is sent, by the flow of the one who comes | afterwards |
//! |---|---|---|
//! | the first | `Monitor` | *alone*: only this flow carries it |
//! | the same process again | nothing: its flow carries it | |
//! | the second process | `Join`, a `Monitor` that is answered | *asked* |
//! | others, until the answer `Joined` | nothing; they are *behind* | |
//! | one that is behind, and sends something to that node | `Join`, before it ([`Runtime::catch_up`]) | |
//! | anybody, after the answer | nothing: the monitor is there | *joined* |
//!
//! Monitors with one reference are one to the target. So a hundred thousand watchers cost two frames
//! and an answer, a lonely one what it always did, and sending costs one atomic load more while
//! nobody is behind. The `Down` comes by the target's flow, so behind all that it sent before; it is
//! told on the spot, as it would be if each watcher had a monitor of its own. Likewise when a
//! connection is lost, so that it is told before any `NodeEvent`; a hundred thousand watchers take
//! 40 ms of processor time, their own waking included.
//!
//! # Leaving
//!
//! A watcher that takes its monitor back, or dies, leaves the entry, and nothing is sent. With the
//! last one the entry goes and `Demonitor` is sent, by the flow of the first `Monitor`, so that it
//! cannot overtake that; and not before every `Join` has been answered, so that it cannot overtake
//! those: until then the entry stays without watchers. What `demonitor` says, and what its flush has
//! to take out of the mailbox, only the watcher's own list and mailbox decide.
//!
//! # What can cross
//!
//! - A watcher comes while `Demonitor` is under way: the entry is gone, so it is the first of a new
//!   one, with another reference. Both orders of the two at the target are the same to it.
//! - A watcher comes while the entry has no watchers and waits for an answer: the entry goes on.
//! - A watcher comes while the `Down` is under way: it is told that reason, where a monitor of its own
//!   would have come too late and told `noproc`. Nobody who has been told can come before that: the
//!   entry goes first.
//! - `Down` crosses `Demonitor`, or a `Joined` comes after its `Down`: nobody knows the reference.
//!   Whoever monitors in between has a new entry and is told `noproc`.
//! - The connection is lost: all entries of that node go at once, everyone is told `noconnection`,
//!   and the target's node forgets its side. Whoever monitors again begins a new entry; if the node
//!   has come back under a new creation, that is another pid.
//! - This node comes back under a new creation: its owner ends every connection, as above. To others
//!   serial 0 of the new life is another watcher.
//! - A `Monitor` or `Join` is sent while its entry is being lost, and goes by the next connection:
//!   it is taken back, by its sender or when it is answered.
//! - It cannot be sent, since the node is out of reach or that life of it over: all who are with the
//!   entry by then are told.
//!
//! # Who
//!
//! Every process of this node that monitors a pid, so a client's session too: clients of one node
//! that watch the same process share a monitor with each other and with the node's own processes.
//! Absent are monitors by name, since each name is resolved when it comes to its node, and monitors of
//! a process that was started with them, which are made by the other node: these have a relation each.

use std::collections::hash_map;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use purlin_proto::{Envelope, ExitReason, NodeId, NodeName, Pid, Reference, Signal, Target};
use rustc_hash::FxHashMap;

use crate::few::Few;
use crate::process::Process;
use crate::relations::Address;
use crate::remote::{Peer, Priority, Sent, flow};
use crate::runtime::{Runtime, lock};

/// All that is watched elsewhere. Its lock is a leaf.
#[derive(Default)]
pub(crate) struct Watched {
    nodes: Mutex<FxHashMap<NodeName, OnNode>>,
    /// How many processes are behind, of how many nodes.
    behind: AtomicUsize,
}

/// A process of a node: creation and serial.
type Key = (u64, u64);

fn key(pid: &Pid) -> Key {
    (pid.node.creation, pid.serial)
}

/// What is watched on one node.
#[derive(Default)]
struct OnNode {
    entries: FxHashMap<Key, Entry>,
    /// For each process that is behind, with which entries.
    behind: FxHashMap<u64, Vec<Key>>,
}

struct Entry {
    /// Names it on the wire: the reference of the watcher that was the first.
    reference: Reference,
    /// By which the first `Monitor` went.
    flow: u64,
    watchers: Watchers,
    /// How many `Join`s have no answer yet.
    unanswered: u32,
    /// Whether one has been answered.
    joined: bool,
    /// Who was behind when it came, until there is an answer.
    behind: Vec<u64>,
}

/// The watchers of one process, by reference.
type Watchers = Few<Reference, Arc<Process>>;

/// Tells each that still wants to know.
fn tell(watchers: Watchers, reason: &ExitReason) {
    for (reference, watcher) in watchers.into_iter() {
        let down = Signal::Down { reference, reason: reason.clone() };
        watcher.apply(Address::Local(0), down);
    }
}

/// What is to be sent of an entry: its reference on the wire and the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wire {
    reference: Reference,
    flow: u64,
}

/// What is to be sent because a watcher has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Come {
    Monitor(Wire),
    Join(Wire),
    Nothing,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<NodeName, OnNode>> {
        lock(&self.nodes)
    }

    /// How many processes elsewhere are watched.
    pub(crate) fn len(&self) -> usize {
        self.lock().values().map(|node| node.entries.len()).sum()
    }

    fn come(&self, target: &Pid, reference: Reference, watcher: &Arc<Process>) -> Come {
        let (mut nodes, flow) = (self.lock(), watcher.serial);
        let on_node = nodes.entry(target.node.name).or_default();
        let entry = match on_node.entries.entry(key(target)) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(vacant) => {
                let mut watchers = Watchers::default();
                watchers.insert(reference, Arc::clone(watcher));
                let (unanswered, joined, behind) = (0, false, Vec::new());
                vacant.insert(Entry { reference, flow, watchers, unanswered, joined, behind });
                return Come::Monitor(Wire { reference, flow });
            }
        };
        entry.watchers.insert(reference, Arc::clone(watcher));
        if entry.joined || entry.flow == flow {
            return Come::Nothing;
        }
        if entry.unanswered == 0 {
            entry.unanswered = 1;
            return Come::Join(Wire { reference: entry.reference, flow });
        }
        entry.behind.push(flow);
        let of = on_node.behind.entry(flow).or_insert_with(|| {
            self.behind.fetch_add(1, Ordering::Relaxed);
            Vec::with_capacity(1)
        });
        if !of.contains(&key(target)) {
            of.push(key(target));
        }
        Come::Nothing
    }

    /// A watcher has left; the `Demonitor` to send, if it was the last.
    fn leave(&self, target: &Pid, reference: Reference) -> Option<Wire> {
        let mut nodes = self.lock();
        let on_node = nodes.get_mut(&target.node.name)?;
        let left = on_node.entries.get_mut(&key(target))?.watchers.remove(&reference);
        let wire = on_node.end_if_done(target);
        if on_node.entries.is_empty() {
            nodes.remove(&target.node.name);
        }
        drop(nodes);
        // Not under the lock, since it may be the last that is left of a process.
        drop(left);
        wire
    }

    /// A `Join` has been answered; the `Demonitor` to send, if nobody waits for more.
    fn answered(&self, target: &Pid, reference: Reference) -> Option<Wire> {
        let stray = Some(Wire { reference, flow: 0 });
        let mut nodes = self.lock();
        let Some(on_node) = nodes.get_mut(&target.node.name) else { return stray };
        let entry = on_node.entries.get_mut(&key(target));
        let Some(entry) = entry.filter(|entry| entry.reference == reference) else { return stray };
        // It could be the answer to none if the other node makes it up.
        entry.unanswered = entry.unanswered.saturating_sub(1);
        entry.joined = true;
        let behind = std::mem::take(&mut entry.behind);
        let caught_up = on_node.caught_up(&behind, key(target));
        let wire = on_node.end_if_done(target);
        if on_node.entries.is_empty() {
            nodes.remove(&target.node.name);
        }
        self.no_longer_behind(&nodes, caught_up);
        wire
    }

    /// The target, or the way to it, has ended.
    fn take(&self, target: &Pid, reference: Reference) -> Option<Watchers> {
        let mut nodes = self.lock();
        let on_node = nodes.get_mut(&target.node.name)?;
        let hash_map::Entry::Occupied(entry) = on_node.entries.entry(key(target)) else {
            return None;
        };
        if entry.get().reference != reference {
            return None;
        }
        let Entry { watchers, behind, .. } = entry.remove();
        let caught_up = on_node.caught_up(&behind, key(target));
        if on_node.entries.is_empty() {
            nodes.remove(&target.node.name);
        }
        self.no_longer_behind(&nodes, caught_up);
        Some(watchers)
    }

    /// The connection to a node is lost.
    fn lost(&self, node: NodeName) -> impl Iterator<Item = Watchers> + use<> {
        let mut nodes = self.lock();
        let on_node = nodes.remove(&node).unwrap_or_default();
        self.no_longer_behind(&nodes, on_node.behind.len());
        on_node.entries.into_values().map(|entry| entry.watchers)
    }

    /// The monitors that a process must send now, before anything else to this node.
    fn catch_up(&self, node: NodeName, flow: u64) -> Vec<(Key, Reference)> {
        let mut nodes = self.lock();
        let Some(on_node) = nodes.get_mut(&node) else { return Vec::new() };
        let Some(keys) = on_node.behind.remove(&flow) else { return Vec::new() };
        let join = |key| {
            let entry = on_node.entries.get_mut(&key)?;
            entry.unanswered += 1;
            Some((key, entry.reference))
        };
        let joins = keys.into_iter().filter_map(join).collect();
        self.no_longer_behind(&nodes, 1);
        joins
    }

    /// Keeps the count, under the lock, so that whoever sends need not take it.
    fn no_longer_behind(&self, nodes: &FxHashMap<NodeName, OnNode>, count: usize) {
        self.behind.fetch_sub(count, Ordering::Relaxed);
        debug_assert_eq!(
            self.behind.load(Ordering::Relaxed),
            nodes.values().map(|on_node| on_node.behind.len()).sum::<usize>(),
            "the count is that of the table"
        );
    }

    fn holds(&self, target: &Pid, reference: Reference) -> bool {
        let nodes = self.lock();
        let entry = nodes.get(&target.node.name).and_then(|node| node.entries.get(&key(target)));
        entry.is_some_and(|entry| entry.reference == reference)
    }
}

impl OnNode {
    /// Ends an entry that nobody watches by any more, unless an answer is still to come.
    fn end_if_done(&mut self, target: &Pid) -> Option<Wire> {
        let entry = self.entries.get(&key(target))?;
        if !entry.watchers.is_empty() || entry.unanswered > 0 {
            return None;
        }
        let wire = Wire { reference: entry.reference, flow: entry.flow };
        self.entries.remove(&key(target));
        Some(wire)
    }

    /// These are no longer behind with an entry; how many now are with none.
    fn caught_up(&mut self, serials: &[u64], with: Key) -> usize {
        let before = self.behind.len();
        for serial in serials {
            if let hash_map::Entry::Occupied(mut of) = self.behind.entry(*serial) {
                of.get_mut().retain(|key| *key != with);
                if of.get().is_empty() {
                    of.remove();
                }
            }
        }
        before - self.behind.len()
    }
}

impl Runtime {
    /// A process, which has noted it, watches one of another node.
    pub(crate) fn watch(&self, watcher: &Arc<Process>, reference: Reference, target: Pid) {
        match self.0.watched.come(&target, reference, watcher) {
            Come::Nothing => {}
            Come::Join(wire) => {
                self.send_wire(target, wire, Signal::Join { reference: wire.reference });
            }
            Come::Monitor(wire) => {
                let sent = self.send_wire(target, wire, Signal::Monitor { reference });
                if sent && !self.0.watched.holds(&target, reference) {
                    // The connection was lost before it was sent; it may be on its way by the next.
                    self.send_wire(target, wire, Signal::Demonitor { reference });
                }
            }
        }
        if self.process(watcher.serial).is_none() {
            // It has ended meanwhile, before it was listed.
            self.unwatch(target, reference);
        }
    }

    pub(crate) fn unwatch(&self, target: Pid, reference: Reference) {
        if let Some(wire) = self.0.watched.leave(&target, reference) {
            self.send_wire(target, wire, Signal::Demonitor { reference: wire.reference });
        }
    }

    /// A process that is watched by this node has ended.
    pub(crate) fn watched_down(&self, target: Pid, reference: Reference, reason: &ExitReason) {
        if let Some(watchers) = self.0.watched.take(&target, reference) {
            tell(watchers, reason);
        }
    }

    pub(crate) fn watched_joined(&self, target: Pid, reference: Reference) {
        if let Some(wire) = self.0.watched.answered(&target, reference) {
            self.send_wire(target, wire, Signal::Demonitor { reference: wire.reference });
        }
    }

    pub(crate) fn watched_lost(&self, node: NodeName) {
        for watchers in self.0.watched.lost(node) {
            tell(watchers, &ExitReason::NoConnection);
        }
    }

    /// To be called before a process sends anything to a node: what it watches there is known there
    /// first.
    pub(crate) fn catch_up(&self, node: NodeName, sender: u64) {
        if self.0.watched.behind.load(Ordering::Relaxed) == 0 || sender == 0 {
            return;
        }
        for ((creation, serial), reference) in self.0.watched.catch_up(node, sender) {
            let target = NodeId::new(node, creation).pid(serial);
            let wire = Wire { reference, flow: sender };
            self.send_wire(target, wire, Signal::Join { reference });
        }
    }

    /// Sends what concerns an entry, in the name of this node; if that is impossible, it is the end
    /// of the entry. Whether it was sent.
    fn send_wire(&self, target: Pid, wire: Wire, signal: Signal) -> bool {
        let envelope = Envelope { to: Target::Serial(target.serial), from: 0, signal };
        let (peer, priority) = (Peer::Life(target.node), Priority::System);
        let encode = &mut |out: &mut bytes::BytesMut| envelope.encode(out).is_ok();
        let reason = match self.put_frame(peer, flow(wire.flow, &envelope.to), priority, encode) {
            Sent::Accepted | Sent::Full | Sent::NotEncodable => return true,
            Sent::Unreachable => ExitReason::NoConnection,
            Sent::Gone => ExitReason::NoProcess,
        };
        self.watched_down(target, wire.reference, &reason);
        false
    }
}
