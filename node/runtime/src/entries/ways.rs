//! Messages to children of cluster supervisors: by which way, and what if the child moves.
//!
//! A message goes to the node where the child runs, as far as the sender's node knows, and says the
//! child: as if it were a key of the kind [`CHILD`]. A node that has let go of a child ([`Way::Moved`])
//! sends on what comes for it, by one flow in the order in which it came, to the node that has asked for
//! it, whose process has its mailbox already. So a sender that is behind loses nothing, and a caller
//! waits within its timeout. An exclusive child ends here before anybody can ask for it, when the ring
//! view gives it to another node; what comes from then on waits ([`Way::Waits`]) and goes on when
//! somebody does, so that the process works off what it has and is idle soon.
//!
//! # What if
//!
//! - *nobody asks for it within [`PATIENCE`]*: what waits is dropped and counted, callers are told
//!   `NoProcess`.
//! - *the ring view gives it back before it has ended*: it goes on, and what waits is next.
//! - *too much waits*: it is dropped and counted, its caller told `Overloaded`; [`ITEMS`] and [`BYTES`] of
//!   each child.
//! - *the child runs on neither node*, since it has crashed, or has moved on: a message is sent on by a
//!   node that knows nothing but what its entries say only if it was not sent on before; so none is
//!   sent in circles.
//! - *a sender hears that the child has moved while something of it is on the way*: what it sends to the
//!   new place waits until that has arrived, as with keys (`keyed/switch.rs`).
//! - *this node ends*: what waits ends with it, and callers are told.
//! - *a node is of a version that does not know this*: it answers `NotKeyed`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use purlin_proto::{CallError, ChildId, Key, Mode, Name, NameError, NodeName, Signal, Target};

use crate::exclusive::Holding;
use crate::inflow::Inbound;
use crate::item::Item;
use crate::process::{Process, Rejected};
use crate::remote::Peer;
use crate::route::Route;
use crate::runtime::{Runtime, Shared, lock};

/// What stands for the kind of a keyed process where a child is meant.
pub(crate) const CHILD: &str = "purlin.child";

/// So many messages wait for a child that moves.
const ITEMS: usize = 10_000;

/// And so many bytes of those that are encoded.
const BYTES: usize = 16 << 20;

/// So many children may have something waiting.
const CHILDREN: usize = 4_096;

/// How long it waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// By which way a message goes that has come to this node for a child.
enum Way {
    /// To this process, which may not have begun.
    Here(Here),
    /// To this node.
    Moved(NodeName),
    /// It is not known yet.
    Waits(Waiting),
}

#[derive(Clone, Copy)]
struct Here {
    serial: u64,
    exclusive: bool,
}

struct Waiting {
    /// Where it would have gone.
    here: Here,
    items: VecDeque<Item>,
    bytes: usize,
    /// Tells one wait of a child from the next.
    number: u64,
}

impl Waiting {
    fn push(&mut self, item: Item) -> Result<(), Item> {
        let bytes = match &item {
            Item::Encoded(message) => message.payload.bytes.len(),
            Item::Local(_) | Item::Notice(_) => 0,
        };
        if self.items.len() >= ITEMS || self.bytes.saturating_add(bytes) > BYTES {
            return Err(item);
        }
        self.bytes += bytes;
        self.items.push_back(item);
        Ok(())
    }
}

/// The ways to those that run here, or have run here and are moving.
#[derive(Default)]
pub(crate) struct Ways(Mutex<Known>);

#[derive(Default)]
struct Known {
    ways: BTreeMap<ChildId, Way>,
    waiting: usize,
    waits: u64,
}

impl std::fmt::Debug for Ways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ways").field("known", &lock(&self.0).ways.len()).finish()
    }
}

impl Known {
    fn set(&mut self, child: &ChildId, way: Option<Way>) -> VecDeque<Item> {
        let before = match way {
            Some(way) => self.ways.insert(child.clone(), way),
            None => self.ways.remove(child),
        };
        match before {
            Some(Way::Waits(waiting)) => {
                self.waiting -= 1;
                waiting.items
            }
            _ => VecDeque::new(),
        }
    }

    /// Has a message wait; handed back if it may not, because of this. A new wait has a number.
    fn wait(&mut self, child: &ChildId, item: Item) -> Result<Option<u64>, (Not, Item)> {
        let full = |item| (Not::Full, item);
        let here = match self.ways.get_mut(child) {
            Some(Way::Waits(waiting)) => return waiting.push(item).map(|()| None).map_err(full),
            Some(Way::Here(_)) if self.waiting >= CHILDREN => return Err(full(item)),
            Some(Way::Here(here)) => *here,
            Some(Way::Moved(_)) | None => return Err((Not::Changed, item)),
        };
        self.waits += 1;
        let items = VecDeque::new();
        let mut waiting = Waiting { here, items, bytes: 0, number: self.waits };
        waiting.push(item).map_err(full)?;
        self.waiting += 1;
        self.ways.insert(child.clone(), Way::Waits(waiting));
        Ok(Some(self.waits))
    }
}

/// Why a message may not wait.
enum Not {
    Full,
    /// The way is another one by now.
    Changed,
}

fn child_of(key: &Key) -> Option<ChildId> {
    key.as_str().parse().ok()
}

fn key_of(child: &ChildId) -> Result<Key, NameError> {
    Key::new(&child.to_string())
}

fn kind() -> Name {
    CHILD.parse().expect("a name")
}

impl Runtime {
    fn ways(&self) -> &Ways {
        &self.0.entries.ways
    }

    /// The way to a child.
    pub(crate) fn route_child(&self, child: &ChildId) -> Route {
        let Ok(key) = key_of(child) else { return Route::Here(None) };
        match self.whereis_child(child) {
            Some(pid) if !self.is_own(&pid) => {
                if self.is_switching(&kind(), &key) {
                    return Route::Key(kind(), key);
                }
                let target = Target::Key { kind: kind(), key, forwarded: false };
                Route::There(Peer::Name(pid.node.name), target)
            }
            None if !lock(&self.ways().0).ways.contains_key(child) => Route::Here(None),
            _ => Route::Key(kind(), key),
        }
    }

    /// A process for a child has its mailbox.
    pub(crate) fn child_opened(&self, child: &ChildId, serial: u64, mode: Mode) {
        let here = Here { serial, exclusive: mode == Mode::Exclusive };
        let waiting = lock(&self.ways().0).set(child, Some(Way::Here(here)));
        for item in waiting {
            self.child_again(child, item);
        }
    }

    /// Nothing of a child is left on this node: what comes for it goes where it is seen.
    pub fn child_closed(&self, child: &ChildId) {
        let waiting = lock(&self.ways().0).set(child, None);
        for item in waiting {
            self.child_elsewhere(child, item, false);
        }
    }

    /// From now on what comes for a child goes to this node, which has asked for it; what waits goes
    /// first. What has come before stays in the mailbox of its process.
    pub fn child_moves(&self, child: &ChildId, to: NodeName) {
        let Ok(key) = key_of(child) else { return };
        loop {
            let items = {
                let mut known = lock(&self.ways().0);
                match known.ways.get_mut(child) {
                    None => return,
                    // Until none is left, more comes behind those that are sent.
                    Some(Way::Waits(waiting)) if !waiting.items.is_empty() => {
                        waiting.bytes = 0;
                        std::mem::take(&mut waiting.items)
                    }
                    Some(_) => {
                        known.set(child, Some(Way::Moved(to)));
                        return;
                    }
                }
            };
            for item in items {
                self.forward_from(0, to, &kind(), &key, true, item);
            }
        }
    }

    /// Where a child runs, as this node sees it, and where it ran before if it has moved lately.
    pub(crate) fn child_places(&self, key: &Key) -> Option<(NodeName, Option<NodeName>)> {
        let child = child_of(key)?;
        let at = self.whereis_child(&child)?.node.name;
        Some((at, self.children().earlier_place(&child, self.name())))
    }

    /// The node that what comes to this one for a child is sent on to; this one if it has it.
    pub(crate) fn child_way(&self, key: &Key) -> Option<NodeName> {
        let child = child_of(key)?;
        match lock(&self.ways().0).ways.get(&child) {
            Some(Way::Here(_) | Way::Waits(_)) => return Some(self.name()),
            Some(Way::Moved(to)) => return Some(*to),
            None => {}
        }
        let seen = self.whereis_child(&child).map(|pid| pid.node.name);
        seen.filter(|node| *node != self.name())
    }

    /// The way to a child that a key stands for.
    pub(crate) fn route_child_key(&self, key: &Key) -> Route {
        child_of(key).map_or(Route::Here(None), |child| self.route_child(&child))
    }

    /// Ends the process of a child if it is idle at this moment; whether it is ending, or has ended.
    pub fn retire_child(&self, serial: u64) -> bool {
        self.process(serial).is_none_or(|process| process.retire() || process.is_ending())
    }

    /// The process of a child on this node that is to have what comes for it; it may be dead.
    pub(crate) fn child_process(&self, key: &Key) -> Option<Arc<Process>> {
        let child = child_of(key)?;
        let (here, waits) = match lock(&self.ways().0).ways.get(&child)? {
            Way::Here(here) => (*here, false),
            Way::Waits(waiting) => (waiting.here, true),
            Way::Moved(_) => return None,
        };
        if self.child_leaves(&child, here) {
            return None;
        }
        let process = self.process(here.serial);
        if waits {
            process.as_ref().filter(|process| !process.is_ending())?;
            self.child_opened(&child, here.serial, Mode::Exclusive);
        }
        process
    }

    /// Ends a process that has not begun, since this node may not run it: what waits for it waits for
    /// the node that may.
    pub(crate) fn child_not_ours(&self, process: &Process, child: &ChildId) {
        let mut waiting = process.evict();
        while let Some(item) = waiting.pop(process) {
            self.child_elsewhere(child, item, true);
        }
    }

    /// Something that has waited is delivered, or goes on.
    fn child_again(&self, child: &ChildId, item: Item) {
        match key_of(child) {
            Ok(key) => self.deliver_key(&kind(), &key, item),
            Err(_) => self.dropped_dead(item),
        }
    }

    /// Puts a message for a child of this node into its mailbox; what may wait for room is handed back.
    pub(crate) fn offer_child(&self, key: &Key, mut item: Item) -> Option<(Arc<Process>, Item)> {
        if let Some(process) = self.child_process(key) {
            match process.push(item) {
                Err((Rejected::Dead, back)) => item = back,
                pushed => return self.pushed(&process, pushed).map(|item| (process, item)),
            }
        }
        match child_of(key) {
            Some(child) => self.child_elsewhere(&child, item, false),
            None => self.dropped_dead(item),
        }
        None
    }

    /// Another node takes this one for that of a child.
    pub(crate) fn receive_child(
        &self,
        inbound: &Inbound,
        sender: u64,
        target: &Target,
        signal: Signal,
    ) {
        let Target::Key { key, forwarded, .. } = target else { return };
        let process = self.child_process(key);
        let callee = process.as_ref().map_or(0, |process| process.serial);
        let arrived = self.arrived(inbound, sender, || callee, signal);
        // The wire has no such thing; see `signal.rs`.
        let Ok((mut item, waits)) = arrived else { return };
        if let Some(process) = process {
            match self.receive_at(&process, inbound, target, waits, item) {
                Some(back) => item = back,
                None => return,
            }
        }
        match child_of(key) {
            Some(child) => self.child_elsewhere(&child, item, *forwarded),
            None => self.dropped_dead(item),
        }
    }

    /// A message for a child that has no process here which takes it.
    fn child_elsewhere(&self, child: &ChildId, item: Item, forwarded: bool) {
        let Ok(key) = key_of(child) else { return self.dropped_dead(item) };
        let (moved, here) = match lock(&self.ways().0).ways.get(child) {
            Some(Way::Moved(to)) => (Some(*to), None),
            Some(Way::Waits(waiting)) => (None, Some(waiting.here)),
            Some(Way::Here(here)) => (None, Some(*here)),
            None => (None, None),
        };
        if let Some(to) = moved {
            return self.forward_from(0, to, &kind(), &key, true, item);
        }
        if here.is_some_and(|here| self.child_leaves(child, here)) {
            let waiting = lock(&self.ways().0).wait(child, item);
            return match waiting {
                Ok(None) => {}
                Ok(Some(number)) => self.end_of_patience(child.clone(), number),
                Err((Not::Changed, item)) => self.child_elsewhere(child, item, forwarded),
                Err((Not::Full, item)) => {
                    self.counters().dropped_mailbox_full.add();
                    item.fail(CallError::Overloaded);
                }
            };
        }
        let seen = self.whereis_child(child).map(|pid| pid.node.name);
        match seen.filter(|node| *node != self.name() && !forwarded) {
            Some(node) => self.forward_from(0, node, &kind(), &key, true, item),
            None => self.dropped_dead(item),
        }
    }

    /// Whether another node is to run a child that has begun here, so that it will be asked for.
    fn child_leaves(&self, child: &ChildId, here: Here) -> bool {
        // One that has not begun finds out for itself.
        let begun = || self.process(here.serial).is_none_or(|process| process.has_begun());
        here.exclusive && self.holding(child.to_string().as_bytes()) == Holding::No && begun()
    }

    fn end_of_patience(&self, child: ChildId, number: u64) {
        let weak = Arc::downgrade(&self.0);
        self.0.executor.spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            let Some(runtime) = Weak::<Shared>::upgrade(&weak).map(Runtime) else { return };
            let mut known = lock(&runtime.ways().0);
            let here = match known.ways.get(&child) {
                Some(Way::Waits(waiting)) if waiting.number == number => waiting.here,
                _ => return,
            };
            let waiting = known.set(&child, Some(Way::Here(here)));
            drop(known);
            if runtime.child_leaves(&child, here) {
                tracing::warn!(%child, messages = waiting.len(), "nobody has asked for a child that moves");
                return waiting.into_iter().for_each(|item| runtime.dropped_dead(item));
            }
            for item in waiting {
                runtime.child_again(&child, item);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use purlin_proto::{Codec, MessageName, Payload};

    use super::*;
    use crate::item::EncodedMessage;

    fn child(number: usize) -> ChildId {
        format!("jobs/{number}").parse().expect("a child")
    }

    fn item(bytes: usize) -> Item {
        let payload = Payload { codec: Codec::Bincode, bytes: vec![0; bytes].into() };
        let name = MessageName::from_wire("job.do".into()).expect("a name");
        Item::Encoded(Box::new(EncodedMessage { name, payload, reply: None, charge: None }))
    }

    fn here(known: &mut Known, number: usize) -> ChildId {
        let way = Way::Here(Here { serial: 1, exclusive: true });
        assert!(known.set(&child(number), Some(way)).is_empty());
        child(number)
    }

    #[test]
    fn what_waits_for_a_child_is_bounded_in_number_and_bytes_and_keeps_its_order() {
        let mut known = Known::default();
        let many = here(&mut known, 1);
        assert!(matches!(known.wait(&many, item(0)), Ok(Some(1))), "the first begins a wait");
        for _ in 1..ITEMS {
            assert!(matches!(known.wait(&many, item(0)), Ok(None)));
        }
        assert!(matches!(known.wait(&many, item(0)), Err((Not::Full, _))));
        let large = here(&mut known, 2);
        for bytes in [BYTES / 2, BYTES / 2 - 1, 1] {
            assert!(known.wait(&large, item(bytes)).is_ok());
        }
        assert!(matches!(known.wait(&large, item(1)), Err((Not::Full, _))));

        assert_eq!(known.set(&many, None).len(), ITEMS);
        let bytes = |item: Item| match item {
            Item::Encoded(message) => message.payload.bytes.len(),
            Item::Local(_) | Item::Notice(_) => 0,
        };
        let waited: Vec<_> = known.set(&large, None).into_iter().map(bytes).collect();
        assert_eq!(waited, [BYTES / 2, BYTES / 2 - 1, 1]);
        assert_eq!(known.waiting, 0);
    }

    #[test]
    fn so_many_children_may_be_waited_for_and_none_that_is_not_here() {
        let mut known = Known::default();
        for number in 0..CHILDREN {
            let child = here(&mut known, number);
            assert!(known.wait(&child, item(0)).is_ok());
        }
        let more = here(&mut known, CHILDREN);
        assert!(matches!(known.wait(&more, item(0)), Err((Not::Full, _))));
        assert_eq!(known.set(&child(0), Some(Way::Moved("b".into()))).len(), 1);
        assert!(known.wait(&more, item(0)).is_ok());
        assert!(matches!(known.wait(&child(0), item(0)), Err((Not::Changed, _))));
        assert!(matches!(known.wait(&child(CHILDREN + 1), item(0)), Err((Not::Changed, _))));
    }
}
