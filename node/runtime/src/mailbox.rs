//! How much waits for a process, and what becomes of more.
//!
//! Every mailbox has a bound, 100,000 messages unless its actor says otherwise: enough for any burst
//! that a healthy process works off within a second, and little enough (under 20 MB of small
//! messages) that a stuck one does not take its node along. What the system itself has to say
//! (exits, downs, shutdown, queries) is bounded by the relations that a process has made, takes no
//! room, and is never dropped or delayed behind a full mailbox.
//!
//! | policy | `send` to a full mailbox | `send_wait` | `call` |
//! |---|---|---|---|
//! | [`WhenFull::Wait`] | the message is dropped | waits for room | waits for room, until its deadline |
//! | [`WhenFull::DropNewest`] | the message is dropped | likewise, at once | `Overloaded`, at once |
//! | [`WhenFull::DropOldest`] | the oldest is dropped | likewise | likewise; the dropped one's caller gets `Overloaded` |
//!
//! Every drop is counted, for the node by reason and for the process (`purlin info`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use purlin_proto::{MessageRef, NodeId, Reference};

use crate::arrivals::Arrivals;
use crate::inflow::Inflow;
use crate::item::Item;
use crate::messages::sealed::Encoded;
use crate::process::Process;

/// The bound of a mailbox and what happens at it; see [`Actor::MAILBOX`](crate::Actor::MAILBOX).
///
/// ```
/// use purlin_runtime::{Mailbox, WhenFull};
///
/// const LATEST: Mailbox = Mailbox::bounded(16, WhenFull::DropOldest);
/// assert_eq!(LATEST.limit(), Some(16));
/// assert_eq!(Mailbox::UNBOUNDED.limit(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mailbox {
    /// `None` for the runtime's own.
    limit: Option<usize>,
    when_full: WhenFull,
}

/// What becomes of a message for a full mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Those who can wait do: `send_wait` and `call`. A `send` is dropped.
    #[default]
    Wait,
    /// It is dropped.
    DropNewest,
    /// It takes the place of the oldest, which is dropped: for what only the latest matters.
    DropOldest,
}

impl Mailbox {
    /// The runtime's bound ([`Config::mailbox_limit`](crate::Config::mailbox_limit)); senders that
    /// can wait do.
    pub const DEFAULT: Self = Self { limit: None, when_full: WhenFull::Wait };

    /// No bound: for a process whose senders are known to be few, such as a collector of a bounded
    /// number of answers. Memory is the limit.
    pub const UNBOUNDED: Self = Self { limit: Some(usize::MAX), when_full: WhenFull::Wait };

    /// At most so many messages, one at least.
    pub const fn bounded(limit: usize, when_full: WhenFull) -> Self {
        let limit = if limit == 0 { 1 } else { limit };
        Self { limit: Some(limit), when_full }
    }

    /// The bound, if it has one of its own.
    pub const fn limit(self) -> Option<usize> {
        match self.limit {
            Some(usize::MAX) | None => None,
            limit => limit,
        }
    }

    /// What happens at the bound.
    pub const fn when_full(self) -> WhenFull {
        self.when_full
    }

    pub(crate) fn limit_or(self, default: usize) -> usize {
        self.limit.unwrap_or(default)
    }
}

/// Reached without locking.
pub(crate) fn inner<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// What waits for a process, in order.
#[derive(Default)]
pub(crate) struct Queue {
    slots: VecDeque<Slot>,
    /// Messages beyond one for each slot.
    more: usize,
    /// What messages of other nodes take up.
    bytes: usize,
}

enum Slot {
    Item(Item),
    Arrivals(Box<Arrivals>),
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() + self.more
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What messages of other nodes take up in it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.bytes += item.charged();
        if self.slots.capacity() == 0 {
            // Most mailboxes never hold a second one, and by itself it would make room for four.
            self.slots.reserve_exact(1);
        }
        self.slots.push_back(Slot::Item(item));
    }

    /// Adds a small message of another node.
    pub(crate) fn arrive(&mut self, from: NodeId, inflow: &Arc<Inflow>, message: &MessageRef<'_>) {
        if let Some(Slot::Arrivals(last)) = self.slots.back_mut()
            && let Some(bytes) = last.add(from, inflow, message)
        {
            self.bytes += bytes;
            self.more += 1;
            return;
        }
        let mut first = Arrivals::new(from, inflow);
        self.bytes += first.add(from, inflow, message).expect("there is room for the first");
        self.slots.push_back(Slot::Arrivals(Box::new(first)));
    }

    /// Takes out the first; `owner` is whose it is.
    pub(crate) fn pop(&mut self, owner: &Process) -> Option<Item> {
        self.pop_at(0, owner)
    }

    /// Takes out the oldest message, leaving what the system has to say.
    pub(crate) fn pop_message(&mut self, owner: &Process) -> Option<Item> {
        let is_message = |slot: &Slot| !matches!(slot, Slot::Item(Item::Notice(_)));
        self.pop_at(self.slots.iter().position(is_message)?, owner)
    }

    fn pop_at(&mut self, index: usize, owner: &Process) -> Option<Item> {
        if let Slot::Arrivals(arrivals) = self.slots.get_mut(index)?
            && arrivals.len() > 1
        {
            self.more -= 1;
            return arrivals.pop(owner);
        }
        match self.slots.remove(index)? {
            Slot::Item(item) => {
                self.bytes -= item.charged();
                Some(item)
            }
            Slot::Arrivals(mut last) => {
                self.bytes -= last.charged();
                last.pop(owner)
            }
        }
    }

    /// Whether the first is a small message of another node.
    fn is_arrival(&self) -> bool {
        matches!(self.slots.front(), Some(Slot::Arrivals(_)))
    }

    /// Takes out the first if it is a small message of another node, and reads it where it lies.
    fn read<T>(&mut self, owner: &Process, read: impl FnOnce(Encoded<'_>) -> T) -> Option<T> {
        let Slot::Arrivals(first) = self.slots.front_mut()? else { return None };
        if first.len() > 1 {
            self.more -= 1;
            return first.read(owner, read);
        }
        let Some(Slot::Arrivals(mut last)) = self.slots.pop_front() else { return None };
        self.bytes -= last.charged();
        last.read(owner, read)
    }

    /// Takes away what a monitor has to say.
    pub(crate) fn flush_down(&mut self, reference: Reference) {
        let is_it = |slot: &Slot| matches!(slot, Slot::Item(item) if item.is_down(reference));
        self.slots.retain(|slot| !is_it(slot));
    }

    pub(crate) fn shrink(&mut self) {
        self.slots.shrink_to_fit();
    }
}

/// What a process has taken out of its mailbox and not handled yet. One word while it is empty.
///
/// The mutex is never locked: it lets a `&Context` be shared, though messages need not be `Sync`.
#[derive(Default)]
pub(crate) struct Batch(Option<Box<Mutex<Queue>>>);

impl Batch {
    pub(crate) fn pop(&mut self, owner: &Process) -> Option<Item> {
        inner(self.0.as_mut()?).pop(owner)
    }

    /// Whether the first is a small message of another node.
    pub(crate) fn is_arrival(&mut self) -> bool {
        self.0.as_mut().is_some_and(|items| inner(items).is_arrival())
    }

    /// Takes out the first if it is a small message of another node, and reads it where it lies.
    pub(crate) fn read<T>(
        &mut self,
        owner: &Process,
        read: impl FnOnce(Encoded<'_>) -> T,
    ) -> Option<T> {
        inner(self.0.as_mut()?).read(owner, read)
    }

    pub(crate) fn len(&mut self) -> usize {
        self.0.as_mut().map_or(0, |items| inner(items).len())
    }

    /// Takes all there is; it must itself be empty.
    pub(crate) fn take(&mut self, mailbox: &mut Queue) {
        let items = inner(self.0.get_or_insert_default());
        debug_assert!(items.is_empty(), "a batch is taken when the last is done");
        std::mem::swap(mailbox, items);
    }

    /// Takes away what a monitor has to say.
    pub(crate) fn flush_down(&mut self, reference: Reference) {
        if let Some(items) = &mut self.0 {
            inner(items).flush_down(reference);
        }
    }

    /// Drops what is left, message by message, as their callers must be told.
    pub(crate) fn clear(&mut self, owner: &Process) {
        while let Some(item) = self.pop(owner) {
            drop(item);
        }
    }

    /// Gives memory back that is not needed now.
    pub(crate) fn shrink(&mut self) {
        if self.len() == 0 {
            self.0 = None;
        }
    }
}
