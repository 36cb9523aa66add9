//! Links and exit signals.

use purlin_runtime::{ExitReason, LinkDown, Pid, SpawnError};

use crate::support::{Got, PROBE, Probe, Puppet, end_of, runtime, until};

fn link_down(pid: Pid, reason: ExitReason) -> Got {
    Got::LinkDown(LinkDown { pid, reason })
}

fn other(word: &str) -> ExitReason {
    ExitReason::other(word)
}

#[tokio::test]
async fn an_exit_propagates_to_what_is_linked() {
    let runtime = runtime();
    let first = Probe::start(&runtime, |_| {});
    let pid = first.pid;
    let second = Probe::start(&runtime, move |ctx| ctx.link(pid));
    let end = end_of(&runtime, second.pid);

    runtime.exit(first.pid, other("crash"));

    assert_eq!(end.await, other("crash"));
}

#[tokio::test]
async fn a_trapping_process_gets_a_message_instead() {
    let runtime = runtime();
    let target = Probe::start(&runtime, |_| {});
    let pid = target.pid;
    let mut trapper = Probe::start(&runtime, move |ctx| {
        ctx.trap_exits(true);
        ctx.link(pid);
    });

    runtime.exit(pid, other("crash"));

    assert_eq!(trapper.next().await, link_down(pid, other("crash")));
}

#[tokio::test]
async fn a_normal_exit_harms_nobody_and_trappers_are_told() {
    let runtime = runtime();
    let target = runtime.spawn::<Puppet>(true).await.unwrap();
    let pid = target.pid();
    let mut bystander = Probe::start(&runtime, move |ctx| ctx.link(pid));
    let mut trapper = Probe::start(&runtime, move |ctx| {
        ctx.trap_exits(true);
        ctx.link(pid);
    });

    target.call(crate::support::Stop).await.unwrap();

    assert_eq!(trapper.next().await, link_down(pid, ExitReason::Normal));
    assert!(bystander.is_quiet().await);
    assert!(runtime.is_alive(bystander.pid));
}

#[tokio::test]
async fn kill_cannot_be_trapped_and_is_seen_as_killed() {
    let runtime = runtime();
    let trapper = Probe::start(&runtime, |ctx| ctx.trap_exits(true));
    let end = end_of(&runtime, trapper.pid);

    runtime.exit(trapper.pid, ExitReason::Kill);

    assert!(!runtime.is_alive(trapper.pid), "the alive check comes after the signal");
    assert_eq!(end.await, ExitReason::Killed);
}

#[tokio::test]
async fn an_exit_with_normal_is_ignored_unless_trapped() {
    let runtime = runtime();
    let mut plain = Probe::start(&runtime, |_| {});
    let mut trapper = Probe::start(&runtime, |ctx| ctx.trap_exits(true));

    runtime.exit(plain.pid, ExitReason::Normal);
    runtime.exit(trapper.pid, ExitReason::Normal);

    assert_eq!(trapper.next().await, Got::Exit(ExitReason::Normal));
    assert!(plain.is_quiet().await && runtime.is_alive(plain.pid));
}

#[tokio::test]
async fn linking_to_the_dead_gives_noproc() {
    let runtime = runtime();
    let dead = runtime.id().pid(999_999);
    let mut trapper = Probe::start(&runtime, move |ctx| {
        ctx.trap_exits(true);
        ctx.link(dead);
    });

    assert_eq!(trapper.next().await, link_down(dead, ExitReason::NoProcess));
}

#[tokio::test]
async fn after_unlink_no_exit_of_that_link_arrives() {
    let runtime = runtime();
    let target = Probe::start(&runtime, |_| {});
    let pid = target.pid;
    let mut other_end = Probe::start(&runtime, move |ctx| {
        ctx.trap_exits(true);
        ctx.link(pid);
        ctx.unlink(pid);
    });
    let end = end_of(&runtime, pid);

    runtime.exit(pid, other("crash"));

    assert_eq!(end.await, other("crash"));
    assert!(other_end.is_quiet().await);
}

#[tokio::test]
async fn a_chain_of_linked_processes_goes_down_with_its_end() {
    let runtime = runtime();
    let mut last = Probe::start(&runtime, |_| {}).pid;
    let first = last;
    for _ in 0..50 {
        last = Probe::start(&runtime, move |ctx| ctx.link(last)).pid;
    }
    let info = runtime.clone();
    until("51 processes", move || info.process_count() == 51).await;
    let end = end_of(&runtime, first);
    tokio::task::yield_now().await;

    runtime.exit(last, other("deep"));

    assert_eq!(end.await, other("deep"));
}

#[tokio::test]
async fn what_is_sent_before_an_exit_is_ordered_with_it() {
    let runtime = runtime();
    for _ in 0..200 {
        let runtime = runtime.clone();
        let target = Probe::start(&runtime, |_| {});
        let pid = target.pid;
        let end = end_of(&runtime, pid);

        runtime.send(pid, crate::support::Stop);
        runtime.exit(pid, other("good"));
        runtime.send(pid, crate::support::Stop);

        assert_eq!(end.await, other("good"));
    }
}

#[tokio::test]
async fn a_failing_start_leaves_nothing_behind() {
    let runtime = runtime();
    let name: purlin_runtime::Name = "p".parse().unwrap();

    let failed = runtime.spawn_named::<Puppet>(name.clone(), false).await.unwrap_err();

    assert!(
        matches!(&failed, SpawnError::Start(ExitReason::Error(why)) if why.message == "will not start"),
        "{failed:?}"
    );
    assert_eq!(runtime.whereis(&name), None);
    until("nobody", move || runtime.process_count() == 0).await;
}

#[tokio::test]
async fn a_raw_process_that_crashes_at_once_is_seen_by_its_monitor() {
    let runtime = runtime();
    let crash = runtime
        .spawn_raw(&PROBE, |_| async { Err(std::io::Error::other("at once").into()) })
        .unwrap();

    let reason = end_of(&runtime, crash).await;

    assert!(
        matches!(&reason, ExitReason::NoProcess | ExitReason::Error(_)),
        "the reason, or that it is gone: {reason}"
    );
}
