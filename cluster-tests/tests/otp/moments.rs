//! LK-11 and MO-7 in the very moment when the other one dies: on threads, in real time, on one node,
//! where the moment can be seen.

use std::time::{Duration, Instant};

use purlin::{Pid, RawContext};

use crate::hand::{Got, Hand, other, take_now};
use crate::place::{Place, places, run_on, settle};

/// Relates a process here to many there; for each, does something while it dies and then takes what
/// has come, twice.
async fn while_others_die<R: Send + 'static>(
    place: &Place,
    relate: impl Fn(&mut RawContext, Pid) -> R + Send + 'static,
    act: impl Fn(&mut RawContext, Pid, &R) -> bool + Send + 'static,
) -> Vec<(bool, [Option<Got>; 2])> {
    let targets: Vec<_> = (0..5000).map(|_| Hand::start(&place.there)).collect();
    let pids: Vec<_> = targets.iter().map(|target| target.pid).collect();
    let there = place.there.runtime().clone();
    let killer = place.there.runtime().clone();
    let (kill, killed) = std::sync::mpsc::channel();
    std::thread::spawn(move || killed.iter().for_each(|pid: Pid| killer.exit(pid, other("crash"))));

    run_on(&place.here, move |mut ctx| async move {
        ctx.trap_exits(true);
        let related: Vec<_> = pids.iter().map(|&pid| (pid, relate(&mut ctx, pid))).collect();
        settle().await;
        let mut seen = Vec::new();
        for (round, (pid, relation)) in related.into_iter().enumerate() {
            let living = there.process_count();
            kill.send(pid).unwrap();
            spin(Duration::from_micros(300), || there.process_count() < living);
            spin(Duration::from_nanos(20 * (round as u64 % 100)), || false);
            let acted = act(&mut ctx, pid, &relation);
            let first = take_now(&mut ctx).await;
            tokio::task::yield_now().await;
            seen.push((acted, [first, take_now(&mut ctx).await]));
        }
        seen
    })
    .await
}

/// Waits without letting go of the thread.
fn spin(limit: Duration, until: impl Fn() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < limit && !until() {
        std::hint::spin_loop();
    }
}

async fn lk_11_when_unlink_returns_an_exit_has_come_or_never_comes(place: Place) {
    let link = |ctx: &mut RawContext, pid| ctx.link(pid);
    let unlink = |ctx: &mut RawContext, pid, (): &()| {
        ctx.unlink(pid);
        true
    };

    let seen = while_others_die(&place, link, unlink).await;

    let late = seen.iter().filter(|(_, [_, late])| late.is_some()).count();
    assert_eq!(late, 0, "of {}", seen.len());
}

async fn mo_7_when_demonitor_says_false_the_down_has_come(place: Place) {
    let monitor = |ctx: &mut RawContext, pid| ctx.monitor(pid);
    let demonitor = |ctx: &mut RawContext, _, reference: &_| ctx.demonitor(*reference);

    let seen = while_others_die(&place, monitor, demonitor).await;

    let right = |(active, [first, late]): &&(bool, [Option<Got>; 2])| {
        *active == first.is_none() && late.is_none()
    };
    let wrong = seen.len() - seen.iter().filter(right).count();
    assert_eq!(wrong, 0, "of {}", seen.len());
}

places! {
    both {}
    local {}
    remote {}
    local_on_threads {
        lk_11_when_unlink_returns_an_exit_has_come_or_never_comes
        mo_7_when_demonitor_says_false_the_down_has_come
    }
}
