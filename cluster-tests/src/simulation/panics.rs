//! Whoever panics in a run, the run ends or goes on with a violation, so that its seed is known.
//!
//! A panic of the test itself unwinds the run. One in a task of a node is caught by tokio, and all
//! that would be seen of it is a node that does less than it did; one in a process is its exit
//! reason. So the panic hook tells the run of its thread, and says the rest as before.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::record;

const NAME: &str = "nothing panics";

thread_local! {
    static PANICS: Cell<Option<Vec<String>>> = const { Cell::new(None) };
}

/// Makes panics of this thread known to its run, until it is over.
fn listen() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            // The record may be in use by whoever panics.
            if let Some(mut panics) = PANICS.take() {
                panics.push(panic.to_string());
                PANICS.set(Some(panics));
            }
            before(panic);
        }));
    });
    PANICS.set(Some(Vec::new()));
}

/// Does something, and puts into the record what has panicked in it.
pub fn contained(act: impl FnOnce()) {
    listen();
    // What was in use is dropped, or looked at only to tell what happened.
    let ended = catch_unwind(AssertUnwindSafe(act));
    let panics = PANICS.take().unwrap_or_default();
    debug_assert!(ended.is_ok() || !panics.is_empty(), "a panic is told to the hook");
    for what in panics {
        record::violation(NAME, what);
    }
}
