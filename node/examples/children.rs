//! A cluster supervisor: children run somewhere in the cluster, and again elsewhere when their node is
//! gone.
//!
//! Run it twice, in two terminals, then stop one of them:
//!
//! ```sh
//! cargo run --example children -- a
//! cargo run --example children -- b
//! purlin tree --cluster
//! purlin why child:jobs/nightly
//! ```

use std::time::Duration;

use purlin::prelude::*;

/// How often have you ticked?
#[derive(Debug, Serialize, Deserialize)]
pub struct Ticks;
impl Message for Ticks {
    const NAME: &'static str = "ticker.ticks";
    type Reply = u64;
}

/// Sent to itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tick;
impl Message for Tick {
    const NAME: &'static str = "ticker.tick";
    type Reply = ();
}

/// Something that has to run, wherever.
pub struct Ticker {
    every: Duration,
    ticks: u64,
}

impl Actor for Ticker {
    const KIND: &'static str = "ticker";
    type Args = Duration;
    type Messages = (Ticks, Tick);

    async fn start(every: Duration, ctx: &mut Context<Self>) -> Outcome<Self> {
        println!("a ticker runs here, as {}", ctx.pid());
        ctx.send_after(every, Tick);
        Ok(Self { every, ticks: 0 })
    }
}

impl Handler<Ticks> for Ticker {
    async fn handle(&mut self, _: Ticks, _: &mut Context<Self>) -> Outcome<u64> {
        Ok(self.ticks)
    }
}

impl Handler<Tick> for Ticker {
    async fn handle(&mut self, _: Tick, ctx: &mut Context<Self>) -> Outcome {
        self.ticks += 1;
        ctx.send_after(self.every, Tick);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "a".to_owned());
    let seed = "127.0.0.1:7400";
    let node = Node::builder().name(NodeName::new(&name)?).seed(seed).actor::<Ticker>().start();
    let node = node.await?;

    // Every node says what is to run. Ids make it the same children, whoever says it first.
    let jobs = node.cluster_supervisor(ClusterSupervisor::new("jobs").available());
    for id in ["nightly", "hourly", "mail"] {
        jobs.start_child(ClusterChild::actor::<Ticker>(id, Duration::from_secs(1))).await?;
    }

    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
        for child in jobs.children().await? {
            let at = child.node.map(|node| node.to_string()).unwrap_or_default();
            println!("{} {} on {at}: {}", child.child, child.state.as_str(), child.why);
        }
        // Reached by its id, wherever it runs; if it is being moved, this waits.
        println!("nightly has ticked {:?}", jobs.child::<Ticker>("nightly").call(Ticks).await);
    }
    node.stop().await;
    Ok(())
}
