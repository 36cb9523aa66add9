//! Monitors.

use purlin_runtime::{Dest, Down, ExitReason};

use crate::support::{Got, Probe, Puppet, runtime};

#[tokio::test]
async fn monitoring_the_dead_gives_noproc() {
    let runtime = runtime();
    let dead = runtime.id().pid(999_999);
    let mut watcher = Probe::start(&runtime, move |ctx| {
        ctx.monitor(dead);
    });

    let Got::Down(down) = watcher.next().await else { panic!("no down") };
    assert_eq!((down.target, down.reason), (Dest::Pid(dead), ExitReason::NoProcess));
}

#[tokio::test]
async fn every_monitor_fires_once_with_its_own_reference() {
    let runtime = runtime();
    let target = Probe::start(&runtime, |_| {}).pid;
    let mut watcher = Probe::start(&runtime, move |ctx| {
        for _ in 0..3 {
            ctx.monitor(target);
        }
    });
    assert!(watcher.is_quiet().await);

    runtime.exit(target, ExitReason::Kill);

    let mut references = Vec::new();
    for _ in 0..3 {
        let Got::Down(Down { reference, reason, .. }) = watcher.next().await else {
            panic!("no down")
        };
        assert_eq!(reason, ExitReason::Killed);
        references.push(reference);
    }
    references.dedup();
    assert_eq!(references.len(), 3);
    assert!(watcher.is_quiet().await);
}

#[tokio::test]
async fn a_monitor_that_is_taken_back_does_not_fire() {
    let runtime = runtime();
    let target = Probe::start(&runtime, |_| {}).pid;
    let mut watcher = Probe::start(&runtime, move |ctx| {
        let reference = ctx.monitor(target);
        assert!(ctx.demonitor(reference));
        assert!(!ctx.demonitor(reference), "the second time there is none");
    });
    assert!(watcher.is_quiet().await);

    runtime.exit(target, ExitReason::Kill);

    assert!(watcher.is_quiet().await);
}

#[tokio::test]
async fn the_name_is_free_when_the_down_arrives() {
    let runtime = runtime();
    let name: purlin_runtime::Name = "worker".parse().unwrap();
    for _ in 0..200 {
        let target = runtime.spawn_named::<Puppet>(name.clone(), true).await.unwrap();
        let pid = target.pid();
        let dest = Dest::Local(name.clone());
        let (armed, is_armed) = tokio::sync::oneshot::channel();
        let mut watcher = Probe::start(&runtime, move |ctx| {
            ctx.monitor(dest);
            let _ = armed.send(());
        });
        is_armed.await.unwrap();

        runtime.exit(pid, ExitReason::Kill);

        assert!(matches!(watcher.next().await, Got::Down(_)));
        assert_eq!(runtime.whereis(&name), None);
    }
}

#[tokio::test]
async fn monitoring_an_unknown_name_gives_noproc_and_oneself_nothing() {
    let runtime = runtime();
    let mut watcher = Probe::start(&runtime, |ctx| {
        ctx.monitor("nobody");
        ctx.monitor(ctx.pid());
    });

    let Got::Down(down) = watcher.next().await else { panic!("no down") };
    assert_eq!((down.target, down.reason), (Dest::from("nobody"), ExitReason::NoProcess));
    assert!(watcher.is_quiet().await);
}

#[tokio::test]
async fn mo_6_a_notice_that_waits_already_is_flushed_with_its_monitor_and_no_other() {
    let runtime = runtime();
    let targets = [1, 2].map(|_| Probe::start(&runtime, |_| {}).pid);
    let (tell, told) = tokio::sync::oneshot::channel();
    let (armed, is_armed) = tokio::sync::oneshot::channel();
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    runtime
        .spawn_raw(&crate::support::PROBE, move |mut ctx| async move {
            let [first, second] = targets.map(|target| ctx.monitor(target));
            let _ = armed.send(());
            wait.await?;
            assert!(!ctx.demonitor_flush(first), "its notice waits already");
            let _ = tell.send((second, ctx.receive().await?));
            Ok(())
        })
        .unwrap();
    is_armed.await.unwrap();
    for target in targets {
        runtime.exit(target, ExitReason::Kill);
        runtime.down(target).await;
    }
    go.send(()).unwrap();
    let (second, received) = told.await.unwrap();
    let purlin_runtime::Received::Down(down) = received else { panic!("{received:?}") };
    assert_eq!(down.reference, second);
}
