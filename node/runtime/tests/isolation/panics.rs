//! Panics wherever the user's code runs: contained, told to those who are to know, nothing left.
//!
//! What no runtime can contain is a destructor that panics while its thread unwinds from another
//! panic: Rust ends the program. So nothing here panics twice at once; see [`Bomb`].

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use purlin_runtime::{
    Actor, CallError, ChildSpec, Context, Deferred, ExitReason, Handler, Mailbox, Message, Outcome,
    Pid, RawKind, Ref, Restart, Runtime, Shutdown, SpawnError, Strategy, Supervisor, TaskError,
    WhenFull,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{Witness, counted, runtime, until, within};

static RAW: RawKind = RawKind::new("raw");

/// Panics when it is dropped, but not during another panic, which would end the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a bomb was dropped");
    }
}

impl Message for Bomb {
    const NAME: &'static str = "glass.bomb";
    type Reply = ();
}

/// Where a [`Glass`] panics by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Breaks {
    OnRequest,
    InStart,
    InStop,
    InDrop,
}

/// Panics where it is told to.
struct Glass {
    breaks: Breaks,
    kept: Vec<Deferred<()>>,
    others: Vec<Ref<Glass>>,
}

impl Drop for Glass {
    fn drop(&mut self) {
        assert!(self.breaks != Breaks::InDrop || std::thread::panicking(), "broken in drop");
    }
}

/// What a [`Glass`] is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Do {
    Nothing,
    Panic,
    /// Panics with a value that panics when it is dropped.
    PanicWithBomb,
    PanicInBlocking,
    /// Panics in a closure of its own and goes on, then in a blocking one.
    PanicTwiceInTurn,
    Stop,
    /// Keeps the reply.
    Keep,
    /// Never returns, with a bomb in its hands.
    HoldBomb,
    /// Never returns.
    Hang,
    /// Starts a linked process that panics in its start; says how that went.
    SpawnBroken,
    /// Knows another one, whose reference it holds from now on.
    Meet(Pid),
}

impl Message for Do {
    const NAME: &'static str = "glass.do";
    type Reply = ();
}

impl Actor for Glass {
    const KIND: &'static str = "glass";
    type Args = Breaks;
    type Messages = (Do, Bomb);

    async fn start(breaks: Breaks, _: &mut Context<Self>) -> Outcome<Self> {
        assert!(breaks != Breaks::InStart, "broken in start");
        Ok(Self { breaks, kept: Vec::new(), others: Vec::new() })
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        assert!(self.breaks != Breaks::InStop, "broken in stop");
    }
}

impl Handler<Do> for Glass {
    async fn handle(&mut self, what: Do, ctx: &mut Context<Self>) -> Outcome {
        match what {
            Do::Nothing => {}
            Do::Panic => panic!("out of cheese"),
            Do::PanicWithBomb => panic_any(Bomb),
            Do::PanicInBlocking => ctx.blocking(|| panic!("blocked")).await,
            Do::PanicTwiceInTurn => {
                let caught = catch_unwind(|| panic!("caught"));
                assert!(caught.is_err());
                ctx.blocking(|| panic!("blocked")).await;
            }
            Do::Stop => ctx.stop(ExitReason::Normal),
            Do::Keep => {
                self.kept.push(ctx.defer::<Do>());
                return ctx.noreply();
            }
            Do::HoldBomb => {
                let _bomb = Bomb;
                pending::<()>().await;
            }
            Do::Hang => pending().await,
            Do::SpawnBroken => {
                let failed = ctx.spawn_link::<Self>(Breaks::InStart).await.map(|glass| glass.pid());
                let Err(SpawnError::Start(reason)) = failed else { panic!("{failed:?}") };
                assert!(is_panic(&reason, "broken in start"), "{reason}");
            }
            Do::Meet(other) => self.others.push(Ref::from_pid(ctx.runtime(), other)),
        }
        Ok(())
    }
}

impl Handler<Bomb> for Glass {
    async fn handle(&mut self, bomb: Bomb, _: &mut Context<Self>) -> Outcome {
        std::mem::forget(bomb);
        Ok(())
    }
}

/// Whether this is a panic with this message, and says where it happened.
fn is_panic(reason: &ExitReason, message: &str) -> bool {
    matches!(reason, ExitReason::Panic(_))
        && reason.to_string().contains(message)
        && reason.to_string().contains("panics.rs:")
}

/// Whether a call ended with the exit of its receiver, by this panic.
fn is_told(outcome: &Result<(), CallError>, message: &str) -> bool {
    matches!(outcome, Err(CallError::Exited(reason)) if is_panic(reason, message))
}

async fn glass(runtime: &Runtime, breaks: Breaks) -> (Ref<Glass>, Witness) {
    let glass = runtime.spawn_named::<Glass>("glass", breaks).await.unwrap();
    let witness = Witness::of(runtime, glass.pid(), Some("glass"));
    (glass, witness)
}

/// Puts a call under way and waits until it is being handled, or lies in the mailbox.
async fn call_is_out(
    glass: &Ref<Glass>,
    what: Do,
) -> tokio::task::JoinHandle<Result<(), CallError>> {
    let to = glass.clone();
    let call = tokio::spawn(async move { to.call(what).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!call.is_finished());
    call
}

/// The runtime is as new: nobody is left, the name is free, and processes start and answer.
async fn all_is_well(runtime: &Runtime) {
    until("all have ended", || runtime.process_count() == 0).await;
    assert_eq!(runtime.names(), []);
    let glass = runtime.spawn_named::<Glass>("glass", Breaks::OnRequest).await.unwrap();
    assert_eq!(glass.call(Do::Nothing).await, Ok(()));
}

// ----- in a handler, in start, in stop -----

#[tokio::test]
async fn a_panic_in_a_handler_is_told_to_its_caller_links_and_watchers() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;

    let outcome = glass.call(Do::Panic).await;

    assert!(is_told(&outcome, "out of cheese"), "{outcome:?}");
    let reason = witness.reason(&runtime).await;
    assert!(is_panic(&reason, "out of cheese"), "{reason}");
    assert_eq!(counted(&runtime, "processes.crashed"), 1);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_panic_in_start_is_the_error_of_the_spawn_and_leaves_nothing() {
    let runtime = runtime();

    let failed = runtime.spawn_named::<Glass>("glass", Breaks::InStart).await;

    let Err(SpawnError::Start(reason)) = failed else { panic!("{failed:?}") };
    assert!(is_panic(&reason, "broken in start"), "{reason}");
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_panic_in_the_start_of_a_linked_process_sends_no_exit_signal() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;

    assert_eq!(glass.call(Do::SpawnBroken).await, Ok(()));

    assert_eq!(glass.call(Do::Nothing).await, Ok(()), "it lives on");
    let detail = runtime.process_detail(&(&glass).into()).unwrap();
    assert_eq!(detail.links, [witness.pid]);
    glass.send(Do::Stop);
    assert_eq!(witness.reason(&runtime).await, ExitReason::Normal);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_panic_in_stop_is_contained() {
    let runtime = runtime();
    for ask in [true, false] {
        let (glass, witness) = glass(&runtime, Breaks::InStop).await;
        match ask {
            true => glass.send(Do::Stop),
            false => glass.exit(ExitReason::Shutdown),
        }
        witness.reason(&runtime).await;
    }
    all_is_well(&runtime).await;
}

/// OTP: what `terminate` crashes with is the reason.
#[tokio::test]
async fn a_panic_in_stop_is_the_reason_that_is_told() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::InStop).await;

    glass.send(Do::Stop);

    let reason = witness.reason(&runtime).await;
    assert!(is_panic(&reason, "broken in stop"), "{reason}");
    assert_eq!(counted(&runtime, "processes.crashed"), 1);
}

// ----- in drops -----

#[tokio::test]
async fn a_panic_in_the_drop_of_a_state_is_contained_however_it_ends() {
    let runtime = runtime();
    for end in [ExitReason::Normal, ExitReason::Shutdown, ExitReason::Kill] {
        let (glass, witness) = glass(&runtime, Breaks::InDrop).await;
        match end {
            ExitReason::Normal => glass.send(Do::Stop),
            reason => glass.exit(reason),
        }
        witness.reason(&runtime).await;
    }
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_panic_in_the_drop_of_a_state_is_the_reason_that_is_told() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::InDrop).await;

    glass.send(Do::Stop);

    let reason = witness.reason(&runtime).await;
    assert!(is_panic(&reason, "broken in drop"), "{reason}");
}

#[tokio::test]
async fn one_that_is_killed_is_killed_though_what_it_held_at_an_await_panics() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;
    let in_hand = call_is_out(&glass, Do::HoldBomb).await;
    let waits = call_is_out(&glass, Do::Nothing).await;

    glass.exit(ExitReason::Kill);

    let killed = Err(CallError::Exited(ExitReason::Killed));
    assert_eq!(within("the call in hand", in_hand).await.unwrap(), killed);
    assert_eq!(within("the call behind it", waits).await.unwrap(), killed);
    assert_eq!(witness.reason(&runtime).await, ExitReason::Killed);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_message_that_panics_when_it_is_dropped_unread_is_contained() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;
    let in_hand = call_is_out(&glass, Do::Hang).await;
    glass.send(Bomb);

    glass.exit(ExitReason::Kill);

    within("the call in hand", in_hand).await.unwrap().unwrap_err();
    assert_eq!(witness.reason(&runtime).await, ExitReason::Killed);
    all_is_well(&runtime).await;
}

/// The rest of what waits for a process is told after the messages that nobody has read.
#[tokio::test]
async fn those_who_wait_behind_a_message_that_panics_are_told_of_the_end() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;
    let (lent, deferred) = oneshot::channel();
    let held_elsewhere = runtime.spawn::<Lender>(()).await.unwrap();
    LENT.set(Some(lent));
    let asks = held_elsewhere.clone();
    let kept = tokio::spawn(async move { asks.call(Lend).await });
    let deferred = within("a deferred reply", deferred).await.unwrap();
    held_elsewhere.send(Bomb);
    let asks = held_elsewhere.clone();
    let behind = tokio::spawn(async move { asks.call(Lend).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let asks = held_elsewhere.clone();
    let for_room = tokio::spawn(async move { asks.send_wait(Bomb).await });
    tokio::time::sleep(Duration::from_millis(20)).await;

    held_elsewhere.exit(ExitReason::Kill);

    let killed = Err(CallError::Exited(ExitReason::Killed));
    assert_eq!(within("the call behind it", behind).await.unwrap(), killed);
    assert_eq!(within("the deferred reply", kept).await.unwrap(), killed);
    // What it sends is dropped by the sender, whose own it is.
    drop(within("the one who waits for room", for_room).await);
    drop(deferred);
    glass.send(Do::Stop);
    assert_eq!(witness.reason(&runtime).await, ExitReason::Normal);
}

#[tokio::test]
async fn args_that_panic_when_they_are_dropped_unused_are_contained() {
    let runtime = runtime();
    let mut spawning = pin!(runtime.spawn_named::<Fuse>("fuse", Bomb));
    let first = poll_fn(|cx| Poll::Ready(spawning.as_mut().poll(cx).is_ready())).await;
    assert!(!first, "it has not run yet");
    let pid = runtime.whereis(&"fuse".into()).unwrap();
    let witness = Witness::of(&runtime, pid, Some("fuse"));

    runtime.exit(pid, ExitReason::Kill);

    let failed = within("the spawn", spawning).await.map(|fuse| fuse.pid());
    assert_eq!(failed, Err(SpawnError::Start(ExitReason::Killed)));
    assert_eq!(witness.reason(&runtime).await, ExitReason::Killed);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_panic_whose_value_panics_when_it_is_dropped_is_contained() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;

    let outcome = within("the call", glass.call(Do::PanicWithBomb)).await;

    assert!(matches!(outcome, Err(CallError::Exited(_))), "{outcome:?}");
    witness.reason(&runtime).await;
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_panic_whose_value_panics_when_it_is_dropped_is_told_as_a_panic() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;

    glass.send(Do::PanicWithBomb);

    let reason = witness.reason(&runtime).await;
    assert!(is_panic(&reason, "a value that is not text"), "{reason}");
}

#[tokio::test]
async fn an_old_message_that_panics_when_it_is_dropped_harms_not_the_sender_of_a_new_one() {
    let runtime = runtime();
    let latest = runtime.spawn_raw(&LATEST, |_| pending()).unwrap();
    runtime.send(latest, Bomb);

    let sends = runtime.clone();
    let sender = runtime.task(async move { sends.send(latest, Do::Nothing) });

    assert_eq!(sender.join().await, Ok(()));
    assert_eq!(counted(&runtime, "dropped.mailbox_full"), 1);
}

static LATEST: RawKind = RawKind::new("latest").mailbox(Mailbox::bounded(1, WhenFull::DropOldest));

/// Has args that panic unless it takes them.
struct Fuse;

impl Actor for Fuse {
    const KIND: &'static str = "fuse";
    type Args = Bomb;
    type Messages = ();

    async fn start(bomb: Bomb, _: &mut Context<Self>) -> Outcome<Self> {
        std::mem::forget(bomb);
        Ok(Self)
    }
}

/// Gives its reply away and then hangs, with a mailbox for two.
struct Lender;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lend;

impl Message for Lend {
    const NAME: &'static str = "lender.lend";
    type Reply = ();
}

thread_local! {
    static LENT: std::cell::RefCell<Option<oneshot::Sender<Deferred<()>>>> =
        const { std::cell::RefCell::new(None) };
}

impl Actor for Lender {
    const KIND: &'static str = "lender";
    type Args = ();
    type Messages = (Lend, Bomb);
    const MAILBOX: Mailbox = Mailbox::bounded(2, WhenFull::Wait);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<Lend> for Lender {
    async fn handle(&mut self, _: Lend, ctx: &mut Context<Self>) -> Outcome {
        ctx.continue_with(Sleep);
        let lent = LENT.take().ok_or("asked once")?;
        drop(lent.send(ctx.defer::<Lend>()));
        ctx.noreply()
    }
}

impl Handler<Bomb> for Lender {
    async fn handle(&mut self, bomb: Bomb, _: &mut Context<Self>) -> Outcome {
        std::mem::forget(bomb);
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Sleep;

impl Message for Sleep {
    const NAME: &'static str = "lender.sleep";
    type Reply = ();
}

impl Handler<Sleep> for Lender {
    async fn handle(&mut self, _: Sleep, _: &mut Context<Self>) -> Outcome {
        pending().await
    }
}

// ----- with what is others' -----

#[tokio::test]
async fn a_panic_with_references_and_replies_of_others_in_hand_harms_none_of_them() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;
    let other = runtime.spawn::<Glass>(Breaks::OnRequest).await.unwrap();
    glass.call(Do::Meet(other.pid())).await.unwrap();
    let first = call_is_out(&glass, Do::Keep).await;
    let second = call_is_out(&glass, Do::Keep).await;

    let outcome = glass.call(Do::Panic).await;

    assert!(is_told(&outcome, "out of cheese"), "{outcome:?}");
    for kept in [first, second] {
        let outcome = within("a kept reply", kept).await.unwrap();
        assert!(is_told(&outcome, "out of cheese"), "{outcome:?}");
    }
    witness.reason(&runtime).await;
    assert_eq!(other.call(Do::Nothing).await, Ok(()));
    other.send(Do::Stop);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn the_callers_of_a_deferred_reply_are_told_though_another_holds_it() {
    let runtime = runtime();
    let lender = runtime.spawn::<Lender>(()).await.unwrap();
    let (lent, deferred) = oneshot::channel();
    LENT.set(Some(lent));
    let asks = lender.clone();
    let call = tokio::spawn(async move { asks.call(Lend).await });
    let deferred = within("a deferred reply", deferred).await.unwrap();
    let holder = runtime.task(async move {
        let _deferred = deferred;
        pending::<()>().await;
    });

    lender.exit(ExitReason::Kill);

    let outcome = within("the call", call).await.unwrap();
    assert_eq!(outcome, Err(CallError::Exited(ExitReason::Killed)));
    assert_eq!(holder.kill().await, None);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_process_that_panics_with_the_deferred_reply_of_another_harms_only_itself() {
    let runtime = runtime();
    let lender = runtime.spawn::<Lender>(()).await.unwrap();
    let (lent, deferred) = oneshot::channel();
    LENT.set(Some(lent));
    let asks = lender.clone();
    let call = tokio::spawn(async move { asks.call(Lend).await });
    let deferred = within("a deferred reply", deferred).await.unwrap();

    let holder: Result<(), _> = runtime
        .task(async move {
            let _deferred = deferred;
            panic!("butter fingers");
        })
        .join()
        .await;

    assert!(matches!(holder, Err(TaskError::Exited(ExitReason::Panic(_)))));
    let outcome = within("the call", call).await.unwrap();
    assert!(is_told(&outcome, "butter fingers"), "{outcome:?}");
    assert!(runtime.is_alive(lender.pid()));
    lender.exit(ExitReason::Kill);
    all_is_well(&runtime).await;
}

// ----- raw processes, tasks, blocking closures -----

#[tokio::test]
async fn a_panic_in_a_raw_body_is_told() {
    let runtime = runtime();
    let (go, gone) = oneshot::channel::<()>();
    let body = |_| async {
        drop(gone.await);
        panic!("raw")
    };
    let pid = runtime.spawn_raw(&RAW, body).unwrap();
    runtime.register("raw".into(), pid).unwrap();
    let witness = Witness::of(&runtime, pid, Some("raw"));

    drop(go);

    let reason = witness.reason(&runtime).await;
    assert!(is_panic(&reason, "raw"), "{reason}");
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_closure_that_panics_before_its_future_is_made_leaves_no_process() {
    let runtime = runtime();

    let spawned = catch_unwind(AssertUnwindSafe(|| {
        runtime.spawn_raw(&RAW, |_| -> std::future::Pending<Outcome> { panic!("no future") })
    }));

    assert!(!matches!(spawned, Ok(Ok(_))));
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_supervisor_takes_a_closure_that_panics_for_a_start_that_fails() {
    let runtime = runtime();
    let broken = ChildSpec::raw("broken", &RAW, |_| -> std::future::Pending<Outcome> {
        panic!("no future")
    });
    let root = runtime.supervise(Supervisor::new(Strategy::OneForOne)).await.unwrap();

    let started = root.start_child(broken.name("broken").restart(Restart::Temporary)).await;

    assert!(started.is_err());
    assert!(runtime.is_alive((&root).into()));
    runtime.exit(&root, ExitReason::Shutdown);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_panic_in_a_task_is_its_outcome() {
    let runtime = runtime();
    let (go, gone) = oneshot::channel::<()>();
    let task = runtime.task(async {
        drop(gone.await);
        panic!("in a task")
    });
    let witness = Witness::of(&runtime, task.pid().unwrap(), None);

    drop(go);

    let outcome: Result<(), _> = task.join().await;
    let Err(TaskError::Exited(reason)) = outcome else { panic!("{outcome:?}") };
    assert!(is_panic(&reason, "in a task"), "{reason}");
    assert_eq!(witness.reason(&runtime).await, reason);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_task_that_is_killed_is_killed_though_what_it_holds_panics() {
    let runtime = runtime();
    let task = runtime.task(async {
        let _bomb = Bomb;
        pending::<()>().await;
    });
    tokio::task::yield_now().await;
    let witness = Witness::of(&runtime, task.pid().unwrap(), None);

    assert_eq!(task.kill().await, None);

    assert_eq!(witness.reason(&runtime).await, ExitReason::Killed);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_panic_in_a_blocking_closure_is_one_of_the_process() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;

    let outcome = glass.call(Do::PanicInBlocking).await;

    let reason = witness.reason(&runtime).await;
    assert!(matches!(&reason, ExitReason::Panic(_)) && reason.to_string().contains("blocked"));
    assert_eq!(outcome, Err(CallError::Exited(reason)));
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_panic_in_a_blocking_closure_is_not_told_with_the_place_of_one_that_was_caught() {
    let runtime = runtime();
    let (glass, witness) = glass(&runtime, Breaks::OnRequest).await;

    glass.send(Do::PanicTwiceInTurn);

    let reason = witness.reason(&runtime).await.to_string();
    let caught = include_str!("panics.rs").lines().position(|line| line.contains("!(\"caught\")"));
    let place = format!("panics.rs:{}:", caught.unwrap() + 1);
    assert!(reason.contains("blocked") && !reason.contains(&place), "{reason}");
}

// ----- under a supervisor -----

#[tokio::test]
async fn a_supervisor_restarts_a_child_that_panics_and_stops_one_that_panics_in_drop_or_stop() {
    let runtime = runtime();
    let child = |id: &str, breaks| ChildSpec::actor::<Glass>(id, breaks);
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .child(child("first", Breaks::OnRequest).name("first"))
        .child(child("in stop", Breaks::InStop))
        .child(child("in drop", Breaks::InDrop))
        .child(child("killed", Breaks::InDrop).shutdown(Shutdown::BrutalKill))
        .child(child("last", Breaks::OnRequest));
    let root = runtime.supervise(supervisor).await.unwrap();
    let first = runtime.whereis(&"first".into()).unwrap();

    runtime.send(first, Do::Panic);
    until("it is restarted", || runtime.whereis(&"first".into()).is_some_and(|p| p != first)).await;
    assert_eq!(runtime.process_count(), 6);
    let witness = Witness::of(&runtime, (&root).into(), None);
    runtime.exit(&root, ExitReason::Shutdown);

    assert_eq!(witness.reason(&runtime).await, ExitReason::Shutdown);
    assert_eq!(counted(&runtime, "processes.restarted"), 1);
    all_is_well(&runtime).await;
}

#[tokio::test]
async fn a_runtime_shuts_down_though_every_process_panics() {
    let runtime = runtime();
    for breaks in [Breaks::InStop, Breaks::InDrop, Breaks::OnRequest] {
        let glass = runtime.spawn::<Glass>(breaks).await.unwrap();
        glass.send(Do::HoldBomb);
        runtime.spawn::<Glass>(breaks).await.unwrap();
    }

    within("the shutdown", runtime.shutdown(Duration::from_millis(100))).await;

    assert_eq!(runtime.process_count(), 0);
}
