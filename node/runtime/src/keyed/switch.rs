//! Senders switch to the new owner of a key, or place of a child, and what they send keeps its order.
//!
//! When a key gets another owner, what was sent to the old one may still be on its way there, and is sent
//! on; what is sent straight to the new one would overtake it. So for some time after a change
//! ([`Remote::earlier_owner`](crate::Remote::earlier_owner)) the first message of each sender to such a
//! key waits here, and all behind it, while a question *follows* what was sent before ([`FollowKey`]): to
//! the old owner in the flow of the sender, and from there, in the flow of what is sent on, to the new one,
//! where it starts the process ([`TakeKey`]). When the answer is here, everything sent before lies in a
//! mailbox: that of the old process, which works it off before the new one begins (`release.rs`), or
//! that of the new one. Then what waits is sent, in its order, and the sender has switched.
//!
//! So it is with children of cluster supervisors that move, whose next node has the process before anything
//! is sent on to it.
//!
//! A process that has only ever called keys waits for its replies, so nothing of it is on its way: it
//! switches at once, and so costs nothing. What nodes send on for others switches likewise.
//!
//! # What if
//!
//! - *the old owner is lost, or of a version that does not know this*: so is what was sent to it, or its
//!   order; what waits is sent (`keyed.not_followed`).
//! - *the old owner has not heard of the change*: it answers when it has. What comes to it until then it
//!   handles, or sends on before it answers.
//! - *the new owner has not heard of it*: it is asked again until it has.
//! - *that takes longer than [`PATIENCE`]*: what waits is sent, and counted as above.
//! - *the owner changes again meanwhile*: the question follows once more, to where the sender was last.
//! - *too much waits*: it is dropped and counted, its caller told `Overloaded`; [`ITEMS`] and [`BYTES`] of
//!   each sender and key. Whoever waits for room waits for the switch instead.
//! - *more senders and keys than [`PAIRS`] are noted*: the others switch at once, as if nothing of theirs
//!   were on its way.
//! - *the sender ends meanwhile*: what waits is sent all the same; a monitor may hear of its end before.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use purlin_proto::admin::{FollowKey, TakeKey};
use purlin_proto::{
    CallError, Codec, Dest, Envelope, Key, Message, MessageName, Name, NodeName, Payload, Signal,
    Target,
};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::deliver::ring_key;
use super::release::system;
use crate::current;
use crate::entries::forward::GLOBAL;
use crate::entries::ways::CHILD;
use crate::item::Item;
use crate::remote::{Peer, Priority, flow};
use crate::route::{Route, answer};
use crate::runtime::{Runtime, lock};
use crate::spawn::Forget;

/// How long what was sent before is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Before somebody is asked again who has not heard of a change.
const PAUSE: Duration = Duration::from_millis(5);

/// How long it is noted whom a sender sends to: longer than a change is said to be recent.
const NOTED: Duration = Duration::from_secs(20);

/// So many senders and keys are noted.
const PAIRS: usize = 65_536;

/// So many messages of a sender to a key wait.
const ITEMS: usize = 10_000;

/// And so many bytes of those that are encoded.
const BYTES: usize = 16 << 20;

/// Those that have to do with a key whose owner has changed lately.
#[derive(Default)]
pub(crate) struct Switches {
    pairs: Mutex<FxHashMap<Pair, Switch>>,
    /// How many of them wait.
    waiting: AtomicUsize,
    /// One has switched.
    switched: Notify,
    /// Whether tasks that are no processes have ever sent to a key without waiting for a reply.
    tasks: AtomicBool,
}

/// A sender and a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    /// Its serial; 0 for what no process says.
    from: u64,
    /// This node, for what it sends on.
    forwarded: bool,
    kind: Name,
    key: Key,
}

enum Switch {
    /// It sends straight to this node, as was noted then.
    To(NodeName, Instant),
    /// What waits meanwhile.
    Waits { items: VecDeque<Item>, bytes: usize },
}

/// What is to be done with a message.
enum Way {
    /// It goes straight to its owner: nothing that its sender has sent before can be on the way.
    Free,
    /// It goes straight to this node, which is noted: so it is known whom to follow when that changes.
    Straight(NodeName),
    /// Behind others that wait.
    Waits,
    /// It is to wait until what was sent to this node has arrived.
    Follows(NodeName),
}

impl Pair {
    fn new(from: u64, forwarded: bool, kind: &Name, key: &Key) -> Self {
        Self { from, forwarded, kind: kind.clone(), key: key.clone() }
    }

    fn target(&self) -> Target {
        let (kind, key) = (self.kind.clone(), self.key.clone());
        Target::Key { kind, key, forwarded: self.forwarded }
    }
}

impl Runtime {
    /// Forgets what was noted at an earlier change of owners.
    pub(super) fn forget_switches(&self) {
        let now = Instant::now();
        lock(&self.0.switches.pairs).retain(|_, switch| match switch {
            Switch::To(_, since) => now - *since < NOTED,
            Switch::Waits { .. } => true,
        });
    }

    /// Notes, before the way is looked for, that something is sent to a key without waiting for a reply.
    pub(crate) fn note_cast(&self, to: &Dest) {
        let to_key = matches!(to, Dest::Key { .. } | Dest::Child(_));
        if to_key && current::with(|me| me.note_cast()).is_none() {
            let tasks = &self.0.switches.tasks;
            if !tasks.load(Ordering::Relaxed) {
                tasks.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether what is sent to a key from here is to wait; then it is seen to that it need not for long.
    pub(crate) fn is_switching(&self, kind: &Name, key: &Key) -> bool {
        self.may_switch(kind) && {
            let pair = Pair::new(self.sender(), false, kind, key);
            self.waits(&mut lock(&self.0.switches.pairs), &pair)
        }
    }

    /// Returns when what is sent to a key from here need not wait. Cancel safe.
    pub(crate) async fn switched(&self, kind: &Name, key: &Key) {
        let pair = Pair::new(self.sender(), false, kind, key);
        loop {
            let mut switched = std::pin::pin!(self.0.switches.switched.notified());
            switched.as_mut().enable();
            if !self.waits(&mut lock(&self.0.switches.pairs), &pair) {
                return;
            }
            switched.await;
        }
    }

    /// Has a message to a key wait, if it is to; handed back if it is not.
    pub(super) fn hold(
        &self,
        from: u64,
        forwarded: bool,
        kind: &Name,
        key: &Key,
        item: Item,
    ) -> Option<Item> {
        if !self.may_switch(kind) {
            return Some(item);
        }
        let pair = Pair::new(from, forwarded, kind, key);
        let mut pairs = lock(&self.0.switches.pairs);
        if !self.waits(&mut pairs, &pair) {
            return Some(item);
        }
        let Some(Switch::Waits { items, bytes }) = pairs.get_mut(&pair) else { return Some(item) };
        let more = match &item {
            Item::Encoded(message) => message.payload.bytes.len(),
            Item::Local(_) | Item::Notice(_) => 0,
        };
        if items.len() < ITEMS && bytes.saturating_add(more) <= BYTES {
            *bytes += more;
            items.push_back(item);
            return None;
        }
        drop(pairs);
        self.counters().dropped_link_full.add();
        item.fail(CallError::Overloaded);
        None
    }

    /// Returns `true` when everything that has come to this node for a key, and was sent on, has arrived
    /// where it is to be handled: what [`FollowKey`] asks.
    pub async fn follow_key(&self, kind: &Name, key: &Key) -> bool {
        let followed = async {
            if kind.as_str() == CHILD {
                return self.follow_child(kind, key).await;
            }
            loop {
                let owner = self.key_owner(kind, key);
                if owner != self.name() && self.has_sent_on(kind, key).await {
                    let take = TakeKey { kind: kind.clone(), key: key.clone() };
                    let pair = Pair::new(0, true, kind, key);
                    match self.ask_behind(&pair, owner, take).await {
                        Ok(true) => return true,
                        Ok(false) => {}
                        Err(_) => return false,
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, followed).await.unwrap_or(false)
    }

    /// The same of a child, whose next node has its process before anything is sent on to it.
    async fn follow_child(&self, kind: &Name, key: &Key) -> bool {
        match self.child_way(key) {
            Some(node) if node != self.name() => {
                let follow = FollowKey { kind: kind.clone(), key: key.clone() };
                let pair = Pair::new(0, true, kind, key);
                self.ask_behind(&pair, node, follow).await == Ok(true)
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Where what a sender sends belongs now.
    fn owner_now(&self, pair: &Pair) -> Option<NodeName> {
        match pair.kind.as_str() {
            CHILD => self.child_places(&pair.key).map(|(at, _)| at),
            _ => Some(self.key_owner(&pair.kind, &pair.key)),
        }
    }

    /// The way to a key or a child, after a wait.
    pub(crate) fn route_again(&self, kind: &Name, key: &Key) -> Route {
        match kind.as_str() {
            CHILD => self.route_child_key(key),
            _ => self.route_key(kind, key),
        }
    }

    /// Waits until nothing that has come for a key is left that this node may send on.
    async fn has_sent_on(&self, kind: &Name, key: &Key) -> bool {
        let entry = self.0.keyed.get(kind.as_str()).and_then(|table| table.entry(key));
        // One that has not begun does not begin, and what waits for it is sent on.
        if let Some((process, _)) = entry.filter(|(process, _)| process.handled() == 0) {
            self.down(process.pid()).await;
        }
        let pair = Pair::new(0, true, kind, key);
        !matches!(lock(&self.0.switches.pairs).get(&pair), Some(Switch::Waits { .. }))
    }

    /// Whether a message to a key may have to wait: quick, for it is asked of each.
    fn may_switch(&self, kind: &Name) -> bool {
        let Some(remote) = self.0.remote.get() else { return false };
        let waiting = || self.0.switches.waiting.load(Ordering::Acquire) > 0;
        match kind.as_str() {
            GLOBAL => false,
            CHILD => waiting() || self.children().have_moved(),
            _ => waiting() || remote.owners_are_new(),
        }
    }

    fn way(&self, pairs: &FxHashMap<Pair, Switch>, pair: &Pair) -> Way {
        let Pair { from, forwarded, kind, key } = pair;
        let noted = match pairs.get(pair) {
            Some(Switch::Waits { .. }) => return Way::Waits,
            Some(Switch::To(node, _)) => Some(*node),
            None => None,
        };
        let child = (kind.as_str() == CHILD).then(|| self.child_places(key));
        let owner = match &child {
            Some(Some((at, _))) => *at,
            // It is nowhere to be sent to.
            Some(None) => return Way::Free,
            None => self.key_owner(kind, key),
        };
        let before = match noted {
            Some(node) => Some(node),
            None if pairs.len() >= PAIRS => None,
            None => {
                let cast = match (*forwarded, *from) {
                    (true, _) => true,
                    (false, 0) => self.0.switches.tasks.load(Ordering::Relaxed),
                    (false, serial) => self.process(serial).is_some_and(|me| me.has_cast()),
                };
                if !cast {
                    return Way::Free;
                }
                let before = match child {
                    Some(places) => places.and_then(|(_, before)| before),
                    None => self.0.remote.get().and_then(|remote| {
                        let exclusive = self.is_exclusive(kind);
                        remote.earlier_owner(&ring_key(kind.as_str(), key), exclusive)
                    }),
                };
                // As the owner it has sent nothing on.
                before.filter(|before| !forwarded || *before != self.name())
            }
        };
        match before {
            Some(before) if before != owner => Way::Follows(before),
            _ => Way::Straight(owner),
        }
    }

    /// Whether what a sender sends to a key is to wait; notes where it goes, or begins to follow.
    fn waits(&self, pairs: &mut FxHashMap<Pair, Switch>, pair: &Pair) -> bool {
        match self.way(pairs, pair) {
            Way::Free => false,
            Way::Straight(owner) => {
                if pairs.len() < PAIRS {
                    pairs.insert(pair.clone(), Switch::To(owner, Instant::now()));
                }
                false
            }
            Way::Waits => true,
            Way::Follows(before) => {
                let none = Switch::Waits { items: VecDeque::new(), bytes: 0 };
                pairs.insert(pair.clone(), none);
                self.0.switches.waiting.fetch_add(1, Ordering::AcqRel);
                let (runtime, pair) = (self.clone(), pair.clone());
                self.0.executor.spawn(async move { runtime.switch(pair, before).await });
                true
            }
        }
    }

    /// Follows what was sent before, and then sends what waits.
    async fn switch(&self, pair: Pair, before: NodeName) {
        let patience = Instant::now() + PATIENCE;
        let mut at = before;
        loop {
            let owner = self.owner_now(&pair).unwrap_or(at);
            if owner != at {
                let followed = tokio::time::timeout_at(patience, self.follow(at, &pair)).await;
                if followed != Ok(true) {
                    self.counters().keyed_not_followed.add();
                }
                at = owner;
                continue;
            }
            let items = {
                let mut pairs = lock(&self.0.switches.pairs);
                let Some(Switch::Waits { items, bytes }) = pairs.get_mut(&pair) else {
                    unreachable!("only this ends the wait");
                };
                *bytes = 0;
                if items.is_empty() {
                    pairs.insert(pair, Switch::To(at, Instant::now()));
                    break;
                }
                std::mem::take(items)
            };
            for item in items {
                self.send_held(&pair, at, item);
            }
        }
        self.0.switches.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.switches.switched.notify_waiters();
    }

    async fn follow(&self, before: NodeName, pair: &Pair) -> bool {
        let (kind, key) = (&pair.kind, &pair.key);
        if before == self.name() {
            return self.follow_key(kind, key).await;
        }
        let follow = FollowKey { kind: kind.clone(), key: key.clone() };
        self.ask_behind(pair, before, follow).await == Ok(true)
    }

    fn send_held(&self, pair: &Pair, to: NodeName, item: Item) {
        let Pair { from, forwarded, kind, key } = pair;
        if to != self.name() {
            return self.forward_from(*from, to, kind, key, *forwarded, item);
        }
        if let Some((process, item)) = self.offer_key_here(kind, key, item) {
            self.dropped_full(&process, item);
        }
    }

    /// Asks the system of a node, behind everything that was sent there for a pair.
    async fn ask_behind<M: Message<Reply = bool>>(
        &self,
        pair: &Pair,
        node: NodeName,
        message: M,
    ) -> Result<bool, CallError> {
        let payload = Payload::encode(Codec::Bincode, &message).expect("texts");
        let (name, deadline) = (MessageName::of::<M>(), Instant::now() + PATIENCE);
        if node == self.name() {
            return self.call_timeout(system(node), message, PATIENCE).await;
        }
        let Dest::Remote(purlin, _) = system(node) else {
            unreachable!("it is one of a node");
        };
        let (peer, behind) = (Peer::Name(node), flow(pair.from, &pair.target()));
        let (reference, receiver) = self.call_remote(peer, deadline, |reference, remaining| {
            let signal = Signal::Call { reference, remaining, message: name, payload };
            let envelope = Envelope { to: Target::Name(purlin), from: 0, signal };
            Ok(self.send_in(behind, peer, &envelope, Priority::System))
        })?;
        let _forget = Forget { runtime: self, reference };
        let reply = answer(deadline, receiver).await?;
        reply.decode().map_err(|error| CallError::Decode { detail: error.to_string() })
    }
}
