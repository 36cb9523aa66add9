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
use std::sync::{Mutex, PoisonError};

use crate::item::Item;

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

/// What a process has taken out of its mailbox and not handled yet. One word while it is empty.
///
/// The mutex is never locked: it lets a `&Context` be shared, though messages need not be `Sync`.
#[derive(Default)]
pub(crate) struct Batch(Option<Box<Mutex<VecDeque<Item>>>>);

impl Batch {
    pub(crate) fn pop(&mut self) -> Option<Item> {
        inner(self.0.as_mut()?).pop_front()
    }

    pub(crate) fn len(&mut self) -> usize {
        self.0.as_mut().map_or(0, |items| inner(items).len())
    }

    /// Takes all there is; it must itself be empty.
    pub(crate) fn take(&mut self, mailbox: &mut VecDeque<Item>) {
        let items = inner(self.0.get_or_insert_default());
        debug_assert!(items.is_empty(), "a batch is taken when the last is done");
        std::mem::swap(mailbox, items);
    }

    /// Takes away what is not to be kept.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Item) -> bool) {
        if let Some(items) = &mut self.0 {
            inner(items).retain(keep);
        }
    }

    /// Gives memory back that is not needed now.
    pub(crate) fn shrink(&mut self) {
        if self.len() == 0 {
            self.0 = None;
        }
    }
}
