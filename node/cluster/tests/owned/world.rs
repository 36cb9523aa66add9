//! Nodes with logs and what is under way between them, which lies still until a test delivers it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use purlin_cluster::owned::{Blob, Bounds, Input, Output, Owned};
use purlin_proto::{NodeId, NodeName};

pub(crate) type Entries = BTreeMap<Blob, Blob>;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    bytes: Bytes,
}

struct Simulated {
    owned: Owned,
    id: NodeId,
    alive: bool,
    /// What it has told of others, life by life.
    seen: BTreeMap<NodeId, Entries>,
    /// Whom it sees as live.
    live: BTreeSet<NodeId>,
    changes: usize,
    violations: usize,
}

#[derive(Default)]
pub(crate) struct World {
    nodes: Vec<Simulated>,
    bounds: Bounds,
    pub(crate) wires: Vec<Frame>,
    cuts: BTreeSet<(usize, usize)>,
    now: Duration,
    pub(crate) frames: usize,
}

impl World {
    /// So many nodes that all see each other.
    pub(crate) fn with(count: usize) -> Self {
        Self::bounded(count, Bounds::default())
    }

    /// The same with other bounds.
    pub(crate) fn bounded(count: usize, bounds: Bounds) -> Self {
        let mut world = Self { bounds, ..Self::default() };
        for _ in 0..count {
            let node = world.start();
            world.introduce(node);
        }
        world.deliver_all();
        world
    }

    /// A node that nobody sees yet.
    pub(crate) fn start(&mut self) -> usize {
        let number = self.nodes.len();
        let id = NodeId::new(NodeName::new(&format!("n{number}")).unwrap(), 1);
        let owned = Owned::new(id, self.bounds, number as u64, self.now);
        let (seen, live) = (BTreeMap::new(), BTreeSet::new());
        let node = Simulated { owned, id, alive: true, seen, live, changes: 0, violations: 0 };
        self.nodes.push(node);
        number
    }

    /// Everyone sees a node, and it sees everyone.
    pub(crate) fn introduce(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.see(node, other);
            self.see(other, node);
        }
    }

    /// A node sees another as live, unless it does or the other is dead.
    pub(crate) fn see(&mut self, at: usize, other: usize) {
        let id = self.nodes[other].id;
        if self.nodes[at].alive && self.nodes[other].alive && self.nodes[at].live.insert(id) {
            self.input(at, Input::Up(id));
        }
    }

    /// A node declares the present life of another down, and any before it.
    pub(crate) fn notice(&mut self, at: usize, other: usize) {
        let name = self.nodes[other].id.name;
        let downs: Vec<_> =
            self.nodes[at].live.iter().filter(|id| id.name == name).copied().collect();
        for id in downs {
            self.nodes[at].live.remove(&id);
            self.input(at, Input::Down(id));
        }
    }

    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].alive = false;
        let id = self.nodes[node].id;
        self.wires.retain(|frame| frame.from != id && frame.to != id);
    }

    /// A node that crashed starts again, with nothing.
    pub(crate) fn restart(&mut self, node: usize) {
        let id = NodeId::new(self.nodes[node].id.name, self.nodes[node].id.creation + 1);
        let owned = Owned::new(id, self.bounds, id.creation, self.now);
        let (seen, live) = (BTreeMap::new(), BTreeSet::new());
        self.nodes[node] =
            Simulated { owned, id, alive: true, seen, live, changes: 0, violations: 0 };
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.notice(other, node);
        }
        self.introduce(node);
    }

    /// A node comes back under a new creation, with its processes.
    pub(crate) fn reincarnate(&mut self, node: usize) {
        let before = self.nodes[node].id;
        let id = NodeId::new(before.name, before.creation + 1);
        self.wires.retain(|frame| frame.from != before && frame.to != before);
        self.nodes[node].id = id;
        self.nodes[node].live.clear();
        self.input(node, Input::Reincarnated(id));
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.notice(other, node);
        }
        self.introduce(node);
    }

    /// The link between two is lost, with all that is under way.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cuts.extend([(a, b), (b, a)]);
        let ends = [self.nodes[a].id, self.nodes[b].id];
        self.wires.retain(|frame| !(ends.contains(&frame.from) && ends.contains(&frame.to)));
        self.input(a, Input::Disconnected(ends[1]));
        self.input(b, Input::Disconnected(ends[0]));
    }

    /// There is a new link between two.
    pub(crate) fn join(&mut self, a: usize, b: usize) {
        self.cuts.remove(&(a, b));
        self.cuts.remove(&(b, a));
        let (ida, idb) = (self.nodes[a].id, self.nodes[b].id);
        self.input(a, Input::Connected(idb));
        self.input(b, Input::Connected(ida));
    }

    pub(crate) fn set(&mut self, node: usize, key: &str, value: Option<&str>) {
        let blob = |text: &str| Blob::from(text.as_bytes());
        self.input(node, Input::Own(vec![(blob(key), value.map(blob))]));
    }

    /// A liar says that the log of an owner is this one entry, and far ahead of what it is.
    pub(crate) fn lie(&mut self, liar: usize, to: usize, owner: usize) {
        let (from, owner) = (self.nodes[liar].id, self.nodes[owner].id);
        let key = serde_bytes::ByteBuf::from(*b"forged");
        let op = (1_000_000_u64, key.clone(), Some(key));
        let page = (true, 0_u64, 1_000_000_u64, 1_000_000_u64, 0_u64, vec![op]);
        // A `Said::Page` as it is on the wire.
        let bytes = purlin_proto::codec::to_bytes(&(2_u32, owner, page)).unwrap();
        self.input(to, Input::Said { from, bytes });
    }

    pub(crate) fn say_raw(&mut self, from: usize, to: usize, bytes: &'static [u8]) {
        let from = self.nodes[from].id;
        self.input(to, Input::Said { from, bytes: Bytes::from_static(bytes) });
    }

    fn input(&mut self, at: usize, input: Input) {
        if !self.nodes[at].alive {
            return;
        }
        self.nodes[at].owned.handle(self.now, input);
        while let Some(output) = self.nodes[at].owned.poll_output() {
            self.act(at, output);
        }
    }

    fn number(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id.name == id.name).unwrap()
    }

    fn act(&mut self, at: usize, output: Output) {
        let node = &mut self.nodes[at];
        match output {
            Output::Say { to, bytes } => {
                let (from, number) = (node.id, self.number(to));
                self.frames += 1;
                if !self.cuts.contains(&(at, number)) && self.nodes[number].id == to {
                    self.wires.push(Frame { from, to, bytes });
                }
            }
            Output::Changed { owner, changes } => {
                assert!(node.live.contains(&owner), "{owner} is dead to {}", node.id);
                node.changes += 1;
                let entries = node.seen.entry(owner).or_default();
                for (key, value) in changes {
                    let before = match value.clone() {
                        Some(value) => entries.insert(key, value),
                        None => entries.remove(&key),
                    };
                    assert_ne!(before, value, "a change changes something");
                }
            }
            Output::Vanished(owner) => drop(node.seen.remove(&owner)),
            Output::Violation { .. } => node.violations += 1,
        }
    }

    /// Delivers one of the frames that are under way; again, if it is to stay.
    pub(crate) fn deliver(&mut self, index: usize, stays: bool) {
        let Frame { from, to, bytes } = if stays {
            let Frame { from, to, bytes } = &self.wires[index];
            Frame { from: *from, to: *to, bytes: bytes.clone() }
        } else {
            self.wires.remove(index)
        };
        let at = self.number(to);
        if self.nodes[at].id == to {
            self.input(at, Input::Said { from, bytes });
        }
    }

    pub(crate) fn deliver_all(&mut self) {
        while !self.wires.is_empty() {
            self.deliver(0, false);
        }
    }

    /// Lets time pass; everything arrives at once.
    pub(crate) fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.tick(Duration::from_secs(1));
            self.deliver_all();
        }
    }

    /// Lets time pass, and nothing arrive.
    pub(crate) fn tick(&mut self, length: Duration) {
        self.now += length;
        for node in 0..self.nodes.len() {
            self.input(node, Input::Tick);
        }
    }

    // ----- what tests ask -----

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].alive
    }

    pub(crate) fn under_way(&self) -> usize {
        self.wires.len()
    }

    pub(crate) fn own(&self, node: usize) -> Entries {
        let own = self.nodes[node].owned.own();
        own.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// What a node sees of another, in all its lives.
    pub(crate) fn seen(&self, at: usize, other: usize) -> Entries {
        let name = self.nodes[other].id.name;
        let lives = self.nodes[at].seen.iter().filter(|(id, _)| id.name == name);
        lives.flat_map(|(_, entries)| entries.clone()).collect()
    }

    /// Whether an owner knows that a reader has read what there was when it came up.
    pub(crate) fn has_read(&self, reader: usize, owner: usize) -> bool {
        self.nodes[owner].owned.has_read(&self.nodes[reader].id)
    }

    pub(crate) fn changes(&self, at: usize) -> usize {
        self.nodes[at].changes
    }

    pub(crate) fn violations(&self, at: usize) -> usize {
        self.nodes[at].violations
    }
}
