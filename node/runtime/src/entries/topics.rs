//! Topics: whoever subscribes gets what is published (Phoenix: `PubSub`).
//!
//! A publisher sends one copy to each node that has subscribers, by its own flow, and that node hands
//! it to each of them. So what one publisher publishes comes to each subscriber in order. A subscriber
//! that is slow is handled by its mailbox's policy, as if the message had been sent to it alone. What
//! is published before a node has heard of a subscriber does not reach that one; nothing is repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use purlin_proto::admin::TopicInfo;
use purlin_proto::limits::PAGE_ENTRIES;
use purlin_proto::{EntryKey, Message, MessageName, Name, NodeId, Payload, Pid};
use rustc_hash::FxHashMap;

use super::info::behind;
use super::{EntryError, News};
use crate::process::Process;
use crate::registry::Cleanup;
use crate::runtime::{Runtime, lock};

pub(crate) struct Topics {
    state: Mutex<State>,
    news: Arc<News>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<Name, Topic>,
    /// The topics of each process of this node that has any.
    own: FxHashMap<u64, BTreeSet<Name>>,
    /// The topics that each other node wants.
    of: BTreeMap<NodeId, BTreeSet<Name>>,
}

#[derive(Default)]
struct Topic {
    here: BTreeSet<u64>,
    there: BTreeSet<NodeId>,
    /// Both as a publisher wants them; made anew after a change.
    audience: Option<Arc<Audience>>,
}

/// Who gets what is published to a topic.
#[derive(Default)]
pub(crate) struct Audience {
    pub(super) here: Vec<u64>,
    pub(super) there: Vec<NodeId>,
}

impl State {
    /// Changes a topic, which goes when nobody wants it.
    fn change<T>(&mut self, name: &Name, change: impl FnOnce(&mut Topic) -> T) -> T {
        let topic = self.topics.entry(name.clone()).or_default();
        topic.audience = None;
        let changed = change(topic);
        if topic.here.is_empty() && topic.there.is_empty() {
            self.topics.remove(name);
        }
        changed
    }
}

impl Topics {
    pub(super) fn new(news: Arc<News>) -> Self {
        Self { state: Mutex::default(), news }
    }

    fn subscribe(self: &Arc<Self>, name: &Name, process: &Process) -> Result<(), EntryError> {
        let mut state = lock(&self.state);
        let wanted = state.topics.get(name).is_some_and(|topic| !topic.here.is_empty());
        if !wanted {
            self.news.reserve()?;
        }
        let this: Weak<Self> = Arc::downgrade(self);
        if !process.clean_up_with(this) {
            self.news.release(usize::from(!wanted));
            return Err(EntryError::NoProcess);
        }
        state.change(name, |topic| topic.here.insert(process.serial));
        state.own.entry(process.serial).or_default().insert(name.clone());
        drop(state);
        if !wanted {
            self.news.note([EntryKey::Topic(name.clone())]);
        }
        Ok(())
    }

    fn unsubscribe(&self, name: &Name, serial: u64) -> bool {
        let mut state = lock(&self.state);
        let Some(names) = state.own.get_mut(&serial) else { return false };
        if !names.remove(name) {
            return false;
        }
        if names.is_empty() {
            state.own.remove(&serial);
        }
        let last = state.change(name, |topic| topic.here.remove(&serial) && topic.here.is_empty());
        drop(state);
        if last {
            self.news.release(1);
            self.news.note([EntryKey::Topic(name.clone())]);
        }
        true
    }

    /// Whether this node wants it.
    pub(super) fn is_wanted(&self, name: &Name) -> bool {
        lock(&self.state).topics.get(name).is_some_and(|topic| !topic.here.is_empty())
    }

    /// Another node says whether it wants a topic.
    pub(super) fn wanted_by(&self, node: NodeId, name: Name, wanted: bool) {
        let mut state = lock(&self.state);
        let change = |topic: &mut Topic| match wanted {
            true => topic.there.insert(node),
            false => topic.there.remove(&node),
        };
        state.change(&name, change);
        let names = state.of.entry(node).or_default();
        match wanted {
            true => names.insert(name),
            false => names.remove(&name),
        };
        if names.is_empty() {
            state.of.remove(&node);
        }
    }

    pub(super) fn vanished(&self, node: NodeId) {
        let mut state = lock(&self.state);
        for name in state.of.remove(&node).unwrap_or_default() {
            state.change(&name, |topic| topic.there.remove(&node));
        }
    }

    /// One page of the topics behind this one.
    pub(super) fn infos(&self, after: Option<Name>) -> Vec<TopicInfo> {
        let state = lock(&self.state);
        let info = |(name, topic): (&Name, &Topic)| TopicInfo {
            topic: name.clone(),
            subscribers: topic.here.len(),
            nodes: topic.there.iter().map(|node| node.name).collect(),
        };
        state.topics.range(behind(after)).take(PAGE_ENTRIES).map(info).collect()
    }

    pub(super) fn audience(&self, name: &Name) -> Option<Arc<Audience>> {
        let mut state = lock(&self.state);
        let topic = state.topics.get_mut(name)?;
        let (here, there) = (&topic.here, &topic.there);
        let audience = topic.audience.get_or_insert_with(|| {
            let (here, there) = (here.iter().copied().collect(), there.iter().copied().collect());
            Arc::new(Audience { here, there })
        });
        Some(Arc::clone(audience))
    }
}

impl Cleanup for Topics {
    fn ended(&self, serial: u64) {
        let names = lock(&self.state).own.get(&serial).cloned().unwrap_or_default();
        for name in names {
            self.unsubscribe(&name, serial);
        }
    }
}

impl Runtime {
    /// Has a process of this node get what is published to a topic, from now on and until it ends.
    ///
    /// Subscribing again changes nothing. A process gets the messages of a topic as any others; what
    /// it does not accept is dropped and counted.
    pub fn subscribe(&self, topic: impl Into<Name>, pid: Pid) -> Result<(), EntryError> {
        let own = self.is_own(&pid).then(|| self.process(pid.serial)).flatten();
        self.0.entries.topics.subscribe(&topic.into(), &*own.ok_or(EntryError::NoProcess)?)
    }

    /// Ends a subscription; `false` if there is none.
    pub fn unsubscribe(&self, topic: impl Into<Name>, pid: Pid) -> bool {
        self.is_own(&pid) && self.0.entries.topics.unsubscribe(&topic.into(), pid.serial)
    }

    /// The topics that anybody subscribes to, on any node, by name.
    pub fn topics(&self) -> Vec<Name> {
        lock(&self.0.entries.topics.state).topics.keys().cloned().collect()
    }

    /// Sends a message to all subscribers of a topic, on all nodes.
    ///
    /// What this process publishes to a topic comes to each subscriber in order, once at most. It is
    /// encoded once, and each other node that has subscribers gets one copy. Never waits: to a
    /// subscriber whose mailbox is full it does what [`send`](Self::send) does, and if the queue to a
    /// node is full, nobody there gets it; either is counted.
    ///
    /// ```
    /// # use purlin_runtime::Runtime;
    /// # use purlin_runtime::Message;
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Rain(u32);
    ///
    /// impl Message for Rain {
    ///     const NAME: &'static str = "weather.rain";
    ///     type Reply = ();
    /// }
    ///
    /// fn report(runtime: &Runtime) {
    ///     runtime.publish("weather", Rain(3));
    /// }
    /// ```
    pub fn publish<M: Message + Clone>(&self, topic: impl Into<Name>, message: M) {
        let topic = topic.into();
        let Some(audience) = self.0.entries.topics.audience(&topic) else { return };
        self.publish_away(&topic, &audience, &message);
        self.send_clones(audience.here.iter().map(|serial| self.process(*serial)), message);
    }

    /// As [`publish`](Self::publish), with a message in its encoded form.
    pub fn publish_encoded(&self, topic: impl Into<Name>, name: &MessageName, payload: &Payload) {
        let topic = topic.into();
        let Some(audience) = self.0.entries.topics.audience(&topic) else { return };
        self.send_topic(&topic, &audience, name, payload);
        self.deliver_encoded(&audience.here, name, payload);
    }
}
