//! Panics become exit reasons.
//!
//! Where a panic happened is known to the panic hook alone, so the first runtime of a program puts
//! its own in front of the present one: in a process it keeps place and backtrace for the exit
//! reason, and says nothing, because the crash report does; elsewhere it hands on to the hook
//! before. A panic hook is one for a whole program; this is the one thing here that twenty runtimes
//! share.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use purlin_proto::{ExitReason, Fault};

use crate::current;

thread_local! {
    static LAST: RefCell<Option<(String, Option<String>)>> = const { RefCell::new(None) };
}

pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if current::with(|_| ()).is_none() {
                return before(panic);
            }
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let backtrace = Backtrace::capture();
            let captured = backtrace.status() == BacktraceStatus::Captured;
            let backtrace = captured.then(|| backtrace.to_string());
            LAST.replace(Some((place, backtrace)));
        }));
    });
}

/// A panic of another thread is about to go on here: where the last one of this thread was says
/// nothing about it.
pub(crate) fn forget() {
    LAST.take();
}

/// Does something with a user's values that may panic, as when one is dropped, where a panic would
/// hurt somebody who has nothing to do with it.
pub(crate) fn contained(what: &'static str, act: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(act)) {
        let reason = reason(panic);
        tracing::error!(%reason, "panic contained: {what}");
    }
}

/// The exit reason of a panic that was caught on this thread just now.
pub(crate) fn reason(panic: Box<dyn Any + Send>) -> ExitReason {
    let message = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".to_owned());
    let (place, backtrace) = LAST.take().unwrap_or_default();
    // What it panicked with may itself panic when it is dropped.
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(panic))) {
        std::mem::forget(again);
    }
    let message = if place.is_empty() { message } else { format!("{message}, at {place}") };
    ExitReason::Panic(Fault::new(message, backtrace))
}
