//! Actors that several scenarios use.

use std::time::Duration;

use purlin::prelude::*;
use purlin::{Deferred, SpawnError, Timer};
use tokio::time::Instant;

macro_rules! messages {
    ($($(#[$doc:meta])* $type:ident ( $($field:ty),* ) $name:literal -> $reply:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Serialize, Deserialize)]
            pub(crate) struct $type($(pub(crate) $field),*);

            impl Message for $type {
                const NAME: &'static str = $name;
                type Reply = $reply;
            }
        )*
    };
}

messages! {
    Say(String) "otp.say" -> String;
    /// Replies after so many milliseconds.
    Slow(u64) "otp.slow" -> u64;
    /// Has the reply be sent by [`Release`].
    Keep(u64) "otp.keep" -> u64;
    Release() "otp.release" -> usize;
    /// Has the reply be sent by another process.
    Delegate(u64) "otp.delegate" -> u64;
    /// Says that it will reply later, and has not asked for it.
    Rubbish() "otp.rubbish" -> u64;
    Fail(String) "otp.fail" -> ();
    Panic(String) "otp.panic" -> ();
    /// Replies and ends.
    Leave(ExitReason) "otp.leave" -> String;
    /// Sends a [`Tick`] after so many milliseconds.
    Arm(u64) "otp.arm" -> ();
    /// What was left of the last timer, in milliseconds.
    Disarm() "otp.disarm" -> Option<u64>;
    Tick() "otp.tick" -> ();
    /// When the ticks came, in milliseconds after the timer was armed.
    Ticks() "otp.ticks" -> Vec<u64>;
}

/// Does what it is told.
pub(crate) struct Worker {
    /// Told how it stops, if somebody wants to know.
    tell_stop: Option<Pid>,
    kept: Vec<(u64, Deferred<u64>)>,
}

/// How a worker starts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Takes so many milliseconds.
    pub(crate) slow: u64,
    /// Fails with these words.
    pub(crate) fail: Option<String>,
    /// Gets a [`Number`](crate::hand::Number) 1 when the worker has started, 2 when it stops.
    pub(crate) tell: Option<Pid>,
}

impl Actor for Worker {
    const KIND: &'static str = "otp-worker";
    type Args = Start;
    type Messages = (Say, Slow, Keep, Release, Delegate, Rubbish, Fail, Panic, Leave);

    async fn start(start: Start, ctx: &mut Context<Self>) -> Outcome<Self> {
        if start.slow > 0 {
            tokio::time::sleep(Duration::from_millis(start.slow)).await;
        }
        if let Some(words) = start.fail {
            return Err(words.into());
        }
        if let Some(pid) = start.tell {
            ctx.send(pid, crate::hand::Number(1));
        }
        Ok(Self { tell_stop: start.tell, kept: Vec::new() })
    }

    async fn stop(&mut self, _: &ExitReason, ctx: &mut Context<Self>) {
        if let Some(pid) = self.tell_stop {
            ctx.send(pid, crate::hand::Number(2));
        }
    }
}

impl Handler<Say> for Worker {
    async fn handle(&mut self, Say(text): Say, _: &mut Context<Self>) -> Outcome<String> {
        Ok(text)
    }
}

impl Handler<Slow> for Worker {
    async fn handle(&mut self, Slow(millis): Slow, _: &mut Context<Self>) -> Outcome<u64> {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(millis)
    }
}

impl Handler<Keep> for Worker {
    async fn handle(&mut self, Keep(number): Keep, ctx: &mut Context<Self>) -> Outcome<u64> {
        self.kept.push((number, ctx.defer::<Keep>()));
        ctx.noreply()
    }
}

impl Handler<Release> for Worker {
    async fn handle(&mut self, _: Release, _: &mut Context<Self>) -> Outcome<usize> {
        let kept = std::mem::take(&mut self.kept);
        let count = kept.len();
        // The last one first.
        kept.into_iter().rev().for_each(|(number, reply)| reply.send(number));
        Ok(count)
    }
}

impl Handler<Delegate> for Worker {
    async fn handle(&mut self, Delegate(n): Delegate, ctx: &mut Context<Self>) -> Outcome<u64> {
        let reply = ctx.defer::<Delegate>();
        ctx.runtime().task(async move { reply.send(n) });
        ctx.noreply()
    }
}

impl Handler<Rubbish> for Worker {
    async fn handle(&mut self, _: Rubbish, ctx: &mut Context<Self>) -> Outcome<u64> {
        ctx.noreply()
    }
}

impl Handler<Fail> for Worker {
    async fn handle(&mut self, Fail(words): Fail, _: &mut Context<Self>) -> Outcome {
        Err(words.into())
    }
}

impl Handler<Panic> for Worker {
    async fn handle(&mut self, Panic(words): Panic, _: &mut Context<Self>) -> Outcome {
        panic!("{words}");
    }
}

impl Handler<Leave> for Worker {
    async fn handle(&mut self, Leave(why): Leave, ctx: &mut Context<Self>) -> Outcome<String> {
        ctx.stop(why);
        Ok("bye".to_owned())
    }
}

/// Sends itself ticks and notes when they come.
pub(crate) struct Clock {
    timer: Option<Timer>,
    armed: Instant,
    ticks: Vec<u64>,
}

impl Actor for Clock {
    const KIND: &'static str = "otp-clock";
    type Args = ();
    type Messages = (Arm, Disarm, Tick, Ticks, Slow);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { timer: None, armed: Instant::now(), ticks: Vec::new() })
    }
}

impl Handler<Arm> for Clock {
    async fn handle(&mut self, Arm(millis): Arm, ctx: &mut Context<Self>) -> Outcome {
        self.armed = Instant::now();
        self.timer = Some(ctx.send_after(Duration::from_millis(millis), Tick()));
        Ok(())
    }
}

impl Handler<Disarm> for Clock {
    async fn handle(&mut self, _: Disarm, _: &mut Context<Self>) -> Outcome<Option<u64>> {
        let left = self.timer.take().and_then(Timer::cancel);
        Ok(left.map(|left| u64::try_from(left.as_millis()).unwrap()))
    }
}

impl Handler<Tick> for Clock {
    async fn handle(&mut self, _: Tick, _: &mut Context<Self>) -> Outcome {
        let after = self.armed.elapsed().as_millis();
        self.ticks.push(u64::try_from(after).unwrap());
        Ok(())
    }
}

impl Handler<Ticks> for Clock {
    async fn handle(&mut self, _: Ticks, _: &mut Context<Self>) -> Outcome<Vec<u64>> {
        Ok(self.ticks.clone())
    }
}

/// Waits, and cancels the timer in the same handler: a tick that has come is unread then.
impl Handler<Slow> for Clock {
    async fn handle(&mut self, Slow(millis): Slow, _: &mut Context<Self>) -> Outcome<u64> {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let left = self.timer.take().and_then(Timer::cancel);
        Ok(left.map_or(0, |_| 1))
    }
}

/// Starts well and ends at once with `crash`.
pub(crate) struct Doomed;

impl Actor for Doomed {
    const KIND: &'static str = "otp-doomed";
    type Args = ();
    type Messages = ();

    async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
        ctx.stop(ExitReason::other("crash"));
        Ok(Self)
    }
}

messages! {
    /// Starts a [`Doomed`] linked to it on a node; replies with its pid.
    RaiseDoomed(NodeName) "otp.raise-doomed" -> Result<Pid, SpawnError>;
    /// Starts a [`Worker`] linked to it on a node, and waits so many milliseconds for it.
    Raise(NodeName, Start, u64) "otp.raise" -> Option<Result<Pid, SpawnError>>;
    /// Starts a [`Worker`] that it monitors.
    Watch(Start) "otp.watch" -> Result<Pid, SpawnError>;
    /// The notices that came.
    Notices() "otp.notices" -> Vec<(Option<Pid>, ExitReason)>;
}

/// Waits for a future of a [`Context`] method that takes `&self`.
///
/// Such a future is not `Send`, because a context is not `Sync`, so that no handler can await it. A
/// test that needs it runs on more than one thread, in real time.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| handle.block_on(future))
}

/// Starts others, and traps exits if it is told so.
#[derive(Default)]
pub(crate) struct Parent {
    notices: Vec<(Option<Pid>, ExitReason)>,
}

impl Actor for Parent {
    const KIND: &'static str = "otp-parent";
    type Args = bool;
    type Messages = (RaiseDoomed, Raise, Watch, Notices);

    async fn start(traps_exits: bool, ctx: &mut Context<Self>) -> Outcome<Self> {
        if traps_exits {
            ctx.trap_exits();
        }
        Ok(Self::default())
    }
}

impl Handler<RaiseDoomed> for Parent {
    async fn handle(
        &mut self,
        RaiseDoomed(node): RaiseDoomed,
        ctx: &mut Context<Self>,
    ) -> Outcome<Result<Pid, SpawnError>> {
        Ok(wait_for(ctx.spawn_link_on::<Doomed>(&node, ())).map(|child| child.pid()))
    }
}

impl Handler<Raise> for Parent {
    async fn handle(
        &mut self,
        Raise(node, start, limit): Raise,
        ctx: &mut Context<Self>,
    ) -> Outcome<Option<Result<Pid, SpawnError>>> {
        let limit = Duration::from_millis(limit);
        let child =
            async { tokio::time::timeout(limit, ctx.spawn_link_on::<Worker>(&node, start)).await };
        let child = wait_for(child);
        Ok(child.ok().map(|child| child.map(|child| child.pid())))
    }
}

impl Handler<Watch> for Parent {
    async fn handle(
        &mut self,
        Watch(start): Watch,
        ctx: &mut Context<Self>,
    ) -> Outcome<Result<Pid, SpawnError>> {
        Ok(ctx.spawn_monitor::<Worker>(start).await.map(|(child, _)| child.pid()))
    }
}

impl Handler<Notices> for Parent {
    async fn handle(
        &mut self,
        _: Notices,
        _: &mut Context<Self>,
    ) -> Outcome<Vec<(Option<Pid>, ExitReason)>> {
        Ok(self.notices.clone())
    }
}

impl Handler<LinkDown> for Parent {
    async fn handle(&mut self, down: LinkDown, _: &mut Context<Self>) -> Outcome {
        self.notices.push((Some(down.pid), down.reason));
        Ok(())
    }
}

impl Handler<Down> for Parent {
    async fn handle(&mut self, down: Down, _: &mut Context<Self>) -> Outcome {
        self.notices.push((down.target.pid(), down.reason));
        Ok(())
    }
}
