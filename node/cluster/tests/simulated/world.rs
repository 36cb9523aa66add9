//! A small world on virtual time: nodes that run a `Membership`, and a network between them that
//! delays, loses and cuts. The same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use purlin_cluster::{Config, Event, Input, Me, Membership, Output, Time};
use purlin_proto::{Labels, NodeId, NodeName, Refusal};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const HEARD_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<NodeName, Simulated>,
    queue: BTreeMap<(Time, u64), Delivery>,
    number: u64,
    /// When each node next does something by itself; an entry may have become stale.
    agenda: BTreeSet<(Time, NodeName)>,
    pub(crate) loss: f64,
    cuts: BTreeSet<(NodeName, NodeName)>,
    /// Who cannot make a link to whom, as from behind a firewall; links that exist go both ways.
    deaf: BTreeSet<(NodeName, NodeName)>,
    links: BTreeSet<(NodeId, NodeId)>,
    /// When the last frame of the stream between two nodes arrives: frames keep their order.
    streams: BTreeMap<(NodeName, NodeName), Time>,
    chance: StdRng,
    /// Everything that any node announced, in order.
    pub(crate) log: Vec<(Time, NodeName, Event)>,
    /// Whether closed ports give hints.
    pub(crate) hints: bool,
    /// So many of the first nodes are seeds.
    pub(crate) seeds: usize,
    pub(crate) traffic: Traffic,
}

/// What all nodes together have wanted sent.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) datagrams: u64,
    pub(crate) datagram_bytes: u64,
    pub(crate) state_bytes: u64,
    pub(crate) pings: u64,
}

pub(crate) struct Simulated {
    pub(crate) membership: Membership,
    pub(crate) alive: bool,
    pub(crate) frozen_until: Option<Time>,
    heard: BTreeSet<NodeId>,
    next_look: Time,
    /// Where it stands in the agenda.
    planned: Option<Time>,
}

enum Delivery {
    Datagram { from: NodeId, to: NodeId, bytes: Bytes },
    State { from: NodeId, to: NodeId, bytes: Bytes },
    Ping { from: NodeId, to: NodeId },
    Heard { at: NodeName, peer: NodeId },
    Dial { from: NodeName, address: SocketAddr },
    Closed { at: NodeId, by: NodeId, why: Refusal },
    Hint { at: NodeName, address: SocketAddr },
}

pub(crate) fn address(name: NodeName) -> SocketAddr {
    let number: u16 = name.as_str()[1..].parse().unwrap();
    SocketAddr::from(([10, 0, 0, 1], number + 1))
}

pub(crate) fn named(number: usize) -> NodeName {
    NodeName::new(&format!("n{number}")).unwrap()
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            nodes: BTreeMap::new(),
            queue: BTreeMap::new(),
            number: 0,
            agenda: BTreeSet::new(),
            loss: 0.0,
            cuts: BTreeSet::new(),
            deaf: BTreeSet::new(),
            links: BTreeSet::new(),
            streams: BTreeMap::new(),
            chance: StdRng::seed_from_u64(seed),
            log: Vec::new(),
            hints: true,
            seeds: 2,
            traffic: Traffic::default(),
        }
    }

    /// Nodes `n0`, `n1`, …, all joining through the first of them and a seed that does not exist.
    pub(crate) fn with(count: usize, seed: u64) -> Self {
        let mut world = Self::new(seed);
        for number in 0..count {
            world.start(number, 1);
        }
        world
    }

    pub(crate) fn start(&mut self, number: usize, creation: u64) {
        let nowhere = SocketAddr::from(([10, 0, 0, 9], 9));
        let mut seeds = vec![nowhere];
        seeds.extend((0..self.seeds).map(|seed| address(named(seed))));
        self.start_with(number, creation, seeds);
    }

    pub(crate) fn start_with(&mut self, number: usize, creation: u64, seeds: Vec<SocketAddr>) {
        let name = named(number);
        let id = NodeId::new(name, creation);
        let labels = Labels::from([("number".to_owned(), number.to_string())]);
        let me = Me { id, address: address(name), labels };
        let seed = self.chance.random();
        let mut membership = Membership::new(Config::default(), me, seed, self.now);
        membership.handle(self.now, Input::Join { seeds });
        let (heard, next_look) = (BTreeSet::new(), self.now);
        let (alive, frozen_until, planned) = (true, None, None);
        let node = Simulated { membership, alive, frozen_until, heard, next_look, planned };
        if let Some(Simulated { planned: Some(due), .. }) = self.nodes.insert(name, node) {
            self.agenda.remove(&(due, name));
        }
        self.drain(name);
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.nodes.get_mut(&named(number)).unwrap().alive = false;
        self.links.retain(|(a, b)| a.name != named(number) && b.name != named(number));
    }

    /// The link between two nodes ends, and neither has sent anything since.
    pub(crate) fn unlink(&mut self, one: usize, other: usize) {
        let (one, other) = (named(one), named(other));
        self.links
            .retain(|(a, b)| (a.name, b.name) != (one, other) && (a.name, b.name) != (other, one));
    }

    pub(crate) fn freeze(&mut self, number: usize, length: Duration) {
        self.nodes.get_mut(&named(number)).unwrap().frozen_until = Some(self.now + length);
        self.plan(named(number));
    }

    pub(crate) fn cut(&mut self, side: &[usize], other: &[usize]) {
        self.cut_one_way(side, other);
        self.cut_one_way(other, side);
    }

    /// Nothing that the first send gets to the second any more.
    pub(crate) fn cut_one_way(&mut self, from: &[usize], to: &[usize]) {
        for a in from {
            self.cuts.extend(to.iter().map(|b| (named(*a), named(*b))));
        }
    }

    /// None of the first can dial one of the second any more.
    pub(crate) fn forbid_dials(&mut self, from: &[usize], to: &[usize]) {
        for a in from {
            self.deaf.extend(to.iter().map(|b| (named(*a), named(*b))));
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Someone on the path claims that a node's port is closed.
    pub(crate) fn forge_hint(&mut self, at: usize, about: usize) {
        let delivery = Delivery::Hint { at: named(at), address: address(named(about)) };
        self.post(Duration::ZERO, delivery);
    }

    /// A quarter to one millisecond; one in a hundred takes up to ten.
    fn latency(&mut self) -> Duration {
        let slow = self.chance.random_bool(0.01);
        let micros = if slow { 1_000..10_000 } else { 250..1_050 };
        Duration::from_micros(self.chance.random_range(micros))
    }

    /// Sends something that may overtake and be overtaken.
    fn send(&mut self, delivery: Delivery) {
        let latency = self.latency();
        self.post(latency, delivery);
    }

    /// Sends something on the stream between two nodes.
    fn stream(&mut self, from: NodeName, to: NodeName, delivery: Delivery) {
        let earliest = self.now + self.latency();
        let last = self.streams.entry((from, to)).or_default();
        *last = earliest.max(*last + Duration::from_nanos(1));
        let after = last.saturating_sub(self.now);
        self.post(after, delivery);
    }

    fn post(&mut self, after: Duration, delivery: Delivery) {
        self.number += 1;
        self.queue.insert((self.now + after, self.number), delivery);
    }

    /// Runs for so long.
    pub(crate) fn run(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let next_delivery = self.queue.first_key_value().map(|((due, _), _)| *due);
            let next_tick = self.agenda.first().map(|(due, _)| *due);
            let next = [next_delivery, next_tick].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = next.max(self.now);
            if next_delivery == Some(next) {
                let (_, delivery) = self.queue.pop_first().unwrap();
                self.deliver(delivery);
            } else {
                self.tick();
            }
        }
    }

    /// Lets the node do what it does by itself that is first in the agenda.
    fn tick(&mut self) {
        let Some((_, name)) = self.agenda.pop_first() else { return };
        let now = self.now;
        let node = self.nodes.get_mut(&name).unwrap();
        node.planned = None;
        if node.due().is_some_and(|due| due <= now) {
            node.frozen_until = None;
            if node.next_look <= now {
                node.next_look = now + HEARD_EVERY;
                for peer in std::mem::take(&mut node.heard) {
                    node.membership.handle(now, Input::Heard { peer });
                }
            }
            node.membership.handle(now, Input::Tick);
        }
        self.drain(name);
    }

    /// Hands an input to a node, or puts it off while the node is frozen.
    fn input(&mut self, name: NodeName, input: Input) {
        let now = self.now;
        let node = self.nodes.get_mut(&name).unwrap();
        if node.alive {
            node.membership.handle(now, input);
            self.drain(name);
        }
    }

    pub(crate) fn drain(&mut self, name: NodeName) {
        while let Some(output) = self.nodes.get_mut(&name).unwrap().membership.poll_output() {
            self.act(name, output);
        }
        self.plan(name);
    }

    /// Puts into the agenda when a node next does something by itself.
    fn plan(&mut self, name: NodeName) {
        let node = self.nodes.get_mut(&name).unwrap();
        let due = node.due();
        if due == node.planned {
            return;
        }
        if let Some(before) = std::mem::replace(&mut node.planned, due) {
            self.agenda.remove(&(before, name));
        }
        self.agenda.extend(due.map(|due| (due, name)));
    }

    fn id(&self, name: NodeName) -> NodeId {
        self.nodes[&name].membership.me().id
    }

    fn act(&mut self, name: NodeName, output: Output) {
        let from = self.id(name);
        match output {
            Output::Dial { address } => {
                self.send(Delivery::Dial { from: name, address });
            }
            Output::Datagram { to, address, bytes } => {
                self.traffic.datagrams += 1;
                self.traffic.datagram_bytes += bytes.len() as u64;
                if self.has_link(from, to) {
                    self.lossy(Delivery::Datagram { from, to, bytes });
                } else {
                    self.send(Delivery::Dial { from: name, address });
                }
                self.hint_if_closed(name, to, address);
            }
            Output::Probe { to, address } => {
                self.traffic.pings += 1;
                self.lossy(Delivery::Ping { from, to });
                self.hint_if_closed(name, to, address);
            }
            Output::State { to, bytes } => {
                if self.has_link(from, to) {
                    self.traffic.state_bytes += bytes.len() as u64;
                    let state = Delivery::State { from, to, bytes };
                    self.stream(from.name, to.name, state);
                }
            }
            Output::Disconnect { peer, why } => {
                self.links.retain(|pair| *pair != (from, peer) && *pair != (peer, from));
                let closed = Delivery::Closed { at: peer, by: from, why };
                self.stream(from.name, peer.name, closed);
            }
            Output::Event(event) => self.log.push((self.now, name, event)),
            // No node here has been gone for so long.
            Output::Forgotten(_) => {}
            Output::Reincarnate { at_least } => {
                let id = NodeId::new(name, at_least);
                self.links.retain(|(a, b)| *a != from && *b != from);
                let now = self.now;
                self.nodes.get_mut(&name).unwrap().membership.reincarnated(now, id);
            }
        }
    }

    fn has_link(&self, a: NodeId, b: NodeId) -> bool {
        self.links.contains(&(a, b)) || self.links.contains(&(b, a))
    }

    fn lossy(&mut self, delivery: Delivery) {
        if !self.chance.random_bool(self.loss) {
            self.send(delivery);
        }
    }

    fn hint_if_closed(&mut self, at: NodeName, to: NodeId, address: SocketAddr) {
        let closed = self.nodes.get(&to.name).is_none_or(|node| !node.alive);
        if self.hints && closed && !self.cuts.contains(&(at, to.name)) {
            self.send(Delivery::Hint { at, address });
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let receiver = match &delivery {
            Delivery::Datagram { to, .. }
            | Delivery::State { to, .. }
            | Delivery::Ping { to, .. } => to.name,
            Delivery::Heard { at, .. } | Delivery::Hint { at, .. } => *at,
            Delivery::Dial { from, .. } => *from,
            Delivery::Closed { at, .. } => at.name,
        };
        let frozen = self.nodes.get(&receiver).and_then(|node| node.frozen_until);
        if let Some(until) = frozen.filter(|&until| until > self.now) {
            let latency = self.latency();
            self.post(until.saturating_sub(self.now) + latency, delivery);
            return;
        }
        match delivery {
            Delivery::Datagram { from, to, bytes } if self.passes(from, to) => {
                self.heard(from, to);
                self.input(to.name, Input::Datagram { from, bytes });
            }
            Delivery::State { from, to, bytes } if self.passes(from, to) => {
                self.heard(from, to);
                self.input(to.name, Input::State { from, bytes });
            }
            Delivery::Ping { from, to } if self.passes(from, to) => {
                self.heard(from, to);
                if self.passes(to, from) {
                    self.lossy(Delivery::Heard { at: from.name, peer: to });
                }
            }
            Delivery::Heard { at, peer } => {
                self.nodes.get_mut(&at).unwrap().heard.insert(peer);
            }
            Delivery::Hint { at, address } => {
                self.input(at, Input::UnreachableHint { address });
            }
            Delivery::Dial { from, address } => self.dial(from, address),
            Delivery::Closed { at, by, why } if self.passes(by, at) => {
                self.refused(at.name, address(by.name), why);
            }
            Delivery::Datagram { .. }
            | Delivery::State { .. }
            | Delivery::Ping { .. }
            | Delivery::Closed { .. } => {}
        }
    }

    fn heard(&mut self, from: NodeId, to: NodeId) {
        self.nodes.get_mut(&to.name).unwrap().heard.insert(from);
    }

    fn passes(&self, from: NodeId, to: NodeId) -> bool {
        let receives = self.nodes.get(&to.name).is_some_and(|node| node.alive);
        receives && !self.cuts.contains(&(from.name, to.name))
    }

    fn dial(&mut self, from: NodeName, at: SocketAddr) {
        let found = at.port().checked_sub(1).map(|number| named(number.into()));
        let Some(to) = found.filter(|to| address(*to) == at && *to != from) else { return };
        if self.nodes.get(&to).is_none_or(|node| !node.alive) {
            return;
        }
        let frozen = self.nodes[&to].frozen_until.is_some_and(|until| until > self.now);
        let cut = self.cuts.contains(&(from, to)) || self.cuts.contains(&(to, from));
        if frozen || cut || self.deaf.contains(&(from, to)) {
            return;
        }
        let (ours, theirs) = (self.id(from), self.id(to));
        if self.has_link(ours, theirs) {
            return;
        }
        if let Err(why) = self.nodes[&to].membership.admit(ours, address(from)) {
            let answer = self.nodes[&from].membership.answer(&why);
            self.refused(from, at, why);
            if let Some(answer) = answer {
                self.refused(to, address(from), answer);
            }
            return;
        }
        if let Err(why) = self.nodes[&from].membership.admit(theirs, address(to)) {
            // The other side has established the link by then.
            self.input(to, Input::Connected { peer: ours, address: address(from) });
            self.refused(to, address(from), why);
            return;
        }
        self.links.insert((ours, theirs));
        self.input(to, Input::Connected { peer: ours, address: address(from) });
        self.input(from, Input::Connected { peer: theirs, address: address(to) });
    }

    /// A link was refused or closed by who is at this address.
    fn refused(&mut self, at: NodeName, by: SocketAddr, why: Refusal) {
        match why {
            Refusal::DeclaredDown { creation, by: life, view } => {
                self.input(at, Input::DeclaredDown { creation, by: life, at: by, view });
            }
            Refusal::Superseded { newest } => self.input(at, Input::Superseded { newest }),
            _ => {}
        }
    }

    // ----- what tests ask -----

    /// How many live nodes see exactly the live nodes.
    pub(crate) fn agreeing(&self) -> usize {
        let live: Vec<_> = self.nodes.iter().filter(|(_, n)| n.alive).map(|(k, _)| *k).collect();
        let agrees = |name: &&NodeName| {
            let seen: Vec<_> = self.nodes[*name].membership.live().collect();
            seen == live
        };
        live.iter().filter(agrees).count()
    }

    /// Who announced that this life is over, and when.
    pub(crate) fn downs(&self, id: NodeId) -> Vec<(Time, NodeName)> {
        let down = |event: &Event| matches!(event, Event::Down { id: found, .. } if *found == id);
        self.log.iter().filter(|(.., e)| down(e)).map(|(at, by, _)| (*at, *by)).collect()
    }

    pub(crate) fn creation(&self, number: usize) -> u64 {
        self.id(named(number)).creation
    }
}

impl Simulated {
    /// When it next does something by itself.
    fn due(&self) -> Option<Time> {
        let due = self.alive.then(|| self.membership.next_wake()).flatten()?;
        let due = due.min(self.next_look);
        Some(self.frozen_until.map_or(due, |until| due.max(until)))
    }
}
