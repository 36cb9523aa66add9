//! Says back what it is told.

use crate::prelude::*;

/// Say this text back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Say(pub String);

impl Message for Say {
    const NAME: &'static str = "echo.say";
    type Reply = String;
}

/// Says back what it is told.
#[derive(Debug)]
pub struct Echo;

impl Actor for Echo {
    const KIND: &'static str = "echo";
    type Args = ();
    type Messages = (Say,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl KeyedActor for Echo {
    fn args(_: &Key) {}
}

impl Handler<Say> for Echo {
    async fn handle(&mut self, Say(text): Say, _: &mut Context<Self>) -> Outcome<String> {
        Ok(text)
    }
}
