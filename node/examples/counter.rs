//! One node, one actor.

use purlin::prelude::*;

#[derive(Debug, Serialize, Deserialize)]
struct Add(i64);
impl Message for Add {
    const NAME: &'static str = "counter.add";
    type Reply = i64;
}

#[derive(Debug, Serialize, Deserialize)]
struct Read;
impl Message for Read {
    const NAME: &'static str = "counter.read";
    type Reply = i64;
}

struct Counter {
    total: i64,
}

impl Actor for Counter {
    const KIND: &'static str = "counter"; // what other nodes and the command line call it
    type Args = i64; // serde, so that it can be started remotely and restarted
    type Messages = (Add, Read); // everything it accepts from anywhere

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

impl Handler<Read> for Counter {
    async fn handle(&mut self, _: Read, _: &mut Context<Self>) -> Outcome<i64> {
        Ok(self.total)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::builder().name("counter-example").actor::<Counter>().start().await?;
    let counter = node.spawn::<Counter>(10).await?; // Ref<Counter>, typed; counter.pid() is a Pid
    counter.send(Add(1)); // cast: cannot fail
    assert_eq!(counter.call(Read).await?, 11); // call: typed reply, default timeout 5 s
    println!("{counter:?} counted to 11");
    node.stop().await;
    Ok(())
}
