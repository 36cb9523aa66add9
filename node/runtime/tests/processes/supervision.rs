//! Supervisors, beyond the strategies: requests, significance, backoff, dynamic children, histories.
//! Names begin with the rule of OTP's scenarios where there is one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use purlin_runtime::{
    AutoShutdown, Backoff, ChildCounts, ChildError, ChildSpec, ChildState, DynamicSupervisor,
    ExitReason, Interrupt, Partitions, Pid, RawContext, RawKind, Received, Restart, Runtime,
    Shutdown, SpawnError, Strategy, Supervisor, SupervisorRef,
};
use tokio::time::Instant;

use crate::support::{end_of, runtime, until};

static CHILD: RawKind = RawKind::new("child");

/// A child that waits for its end.
async fn idle(mut ctx: RawContext) -> purlin_runtime::Outcome {
    loop {
        ctx.receive().await?;
    }
}

fn child(id: &str) -> ChildSpec {
    ChildSpec::raw(id, &CHILD, idle)
}

async fn supervise(runtime: &Runtime, supervisor: Supervisor) -> SupervisorRef {
    runtime.supervise(supervisor).await.unwrap()
}

async fn pid_of(root: &SupervisorRef, id: &str) -> Option<Pid> {
    let children = root.which_children().await.unwrap();
    children.into_iter().find(|child| child.id.as_deref() == Some(id)).and_then(|c| c.pid)
}

async fn state_of(root: &SupervisorRef, id: &str) -> Option<ChildState> {
    let children = root.which_children().await.unwrap();
    children.into_iter().find(|child| child.id.as_deref() == Some(id)).map(|c| c.state)
}

fn one_for_one() -> Supervisor {
    Supervisor::new(Strategy::OneForOne)
}

fn many() -> Supervisor {
    one_for_one().intensity(1_000, Duration::from_secs(5))
}

const CRASH: ExitReason = ExitReason::Killed;

/// Ends a child as a crash does, and waits until the supervisor knows.
async fn crash(runtime: &Runtime, pid: Pid) {
    runtime.exit(pid, ExitReason::Kill);
    let reason = end_of(runtime, pid).await;
    assert!(matches!(reason, CRASH | ExitReason::NoProcess));
}

#[tokio::test]
async fn children_are_added_terminated_restarted_and_deleted_on_request() {
    let runtime = runtime();
    let root = supervise(&runtime, one_for_one().child(child("first"))).await;
    let second = root.start_child(child("second")).await.unwrap().unwrap();
    assert!(runtime.is_alive(second));
    assert_eq!(root.start_child(child("second")).await, Err(ChildError::AlreadyStarted(second)),);
    assert_eq!(root.restart_child("second").await, Err(ChildError::Running));
    assert_eq!(root.delete_child("second").await, Err(ChildError::Running));

    root.terminate_child("second").await.unwrap();
    assert!(!runtime.is_alive(second));
    root.terminate_child("second").await.expect("a child that does not run is terminated");
    assert_eq!(root.start_child(child("second")).await, Err(ChildError::AlreadyPresent));
    let again = root.restart_child("second").await.unwrap().unwrap();
    assert!(again != second && runtime.is_alive(again));
    root.terminate_child(again).await.unwrap();
    root.delete_child("second").await.unwrap();

    for refused in [
        root.delete_child("second").await,
        root.terminate_child("nobody").await,
        root.restart_child("nobody").await.map(|_| ()),
    ] {
        assert_eq!(refused, Err(ChildError::NotFound));
    }
}

#[tokio::test]
async fn sv_17_which_children_lists_the_newest_first_and_count_children_counts() {
    let runtime = runtime();
    let inner = ChildSpec::supervisor("inner", one_for_one());
    let root = supervise(&runtime, one_for_one().child(child("a")).child(inner)).await;
    root.start_child(child("c")).await.unwrap();
    root.terminate_child("a").await.unwrap();

    let children = root.which_children().await.unwrap();
    let ids: Vec<_> = children.iter().map(|child| child.id.clone().unwrap()).collect();
    assert_eq!(ids, ["c", "inner", "a"]);
    assert_eq!(children[2].state, ChildState::Stopped);
    let counts = root.count_children().await.unwrap();
    let expected = ChildCounts { specs: 3, active: 2, restarting: 0, supervisors: 1, workers: 2 };
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn sv_9_a_start_that_chooses_not_to_run_keeps_the_spec_unless_it_is_temporary() {
    let runtime = runtime();
    let ignored = |id: &str| ChildSpec::actor::<Chooser>(id, ());
    let supervisor = one_for_one()
        .child(ignored("kept"))
        .child(ignored("gone").restart(Restart::Temporary))
        .child(child("runs"));
    let root = supervise(&runtime, supervisor).await;
    assert_eq!(state_of(&root, "kept").await, Some(ChildState::Stopped));
    assert_eq!(state_of(&root, "gone").await, None);
    assert_eq!(state_of(&root, "runs").await, Some(ChildState::Running));
    assert_eq!(root.start_child(ignored("later")).await, Ok(None));
    assert_eq!(state_of(&root, "later").await, Some(ChildState::Stopped));
    let temporary = ignored("never").restart(Restart::Temporary);
    assert_eq!(root.start_child(temporary).await, Ok(None));
    assert_eq!(state_of(&root, "never").await, None);
    assert!(matches!(runtime.spawn::<Chooser>(()).await, Err(SpawnError::Ignored)));
    assert_eq!(
        runtime.counters().snapshot().iter().find(|c| c.name == "processes.crashed").unwrap().count,
        0
    );
}

/// Never runs.
struct Chooser;

impl purlin_runtime::Actor for Chooser {
    const KIND: &'static str = "chooser";
    type Args = ();
    type Messages = ();

    async fn start((): (), _: &mut purlin_runtime::Context<Self>) -> purlin_runtime::Outcome<Self> {
        Err(Interrupt::ignore())
    }
}

#[tokio::test]
async fn a_child_that_cannot_be_started_on_request_is_not_kept() {
    let runtime = runtime();
    let root = supervise(&runtime, one_for_one()).await;
    let taken = child("taken").name("the-name");
    root.start_child(taken.clone()).await.unwrap();
    let twin = ChildSpec::raw("twin", &CHILD, idle).name("the-name");
    let refused = root.start_child(twin).await;
    assert!(matches!(refused, Err(ChildError::Start(SpawnError::NameTaken { .. }))), "{refused:?}");
    assert_eq!(root.count_children().await.unwrap().specs, 1);
}

#[tokio::test]
async fn sv_6_a_start_that_fails_in_a_restart_is_tried_again_and_the_supervisor_answers_meanwhile()
{
    let runtime = runtime();
    let root = supervise(
        &runtime,
        one_for_one().intensity(1_000_000, Duration::from_secs(5)).child(child("a").name("n")),
    )
    .await;
    let first = pid_of(&root, "a").await.unwrap();
    // Whoever has the name when the child is to start again keeps it from starting.
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let squatter = runtime
        .spawn_raw(&CHILD, |ctx| async move {
            wait.await?;
            drop(ctx);
            Ok(())
        })
        .unwrap();
    runtime.unregister(&"n".parse().unwrap());
    runtime.register("n".parse().unwrap(), squatter).unwrap();
    crash(&runtime, first).await;

    for _ in 0..5 {
        assert_eq!(state_of(&root, "a").await, Some(ChildState::Restarting));
        assert_eq!(root.restart_child("a").await, Err(ChildError::Restarting));
    }
    assert_eq!(root.count_children().await.unwrap().restarting, 1);
    go.send(()).unwrap();
    until_pid(&root, "a", first).await;
    let history = root.which_children().await.unwrap().remove(0);
    assert!(history.exits[0].reason.contains("taken by"), "{:?}", history.exits[0]);
    assert_eq!(history.exits[0].pid, None);
}

/// Waits until a child runs as another process.
async fn until_pid(root: &SupervisorRef, id: &str, before: Pid) -> Pid {
    let limit = Instant::now() + Duration::from_mins(2);
    loop {
        match pid_of(root, id).await {
            Some(pid) if pid != before => return pid,
            _ => assert!(Instant::now() < limit, "{id} is not restarted"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn sv_6_tries_that_go_on_failing_exhaust_the_intensity() {
    let runtime = runtime();
    let root = supervise(
        &runtime,
        one_for_one().intensity(5, Duration::from_secs(5)).child(child("a").name("n")),
    )
    .await;
    let first = pid_of(&root, "a").await.unwrap();
    let squatter = runtime.spawn_raw(&CHILD, idle).unwrap();
    runtime.unregister(&"n".parse().unwrap());
    runtime.register("n".parse().unwrap(), squatter).unwrap();
    let end = end_of(&runtime, root.pid());
    runtime.exit(first, ExitReason::Kill);
    assert_eq!(end.await, ExitReason::Shutdown);
}

#[tokio::test]
async fn sv_8_a_child_that_has_unlinked_itself_is_still_stopped_and_waited_for() {
    let runtime = runtime();
    let (unlinked, told) = tokio::sync::oneshot::channel();
    let unlinked = Arc::new(Mutex::new(Some(unlinked)));
    let loose = ChildSpec::raw("loose", &CHILD, move |ctx| {
        let unlinked = Arc::clone(&unlinked);
        async move {
            let detail = ctx.runtime().process_detail(&ctx.pid().into());
            ctx.unlink(detail.and_then(|detail| detail.parent).unwrap());
            let tell = unlinked.lock().unwrap().take().expect("it runs once");
            tell.send(ctx.pid()).expect("the test waits");
            idle(ctx).await
        }
    });
    let root = supervise(&runtime, one_for_one().child(loose)).await;
    let loose = told.await.unwrap();
    root.exit(ExitReason::Shutdown);
    end_of(&runtime, root.pid()).await;
    assert!(!runtime.is_alive(loose));
}

#[tokio::test]
async fn sv_10_a_temporary_bystander_goes_with_its_siblings_and_does_not_come_back() {
    let runtime = runtime();
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let supervisor = Supervisor::new(strategy)
            .child(child("a"))
            .child(child("guest").restart(Restart::Temporary))
            .child(child("b"));
        let root = supervise(&runtime, supervisor).await;
        let before = pid_of(&root, "a").await.unwrap();
        crash(&runtime, before).await;
        until_pid(&root, "a", before).await;
        assert_eq!(state_of(&root, "guest").await, None, "{strategy:?}");
        assert_eq!(state_of(&root, "b").await, Some(ChildState::Running));
    }
}

#[tokio::test]
async fn sv_13_the_end_of_a_significant_child_ends_the_supervisor_as_it_says() {
    let runtime = runtime();
    let significant = |id: &str| child(id).restart(Restart::Transient).significant();
    let three = |when| {
        one_for_one()
            .auto_shutdown(when)
            .child(significant("a"))
            .child(significant("b").restart(Restart::Temporary))
            .child(child("other"))
    };
    let any = supervise(&runtime, three(AutoShutdown::AnySignificant)).await;
    let end = end_of(&runtime, any.pid());
    any_ends(&runtime, &any, "a").await;
    assert_eq!(end.await, ExitReason::Shutdown);

    let all = supervise(&runtime, three(AutoShutdown::AllSignificant)).await;
    any_ends(&runtime, &all, "a").await;
    assert_eq!(state_of(&all, "other").await, Some(ChildState::Running), "one is left");
    let end = end_of(&runtime, all.pid());
    crash(&runtime, pid_of(&all, "b").await.unwrap()).await;
    assert_eq!(end.await, ExitReason::Shutdown);
}

/// Ends a child in good order.
async fn any_ends(runtime: &Runtime, root: &SupervisorRef, id: &str) {
    let pid = pid_of(root, id).await.unwrap();
    runtime.exit(pid, ExitReason::Shutdown);
    end_of(runtime, pid).await;
}

#[tokio::test]
async fn sv_13_a_significant_child_that_contradicts_its_supervisor_is_refused() {
    let runtime = runtime();
    let refused = runtime.supervise(one_for_one().child(child("a").significant())).await;
    assert!(refused.unwrap_err().to_string().contains("significant"));
    let any = one_for_one().auto_shutdown(AutoShutdown::AnySignificant);
    let refused = runtime.supervise(any.clone().child(child("a").significant())).await;
    assert!(refused.unwrap_err().to_string().contains("cannot be permanent"));
    let twins = runtime.supervise(any.clone().child(child("a")).child(child("a"))).await;
    assert!(twins.unwrap_err().to_string().contains("two children"));
    let root = supervise(&runtime, any).await;
    let refused = root.start_child(child("a").significant()).await;
    assert!(matches!(refused, Err(ChildError::Spec { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ignores_its_shutdown_is_killed_when_its_time_is_over() {
    let runtime = runtime();
    let stubborn = |id, shutdown| {
        ChildSpec::raw(id, &CHILD, |mut ctx| async move {
            ctx.trap_exits(true);
            loop {
                let Received::Exit { .. } = ctx.receive().await? else { continue };
            }
        })
        .shutdown(shutdown)
    };
    let supervisor = one_for_one()
        .child(stubborn("slow", Shutdown::Timeout(Duration::from_secs(3))))
        .child(stubborn("at once", Shutdown::BrutalKill));
    let root = supervise(&runtime, supervisor).await;
    let begun = Instant::now();
    root.terminate_child("at once").await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(100));
    root.terminate_child("slow").await.unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_millis(3_100), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backoff_makes_each_restart_wait_longer_and_counts_nothing_while_it_waits() {
    let runtime = runtime();
    let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(8));
    let supervisor = one_for_one()
        .intensity(1, Duration::from_millis(400))
        .backoff(backoff)
        .child(child("a"))
        .child(child("b"));
    let root = supervise(&runtime, supervisor).await;
    let mut last = pid_of(&root, "a").await.unwrap();
    let calm = pid_of(&root, "b").await.unwrap();
    for most in [1, 2, 4, 8, 8] {
        let most = Duration::from_secs(most);
        let begun = Instant::now();
        crash(&runtime, last).await;
        assert_eq!(state_of(&root, "a").await, Some(ChildState::Restarting));
        last = until_pid(&root, "a", last).await;
        let waited = begun.elapsed();
        assert!(waited >= most / 2 && waited <= most + Duration::from_millis(20), "{waited:?}");
    }
    assert_eq!(pid_of(&root, "b").await, Some(calm));
    tokio::time::sleep(Duration::from_secs(9)).await;
    let begun = Instant::now();
    crash(&runtime, last).await;
    until_pid(&root, "a", last).await;
    assert!(begun.elapsed() <= Duration::from_millis(1_100), "a long life begins anew");
}

#[tokio::test(start_paused = true)]
async fn siblings_wait_with_a_child_whose_restart_is_put_off() {
    let runtime = runtime();
    let backoff = Backoff::exponential(Duration::from_secs(4), Duration::from_secs(8));
    let supervisor = Supervisor::new(Strategy::RestForOne)
        .backoff(backoff)
        .child(child("a"))
        .child(child("b"))
        .child(child("c"));
    let root = supervise(&runtime, supervisor).await;
    let (a, b) = (pid_of(&root, "a").await, pid_of(&root, "b").await.unwrap());
    crash(&runtime, b).await;
    assert_eq!(state_of(&root, "b").await, Some(ChildState::Restarting));
    assert_eq!(state_of(&root, "c").await, Some(ChildState::Stopped));
    until_pid(&root, "b", b).await;
    assert_eq!(state_of(&root, "c").await, Some(ChildState::Running));
    assert_eq!(pid_of(&root, "a").await, a);
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_waits_is_called_off_by_terminating_the_child() {
    let runtime = runtime();
    let backoff = Backoff::exponential(Duration::from_secs(10), Duration::from_secs(10));
    let root = supervise(&runtime, one_for_one().backoff(backoff).child(child("a"))).await;
    crash(&runtime, pid_of(&root, "a").await.unwrap()).await;
    assert_eq!(state_of(&root, "a").await, Some(ChildState::Restarting));
    root.terminate_child("a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(state_of(&root, "a").await, Some(ChildState::Stopped));
}

#[tokio::test]
async fn what_became_of_a_child_is_remembered_and_told() {
    let runtime = runtime();
    let root = supervise(&runtime, many().child(child("a").name("it"))).await;
    let mut pids = vec![pid_of(&root, "a").await.unwrap()];
    for _ in 0..10 {
        let last = *pids.last().unwrap();
        crash(&runtime, last).await;
        pids.push(until_pid(&root, "a", last).await);
    }
    let why = runtime.why(&"it".into()).unwrap();
    assert!(why.alive);
    assert_eq!((why.child_id.as_deref(), why.restarts), (Some("a"), 10));
    let ended: Vec<_> = why.exits.iter().map(|exit| exit.pid.unwrap()).collect();
    let expected: Vec<_> = pids.iter().rev().skip(1).take(8).copied().collect();
    assert_eq!(ended, expected, "the last eight, the latest first");
    assert!(why.exits.iter().all(|exit| exit.reason == "killed"), "{:?}", why.exits);

    let dead = runtime.why(&pids[3].into()).expect("a crash is remembered");
    assert!(!dead.alive && dead.exits.len() == 1);
    assert_eq!(runtime.why(&runtime.id().pid(999_999).into()), None);
    let tree = runtime.tree();
    assert_eq!(tree[0].children[0].last_exit.as_ref().unwrap().reason, "killed");
}

#[tokio::test]
async fn sv_12_a_dynamic_supervisor_knows_its_children_by_their_pids_alone() {
    let runtime = runtime();
    let root = runtime.supervise_dynamic(DynamicSupervisor::new()).unwrap();
    assert_eq!(root.count_children().await.unwrap(), ChildCounts::default());
    let one = root.start_child(child("same")).await.unwrap().unwrap();
    let two = root.start_child(child("same")).await.unwrap().unwrap();
    let children = root.which_children().await.unwrap();
    let seen: Vec<_> = children.iter().map(|child| (child.id.clone(), child.pid)).collect();
    assert_eq!(seen, [(None, Some(two)), (None, Some(one))]);

    root.terminate_child(one).await.unwrap();
    assert_eq!(root.terminate_child(one).await, Err(ChildError::NotFound));
    for refused in [
        root.terminate_child("same").await,
        root.delete_child("same").await,
        root.restart_child("same").await.map(|_| ()),
    ] {
        assert_eq!(refused, Err(ChildError::Dynamic));
    }
    assert!(runtime.is_alive(two));
}

#[tokio::test]
async fn ds_1_a_dynamic_supervisor_takes_no_more_children_than_it_may() {
    let runtime = runtime();
    let root = runtime.supervise_dynamic(DynamicSupervisor::new().max_children(2)).unwrap();
    let one = root.start_child(child("x")).await.unwrap().unwrap();
    root.start_child(child("x")).await.unwrap();
    let full = Err(ChildError::MaxChildren { limit: 2 });
    assert_eq!(root.start_child(child("x")).await, full);
    root.terminate_child(one).await.unwrap();
    assert!(root.start_child(child("x")).await.is_ok());
    assert_eq!(root.start_child(ChildSpec::actor::<Chooser>("x", ())).await, full);
}

#[tokio::test(start_paused = true)]
async fn ds_1_a_child_that_waits_for_its_restart_counts() {
    let runtime = runtime();
    let backoff = Backoff::exponential(Duration::from_secs(5), Duration::from_secs(5));
    let spec = DynamicSupervisor::new().max_children(1).backoff(backoff);
    let root = runtime.supervise_dynamic(spec).unwrap();
    let one = root.start_child(child("x")).await.unwrap().unwrap();
    crash(&runtime, one).await;
    assert_eq!(root.count_children().await.unwrap().restarting, 1);
    let refused = root.start_child(child("x")).await;
    assert_eq!(refused, Err(ChildError::MaxChildren { limit: 1 }));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(root.count_children().await.unwrap().active, 1);
}

#[tokio::test]
async fn ds_1_a_dynamic_child_is_restarted_as_its_spec_says_until_the_intensity_is_exceeded() {
    let runtime = runtime();
    let spec = DynamicSupervisor::new().intensity(2, Duration::from_secs(5));
    let root = runtime.supervise_dynamic(spec).unwrap();
    let temporary = child("t").restart(Restart::Temporary);
    let temporary = root.start_child(temporary).await.unwrap().unwrap();
    crash(&runtime, temporary).await;
    assert_eq!(root.count_children().await.unwrap().specs, 0);

    let mut pid = root.start_child(child("p")).await.unwrap().unwrap();
    let end = end_of(&runtime, root.pid());
    for _ in 0..2 {
        crash(&runtime, pid).await;
        let only = root.which_children().await.unwrap().remove(0);
        pid = only.pid.unwrap();
    }
    crash(&runtime, pid).await;
    assert_eq!(end.await, ExitReason::Shutdown);
    assert!(runtime.processes_after(0).iter().all(|process| process.kind != "child"));
}

#[tokio::test(start_paused = true)]
async fn sv_12_dynamic_children_are_shut_down_at_once() {
    let runtime = runtime();
    let root = runtime.supervise_dynamic(DynamicSupervisor::new()).unwrap();
    for _ in 0..100 {
        let slow = ChildSpec::raw("slow", &CHILD, |mut ctx| async move {
            ctx.trap_exits(true);
            ctx.receive().await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(())
        });
        root.start_child(slow).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    root.exit(ExitReason::Shutdown);
    end_of(&runtime, root.pid()).await;
    assert!(begun.elapsed() < Duration::from_millis(2_100), "{:?}", begun.elapsed());
    assert!(runtime.processes_after(0).iter().all(|process| process.kind != "child"));
}

#[tokio::test]
async fn sv_4_escalation_goes_up_through_the_levels() {
    let runtime = runtime();
    let none = || one_for_one().intensity(0, Duration::from_secs(5));
    let lowest = ChildSpec::supervisor("lowest", none().child(child("leaf").name("leaf")));
    let middle = ChildSpec::supervisor("middle", none().child(lowest));
    let root = supervise(&runtime, one_for_one().child(middle)).await;
    let leaf: purlin_runtime::Name = "leaf".parse().unwrap();
    let before = runtime.whereis(&leaf).unwrap();

    crash(&runtime, before).await;

    until("the leaf again", || runtime.whereis(&leaf).is_some_and(|pid| pid != before)).await;
    let middle = &root.which_children().await.unwrap()[0];
    assert_eq!(middle.restarts, 1);
    assert_eq!(middle.exits[0].reason, "shutdown");
}

#[tokio::test]
async fn requests_to_a_supervisor_that_is_gone_say_so() {
    let runtime = runtime();
    let root = supervise(&runtime, one_for_one()).await;
    root.exit(ExitReason::Shutdown);
    end_of(&runtime, root.pid()).await;
    let gone = |error| matches!(error, ChildError::NoSupervisor(_));
    assert!(gone(root.start_child(child("a")).await.unwrap_err()));
    assert!(gone(root.which_children().await.unwrap_err()));
    assert!(gone(root.terminate_child("a").await.unwrap_err()));
}

#[tokio::test]
async fn partitions_send_a_key_to_the_same_process_also_after_a_restart() {
    let runtime = runtime();
    let parts = Partitions::<crate::support::Puppet>::start(&runtime, 4, |_| true).await.unwrap();
    assert_eq!((parts.count(), parts.supervisor().count_children().await.unwrap().active), (4, 4));
    let of = |key: u32| parts.of(&key).unwrap().pid();
    let mut used: Vec<_> = (0..100).map(of).collect();
    assert_eq!(of(7), of(7));
    let before = of(7);
    crash(&runtime, before).await;
    until("a restart", || parts.of(&7).is_some_and(|part| part.pid() != before && part.is_alive()))
        .await;
    used.sort();
    used.dedup();
    assert_eq!(used.len(), 4, "all have work");
    assert!(parts.get(4).is_none());
}

static STARTS: AtomicU32 = AtomicU32::new(0);

#[tokio::test]
async fn a_panic_in_a_childs_body_is_a_crash_like_any_other() {
    let runtime = runtime();
    let panics = ChildSpec::raw("p", &CHILD, |ctx| async move {
        assert!(STARTS.fetch_add(1, Ordering::SeqCst) > 2, "not yet");
        idle(ctx).await
    });
    let root = supervise(&runtime, many().child(panics)).await;
    until("three restarts", || STARTS.load(Ordering::SeqCst) == 4).await;
    let child = root.which_children().await.unwrap().remove(0);
    assert_eq!((child.state, child.restarts), (ChildState::Running, 3));
    assert!(child.exits[0].reason.contains("not yet"), "{:?}", child.exits);
}

#[tokio::test]
async fn a_supervisor_knows_its_children_when_its_node_has_taken_a_new_creation() {
    let runtime = runtime();
    let root = supervise(&runtime, many().child(child("c"))).await;
    let dynamic = runtime.supervise_dynamic(DynamicSupervisor::new()).unwrap();
    let before = [pid_of(&root, "c").await, dynamic.start_child(child("d")).await.unwrap()];
    let [Some(c), Some(d)] = before else { panic!("{before:?}") };

    runtime.reincarnate(2);
    crash(&runtime, c).await;
    crash(&runtime, d).await;

    until("both run again", || {
        let pids = runtime.processes_after(d.serial);
        pids.iter().filter(|process| process.kind == "child").count() == 2
    })
    .await;
    let again = pid_of(&root, "c").await.unwrap();
    runtime.reincarnate(3);
    root.terminate_child(runtime.id().pid(again.serial)).await.unwrap();
    assert!(!runtime.is_alive(again));
}
