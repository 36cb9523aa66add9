//! What workers do with what all nodes know: groups, topics, global names, keys.

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::prelude::*;
use purlin::{GlobalError, Interrupt, Name, NameConflict};
use rand::RngExt;
use rand::seq::IndexedRandom;

use super::only;
use super::record::{self, Event, Who};
use super::worker::{CALL_TIMEOUT, Ping, Worker};

pub const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
pub const NAMES: [&str; 3] = ["name0", "name1", "name2"];
pub const TOPICS: [&str; 2] = ["t0", "t1"];
pub const KEYS: [&str; 6] = ["k0", "k1", "k2", "k3", "k4", "k5"];

/// A keyed process that nobody uses ends after this.
pub const IDLE: Duration = Duration::from_secs(3);

/// Published by a process as its so-manieth.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct News {
    from: Who,
    topic: String,
    number: u64,
}

impl Message for News {
    const NAME: &'static str = "simulation.news";
    type Reply = ();
}

/// Which process answers for a key; one in so many ends in a crash.
#[derive(Debug, Serialize, Deserialize)]
pub struct WhoIs {
    pub crash: bool,
}

impl Message for WhoIs {
    const NAME: &'static str = "simulation.who-is";
    type Reply = Who;
}

/// What a worker has of all that.
#[derive(Default)]
pub struct Shared {
    groups: Vec<&'static str>,
    published: BTreeMap<&'static str, u64>,
}

impl Worker {
    /// Does one thing with groups, topics, names or keys.
    pub(super) async fn share(&mut self, ctx: &mut Context<Self>) {
        match self.chance.random_range(0..100) {
            0..20 => self.join(ctx),
            20..30 => self.leave(ctx),
            30..38 => self.pick(ctx).await,
            38..48 => self.subscribe(ctx),
            48..65 => self.publish(ctx),
            65..77 => self.register(ctx),
            77..84 => self.unregister(ctx),
            _ => self.use_key(ctx).await,
        }
    }

    fn any(&mut self, of: &[&'static str]) -> &'static str {
        of.choose(&mut self.chance).expect("there are some")
    }

    fn join(&mut self, ctx: &Context<Self>) {
        let group = self.any(&GROUPS);
        if ctx.join(group).is_ok() {
            self.shared.groups.push(group);
            record::tell(&Event::Joined { who: self.who, group });
        }
    }

    fn leave(&mut self, ctx: &Context<Self>) {
        let Some(group) = self.shared.groups.pop() else { return };
        if !ctx.leave(group) {
            let what = format!("{} was not in {group}, which it has joined", self.who);
            record::violation("groups", what);
        }
        record::tell(&Event::Left { who: self.who, group });
    }

    /// Calls one of a group, or whoever has a name. Any answer is one.
    async fn pick(&mut self, ctx: &Context<Self>) {
        let to = match self.chance.random_bool(0.5) {
            true => Dest::group(self.any(&GROUPS)),
            false => Dest::global(self.any(&NAMES)),
        };
        drop(ctx.runtime().call_timeout(to, Ping, CALL_TIMEOUT).await);
    }

    fn subscribe(&mut self, ctx: &Context<Self>) {
        let topic = self.any(&TOPICS);
        if !ctx.unsubscribe(topic) {
            // Only a node with too many entries refuses.
            let _ = ctx.subscribe(topic);
        }
    }

    fn publish(&mut self, ctx: &Context<Self>) {
        let topic = self.any(&TOPICS);
        let (from, last) = (self.who, self.shared.published.entry(topic).or_default());
        for _ in 0..3 {
            *last += 1;
            ctx.publish(topic, News { from, topic: topic.to_owned(), number: *last });
        }
    }

    fn register(&mut self, ctx: &mut Context<Self>) {
        let (who, name) = (self.who, self.any(&NAMES));
        match ctx.register_global_available(name) {
            Ok(()) => record::tell(&Event::Named { who, name }),
            Err(GlobalError::Taken { .. }) => {}
            Err(error) => {
                record::violation("global names", format!("{who} does not get {name}: {error}"));
            }
        }
    }

    /// Gives a name up, if it is this process's own.
    fn unregister(&mut self, ctx: &Context<Self>) {
        let name = self.any(&NAMES);
        let key = Name::new(name).expect("a name");
        if ctx.runtime().whereis_global(&key) == Some(ctx.pid())
            && ctx.runtime().unregister_global(key)
        {
            record::tell(&Event::Unnamed { who: self.who, name });
        }
    }

    async fn use_key(&mut self, ctx: &Context<Self>) {
        let only = only::all(record::part());
        let key = match only.choose(&mut self.chance) {
            Some(only) if self.chance.random_bool(0.6) => only.clone(),
            _ => Dest::key(Keeper::KIND, self.any(&KEYS)),
        };
        let crash = self.chance.random_bool(0.1);
        drop(ctx.runtime().call_timeout(key, WhoIs { crash }, CALL_TIMEOUT).await);
    }
}

impl Handler<News> for Worker {
    async fn handle(&mut self, news: News, _: &mut Context<Self>) -> Outcome {
        let News { from, topic, number } = news;
        record::tell(&Event::Heard { by: self.who, from, topic, number });
        Ok(())
    }
}

impl Handler<NameConflict> for Worker {
    async fn handle(&mut self, lost: NameConflict, _: &mut Context<Self>) -> Outcome {
        let name = NAMES.into_iter().find(|name| *name == lost.name.as_str());
        match name {
            Some(name) => record::tell(&Event::NameLost { who: self.who, name }),
            None => {
                record::violation("global names", format!("{} has lost {}", self.who, lost.name));
            }
        }
        Ok(())
    }
}

/// What there is one of for each key.
pub struct Keeper {
    who: Who,
}

impl Actor for Keeper {
    const KIND: &'static str = "simulation.keeper";
    type Args = Key;
    type Messages = (WhoIs,);

    async fn start(key: Key, ctx: &mut Context<Self>) -> Outcome<Self> {
        let who = ctx.pid();
        record::tell(&Event::Activated { who, key });
        Ok(Self { who })
    }
}

impl KeyedActor for Keeper {
    fn args(key: &Key) -> Key {
        key.clone()
    }
}

impl Handler<WhoIs> for Keeper {
    async fn handle(&mut self, WhoIs { crash }: WhoIs, _: &mut Context<Self>) -> Outcome<Who> {
        match crash {
            true => Err(Interrupt::exit(ExitReason::Other("done for".into()))),
            false => Ok(self.who),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        record::tell(&Event::Deactivated { who: self.who });
    }
}
