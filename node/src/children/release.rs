//! A child that is to run elsewhere: this node lets go of it.
//!
//! What comes for it is sent on from the moment at which another node asks for it; its process works off
//! what has come before, and ends when it is idle. That this node has let go of it
//! ([`RunState::LetGo`]) is said until its next process is seen elsewhere, and [`LINGER`] longer: whoever
//! sends to it goes by that, and what comes is sent on.
//!
//! # What if
//!
//! - *it is not idle in time*: it is ended as its plan says; what still waits for it is told so. One that is
//!   to be killed is killed at once.
//! - *it is exclusive, and the ring view gives it to another node*: it has been ended before anybody asks
//!   (`runtime/exclusive.rs`). Its state is kept for [`PATIENCE`].
//! - *it is to run here after all*, since the ring view gives it back or whoever has asked is lost: its
//!   owner sees that nobody has it, and has this node take it back, with its state. Not while who has
//!   asked is a member: it may run there by now, unseen, or be about to.
//! - *the next process is never seen*: after [`PATIENCE`] nothing is said of it any more.
//! - *the owner sees another process of it, no later one*, as after a split: that one is kept, and this
//!   node is told to forget the child, with its state.
//! - *another node asks for it as well*, since two owners knew different members for a moment: it is told
//!   who has asked before, and asks that one, which has its last state (`take.rs`). What is left here is
//!   for whoever has found nobody else that has it.
//! - *whoever has asked gives up, or is lost*: whoever asks next is answered the same.
//! - *it crashes before it has ended*: there is no state, and the next process begins anew.

use std::collections::BTreeMap;

use purlin_proto::admin::children::{ChildReleased, ReleaseChild};
use purlin_proto::child::{ChildRun, RunState};
use purlin_proto::supervision::Shutdown;
use purlin_proto::{ChildId, ExitReason, Mode, NodeId, Snapshot};
use purlin_runtime::{Answer, Holding, RawContext};
use tokio::time::{Duration, Instant};

use super::host::{Ending, Host, Hosted, State, say};
use super::owner::ring_key;

/// How often it is looked whether one is idle.
const LOOK: Duration = Duration::from_millis(5);

/// How long it is still said to run here when it is seen elsewhere: others may see it a little later.
const LINGER: Duration = Duration::from_millis(300);

/// And if it is not seen.
const PATIENCE: Duration = Duration::from_mins(1);

/// A child that this node lets go of.
#[derive(Default)]
pub(super) struct Release {
    answers: Vec<Answer<ChildReleased>>,
    /// Who has asked for it last.
    pub(super) to: Option<NodeId>,
    state: Option<Snapshot>,
}

/// What is to be done about such children, and when.
#[derive(Default)]
pub(super) struct Releases {
    /// Until when it is waited for them to be idle; none is for as long as it takes.
    retiring: BTreeMap<ChildId, Option<Instant>>,
    /// Until when they are said to run here.
    lingering: BTreeMap<ChildId, Instant>,
}

impl Releases {
    pub(super) fn due(&self) -> Option<Instant> {
        let look = (!self.retiring.is_empty()).then(|| Instant::now() + LOOK);
        look.into_iter().chain(self.lingering.values().copied()).min()
    }

    /// It is said to have been let go.
    pub(super) fn linger(&mut self, child: &ChildId) {
        self.lingering.entry(child.clone()).or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// It is started anew here, or has been forgotten.
    pub(super) fn forget(&mut self, child: &ChildId) {
        self.retiring.remove(child);
        self.lingering.remove(child);
    }
}

impl Host {
    /// Another node is to run a child.
    pub(super) fn release(
        &mut self,
        ctx: &RawContext,
        ask: ReleaseChild,
        answer: Answer<ChildReleased>,
    ) {
        let Some(hosted) = self.children.get_mut(&ask.child) else {
            return answer.send(ChildReleased::Elsewhere(seen_elsewhere(ctx, &ask)));
        };
        let child = ask.child;
        let generation = hosted.generation;
        if generation >= ask.generation {
            return answer.send(ChildReleased::Stale { generation });
        }
        let release = hosted.release.get_or_insert_default();
        let other = |has: &NodeId| has.name != ask.to.name && !ask.but.contains(has);
        if let Some(has) = release.to.filter(other) {
            return answer.send(ChildReleased::Elsewhere(Some(has)));
        }
        tracing::debug!(%child, to = %ask.to, "asked for");
        ctx.runtime().child_moves(&child, ask.to.name);
        release.answers.push(answer);
        release.to = Some(ask.to);
        match hosted.state {
            // It is looked at when that is over.
            State::Starting(_) => {}
            State::Running(_) => self.retire(ctx, &child),
            State::Ended => self.has_let_go(ctx, &child),
        }
    }

    /// Has it end when it is idle.
    pub(super) fn retire(&mut self, ctx: &RawContext, child: &ChildId) {
        let Some(hosted) = self.children.get(child) else { return };
        let until = match hosted.plan.shutdown {
            Shutdown::BrutalKill => return self.retire_now(ctx, child),
            Shutdown::Timeout(limit) => Instant::now().checked_add(limit),
            Shutdown::Infinity => None,
        };
        self.releases.retiring.entry(child.clone()).or_insert(until);
        self.tend(ctx);
    }

    /// Time is up.
    fn retire_now(&mut self, ctx: &RawContext, child: &ChildId) {
        let Some(hosted) = self.children.get_mut(child) else { return };
        if hosted.ending.is_none() {
            hosted.ending = Some(Ending::new(ExitReason::Shutdown));
            self.ask_to_end(ctx, child);
        }
    }

    /// What a child has left here, and who has asked for it last.
    pub(super) fn left_here(&self, child: &ChildId) -> (Option<NodeId>, Option<Snapshot>) {
        let release = self.children.get(child).and_then(|hosted| hosted.release.as_ref());
        release.map_or((None, None), |release| (release.to, release.state.clone()))
    }

    /// Whether this node has let go of a child, and is not to run it.
    pub(super) fn has_lost(&self, ctx: &RawContext, child: &ChildId) -> bool {
        let hosted = self.children.get(child).filter(|hosted| hosted.release.is_some());
        hosted.is_some_and(|hosted| leaves(ctx, child, hosted))
    }

    /// Does what is due.
    pub(super) fn tend(&mut self, ctx: &RawContext) {
        let now = Instant::now();
        let mut late = Vec::new();
        let children = &self.children;
        self.releases.retiring.retain(|child, until| {
            let Some(Hosted { state: State::Running(serial), .. }) = children.get(child) else {
                return false;
            };
            if ctx.runtime().retire_child(*serial) {
                return false;
            }
            let is_late = until.is_some_and(|until| until <= now);
            if is_late {
                late.push(child.clone());
            }
            !is_late
        });
        for child in late {
            tracing::warn!(%child, "is not idle, and is to move: it is ended");
            self.retire_now(ctx, &child);
        }
        let over = self.releases.lingering.iter().filter(|(_, until)| **until <= now);
        let over: Vec<_> = over.map(|(child, _)| child.clone()).collect();
        for child in over {
            self.ended_as_asked(ctx, &child);
        }
    }

    /// Whether a child that has just ended is to run elsewhere.
    pub(super) fn is_released(&mut self, ctx: &RawContext, child: &ChildId) -> bool {
        let Some(hosted) = self.children.get_mut(child) else { return false };
        if hosted.release.is_none() && leaves(ctx, child, hosted) {
            hosted.release = Some(Release::default());
        }
        hosted.release.is_some()
    }

    /// Its process has ended.
    pub(super) fn has_let_go(&mut self, ctx: &RawContext, child: &ChildId) {
        self.releases.retiring.remove(child);
        let Some(hosted) = self.children.get_mut(child) else { return };
        let Some(release) = &mut hosted.release else { return };
        tracing::debug!(%child, to = ?release.to, "let go");
        release.state = hosted.left.take().or(release.state.take());
        let to = release.to.map(|to| to.name);
        for answer in release.answers.drain(..) {
            answer.send(ChildReleased::Free(release.state.clone()));
        }
        let ended = hosted.ending.take().map(|ending| ending.answers).unwrap_or_default();
        let forgotten = !ended.is_empty();
        for answer in ended {
            answer.send(());
        }
        if forgotten {
            return self.ended_as_asked(ctx, child);
        }
        self.limits.retain(|(_, limited)| limited != child);
        self.releases.linger(child);
        let run = ctx.runtime().children().own_run(child);
        if let Some(run) = run.filter(|run| run.ended().is_none()) {
            say(ctx, child, Some(ChildRun { state: RunState::LetGo { to }, ..run }));
        }
        self.seen(ctx, child);
    }

    /// Something about a child has changed anywhere.
    pub(super) fn seen(&mut self, ctx: &RawContext, child: &ChildId) {
        let (Some(until), Some(hosted)) =
            (self.releases.lingering.get_mut(child), self.children.get(child))
        else {
            return;
        };
        let us = ctx.runtime().id();
        let seen = ctx.runtime().children().see(child, us);
        if seen.runs.iter().any(|(on, run)| *on != us && run.generation > hosted.generation) {
            *until = (*until).min(Instant::now() + LINGER);
        }
    }
}

/// Where else a child is seen that is not here: the latest.
fn seen_elsewhere(ctx: &RawContext, ask: &ReleaseChild) -> Option<NodeId> {
    let us = ctx.runtime().id();
    let others = ctx.runtime().children().see(&ask.child, us).runs.into_iter();
    let others = others.filter(|(on, run)| on.name != ask.to.name && run.ended().is_none());
    let others = others.filter(|(on, _)| *on != us && !ask.but.contains(on));
    others.max_by_key(|(_, run)| (run.generation, run.is_live())).map(|(on, _)| on)
}

/// Whether a child is exclusive, and another node is to run it.
fn leaves(ctx: &RawContext, child: &ChildId, hosted: &Hosted) -> bool {
    hosted.plan.mode == Mode::Exclusive && ctx.runtime().holding(&ring_key(child)) == Holding::No
}
