//! From a group, topic or global name to processes: sending to several at once, calling one.

use std::sync::Arc;

use purlin_proto::{
    CallError, Codec, Dest, Envelope, Message, MessageName, Name, Payload, Pick, Signal, Target,
};

use super::topics::Audience;
use crate::inflow::{Charge, Inbound};
use crate::item::{EncodedMessage, Item};
use crate::process::Process;
use crate::relations::Address;
use crate::remote::{Peer, Priority};
use crate::reply::Reply;
use crate::route::Route;
use crate::runtime::Runtime;

/// A destination that is several processes.
pub(crate) enum Several {
    Members(Vec<Address>),
    Subscribers(Name),
}

impl Runtime {
    /// The way to a process.
    pub(crate) fn route_address(&self, to: Address) -> Route {
        match to {
            Address::Local(serial) => Route::Here(self.process(serial)),
            Address::Remote(pid) => Route::There(Peer::Life(pid.node), Target::Serial(pid.serial)),
        }
    }

    /// The way to what is found by its entries.
    pub(crate) fn route_entry(&self, to: &Dest) -> Route {
        match to {
            Dest::Group(group, Pick::All) => {
                Route::Several(Several::Members(self.every_member(group)))
            }
            Dest::Topic(name) => Route::Several(Several::Subscribers(name.clone())),
            Dest::Global(name) => self.route_global(name),
            Dest::Child(child) => self.route_child(child),
            _ => match self.one_of(to) {
                Some(address) => self.route_address(address),
                None => Route::Here(None),
            },
        }
    }

    /// The way to one process, for what can have one answer only.
    pub(crate) fn route_one(&self, to: &Dest) -> Result<Route, CallError> {
        match to {
            Dest::Topic(name) => {
                let (kind, message) = ("topic".to_owned(), format!("a call to {name}"));
                Err(CallError::NotUnderstood { kind, message })
            }
            Dest::Group(..) => {
                let one = self.one_of(to).map(|address| self.route_address(address));
                Ok(one.unwrap_or(Route::Here(None)))
            }
            _ => Ok(self.route(to)),
        }
    }

    /// One process that a group or global name leads to, a child, or a key, if it runs on this node.
    pub(crate) fn one_of(&self, to: &Dest) -> Option<Address> {
        match to {
            Dest::Global(name) => self.global_holder(name),
            Dest::Child(child) => self.child_address(child),
            Dest::Group(group, pick) => self.pick(group, pick),
            Dest::Key { kind, key } => {
                self.find_keyed(kind, key).map(|process| Address::Local(process.serial))
            }
            _ => None,
        }
    }

    /// The way to each of several.
    pub(crate) fn routes(&self, to: &Several) -> Vec<Route> {
        match to {
            Several::Members(members) => {
                members.iter().map(|member| self.route_address(*member)).collect()
            }
            Several::Subscribers(topic) => {
                let audience = self.0.entries.topics.audience(topic).unwrap_or_default();
                let here = audience.here.iter().map(|serial| Route::Here(self.process(*serial)));
                let there = audience
                    .there
                    .iter()
                    .map(|node| Route::There(Peer::Life(*node), Target::Topic(topic.clone())));
                here.chain(there).collect()
            }
        }
    }

    /// Sends to several, in the form that is made once.
    pub(crate) fn send_several<M: Message>(&self, to: &Several, message: &M) {
        match Payload::encode(Codec::Bincode, message) {
            Ok(payload) => self.send_several_encoded(to, &MessageName::of::<M>(), &payload),
            Err(error) => self.count_not_encodable(M::NAME, &error, 1),
        }
    }

    pub(crate) fn send_several_encoded(&self, to: &Several, name: &MessageName, payload: &Payload) {
        match to {
            Several::Members(members) => {
                if members.is_empty() {
                    self.counters().dropped_no_process.add();
                }
                let pids = members.iter().map(|member| self.pid_of(*member));
                self.send_all_encoded(pids, name, payload);
            }
            Several::Subscribers(topic) => self.publish_encoded(topic.clone(), name, payload),
        }
    }

    /// Sends what is published to the nodes that want it.
    pub(super) fn publish_away<M: Message>(&self, topic: &Name, audience: &Audience, message: &M) {
        if audience.there.is_empty() {
            return;
        }
        match Payload::encode(Codec::Bincode, message) {
            Ok(payload) => self.send_topic(topic, audience, &MessageName::of::<M>(), &payload),
            Err(error) => {
                self.count_not_encodable(M::NAME, &error, audience.there.len() as u64);
            }
        }
    }

    pub(super) fn send_topic(
        &self,
        topic: &Name,
        audience: &Audience,
        name: &MessageName,
        payload: &Payload,
    ) {
        for node in &audience.there {
            let (peer, to) = (Peer::Life(*node), Target::Topic(topic.clone()));
            if self.is_stopped(peer, &to) {
                self.counters().dropped_mailbox_full.add();
                continue;
            }
            let (message, payload) = (name.clone(), payload.clone());
            let signal = Signal::Send { message, payload, waits: false };
            let envelope = Envelope { to, from: self.sender(), signal };
            self.count_sent(self.send_remote(peer, &envelope, Priority::User), 1);
        }
    }

    /// Hands a value to processes of this node, the last one the value itself. Those that have ended
    /// are counted.
    pub(crate) fn send_clones<M: Message + Clone>(
        &self,
        to: impl Iterator<Item = Option<Arc<Process>>>,
        message: M,
    ) {
        let mut to = to.peekable();
        while let Some(process) = to.next() {
            if to.peek().is_none() {
                let item = Item::local(message, Reply::None, None);
                return self.deliver(process.as_deref(), item);
            }
            let item = Item::local(message.clone(), Reply::None, None);
            self.deliver(process.as_deref(), item);
        }
    }

    /// Hands an encoded message to processes of this node.
    pub(super) fn deliver_encoded(&self, to: &[u64], name: &MessageName, payload: &Payload) {
        for serial in to {
            let (name, payload) = (name.clone(), payload.clone());
            let message = EncodedMessage { name, payload, reply: None, charge: None };
            self.deliver(self.process(*serial).as_deref(), Item::Encoded(Box::new(message)));
        }
    }

    /// Another node's process has published something: each subscriber here gets it as if it had
    /// come alone. Its bytes they share. If there is none any more, nobody wanted it.
    pub(crate) fn receive_published(&self, inbound: &Inbound, topic: &Name, signal: Signal) {
        let Signal::Send { message, payload, waits } = signal else { return };
        let Some(audience) = self.0.entries.topics.audience(topic) else { return };
        let shared = Arc::new(Charge::new(&inbound.inflow, payload.bytes.len()));
        for serial in &audience.here {
            let (name, payload) = (message.clone(), payload.clone());
            let charge = Some(Charge::sharing(&shared));
            let item = EncodedMessage { name, payload, reply: None, charge };
            let item = Item::Encoded(Box::new(item));
            self.receive_item(inbound, &Target::Serial(*serial), waits, item);
        }
    }
}
