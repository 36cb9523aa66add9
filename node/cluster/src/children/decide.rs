//! From what is wanted and what runs to the next step.

use std::cmp::Reverse;
use std::time::Duration;

use purlin_proto::child::{
    Cause, ChildEnd, ChildRecord, ChildRun, Desired, GaveUp, Intensity, Placed, RunState,
};
use purlin_proto::{NodeId, NodeName};

use super::{DEATHS, End, SETTLE, Scene, Step, YOUNG, place};

/// The next thing to do about a child.
pub fn decide(scene: &Scene<'_>) -> Step {
    match scene.record.desired {
        Desired::Run => wanted(scene),
        Desired::Stopped(_) | Desired::Done(_) | Desired::GaveUp(_) | Desired::Poison => {
            let end = |(on, run): &(NodeId, ChildRun)| {
                let why = if run.ended().is_some() { End::Dealt } else { End::Unwanted };
                Step::End { on: *on, generation: run.generation, why }
            };
            scene.runs.first().map_or(Step::Rest, end)
        }
    }
}

fn wanted(scene: &Scene<'_>) -> Step {
    let mut present = scene.runs.iter().filter(|(_, run)| run.ended().is_none());
    let (first, second) = (present.next(), present.next());
    match (first, second, &scene.record.placed) {
        (Some(_), Some(_), _) => twice(scene),
        (Some((on, run)), None, Some(placed)) if placed.node == *on => once(scene, *on, run),
        (Some((on, run)), None, Some(placed)) if is_moving(scene, *on, run, placed) => {
            moving(scene, *on, run, placed)
        }
        (Some(_), None, _) if scene.odd_for < SETTLE => Step::Settle,
        (Some((on, run)), None, _) => keep(scene, *on, run),
        (None, _, Some(placed)) => gone(scene, placed),
        (None, _, None) => anew(scene, scene.record.clone(), Cause::Asked),
    }
}

/// It runs where the record says, or that node has let go of it.
fn once(scene: &Scene<'_>, on: NodeId, run: &ChildRun) -> Step {
    let record = scene.record;
    let may_be = place::may_be(scene, on);
    let is_back = |placed: Placed| !run.is_live() && is_moving(scene, on, run, &placed);
    let takes_back = record.placed.is_some_and(is_back);
    if takes_back && may_be {
        return Step::Start;
    }
    let other = record.placed.is_some_and(|placed| placed.generation != run.generation);
    if other && !takes_back {
        return if scene.odd_for < SETTLE { Step::Settle } else { keep(scene, on, run) };
    }
    if let Some((on, ended)) = scene.runs.iter().find(|(_, run)| run.ended().is_some()) {
        return Step::End { on: *on, generation: ended.generation, why: End::Dealt };
    }
    // It is about to run there, or does already.
    let awaited = |to: NodeName| to != on.name && scene.members.live.contains_key(&to);
    match may_be {
        true if run.is_live() => Step::Rest,
        true if matches!(run.state, RunState::LetGo { to: Some(to) } if awaited(to)) => Step::Rest,
        // Whoever has asked for it may have it, and is not seen yet.
        true if scene.odd_for < SETTLE => Step::Settle,
        // It goes on here until it is asked for from there.
        _ if may_be || place::place(scene).is_some_and(|there| there != on) => {
            anew(scene, record.clone(), Cause::Moved(on))
        }
        _ => Step::Rest,
    }
}

/// Whether what runs is to be taken over by the node that the record says.
fn is_moving(scene: &Scene<'_>, on: NodeId, run: &ChildRun, placed: &Placed) -> bool {
    scene.record.cause == Cause::Moved(on) && run.generation < placed.generation
}

/// It still runs where it was, as far as is seen.
fn moving(scene: &Scene<'_>, on: NodeId, run: &ChildRun, placed: &Placed) -> Step {
    let is_live = scene.members.is_live(placed.node);
    if is_live && place::may_be(scene, placed.node) {
        return Step::Start;
    }
    if is_live && scene.odd_for < SETTLE {
        // Whoever has placed it there may know members that are not seen here yet.
        return Step::Settle;
    }
    match place::place(scene) {
        Some(there) if there == on => keep(scene, on, run),
        Some(_) => anew(scene, scene.record.clone(), Cause::Moved(on)),
        None => Step::Nowhere,
    }
}

/// It runs elsewhere than the record says, and nowhere else.
fn keep(scene: &Scene<'_>, on: NodeId, run: &ChildRun) -> Step {
    let mut record = scene.record.clone();
    record.generation = record.generation.max(run.generation);
    record.placed = Some(Placed { node: on, generation: run.generation, at_ms: run.since_ms });
    record.cause = Cause::Kept;
    write(scene, record)
}

/// Several nodes have it, or have let go of it.
fn twice(scene: &Scene<'_>) -> Step {
    if scene.odd_for < SETTLE {
        return Step::Settle;
    }
    let present = || scene.runs.iter().filter(|(_, run)| run.ended().is_none());
    let is_old = |on: NodeId, run: &ChildRun| {
        scene.record.placed.is_some_and(|placed| is_moving(scene, on, run, &placed))
    };
    let is_there = |(on, run): &(NodeId, ChildRun)| {
        let there = scene.record.placed.map(|placed| (placed.node, placed.generation));
        run.is_live() && there == Some((*on, run.generation))
    };
    // It has been taken over, and its old host does not see it yet.
    if let Some((on, run)) =
        present().find(|(on, run)| is_old(*on, run)).filter(|_| present().any(is_there))
    {
        return Step::End { on: *on, generation: run.generation, why: End::Moved };
    }
    let rank = |(on, run): &&(NodeId, ChildRun)| {
        // Of what has been let go of the latest has the state that has been used last.
        let let_go = (!run.is_live()).then(|| (run.generation, is_old(*on, run)));
        (run.is_live(), let_go, run.view, run.generation, Reverse(on.name))
    };
    let Some((kept, run)) = present().max_by_key(rank) else { return Step::Rest };
    let is_placed = scene.record.placed.is_some_and(|placed| placed.node == *kept);
    if !is_placed && !is_old(*kept, run) {
        return keep(scene, *kept, run);
    }
    let end = |(on, other): &(NodeId, ChildRun)| {
        let why = if other.is_live() { End::Twice(*kept, run.serial) } else { End::Moved };
        // No later one of that node is meant.
        Step::End { on: *on, generation: other.generation, why }
    };
    present().find(|(on, _)| on != kept).map_or(Step::Rest, end)
}

/// It does not run.
fn gone(scene: &Scene<'_>, placed: &Placed) -> Step {
    let record = scene.record;
    if !scene.members.is_live(placed.node) {
        return node_gone(scene, placed);
    }
    let here = scene.runs.iter().find(|(on, _)| *on == placed.node);
    match here.map(|(_, run)| run) {
        Some(run) if run.generation >= placed.generation => {
            run.ended().map_or(Step::Rest, |end| ended(scene, run, end))
        }
        // Its place was changed before it was ever started, or it was ended to be moved.
        _ if !place::may_be(scene, placed.node) => match place::place(scene) {
            Some(there) if there != placed.node => {
                anew(scene, record.clone(), Cause::Moved(placed.node))
            }
            _ => Step::Start,
        },
        _ => Step::Start,
    }
}

/// It has ended by itself.
fn ended(scene: &Scene<'_>, run: &ChildRun, end: &ChildEnd) -> Step {
    let mut record = scene.record.clone();
    if !record.plan.restart.follows_end(end.orderly) {
        record.desired = Desired::Done(end.reason.clone());
        return write(scene, record);
    }
    let counts = |at: u64, within: Duration| {
        u128::from(scene.now_ms.saturating_sub(at)) <= within.as_millis()
    };
    let Intensity { restarts, period } = record.plan.intensity;
    let within = record.plan.supervisor_intensity.map_or(period, |all| all.period.max(period));
    record.crashes.retain(|at| counts(*at, within));
    record.crashes.push(scene.now_ms);
    let most = record.plan.intensity.restarts as usize + 1;
    let recent = record.crashes.iter().filter(|at| counts(**at, period)).count();
    // What does not fit is not needed: there are too many already.
    let surplus = record.crashes.len().saturating_sub(most);
    record.crashes.drain(..surplus);
    let of_supervisor = record.plan.supervisor_intensity.is_some_and(|all| {
        let own = record.crashes.iter().filter(|at| counts(**at, all.period)).count();
        scene.others.saturating_add(u32::try_from(own).unwrap_or(u32::MAX)) > all.restarts
    });
    if recent > restarts as usize || of_supervisor {
        let of_supervisor = recent <= restarts as usize;
        let reason = end.reason.clone();
        record.desired = Desired::GaveUp(GaveUp { of_supervisor, reason });
        return write(scene, record);
    }
    record.restarts = record.restarts.saturating_add(1);
    record.generation = record.generation.max(run.generation);
    anew(scene, record, Cause::Ended(end.reason.clone()))
}

/// The node that it was placed on is gone.
fn node_gone(scene: &Scene<'_>, placed: &Placed) -> Step {
    let mut record = scene.record.clone();
    let age = Duration::from_millis(scene.now_ms.saturating_sub(placed.at_ms));
    if age >= YOUNG + scene.members.detect_in {
        record.deaths.clear();
    } else if !scene.left && !record.deaths.contains(&placed.node.name) {
        record.deaths.push(placed.node.name);
    }
    if record.deaths.len() >= DEATHS {
        record.desired = Desired::Poison;
        return write(scene, record);
    }
    anew(scene, record, Cause::NodeGone(placed.node))
}

/// Placed anew, as the next generation.
fn anew(scene: &Scene<'_>, mut record: ChildRecord, cause: Cause) -> Step {
    // After an end it stays where it is, if it may be there.
    let stays = record.placed.map(|placed| placed.node);
    let stays = stays.filter(|_| matches!(cause, Cause::Ended(_)));
    let stays = stays.filter(|node| place::may_be(scene, *node));
    let Some(node) = stays.or_else(|| place::place(scene)) else { return Step::Nowhere };
    record.generation = record.generation.saturating_add(1);
    let generation = record.generation;
    record.placed = Some(Placed { node, generation, at_ms: scene.now_ms });
    record.cause = cause;
    write(scene, record)
}

fn write(scene: &Scene<'_>, mut record: ChildRecord) -> Step {
    // What another node has written may be at the end of the numbers.
    record.version = record.version.saturating_add(1);
    record.by = scene.members.me;
    Step::Write(Box::new(record))
}
