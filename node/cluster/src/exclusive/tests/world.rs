//! Nodes, voters, their clocks and roads, and what happens to them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::{NodeId, NodeName};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{AuthorityId, Grant, Holder, Keeper, Renewal, RingView, Shard, Times};
use crate::membership::Time;
use crate::ring::Ring;

const STEP: Duration = Duration::from_millis(20);
const DETECT: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_millis(500);
const KEYS: u16 = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    None,
    NoBarrier,
    NoEpoch,
}

/// Which key's shard.
fn shard(key: u16) -> u16 {
    key * 677 % crate::SHARDS
}

struct Process {
    epoch: u64,
    /// When it ends by itself, if it has been told to.
    ends: Option<Time>,
}

struct Leader {
    keeper: Keeper,
    term: u64,
    /// Renewals that wait for the majority, and when it is asked.
    waiting: Vec<(Time, NodeId, Renewal)>,
    /// Confirmed, to be answered at a time.
    confirmed: Vec<(Time, NodeId, Renewal)>,
}

struct Node {
    id: NodeId,
    holder: Holder,
    rate: f64,
    /// Its clock when the world began.
    offset: Duration,
    frozen: bool,
    dead: bool,
    /// It is about to leave, and does so at this time.
    leaves_at: Option<Time>,
    renew_at: Time,
    /// From then on nothing here may run, by its clock; as a runtime keeps it.
    hard: Time,
    processes: BTreeMap<u16, Process>,
    promised: u64,
    leader: Option<Leader>,
    /// Since when it has heard nothing of each other node.
    heard: BTreeMap<NodeName, Time>,
    election_at: Time,
    follows: Option<usize>,
}

impl Node {
    fn clock(&self, now: Time) -> Time {
        self.offset + now.mul_f64(self.rate)
    }

    fn die(&mut self) {
        self.dead = true;
        self.frozen = false;
        self.processes.clear();
        self.leader = None;
    }
}

enum Message {
    Renewal(NodeId, Renewal),
    Drains(NodeId),
    Grant(Grant),
    View(RingView),
}

pub(super) struct World {
    chance: StdRng,
    now: Time,
    nodes: Vec<Node>,
    voters: usize,
    log: Vec<RingView>,
    times: Times,
    authority: AuthorityId,
    mutant: Mutant,
    cut: BTreeSet<(usize, usize)>,
    post: BTreeMap<(Time, u64), (usize, usize, Message)>,
    posted: u64,
    next_fault: Time,
    /// The highest epoch that each key has run under.
    highest: BTreeMap<u16, u64>,
    pub(super) duplicates: Vec<String>,
    pub(super) fallen: Vec<String>,
    pub(super) acts: u64,
}

fn name(index: usize) -> NodeName {
    NodeName::new(&format!("n{index}")).unwrap()
}

impl World {
    pub(super) fn new(seed: u64, mutant: Mutant) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let count = if chance.random_bool(0.5) { 3 } else { chance.random_range(4..8) };
        let authority = AuthorityId { founded: 100, founder: name(0) };
        let times = Times::new(DETECT);
        let mut nodes = Vec::new();
        for index in 0..count {
            let id = NodeId::new(name(index), 1);
            nodes.push(Node {
                id,
                holder: holder(id, authority, times, mutant, 0),
                rate: chance.random_range(0.96..1.04),
                offset: Duration::from_secs(chance.random_range(0..1_000)),
                frozen: false,
                dead: false,
                leaves_at: None,
                renew_at: Duration::from_millis(chance.random_range(0..500)),
                hard: Duration::ZERO,
                processes: BTreeMap::new(),
                promised: 0,
                leader: None,
                heard: BTreeMap::new(),
                election_at: Duration::from_millis(chance.random_range(0..1_000)),
                follows: None,
            });
        }
        let log = vec![RingView { epoch: 100, members: vec![nodes[0].id] }];
        let voters = if count >= 5 { 5 } else { 3 };
        Self {
            chance,
            now: Duration::ZERO,
            nodes,
            voters,
            log,
            times,
            authority,
            mutant,
            cut: BTreeSet::new(),
            post: BTreeMap::new(),
            posted: 0,
            next_fault: Duration::from_secs(8),
            highest: BTreeMap::new(),
            duplicates: Vec::new(),
            fallen: Vec::new(),
            acts: 0,
        }
    }

    fn view(&self) -> RingView {
        self.log.last().unwrap().clone()
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    fn runs(&self, index: usize) -> bool {
        !self.nodes[index].frozen && !self.nodes[index].dead
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if self.chance.random_bool(0.03) {
            return;
        }
        let mut delay = Duration::from_micros(self.chance.random_range(300..40_000));
        if self.chance.random_bool(0.03) {
            delay += Duration::from_millis(self.chance.random_range(0..3_000));
        }
        self.posted += 1;
        self.post.insert((self.now + delay, self.posted), (from, to, message));
    }

    // ----- faults -----

    pub(super) fn run_faults(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            if self.now >= self.next_fault {
                let drains = self.fault();
                // What happens while keys move is what may go wrong.
                let soon = drains && self.chance.random_bool(0.6);
                let pause = self.chance.random_range(if soon { 20..600 } else { 500..9_000 });
                self.next_fault = self.now + Duration::from_millis(pause);
            }
            self.step();
        }
    }

    pub(super) fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.step();
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        for index in 0..self.nodes.len() {
            self.nodes[index].frozen = false;
            if self.nodes[index].dead || self.nodes[index].leaves_at.is_some() {
                self.restart(index);
            }
        }
    }

    /// Something happens; whether it is that a node begins to drain.
    fn fault(&mut self) -> bool {
        let count = self.nodes.len();
        let index = self.chance.random_range(0..count);
        match self.chance.random_range(0..11) {
            0 => self.nodes[index].die(),
            1 if self.nodes[index].dead => self.restart(index),
            2 | 3 => self.nodes[index].frozen = !self.nodes[index].dead,
            4 => self.nodes.iter_mut().for_each(|node| node.frozen = false),
            5 | 6 => {
                let side: BTreeSet<_> =
                    (0..count).filter(|_| self.chance.random_bool(0.4)).collect();
                for a in 0..count {
                    for b in (0..count).filter(|b| side.contains(b) != side.contains(&a)) {
                        self.cut.insert((a, b));
                    }
                }
            }
            7 => {
                let other = self.chance.random_range(0..count);
                self.cut.insert((index, other));
            }
            8 | 9 => {
                let takes = Duration::from_millis(self.chance.random_range(100..6_000));
                self.nodes[index].leaves_at.get_or_insert(self.now + takes);
                return true;
            }
            _ => self.cut.clear(),
        }
        false
    }

    /// The node's disk is kept: it remembers what it has promised.
    fn restart(&mut self, index: usize) {
        let (now, authority, times, mutant) = (self.now, self.authority, self.times, self.mutant);
        let node = &mut self.nodes[index];
        node.id = NodeId::new(node.id.name, node.id.creation + 1);
        node.holder = holder(node.id, authority, times, mutant, 0);
        node.dead = false;
        node.leaves_at = None;
        node.processes.clear();
        node.hard = Duration::ZERO;
        node.leader = None;
        node.heard.clear();
        node.renew_at = now;
    }

    // ----- time -----

    fn step(&mut self) {
        self.now += STEP;
        while let Some((&(at, number), _)) = self.post.first_key_value() {
            if at > self.now {
                break;
            }
            let (from, to, message) = self.post.remove(&(at, number)).unwrap();
            if !self.runs(to) {
                // A frozen node finds it when it thaws.
                if self.nodes[to].frozen {
                    let later = self.now + STEP;
                    self.post.insert((later, number), (from, to, message));
                }
                continue;
            }
            if self.reaches(from, to) {
                self.receive(from, to, message);
            }
        }
        for index in 0..self.nodes.len() {
            if self.runs(index) {
                self.vote(index);
                self.lead(index);
                self.renew(index);
                self.leave(index);
                self.work(index);
            }
        }
        self.look();
    }

    fn receive(&mut self, from: usize, to: usize, message: Message) {
        let now = self.now;
        let node = &mut self.nodes[to];
        let clock = node.clock(now);
        match message {
            Message::Renewal(id, renewal) => {
                let ask = Duration::from_millis(self.chance.random_range(0..120));
                if let Some(leader) = &mut node.leader {
                    leader.waiting.push((now + ask, id, renewal));
                }
            }
            Message::Drains(id) => {
                if let Some(leader) = &mut node.leader {
                    leader.keeper.drains(clock, id);
                }
            }
            Message::Grant(grant) => {
                node.follows = Some(from);
                node.holder.granted(clock, &grant);
                node.hard = node.hard.max(node.holder.runs_until().unwrap_or_default());
            }
            Message::View(view) => {
                node.holder.install(&view);
            }
        }
    }

    // ----- voters -----

    fn majority(&mut self, index: usize, term: u64) -> bool {
        let reached: Vec<_> = (0..self.voters)
            .filter(|&v| {
                v == index || self.runs(v) && self.reaches(index, v) && self.reaches(v, index)
            })
            .filter(|&v| self.nodes[v].promised <= term)
            .collect();
        if reached.len() * 2 <= self.voters {
            return false;
        }
        for voter in reached {
            self.nodes[voter].promised = term;
            // Who is heard of as a leader is left alone for a while.
            let patience = Duration::from_millis(self.chance.random_range(800..2_000));
            self.nodes[voter].election_at = self.now + patience;
        }
        true
    }

    fn vote(&mut self, index: usize) {
        if index >= self.voters {
            return;
        }
        if self.nodes[index].leader.is_some() || self.now < self.nodes[index].election_at {
            return;
        }
        let term = self.nodes.iter().take(self.voters).map(|node| node.promised).max().unwrap() + 1;
        let patience = Duration::from_millis(self.chance.random_range(800..2_000));
        self.nodes[index].election_at = self.now + patience;
        if self.majority(index, term) {
            let clock = self.nodes[index].clock(self.now);
            let mut keeper = Keeper::new(self.authority, self.times, clock);
            keeper.without_barrier = self.mutant == Mutant::NoBarrier;
            let (waiting, confirmed) = (Vec::new(), Vec::new());
            self.nodes[index].leader = Some(Leader { keeper, term, waiting, confirmed });
        }
    }

    fn lead(&mut self, index: usize) {
        let Some(mut leader) = self.nodes[index].leader.take() else { return };
        let now = self.now;
        let clock = self.nodes[index].clock(now);
        let due: Vec<_> = leader.waiting.extract_if(.., |(at, ..)| *at <= now).collect();
        let beat = self.chance.random_bool(0.2);
        let confirmed = (beat || !due.is_empty()) && self.majority(index, leader.term);
        // Its log is the newest as long as nobody else leads.
        let view = self.view();
        if confirmed {
            let live = self.live(index);
            if let Some(next) = leader.keeper.next(clock, &view, &live) {
                self.log.push(next);
            }
            for (_, from, renewal) in due {
                let answer = Duration::from_millis(self.chance.random_range(0..60));
                leader.confirmed.push((now + answer, from, renewal));
            }
        } else if self.nodes.iter().take(self.voters).any(|node| node.promised > leader.term)
            && beat
        {
            // It hears of the newer leader some time.
            return;
        }
        let view = self.view_of(leader.term, index);
        let ready: Vec<_> = leader.confirmed.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, from, renewal) in ready {
            let grant = leader.keeper.answer(clock, from, &renewal, &view);
            let to = self.nodes.iter().position(|node| node.id.name == from.name).unwrap();
            if self.nodes[to].id == from {
                self.send(index, to, Message::Grant(grant));
            }
            if self.mutant == Mutant::NoEpoch {
                self.send(index, to, Message::View(view.clone()));
            }
        }
        self.nodes[index].leader = Some(leader);
    }

    /// What a leader has applied: all, unless it has been deposed without knowing; then perhaps not
    /// the newest.
    fn view_of(&mut self, term: u64, _: usize) -> RingView {
        let deposed = self.nodes.iter().take(self.voters).any(|node| node.promised > term);
        if deposed && self.log.len() > 1 && self.chance.random_bool(0.5) {
            return self.log[self.log.len() - 2].clone();
        }
        self.view()
    }

    /// The lives that membership takes for live, as one node sees it.
    fn live(&mut self, index: usize) -> BTreeSet<NodeId> {
        let now = self.now;
        let mut live = BTreeSet::from([self.nodes[index].id]);
        for other in 0..self.nodes.len() {
            let id = self.nodes[other].id;
            let reached = self.runs(other) && self.reaches(other, index);
            let since = self.nodes[index].heard.entry(id.name).or_insert(now);
            if reached {
                *since = now;
            }
            // Now and then it is wrong.
            if now.saturating_sub(*since) < DETECT && !self.chance.random_bool(0.002) {
                live.insert(id);
            }
        }
        live
    }

    // ----- nodes -----

    fn renew(&mut self, index: usize) {
        let clock = self.nodes[index].clock(self.now);
        self.nodes[index].holder.tick(clock);
        if self.now < self.nodes[index].renew_at {
            return;
        }
        self.nodes[index].renew_at = self.now + RENEW;
        let id = self.nodes[index].id;
        // One that is believed to lead, or any.
        let believed = self.nodes[index].follows.filter(|_| self.chance.random_bool(0.8));
        let any = self.chance.random_range(0..self.voters);
        let drains = self.nodes[index].leaves_at.is_some();
        if let Some(renewal) = self.nodes[index].holder.renew(clock) {
            for to in BTreeSet::from([believed.unwrap_or(any), any]) {
                if drains {
                    self.send(index, to, Message::Drains(id));
                }
                self.send(index, to, Message::Renewal(id, renewal.clone()));
            }
        }
    }

    /// One that was to leave does: its processes have ended, and it gives its lease back.
    fn leave(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.leaves_at.is_none_or(|at| self.now < at) {
            return;
        }
        let (id, renewal) = (node.id, node.holder.leave());
        node.die();
        for to in 0..self.voters {
            self.send(index, to, Message::Renewal(id, renewal.clone()));
        }
    }

    /// Starts, runs and ends processes as a runtime does.
    fn work(&mut self, index: usize) {
        let now = self.now;
        let slow = Duration::from_millis(self.chance.random_range(0..600));
        let node = &mut self.nodes[index];
        let clock = node.clock(now);
        node.holder.tick(clock);
        if clock >= node.hard {
            node.processes.clear();
        }
        let all = node.holder.held(clock);
        for key in 0..KEYS {
            let held = matches!(node.holder.shard(clock, shard(key)), Shard::Held { .. });
            assert_eq!(all.has(shard(key)), held, "{now:?}: {key} on {}", node.id);
        }
        let mut ended = Vec::new();
        for (&key, process) in &mut node.processes {
            let held = matches!(node.holder.shard(clock, shard(key)), Shard::Held { .. });
            if !held && process.ends.is_none() {
                process.ends = Some(now + slow);
            }
            if process.ends.is_some_and(|at| now >= at) {
                ended.push(key);
            }
        }
        for key in ended {
            node.processes.remove(&key);
        }
        for key in 0..KEYS {
            if let (false, Shard::Held { epoch }) =
                (node.processes.contains_key(&key), node.holder.shard(clock, shard(key)))
            {
                node.processes.insert(key, Process { epoch, ends: None });
                let highest = self.highest.entry(key).or_default();
                if epoch < *highest {
                    self.fallen
                        .push(format!("{now:?}: {key} on {}: {epoch} after {highest}", node.id));
                }
                *highest = epoch.max(*highest);
            }
        }
        let epoch = node.holder.epoch();
        let settled = node.processes.values().all(|process| process.ends.is_none());
        if node.holder.is_settling() && settled {
            node.holder.settled(epoch);
            node.renew_at = now;
        }
    }

    /// At each instant a key has one process at most that is not frozen.
    fn look(&mut self) {
        for key in 0..KEYS {
            let on: Vec<_> = self
                .nodes
                .iter()
                .filter(|node| !node.frozen && node.processes.contains_key(&key))
                .map(|node| (node.id, node.processes[&key].epoch))
                .collect();
            self.acts += on.len() as u64;
            if on.len() > 1 && self.duplicates.len() < 5 {
                self.duplicates.push(format!("{:?}: key {key} on {on:?}", self.now));
            }
        }
    }

    /// Keys that run nowhere.
    pub(super) fn idle_keys(&self) -> usize {
        let runs = |key: &u16| self.nodes.iter().any(|node| node.processes.contains_key(key));
        (0..KEYS).filter(|key| !runs(key)).count()
    }
}

thread_local! {
    static RINGS: RefCell<BTreeMap<Vec<NodeName>, Arc<Ring>>> = RefCell::default();
}

/// Rings that were built before, since building them would take most of the time.
fn ring_of(members: &[NodeId]) -> Arc<Ring> {
    let names: Vec<_> = members.iter().map(|member| member.name).collect();
    RINGS.with_borrow_mut(|rings| {
        let built = rings.entry(names.clone()).or_insert_with(|| Arc::new(Ring::new(names)));
        Arc::clone(built)
    })
}

fn holder(id: NodeId, authority: AuthorityId, times: Times, mutant: Mutant, seen: u64) -> Holder {
    let mut holder = Holder::new(id, authority, times, seen).with_rings(ring_of);
    holder.without_epoch = mutant == Mutant::NoEpoch;
    holder
}
