//! The runtime's own long work, such as putting megabytes into bytes.
//!
//! It would hold a worker for milliseconds, and with it every process that waits for one. So the
//! worker's other tasks go on, on another thread, meanwhile; the system shares a core between the
//! two. This costs some 20 us, so it is for what takes far longer.

use tokio::runtime::{Handle, RuntimeFlavor};

/// What is long: a megabyte takes a few hundred microseconds.
const LONG: usize = 1 << 20;

/// Does something with so many bytes.
pub(crate) fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    // On a runtime of one thread there is nobody else.
    let has_workers =
        || Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= LONG && has_workers() { tokio::task::block_in_place(work) } else { work() }
}
