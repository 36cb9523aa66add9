//! Finds handlers that hold a worker.
//!
//! All processes of a node share a few threads. One that computes, or blocks, without coming to an
//! `await` takes one of them from all others; `ctx.blocking` is the way out. Each thread that polls
//! processes notes whose turn it is; whoever owns the runtime looks every 100 ms or so
//! ([`Runtime::check_workers`], a node does), from a thread that processes cannot hold up. So one
//! that never yields is seen while it does not, and a poll costs two stores. The looks are counted, as
//! a clock: a process whose handlers are slow lets others have their turn after 100 ms, and not after
//! so many messages as fast ones handle.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::process::Process;
use crate::runtime::{Runtime, Shared, lock};

/// What one thread is doing for one runtime.
#[derive(Default)]
pub(crate) struct Worker {
    /// The serial of the process that it polls; 0 for none.
    polling: AtomicU64,
    /// How many polls there were.
    polls: AtomicU64,
    /// The poll that was under way when it was last looked at.
    seen: AtomicU64,
    /// The last poll that was reported.
    reported: AtomicU64,
}

/// The threads that poll a runtime's processes.
#[derive(Default)]
pub(crate) struct Workers {
    threads: Mutex<Vec<Weak<Worker>>>,
    /// How often somebody has looked: a coarse clock that costs nothing to read.
    looks: AtomicU32,
}

thread_local! {
    /// This thread's notes, one for each runtime that it has polled for.
    static NOTES: RefCell<Vec<(Weak<Shared>, Arc<Worker>)>> = const { RefCell::new(Vec::new()) };
}

/// Notes that a poll begins, until it is dropped.
pub(crate) struct Polling(Option<Arc<Worker>>);

impl Polling {
    pub(crate) fn begin(process: &Process) -> Self {
        let worker = NOTES.try_with(|notes| note(&mut notes.borrow_mut(), &process.runtime)).ok();
        if let Some(worker) = &worker {
            // Only this thread writes them.
            worker.polls.store(worker.polls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            worker.polling.store(process.serial, Ordering::Release);
        }
        Self(worker)
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        if let Some(worker) = &self.0 {
            worker.polling.store(0, Ordering::Release);
        }
    }
}

fn note(notes: &mut Vec<(Weak<Shared>, Arc<Worker>)>, runtime: &Runtime) -> Arc<Worker> {
    let own = |(shared, _): &&(Weak<Shared>, Arc<Worker>)| {
        std::ptr::eq(shared.as_ptr(), Arc::as_ptr(&runtime.0))
    };
    if let Some((_, worker)) = notes.iter().find(own) {
        return Arc::clone(worker);
    }
    notes.retain(|(shared, _)| shared.strong_count() > 0);
    let worker = Arc::new(Worker::default());
    notes.push((Arc::downgrade(&runtime.0), Arc::clone(&worker)));
    let mut workers = lock(&runtime.0.workers.threads);
    workers.retain(|worker| worker.strong_count() > 0);
    workers.push(Arc::downgrade(&worker));
    worker
}

impl Runtime {
    /// Looks for handlers that have held a worker since the last look, and counts and warns of each
    /// once. To be called every 100 ms or so, from a thread that no process runs on.
    pub fn check_workers(&self) {
        self.0.workers.looks.fetch_add(1, Ordering::Relaxed);
        let workers: Vec<_> =
            lock(&self.0.workers.threads).iter().filter_map(Weak::upgrade).collect();
        for worker in workers {
            let serial = worker.polling.load(Ordering::Acquire);
            let polls = worker.polls.load(Ordering::Relaxed);
            let same = worker.seen.swap(polls, Ordering::Relaxed) == polls;
            if serial != 0 && same && worker.reported.swap(polls, Ordering::Relaxed) != polls {
                self.report_held(serial);
            }
        }
    }

    /// Changes every 100 ms or so: a process that has kept its worker since the last change lets
    /// others have their turn, however few messages it has handled.
    pub(crate) fn coarse_time(&self) -> u32 {
        self.0.workers.looks.load(Ordering::Relaxed)
    }

    fn report_held(&self, serial: u64) {
        self.counters().held_workers.add();
        let Some(process) = self.process(serial) else { return };
        if let Some(suppressed) = self.may_report() {
            tracing::warn!(
                pid = %process.pid(), kind = process.class.kind,
                message = process.handling().unwrap_or("none"), suppressed,
                "a handler has held a worker for 100 ms; ctx.blocking is for what takes long",
            );
        }
    }
}
