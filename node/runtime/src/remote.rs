//! The border to other nodes: what goes out ([`Remote`]) and what comes in
//! ([`Inbound`](crate::Inbound)).

use std::hash::BuildHasher;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use purlin_proto::codec::{EncodeError, Fit};
use purlin_proto::limits::SMALL_FRAME_BYTES;
use purlin_proto::{
    CallError, Codec, Direct, DirectKind, Envelope, ExitReason, Frame, MessageName, MessageRef,
    Name, NodeId, NodeName, Payload, Pid, Pieces, Reference, Signal, Spawn, SpawnError, Target,
};
use rustc_hash::FxBuildHasher;
use serde::Serialize;
use tokio::time::Instant;

use crate::aside::aside;
use crate::exclusive::{Holding, Lease};
use crate::inflow::{Charge, Inbound, OVERHEAD};
use crate::item::{BoxFuture, EncodedMessage, Item};
use crate::panics;
use crate::pending::{Newborn, Wanted};
use crate::process::{Arrived, Process};
use crate::relations::{Address, Monitoring};
use crate::reply::{EncodedReply, Sink};
use crate::runtime::{Runtime, lock};
use crate::spawn::{Announce, SpawnOptions};

/// The way to other nodes, handed to a runtime by its owner.
///
/// Envelopes of one flow to one node arrive in the order they are sent, or are lost from some
/// point on; then the owner calls [`Runtime::connection_lost`]. It calls it as well for a node that
/// an envelope was accepted for and that could not be reached after all.
pub trait Remote: Send + Sync + 'static {
    /// Sends what `encode` appends to a buffer: one frame of a flow, whose low 32 bits tell it from
    /// others. Never waits. `encode` is called once at most, and says whether there is such a frame.
    fn send(
        &self,
        to: Peer,
        flow: u64,
        priority: Priority,
        encode: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Sent;

    /// As [`send`](Self::send), for a frame that is too large to be encoded among others
    /// ([`SMALL_FRAME_BYTES`](purlin_proto::limits::SMALL_FRAME_BYTES)), or may be: nobody else is
    /// to wait while it is encoded. It comes in pieces, so that what is shared is not copied.
    fn send_large(&self, to: Peer, flow: u64, priority: Priority, frame: Pieces) -> Sent;

    /// Tells a node something about the way itself, ahead of all envelopes; nothing if there is no
    /// connection to it now.
    fn tell(&self, to: NodeName, frame: &Frame);

    /// Returns when an envelope of this flow to that node has a chance of being accepted: there
    /// is room, or the node cannot be reached. Cancel safe.
    fn ready(&self, to: Peer, flow: u64) -> BoxFuture<'_, ()>;

    /// The one of these nodes that has the shortest way, if any is known; this node is not among
    /// them.
    fn nearest(&self, among: &[NodeName]) -> Option<NodeName> {
        among.first().copied()
    }

    /// The node that owns a key, as this one sees it; `None` for this one, where there is no other.
    fn key_owner(&self, key: &[u8]) -> Option<NodeName> {
        let _ = key;
        None
    }

    /// Other nodes that can be reached and may have owned a key of this one until a moment ago,
    /// because members have changed; none if nothing has changed for a while.
    fn earlier_owners(&self, key: &[u8]) -> Vec<NodeName> {
        let _ = key;
        Vec::new()
    }

    /// Whether keys have had other owners until a moment ago, because members have changed.
    fn owners_are_new(&self) -> bool {
        false
    }

    /// The node that owned a key before members have changed lately, if that can be reached; it may be
    /// the one that owns it now.
    fn earlier_owner(&self, key: &[u8], exclusive: bool) -> Option<NodeName> {
        let _ = (key, exclusive);
        None
    }

    /// Other nodes that can be reached and would own a key of this one next, or did before it: those
    /// that may know something of it, whenever that was.
    fn neighbours(&self, key: &[u8]) -> Vec<NodeName> {
        let _ = key;
        Vec::new()
    }

    /// The node that owns a key of what runs at most once, by the newest ring view that this node
    /// knows; `None` if it knows none.
    fn exclusive_owner(&self, key: &[u8]) -> Option<NodeName> {
        let _ = key;
        None
    }

    /// Whether this node holds a key, so that its process may run here and nowhere else. Whoever
    /// implements it says with [`Runtime::holdings_changed`] when answers change, and with
    /// [`Runtime::extend_lease`] until when they are good.
    fn holding(&self, key: &[u8]) -> Holding {
        let _ = key;
        Holding::NotYet
    }

    /// Returns when what [`exclusive_owner`](Self::exclusive_owner) and [`holding`](Self::holding)
    /// answer is no older than what any node had for an answer when this was called, or when that
    /// cannot be found out within a few seconds. Cancel safe.
    fn refresh_holdings(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Whether this node may run what is exclusive.
    fn lease(&self) -> Lease {
        Lease::Never
    }

    /// The process that this node has given an exclusive global name, if it decides about that.
    fn registered(&self, name: &Name) -> Option<Pid> {
        let _ = name;
        None
    }

    /// The one of these nodes that owns a key, the same on every node.
    fn owner(&self, key: &[u8], among: &[NodeName]) -> Option<NodeName> {
        let _ = key;
        among.first().copied()
    }
}

/// The receiving node of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// This life of it, and no other.
    Life(NodeId),
    /// Whichever life is present.
    Name(NodeName),
}

impl Peer {
    /// The node's name.
    pub fn name(&self) -> NodeName {
        match self {
            Self::Life(id) => id.name,
            Self::Name(name) => *name,
        }
    }
}

/// What may be dropped when the way is jammed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Messages of users: refused when the queue is full.
    User,
    /// Everything that keeps the promises: always accepted.
    System,
}

/// What became of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Accepted,
    /// The queue is full; nothing was sent.
    Full,
    /// The node, or that life of it, cannot be reached now; nothing was sent.
    Unreachable,
    /// That life of the node is over; nothing was sent.
    Gone,
    /// It has no encoding, or is too large; nothing was sent.
    NotEncodable,
}

/// The flow of what a process says, by its serial; 0 for what none says. All that one process says to a
/// node keeps its order, whomever it speaks to there and by whatever name. What no process says has many
/// authors, as the handlers of a web server, which are not to wait for each other's large messages: it
/// keeps its order for each address that it is sent to.
pub(crate) fn flow(from: u64, to: &Target) -> u64 {
    match to {
        _ if from != 0 => from,
        Target::Serial(_) | Target::Name(_) | Target::Key { .. } | Target::Topic(_) => {
            FxBuildHasher.hash_one(to)
        }
        Target::Node | Target::Many(_) => 0,
    }
}

impl Runtime {
    pub(crate) fn send_remote(&self, to: Peer, envelope: &Envelope, priority: Priority) -> Sent {
        self.send_in(flow(envelope.from, &envelope.to), to, envelope, priority)
    }

    /// As [`send_remote`](Self::send_remote), in this flow.
    pub(crate) fn send_in(
        &self,
        flow: u64,
        to: Peer,
        envelope: &Envelope,
        priority: Priority,
    ) -> Sent {
        if envelope.signal.payload_bytes() > SMALL_FRAME_BYTES {
            return match envelope.encode_pieces() {
                Ok(frame) => {
                    self.catch_up(to.name(), envelope.from);
                    self.put_large(to, flow, priority, frame)
                }
                Err(_) => Sent::NotEncodable,
            };
        }
        self.catch_up(to.name(), envelope.from);
        let encode = &mut |out: &mut BytesMut| envelope.encode(out).is_ok();
        self.put_frame(to, flow, priority, encode)
    }

    fn put_large(&self, to: Peer, flow: u64, priority: Priority, frame: Pieces) -> Sent {
        match self.0.remote.get() {
            Some(remote) => remote.send_large(to, flow, priority, frame),
            None => Sent::Unreachable,
        }
    }

    /// Sends a frame in a flow, whatever its sender watches.
    pub(crate) fn put_frame(
        &self,
        to: Peer,
        flow: u64,
        priority: Priority,
        encode: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Sent {
        match self.0.remote.get() {
            Some(remote) => remote.send(to, flow, priority, encode),
            None => Sent::Unreachable,
        }
    }

    /// Sends a message or reply, encoded straight into the outgoing buffer; and why it could not be
    /// encoded, if that is so.
    pub(crate) fn send_direct<T: Serialize>(
        &self,
        to: Peer,
        direct: &Direct<'_, T>,
        priority: Priority,
    ) -> Result<Sent, EncodeError> {
        let mut failed = None;
        let mut large = None;
        let encode = &mut |out: &mut BytesMut| match direct.encode_small(out) {
            Ok(Fit::Whole) => true,
            Ok(Fit::TooLarge { at_least }) => {
                large = Some(at_least);
                false
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        };
        let flow = flow(direct.from, direct.to);
        self.catch_up(to.name(), direct.from);
        let sent = self.put_frame(to, flow, priority, encode);
        let Some(size) = large else { return failed.map_or(Ok(sent), Err) };
        let frame = aside(size, || direct.encode_pieces(size))?;
        Ok(self.put_large(to, flow, priority, frame))
    }

    /// Answers a call of another node; if it is gone meanwhile, nobody waits for the answer.
    pub(crate) fn answer_direct<T: Serialize>(&self, to: NodeId, direct: &Direct<'_, T>) {
        let sent = self.send_direct(Peer::Life(to), direct, Priority::System);
        let DirectKind::Reply { reference, .. } = direct.what else { return };
        let error = match sent {
            Ok(sent) => no_reply(sent),
            Err(error) => Some(CallError::Decode { detail: format!("reply: {error}") }),
        };
        if let Some(error) = error {
            let signal = Signal::Reply { reference, result: Err(error) };
            self.answer(to, Envelope { to: direct.to.clone(), from: direct.from, signal });
        }
    }

    /// Answers another node; if it is gone meanwhile, nobody waits for the answer.
    pub(crate) fn answer(&self, to: NodeId, envelope: Envelope) {
        let sent = self.send_remote(Peer::Life(to), &envelope, Priority::System);
        // A reply that cannot travel: its caller is told so instead.
        if let (Signal::Reply { reference, .. }, Some(error)) = (&envelope.signal, no_reply(sent)) {
            let signal = Signal::Reply { reference: *reference, result: Err(error) };
            let envelope = Envelope { signal, ..envelope };
            self.send_remote(Peer::Life(to), &envelope, Priority::System);
        }
    }

    pub(crate) fn receive_envelope(&self, inbound: &Inbound, envelope: Envelope) {
        let from = inbound.from;
        let Envelope { to, from: sender, signal } = envelope;
        match &to {
            Target::Many(to) => return self.receive_many(inbound, sender, to, &signal),
            Target::Topic(topic) => return self.receive_published(inbound, topic, signal),
            Target::Key { .. } if !matches!(signal, Signal::Monitor { .. }) => {
                return self.receive_keyed(inbound, sender, &to, signal);
            }
            Target::Key { .. } | Target::Serial(_) | Target::Name(_) | Target::Node => {}
        }
        let callee = || self.serial_at(&to).unwrap_or(0);
        let signal = match self.arrived(inbound, sender, callee, signal) {
            Ok((item, waits)) => return self.receive_item(inbound, &to, waits, item),
            Err(signal) => signal,
        };
        match signal {
            Signal::Reply { reference, result } => {
                match self.0.pending.take(reference, from) {
                    // Who gave up in this very moment needs no answer.
                    Some(Wanted::Reply(caller)) => drop(caller.send(result)),
                    Some(Wanted::Spawned { .. } | Wanted::Abandoned(_)) | None => {
                        self.0.counters.late_replies.add();
                    }
                }
            }
            Signal::Spawn(spawn) => self.receive_spawn(inbound, from.pid(sender), spawn),
            Signal::Spawned { reference, result } => {
                self.receive_spawned(from, reference, result);
            }
            Signal::Demonitor { reference } if to == Target::Node => {
                let watcher = from.pid(sender);
                let serial = lock(&self.0.watched_by_name).remove(&(watcher, reference));
                if let Some(process) = serial.and_then(|serial| self.process(serial)) {
                    process.apply(Address::Remote(watcher), Signal::Demonitor { reference });
                }
            }
            Signal::Down { reference, reason } if to == Target::Node => {
                self.watched_down(from.pid(sender), reference, &reason);
            }
            Signal::Joined { reference } => self.watched_joined(from.pid(sender), reference),
            other => self.receive_signal(from.pid(sender), &to, other),
        }
    }

    fn serial_at(&self, target: &Target) -> Option<u64> {
        match target {
            Target::Serial(serial) => Some(*serial),
            Target::Name(name) => self.serial_of(name),
            Target::Key { kind, key, .. } => {
                self.find_keyed(kind, key).map(|process| process.serial)
            }
            Target::Node | Target::Many(_) | Target::Topic(_) => None,
        }
    }

    /// The message that a signal brings, and whether it may wait for room; the signal, if it brings
    /// none. Its reply comes from `callee`.
    pub(crate) fn arrived(
        &self,
        inbound: &Inbound,
        sender: u64,
        callee: impl FnOnce() -> u64,
        signal: Signal,
    ) -> Result<(Item, bool), Signal> {
        match signal {
            Signal::Send { message, payload, waits } => {
                Ok((arrived_item(inbound, message, payload, None), waits))
            }
            Signal::Call { reference, remaining, message, payload } => {
                let (callee, codec) = (callee(), payload.codec);
                let reply = self.reply_to(inbound, sender, callee, reference, remaining, codec);
                Ok((arrived_item(inbound, message, payload, Some(reply)), true))
            }
            other => Err(other),
        }
    }

    /// Puts a message into a mailbox on its own: one to a name, a large one, or one that came alone.
    pub(crate) fn receive_item(&self, inbound: &Inbound, to: &Target, waits: bool, item: Item) {
        let Some(process) = self.serial_at(to).and_then(|serial| self.process(serial)) else {
            return self.dropped_dead(item);
        };
        if let Some(item) = self.receive_at(&process, inbound, to, waits, item) {
            self.dropped_dead(item);
        }
    }

    /// As [`receive_item`](Self::receive_item), to this process; the message is handed back if it is
    /// dead.
    pub(crate) fn receive_at(
        &self,
        process: &Process,
        inbound: &Inbound,
        to: &Target,
        waits: bool,
        item: Item,
    ) -> Option<Item> {
        let (arrived, refused) = process.arrive_alone(inbound, to, waits, item);
        if arrived.dead {
            return refused;
        }
        if let Some(refused) = refused {
            self.dropped_full(process, refused);
        }
        self.settle_arrived(process, arrived);
        None
    }

    /// Puts small messages to one process into its mailbox.
    pub(crate) fn receive_run(&self, inbound: &Inbound, run: &[MessageRef<'_>]) {
        let Some(first) = run.first() else { return };
        if let [message] = run {
            let item = self.item_of(inbound, message);
            return self.receive_item(inbound, &Target::Serial(message.to), message.waits, item);
        }
        let dead = |message: &MessageRef<'_>| self.dropped_dead(self.item_of(inbound, message));
        let Some(process) = self.process(first.to) else { return run.iter().for_each(dead) };
        let arrived = process.arrive(inbound, run);
        if arrived.dead {
            return run.iter().for_each(dead);
        }
        for &refused in &arrived.refused {
            self.dropped_full(&process, self.item_of(inbound, &run[refused]));
        }
        self.settle_arrived(&process, arrived);
    }

    fn item_of(&self, inbound: &Inbound, message: &MessageRef<'_>) -> Item {
        let name = MessageName::from_wire(Bytes::copy_from_slice(message.name.as_bytes()));
        let payload = Payload { codec: message.codec, bytes: Bytes::copy_from_slice(message.body) };
        let reply = message.call.map(|(reference, remaining)| {
            self.reply_to(inbound, message.from, message.to, reference, remaining, message.codec)
        });
        arrived_item(inbound, name.expect("read before"), payload, reply)
    }

    /// The way back of a call from another node.
    #[expect(clippy::unnecessary_box_returns, reason = "it is kept in a box")]
    pub(crate) fn reply_to(
        &self,
        inbound: &Inbound,
        caller: u64,
        callee: u64,
        reference: Reference,
        remaining: Duration,
        codec: Codec,
    ) -> Box<EncodedReply> {
        let runtime = self.clone();
        let sink = Sink::Wire { runtime, caller: inbound.from, to: caller, callee, reference };
        EncodedReply::new(codec, Instant::now() + remaining, sink)
    }

    pub(crate) fn settle_arrived(&self, process: &Process, arrived: Arrived) {
        for oldest in arrived.oldest {
            // Its owner's, and dropped in the network's thread.
            panics::contained("a message was dropped", || self.dropped_full(process, oldest));
        }
        if let Some(stop) = arrived.stop {
            stop.tell();
            if process.has_gone_on(&stop) {
                stop.go_on();
            }
        }
    }

    fn receive_signal(&self, from: Pid, to: &Target, signal: Signal) {
        let process = self.serial_at(to).and_then(|serial| self.process(serial));
        let Some(process) = process else {
            let serial = if let Target::Serial(serial) = to { *serial } else { 0 };
            if let Some(answer) = for_the_dead(&signal) {
                self.signal(serial, Address::Remote(from), answer);
            }
            return;
        };
        match &signal {
            Signal::Down { reference, .. } if process.watches_elsewhere(*reference, from) => {
                return self.0.counters.dropped_forged.add();
            }
            Signal::Link | Signal::Join { .. } => self.relate(&process, from.node.name),
            Signal::Monitor { reference } => {
                self.relate(&process, from.node.name);
                if matches!(to, Target::Name(_) | Target::Key { .. }) {
                    lock(&self.0.watched_by_name).insert((from, *reference), process.serial);
                    if self.process(process.serial).is_none() {
                        // It has ended meanwhile; the answer below says so.
                        lock(&self.0.watched_by_name).remove(&(from, *reference));
                    }
                }
            }
            _ => {}
        }
        if let Some(answer) = process.apply(Address::Remote(from), signal) {
            self.signal(process.serial, Address::Remote(from), answer);
        }
    }

    /// Another node's process wants one here.
    fn receive_spawn(&self, inbound: &Inbound, parent: Pid, spawn: Spawn) {
        let Spawn { reference, kind, args, name, link, monitor, .. } = spawn;
        let runtime = self.clone();
        // From the new process and before anything else of it, so that nothing it sends comes first.
        let announce = Announce::new(move |started: Result<u64, SpawnError>| {
            let from = started.as_ref().map_or(0, |serial| *serial);
            let signal = Signal::Spawned { reference, result: started };
            runtime.answer(parent.node, Envelope { to: Target::Node, from, signal });
        });
        let options = SpawnOptions {
            name,
            parent: (parent.serial != 0).then_some(parent),
            link: link.then_some(Address::Remote(parent)),
            monitor: monitor.map(|reference| (Address::Remote(parent), reference)),
            announce: Some(announce.clone()),
            hosted: None,
            over: Some(inbound.inflow.connection()),
        };
        let Some(found) = self.kind(kind.as_str()) else {
            let (kind, known) = (kind.to_string(), self.kinds().names());
            return announce.tell(Err(SpawnError::UnknownKind { kind, known }));
        };
        let started = found.spawn(self.clone(), args, options);
        self.0.executor.spawn(async move {
            if let Err(error) = started.await {
                // Unless the process itself has said so.
                announce.tell(Err(error));
            }
        });
    }

    fn receive_spawned(&self, from: NodeId, reference: Reference, result: Result<u64, SpawnError>) {
        let result = result.map(|serial| from.pid(serial));
        let (asker, newborn) = match self.0.pending.take(reference, from) {
            Some(Wanted::Spawned { asker, newborn, .. }) => (asker, newborn),
            Some(Wanted::Abandoned(newborn)) => {
                if let Ok(pid) = result {
                    let reason = ExitReason::Other("abandoned".into());
                    let down = Signal::LinkDown { reason };
                    self.signal(newborn.parent, Address::Remote(pid), down);
                }
                return;
            }
            Some(Wanted::Reply(_)) | None => return self.0.counters.late_replies.add(),
        };
        if let Ok(pid) = result {
            self.relate_newborn(pid, newborn);
        }
        // Who gave up in this very moment needs no answer.
        drop(asker.send(result));
    }

    fn relate_newborn(&self, pid: Pid, newborn: Newborn) {
        let parent = self.process(newborn.parent);
        if let Some(parent) = &parent {
            self.relate(parent, pid.node.name);
        }
        let related = parent.and_then(|parent| {
            parent.relations(|relations| {
                if newborn.link {
                    relations.link(Address::Remote(pid));
                }
                if let Some(reference) = newborn.monitor {
                    let address = Some(Address::Remote(pid));
                    let node = Some(pid.node.name);
                    let monitoring = Box::new(Monitoring { target: pid.into(), address, node });
                    relations.monitors.insert(reference, monitoring);
                }
            })
        });
        if related.is_none() && newborn.link {
            // It ended while it waited: the child is linked to nobody.
            let reason = ExitReason::NoProcess;
            self.signal(newborn.parent, Address::Remote(pid), Signal::LinkDown { reason });
        }
    }

    /// Sends a signal that carries no message to a process, here or elsewhere.
    pub(crate) fn signal(&self, from: u64, to: Address, signal: Signal) {
        match to {
            Address::Local(serial) => {
                let answer = match self.process(serial) {
                    Some(process) => process.apply(Address::Local(from), signal),
                    None => for_the_dead(&signal),
                };
                if let Some(answer) = answer {
                    self.signal(serial, Address::Local(from), answer);
                }
            }
            Address::Remote(pid) if pid.node.name == self.name() => {
                // A life of this node before this runtime's.
                if let Some(answer) = for_the_dead(&signal) {
                    self.signal_back(from, to, answer);
                }
            }
            Address::Remote(pid) => {
                let envelope = Envelope { to: Target::pid(pid), from, signal };
                let answer =
                    match self.send_remote(Peer::Life(pid.node), &envelope, Priority::System) {
                        Sent::Unreachable => for_the_unreachable(&envelope.signal),
                        Sent::Gone => for_the_dead(&envelope.signal),
                        Sent::Accepted | Sent::Full | Sent::NotEncodable => None,
                    };
                if let Some(answer) = answer {
                    self.signal_back(from, to, answer);
                }
            }
        }
    }

    /// An answer in the name of a process that cannot give it.
    pub(crate) fn signal_back(&self, to: u64, from: Address, signal: Signal) {
        if let Some(process) = self.process(to) {
            process.apply(from, signal);
        }
    }
}

/// What a caller is told instead of a reply that was not sent, if anybody can be told.
fn no_reply(sent: Sent) -> Option<CallError> {
    match sent {
        // Large replies wait without end.
        Sent::Full => Some(CallError::Overloaded),
        Sent::NotEncodable => {
            let detail = "the reply is larger than a frame may be".to_owned();
            Some(CallError::Decode { detail })
        }
        Sent::Accepted | Sent::Unreachable | Sent::Gone => None,
    }
}

/// A message of another node that is an item of its own.
fn arrived_item(
    inbound: &Inbound,
    name: MessageName,
    payload: Payload,
    reply: Option<Box<EncodedReply>>,
) -> Item {
    let charge = Some(Charge::new(&inbound.inflow, payload.bytes.len() + OVERHEAD));
    Item::Encoded(Box::new(EncodedMessage { name, payload, reply, charge }))
}

/// What a node answers for a process that is dead.
pub(crate) fn for_the_dead(signal: &Signal) -> Option<Signal> {
    match signal {
        Signal::Link => Some(Signal::LinkDown { reason: ExitReason::NoProcess }),
        Signal::Unlink { reference } => Some(Signal::UnlinkAck { reference: *reference }),
        Signal::Monitor { reference } | Signal::Join { reference } => {
            Some(Signal::Down { reference: *reference, reason: ExitReason::NoProcess })
        }
        _ => None,
    }
}

/// What the sender's own node answers when the receiver's node cannot be reached.
pub(crate) fn for_the_unreachable(signal: &Signal) -> Option<Signal> {
    let reason = ExitReason::NoConnection;
    match for_the_dead(signal)? {
        Signal::LinkDown { .. } => Some(Signal::LinkDown { reason }),
        Signal::Down { reference, .. } => Some(Signal::Down { reference, reason }),
        other => Some(other),
    }
}
