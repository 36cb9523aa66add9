//! MO: monitors.

use std::collections::BTreeSet;

use purlin::{Dest, Down, ExitReason, Name, Reference};
use purlin_cluster_tests::memory::until_sees;

use crate::hand::{Got, Hand, Number, other, take_now};
use crate::place::{Place, places, run_on, settle, until};

/// A watcher here of a target there.
async fn watched(place: &Place) -> (Hand, Hand, Reference) {
    let target = Hand::start(&place.there);
    let (watcher, pid) = (Hand::start(&place.here), target.pid);
    let reference = watcher.does(move |ctx| ctx.monitor(pid)).await;
    settle().await;
    (watcher, target, reference)
}

fn named(name: &str) -> Name {
    Name::new(name).unwrap()
}

async fn mo_1_the_end_of_a_process_is_told_once_with_its_reason(place: Place) {
    for reason in [ExitReason::Normal, ExitReason::Shutdown, other("crash")] {
        let (mut watcher, target, reference) = watched(&place).await;

        target.end(reason.clone());

        let target = Dest::Pid(target.pid);
        assert_eq!(watcher.down().await, Down { reference, target, reason });
        assert!(watcher.is_quiet().await && watcher.is_alive());
    }
}

async fn mo_2_a_monitor_of_the_dead_tells_noproc(place: Place) {
    let dead = Hand::start(&place.there);
    place.there.exit(dead.pid, ExitReason::Kill);
    until("its end", || !dead.is_alive()).await;
    settle().await;
    let (mut watcher, target) = (Hand::start(&place.here), Dest::Pid(dead.pid));

    let to = target.clone();
    let reference = watcher.does(move |ctx| ctx.monitor(to)).await;

    let reason = ExitReason::NoProcess;
    assert_eq!(watcher.down().await, Down { reference, target, reason });
    assert!(watcher.is_quiet().await);
}

async fn mo_3_a_lost_connection_tells_noconnection(place: Place) {
    let (mut watcher, _target, reference) = watched(&place).await;

    place.cut();

    let down = watcher.down().await;
    assert_eq!((down.reference, down.reason), (reference, ExitReason::NoConnection));
    assert!(watcher.is_quiet().await);
}

async fn mo_3_a_monitor_to_a_node_that_is_down_tells_noconnection(place: Place) {
    let (mut watcher, target, _) = watched(&place).await;
    place.cut();
    watcher.down().await;
    until_sees(&place.here, 1).await;

    let pid = target.pid;
    let reference = watcher.does(move |ctx| ctx.monitor(pid)).await;

    let down = watcher.down().await;
    assert_eq!((down.reference, down.reason), (reference, ExitReason::NoConnection));
}

async fn mo_3_a_monitor_taken_back_while_cut_off_tells_nothing(place: Place) {
    let (mut watcher, target, _) = watched(&place).await;
    let mut other = watched(&place).await.0;
    let (by_name, node) = (Hand::named(&place.there, "name"), place.there.id().name);
    let reference = watcher.does(move |ctx| ctx.monitor(Dest::Remote(named("name"), node))).await;
    settle().await;
    let pid = target.pid;

    place.cut();
    watcher
        .does(move |ctx| {
            assert!(ctx.demonitor(reference));
            let late = ctx.monitor(pid);
            assert!(ctx.demonitor(late));
        })
        .await;

    assert_eq!(watcher.down().await.target, Dest::Pid(pid), "of the monitor that it kept");
    other.down().await;
    until_sees(&place.here, 1).await;
    assert!(watcher.is_quiet().await && by_name.is_alive());
}

async fn mo_4_every_monitor_tells_once_under_its_own_reference(place: Place) {
    let (mut watcher, target, first) = watched(&place).await;
    let pid = target.pid;
    let more = watcher.does(move |ctx| [(); 99].map(|()| ctx.monitor(pid))).await;
    settle().await;

    target.end(other("crash"));

    let mut references: BTreeSet<_> = more.into_iter().chain([first]).collect();
    assert_eq!(references.len(), 100);
    for _ in 0..100 {
        let down = watcher.down().await;
        assert_eq!(down.reason, other("crash"));
        assert!(references.remove(&down.reference), "{down:?}");
    }
    assert!(watcher.is_quiet().await);
}

async fn mo_6_a_demonitor_leaves_a_down_that_has_come(place: Place) {
    let target = Hand::start(&place.there);
    let (pid, end) = (target.pid, crate::hand::end_of(&place.here, target.pid));
    target.end(other("crash"));

    let (active, next) = run_on(&place.here, move |mut ctx| async move {
        let reference = ctx.monitor(pid);
        settle().await;
        let active = ctx.demonitor(reference);
        (active, take_now(&mut ctx).await)
    })
    .await;

    assert!(!active, "its down lies in the mailbox");
    assert!(matches!(next, Some(Got::Down(_))), "{next:?}");
    end.await;
}

async fn mo_7_demonitor_says_whether_the_monitor_was_active(place: Place) {
    let (mut watcher, target, reference) = watched(&place).await;

    let active = watcher.does(move |ctx| [(); 2].map(|()| ctx.demonitor(reference))).await;
    target.end(other("crash"));

    assert_eq!(active, [true, false]);
    assert!(watcher.is_quiet().await, "it was active, so no down comes");
}

async fn mo_7_a_demonitor_that_was_active_stops_a_down_on_its_way(place: Place) {
    for _ in 0..100 {
        let (watcher, target, reference) = watched(&place).await;
        let mut watcher = watcher;
        place.be_far();

        // The down and the demonitor pass each other.
        place.there.exit(target.pid, ExitReason::Kill);
        let active = watcher.does(move |ctx| ctx.demonitor(reference)).await;
        settle().await;

        let downs = watcher.rest().len();
        assert_eq!(downs, usize::from(!active), "active: {active}");
    }
}

async fn mo_8_a_demonitor_of_an_unknown_reference_is_nothing(place: Place) {
    let (mut watcher, target, reference) = watched(&place).await;
    let stranger = Hand::start(&place.there);
    let unknown = place.here.runtime().reference();

    assert!(!watcher.does(move |ctx| ctx.demonitor(unknown)).await);
    assert!(!stranger.does(move |ctx| ctx.demonitor(reference)).await, "another's monitor");

    target.end(other("crash"));
    assert_eq!(watcher.down().await.reference, reference);
}

async fn mo_10_a_monitor_of_an_unknown_name_tells_noproc(place: Place) {
    let (mut watcher, node) = (Hand::start(&place.here), place.there.id().name);
    let target = Dest::Remote(named("nobody"), node);

    let to = target.clone();
    let reference = watcher.does(move |ctx| ctx.monitor(to)).await;

    let reason = ExitReason::NoProcess;
    assert_eq!(watcher.down().await, Down { reference, target, reason });
    assert!(watcher.is_quiet().await);
}

async fn mo_10_a_monitor_of_a_name_on_an_unknown_node_tells_noconnection(place: Place) {
    let mut watcher = Hand::start(&place.here);

    watcher.does(|ctx| ctx.monitor("nobody@nowhere")).await;

    let down = watcher.down().await;
    assert_eq!(down.target, Dest::from("nobody@nowhere"));
    assert_eq!(down.reason, ExitReason::NoConnection);
}

async fn mo_11_a_monitor_by_name_stays_with_the_process(place: Place) {
    let (first, second) = (Hand::named(&place.there, "name"), Hand::start(&place.there));
    let (mut watcher, node) = (Hand::start(&place.here), place.there.id().name);
    let reference = watcher.does(move |ctx| ctx.monitor(Dest::Remote(named("name"), node))).await;
    settle().await;

    let names = place.there.runtime();
    assert!(names.unregister(&named("name")));
    names.register(named("name"), second.pid).unwrap();
    second.end(other("second"));
    assert!(watcher.is_quiet().await);
    first.end(other("first"));

    let down = watcher.down().await;
    assert_eq!((down.reference, down.reason), (reference, other("first")));
}

async fn mo_11_a_demonitor_by_name_follows_the_process(place: Place) {
    let (first, second) = (Hand::named(&place.there, "name"), Hand::start(&place.there));
    let (mut watcher, node) = (Hand::start(&place.here), place.there.id().name);
    let reference = watcher.does(move |ctx| ctx.monitor(Dest::Remote(named("name"), node))).await;
    settle().await;

    let names = place.there.runtime();
    assert!(names.unregister(&named("name")));
    names.register(named("name"), second.pid).unwrap();
    assert!(watcher.does(move |ctx| ctx.demonitor(reference)).await);
    settle().await;
    first.end(other("first"));
    second.end(other("second"));

    assert!(watcher.is_quiet().await);
}

async fn mo_12_a_monitor_of_oneself_tells_nothing(place: Place) {
    let mut hand = Hand::named(&place.here, "me");

    hand.does(|ctx| {
        ctx.monitor(ctx.pid());
        ctx.monitor("me");
        ctx.monitor(Dest::Remote(named("me"), ctx.runtime().name()));
    })
    .await;

    assert!(hand.is_quiet().await && hand.is_alive());
}

async fn mo_14_after_noconnection_the_old_pid_is_dead_for_good(place: Place) {
    let (mut watcher, mut target, _) = watched(&place).await;
    let old = target.pid;
    place.cut();
    assert_eq!(watcher.down().await.reason, ExitReason::NoConnection);
    until_sees(&place.here, 1).await;
    until_sees(&place.there, 1).await;
    place.heal();
    place.cluster.until_all_see(2).await;
    settle().await;
    // One of two sides comes back under a new creation; a process of the other is who it was.
    let comes_back = place.there.id() != old.node;

    watcher.does(move |ctx| ctx.runtime().send(old, Number(1))).await;
    settle().await;

    assert!(target.is_alive(), "the process itself goes on");
    let expected = if comes_back { vec![] } else { vec![Got::Number(1)] };
    assert_eq!(target.rest(), expected);
    target.end(other("really"));
    assert!(watcher.is_quiet().await, "no second down");
}

async fn mo_16_a_reason_may_be_as_long_as_a_reason_may_be(place: Place) {
    let (mut watcher, target, _) = watched(&place).await;
    let reason = other(&"long ".repeat(1 << 20));

    target.end(reason.clone());

    assert_eq!(watcher.down().await.reason, reason);
    let ExitReason::Other(words) = reason else { unreachable!() };
    assert_eq!(words.len(), purlin::proto::limits::REASON_BYTES);
}

places! {
    both {
        mo_1_the_end_of_a_process_is_told_once_with_its_reason
        mo_2_a_monitor_of_the_dead_tells_noproc
        mo_4_every_monitor_tells_once_under_its_own_reference
        mo_6_a_demonitor_leaves_a_down_that_has_come
        mo_7_demonitor_says_whether_the_monitor_was_active
        mo_7_a_demonitor_that_was_active_stops_a_down_on_its_way
        mo_8_a_demonitor_of_an_unknown_reference_is_nothing
        mo_10_a_monitor_of_an_unknown_name_tells_noproc
        mo_10_a_monitor_of_a_name_on_an_unknown_node_tells_noconnection
        mo_11_a_monitor_by_name_stays_with_the_process
        mo_11_a_demonitor_by_name_follows_the_process
        mo_12_a_monitor_of_oneself_tells_nothing
        mo_16_a_reason_may_be_as_long_as_a_reason_may_be
    }
    local {}
    remote {
        mo_3_a_monitor_taken_back_while_cut_off_tells_nothing
        mo_3_a_lost_connection_tells_noconnection
        mo_3_a_monitor_to_a_node_that_is_down_tells_noconnection
        mo_14_after_noconnection_the_old_pid_is_dead_for_good
    }
}
