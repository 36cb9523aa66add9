//! A group, a topic and a global name: two nodes, and nobody names a node.

use std::time::Duration;

use purlin::prelude::*;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order(String);

impl Message for Order {
    const NAME: &'static str = "kitchen.order";
    type Reply = String;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Closing;

impl Message for Closing {
    const NAME: &'static str = "restaurant.closing";
    type Reply = ();
}

/// Cooks what is ordered. All cooks of all nodes are one group; one of them is the chef.
struct Cook;

impl Actor for Cook {
    const KIND: &'static str = "cook";
    type Args = ();
    type Messages = (Order, Closing);

    async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
        ctx.join("cooks")?;
        ctx.subscribe("announcements")?;
        if ctx.register_global_available("chef").is_ok() {
            println!("{} is the chef", ctx.pid());
        }
        Ok(Self)
    }
}

impl Handler<Order> for Cook {
    async fn handle(&mut self, Order(dish): Order, ctx: &mut Context<Self>) -> Outcome<String> {
        Ok(format!("{dish} by {}", ctx.pid().node.name))
    }
}

impl Handler<Closing> for Cook {
    async fn handle(&mut self, _: Closing, ctx: &mut Context<Self>) -> Outcome {
        println!("{} goes home", ctx.pid());
        ctx.stop(ExitReason::Normal);
        Ok(())
    }
}

/// Two nodes that did not see each other had a chef each: only one is kept.
impl Handler<NameConflict> for Cook {
    async fn handle(&mut self, conflict: NameConflict, _: &mut Context<Self>) -> Outcome {
        println!("{} is the chef now", conflict.winner);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node =
        |name: &'static str| Node::builder().name(name).listen("127.0.0.1:0").actor::<Cook>();
    let a = node("groups-example-a").start().await?;
    let b = node("groups-example-b").seed(a.address().to_string()).start().await?;
    a.spawn::<Cook>(()).await?;
    b.spawn::<Cook>(()).await?;
    while a.members_of("cooks").len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    for dish in ["soup", "pasta"] {
        let next = Dest::one_of("cooks", Pick::RoundRobin);
        println!("{}", a.call(next, Order(dish.into())).await?);
    }
    println!("{}", b.call(Dest::global("chef"), Order("cake".into())).await?);
    a.publish("announcements", Closing);
    while !a.members_of("cooks").is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    b.stop().await;
    a.stop().await;
    Ok(())
}
