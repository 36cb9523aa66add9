//! Many monitors of one process on another node. `src/watched.rs` says why they may share one.

use purlin_proto::{Signal, Target};
use purlin_runtime::{Dest, Down, ExitReason, Pid, Reference, Runtime, Sent};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::wire::{Hand, Pair, count};

fn crash() -> ExitReason {
    ExitReason::other("crash")
}

async fn monitor(watcher: &Hand, target: Pid) -> Reference {
    watcher.does(move |ctx| ctx.monitor(target)).await
}

async fn monitor_all(watchers: &[Hand], target: Pid) -> Vec<Reference> {
    let mut references = Vec::new();
    for watcher in watchers {
        references.push(monitor(watcher, target).await);
    }
    references
}

async fn demonitor(watcher: &Hand, reference: Reference) -> bool {
    watcher.does(move |ctx| ctx.demonitor(reference)).await
}

/// Has a process end another, as itself.
async fn exit(by: &Hand, target: Pid, reason: ExitReason) {
    by.does(move |ctx| ctx.runtime().exit(target, reason)).await;
}

/// How many relations a process has because it is watched.
fn relations(runtime: &Runtime, pid: Pid) -> usize {
    runtime.process_detail(&pid.into()).unwrap().monitored_by.len()
}

/// What a node has sent about monitors: one letter each, for monitor, join, joined, demonitor, down
/// (`x`).
fn letters(pair: &Pair, by: &Runtime) -> String {
    let letter = |signal: &Signal| match signal {
        Signal::Monitor { .. } => Some('m'),
        Signal::Join { .. } => Some('j'),
        Signal::Joined { .. } => Some('J'),
        Signal::Demonitor { .. } => Some('d'),
        Signal::Down { .. } => Some('x'),
        _ => None,
    };
    pair.sent_by(by).iter().filter_map(|(_, envelope)| letter(&envelope.signal)).collect()
}

fn down(reference: Reference, target: Pid, reason: ExitReason) -> Down {
    Down { reference, target: target.into(), reason }
}

/// Each watcher has been told this, once, and nothing else.
async fn all_told(
    watchers: &mut [Hand],
    references: &[Reference],
    target: Pid,
    reason: &ExitReason,
) {
    for (watcher, reference) in watchers.iter_mut().zip(references) {
        assert_eq!(watcher.downs().await, [down(*reference, target, reason.clone())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_watchers_cost_two_frames_an_answer_one_relation_and_one_down() {
    let pair = Pair::new();
    let (target, mut watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 1_000));

    let references = monitor_all(&watchers, target.pid).await;
    pair.settle().await;
    assert_eq!((letters(&pair, &pair.a), letters(&pair, &pair.b)), ("mj".into(), "J".into()));
    assert_eq!(relations(&pair.b, target.pid), 1);

    target.end(crash()).await;
    pair.settle().await;

    assert_eq!((letters(&pair, &pair.a), letters(&pair, &pair.b)), (String::new(), "x".into()));
    all_told(&mut watchers, &references, target.pid, &crash()).await;
}

#[tokio::test(start_paused = true)]
async fn one_watcher_costs_what_it_always_did_however_often_it_monitors() {
    let pair = Pair::new();
    let (target, mut watcher) = (Hand::start(&pair.b), Hand::start(&pair.a));

    let first = monitor(&watcher, target.pid).await;
    pair.settle().await;
    let second = monitor(&watcher, target.pid).await;
    pair.settle().await;
    assert_eq!((letters(&pair, &pair.a), letters(&pair, &pair.b)), ("m".into(), String::new()));

    target.end(crash()).await;
    pair.settle().await;

    let told = [first, second].map(|reference| down(reference, target.pid, crash()));
    assert_eq!(watcher.downs().await, told);
}

#[tokio::test(start_paused = true)]
async fn whoever_monitors_and_then_says_crash_hears_crash_whatever_overtakes_what() {
    for speaker in 0..4 {
        let pair = Pair::new();
        let (target, mut watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 4));

        let references = monitor_all(&watchers, target.pid).await;
        exit(&watchers[speaker], target.pid, crash()).await;
        let flow = watchers[speaker].pid.serial;
        pair.deliver_if(&pair.a, |other| other == flow);
        target.end(ExitReason::Normal).await;
        pair.settle().await;

        all_told(&mut watchers, &references, target.pid, &crash()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_behind_catches_up_once_and_nobody_once_it_is_answered() {
    let pair = Pair::new();
    let (target, watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 5));
    monitor_all(&watchers, target.pid).await;
    assert_eq!(letters(&pair, &pair.a), "mj");

    exit(&watchers[3], target.pid, ExitReason::Normal).await;
    exit(&watchers[3], target.pid, ExitReason::Normal).await;
    assert_eq!(letters(&pair, &pair.a), "j", "before what is sent");
    pair.settle().await;
    for watcher in &watchers {
        exit(watcher, target.pid, ExitReason::Normal).await;
    }

    assert_eq!(letters(&pair, &pair.a), "");
    assert_eq!(letters(&pair, &pair.b), "JJ");
}

#[tokio::test(start_paused = true)]
async fn the_last_to_leave_takes_the_monitor_back_and_nobody_before() {
    let pair = Pair::new();
    let (target, mut watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 3));
    let references = monitor_all(&watchers, target.pid).await;
    pair.settle().await;
    letters(&pair, &pair.a);

    assert!(demonitor(&watchers[0], references[0]).await);
    watchers[1].end(ExitReason::Kill).await;
    pair.settle().await;
    assert_eq!(letters(&pair, &pair.a), "");
    assert!(demonitor(&watchers[2], references[2]).await);
    pair.settle().await;

    assert_eq!(letters(&pair, &pair.a), "d");
    assert_eq!(relations(&pair.b, target.pid), 0);
    target.end(crash()).await;
    pair.settle().await;
    assert_eq!(letters(&pair, &pair.b), "J", "no down");
    assert!(watchers[0].downs().await.is_empty() && watchers[2].downs().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_monitor_is_not_taken_back_before_it_has_arrived_by_every_flow() {
    for first in 0..2 {
        let pair = Pair::new();
        let (target, watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 2));
        let references = monitor_all(&watchers, target.pid).await;
        for (watcher, reference) in watchers.iter().zip(references) {
            demonitor(watcher, reference).await;
        }
        assert_eq!(letters(&pair, &pair.a), "mj");

        let flow = watchers[first].pid.serial;
        pair.deliver_if(&pair.a, |other| other == flow);
        pair.deliver(&pair.b);
        assert_eq!(letters(&pair, &pair.a), if first == 0 { "" } else { "d" });
        pair.settle().await;

        assert_eq!(relations(&pair.b, target.pid), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_comes_while_the_monitor_is_taken_back_has_a_new_one() {
    let pair = Pair::new();
    let (target, mut watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 2));
    let gone = monitor(&watchers[0], target.pid).await;
    pair.settle().await;

    demonitor(&watchers[0], gone).await;
    let reference = monitor(&watchers[1], target.pid).await;
    let flow = watchers[1].pid.serial;
    pair.deliver_if(&pair.a, |other| other == flow);
    pair.settle().await;
    assert_eq!(relations(&pair.b, target.pid), 1);
    target.end(crash()).await;
    pair.settle().await;

    assert!(watchers[0].downs().await.is_empty());
    assert_eq!(watchers[1].downs().await, [down(reference, target.pid, crash())]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_comes_while_an_answer_is_awaited_goes_on_with_the_monitor() {
    let pair = Pair::new();
    let (target, mut watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 3));
    for watcher in &watchers[..2] {
        let reference = monitor(watcher, target.pid).await;
        demonitor(watcher, reference).await;
        let _ = monitor(watcher, target.pid).await;
        let again = monitor(&watchers[2], target.pid).await;
        demonitor(&watchers[2], again).await;
    }
    let last = monitor(&watchers[2], target.pid).await;
    pair.settle().await;
    assert_eq!(relations(&pair.b, target.pid), 1);
    target.end(crash()).await;
    pair.settle().await;

    assert_eq!(watchers[2].downs().await, [down(last, target.pid, crash())]);
    assert_eq!(watchers[0].downs().await.len(), 1);
    assert_eq!(watchers[1].downs().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_down_that_crosses_a_demonitor_is_for_nobody_and_who_comes_then_hears_noproc() {
    let pair = Pair::new();
    let (target, mut watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 2));
    let gone = monitor(&watchers[0], target.pid).await;
    pair.settle().await;

    target.end(crash()).await;
    assert!(demonitor(&watchers[0], gone).await);
    let reference = monitor(&watchers[1], target.pid).await;
    pair.settle().await;

    assert!(watchers[0].downs().await.is_empty());
    let noproc = down(reference, target.pid, ExitReason::NoProcess);
    assert_eq!(watchers[1].downs().await, [noproc]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_told_to_each_watcher_once_and_a_new_one_begins_anew() {
    let pair = Pair::new();
    let (target, mut watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 3));
    for known in [true, false] {
        let references = monitor_all(&watchers, target.pid).await;
        if known {
            pair.settle().await;
        }
        letters(&pair, &pair.a);

        pair.lose();
        pair.lose();

        all_told(&mut watchers, &references, target.pid, &ExitReason::NoConnection).await;
        assert_eq!(relations(&pair.b, target.pid), 0);
    }

    let references = monitor_all(&watchers, target.pid).await;
    pair.settle().await;
    assert_eq!(letters(&pair, &pair.a), "mj", "nobody is behind since before");
    target.end(crash()).await;
    pair.settle().await;
    all_told(&mut watchers, &references, target.pid, &crash()).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_by_the_next_connection_is_taken_back() {
    let pair = Pair::new();
    let (target, watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 2));
    monitor_all(&watchers, target.pid).await;
    letters(&pair, &pair.a);

    pair.a.connection_lost(pair.b.name());
    let flow = watchers[1].pid.serial;
    pair.deliver_if(&pair.a, |other| other == flow);
    assert_eq!(relations(&pair.b, target.pid), 1);
    pair.deliver(&pair.b);

    assert_eq!(letters(&pair, &pair.a), "d");
    // It is the node's own.
    let of_a_process = |flow| watchers.iter().any(|watcher| watcher.pid.serial == flow);
    pair.deliver_if(&pair.a, |other| !of_a_process(other));
    assert_eq!(relations(&pair.b, target.pid), 0);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_or_is_of_a_life_that_is_over_is_told_at_once() {
    for (sent, reason) in
        [(Sent::Unreachable, ExitReason::NoConnection), (Sent::Gone, ExitReason::NoProcess)]
    {
        let pair = Pair::new();
        let (target, mut watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 3));
        let mut references = vec![monitor(&watchers[0], target.pid).await];

        pair.answer(&pair.a, sent);
        references.extend(monitor_all(&watchers[1..], target.pid).await);

        all_told(&mut watchers, &references, target.pid, &reason).await;
    }
}

#[tokio::test(start_paused = true)]
async fn monitors_by_name_are_made_one_by_one() {
    let pair = Pair::new();
    let (target, watchers) = (Hand::start(&pair.b), Hand::many(&pair.a, 3));
    pair.b.register("hits".into(), target.pid).unwrap();

    for watcher in &watchers {
        let name = Dest::Remote("hits".into(), "b".into());
        watcher.does(move |ctx| ctx.monitor(name)).await;
    }
    pair.settle().await;

    let sent = pair.sent_by(&pair.a);
    assert_eq!(count(&sent, |signal| matches!(signal, Signal::Monitor { .. })), 3);
    assert!(sent.iter().all(|(_, envelope)| matches!(envelope.to, Target::Name(_))));
    assert_eq!(relations(&pair.b, target.pid), 3);
}

/// Watchers come, go, die and speak, and flows overtake each other, as chance will have it.
#[tokio::test(start_paused = true)]
async fn every_monitor_tells_once_or_was_taken_back_whatever_happens() {
    for seed in 0..300 {
        let mut chance = StdRng::seed_from_u64(seed);
        let pair = Pair::new();
        let target = Hand::start(&pair.b);
        let mut watchers = Hand::many(&pair.a, 4);
        let mut active: Vec<Vec<Reference>> = vec![Vec::new(); 4];
        // Sometimes nothing arrives before the end.
        let still = chance.random_bool(0.3);
        for _ in 0..chance.random_range(5..60) {
            let who = chance.random_range(0..4);
            match chance.random_range(0..12) {
                0..4 => active[who].push(monitor(&watchers[who], target.pid).await),
                4..6 if !active[who].is_empty() => {
                    let which = chance.random_range(0..active[who].len());
                    let reference = active[who].swap_remove(which);
                    assert!(demonitor(&watchers[who], reference).await, "seed {seed}");
                }
                6 => {
                    watchers[who].end(ExitReason::Kill).await;
                    watchers[who] = Hand::start(&pair.a);
                    active[who].clear();
                }
                7 if chance.random_bool(0.2) => {
                    pair.lose();
                    for (watcher, active) in watchers.iter_mut().zip(&mut active) {
                        let mut told: Vec<_> =
                            watcher.downs().await.into_iter().map(|down| down.reference).collect();
                        told.sort_unstable();
                        active.sort_unstable();
                        assert_eq!(told, *active, "seed {seed}");
                        active.clear();
                    }
                }
                8 => exit(&watchers[who], target.pid, ExitReason::Normal).await,
                9..12 if !still => {
                    let chosen: [bool; 5] = std::array::from_fn(|_| chance.random_bool(0.5));
                    let by = if chance.random_bool(0.6) { &pair.a } else { &pair.b };
                    let index = |flow| usize::try_from(flow % 5).unwrap();
                    pair.deliver_if(by, |flow| chosen[index(flow)]);
                }
                _ => {}
            }
        }
        if chance.random_bool(0.3) {
            // Everybody leaves: nothing may be left behind.
            for (watcher, active) in watchers.iter().zip(&mut active) {
                for reference in active.drain(..) {
                    demonitor(watcher, reference).await;
                }
            }
            pair.settle().await;
            assert_eq!(relations(&pair.b, target.pid), 0, "seed {seed}");
        }
        // The target is ended by one who watches it, and whose word may overtake all others.
        let speaker = chance.random_range(0..4);
        active[speaker].push(monitor(&watchers[speaker], target.pid).await);
        exit(&watchers[speaker], target.pid, crash()).await;
        let flow = watchers[speaker].pid.serial;
        pair.deliver_if(&pair.a, |other| other == flow);
        target.end(ExitReason::Normal).await;
        pair.settle().await;
        for (who, (watcher, active)) in watchers.iter_mut().zip(&mut active).enumerate() {
            let downs = watcher.downs().await;
            let mut told: Vec<_> = downs.iter().map(|down| down.reference).collect();
            told.sort_unstable();
            active.sort_unstable();
            assert_eq!(told, *active, "seed {seed}");
            if who == speaker {
                assert!(downs.iter().all(|down| down.reason == crash()), "seed {seed}: {downs:?}");
            }
        }
    }
}
