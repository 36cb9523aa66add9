//! GS: what `gen_server` promises of calls, casts, starts and stops.

use std::time::Duration;

use purlin::{CallError, Dest, ExitReason, Message, Name, NodeName, Pid, Ref, Runtime, SpawnError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::actors::{
    Delegate, Fail, Keep, Leave, Parent, Raise, Release, Rubbish, Say, Slow, Start, Worker,
};
use crate::hand::{Got, Hand, Number, end_of, other};
use crate::place::{Place, count, places, run_on, settle, until};

async fn worker(place: &Place, start: Start) -> Ref<Worker> {
    place.here.spawn_on::<Worker>(&place.there.id().name, start).await.unwrap()
}

fn say(text: &str) -> Say {
    Say(text.to_owned())
}

/// Calls from a task, so that many can be out.
fn call<M: Message>(
    place: &Place,
    calls: &mut JoinSet<(usize, Result<M::Reply, CallError>)>,
    number: usize,
    to: Pid,
    message: M,
) {
    let node = place.here.clone();
    calls.spawn(async move { (number, node.call(to, message).await) });
}

async fn gs_1_a_call_ends_after_its_time_and_the_server_goes_on(place: Place) {
    let worker = worker(&place, Start::default()).await;
    let pid = worker.pid();

    let (reply, waited, late, next) = run_on(&place.here, move |mut ctx| async move {
        let begun = Instant::now();
        let reply = ctx.runtime().call(pid, Slow(8_000)).await;
        let waited = begun.elapsed();
        let late = tokio::time::timeout(Duration::from_secs(10), ctx.receive()).await;
        (reply, waited, late.is_ok(), ctx.runtime().call(pid, say("next")).await)
    })
    .await;

    assert_eq!(reply, Err(CallError::Timeout));
    assert!((5_000..5_100).contains(&waited.as_millis()), "{waited:?}");
    assert!(!late, "the late reply does not reach the mailbox");
    assert_eq!(next, Ok("next".to_owned()));
}

async fn gs_1_a_call_whose_caller_has_given_up_is_skipped(place: Place) {
    let told = Hand::start(&place.here);
    let worker = worker(&place, Start { tell: Some(told.pid), ..Start::default() }).await;
    let before = count(&place.there, "calls.expired");
    worker.send(Slow(8_000));

    let reply = worker.call(Fail("must not be handled".to_owned())).await;
    tokio::time::sleep(Duration::from_secs(10)).await;

    assert_eq!(reply, Err(CallError::Timeout));
    assert_eq!(worker.call(say("alive")).await, Ok("alive".to_owned()));
    assert_eq!(count(&place.there, "calls.expired"), before + 1);
}

async fn gs_3_a_call_ends_with_the_reason_of_its_server(place: Place) {
    for (message, reason) in [("killed", ExitReason::Killed), ("crashed", other("crash"))] {
        let worker = worker(&place, Start::default()).await;
        let exit = match reason.clone() {
            ExitReason::Killed => ExitReason::Kill,
            reason => reason,
        };
        let end = async {
            settle().await;
            worker.exit(exit);
        };

        let (reply, ()) = tokio::join!(worker.call(Slow(4_000)), end);

        assert_eq!(reply, Err(CallError::Exited(reason)), "{message}");
    }
}

async fn gs_3_a_call_that_waits_in_the_mailbox_ends_with_its_server(place: Place) {
    let worker = worker(&place, Start::default()).await;
    worker.send(Slow(4_000));
    let end = async {
        settle().await;
        worker.exit(other("crash"));
    };

    let (reply, ()) = tokio::join!(worker.call(say("hi")), end);

    assert_eq!(reply, Err(CallError::Exited(other("crash"))));
    assert_eq!(worker.call(say("hi")).await, Err(CallError::NoProcess), "and is gone after");
}

async fn gs_3_a_call_ends_with_its_node_and_not_after_its_time(place: Place) {
    let worker = worker(&place, Start::default()).await;
    let call = worker.call_timeout(Slow(500_000), Duration::from_mins(10));
    let cut = async {
        settle().await;
        place.cut();
    };

    let begun = Instant::now();
    let (reply, ()) = tokio::join!(call, cut);

    assert_eq!(reply, Err(CallError::NoConnection));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

async fn gs_4_a_cast_never_fails_and_never_waits(place: Place) {
    let dead = Hand::start(&place.there);
    place.there.exit(dead.pid, ExitReason::Kill);
    settle().await;
    let (pid, node) = (dead.pid, place.there.id().name);

    let waited = run_on(&place.here, move |ctx| async move {
        let begun = Instant::now();
        for _ in 0..100 {
            ctx.runtime().send(pid, Number(1));
            ctx.runtime().send(Dest::Remote(Name::new("nobody").unwrap(), node), Number(2));
            ctx.runtime().send("somebody@nowhere", Number(3));
        }
        begun.elapsed()
    })
    .await;

    assert_eq!(waited, Duration::ZERO);
}

async fn gs_7_a_taken_name_is_an_error(place: Place) {
    let runtime = place.there.runtime();
    let first = runtime.spawn_named::<Worker>("name", Start::default()).await.unwrap();

    let second = runtime.spawn_named::<Worker>("name", Start::default()).await.unwrap_err();

    let (name, holder) = (Name::new("name").unwrap(), first.pid());
    assert_eq!(second, SpawnError::NameTaken { name, holder });
}

async fn gs_8_a_start_is_done_when_spawning_returns(place: Place) {
    let mut told = Hand::start(&place.there);
    let begun = Instant::now();

    worker(&place, Start { slow: 300, tell: Some(told.pid), ..Start::default() }).await;

    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(told.rest(), [Got::Number(1)]);
    assert!(told.is_quiet().await);
}

async fn gs_9_an_orderly_end_runs_stop_and_has_its_reason(place: Place) {
    let reasons = [ExitReason::Shutdown, ExitReason::ShutdownWith("enough".into())];
    for reason in reasons {
        let mut told = Hand::start(&place.there);
        let worker = worker(&place, Start { tell: Some(told.pid), ..Start::default() }).await;
        let end = end_of(&place.here, worker.pid());
        settle().await;

        worker.exit(reason.clone());

        assert_eq!(end.await, reason);
        settle().await;
        assert_eq!(told.rest(), [Got::Number(1), Got::Number(2)]);
    }
}

async fn gs_9_what_stop_sends_comes_before_the_down(place: Place) {
    let mut watcher = Hand::start(&place.here);
    let worker = worker(&place, Start { tell: Some(watcher.pid), ..Start::default() }).await;
    let pid = worker.pid();
    watcher.does(move |ctx| ctx.monitor(pid)).await;
    assert_eq!(watcher.next().await, Got::Number(1));

    watcher.does(move |ctx| ctx.runtime().exit(pid, ExitReason::Shutdown)).await;

    assert_eq!(watcher.next().await, Got::Number(2));
    assert_eq!(watcher.down().await.reason, ExitReason::Shutdown);
}

async fn gs_9_a_crash_does_not_run_stop(place: Place) {
    let mut told = Hand::start(&place.there);
    let worker = worker(&place, Start { tell: Some(told.pid), ..Start::default() }).await;
    let end = end_of(&place.here, worker.pid());
    settle().await;

    worker.send(Fail("disk on fire".to_owned()));

    assert!(matches!(end.await, ExitReason::Error(_)));
    assert_eq!(told.rest(), [Got::Number(1)]);
}

async fn gs_9_an_orderly_end_lets_the_message_in_hand_be_done(place: Place) {
    let worker = worker(&place, Start::default()).await;
    let end = async {
        settle().await;
        worker.exit(ExitReason::Shutdown);
    };

    let (reply, ()) = tokio::join!(worker.call(Slow(2_000)), end);

    assert_eq!(reply, Ok(2_000));
}

async fn gs_11_a_server_that_does_not_trap_dies_with_its_parent_without_stop(place: Place) {
    let mut told = Hand::start(&place.there);
    let parent = place.here.spawn::<Parent>(false).await.unwrap();
    let node: NodeName = place.there.id().name;
    let start = Start { tell: Some(told.pid), ..Start::default() };
    let child = parent.call(Raise(node, start, 60_000)).await.unwrap().unwrap().unwrap();
    let end = end_of(&place.here, child);
    settle().await;

    parent.exit(ExitReason::Kill);

    assert_eq!(end.await, ExitReason::Killed);
    settle().await;
    assert_eq!(told.rest(), [Got::Number(1)]);
}

async fn gs_12_a_missing_reply_ends_the_server_and_says_so(place: Place) {
    let worker = worker(&place, Start::default()).await;

    let reply = worker.call(Rubbish()).await;

    let Err(CallError::Exited(ExitReason::Error(why))) = reply else { panic!("{reply:?}") };
    assert_eq!(why.message, "noreply without a deferred reply");
}

async fn gs_13_another_process_can_send_the_reply(place: Place) {
    let worker = worker(&place, Start::default()).await;

    assert_eq!(worker.call(Delegate(7)).await, Ok(7));
}

async fn gs_13_who_replies_and_ends_has_replied(place: Place) {
    for reason in [ExitReason::Normal, other("crash")] {
        let worker = worker(&place, Start::default()).await;
        let end = end_of(&place.here, worker.pid());
        settle().await;

        assert_eq!(worker.call(Leave(reason.clone())).await, Ok("bye".to_owned()));
        assert_eq!(end.await, reason);
    }
}

async fn gs_13_a_deferred_reply_ends_with_its_server(place: Place) {
    let worker = worker(&place, Start::default()).await;
    let end = async {
        settle().await;
        worker.exit(other("crash"));
    };

    let (reply, ()) = tokio::join!(worker.call(Keep(1)), end);

    assert_eq!(reply, Err(CallError::Exited(other("crash"))));
}

async fn gs_15_only_abnormal_ends_count_as_crashes(place: Place) {
    let orderly =
        [ExitReason::Normal, ExitReason::Shutdown, ExitReason::ShutdownWith("enough".into())];
    let before = count(&place.there, "processes.crashed");
    for reason in orderly {
        worker(&place, Start::default()).await.call(Leave(reason)).await.unwrap();
    }
    settle().await;
    assert_eq!(count(&place.there, "processes.crashed"), before);

    worker(&place, Start::default()).await.call(Leave(other("crash"))).await.unwrap();

    until("the count", || count(&place.there, "processes.crashed") == before + 1).await;
}

async fn gs_16_many_calls_are_out_and_each_gets_its_own_reply(place: Place) {
    let [one, two] =
        [worker(&place, Start::default()).await, worker(&place, Start::default()).await];
    let mut calls = JoinSet::new();
    for number in 0..200 {
        let to = if number % 2 == 0 { one.pid() } else { two.pid() };
        call(&place, &mut calls, number, to, Keep(number as u64));
    }
    settle().await;

    assert_eq!(one.call(Release()).await, Ok(100));
    two.exit(other("crash"));

    for (number, reply) in calls.join_all().await {
        match number % 2 {
            0 => assert_eq!(reply, Ok(number as u64)),
            _ => assert_eq!(reply, Err(CallError::Exited(other("crash")))),
        }
    }
}

async fn gs_17_of_many_nodes_the_live_reply_and_the_others_are_told_apart(place: Place) {
    place.there.runtime().spawn_named::<Worker>("w", Start::default()).await.unwrap();
    let node = place.there.id().name;
    let dest = |name, node: NodeName| Dest::Remote(Name::new(name).unwrap(), node);
    let nowhere = NodeName::new("nowhere").unwrap();

    let (live, unknown, unreachable) = tokio::join!(
        place.here.call(dest("w", node), say("hi")),
        place.here.call(dest("nobody", node), say("hi")),
        place.here.call(dest("w", nowhere), say("hi")),
    );

    assert_eq!(live, Ok("hi".to_owned()));
    assert_eq!(unknown, Err(CallError::NoProcess));
    assert_eq!(unreachable, Err(CallError::NoConnection));
}

/// How long a thousand calls take by the wall clock.
async fn thousand_calls(runtime: &Runtime, pid: Pid) -> Duration {
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        runtime.call(pid, say("hi")).await.unwrap();
    }
    begun.elapsed()
}

async fn gs_19_a_full_mailbox_does_not_slow_its_owners_calls(place: Place) {
    let worker = worker(&place, Start::default()).await;
    let pid = worker.pid();

    let (empty, full) = run_on(&place.here, move |ctx| async move {
        let runtime = ctx.runtime().clone();
        let empty = thousand_calls(&runtime, pid).await;
        for number in 0..90_000 {
            runtime.send(ctx.pid(), Number(number));
        }
        (empty, thousand_calls(&runtime, pid).await)
    })
    .await;

    // Were the mailbox searched for each reply, it would be a thousandfold.
    assert!(full < 10 * empty + Duration::from_secs(1), "{empty:?}, {full:?}");
}

places! {
    both {
        gs_1_a_call_ends_after_its_time_and_the_server_goes_on
        gs_1_a_call_whose_caller_has_given_up_is_skipped
        gs_3_a_call_ends_with_the_reason_of_its_server
        gs_3_a_call_that_waits_in_the_mailbox_ends_with_its_server
        gs_4_a_cast_never_fails_and_never_waits
        gs_7_a_taken_name_is_an_error
        gs_8_a_start_is_done_when_spawning_returns
        gs_9_an_orderly_end_runs_stop_and_has_its_reason
        gs_9_what_stop_sends_comes_before_the_down
        gs_9_a_crash_does_not_run_stop
        gs_9_an_orderly_end_lets_the_message_in_hand_be_done
        gs_12_a_missing_reply_ends_the_server_and_says_so
        gs_13_another_process_can_send_the_reply
        gs_13_who_replies_and_ends_has_replied
        gs_13_a_deferred_reply_ends_with_its_server
        gs_15_only_abnormal_ends_count_as_crashes
        gs_16_many_calls_are_out_and_each_gets_its_own_reply
        gs_17_of_many_nodes_the_live_reply_and_the_others_are_told_apart
        gs_19_a_full_mailbox_does_not_slow_its_owners_calls
    }
    local {}
    remote {
        gs_3_a_call_ends_with_its_node_and_not_after_its_time
    }
    local_on_threads {
        gs_11_a_server_that_does_not_trap_dies_with_its_parent_without_stop
    }
    remote_on_threads {
        gs_11_a_server_that_does_not_trap_dies_with_its_parent_without_stop
    }
}
