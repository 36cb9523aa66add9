//! TM: timers. A process has timers of its own only; the places differ in who looks on.

use std::time::Duration;

use purlin::{ExitReason, Ref};

use crate::actors::{Arm, Clock, Disarm, Slow, Ticks};
use crate::place::{Place, count, places, settle};

async fn clock(place: &Place) -> Ref<Clock> {
    place.here.spawn_on::<Clock>(&place.there.id().name, ()).await.unwrap()
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn tm_1_a_message_comes_once_and_not_before_its_time(place: Place) {
    let clock = clock(&place).await;
    clock.call(Arm(100)).await.unwrap();
    assert_eq!(clock.call(Ticks()).await, Ok(vec![]));

    pass(1_000).await;

    let ticks = clock.call(Ticks()).await.unwrap();
    assert!(matches!(ticks[..], [100..=110]), "{ticks:?}");
}

async fn tm_1_timers_of_one_process_come_in_the_order_they_are_due(place: Place) {
    let clock = clock(&place).await;
    for after in [300, 100, 200, 0] {
        clock.send(Arm(after));
    }
    clock.call(Ticks()).await.unwrap();

    pass(1_000).await;

    let ticks = clock.call(Ticks()).await.unwrap();
    assert!(matches!(ticks[..], [0..=10, 100..=110, 200..=210, 300..=310]), "{ticks:?}");
}

async fn tm_2_cancelling_tells_what_was_left_and_nothing_comes(place: Place) {
    let clock = clock(&place).await;
    clock.call(Arm(1_000)).await.unwrap();
    pass(300).await;

    let left = clock.call(Disarm()).await.unwrap();
    pass(2_000).await;

    assert!(matches!(left, Some(600..=700)), "{left:?}");
    assert_eq!(clock.call(Ticks()).await, Ok(vec![]));
}

async fn tm_3_cancelling_too_late_tells_none_though_the_message_is_unread(place: Place) {
    let clock = clock(&place).await;
    clock.call(Arm(10)).await.unwrap();

    assert_eq!(clock.call(Slow(100)).await, Ok(0), "it has fired");

    assert_eq!(clock.call(Ticks()).await.unwrap().len(), 1, "and was read later");
    assert_eq!(clock.call(Disarm()).await, Ok(None));
}

async fn tm_6_a_delay_beyond_all_clocks_is_a_delay(place: Place) {
    let clock = clock(&place).await;

    clock.call(Arm(u64::MAX)).await.unwrap();
    pass(10_000).await;

    assert_eq!(clock.call(Ticks()).await, Ok(vec![]));
    assert!(clock.call(Disarm()).await.unwrap().is_some());
}

async fn tm_5_a_timer_ends_with_its_process(place: Place) {
    let clock = clock(&place).await;
    clock.call(Arm(1_000)).await.unwrap();
    place.here.exit(clock.pid(), ExitReason::Kill);
    settle().await;
    let before = count(&place.there, "dropped.no_process");

    pass(2_000).await;

    assert_eq!(count(&place.there, "dropped.no_process"), before, "nothing was sent to the dead");
}

places! {
    both {
        tm_1_a_message_comes_once_and_not_before_its_time
        tm_1_timers_of_one_process_come_in_the_order_they_are_due
        tm_2_cancelling_tells_what_was_left_and_nothing_comes
        tm_3_cancelling_too_late_tells_none_though_the_message_is_unread
        tm_6_a_delay_beyond_all_clocks_is_a_delay
        tm_5_a_timer_ends_with_its_process
    }
}
