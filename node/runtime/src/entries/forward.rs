//! Messages to exclusive global names: by which way, and what if the holder is not there any more.
//!
//! A message goes to the node where the holder is, as far as the sender's node knows, and says the
//! name: as if it were a key of the kind [`GLOBAL`]. If that node does not have the name, it sends the
//! message on to the one that does, or to the name's registrar if it has heard of none; so a sender
//! that is behind loses nothing. The registrar sends it on once more, to the holder. Where nobody is
//! heard of, the sender's node sends to the registrar at once: a round trip finds a name that was given
//! a moment ago. As with keys, what was sent on by a way of its own may come after what was sent
//! later.
//!
//! # What if
//!
//! - *nobody has the name*: the message is dropped and counted, its caller told `NoProcess`.
//! - *two nodes take each other for the holder*: a message is sent on by a node that is not the
//!   registrar only if it was not sent on before, and by the registrar only while it holds the name's
//!   shard; so it makes three hops at most.
//! - *a node is of a version that does not know this*: it answers `NotKeyed`.

use std::sync::Arc;

use purlin_proto::admin::names::name_key;
use purlin_proto::{Key, Name, NodeName, Signal, Target};

use crate::exclusive::Holding;
use crate::inflow::Inbound;
use crate::process::Process;
use crate::remote::Peer;
use crate::route::Route;
use crate::runtime::Runtime;

/// What stands for the kind of a keyed process where a global name is meant.
pub(crate) const GLOBAL: &str = "purlin.global";

impl Runtime {
    /// The way to a global name of either kind.
    pub(crate) fn route_global(&self, name: &Name) -> Route {
        let node = match self.whereis_exclusive(name) {
            Some(pid) if self.is_own(&pid) => return Route::Here(self.process(pid.serial)),
            Some(pid) => pid.node.name,
            None => match self.global_holder(name) {
                Some(address) => return self.route_address(address),
                None => match self.registered(name) {
                    Some(node) => node,
                    None => return Route::Here(None),
                },
            },
        };
        let Ok(key) = Key::new(name.as_str()) else { return Route::Here(None) };
        let kind = GLOBAL.parse().expect("a name");
        Route::There(Peer::Name(node), Target::Key { kind, key, forwarded: false })
    }

    /// Which other node may know of a name that this one has not heard of: its registrar; or the
    /// holder's, if this is the registrar.
    fn registered(&self, name: &Name) -> Option<NodeName> {
        let remote = self.0.remote.get()?;
        let owner = remote.exclusive_owner(&name_key(name))?;
        let node = match owner == self.name() {
            true => remote.registered(name)?.node.name,
            false => owner,
        };
        (node != self.name()).then_some(node)
    }

    /// Another node takes this one for that of a name's holder, or for the registrar.
    pub(crate) fn receive_global(
        &self,
        inbound: &Inbound,
        sender: u64,
        target: &Target,
        signal: Signal,
    ) {
        let Target::Key { key, forwarded, .. } = target else { return };
        let name = Name::new(key.as_str()).ok();
        let holder = name.as_ref().and_then(|name| self.own_holder(name));
        let callee = holder.as_ref().map_or(0, |process| process.serial);
        let arrived = self.arrived(inbound, sender, || callee, signal);
        // The wire has no such thing; see `signal.rs`.
        let Ok((mut item, waits)) = arrived else { return };
        if let Some(process) = holder {
            match self.receive_at(&process, inbound, target, waits, item) {
                // It has ended in this moment; another may have the name.
                Some(back) => item = back,
                None => return,
            }
        }
        match name.and_then(|name| self.elsewhere(&name, inbound.from.name, *forwarded)) {
            Some(node) => {
                self.forward(node, &GLOBAL.parse().expect("a name"), key, true, item);
            }
            None => self.dropped_dead(item),
        }
    }

    fn own_holder(&self, name: &Name) -> Option<Arc<Process>> {
        let given = self.0.entries.exclusive_names.given(name)?;
        self.process(given.serial)
    }

    /// Where a message to a name goes on from here.
    fn elsewhere(&self, name: &Name, from: NodeName, forwarded: bool) -> Option<NodeName> {
        let other = |node: &NodeName| *node != self.name();
        let remote = self.0.remote.get()?;
        let key = name_key(name);
        if matches!(remote.holding(&key), Holding::Yes { .. }) {
            return remote.registered(name).map(|pid| pid.node.name).filter(other);
        }
        if forwarded {
            return None;
        }
        let heard = self.whereis_exclusive(name).map(|pid| pid.node.name);
        let heard = heard.filter(|node| *node != from);
        heard.or_else(|| remote.exclusive_owner(&key)).filter(other)
    }
}
