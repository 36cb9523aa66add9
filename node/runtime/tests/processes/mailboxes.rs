//! What waits for a process, what becomes of more, and what goes before.

use std::time::Duration;

use purlin_runtime::{
    Actor, CallError, Config, Context, ExitReason, Handler, IdleTimeout, Mailbox, Message, NodeId,
    Outcome, Ref, Runtime, WhenFull,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::support::runtime;

/// Handles nothing until it is let go, then tells what it handles.
struct Gate<const POLICY: u8> {
    handled: mpsc::UnboundedSender<u32>,
}

const WAIT: u8 = 0;
const NEWEST: u8 = 1;
const OLDEST: u8 = 2;

#[derive(Debug, Serialize, Deserialize)]
struct Hold;

#[derive(Debug, Serialize, Deserialize)]
struct Number(u32);

impl Message for Hold {
    const NAME: &'static str = "gate.hold";
    type Reply = ();
}

impl Message for Number {
    const NAME: &'static str = "gate.number";
    type Reply = u32;
}

thread_local! {
    static ENDS: std::cell::RefCell<Option<(mpsc::UnboundedSender<u32>, oneshot::Receiver<()>)>> =
        const { std::cell::RefCell::new(None) };
}

impl<const POLICY: u8> Actor for Gate<POLICY> {
    const KIND: &'static str = "gate";
    type Args = ();
    type Messages = (Hold, Number);
    const MAILBOX: Mailbox = Mailbox::bounded(
        3,
        match POLICY {
            WAIT => WhenFull::Wait,
            NEWEST => WhenFull::DropNewest,
            _ => WhenFull::DropOldest,
        },
    );

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        let handled = ENDS.with_borrow(|ends| ends.as_ref().unwrap().0.clone());
        Ok(Self { handled })
    }
}

impl<const POLICY: u8> Handler<Hold> for Gate<POLICY> {
    async fn handle(&mut self, _: Hold, _: &mut Context<Self>) -> Outcome {
        let hold = ENDS.with_borrow_mut(|ends| ends.take().unwrap().1);
        hold.await?;
        Ok(())
    }
}

impl<const POLICY: u8> Handler<Number> for Gate<POLICY> {
    async fn handle(&mut self, Number(n): Number, _: &mut Context<Self>) -> Outcome<u32> {
        self.handled.send(n)?;
        Ok(n)
    }
}

/// A process that is stuck in its first message, with room for three more.
async fn stuck<const POLICY: u8>(
    runtime: &Runtime,
) -> (Ref<Gate<POLICY>>, oneshot::Sender<()>, mpsc::UnboundedReceiver<u32>) {
    let (handled, seen) = mpsc::unbounded_channel();
    let (go, hold) = oneshot::channel();
    ENDS.set(Some((handled, hold)));
    let gate = runtime.spawn::<Gate<POLICY>>(()).await.unwrap();
    gate.send(Hold);
    while ENDS.with_borrow(Option::is_some) {
        tokio::task::yield_now().await;
    }
    (gate, go, seen)
}

async fn rest(mut seen: mpsc::UnboundedReceiver<u32>, count: usize) -> Vec<u32> {
    let mut all = Vec::new();
    while all.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(5), seen.recv()).await;
        all.push(next.expect("in time").unwrap());
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(seen.try_recv().is_err(), "no more");
    all
}

fn dropped<const POLICY: u8>(runtime: &Runtime, gate: &Ref<Gate<POLICY>>) -> (u64, u64) {
    let own = runtime.process_detail(&gate.into()).unwrap().dropped;
    let counters = runtime.counters().snapshot();
    let node = counters.iter().find(|counter| counter.name == "dropped.mailbox_full").unwrap();
    (own, node.count)
}

#[tokio::test]
async fn a_send_to_a_full_mailbox_is_dropped_and_counted() {
    let runtime = runtime();
    let (gate, go, seen) = stuck::<WAIT>(&runtime).await;
    for n in 1..=5 {
        gate.send(Number(n));
    }
    assert_eq!(dropped(&runtime, &gate), (2, 2));
    go.send(()).unwrap();
    assert_eq!(rest(seen, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn send_wait_and_call_wait_for_room_and_go_on() {
    let runtime = runtime();
    let (gate, go, seen) = stuck::<WAIT>(&runtime).await;
    for n in 1..=3 {
        gate.send(Number(n));
    }
    let sender = gate.clone();
    let waits = tokio::spawn(async move { sender.send_wait(Number(4)).await });
    let caller = gate.clone();
    let calls = tokio::spawn(async move { caller.call(Number(5)).await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!waits.is_finished() && !calls.is_finished());
    go.send(()).unwrap();
    waits.await.unwrap();
    assert_eq!(calls.await.unwrap(), Ok(5));
    let mut all = rest(seen, 5).await;
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4, 5]);
    assert_eq!(dropped(&runtime, &gate), (0, 0));
}

#[tokio::test]
async fn a_sender_that_waits_while_all_is_in_the_hands_of_the_process_is_not_forgotten() {
    let runtime = runtime();
    let (gate, go, seen) = stuck::<WAIT>(&runtime).await;
    // Taken out of the mailbox together, so that nothing comes after that could wake the sender.
    for n in 1..=3 {
        gate.send(Number(n));
    }
    let sender = gate.clone();
    let waits = tokio::spawn(async move {
        for n in 4..=10 {
            sender.send_wait(Number(n)).await;
        }
    });
    tokio::task::yield_now().await;
    go.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), waits).await.expect("not forgotten").unwrap();
    assert_eq!(rest(seen, 10).await, (1..=10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_no_room_until_its_deadline_is_overloaded() {
    let runtime = runtime();
    let (gate, _go, _seen) = stuck::<WAIT>(&runtime).await;
    for n in 1..=3 {
        gate.send(Number(n));
    }
    let refused = gate.call_timeout(Number(4), Duration::from_secs(1)).await;
    assert_eq!(refused, Err(CallError::Overloaded));
}

#[tokio::test]
async fn where_the_newest_is_dropped_nobody_waits() {
    let runtime = runtime();
    let (gate, go, seen) = stuck::<NEWEST>(&runtime).await;
    for n in 1..=3 {
        gate.send(Number(n));
    }
    gate.send_wait(Number(4)).await;
    assert_eq!(gate.call(Number(5)).await, Err(CallError::Overloaded));
    assert_eq!(dropped(&runtime, &gate), (2, 2));
    go.send(()).unwrap();
    assert_eq!(rest(seen, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn where_the_oldest_is_dropped_its_caller_is_told() {
    let runtime = runtime();
    let (gate, go, seen) = stuck::<OLDEST>(&runtime).await;
    let caller = gate.clone();
    let oldest = tokio::spawn(async move { caller.call(Number(1)).await });
    tokio::task::yield_now().await;
    for n in 2..=5 {
        gate.send(Number(n));
    }
    assert_eq!(oldest.await.unwrap(), Err(CallError::Overloaded));
    assert_eq!(dropped(&runtime, &gate), (2, 2));
    go.send(()).unwrap();
    assert_eq!(rest(seen, 3).await, [3, 4, 5]);
}

#[tokio::test]
async fn a_full_mailbox_holds_up_neither_exits_nor_downs_nor_queries() {
    let runtime = runtime();
    let (gate, _go, _seen) = stuck::<WAIT>(&runtime).await;
    for n in 1..=9 {
        gate.send(Number(n));
    }
    assert_eq!(runtime.process_detail(&(&gate).into()).unwrap().mailbox, 3);
    gate.exit(ExitReason::Kill);
    while gate.is_alive() || runtime.process_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_runtimes_bound_holds_where_an_actor_has_none_of_its_own() {
    let mut config = Config::new(NodeId::new("a".into(), 1));
    config.mailbox_limit = 2;
    let runtime = Runtime::new(config);
    let pid = runtime.spawn_raw(&crate::support::PROBE, |_| std::future::pending()).unwrap();
    for n in 1..=5 {
        runtime.send(pid, Number(n));
    }
    let detail = runtime.process_detail(&pid.into()).unwrap();
    assert_eq!((detail.mailbox, detail.dropped), (2, 3));
}

/// Notes the order in which it handles things.
struct Steps(Vec<&'static str>);

#[derive(Debug, Serialize, Deserialize)]
struct Step(u8);

impl Message for Step {
    const NAME: &'static str = "steps.step";
    type Reply = Vec<String>;
}

#[derive(Debug, Serialize, Deserialize)]
struct Prepare(u8);

impl Message for Prepare {
    const NAME: &'static str = "steps.prepare";
    type Reply = ();
}

impl Actor for Steps {
    const KIND: &'static str = "steps";
    type Args = ();
    type Messages = (Step,);

    async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
        // Waits in the mailbox before the other is said, and is handled after it.
        ctx.me().send(Step(0));
        ctx.continue_with(Prepare(1));
        ctx.continue_with(Prepare(2));
        Ok(Self(vec!["start"]))
    }
}

impl Handler<Prepare> for Steps {
    async fn handle(&mut self, Prepare(n): Prepare, _: &mut Context<Self>) -> Outcome {
        self.0.push(if n == 1 { "first" } else { "second" });
        Ok(())
    }
}

impl Handler<Step> for Steps {
    async fn handle(&mut self, _: Step, _: &mut Context<Self>) -> Outcome<Vec<String>> {
        self.0.push("message");
        Ok(self.0.iter().map(ToString::to_string).collect())
    }
}

#[tokio::test]
async fn what_continues_a_start_comes_before_everything_in_the_mailbox() {
    let runtime = runtime();
    let steps = runtime.spawn::<Steps>(()).await.unwrap();
    let order = steps.call(Step(1)).await.unwrap();
    assert_eq!(order, ["start", "first", "second", "message", "message"]);
}

/// Counts idle times and ends with the third.
struct Sleeper(u32);

impl Actor for Sleeper {
    const KIND: &'static str = "sleeper";
    type Args = ();
    type Messages = (Step,);

    async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
        ctx.idle_timeout(Duration::from_secs(10));
        Ok(Self(0))
    }
}

impl Handler<IdleTimeout> for Sleeper {
    async fn handle(&mut self, _: IdleTimeout, ctx: &mut Context<Self>) -> Outcome {
        self.0 += 1;
        ctx.shrink();
        if self.0 == 3 {
            ctx.stop(ExitReason::Normal);
        }
        Ok(())
    }
}

impl Handler<Step> for Sleeper {
    async fn handle(&mut self, Step(seconds): Step, _: &mut Context<Self>) -> Outcome<Vec<String>> {
        tokio::time::sleep(Duration::from_secs(seconds.into())).await;
        Ok(vec![self.0.to_string()])
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_timeout_comes_when_nothing_else_has_for_so_long_and_again() {
    let runtime = runtime();
    let sleeper = runtime.spawn::<Sleeper>(()).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(sleeper.call(Step(0)).await.unwrap(), ["0"], "never idle for long");
    }
    let busy = sleeper.call_timeout(Step(30), Duration::from_mins(1)).await;
    assert_eq!(busy.unwrap(), ["0"], "handling is not idling");
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(sleeper.call(Step(0)).await.unwrap(), ["0"]);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(sleeper.call(Step(0)).await.unwrap(), ["1"]);
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert!(!sleeper.is_alive());
}

/// Computes on another thread.
struct Thinker;

impl Actor for Thinker {
    const KIND: &'static str = "thinker";
    type Args = ();
    type Messages = (Step,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<Step> for Thinker {
    async fn handle(&mut self, Step(n): Step, ctx: &mut Context<Self>) -> Outcome<Vec<String>> {
        let thread = std::thread::current().id();
        let there = ctx
            .blocking(move || {
                assert!(n != 13, "unlucky");
                std::thread::current().id()
            })
            .await;
        Ok(vec![(thread != there).to_string()])
    }
}

#[tokio::test]
async fn blocking_work_is_done_elsewhere_and_its_panic_is_the_process_s() {
    let runtime = runtime();
    let thinker = runtime.spawn::<Thinker>(()).await.unwrap();
    assert_eq!(thinker.call(Step(1)).await.unwrap(), ["true"]);
    let crashed = thinker.call(Step(13)).await;
    let Err(CallError::Exited(ExitReason::Panic(fault))) = crashed else { panic!("{crashed:?}") };
    assert!(fault.message.contains("unlucky"), "{}", fault.message);
}

#[tokio::test]
async fn a_flooded_process_lets_others_have_their_turn() {
    // One thread: whoever does not yield keeps it.
    let runtime = runtime();
    let flooded = runtime.spawn::<Steps>(()).await.unwrap();
    for _ in 0..50_000 {
        flooded.send(Step(0));
    }
    let polite = runtime.spawn::<Thinker>(()).await.unwrap();
    assert_eq!(polite.call(Step(1)).await.unwrap(), ["true"]);
    let waiting = runtime.process_detail(&(&flooded).into()).unwrap().mailbox;
    assert!(waiting > 10_000, "it was polite long before the flood was over: {waiting} wait");
}
