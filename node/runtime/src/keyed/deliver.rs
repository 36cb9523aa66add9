//! From a key to its process: at the owner, on the way there, and past a node that is not.

use std::sync::Arc;

use purlin_proto::{
    CallError, Codec, Envelope, Key, Name, NodeName, Pid, Signal, SpawnError, Target,
};

use super::KeyedActor;
use super::table::Table;
use crate::entries::forward::GLOBAL;
use crate::entries::ways::CHILD;
use crate::inflow::Inbound;
use crate::item::{EncodedMessage, Item};
use crate::process::{Process, Rejected};
use crate::refs::Ref;
use crate::remote::{Peer, Priority};
use crate::route::{Route, answer};
use crate::runtime::Runtime;
use crate::spawn::Forget;

/// So many processes of a key may end before a message is taken by one.
const ATTEMPTS: usize = 3;

/// What is looked up on the ring.
pub(super) fn ring_key(kind: &str, key: &Key) -> Box<[u8]> {
    [kind, key.as_str()].join("/").into_bytes().into()
}

impl Runtime {
    /// The process of a key, wherever it runs: it is started when it is first sent to.
    ///
    /// Sending and calling fail as for any process; besides, a call fails with
    /// [`NotKeyed`](CallError::NotKeyed) where the owner does not know the kind as a keyed one, and
    /// with [`NotOwner`](CallError::NotOwner) while nodes disagree about the owner.
    pub fn keyed<A: KeyedActor>(&self, key: impl Into<Key>) -> Ref<A> {
        let kind = Name::new(A::KIND);
        let kind = kind.unwrap_or_else(|error| panic!("{:?} is no kind: {error}", A::KIND));
        Ref::named(self, purlin_proto::Dest::Key { kind, key: key.into() })
    }

    /// Whether a keyed kind is declared here as exclusive.
    pub fn is_exclusive(&self, kind: &Name) -> bool {
        self.0.keyed.get(kind.as_str()).is_some_and(|table| table.exclusive)
    }

    /// Whether a keyed kind is declared here as one with state.
    pub fn is_stateful(&self, kind: &Name) -> bool {
        self.0.keyed.get(kind.as_str()).is_some_and(|table| table.stateful)
    }

    /// The node that owns a key, as this one sees it. For an exclusive kind this node itself while
    /// it knows of no ring view: messages wait here until it does.
    pub fn key_owner(&self, kind: &Name, key: &Key) -> NodeName {
        let bytes = ring_key(kind.as_str(), key);
        let owner = if self.is_exclusive(kind) {
            self.exclusive_owner(&bytes)
        } else {
            self.0.remote.get().and_then(|remote| remote.key_owner(&bytes))
        };
        owner.unwrap_or_else(|| self.name())
    }

    /// The keyed processes of this node: kind, key and pid, by kind and key.
    pub fn keyed_processes(&self) -> Vec<(&'static str, Key, Pid)> {
        let tables = self.0.keyed.iter();
        let mut list: Vec<_> = tables
            .flat_map(|(kind, table)| {
                (0..Table::parts()).map(move |part| (*kind, table.part(part)))
            })
            .flat_map(|(kind, part)| {
                part.into_iter().map(move |(key, process)| (kind, key, process))
            })
            .filter(|(_, _, process)| !process.is_ending())
            .map(|(kind, key, process)| (kind, key, process.pid()))
            .collect();
        list.sort();
        list
    }

    pub(crate) fn route_key(&self, kind: &Name, key: &Key) -> Route {
        if matches!(kind.as_str(), GLOBAL | CHILD) {
            // Only what leads to a name or a child says so, on the wire.
            return Route::Here(None);
        }
        let (owner, kind, key) = (self.key_owner(kind, key), kind.clone(), key.clone());
        if owner == self.name() || self.is_switching(&kind, &key) {
            return Route::Key(kind, key);
        }
        Route::There(Peer::Name(owner), Target::Key { kind, key, forwarded: false })
    }

    /// The process of a key, if it runs on this node.
    pub(crate) fn find_keyed(&self, kind: &Name, key: &Key) -> Option<Arc<Process>> {
        if kind.as_str() == CHILD {
            return self.child_process(key);
        }
        self.0.keyed.get(kind.as_str())?.find(key)
    }

    pub(super) fn activate(&self, kind: &Name, key: &Key) -> Result<Arc<Process>, CallError> {
        let Some(table) = self.0.keyed.get(kind.as_str()) else {
            let known = self.0.keyed.keys().map(|&kind| kind.to_owned()).collect();
            return Err(CallError::NotKeyed { kind: kind.to_string(), node: self.name(), known });
        };
        table.activate(self, key).map_err(|error| match error {
            SpawnError::Overloaded => CallError::Overloaded,
            SpawnError::Start(reason) => CallError::Exited(reason),
            _ => CallError::NoProcess,
        })
    }

    fn not_delivered(&self, item: Item, error: CallError) {
        self.counters().dropped_no_process.add();
        item.fail(error);
    }

    /// Puts a message into the mailbox of a key's process, which is started if need be; if the key has
    /// another owner by now, sends it on, or has it wait until that is in order. What may wait for room
    /// is handed back, with the process that has none.
    pub(crate) fn offer_key(
        &self,
        kind: &Name,
        key: &Key,
        item: Item,
    ) -> Option<(Arc<Process>, Item)> {
        let item = self.hold(self.sender(), false, kind, key, item)?;
        self.offer_key_here(kind, key, item)
    }

    /// As [`offer_key`](Self::offer_key), at once.
    pub(super) fn offer_key_here(
        &self,
        kind: &Name,
        key: &Key,
        mut item: Item,
    ) -> Option<(Arc<Process>, Item)> {
        if kind.as_str() == CHILD {
            return self.offer_child(key, item);
        }
        for _ in 0..ATTEMPTS {
            let owner = self.key_owner(kind, key);
            if owner != self.name() {
                self.forward(owner, kind, key, false, item);
                return None;
            }
            let process = match self.activate(kind, key) {
                Ok(process) => process,
                Err(error) => {
                    self.not_delivered(item, error);
                    return None;
                }
            };
            match process.push(item) {
                Err((Rejected::Dead, back)) => item = back,
                pushed => return self.pushed(&process, pushed).map(|item| (process, item)),
            }
        }
        self.dropped_dead(item);
        None
    }

    /// As [`deliver`](Self::deliver), to a key.
    pub(crate) fn deliver_key(&self, kind: &Name, key: &Key, item: Item) {
        if let Some((process, item)) = self.offer_key(kind, key, item) {
            self.dropped_full(&process, item);
        }
    }

    /// Waits for room if the process's policy is to wait.
    pub(crate) async fn deliver_key_wait(&self, kind: &Name, key: &Key, item: Item) {
        let mut waiting = self.offer_key(kind, key, item);
        while let Some((process, item)) = waiting {
            self.local_room(&process).await;
            waiting = self.offer_key(kind, key, item);
        }
    }

    // ----- from other nodes -----

    /// Another node's process has sent to a key that it takes for one of this node.
    pub(crate) fn receive_keyed(
        &self,
        inbound: &Inbound,
        sender: u64,
        target: &Target,
        signal: Signal,
    ) {
        let Target::Key { kind, key, forwarded } = target else { return };
        match kind.as_str() {
            GLOBAL => return self.receive_global(inbound, sender, target, signal),
            CHILD => return self.receive_child(inbound, sender, target, signal),
            _ => {}
        }
        if !matches!(signal, Signal::Send { .. } | Signal::Call { .. }) {
            // The wire has no such thing; see `signal.rs`.
            return;
        }
        let owner = self.key_owner(kind, key);
        // Who has sent on a message for an exclusive key may know a newer view than we do: it waits
        // in a process that finds out before it begins.
        let here = owner == self.name() || (*forwarded && self.is_exclusive(kind));
        // First of all, for its reply is to come from it.
        let process = here.then(|| self.activate(kind, key)).transpose();
        let callee = process.as_ref().ok().and_then(Option::as_ref).map_or(0, |p| p.serial);
        let Ok((item, waits)) = self.arrived(inbound, sender, || callee, signal) else { return };
        match process {
            Ok(Some(process)) => self.arrive_keyed(inbound, target, process, waits, item),
            // While this node leaves it knows better than one that has not heard of it.
            Ok(None) if *forwarded && !self.is_draining() => {
                self.counters().dropped_not_owner.add();
                let key = format!("key:{kind}/{key}");
                item.fail(CallError::NotOwner { key, node: self.name() });
            }
            Ok(None) => self.send_on(owner, kind, key, item),
            Err(error) => self.not_delivered(item, error),
        }
    }

    fn arrive_keyed(
        &self,
        inbound: &Inbound,
        target: &Target,
        mut process: Arc<Process>,
        waits: bool,
        mut item: Item,
    ) {
        let Target::Key { kind, key, .. } = target else { return };
        for _ in 0..ATTEMPTS {
            match self.receive_at(&process, inbound, target, waits, item) {
                Some(back) => item = back,
                None => return,
            }
            let owner = self.key_owner(kind, key);
            if owner != self.name() {
                return self.send_on(owner, kind, key, item);
            }
            process = match self.activate(kind, key) {
                Ok(process) => process,
                Err(error) => return self.not_delivered(item, error),
            };
        }
        self.dropped_dead(item);
    }

    /// Sends a message of others on to the owner of its key. All that this node sends on to a key goes
    /// by one flow, in the order in which it came; it does not wait for room.
    pub(super) fn send_on(&self, owner: NodeName, kind: &Name, key: &Key, item: Item) {
        if let Some(item) = self.hold(0, true, kind, key, item) {
            self.forward_from(0, owner, kind, key, true, item);
        }
    }

    /// Sends a message of the current process on to the owner of its key.
    pub(crate) fn forward(
        &self,
        owner: NodeName,
        kind: &Name,
        key: &Key,
        forwarded: bool,
        item: Item,
    ) {
        self.forward_from(self.sender(), owner, kind, key, forwarded, item);
    }

    /// As [`forward`](Self::forward), in the flow of this process, or of what none says.
    pub(crate) fn forward_from(
        &self,
        from: u64,
        owner: NodeName,
        kind: &Name,
        key: &Key,
        forwarded: bool,
        item: Item,
    ) {
        let message = match item {
            Item::Encoded(message) => *message,
            Item::Local(message) => match message.encode(Codec::Bincode) {
                Ok(message) => message,
                // Its caller is told when the reply is dropped.
                Err(_) => return self.counters().dropped_not_encodable.add(),
            },
            Item::Notice(_) => return,
        };
        let EncodedMessage { name: message, payload, reply, charge: _charge } = message;
        let to = Target::Key { kind: kind.clone(), key: key.clone(), forwarded };
        let peer = Peer::Name(owner);
        self.counters().keyed_forwarded.add();
        let Some(reply) = reply else {
            return self.send_from(from, peer, to, Signal::Send { message, payload, waits: false });
        };
        if self.is_stopped(peer, &to) {
            return reply.send(Err(CallError::Overloaded));
        }
        let deadline = reply.deadline();
        let asked = self.call_remote(peer, deadline, |reference, remaining| {
            let signal = Signal::Call { reference, remaining, message, payload };
            let envelope = Envelope { to, from, signal };
            Ok(self.send_remote(peer, &envelope, Priority::User))
        });
        let (reference, receiver) = match asked {
            Ok(asked) => asked,
            Err(error) => return reply.send(Err(error)),
        };
        let runtime = self.clone();
        self.0.executor.spawn(async move {
            let _forget = Forget { runtime: &runtime, reference };
            reply.send(answer(deadline, receiver).await);
        });
    }
}
