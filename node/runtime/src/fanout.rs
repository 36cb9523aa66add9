//! One message to many processes: encoded once, and one frame for each node.
//!
//! Receivers of this node get clones of the value, as they would get the value itself from
//! [`Runtime::send`]: nothing is encoded for them, and what cannot be encoded reaches them all the
//! same. For all others the message is encoded once, and each node gets it once, with the list of
//! its receivers ([`Target::Many`]); there they share the bytes of the frame. A message that goes to
//! a single process of a node, or to a name, goes as it always does, in the form that was made once.
//!
//! Everything is on the sender's one flow to each node, so the order to each receiver is that of
//! [`Runtime::send`]; what no process sends to several keeps its order among what is sent to several.
//! Between different receivers there is none, which is why their list may be sorted.
//!
//! # The end of a process
//!
//! Those it was linked to are told likewise: one `LinkDown` for each node, by the flow of the process
//! that has ended, behind all that it sent. To the protocol of unlinking (`relations.rs`) nothing has
//! changed: who is to be told is decided here as ever, and each receiver there looks at its own end of
//! the link, as if the signal had come to it alone.
//!
//! What else is sent at an end is different for each receiver: a `Down` names the receiver's monitor,
//! a `Demonitor` the sender's. Since monitors are shared (`watched.rs`), there is one `Down` for each
//! node, but for monitors by name; and a `Demonitor` is hardly more than the two serials it needs, in
//! one packet with its like. So these have a frame each.

use std::collections::BTreeMap;
use std::sync::Arc;

use purlin_proto::{
    Codec, Dest, Envelope, ExitReason, Key, Message, MessageName, Name, NodeId, Payload, Serials,
    Signal, Target,
};
use rustc_hash::FxHashMap;

use crate::inflow::{Charge, Inbound};
use crate::item::{EncodedMessage, Item};
use crate::process::Process;
use crate::relations::Address;
use crate::remote::{Peer, Priority};
use crate::reply::Reply;
use crate::route::Route;
use crate::runtime::Runtime;

/// The receivers of one message, by the way they are reached.
#[derive(Default)]
struct Receivers {
    here: Vec<Arc<Process>>,
    there: FxHashMap<NodeId, Vec<u64>>,
    by_name: Vec<(Peer, Target)>,
    /// Of keys that this node owns.
    keyed: Vec<(Name, Key)>,
}

impl Receivers {
    /// How many are on other nodes.
    fn away(&self) -> u64 {
        let there: usize = self.there.values().map(Vec::len).sum();
        (there + self.by_name.len()) as u64
    }
}

impl Runtime {
    /// Sends a message to many processes, encoding it once for all that are on other nodes.
    ///
    /// To each of them it is as if [`send`](Self::send) had been called: the same order with what
    /// this process sends to it otherwise, and the message arrives, or is dropped and counted, for
    /// each. A process that is named several times gets it as often. Each other node gets one frame
    /// with the message and the list of its receivers, so when the queue to a node is full, none of
    /// them gets it.
    ///
    /// ```
    /// # use purlin_runtime::{Message, Pid, Runtime};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct News(String);
    ///
    /// impl Message for News {
    ///     const NAME: &'static str = "paper.news";
    ///     type Reply = ();
    /// }
    ///
    /// fn publish(runtime: &Runtime, readers: &[Pid]) {
    ///     runtime.send_all(readers.iter().copied(), News("it rains".into()));
    /// }
    /// ```
    pub fn send_all<M: Message + Clone>(
        &self,
        to: impl IntoIterator<Item = impl Into<Dest>>,
        message: M,
    ) {
        let mut receivers = self.sort_out(to);
        let away = receivers.away();
        if away > 0 {
            match Payload::encode(Codec::Bincode, &message) {
                Ok(payload) => self.send_away(&mut receivers, &MessageName::of::<M>(), &payload),
                Err(error) => self.count_not_encodable(M::NAME, &error, away),
            }
        }
        for (kind, key) in &receivers.keyed {
            self.deliver_key(kind, key, Item::local(message.clone(), Reply::None, None));
        }
        self.send_clones(receivers.here.into_iter().map(Some), message);
    }

    /// As [`send_all`](Self::send_all), with a message in its encoded form, whose bytes all receivers
    /// share, those of this node too.
    pub fn send_all_encoded(
        &self,
        to: impl IntoIterator<Item = impl Into<Dest>>,
        name: &MessageName,
        payload: &Payload,
    ) {
        let mut receivers = self.sort_out(to);
        self.send_away(&mut receivers, name, payload);
        for (kind, key) in &receivers.keyed {
            let (name, payload) = (name.clone(), payload.clone());
            let message = EncodedMessage { name, payload, reply: None, charge: None };
            self.deliver_key(kind, key, Item::Encoded(Box::new(message)));
        }
        for process in &receivers.here {
            let (name, payload) = (name.clone(), payload.clone());
            let message = EncodedMessage { name, payload, reply: None, charge: None };
            self.deliver(Some(process), Item::Encoded(Box::new(message)));
        }
    }

    /// Finds out who is where; those of this node that are gone are counted.
    fn sort_out(&self, to: impl IntoIterator<Item = impl Into<Dest>>) -> Receivers {
        let mut receivers = Receivers::default();
        for to in to {
            let to = to.into();
            self.note_cast(&to);
            self.sort_in(&mut receivers, self.route(&to));
        }
        receivers
    }

    fn sort_in(&self, receivers: &mut Receivers, route: Route) {
        match route {
            Route::Here(Some(process)) => receivers.here.push(process),
            Route::Here(None) => self.counters().dropped_no_process.add(),
            Route::There(peer, target) if self.is_stopped(peer, &target) => {
                self.counters().dropped_mailbox_full.add();
            }
            Route::There(Peer::Life(node), Target::Serial(serial)) => {
                receivers.there.entry(node).or_default().push(serial);
            }
            Route::There(peer, target) => receivers.by_name.push((peer, target)),
            Route::Key(kind, key) => receivers.keyed.push((kind, key)),
            Route::Several(several) => {
                for route in self.routes(&several) {
                    self.sort_in(receivers, route);
                }
            }
        }
    }

    /// Sends to those on other nodes.
    fn send_away(&self, receivers: &mut Receivers, name: &MessageName, payload: &Payload) {
        let send = |peer, to, count| {
            let (message, payload) = (name.clone(), payload.clone());
            let signal = Signal::Send { message, payload, waits: false };
            let from = self.sender();
            let envelope = Envelope { to, from, signal };
            let sent = self.send_in(from, peer, &envelope, Priority::User);
            self.count_sent(sent, count);
        };
        // One receiver needs no list, so a message that leaves no room for one still goes to each.
        let most = Target::most_with(name, payload);
        for (node, mut serials) in receivers.there.drain() {
            let peer = Peer::Life(node);
            if most < 2 || serials.len() == 1 {
                serials.drain(..).for_each(|serial| send(peer, Target::Serial(serial), 1));
            }
            for list in Serials::split(serials, most) {
                let count = list.len() as u64;
                send(peer, Target::Many(list), count);
            }
        }
        for (peer, target) in receivers.by_name.drain(..) {
            send(peer, target, 1);
        }
    }

    /// Tells those to whom a process was linked that it has ended; on each other node, all at once.
    pub(crate) fn tell_linked(
        &self,
        serial: u64,
        linked: impl IntoIterator<Item = Address>,
        reason: &ExitReason,
    ) {
        let mut there: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        for address in linked {
            match address {
                Address::Remote(pid) if pid.node.name != self.name() => {
                    there.entry(pid.node).or_default().push(pid.serial);
                }
                _ => {
                    self.signal(serial, address, Signal::LinkDown { reason: reason.clone() });
                }
            }
        }
        let link_down = |to| {
            let signal = Signal::LinkDown { reason: reason.clone() };
            Envelope { to, from: serial, signal }
        };
        for (node, serials) in there {
            let send = |to| {
                // If the node is out of reach, its side of the link goes with the connection.
                self.send_remote(Peer::Life(node), &link_down(to), Priority::System);
            };
            match serials[..] {
                [one] => send(Target::Serial(one)),
                _ => {
                    let lists = Serials::split(serials, usize::MAX);
                    lists.into_iter().map(Target::Many).for_each(send);
                }
            }
        }
    }

    /// Takes a signal for several processes of this node: each gets it as if it had come alone. What
    /// is large in it, a payload or a reason, they share.
    pub(crate) fn receive_many(
        &self,
        inbound: &Inbound,
        sender: u64,
        to: &Serials,
        signal: &Signal,
    ) {
        if let Signal::Send { message, payload, waits } = signal {
            let shared = Arc::new(Charge::new(&inbound.inflow, payload.bytes.len()));
            for serial in to.iter() {
                let (name, payload) = (message.clone(), payload.clone());
                let charge = Some(Charge::sharing(&shared));
                let message = EncodedMessage { name, payload, reply: None, charge };
                let item = Item::Encoded(Box::new(message));
                self.receive_item(inbound, &Target::Serial(serial), *waits, item);
            }
            return;
        }
        for serial in to.iter() {
            let (to, signal) = (Target::Serial(serial), signal.clone());
            self.receive_envelope(inbound, Envelope { to, from: sender, signal });
        }
    }
}
