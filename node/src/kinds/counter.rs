//! Counts.

use crate::prelude::*;

/// Add this, and tell the total. What would overflow ends the counter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Add(pub i64);

impl Message for Add {
    const NAME: &'static str = "counter.add";
    type Reply = i64;
}

/// Tell the total.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Read;

impl Message for Read {
    const NAME: &'static str = "counter.read";
    type Reply = i64;
}

/// A total that can be added to; starts at its argument, or at 0.
#[derive(Debug)]
pub struct Counter {
    total: i64,
}

impl Actor for Counter {
    const KIND: &'static str = "counter";
    type Args = Option<i64>;
    type Messages = (Add, Read);

    async fn start(total: Option<i64>, _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { total: total.unwrap_or(0) })
    }
}

impl KeyedActor for Counter {
    fn args(_: &Key) -> Option<i64> {
        None
    }
}

impl Stateful for Counter {
    type State = i64;

    fn snapshot(&self) -> i64 {
        self.total
    }

    async fn restore(total: i64, _: Option<i64>, _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { total })
    }
}

impl Handler<Add> for Counter {
    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Outcome<i64> {
        self.total = self.total.checked_add(n).ok_or("the total overflows")?;
        Ok(self.total)
    }
}

impl Handler<Read> for Counter {
    async fn handle(&mut self, _: Read, _: &mut Context<Self>) -> Outcome<i64> {
        Ok(self.total)
    }
}
