//! Handlers that hold a worker, and waiting for an end from outside.

use std::time::Duration;

use purlin_runtime::{Actor, Context, Dest, ExitReason, Handler, Message, Outcome, Ref, Runtime};
use serde::{Deserialize, Serialize};

use crate::support::{PROBE, Puppet, Say, runtime, until};

struct Hog;

#[derive(Debug, Serialize, Deserialize)]
struct Compute(u64);

impl Message for Compute {
    const NAME: &'static str = "hog.compute";
    type Reply = ();
}

impl Actor for Hog {
    const KIND: &'static str = "hog";
    type Args = ();
    type Messages = (Compute,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<Compute> for Hog {
    async fn handle(&mut self, Compute(millis): Compute, _: &mut Context<Self>) -> Outcome {
        std::thread::sleep(Duration::from_millis(millis));
        Ok(())
    }
}

fn held(runtime: &Runtime) -> u64 {
    let counters = runtime.counters().snapshot();
    counters.iter().find(|counter| counter.name == "handlers.held_worker").unwrap().count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_holds_a_worker_is_counted_once_while_it_does() {
    let runtime = runtime();
    let hog = runtime.spawn::<Hog>(()).await.unwrap();
    let other = runtime.clone();
    let looking = std::thread::spawn(move || {
        for _ in 0..8 {
            other.check_workers();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    hog.call(Compute(500)).await.unwrap();
    assert_eq!(held(&runtime), 1);
    for _ in 0..20 {
        hog.call(Compute(10)).await.unwrap();
    }
    looking.join().unwrap();
    assert_eq!(held(&runtime), 1, "short ones are nobody's business");
}

#[tokio::test]
async fn an_end_can_be_waited_for_from_outside() {
    let runtime = runtime();
    let puppet = runtime.spawn_named::<Puppet>("it", true).await.unwrap();
    let down = runtime.down("it");
    let (down, ()) = tokio::join!(down, async {
        tokio::task::yield_now().await;
        puppet.exit(ExitReason::Kill);
    });
    assert_eq!((down.target, down.reason), (Dest::from("it"), ExitReason::Killed));
    let nobody = runtime.down("it").await;
    assert_eq!(nobody.reason, ExitReason::NoProcess);
    let watched = runtime.spawn_raw(&PROBE, |_| std::future::pending()).unwrap();
    drop(tokio::time::timeout(Duration::from_millis(10), runtime.down(watched)).await);
    until("nobody watches", || runtime.process_count() == 1).await;
}

#[tokio::test]
async fn a_ref_by_name_stays_good_when_another_takes_the_name() {
    let runtime = runtime();
    let it = Ref::<Puppet>::named(&runtime, "it");
    assert!(it.call(Say("a".into())).await.is_err());
    let first = runtime.spawn_named::<Puppet>("it", true).await.unwrap();
    assert_eq!(it.call(Say("b".into())).await.as_deref(), Ok("b"));
    assert_eq!(it.pid(), first.pid());
    it.exit(ExitReason::Kill);
    runtime.down(&first).await;
    let second = runtime.spawn_named::<Puppet>("it", true).await.unwrap();
    assert_eq!(it.call(Say("c".into())).await.as_deref(), Ok("c"));
    assert_eq!(it.pid(), second.pid());
}

#[tokio::test]
async fn raw_processes_start_others_linked_or_monitored() {
    let runtime = runtime();
    let (tell, told) = tokio::sync::oneshot::channel();
    runtime
        .spawn_raw(&PROBE, |mut ctx| async move {
            ctx.trap_exits(true);
            let linked = ctx.spawn_link::<Puppet>(true).await?;
            let (watched, reference) = ctx.spawn_monitor::<Puppet>(None, true).await?;
            linked.exit(ExitReason::Kill);
            let first = ctx.receive().await?;
            watched.exit(ExitReason::Kill);
            let second = ctx.receive().await?;
            let _ = tell.send((linked.pid(), first, reference, second));
            Ok(())
        })
        .unwrap();
    let (linked, first, reference, second) = told.await.unwrap();
    let purlin_runtime::Received::LinkDown(link) = first else { panic!("{first:?}") };
    assert_eq!((link.pid, link.reason), (linked, ExitReason::Killed));
    let purlin_runtime::Received::Down(down) = second else { panic!("{second:?}") };
    assert_eq!((down.reference, down.reason), (reference, ExitReason::Killed));
}
