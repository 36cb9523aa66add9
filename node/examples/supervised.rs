//! A tree of supervisors: a child that crashes is started again.

use std::time::Duration;

use purlin::kinds::{Add, Counter, Echo, Read};
use purlin::prelude::*;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::builder().name("supervised-example").start().await?;
    let root = node
        .supervise(
            Supervisor::new(Strategy::RestForOne)
                .intensity(3, Duration::from_secs(5))
                .child(
                    ChildSpec::actor::<Counter>("hits", Some(0))
                        .name("hits")
                        .restart(Restart::Permanent),
                )
                .child(ChildSpec::supervisor(
                    "workers",
                    Supervisor::new(Strategy::OneForOne)
                        .backoff(Backoff::exponential(
                            Duration::from_millis(100),
                            Duration::from_secs(30),
                        ))
                        .child(
                            ChildSpec::actor::<Echo>("w1", ())
                                .shutdown(Shutdown::Timeout(Duration::from_secs(5))),
                        ),
                )),
        )
        .await?;
    println!("supervisor {root} runs");

    node.call("hits", Add(i64::MAX)).await?;
    let crash = node.call("hits", Add(1)).await.expect_err("the total overflows");
    println!("the counter ended: {crash}");

    tokio::time::sleep(Duration::from_millis(100)).await;
    println!("and counts again from {}", node.call("hits", Read).await?);
    node.stop().await;
    Ok(())
}
