//! Keyed processes: two nodes, a cart for each customer, and nobody starts or finds one. What is in a
//! cart outlives its process, and moves with its key.

use std::time::Duration;

use purlin::prelude::*;

#[derive(Debug, Serialize, Deserialize)]
struct AddItem(String);

impl Message for AddItem {
    const NAME: &'static str = "cart.add";
    type Reply = Vec<String>;
}

struct Cart {
    items: Vec<String>,
}

impl Actor for Cart {
    const KIND: &'static str = "cart";
    type Args = Key;
    type Messages = (AddItem,);

    async fn start(customer: Key, ctx: &mut Context<Self>) -> Outcome<Self> {
        println!("{customer}'s cart is {}", ctx.pid());
        Ok(Self { items: Vec::new() })
    }

    async fn stop(&mut self, _: &ExitReason, ctx: &mut Context<Self>) {
        println!("{} ends with {:?}", ctx.pid(), self.items);
    }
}

/// Of each cart there is one, which is started with its key.
impl KeyedActor for Cart {
    fn args(key: &Key) -> Key {
        key.clone()
    }
}

impl Stateful for Cart {
    type State = Vec<String>;

    fn snapshot(&self) -> Vec<String> {
        self.items.clone()
    }

    async fn restore(items: Vec<String>, _: Key, ctx: &mut Context<Self>) -> Outcome<Self> {
        println!("{} goes on with {items:?}", ctx.pid());
        Ok(Self { items })
    }
}

impl Handler<AddItem> for Cart {
    async fn handle(
        &mut self,
        AddItem(item): AddItem,
        _: &mut Context<Self>,
    ) -> Outcome<Vec<String>> {
        self.items.push(item);
        Ok(self.items.clone())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let keyed = Keyed::available().passivate_after(Duration::from_millis(200));
    let node = |name: &'static str| {
        Node::builder().name(name).listen("127.0.0.1:0").stateful::<Cart>(keyed)
    };
    let a = node("keyed-example-a").start().await?;
    let b = node("keyed-example-b").seed(a.address().to_string()).start().await?;
    while a.members().len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    for customer in ["anna", "ben", "carla"] {
        a.keyed::<Cart>(customer).send(AddItem("tea".into()));
        println!("{:?}", a.keyed::<Cart>(customer).call(AddItem("milk".into())).await?);
    }
    println!("{:?}", b.call(Dest::key("cart", "anna"), AddItem("jam".into())).await?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("{:?}", b.call(Dest::key("cart", "anna"), AddItem("bread".into())).await?);

    // What it has goes to the other node.
    b.drain().await;
    b.stop().await;
    println!("{:?}", a.call(Dest::key("cart", "anna"), AddItem("salt".into())).await?);
    a.stop().await;
    Ok(())
}
