//! What is said of crashes and restarts, and what is remembered of them.
//!
//! One structured event for each abnormal end and each restart, at most [`PER_SECOND`] of them a
//! second after a burst of [`BURST`]: a crash loop must not flood a log. The next event that is let
//! through says how many were not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use purlin_proto::admin::{What, Why};
use purlin_proto::{Dest, ExitReason, Name, Pid};
use tokio::time::Instant;

use crate::process::Process;
use crate::runtime::{Runtime, lock};
use crate::supervisor::Exit;

const PER_SECOND: f64 = 10.0;
const BURST: f64 = 50.0;

/// Abnormal ends that are remembered, of all processes of a node.
const REMEMBERED: usize = 1_000;

/// Processes above the one that ended, in a report.
const ANCESTORS: usize = 8;

pub(crate) struct Reports {
    bucket: Mutex<Bucket>,
    ends: Mutex<VecDeque<Ended>>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
    suppressed: u64,
}

struct Ended {
    kind: &'static str,
    name: Option<Name>,
    exit: Exit,
}

impl Reports {
    pub(crate) fn new() -> Self {
        let bucket = Bucket { tokens: BURST, filled: Instant::now(), suppressed: 0 };
        Self { bucket: Mutex::new(bucket), ends: Mutex::default() }
    }
}

impl Bucket {
    fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * PER_SECOND).min(BURST);
        self.filled = now;
        if self.tokens < 1.0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Runtime {
    /// Whether something may be logged now; how much was not since the last time.
    pub(crate) fn may_report(&self) -> Option<u64> {
        lock(&self.0.reports.bucket).take(Instant::now())
    }

    /// A process has ended abnormally.
    pub(crate) fn report_crash(
        &self,
        process: &Process,
        name: Option<Name>,
        mailbox: usize,
        restarts: u64,
        reason: &ExitReason,
    ) {
        self.counters().crashed.add();
        let (pid, kind) = (process.pid(), process.class.kind);
        if let Some(suppressed) = self.may_report() {
            tracing::error!(
                %pid, kind, name = name.as_ref().map(tracing::field::display), %reason,
                ancestors = %self.ancestors(process), mailbox, restarts,
                handled = process.handled(), backtrace = reason.backtrace(), suppressed,
                "process crashed",
            );
        }
        let (at, lived) = (Instant::now(), process.age());
        let exit = Exit { pid: Some(pid), reason: reason.clone(), at, lived };
        let mut ends = lock(&self.0.reports.ends);
        ends.push_front(Ended { kind, name: name.clone(), exit });
        ends.truncate(REMEMBERED);
        drop(ends);
        self.observe(|| What::ProcessCrashed {
            pid,
            kind: kind.to_owned(),
            name,
            reason: reason.to_string(),
        });
    }

    /// Who started it, and who started that one.
    fn ancestors(&self, process: &Process) -> String {
        let mut pids: Vec<Pid> = Vec::new();
        let mut next = process.parent();
        while let Some(pid) = next.filter(|_| pids.len() < ANCESTORS) {
            pids.push(pid);
            let above = self.is_own(&pid).then(|| self.process(pid.serial)).flatten();
            next = above.and_then(|above: Arc<Process>| above.parent());
        }
        pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Why a process ended, or was restarted: what `purlin why` shows. `None` if nothing is known
    /// of it: it never was, ended in good order, or too many have crashed since.
    pub fn why(&self, target: &Dest) -> Option<Why> {
        let pid = match target {
            Dest::Pid(pid) => *pid,
            Dest::Remote(_, node) if *node != self.name() => return None,
            Dest::Local(name) | Dest::Remote(name, _) => match self.whereis(name) {
                Some(pid) => pid,
                None => self.last_of(name)?,
            },
            _ => return None,
        };
        let living = self.is_own(&pid).then(|| self.process(pid.serial)).flatten();
        match living {
            Some(process) => {
                let mark = process.relations(|relations| relations.mark.clone()).flatten();
                Some(Why {
                    pid: process.pid(),
                    kind: process.class.kind.to_owned(),
                    name: process.name(),
                    alive: true,
                    child_id: mark.as_ref().map(|mark| mark.id.to_string()),
                    restarts: mark.as_ref().map_or(0, |mark| mark.history.restarts()),
                    exits: mark.map(|mark| mark.history.exits()).unwrap_or_default(),
                })
            }
            None => self.why_dead(pid),
        }
    }

    fn why_dead(&self, pid: Pid) -> Option<Why> {
        let ends = lock(&self.0.reports.ends);
        let ended = ends.iter().find(|ended| ended.exit.pid == Some(pid))?;
        Some(Why {
            pid,
            kind: ended.kind.to_owned(),
            name: ended.name.clone(),
            alive: false,
            child_id: None,
            restarts: 0,
            exits: vec![ended.exit.told()],
        })
    }

    /// The last that crashed under this name.
    fn last_of(&self, name: &Name) -> Option<Pid> {
        let ends = lock(&self.0.reports.ends);
        ends.iter().find(|ended| ended.name.as_ref() == Some(name))?.exit.pid
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_crash_loop_is_reported_now_and_then_with_what_was_left_out() {
        let start = Instant::now();
        let mut bucket = Bucket { tokens: BURST, filled: start, suppressed: 0 };
        let let_through = (0..1_000).filter(|_| bucket.take(start).is_some()).count();
        assert_eq!(let_through, 50);
        let later = start + Duration::from_secs(1);
        assert_eq!(bucket.take(later), Some(950));
        let more = (0..100).filter(|_| bucket.take(later).is_some()).count();
        assert_eq!(more, 9, "ten a second");
    }
}
