//! A cluster of three in one test, cut in two and healed: no socket, no waiting, the same every time.
//!
//! `cargo run -p purlin --features testing --example simulated [SEED]`

use std::time::{Duration, Instant};

use purlin::NodeBuilder;
use purlin::prelude::*;
use purlin::testing::{Cluster, Road};

#[derive(Debug, Serialize, Deserialize)]
struct Add(i64);
impl Message for Add {
    const NAME: &'static str = "counter.add";
    type Reply = i64;
}

struct Counter {
    total: i64,
}

impl Actor for Counter {
    const KIND: &'static str = "counter";
    type Args = i64;
    type Messages = (Add,);

    async fn start(total: i64, _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { total })
    }
}

impl Handler<Add> for Counter {
    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Outcome<i64> {
        self.total += n;
        Ok(self.total)
    }
}

fn main() {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let begun = Instant::now();
    let bad = Road { loss: 0.05, jitter: Duration::from_millis(5), ..Road::default() };
    let cluster =
        Cluster::builder(seed).nodes(3).roads(bad).with(NodeBuilder::actor::<Counter>).start();
    cluster.run(async |cluster| {
        let counter = cluster.node("n0").spawn_on::<Counter>("n1", 10).await.expect("a counter");
        let n2 = cluster.node("n2");
        println!("n2 adds 1: {:?}", n2.call(&counter, Add(1)).await);

        cluster.split(&["n2".into()]);
        cluster.advance(Duration::from_secs(20)).await;
        println!("cut off, n2 sees {:?}", n2.members());
        println!("n2 adds 1: {:?}", n2.call(&counter, Add(1)).await);

        cluster.heal();
        cluster.until_whole(Duration::from_mins(1)).await;
        println!("healed, n2 adds 1: {:?}", n2.call(&counter, Add(1)).await);
    });
    for line in cluster.log().lines() {
        println!("{line}");
    }
    println!("{:?} in {:?}: {:?}", cluster.now(), begun.elapsed(), cluster.digest());
}
