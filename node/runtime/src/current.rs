//! Which process is being polled on this thread.
//!
//! Erlang's `self()`, for three purposes: a message sent with a [`Ref`](crate::Ref) is a message
//! from the process that sends it, so that its signals keep their order; a call made while a call
//! is being handled inherits what is left of its deadline; and a reply dropped because its process
//! is ending is told apart from one that was dropped by choice.
//!
//! It is a thread-local, set and reset around every poll, never state that outlives one; so many
//! nodes can share a thread. A task started with `tokio::spawn` inside a handler is not the process:
//! what it sends comes from nobody.

use std::cell::RefCell;
use std::sync::Arc;

use crate::process::Process;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

/// Sets the current process until it is dropped.
pub(crate) struct Enter {
    outer: Option<Arc<Process>>,
}

impl Enter {
    pub(crate) fn new(process: &Arc<Process>) -> Self {
        let outer = CURRENT.replace(Some(Arc::clone(process)));
        Self { outer }
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        // Fails only while the thread itself is ending, when nobody asks any more.
        let _ = CURRENT.try_with(|current| current.replace(self.outer.take()));
    }
}

/// Asks something of the current process, if there is one.
pub(crate) fn with<T>(ask: impl FnOnce(&Arc<Process>) -> T) -> Option<T> {
    CURRENT.try_with(|current| current.borrow().as_ref().map(ask)).ok().flatten()
}
