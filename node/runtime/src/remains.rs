//! What is left of a process when it has ended.

use std::sync::Weak;

use purlin_proto::{CallError, ExitReason, Name, SpawnError};

use crate::inflow::Stop;
use crate::mailbox::Queue;
use crate::panics;
use crate::process::{Process, Starter};
use crate::relations::Relations;

/// What is left of a process when it has ended.
pub(crate) struct Remains {
    pub(crate) started: bool,
    pub(crate) ignored: bool,
    pub(crate) reason: ExitReason,
    pub(crate) name: Option<Name>,
    pub(crate) relations: Option<Box<Relations>>,
    pub(crate) starter: Option<Starter>,
    pub(crate) mailbox: Queue,
}

impl Remains {
    fn not_started(&self, reason: &ExitReason) -> SpawnError {
        if self.ignored { SpawnError::Ignored } else { SpawnError::Start(reason.clone()) }
    }

    /// Tells everyone who still waits for this process: starter, callers, senders; stops timers.
    pub(crate) fn settle(&mut self, process: &Process, reason: &ExitReason) {
        let not_started = self.not_started(reason);
        let announce = self.relations.as_mut().and_then(|relations| relations.announce.take());
        if let Some(announce) = announce {
            announce.tell(Err(not_started.clone()));
        }
        if let Some(starter) = self.starter.take() {
            // Whoever started it may have stopped waiting.
            drop(starter.send(Err(not_started)));
        }
        let exited = || CallError::Exited(reason.clone());
        while let Some(item) = self.mailbox.pop(process) {
            panics::contained("a message was dropped", || item.fail(exited()));
        }
        let Some(relations) = &mut self.relations else { return };
        for orphan in relations.orphans.drain(..) {
            orphan(exited());
        }
        for deferred in relations.deferred.drain(..).filter_map(|weak| weak.upgrade()) {
            deferred.fail(exited());
        }
        for timer in relations.timers.values() {
            timer.abort();
        }
        relations.stopped.iter().for_each(Stop::go_on);
        let senders = relations.senders.iter().filter_map(Weak::upgrade);
        senders.for_each(|sender| sender.wake_by_ref());
    }
}
