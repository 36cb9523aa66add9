//! How far this node trusts its own ears.
//!
//! What it does not hear may be its own fault: it is slow, or packets get out and none get in. So
//! before it accuses others it doubts itself.
//!
//! - **Local health** (Lifeguard's LHA, arXiv 1707.00788): the more of its probes fail and the more
//!   often it is suspected itself, the longer it takes for a probe, up to nine times.
//! - **Deaf**: a suspicion during which not one packet of anybody has come is held for as long
//!   again. If the others are well they hear by then that this node does not answer, and declare it
//!   down; otherwise each of those that it declares down would come back under a new creation, for
//!   nothing. Of two nodes none is the rest of the cluster, so a pair does not wait.

use std::time::Duration;

use foca::Timer;

use super::jobs::Job;
use super::types::Time;
use super::wire::Life;
use super::{Membership, refute};

/// The worst score: everything takes so many times longer than it should, and once more.
const WORST: u32 = 8;

/// How well this node seems to be doing.
#[derive(Debug)]
pub(super) struct Health {
    /// 0 is well.
    score: u32,
    /// When a packet of anybody came last.
    heard: Time,
}

impl Health {
    pub(super) fn new(now: Time) -> Self {
        Self { score: 0, heard: now }
    }

    /// A packet of another node has come.
    pub(super) fn heard(&mut self, now: Time) {
        self.heard = now;
    }

    fn worse(&mut self) {
        self.score = WORST.min(self.score + 1);
    }

    fn better(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    /// This node has been suspected.
    pub(super) fn accused(&mut self) {
        self.worse();
    }

    /// Probes take longer on a node that is not well; nothing else does.
    pub(super) fn delay(&self, timer: &Timer<Life>, after: Duration) -> Duration {
        match timer {
            Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => {
                after * (1 + self.score)
            }
            _ => after,
        }
    }
}

impl Membership {
    /// What foca wanted to be reminded of is due.
    pub(super) fn reminded(&mut self, now: Time, timer: Timer<Life>) {
        if matches!(timer, Timer::ChangeSuspectToDown { .. }) && self.is_deaf(now) {
            self.jobs.schedule(now + self.config.suspicion(), Job::Verdict(timer));
            return;
        }
        self.remind(now, timer);
    }

    /// The same, whatever this node has heard or not.
    pub(super) fn remind(&mut self, now: Time, timer: Timer<Life>) {
        let asked_again = refute::asked_again(&timer);
        let next_probe = matches!(timer, Timer::ProbeRandomMember(_));
        let before = self.outputs.len();
        let suspects = self.with_foca(now, |foca, wishes| foca.handle_timer(timer, wishes));
        // Others are asked to probe it only if it has not answered.
        if let Some(probed) = asked_again.filter(|_| self.outputs.len() > before) {
            self.history.note(now, probed.name, super::Happened::Unanswered);
        }
        match next_probe {
            true if suspects > 0 => self.health.worse(),
            true => self.health.better(),
            false => {}
        }
    }

    /// Whether not one packet has come for as long as a suspicion lasts, of at least two others.
    fn is_deaf(&self, now: Time) -> bool {
        now.saturating_sub(self.health.heard) >= self.config.suspicion()
            && self.table.others().nth(1).is_some()
    }
}
