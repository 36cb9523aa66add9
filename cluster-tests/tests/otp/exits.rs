//! EX: exit signals and their reasons.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use purlin::{ExitReason, LinkDown, Outcome, Pid, RawContext, RawKind};
use tokio::time::Instant;

use crate::actors::{Fail, Panic, Slow, Start, Worker};
use crate::hand::{Got, Hand, Number, bounded, end_of, other, watching};
use crate::place::{Place, places, settle, until};

static RAW: RawKind = RawKind::new("raw");

async fn ex_1_an_exit_with_normal_is_ignored_by_who_does_not_trap(place: Place) {
    let actor = Hand::start(&place.here);
    let mut target = Hand::start(&place.there);
    let pid = target.pid;

    actor.does(move |ctx| ctx.runtime().exit(pid, ExitReason::Normal)).await;

    assert!(target.is_quiet().await && target.is_alive());
}

async fn ex_2_an_exit_is_a_message_to_who_traps(place: Place) {
    let actor = Hand::start(&place.here);
    let mut target = Hand::trapping(&place.there);
    let (from, pid) = (actor.pid, target.pid);

    for reason in [ExitReason::Normal, ExitReason::Shutdown, other("please")] {
        let sent = reason.clone();
        actor.does(move |ctx| ctx.runtime().exit(pid, sent)).await;

        assert_eq!(target.next().await, Got::Exit { from, reason });
    }
    assert!(target.is_alive());
}

async fn ex_2_who_no_longer_traps_is_ended(place: Place) {
    let mut target = Hand::trapping(&place.there);
    let pid = target.pid;
    let mut watcher = Hand::begin(&place.here, watching(pid));
    watcher.does(move |ctx| ctx.runtime().exit(pid, other("first"))).await;
    assert!(matches!(target.next().await, Got::Exit { .. }));

    target.does(|ctx| ctx.trap_exits(false)).await;
    watcher.does(move |ctx| ctx.runtime().exit(pid, other("second"))).await;

    assert_eq!(watcher.down().await.reason, other("second"));
}

async fn ex_3_an_exit_with_normal_to_oneself_ends_who_does_not_trap(place: Place) {
    let plain = Hand::start(&place.here);
    let mut trapper = Hand::trapping(&place.here);
    let end = end_of(&place.there, plain.pid);
    settle().await;

    for hand in [&plain, &trapper] {
        hand.order(|ctx| ctx.runtime().exit(ctx.pid(), ExitReason::Normal));
    }

    assert_eq!(end.await, ExitReason::Normal);
    let from = trapper.pid;
    assert_eq!(trapper.next().await, Got::Exit { from, reason: ExitReason::Normal });
}

/// Has a process exit itself and then receive as the documentation of `RawContext` shows, with `?`.
async fn end_of_who_exits_itself(place: &Place, reason: ExitReason) -> ExitReason {
    let (begin, begun) = tokio::sync::oneshot::channel::<()>();
    let body = |mut ctx: RawContext| async move {
        let _ = begun.await;
        ctx.runtime().exit(ctx.pid(), reason);
        ctx.receive().await?;
        Ok(())
    };
    let pid = place.there.runtime().spawn_raw(&RAW, body).unwrap();
    let end = end_of(&place.here, pid);
    settle().await;
    let _ = begin.send(());
    end.await
}

async fn ex_3_who_exits_itself_ends_with_that_reason(place: Place) {
    for reason in [other("enough"), ExitReason::Normal, ExitReason::Shutdown] {
        assert_eq!(end_of_who_exits_itself(&place, reason.clone()).await, reason);
    }
    assert_eq!(end_of_who_exits_itself(&place, ExitReason::Kill).await, ExitReason::Killed);
}

/// A process that works all the time, killed in the middle of it.
async fn ex_4_who_is_killed_while_it_runs_is_seen_as_killed(place: Place) {
    let mut ends = Vec::new();
    for _ in 0..200 {
        let body = |mut ctx: RawContext| async move {
            loop {
                ctx.runtime().send(ctx.pid(), Number(1));
                ctx.receive().await?;
            }
        };
        let pid = place.there.runtime().spawn_raw(&RAW, body).unwrap();
        let mut watcher = Hand::begin(&place.here, watching(pid));
        watcher.does(move |ctx| ctx.runtime().exit(pid, ExitReason::Kill)).await;
        ends.push(watcher.down().await.reason);
    }

    assert!(ends.iter().all(|reason| *reason == ExitReason::Killed), "{ends:?}");
}

async fn ex_4_kill_is_not_trapped_and_is_seen_as_killed(place: Place) {
    let target = Hand::trapping(&place.there);
    let pid = target.pid;
    let mut watcher = Hand::begin(&place.here, |ctx| {
        ctx.trap_exits(true);
        ctx.monitor(pid);
        ctx.link(pid);
    });
    settle().await;

    watcher.does(move |ctx| ctx.runtime().exit(pid, ExitReason::Kill)).await;

    for _ in 0..2 {
        let reason = match watcher.next().await {
            Got::Down(down) => down.reason,
            Got::LinkDown(link_down) => link_down.reason,
            got => panic!("{got:?}"),
        };
        assert_eq!(reason, ExitReason::Killed);
    }
}

async fn ex_4_a_kill_does_not_wait_where_a_shutdown_does(place: Place) {
    let node = place.there.id().name;
    let worker = place.here.spawn_on::<Worker>(&node, Start::default()).await.unwrap();
    let end = end_of(&place.here, worker.pid());
    worker.send(Slow(3_600_000));
    settle().await;

    worker.exit(ExitReason::Shutdown);
    settle().await;
    let begun = Instant::now();
    worker.exit(ExitReason::Kill);

    assert_eq!(end.await, ExitReason::Killed);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

async fn ex_5_who_ends_itself_with_kill_can_be_trapped(place: Place) {
    let target = Hand::start(&place.there);
    let pid = target.pid;
    let mut trapper = Hand::begin(&place.here, |ctx| {
        ctx.trap_exits(true);
        ctx.link(pid);
    });
    let plain = Hand::begin(&place.here, |ctx| ctx.link(pid));
    let end = end_of(&place.there, plain.pid);
    settle().await;

    target.end(ExitReason::Kill);

    let reason = ExitReason::Kill;
    assert_eq!(trapper.next().await, Got::LinkDown(LinkDown { pid, reason }));
    assert_eq!(end.await, ExitReason::Kill);
}

async fn ex_7_who_does_not_trap_ends_with_the_reason_sent(place: Place) {
    let reasons = [
        other("x"),
        ExitReason::Shutdown,
        ExitReason::ShutdownWith("x".into()),
        ExitReason::Killed,
        ExitReason::NoProcess,
        ExitReason::NoConnection,
        ExitReason::error("x"),
    ];
    for reason in reasons {
        let target = Hand::start(&place.there).pid;
        let mut watcher = Hand::begin(&place.here, watching(target));
        let sent = reason.clone();

        watcher.does(move |ctx| ctx.runtime().exit(target, sent)).await;

        assert_eq!(watcher.down().await.reason, reason);
    }
}

async fn ex_8_an_exit_to_the_dead_is_nothing(place: Place) {
    let dead = Hand::start(&place.there);
    place.there.exit(dead.pid, ExitReason::Kill);
    until("its end", || !dead.is_alive()).await;
    settle().await;
    let (mut actor, pid) = (Hand::trapping(&place.here), dead.pid);

    actor.does(move |ctx| ctx.runtime().exit(pid, ExitReason::Kill)).await;

    assert!(actor.is_quiet().await && actor.is_alive());
}

async fn ex_9_the_reason_tells_an_error_a_panic_and_a_return_apart(place: Place) {
    let bodies: [fn() -> Outcome; 3] = [
        || Ok(()),
        || Err(std::io::Error::other("disk on fire").into()),
        || panic!("out of cheese"),
    ];
    let mut ends = Vec::new();
    for body in bodies {
        let (begin, begun) = tokio::sync::oneshot::channel::<()>();
        let process = |_| async move {
            let _ = begun.await;
            body()
        };
        let pid = place.there.runtime().spawn_raw(&RAW, process).unwrap();
        let end = end_of(&place.here, pid);
        settle().await;
        let _ = begin.send(());
        ends.push(end.await);
    }

    let [normal, ExitReason::Error(error), ExitReason::Panic(panic)] = &ends[..] else {
        panic!("{ends:?}")
    };
    assert_eq!(*normal, ExitReason::Normal);
    assert_eq!(error.message, "disk on fire");
    assert!(panic.message.starts_with("out of cheese, at "), "{panic:?}");
}

async fn ex_9_the_reason_of_an_actor_is_its_error_or_panic(place: Place) {
    let node = place.there.id().name;
    let failing = place.here.spawn_on::<Worker>(&node, Start::default()).await.unwrap();
    let panicking = place.here.spawn_on::<Worker>(&node, Start::default()).await.unwrap();
    let ends = [&failing, &panicking].map(|actor| end_of(&place.here, actor.pid()));
    settle().await;

    failing.send(Fail("disk on fire".to_owned()));
    panicking.send(Panic("out of cheese".to_owned()));

    let [failed, panicked] = ends;
    let (failed, panicked) = tokio::join!(failed, panicked);
    assert!(matches!(&failed, ExitReason::Error(why) if why.message == "disk on fire"));
    assert!(
        matches!(&panicked, ExitReason::Panic(why) if why.message.starts_with("out of cheese, at "))
    );
}

async fn ex_11_an_exit_comes_from_its_caller(place: Place) {
    let mut target = Hand::named(&place.there, "target");
    target.does(|ctx| ctx.trap_exits(true)).await;
    let actor = Hand::start(&place.here);
    let to = (purlin::Name::new("target").unwrap(), place.there.id().name);

    let by_pid = target.pid;
    actor
        .does(move |ctx| {
            ctx.runtime().exit(by_pid, other("by pid"));
            ctx.runtime().exit(to, other("by name"));
        })
        .await;

    for reason in [other("by pid"), other("by name")] {
        assert_eq!(target.next().await, Got::Exit { from: actor.pid, reason });
    }
}

async fn ex_11_an_exit_from_outside_any_process_comes_from_the_node(place: Place) {
    let mut target = Hand::trapping(&place.there);

    place.here.exit(target.pid, other("by hand"));

    let from: Pid = place.here.id().pid(0);
    assert_eq!(target.next().await, Got::Exit { from, reason: other("by hand") });
}

async fn ex_12_an_exit_of_a_link_that_is_gone_is_dropped(place: Place) {
    let mut pairs = Vec::new();
    for _ in 0..100 {
        let target = Hand::start(&place.there);
        let pid = target.pid;
        let linked = Hand::begin(&place.here, |ctx| ctx.link(pid));
        pairs.push((linked, target));
    }
    settle().await;
    place.be_far();

    // The exit and the unlink pass each other, or the unlink is first.
    for (linked, target) in &pairs {
        let pid = target.pid;
        linked.order(move |ctx| ctx.unlink(pid));
        target.end(other("late"));
    }
    settle().await;

    for (linked, target) in &pairs {
        assert!(linked.is_alive() && !target.is_alive());
    }
}

/// Says when it is dropped.
struct Last(Arc<AtomicBool>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn ex_13_notices_go_out_when_the_dying_can_do_nothing_more(place: Place) {
    for by_link in [false, true] {
        for _ in 0..100 {
            let done = Arc::new(AtomicBool::new(false));
            let last = Last(Arc::clone(&done));
            let body = |_| async move {
                let _last = last;
                std::future::pending().await
            };
            let dying = place.there.runtime().spawn_raw(&RAW, body).unwrap();
            let linked = Hand::begin(&place.here, |ctx| ctx.link(dying));
            let mut watcher = Hand::begin(&place.here, watching(dying));
            settle().await;

            match by_link {
                true => linked.end(other("by the link")),
                false => place.here.exit(dying, ExitReason::Kill),
            }

            watcher.down().await;
            assert!(done.load(Ordering::SeqCst));
        }
    }
}

async fn ex_13_what_reaches_the_dying_is_not_handled(place: Place) {
    let mut target = Hand::start(&place.there);
    let (actor, pid) = (Hand::start(&place.here), target.pid);
    let end = end_of(&place.here, pid);

    actor
        .does(move |ctx| {
            ctx.runtime().exit(pid, other("now"));
            ctx.runtime().send(pid, Number(1));
        })
        .await;

    assert_eq!(bounded(end).await, other("now"));
    assert_eq!(target.rest(), []);
}

places! {
    both {
        ex_1_an_exit_with_normal_is_ignored_by_who_does_not_trap
        ex_2_an_exit_is_a_message_to_who_traps
        ex_2_who_no_longer_traps_is_ended
        ex_3_an_exit_with_normal_to_oneself_ends_who_does_not_trap
        ex_3_who_exits_itself_ends_with_that_reason
        ex_4_kill_is_not_trapped_and_is_seen_as_killed
        ex_4_a_kill_does_not_wait_where_a_shutdown_does
        ex_5_who_ends_itself_with_kill_can_be_trapped
        ex_7_who_does_not_trap_ends_with_the_reason_sent
        ex_8_an_exit_to_the_dead_is_nothing
        ex_9_the_reason_tells_an_error_a_panic_and_a_return_apart
        ex_9_the_reason_of_an_actor_is_its_error_or_panic
        ex_11_an_exit_comes_from_its_caller
        ex_11_an_exit_from_outside_any_process_comes_from_the_node
        ex_12_an_exit_of_a_link_that_is_gone_is_dropped
        ex_13_notices_go_out_when_the_dying_can_do_nothing_more
        ex_13_what_reaches_the_dying_is_not_handled
    }
    local {}
    remote {}
    local_on_threads {
        ex_4_who_is_killed_while_it_runs_is_seen_as_killed
    }
    remote_on_threads {
        ex_4_who_is_killed_while_it_runs_is_seen_as_killed
    }
}
