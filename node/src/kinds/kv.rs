//! Keeps values under keys.

use std::collections::BTreeMap;

use crate::prelude::*;

/// Put a value under a key, and tell the one before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

impl Message for Put {
    const NAME: &'static str = "kv.put";
    type Reply = Option<String>;
}

/// Tell the value under a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Get(pub String);

impl Message for Get {
    const NAME: &'static str = "kv.get";
    type Reply = Option<String>;
}

/// Forget a key, and tell its value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delete(pub String);

impl Message for Delete {
    const NAME: &'static str = "kv.delete";
    type Reply = Option<String>;
}

/// Tell all keys, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keys;

impl Message for Keys {
    const NAME: &'static str = "kv.keys";
    type Reply = Vec<String>;
}

/// Values under keys, in memory.
#[derive(Debug, Default)]
pub struct Kv {
    values: BTreeMap<String, String>,
}

impl Actor for Kv {
    const KIND: &'static str = "kv";
    type Args = ();
    type Messages = (Put, Get, Delete, Keys);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self::default())
    }
}

impl KeyedActor for Kv {
    fn args(_: &Key) {}
}

impl Stateful for Kv {
    type State = BTreeMap<String, String>;

    fn snapshot(&self) -> Self::State {
        self.values.clone()
    }

    async fn restore(values: Self::State, (): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { values })
    }
}

impl Handler<Put> for Kv {
    async fn handle(&mut self, put: Put, _: &mut Context<Self>) -> Outcome<Option<String>> {
        Ok(self.values.insert(put.key, put.value))
    }
}

impl Handler<Get> for Kv {
    async fn handle(&mut self, Get(key): Get, _: &mut Context<Self>) -> Outcome<Option<String>> {
        Ok(self.values.get(&key).cloned())
    }
}

impl Handler<Delete> for Kv {
    async fn handle(
        &mut self,
        Delete(key): Delete,
        _: &mut Context<Self>,
    ) -> Outcome<Option<String>> {
        Ok(self.values.remove(&key))
    }
}

impl Handler<Keys> for Kv {
    async fn handle(&mut self, _: Keys, _: &mut Context<Self>) -> Outcome<Vec<String>> {
        Ok(self.values.keys().cloned().collect())
    }
}
