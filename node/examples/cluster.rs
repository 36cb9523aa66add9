//! Two nodes: a process started on the other, watched from here.

use std::time::Duration;

use purlin::kinds::{Add, Counter};
use purlin::prelude::*;

/// Monitors a process and prints its end.
struct Watcher;

impl Actor for Watcher {
    const KIND: &'static str = "watcher";
    type Args = Pid;
    type Messages = ();

    async fn start(target: Pid, ctx: &mut Context<Self>) -> Outcome<Self> {
        ctx.monitor(target); // only because Watcher: Handler<Down>
        Ok(Self)
    }
}

impl Handler<Down> for Watcher {
    async fn handle(&mut self, down: Down, ctx: &mut Context<Self>) -> Outcome {
        println!("{} is gone: {}", down.target, down.reason);
        ctx.stop(ExitReason::Normal);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node =
        |name: &'static str| Node::builder().name(name).listen("127.0.0.1:0").actor::<Counter>();
    let a = node("cluster-example-a").start().await?;
    let b = node("cluster-example-b").seed(a.address().to_string()).start().await?;
    while a.members().len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let remote = a.spawn_on::<Counter>(&b.id().name, Some(10)).await?; // started on node b
    println!("{} counts to {}", remote.pid(), remote.call(Add(5)).await?);
    let _watcher = a.spawn::<Watcher>(remote.pid()).await?;
    b.stop().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    a.stop().await;
    Ok(())
}
