//! Tasks, their supervisor, and streams of them.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use purlin_runtime::{
    ExitReason, OnTimeout, Runtime, SpawnError, StreamOptions, TaskError, TaskStartError,
    TaskSupervisor, TaskSupervisorOptions,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::{PROBE, at_down_of, end_of, idle, runtime, until, within};

fn supervisor(runtime: &Runtime) -> TaskSupervisor {
    TaskSupervisor::start(runtime, TaskSupervisorOptions::default()).unwrap()
}

fn supervisor_of_most(runtime: &Runtime, max_children: usize) -> TaskSupervisor {
    let options = TaskSupervisorOptions { max_children, ..Default::default() };
    TaskSupervisor::start(runtime, options).unwrap()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Counts what is alive of it.
#[derive(Default, Clone)]
struct Gauge {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Counted(Gauge);

impl Gauge {
    fn enter(&self) -> Counted {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Counted(self.clone())
    }

    fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

// ----- the handle -----

#[tokio::test]
async fn a_task_that_is_not_done_in_time_goes_on() {
    let runtime = runtime();
    let (tell, told) = oneshot::channel();
    let mut task = runtime.task(async { told.await.unwrap() });

    assert_eq!(task.join_timeout(millis(20)).await, None);
    assert!(runtime.is_alive(task.pid().unwrap()));
    tell.send(42).unwrap();
    assert_eq!(task.join_timeout(millis(5000)).await, Some(Ok(42)));
    assert_eq!(task.join_timeout(millis(5000)).await, Some(Err(TaskError::Joined)));
}

#[tokio::test]
async fn a_task_that_is_shut_down_is_dead_and_has_no_outcome() {
    let runtime = runtime();
    for polled in [true, false] {
        for kill in [true, false] {
            let task = idle(&runtime);
            let down = end_of(&runtime, task.pid().unwrap());
            if polled {
                tokio::time::sleep(millis(5)).await;
            }

            let outcome = if kill { task.kill().await } else { task.shutdown(millis(5000)).await };

            assert_eq!(outcome, None);
            let reason = if kill { ExitReason::Killed } else { ExitReason::Shutdown };
            assert_eq!(down.await, reason);
        }
    }
}

#[tokio::test]
async fn a_shutdown_gives_the_outcome_that_was_there_before() {
    let runtime = runtime();
    let done = runtime.task(async { 42 });
    let crashed = runtime.task::<u32>(async { panic!("out of cheese") });
    until("both have ended", || runtime.process_count() == 0).await;

    assert_eq!(done.shutdown(millis(5000)).await, Some(Ok(42)));
    let outcome = crashed.kill().await;
    assert!(matches!(outcome, Some(Err(TaskError::Exited(ExitReason::Panic(_))))), "{outcome:?}");
}

#[tokio::test]
async fn a_task_tells_the_reason_also_if_it_never_ran() {
    let runtime = runtime();
    let task = idle(&runtime);
    runtime.exit(task.pid().unwrap(), ExitReason::Shutdown);

    assert_eq!(task.join().await, Err(TaskError::Exited(ExitReason::Shutdown)));
}

#[tokio::test]
async fn a_task_that_was_not_started_says_why() {
    let runtime = runtime();
    runtime.shutdown(millis(1000)).await;

    let task = idle(&runtime);

    assert_eq!(task.pid(), None);
    assert_eq!(task.join().await, Err(TaskError::NotStarted(SpawnError::Stopping)));
}

// ----- the supervisor -----

#[tokio::test]
async fn a_crash_hurts_neither_the_caller_nor_the_supervisor_nor_siblings() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let under = tasks.clone();
    let caller = runtime.task(async move {
        let sibling = under.async_nolink(pending::<()>()).unwrap();
        let crashing = under.async_nolink::<()>(async { panic!("out of cheese") }).unwrap();
        let outcome = crashing.join().await;
        (outcome, sibling.pid().unwrap())
    });

    let (outcome, sibling) = within("the caller", caller.join()).await.unwrap();

    assert!(matches!(outcome, Err(TaskError::Exited(ExitReason::Panic(_)))), "{outcome:?}");
    assert!(runtime.is_alive(tasks.pid()) && runtime.is_alive(sibling));
    assert_eq!(tasks.children(), [sibling], "it goes on although the caller has ended");
    assert_eq!(tasks.async_nolink(async { 42 }).unwrap().join().await, Ok(42));
}

#[tokio::test]
async fn a_child_that_nobody_waits_for_runs_once() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let gauge = Gauge::default();
    let counted = gauge.clone();

    let child = tasks.start_child(async move {
        let _counted = counted.enter();
        tokio::task::yield_now().await;
        panic!("out of cheese");
    });

    let reason = end_of(&runtime, child.unwrap()).await;
    assert!(matches!(reason, ExitReason::Panic(_) | ExitReason::NoProcess), "{reason}");
    tokio::time::sleep(millis(20)).await;
    assert_eq!((gauge.most(), gauge.now(), tasks.children()), (1, 0, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_children_than_may_be_and_room_when_one_is_done() {
    let runtime = runtime();
    let tasks = supervisor_of_most(&runtime, 2);
    let first = tasks.async_nolink(pending::<()>()).unwrap();
    let full = Err(TaskStartError::Full { max_children: 2 });

    for round in 0..200 {
        let second = tasks.async_nolink(async move {
            match round % 3 {
                0 => {}
                1 => panic!("out of cheese"),
                _ => pending().await,
            }
        });
        let second = second.unwrap();
        if round % 3 == 2 {
            assert_eq!(tasks.start_child(async {}), full);
            assert_eq!(tasks.children().len(), 2);
            second.kill().await;
        } else {
            drop(second.join().await);
        }
    }

    assert_eq!(tasks.children(), [first.pid().unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_outlives_its_supervisor() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let gauge = Gauge::default();
    for _ in 0..100 {
        let gauge = gauge.clone();
        tasks
            .start_child(async move {
                let _counted = gauge.enter();
                pending::<()>().await;
            })
            .unwrap();
    }
    until("all run", || gauge.now() == 100).await;
    let children = tasks.children();
    let others = runtime.clone();
    let down = at_down_of(&runtime, tasks.pid(), move || {
        children.iter().filter(|child| others.process_detail(&(**child).into()).is_some()).count()
    });

    within("the stop", tasks.stop()).await;

    assert_eq!(gauge.now(), 0);
    assert_eq!(down.await, (ExitReason::Shutdown, 0));
    assert_eq!(tasks.start_child(async {}), Err(TaskStartError::Ended));
    within("another stop", tasks.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_started_while_its_supervisor_ends_does_not_outlive_it() {
    for kill in [false, true].repeat(50) {
        let runtime = runtime();
        let tasks = supervisor(&runtime);
        let starter = tasks.clone();
        let starting =
            tokio::task::spawn_blocking(
                move || {
                    while starter.start_child(pending::<()>()).is_ok() {}
                },
            );
        tokio::task::yield_now().await;

        if kill {
            runtime.exit(tasks.pid(), ExitReason::Kill);
        } else {
            within("the stop", tasks.stop()).await;
        }

        within("the starter to be refused", starting).await.unwrap();
        until("all have ended", || runtime.process_count() == 0).await;
        assert_eq!(tasks.children(), []);
    }
}

#[tokio::test]
async fn a_supervisor_ends_with_the_process_that_started_and_linked_it() {
    let runtime = runtime();
    for reason in [ExitReason::Shutdown, ExitReason::Kill] {
        let (tell, told) = oneshot::channel();
        let parent = runtime.spawn_raw(&PROBE, |ctx| async move {
            let tasks = supervisor(ctx.runtime());
            ctx.link(tasks.pid());
            let task = tasks.async_nolink(pending::<()>())?;
            let _ = tell.send((tasks.pid(), task));
            pending::<()>().await;
            Ok(())
        });
        let (tasks, task) = within("the tree", told).await.unwrap();
        let down = end_of(&runtime, tasks);

        runtime.exit(parent.unwrap(), reason);

        assert!(matches!(down.await, ExitReason::Shutdown | ExitReason::Killed));
        assert!(matches!(within("the task", task.join()).await, Err(TaskError::Exited(_))));
    }
}

#[tokio::test]
async fn an_exit_of_a_stranger_does_not_end_the_supervisor() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let (pid, (tell, told)) = (tasks.pid(), oneshot::channel());
    let stranger = runtime.spawn_raw(&PROBE, |mut ctx| async move {
        ctx.link(pid);
        let _ = tell.send(());
        ctx.receive().await?;
        Ok(())
    });
    within("the link", told).await.unwrap();
    let down = end_of(&runtime, stranger.as_ref().copied().unwrap());

    runtime.exit(stranger.unwrap(), ExitReason::Kill);
    down.await;

    assert_eq!(tasks.async_nolink(async { 42 }).unwrap().join().await, Ok(42));
}

#[tokio::test]
async fn a_task_supervisor_is_found_by_its_name() {
    let runtime = runtime();
    let options =
        || TaskSupervisorOptions { name: Some("tasks".parse().unwrap()), ..Default::default() };
    let tasks = TaskSupervisor::start(&runtime, options()).unwrap();

    assert_eq!(runtime.whereis(&"tasks".parse().unwrap()), Some(tasks.pid()));
    let again = TaskSupervisor::start(&runtime, options()).unwrap_err();
    assert!(matches!(again, SpawnError::NameTaken { holder, .. } if holder == tasks.pid()));
}

#[tokio::test]
async fn a_shutdown_of_the_node_ends_tasks_too() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let task = tasks.async_nolink(pending::<()>()).unwrap();

    runtime.shutdown(millis(5000)).await;

    assert_eq!(runtime.process_count(), 0);
    assert_eq!(task.join().await, Err(TaskError::Exited(ExitReason::Shutdown)));
}

// ----- streams -----

fn options(max_concurrency: usize) -> StreamOptions {
    StreamOptions { max_concurrency, timeout: Some(millis(1000)), ..Default::default() }
}

async fn all<T: Send + 'static>(
    mut stream: purlin_runtime::TaskStream<'_, T>,
) -> Vec<Result<T, TaskError>> {
    let mut results = Vec::new();
    while let Some(result) = within("a result", stream.next()).await {
        results.push(result);
    }
    assert!(stream.next().await.is_none(), "an end is an end");
    results
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_order_and_runs_a_few_at_a_time() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let gauge = Gauge::default();
    let began = Instant::now();

    let stream = tasks.stream(0..20_u64, options(4), |n| {
        let gauge = gauge.clone();
        async move {
            let _counted = gauge.enter();
            // The first of four takes longest.
            tokio::time::sleep(millis(40 - 10 * (n % 4))).await;
            n
        }
    });
    let results: Vec<_> = all(stream).await.into_iter().map(Result::unwrap).collect();

    assert_eq!(results, (0..20).collect::<Vec<_>>());
    assert_eq!((gauge.most(), gauge.now()), (4, 0));
    assert!(began.elapsed() < millis(20 * 25), "in parallel: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_unordered_stream_gives_results_as_they_come() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let options = StreamOptions { ordered: false, ..options(3) };

    let stream = tasks.stream([300, 100, 200, 50], options, |n| async move {
        tokio::time::sleep(millis(n)).await;
        n
    });
    let results: Vec<_> = all(stream).await.into_iter().map(Result::unwrap).collect();

    assert_eq!(results, [100, 50, 200, 300]);
}

#[tokio::test(start_paused = true)]
async fn a_task_over_its_time_is_killed_and_the_stream_goes_on() {
    for ordered in [true, false] {
        let runtime = runtime();
        let tasks = supervisor(&runtime);
        let gauge = Gauge::default();
        let options = StreamOptions { on_timeout: OnTimeout::KillTask, ordered, ..options(2) };

        let stream = tasks.stream(0..4, options, |n| {
            let counted = gauge.enter();
            async move {
                let _counted = counted;
                if n == 1 {
                    pending::<()>().await;
                }
                tokio::time::sleep(millis(400)).await;
                n
            }
        });
        let results = all(stream).await;

        let timeouts = results.iter().filter(|r| **r == Err(TaskError::Timeout)).count();
        assert_eq!((results.len(), timeouts), (4, 1), "{results:?}");
        if ordered {
            assert_eq!(results[1], Err(TaskError::Timeout));
        }
        until("it is gone", || gauge.now() == 0 && tasks.children().is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_the_stream_unless_said_otherwise() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);

    let stream = tasks.stream(0..9, options(3), |n| async move {
        if n > 0 {
            pending::<()>().await;
        }
        n
    });
    let results = all(stream).await;

    assert_eq!(results, [Ok(0), Err(TaskError::Timeout)]);
    until("the others are killed", || tasks.children().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_over_its_time_is_killed_also_while_nobody_asks() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let options = StreamOptions { on_timeout: OnTimeout::KillTask, ..options(2) };
    let mut stream = tasks.stream([10, 5000], options, |n| tokio::time::sleep(millis(n)));
    assert_eq!(stream.next().await, Some(Ok(())));

    tokio::time::sleep(millis(2000)).await;

    assert_eq!(tasks.children(), []);
    assert_eq!(stream.next().await, Some(Err(TaskError::Timeout)));
    assert_eq!(stream.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_does_not_yield_does_not_hold_the_stream() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let options =
        StreamOptions { timeout: Some(millis(50)), on_timeout: OnTimeout::KillTask, ..options(1) };
    let began = std::time::Instant::now();
    let mut stream = tasks.stream([true, false], options, |block| async move {
        if block {
            std::thread::sleep(millis(1500));
        }
    });

    assert_eq!(within("a result", stream.next()).await, Some(Err(TaskError::Timeout)));
    assert_eq!(within("a result", stream.next()).await, Some(Ok(())));

    assert!(began.elapsed() < millis(1400), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_task_whose_time_is_over_before_it_began_does_not_begin() {
    // Whoever asks has a clock of their own, which the blocked thread does not hold.
    let one_thread =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    let one_thread = one_thread.unwrap();
    let runtime = {
        let _inside = one_thread.enter();
        runtime()
    };
    let tasks = supervisor(&runtime);
    let gauge = Gauge::default();
    let options =
        StreamOptions { timeout: Some(millis(50)), on_timeout: OnTimeout::KillTask, ..options(2) };

    let stream = tasks.stream([true, false], options, |block| {
        let gauge = gauge.clone();
        async move {
            if block {
                std::thread::sleep(millis(500));
            } else {
                gauge.enter();
            }
        }
    });
    let results = all(stream).await;

    assert_eq!(results, vec![Err(TaskError::Timeout); 2]);
    until("both are gone", || tasks.children().is_empty()).await;
    assert_eq!(gauge.most(), 0);
    one_thread.shutdown_background();
}

#[tokio::test]
async fn a_crash_is_the_result_of_its_item() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);

    let stream = tasks.stream(0..3, options(2), |n| async move {
        assert!(n != 1, "out of cheese");
        n
    });
    let results = all(stream).await;

    let [Ok(0), Err(TaskError::Exited(ExitReason::Panic(_))), Ok(2)] = &results[..] else {
        panic!("{results:?}")
    };
}

#[tokio::test]
async fn a_task_killed_by_somebody_else_is_not_taken_for_late() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let mut stream = tasks.stream(0..1, options(1), |_| pending::<()>());
    let (killer, children) = (runtime.clone(), tasks.clone());
    let kill = async {
        until("it runs", || !children.children().is_empty()).await;
        killer.exit(children.children()[0], ExitReason::Kill);
    };

    let (result, ()) = within("both", async { tokio::join!(stream.next(), kill) }).await;

    assert_eq!(result, Some(Err(TaskError::Exited(ExitReason::Killed))));
}

#[tokio::test]
async fn dropping_a_stream_kills_what_still_runs() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let bystander = tasks.start_child(pending::<()>()).unwrap();
    let options = StreamOptions { timeout: None, ..options(4) };
    let mut stream = tasks.stream(0.., options, |n| async move {
        if n > 0 {
            pending::<()>().await;
        }
    });
    assert_eq!(within("a result", stream.next()).await, Some(Ok(())));
    assert_eq!(tasks.children().len(), 4);

    drop(stream);

    until("they are gone", || tasks.children() == [bystander]).await;
}

#[tokio::test(start_paused = true)]
async fn no_result_is_lost_when_asking_is_given_up() {
    let runtime = runtime();
    let tasks = supervisor(&runtime);
    let mut stream = tasks.stream(0..5_u64, options(2), |n| async move {
        tokio::time::sleep(millis(30)).await;
        n
    });

    let mut results = Vec::new();
    loop {
        match tokio::time::timeout(millis(7), stream.next()).await {
            Ok(Some(result)) => results.push(result.unwrap()),
            Ok(None) => break,
            Err(_) => {}
        }
    }

    assert_eq!(results, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_stream_makes_do_with_the_room_that_the_supervisor_has() {
    let runtime = runtime();
    let tasks = supervisor_of_most(&runtime, 2);
    let other = tasks.async_nolink(pending::<()>()).unwrap();
    let stream = tasks.stream(0..10, options(4), |n| async move { n });
    let results: Vec<_> = all(stream).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results, (0..10).collect::<Vec<_>>());

    let another = tasks.async_nolink(pending::<()>()).unwrap();
    let results = all(tasks.stream(0..2, options(4), |n| async move { n })).await;
    assert_eq!(results, vec![Err(TaskError::NotStarted(SpawnError::Overloaded)); 2]);

    drop((other, another));
    tasks.stop().await;
    let results = all(tasks.stream(0..2, options(4), |n| async move { n })).await;
    assert_eq!(results, vec![Err(TaskError::NotStarted(SpawnError::Stopping)); 2]);
}
