//! How far this node trusts its own ears.
//!
//! What it does not hear may be its own fault: it is slow, or packets get out and none get in. So
//! before it accuses others it doubts itself.
//!
//! - **Local health**, after Lifeguard (arXiv 1707.00788): the more often its suspicions turn out to
//!   be wrong, and the more often it is suspected itself, the longer it takes for a probe, up to nine
//!   times. Not every probe that fails counts, as it does there: the smaller side of a split would
//!   then take nine times as long to see that it is one.
//! - **Deaf**: a suspicion during which not one packet of anybody has come is held for longer. If the
//!   others are well they hear by then that this node does not answer, and declare it down;
//!   otherwise each of those that it declares down would come back under a new creation, for
//!   nothing. Of two nodes none is the rest of the cluster, so a pair does not wait.
//! - **Alone**: when not one packet of anybody has come for `detect_in`, all others are down, probed
//!   or not. One after the other would take the only survivor of hundreds minutes.

use std::time::Duration;

use foca::Timer;

use super::jobs::Job;
use super::types::{Time, Why};
use super::wire::Life;
use super::{Happened, Membership, refute};

/// The worst score: a probe takes so many times longer than it should, and once more.
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

    /// Nothing could be heard for so long, because this node was stalled.
    pub(super) fn slept(&mut self, lag: Duration) {
        self.heard += lag;
    }

    /// This node has been suspected, or has suspected somebody who is well.
    pub(super) fn worse(&mut self) {
        self.score = WORST.min(self.score + 1);
    }

    fn better(&mut self) {
        self.score = self.score.saturating_sub(1);
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

    fn silent_for(&self, now: Time) -> Duration {
        now.saturating_sub(self.heard)
    }
}

impl Membership {
    /// What foca wanted to be reminded of is due.
    pub(super) fn reminded(&mut self, now: Time, timer: Timer<Life>) {
        let verdict = matches!(timer, Timer::ChangeSuspectToDown { .. });
        let deaf = self.health.silent_for(now) >= self.config.suspicion();
        if verdict && deaf && self.table.others().nth(1).is_some() {
            self.jobs.schedule(now + self.config.doubt(), Job::Verdict(timer));
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
            self.history.note(now, probed.name, Happened::Unanswered);
        }
        if next_probe && suspects == 0 {
            self.health.better();
        }
    }

    /// Nobody can be heard any more.
    pub(super) fn see_if_alone(&mut self, now: Time) {
        if self.health.silent_for(now) < self.config.detect_in {
            return;
        }
        let others: Vec<_> = self.table.others().map(|m| (m.id, m.address)).collect();
        for (id, address) in others {
            self.declare_down(now, Life { id, address }, Why::Silent);
        }
    }
}
