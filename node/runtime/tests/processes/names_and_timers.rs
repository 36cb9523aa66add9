//! Names, timers, tasks, and many runtimes at once.

use std::time::Duration;

use purlin_runtime::{
    Actor, Context, ExitReason, Handler, Message, Name, Outcome, RegisterError, Runtime,
    SpawnError, TaskError, Timer,
};
use serde::{Deserialize, Serialize};

use crate::support::{Puppet, Say, runtime};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_name_is_given_once_and_free_again_after() {
    let runtime = runtime();
    let first = runtime.spawn_named::<Puppet>(name("n"), true).await.unwrap();

    let second = runtime.spawn_named::<Puppet>(name("n"), true).await.unwrap_err();

    assert_eq!(second, SpawnError::NameTaken { name: name("n"), holder: first.pid() });
    assert_eq!(runtime.call("n", Say("by name".into())).await, Ok("by name".into()));
    assert!(runtime.unregister(&name("n")) && !runtime.unregister(&name("n")));
    runtime.register(name("m"), first.pid()).unwrap();
    let twice = runtime.register(name("o"), first.pid());
    assert_eq!(twice, Err(RegisterError::HasName { name: name("m") }));
}

struct Clock {
    ticks: u32,
    timer: Option<Timer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tick;
impl Message for Tick {
    const NAME: &'static str = "clock.tick";
    type Reply = ();
}

#[derive(Debug, Serialize, Deserialize)]
struct Ticks;
impl Message for Ticks {
    const NAME: &'static str = "clock.ticks";
    type Reply = u32;
}

#[derive(Debug, Serialize, Deserialize)]
struct Cancel;
impl Message for Cancel {
    const NAME: &'static str = "clock.cancel";
    type Reply = Option<Duration>;
}

impl Actor for Clock {
    const KIND: &'static str = "clock";
    type Args = u64;
    type Messages = (Ticks, Cancel);

    async fn start(millis: u64, ctx: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { ticks: 0, timer: Some(ctx.send_after(Duration::from_millis(millis), Tick)) })
    }
}

impl Handler<Tick> for Clock {
    async fn handle(&mut self, _: Tick, _: &mut Context<Self>) -> Outcome {
        self.ticks += 1;
        Ok(())
    }
}

impl Handler<Ticks> for Clock {
    async fn handle(&mut self, _: Ticks, _: &mut Context<Self>) -> Outcome<u32> {
        Ok(self.ticks)
    }
}

impl Handler<Cancel> for Clock {
    async fn handle(&mut self, _: Cancel, _: &mut Context<Self>) -> Outcome<Option<Duration>> {
        Ok(self.timer.take().and_then(Timer::cancel))
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_fires_once_and_not_before_its_time() {
    let clock = runtime().spawn::<Clock>(1000).await.unwrap();

    tokio::time::sleep(Duration::from_millis(999)).await;
    assert_eq!(clock.call(Ticks).await, Ok(0));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(clock.call(Ticks).await, Ok(1));
    assert_eq!(clock.call(Cancel).await, Ok(None), "it has fired");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_timer_tells_what_was_left_and_never_fires() {
    let clock = runtime().spawn::<Clock>(1000).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;

    let left = clock.call(Cancel).await.unwrap().unwrap();

    assert!((590..=600).contains(&left.as_millis()), "{left:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(clock.call(Ticks).await, Ok(0));
}

#[tokio::test]
async fn a_task_tells_its_result_or_why_there_is_none() {
    let runtime = runtime();
    assert_eq!(runtime.task(async { 42 }).join().await, Ok(42));

    let stuck = runtime.task(std::future::pending::<()>());
    runtime.exit(stuck.pid().unwrap(), ExitReason::Kill);
    assert_eq!(stuck.join().await, Err(TaskError::Exited(ExitReason::Killed)));
}

#[tokio::test]
async fn twenty_runtimes_live_side_by_side() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let twice = names.iter().chain(&names);
    let runtimes: Vec<_> = twice.map(|&name| Runtime::local(name.into())).collect();
    for runtime in &runtimes {
        let puppet = runtime.spawn_named::<Puppet>(name("p"), true).await.unwrap();
        assert_eq!(puppet.pid().serial, 1);
        assert_eq!(runtime.call("p", Say("here".into())).await, Ok("here".into()));
    }
}

#[tokio::test]
async fn a_shutdown_ends_everything() {
    let runtime = runtime();
    for _ in 0..10 {
        runtime.spawn::<Puppet>(true).await.unwrap();
    }

    runtime.shutdown(Duration::from_secs(5)).await;

    assert_eq!(runtime.process_count(), 0);
    assert_eq!(runtime.spawn::<Puppet>(true).await.unwrap_err(), SpawnError::Stopping);
}
