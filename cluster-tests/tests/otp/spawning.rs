//! SP: spawning, here and elsewhere.

use std::time::Duration;

use purlin::kinds::Counter;
use purlin::{Actor, Codec, Dest, ExitReason, Name, NodeName, Payload, SpawnError};
use tokio::time::Instant;

use crate::actors::{Notices, Parent, Raise, Say, Start, Watch, Worker};
use crate::hand::{Got, Hand, end_of, other};
use crate::place::{Place, places, settle, until};

/// Long enough for what is not to happen.
const MINUTE: u64 = 60_000;

fn failing() -> Start {
    Start { fail: Some("will not start".to_owned()), ..Start::default() }
}

async fn sp_1_a_process_is_of_the_node_it_was_spawned_on_and_usable_at_once(place: Place) {
    let node = place.there.id();

    let worker = place.here.spawn_on::<Worker>(&node.name, Start::default()).await.unwrap();

    assert_eq!(worker.pid().node, node);
    assert_eq!(worker.call(Say("hi".to_owned())).await, Ok("hi".to_owned()));
    assert!(place.there.runtime().is_alive(worker.pid()));
}

async fn sp_2_spawning_on_an_unreachable_node_is_an_error(place: Place) {
    let nowhere = NodeName::new("nowhere").unwrap();

    let worker = place.here.spawn_on::<Worker>(&nowhere, Start::default()).await;

    assert_eq!(worker.unwrap_err(), SpawnError::NoConnection);
}

async fn sp_2_spawning_linked_on_an_unreachable_node_is_an_error_and_no_exit(place: Place) {
    let nowhere = NodeName::new("nowhere").unwrap();
    let parent = place.there.spawn::<Parent>(false).await.unwrap();

    let child = parent.call(Raise(nowhere, Start::default(), MINUTE)).await.unwrap();

    assert_eq!(child, Some(Err(SpawnError::NoConnection)));
    assert_eq!(parent.call(Notices()).await, Ok(vec![]));
}

async fn sp_3_a_spawn_ends_when_its_node_is_lost_and_not_after_its_time(place: Place) {
    let (node, kind) = (place.there.id().name, Name::new(Worker::KIND).unwrap());
    let slow = Start { slow: 10 * MINUTE, ..Start::default() };
    let args = Payload::encode(Codec::Bincode, &slow).unwrap();
    let limit = Duration::from_millis(10 * MINUTE);
    let spawn = place.here.runtime().spawn_kind(node, kind, args, None, limit);
    let cut = async {
        settle().await;
        place.cut();
    };

    let begun = Instant::now();
    let (worker, ()) = tokio::join!(spawn, cut);

    assert_eq!(worker, Err(SpawnError::NoConnection));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

async fn sp_6_a_start_that_fails_is_an_error_and_leaves_nothing(place: Place) {
    let before = place.there.runtime().process_count();

    let worker = place.here.spawn_on::<Worker>(&place.there.id().name, failing()).await;

    let error = worker.unwrap_err();
    let words = |reason: &ExitReason| reason.to_string().contains("will not start");
    assert!(matches!(&error, SpawnError::Start(reason) if words(reason)), "{error:?}");
    until("nothing left", || place.there.runtime().process_count() == before).await;
}

async fn sp_6_a_start_that_fails_sends_no_exit_to_who_spawned_it_linked(place: Place) {
    let parent = place.here.spawn::<Parent>(false).await.unwrap();

    let child = parent.call(Raise(place.there.id().name, failing(), MINUTE)).await.unwrap();
    settle().await;

    assert!(matches!(child, Some(Err(SpawnError::Start(_)))), "{child:?}");
    assert_eq!(parent.call(Notices()).await, Ok(vec![]), "it lives");
}

async fn sp_2_a_spawn_monitor_tells_the_end_of_the_child(place: Place) {
    let parent = place.there.spawn::<Parent>(false).await.unwrap();

    let child = place.here.call(parent.pid(), Watch(Start::default())).await.unwrap().unwrap();
    place.here.exit(child, other("crash"));
    settle().await;

    let notices = place.here.call(parent.pid(), Notices()).await;
    assert_eq!(notices, Ok(vec![(Some(child), other("crash"))]));
}

async fn sp_6_an_unknown_kind_is_an_error(place: Place) {
    let kind = Name::new(Counter::KIND).unwrap();
    let args = Payload::encode(Codec::Bincode, &None::<i64>).unwrap();
    let limit = Duration::from_secs(5);

    let spawned =
        place.here.runtime().spawn_kind(place.there.id().name, kind, args, None, limit).await;

    let Err(SpawnError::UnknownKind { kind, known }) = spawned else { panic!("{spawned:?}") };
    assert_eq!(kind, Counter::KIND);
    assert!(known.contains(&Worker::KIND.to_owned()), "{known:?}");
}

async fn sp_9_a_linked_child_ends_with_its_parent(place: Place) {
    let parent = place.here.spawn::<Parent>(false).await.unwrap();
    let node = place.there.id().name;
    let child = parent.call(Raise(node, Start::default(), MINUTE)).await.unwrap();
    let child = child.unwrap().unwrap();
    let end = end_of(&place.here, child);
    settle().await;

    parent.exit(other("crash"));

    assert_eq!(end.await, other("crash"));
}

async fn sp_9_a_linked_child_whose_parent_gave_up_waiting_ends_with_it(place: Place) {
    let mut told = Hand::start(&place.there);
    let parent = place.here.spawn::<Parent>(false).await.unwrap();
    let before = place.there.runtime().process_count();
    let start = Start { slow: 300, tell: Some(told.pid), ..Start::default() };

    let gave_up = parent.call(Raise(place.there.id().name, start, 50)).await.unwrap();
    assert_eq!(gave_up, None);
    settle().await;
    assert!(matches!(told.rest()[..], [] | [Got::Number(1)]), "it may have started");
    parent.exit(other("crash"));
    tokio::time::sleep(Duration::from_secs(1)).await;

    let parent_was_there = usize::from(place.is_local());
    let left = place.there.runtime().process_count() + parent_was_there - before;
    assert_eq!(left, 0, "an orphan");
}

async fn gs_7_a_taken_name_is_an_error_that_tells_who_has_it(place: Place) {
    let (name, node) = (Name::new("born").unwrap(), place.there.id().name);
    let kind = Name::new(Worker::KIND).unwrap();
    let args = || Payload::encode(Codec::Bincode, &Start::default()).unwrap();
    let limit = Duration::from_secs(5);
    let runtime = place.here.runtime();

    let first = runtime.spawn_kind(node, kind.clone(), args(), Some(name.clone()), limit).await;
    let second = runtime.spawn_kind(node, kind, args(), Some(name.clone()), limit).await;

    let holder = first.unwrap();
    assert_eq!(second, Err(SpawnError::NameTaken { name: name.clone(), holder }));
    let reply = place.here.call(Dest::Remote(name, node), Say("hi".to_owned())).await;
    assert_eq!(reply, Ok("hi".to_owned()));
}

places! {
    both {
        sp_1_a_process_is_of_the_node_it_was_spawned_on_and_usable_at_once
        sp_2_spawning_on_an_unreachable_node_is_an_error
        sp_6_a_start_that_fails_is_an_error_and_leaves_nothing
        sp_2_a_spawn_monitor_tells_the_end_of_the_child
        sp_6_an_unknown_kind_is_an_error
        gs_7_a_taken_name_is_an_error_that_tells_who_has_it
    }
    local {}
    remote {
        sp_3_a_spawn_ends_when_its_node_is_lost_and_not_after_its_time
    }
    local_on_threads {
        sp_2_spawning_linked_on_an_unreachable_node_is_an_error_and_no_exit
        sp_6_a_start_that_fails_sends_no_exit_to_who_spawned_it_linked
        sp_9_a_linked_child_ends_with_its_parent
        sp_9_a_linked_child_whose_parent_gave_up_waiting_ends_with_it
    }
    remote_on_threads {
        sp_2_spawning_linked_on_an_unreachable_node_is_an_error_and_no_exit
        sp_6_a_start_that_fails_sends_no_exit_to_who_spawned_it_linked
        sp_9_a_linked_child_ends_with_its_parent
        sp_9_a_linked_child_whose_parent_gave_up_waiting_ends_with_it
    }
}
