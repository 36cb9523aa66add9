//! From the runtime to the wire: which life of which node, at which address, on which flow.

use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use purlin_proto::{Frame, Name, NodeId, NodeName, Pid, Pieces};
use purlin_runtime::mutant::is_planted;
use purlin_runtime::{Holding, Lease, Peer, Priority, Remote, Sent};
use purlin_transport as transport;
use purlin_transport::{Endpoint, Flow};

use crate::directory::{Directory, Place};
use crate::exclusive::Exclusive;
use crate::names::Names;

/// The runtime's way to other nodes.
pub(crate) struct Router {
    endpoint: Endpoint,
    directory: Arc<Directory>,
    exclusive: Arc<Exclusive>,
    names: Arc<Names>,
}

impl Router {
    pub(crate) fn new(
        endpoint: Endpoint,
        directory: Arc<Directory>,
        (exclusive, names): (Arc<Exclusive>, Arc<Names>),
    ) -> Self {
        Self { endpoint, directory, exclusive, names }
    }

    /// The present place of a receiver, or why there is none.
    fn find(&self, to: Peer) -> Result<Place, Sent> {
        let place = self.directory.find(to.name()).ok_or(Sent::Unreachable)?;
        match to {
            Peer::Life(NodeId { creation, .. }) if creation < place.id.creation => Err(Sent::Gone),
            Peer::Life(id) if id != place.id => Err(Sent::Unreachable),
            Peer::Life(_) | Peer::Name(_) if !place.live => Err(Sent::Unreachable),
            Peer::Life(_) | Peer::Name(_) => Ok(place),
        }
    }
}

fn flow_of(flow: u64) -> Flow {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits tell flows apart")]
    Flow(flow as u32)
}

fn priority_of(priority: Priority) -> transport::Priority {
    match priority {
        Priority::User => transport::Priority::User,
        Priority::System => transport::Priority::System,
    }
}

fn result(sent: transport::Sent) -> Sent {
    match sent {
        transport::Sent::Accepted => Sent::Accepted,
        transport::Sent::Full => Sent::Full,
        transport::Sent::Unreachable => Sent::Unreachable,
        transport::Sent::NotEncodable => Sent::NotEncodable,
    }
}

impl Remote for Router {
    fn nearest(&self, among: &[NodeName]) -> Option<NodeName> {
        let way = |name: &NodeName| {
            let link = self.directory.find(*name).and_then(|place| self.endpoint.link(&place.id));
            let round_trip = link.map(|link| link.path().rtt);
            // Those that are not known come last.
            (round_trip.is_none(), round_trip)
        };
        among.iter().copied().min_by_key(way)
    }

    fn key_owner(&self, key: &[u8]) -> Option<NodeName> {
        self.directory.ring().owner(key)
    }

    fn exclusive_owner(&self, key: &[u8]) -> Option<NodeName> {
        self.exclusive.owner(key)
    }

    fn holding(&self, key: &[u8]) -> Holding {
        self.exclusive.holding(key)
    }

    fn refresh_holdings(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.exclusive.refresh())
    }

    fn lease(&self) -> Lease {
        self.exclusive.lease()
    }

    fn registered(&self, name: &Name) -> Option<Pid> {
        self.names.find(name).ok().flatten()
    }

    fn earlier_owners(&self, key: &[u8]) -> Vec<NodeName> {
        self.directory.earlier_owners(key)
    }

    fn owners_are_new(&self) -> bool {
        self.directory.past.is_new() || self.exclusive.past.is_new()
    }

    fn earlier_owner(&self, key: &[u8], exclusive: bool) -> Option<NodeName> {
        let past = if exclusive { &self.exclusive.past } else { &self.directory.past };
        let owner = past.owner(key)?;
        let is_us = owner == self.directory.us();
        let reachable = is_us || self.directory.find(owner).is_some_and(|place| place.live);
        reachable.then_some(owner)
    }

    fn neighbours(&self, key: &[u8]) -> Vec<NodeName> {
        self.directory.neighbours(key)
    }

    fn owner(&self, key: &[u8], among: &[NodeName]) -> Option<NodeName> {
        self.directory.ring().owner_among(key, among)
    }

    fn send(
        &self,
        to: Peer,
        flow: u64,
        priority: Priority,
        encode: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Sent {
        let priority = priority_of(priority);
        let early = is_planted("early-down") && priority == transport::Priority::System;
        let flow = flow_of(if early { flow + 1 } else { flow });
        // Where there is a link to just this life, nothing needs to be looked up.
        let sent = match &to {
            Peer::Life(id) => self.endpoint.send_now(id, flow, priority, encode),
            Peer::Name(_) => None,
        };
        let sent = match sent {
            Some(sent) => sent,
            None => match self.find(to) {
                Ok(place) => self.endpoint.send(place.id, place.address, flow, priority, encode),
                Err(sent) => return sent,
            },
        };
        result(sent)
    }

    fn send_large(&self, to: Peer, flow: u64, priority: Priority, frame: Pieces) -> Sent {
        let (flow, priority) = (flow_of(flow), priority_of(priority));
        match self.find(to) {
            Ok(Place { id, address, .. }) => {
                result(self.endpoint.send_large(id, address, flow, priority, frame))
            }
            Err(sent) => sent,
        }
    }

    fn tell(&self, to: NodeName, frame: &Frame) {
        let link = self.directory.find(to).and_then(|place| self.endpoint.link(&place.id));
        if let (Some(link), Ok(bytes)) = (link, frame.to_bytes()) {
            // A control stream that is full this far is of a peer that does not read at all, whose
            // connection is about to end.
            let _ = link.send_control(bytes);
        }
    }

    fn ready(
        &self,
        to: Peer,
        flow: u64,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let place = self.find(to);
        Box::pin(async move {
            if let Ok(place) = place {
                self.endpoint.ready(&place.id, flow_of(flow)).await;
            }
        })
    }
}
