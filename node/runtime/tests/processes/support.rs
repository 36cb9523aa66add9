//! Actors and watchers that several tests use.

use std::time::Duration;

use purlin_runtime::{
    Actor, Context, Down, ExitReason, Handler, LinkDown, Message, Outcome, Pid, RawContext,
    RawKind, Received, Runtime,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub(crate) static PROBE: RawKind = RawKind::new("probe");

/// Does what it is told.
#[derive(Debug)]
pub(crate) struct Puppet {
    pub(crate) kept: Vec<purlin_runtime::Deferred<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fail;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Panic;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stop;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Say(pub(crate) String);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Keep;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forget;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sleep(pub(crate) u64);

macro_rules! message {
    ($type:ty, $name:literal, $reply:ty) => {
        impl Message for $type {
            const NAME: &'static str = $name;
            type Reply = $reply;
        }
    };
}

message!(Fail, "puppet.fail", ());
message!(Panic, "puppet.panic", ());
message!(Stop, "puppet.stop", ());
message!(Say, "puppet.say", String);
message!(Keep, "puppet.keep", String);
message!(Forget, "puppet.forget", ());
message!(Sleep, "puppet.sleep", ());

impl Actor for Puppet {
    const KIND: &'static str = "puppet";
    type Args = bool;
    type Messages = (Fail, Panic, Stop, Say, Keep, Forget, Sleep);

    async fn start(well: bool, _: &mut Context<Self>) -> Outcome<Self> {
        if well { Ok(Self { kept: Vec::new() }) } else { Err("will not start".into()) }
    }
}

impl Handler<Fail> for Puppet {
    async fn handle(&mut self, _: Fail, _: &mut Context<Self>) -> Outcome {
        Err(std::io::Error::other("disk on fire"))?;
        Ok(())
    }
}

impl Handler<Panic> for Puppet {
    async fn handle(&mut self, _: Panic, _: &mut Context<Self>) -> Outcome {
        panic!("out of cheese");
    }
}

impl Handler<Stop> for Puppet {
    async fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) -> Outcome {
        ctx.stop(ExitReason::Normal);
        Ok(())
    }
}

impl Handler<Say> for Puppet {
    async fn handle(&mut self, Say(text): Say, _: &mut Context<Self>) -> Outcome<String> {
        Ok(text)
    }
}

impl Handler<Keep> for Puppet {
    async fn handle(&mut self, _: Keep, ctx: &mut Context<Self>) -> Outcome<String> {
        self.kept.push(ctx.defer::<Keep>());
        ctx.noreply()
    }
}

impl Handler<Forget> for Puppet {
    async fn handle(&mut self, _: Forget, _: &mut Context<Self>) -> Outcome {
        self.kept.clear();
        Ok(())
    }
}

impl Handler<Sleep> for Puppet {
    async fn handle(&mut self, Sleep(millis): Sleep, _: &mut Context<Self>) -> Outcome {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(())
    }
}

pub(crate) fn runtime() -> Runtime {
    Runtime::local("a".into())
}

/// What a probe has received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    Message(String),
    Down(Down),
    LinkDown(LinkDown),
    Exit(ExitReason),
    Node,
}

/// A raw process that tells a test all it receives, whose relations `begin` makes before this returns.
pub(crate) struct Probe {
    pub(crate) pid: Pid,
    got: mpsc::UnboundedReceiver<Got>,
}

impl Probe {
    pub(crate) fn start(
        runtime: &Runtime,
        begin: impl FnOnce(&mut RawContext) + Send + 'static,
    ) -> Self {
        let (tell, got) = mpsc::unbounded_channel();
        let pid = runtime
            .spawn_raw(&PROBE, |mut ctx| {
                begin(&mut ctx);
                async move {
                    loop {
                        let got = match ctx.receive().await? {
                            Received::Message(message) => Got::Message(message.name().to_owned()),
                            Received::Down(down) => Got::Down(down),
                            Received::LinkDown(link_down) => Got::LinkDown(link_down),
                            Received::Exit { reason, .. } => Got::Exit(reason),
                            _ => Got::Node,
                        };
                        let _ = tell.send(got);
                    }
                }
            })
            .unwrap();
        Self { pid, got }
    }

    /// The next thing it received, within 5 s.
    pub(crate) async fn next(&mut self) -> Got {
        tokio::time::timeout(Duration::from_secs(5), self.got.recv())
            .await
            .expect("something within 5 s")
            .expect("the probe lives")
    }

    /// Whether it received nothing for a while.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(200), self.got.recv()).await.is_err()
    }
}

/// Watches a process from now on; the reason that it ends with, within 5 s.
pub(crate) fn end_of(runtime: &Runtime, pid: Pid) -> impl Future<Output = ExitReason> + use<> {
    let mut watcher = Probe::start(runtime, move |ctx| {
        ctx.monitor(pid);
    });
    async move {
        match watcher.next().await {
            Got::Down(down) => down.reason,
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until a condition holds, 5 s at most.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited for {what}");
}
