//! Calls: replies, errors, deadlines, deferring.

use std::time::Duration;

use purlin_runtime::{CallError, Codec, Dest, ExitReason, Message, Payload, Ref, Runtime};
use tokio::time::Instant;

use crate::support::{Fail, Forget, Keep, Panic, Puppet, Say, Sleep, Stop, end_of, runtime, until};

async fn puppet(runtime: &Runtime) -> Ref<Puppet> {
    runtime.spawn::<Puppet>(true).await.unwrap()
}

#[tokio::test]
async fn a_call_returns_the_typed_reply() {
    let puppet = puppet(&runtime()).await;

    assert_eq!(puppet.call(Say("hello".into())).await, Ok("hello".into()));
}

#[tokio::test]
async fn messages_from_one_sender_are_handled_in_order() {
    let runtime = runtime();
    let mut probe = crate::support::Probe::start(&runtime, |_| {});
    for _ in 0..100 {
        runtime.send(probe.pid, Say(String::new()));
        runtime.send(probe.pid, Stop);
    }

    for _ in 0..100 {
        assert_eq!(probe.next().await, crate::support::Got::Message(Say::NAME.into()));
        assert_eq!(probe.next().await, crate::support::Got::Message(Stop::NAME.into()));
    }
}

#[tokio::test]
async fn an_error_ends_the_process_and_its_caller_gets_the_reason() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;

    let error = puppet.call(Fail).await.unwrap_err();

    let CallError::Exited(ExitReason::Error(fault)) = error else { panic!("{error:?}") };
    assert_eq!(fault.message, "disk on fire");
    assert_eq!(puppet.call(Say(String::new())).await, Err(CallError::NoProcess));
}

#[tokio::test]
async fn a_panic_ends_the_process_and_says_where() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;

    let error = puppet.call(Panic).await.unwrap_err();

    let CallError::Exited(ExitReason::Panic(fault)) = error else { panic!("{error:?}") };
    assert!(fault.message.starts_with("out of cheese, at "), "{}", fault.message);
    assert!(fault.message.contains("support.rs"), "{}", fault.message);
}

#[tokio::test]
async fn calls_that_wait_in_the_mailbox_get_the_exit_reason_too() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;
    let first = puppet.call(Sleep(60_000));
    let second = puppet.call(Say("never".into()));
    let kill = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        puppet.exit(ExitReason::Kill);
    };

    let (first, second, ()) = tokio::join!(first, second, kill);

    assert_eq!(first, Err(CallError::Exited(ExitReason::Killed)));
    assert_eq!(second, Err(CallError::Exited(ExitReason::Killed)));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_and_the_late_reply_is_dropped() {
    let puppet = puppet(&runtime()).await;
    let begun = Instant::now();

    let late = puppet.call_timeout(Sleep(10_000), Duration::from_secs(1)).await;

    assert_eq!(late, Err(CallError::Timeout));
    assert_eq!(begun.elapsed().as_secs(), 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(puppet.call(Say("next".into())).await, Ok("next".into()));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_caller_has_given_up_is_skipped_and_counted() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;
    puppet.send(Sleep(10_000));

    let expired = puppet.call_timeout(Stop, Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;

    assert_eq!(expired, Err(CallError::Timeout));
    assert!(puppet.is_alive(), "the call to stop was skipped");
    let counts = runtime.counters().snapshot();
    assert!(counts.iter().any(|c| c.name == "calls.expired" && c.count == 1), "{counts:?}");
}

#[tokio::test]
async fn a_deferred_reply_is_told_when_it_is_dropped() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;
    let caller = puppet.clone();
    let deferred = tokio::spawn(async move { caller.call(Keep).await });
    let info = runtime.clone();
    let pid = puppet.pid();
    until("the call", move || {
        info.process_detail(&Dest::Pid(pid)).is_some_and(|detail| detail.handled == 1)
    })
    .await;

    puppet.call(Forget).await.unwrap();

    assert_eq!(deferred.await.unwrap(), Err(CallError::Dropped));
}

#[tokio::test]
async fn a_deferred_call_gets_the_reason_when_the_process_ends_first() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;
    let caller = puppet.clone();
    let deferred = tokio::spawn(async move { caller.call(Keep).await });
    let info = runtime.clone();
    let pid = puppet.pid();
    until("the call", move || {
        info.process_detail(&Dest::Pid(pid)).is_some_and(|detail| detail.handled == 1)
    })
    .await;

    puppet.send(Panic);

    let error = deferred.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Exited(ExitReason::Panic(_))), "{error:?}");
}

#[tokio::test]
async fn a_json_question_gets_a_json_reply() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;
    let question = Payload::encode(Codec::Json, "typed by hand").unwrap();

    let reply = runtime.request_encoded(
        &puppet.pid().into(),
        purlin_proto::MessageName::of::<Say>(),
        question,
        Duration::from_secs(5),
    );

    let reply = reply.await.unwrap();
    assert_eq!((reply.codec, &reply.bytes[..]), (Codec::Json, &br#""typed by hand""#[..]));
}

#[tokio::test]
async fn what_a_process_does_not_understand_is_an_error_that_names_both() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;
    let name: purlin_proto::Name = "puppet.dance".parse().unwrap();
    let payload = Payload::encode(Codec::Json, &()).unwrap();
    let timeout = Duration::from_secs(5);

    let error = runtime.request_encoded(&puppet.pid().into(), name.into(), payload, timeout).await;

    let (kind, message) = ("puppet".to_owned(), "puppet.dance".to_owned());
    assert_eq!(error, Err(CallError::NotUnderstood { kind, message }));
    assert!(puppet.is_alive());
}

#[tokio::test]
async fn a_body_of_another_form_is_an_error_and_harms_nobody() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;
    let payload = Payload::encode(Codec::Json, &42).unwrap();
    let name = purlin_proto::MessageName::of::<Say>();

    let error =
        runtime.request_encoded(&puppet.pid().into(), name, payload, Duration::from_secs(5)).await;

    assert!(matches!(error, Err(CallError::Decode { .. })), "{error:?}");
    assert!(puppet.is_alive());
}

#[tokio::test]
async fn a_process_that_stops_itself_replies_first_and_ends_normally() {
    let runtime = runtime();
    let puppet = puppet(&runtime).await;
    let pid = puppet.pid();
    let end = end_of(&runtime, pid);

    let (stopped, reason) = tokio::join!(puppet.call(Stop), end);

    assert_eq!(stopped, Ok(()));
    assert!(matches!(reason, ExitReason::Normal | ExitReason::NoProcess));
}
