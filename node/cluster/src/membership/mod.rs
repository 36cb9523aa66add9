//! Who is a member, who is down.
//!
//! SWIM by foca, inside; what foca 2.0 lacks, around it:
//!
//! - **Joining** goes over streams: whoever connects sends all it knows and gets all the other
//!   knows, those that are down included, before the first datagram counts. Seeds are dialed again
//!   until somebody answers, and from time to time after.
//! - **Down is for ever**: a life that was declared down is quarantined; what it still sends is
//!   answered with the end of its link, which tells it. A node learns it so, and comes back under a
//!   new creation.
//! - **Who comes back** when two sides hold each other for dead: the one that sees fewer members,
//!   and of two equal ones the larger name.
//! - **Anti-entropy**: digests are compared, two seconds after a change and every half minute.
//! - **Stalls**: a node whose own timers are late puts off all that waits by as much, so it accuses
//!   nobody for what it slept through.
//! - **Hints**: a closed port starts an immediate confirmation; see [`config`]. A hint alone does
//!   nothing, and any packet from the member ends it.
//! - **Restarts** are seen at the hello of the new life: the old one is down before the new is up.

mod config;
mod types;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use foca::{Foca, NoCustomBroadcast, Notification, Timer};
use purlin_proto::limits::STATE_BYTES;
use purlin_proto::{Labels, NodeId, NodeName, Refusal, codec};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_64;

pub use config::Config;
use config::{
    CONFIRM_EVERY, CONFIRM_PROBES, HEAL_EVERY, JOIN_EVERY, PROVOKE_EVERY, PROVOKED, REMEMBERED,
    SCAN_EVERY, SEEDS, SYNC_AFTER_CHANGE, SYNC_EVERY,
};
pub use types::{Event, Input, Me, Member, Output, State, Time, Why};
use wire::{FocaCodec, Life, Said};

/// The membership of one node.
pub struct Membership {
    config: Config,
    me: Me,
    foca: Foca<Life, FocaCodec, StdRng, NoCustomBroadcast>,
    chance: StdRng,
    members: BTreeMap<NodeName, Member>,
    /// Lives that are over, as far as this life of this node is concerned.
    quarantine: BTreeSet<NodeId>,
    labels: BTreeMap<NodeId, Labels>,
    seeds: Vec<SocketAddr>,
    confirming: BTreeMap<NodeName, Confirmation>,
    jobs: BTreeMap<(Time, u64), Job>,
    job_number: u64,
    outputs: VecDeque<Output>,
    /// Why the next life to go down does, if it is not silence.
    why: Option<Why>,
    sync_due: Option<Time>,
    reincarnating: bool,
    left: bool,
}

#[derive(Debug)]
enum Job {
    Foca(Timer<Life>),
    Join,
    Sync,
    Scan,
    Provoke,
    /// The number tells it from jobs of an earlier confirmation.
    Confirm(NodeName, u64),
}

/// A hint that is being confirmed.
#[derive(Debug)]
struct Confirmation {
    id: NodeId,
    number: u64,
    probes: u32,
    /// Hints since the first probe.
    hints: u32,
}

/// Takes what foca wants, to be worked off when foca is done.
#[derive(Default)]
struct Wishes {
    datagrams: Vec<(Life, Bytes)>,
    timers: Vec<(Timer<Life>, Time)>,
    changes: Vec<Change>,
}

enum Change {
    Up(Life),
    Down(Life),
    Rename(Life, Life),
    Defunct,
}

impl foca::Runtime<Life> for &mut Wishes {
    fn notify(&mut self, notification: Notification<'_, Life>) {
        match notification {
            Notification::MemberUp(life) => self.changes.push(Change::Up(*life)),
            Notification::MemberDown(life) => self.changes.push(Change::Down(*life)),
            Notification::Rename(old, new) => self.changes.push(Change::Rename(*old, *new)),
            Notification::Defunct => self.changes.push(Change::Defunct),
            _ => {}
        }
    }

    fn send_to(&mut self, to: Life, data: &[u8]) {
        self.datagrams.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Life>, after: Time) {
        self.timers.push((event, after));
    }
}

impl Membership {
    /// A node that knows nobody yet.
    pub fn new(config: Config, me: Me, seed: u64, now: Time) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let foca = new_foca(&config, &me, &mut chance);
        let mut membership = Self {
            config,
            foca,
            chance,
            members: BTreeMap::new(),
            quarantine: BTreeSet::new(),
            labels: BTreeMap::from([(me.id, me.labels.clone())]),
            seeds: Vec::new(),
            confirming: BTreeMap::new(),
            jobs: BTreeMap::new(),
            job_number: 0,
            outputs: VecDeque::new(),
            why: None,
            sync_due: None,
            reincarnating: false,
            left: false,
            me,
        };
        membership.note_me(now);
        membership.schedule(now + SCAN_EVERY, Job::Scan);
        membership.schedule(now + SYNC_EVERY, Job::Sync);
        membership.schedule(now + PROVOKE_EVERY, Job::Provoke);
        membership
    }

    fn note_me(&mut self, now: Time) {
        let Me { id, address, labels } = self.me.clone();
        let member = Member { id, address, labels, state: State::Up, since: now };
        self.members.insert(id.name, member);
    }

    /// This node.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// Every member that is known, this node included, by name; also those that are down or left.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// What is known of a node.
    pub fn member(&self, name: NodeName) -> Option<&Member> {
        self.members.get(&name)
    }

    /// The names of those that are up or suspect, this node included.
    pub fn live(&self) -> impl Iterator<Item = NodeName> {
        self.members.values().filter(|m| m.state.is_live()).map(|m| m.id.name)
    }

    /// How many members are up or suspect, this node included.
    pub fn view(&self) -> u32 {
        u32::try_from(self.live().count()).unwrap_or(u32::MAX)
    }

    /// Whether a life that says hello may connect.
    pub fn admit(&self, id: NodeId, address: SocketAddr) -> Result<(), Refusal> {
        if self.quarantine.contains(&id) {
            return Err(Refusal::DeclaredDown { view: self.view() });
        }
        match self.members.get(&id.name) {
            Some(known) if known.id.creation > id.creation => {
                Err(Refusal::Superseded { newest: known.id.creation })
            }
            Some(known)
                if known.id != id && known.state == State::Up && known.address != address =>
            {
                Err(Refusal::NameTaken { name: id.name, address: known.address })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn next_wake(&self) -> Option<Time> {
        self.jobs.keys().next().map(|(due, _)| *due)
    }

    /// Something happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Tick => self.tick(now),
            Input::Join { mut seeds } => {
                seeds.truncate(SEEDS);
                self.seeds = seeds;
                self.join(now);
            }
            Input::Connected { peer, address } => self.connected(now, Life { id: peer, address }),
            Input::Datagram { from, bytes } => self.datagram(now, from, &bytes),
            Input::State { from, bytes } => self.state(now, from, &bytes),
            Input::Heard { peer } => {
                if self.confirming.get(&peer.name).is_some_and(|c| c.id == peer) {
                    self.confirming.remove(&peer.name);
                }
            }
            Input::UnreachableHint { address } => self.hint(now, address),
            Input::Stopping { peer } => self.leaving(now, peer),
            Input::DeclaredDown { creation, by, view } => {
                if creation == self.me.id.creation {
                    self.declared_down(by, view);
                }
            }
            Input::Superseded { newest } => self.reincarnate(newest.saturating_add(1)),
            Input::Leave => self.leave(),
        }
    }

    /// This node has a new creation; it sees everyone anew, and joins again.
    pub fn reincarnated(&mut self, now: Time, id: NodeId) {
        let before = std::mem::take(&mut self.members);
        for member in before.values().filter(|m| m.state.is_live() && m.id != self.me.id) {
            let down = Event::Down { id: member.id, why: Why::Rejoining };
            self.outputs.push_back(Output::Event(down));
        }
        let known = before.values().filter(|m| m.id != self.me.id).map(|m| m.address);
        for address in known.collect::<Vec<_>>() {
            if !self.seeds.contains(&address) && self.seeds.len() < SEEDS {
                self.seeds.push(address);
            }
        }
        self.me.id = id;
        self.foca = new_foca(&self.config, &self.me, &mut self.chance);
        self.jobs.retain(|_, job| !matches!(job, Job::Foca(_)));
        self.quarantine.clear();
        self.confirming.clear();
        self.labels = BTreeMap::from([(id, self.me.labels.clone())]);
        self.reincarnating = false;
        self.note_me(now);
        self.join(now);
    }

    // ----- time -----

    fn schedule(&mut self, due: Time, job: Job) {
        self.job_number += 1;
        self.jobs.insert((due, self.job_number), job);
    }

    fn tick(&mut self, now: Time) {
        if let Some(due) = self.next_wake()
            && now.saturating_sub(due) > self.config.lag_limit()
        {
            self.put_off(now.saturating_sub(due));
        }
        while let Some(entry) = self.jobs.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let job = entry.remove();
            self.run(now, job);
        }
    }

    /// This node was stalled for so long: nothing that waited meanwhile may count it.
    fn put_off(&mut self, lag: Time) {
        let late = std::mem::take(&mut self.jobs);
        self.jobs = late.into_iter().map(|((due, n), job)| ((due + lag, n), job)).collect();
        self.confirming.clear();
    }

    fn run(&mut self, now: Time, job: Job) {
        match job {
            Job::Foca(timer) => {
                self.with_foca(now, |foca, wishes| foca.handle_timer(timer, wishes));
            }
            Job::Join => self.join(now),
            Job::Scan => self.scan(now),
            Job::Provoke => self.provoke(now),
            Job::Sync => {
                self.sync();
                let jitter = self.chance.random_range(0.9..1.1);
                self.schedule(now + SYNC_EVERY.mul_f64(jitter), Job::Sync);
            }
            Job::Confirm(name, number) => self.confirm(now, name, number),
        }
    }

    // ----- joining -----

    fn join(&mut self, now: Time) {
        if self.left {
            return;
        }
        self.jobs.retain(|_, job| !matches!(job, Job::Join));
        let live: BTreeSet<_> =
            self.members.values().filter(|m| m.state.is_live()).map(|m| m.address).collect();
        let alone = live.len() <= 1;
        let down = self.members.values().filter(|m| m.state == State::Down).map(|m| m.address);
        let mut candidates: BTreeSet<_> = down.collect();
        candidates.extend(&self.seeds);
        for address in candidates.into_iter().filter(|address| !live.contains(address)) {
            self.outputs.push_back(Output::Dial { address });
        }
        let jitter = self.chance.random_range(0.8..1.2);
        let every = if alone { JOIN_EVERY } else { HEAL_EVERY };
        self.schedule(now + every.mul_f64(jitter), Job::Join);
    }

    fn connected(&mut self, now: Time, life: Life) {
        if self.quarantine.contains(&life.id) {
            self.disconnect(life.id);
            return;
        }
        // The certificate proves that this life lives: the older one is over.
        self.with_foca(now, |foca, wishes| {
            let alive = foca::Member::alive(life);
            foca.apply_many(std::iter::once(alive), true, wishes)
        });
        self.say_full(life.id, true);
    }

    fn say(&mut self, to: NodeId, said: &Said) {
        match codec::to_bytes(said) {
            Ok(bytes) if bytes.len() <= STATE_BYTES => {
                self.outputs.push_back(Output::State { to, bytes });
            }
            Ok(bytes) => tracing::error!(bytes = bytes.len(), "membership state too large"),
            Err(error) => tracing::error!(%error, "membership state not encodable"),
        }
    }

    fn say_full(&mut self, to: NodeId, answer: bool) {
        let mut members: Vec<_> = self.foca.iter_membership_state().cloned().collect();
        members.push(foca::Member::alive(*self.foca.identity()));
        let labels = self.labels.iter().map(|(id, labels)| (*id, labels.clone())).collect();
        self.say(to, &Said::Full { members, labels, answer });
    }

    // ----- what comes in -----

    fn datagram(&mut self, now: Time, from: NodeId, bytes: &[u8]) {
        if self.quarantine.contains(&from) {
            self.disconnect(from);
            return;
        }
        // Who speaks is proved by the connection; nobody speaks for another.
        if wire::source(bytes).is_none_or(|life| life.id != from) {
            tracing::debug!(%from, "gossip that is malformed or not its own");
            return;
        }
        self.confirming.remove(&from.name);
        self.with_foca(now, |foca, wishes| foca.handle_data(bytes, wishes));
    }

    fn state(&mut self, now: Time, from: NodeId, bytes: &[u8]) {
        if self.quarantine.contains(&from) {
            self.disconnect(from);
            return;
        }
        match codec::from_bytes::<Said>(bytes, STATE_BYTES) {
            Ok(Said::Full { members, labels, answer }) => {
                self.learn_labels(labels);
                self.with_foca(now, |foca, wishes| {
                    foca.apply_many(members.into_iter(), true, wishes)
                });
                if answer {
                    self.say_full(from, false);
                }
            }
            Ok(Said::Digest(theirs)) => {
                if theirs != self.digest() {
                    self.say_full(from, true);
                }
            }
            Ok(Said::Leaving) => self.leaving(now, from),
            Err(error) => tracing::warn!(%from, %error, "malformed membership state"),
        }
    }

    fn learn_labels(&mut self, labels: Vec<(NodeId, Labels)>) {
        for (id, labels) in labels {
            if id == self.me.id || purlin_proto::hello::check_labels(&labels).is_err() {
                continue;
            }
            if self.labels.get(&id) == Some(&labels) {
                continue;
            }
            if let Some(member) = self.members.get_mut(&id.name).filter(|m| m.id == id) {
                member.labels = labels.clone();
                self.outputs.push_back(Output::Event(Event::Labels(id)));
            }
            self.labels.insert(id, labels);
        }
        let bound = 2 * REMEMBERED.max(self.members.len());
        while self.labels.len() > bound {
            self.labels.pop_first();
        }
    }

    // ----- foca -----

    fn with_foca(
        &mut self,
        now: Time,
        run: impl FnOnce(
            &mut Foca<Life, FocaCodec, StdRng, NoCustomBroadcast>,
            &mut Wishes,
        ) -> Result<(), foca::Error>,
    ) {
        let mut wishes = Wishes::default();
        if let Err(error) = run(&mut self.foca, &mut wishes) {
            tracing::debug!(%error, "membership input not taken");
        }
        for (timer, after) in wishes.timers {
            self.schedule(now + after, Job::Foca(timer));
        }
        for change in wishes.changes {
            match change {
                Change::Up(life) => self.up(now, life),
                Change::Down(life) => self.down(now, life.id),
                Change::Rename(old, new) => {
                    self.why = Some(Why::Restarted);
                    self.down(now, old.id);
                    self.why = None;
                    self.up(now, new);
                }
                // Others say that we are down.
                Change::Defunct => self.reincarnate(self.me.id.creation.saturating_add(1)),
            }
        }
        for (to, bytes) in wishes.datagrams {
            let Life { id, address } = to;
            self.outputs.push_back(Output::Datagram { to: id, address, bytes });
        }
    }

    fn up(&mut self, now: Time, life: Life) {
        if self.quarantine.contains(&life.id) || life.id.name == self.me.id.name {
            return;
        }
        match self.members.get(&life.id.name) {
            Some(known) if known.id == life.id && known.state.is_live() => return,
            Some(known) if known.id.creation > life.id.creation => return,
            Some(known) if known.id != life.id && known.state.is_live() => {
                let old = known.id;
                self.why = Some(Why::Restarted);
                self.down(now, old);
                self.why = None;
            }
            Some(_) | None => {}
        }
        let labels = self.labels.get(&life.id).cloned().unwrap_or_default();
        let Life { id, address } = life;
        let member = Member { id, address, labels, state: State::Up, since: now };
        self.members.insert(id.name, member.clone());
        self.outputs.push_back(Output::Event(Event::Up(member)));
        self.sync_soon(now);
    }

    fn down(&mut self, now: Time, id: NodeId) {
        self.confirming.remove(&id.name);
        self.quarantine.insert(id);
        if let Some(member) = self.members.get_mut(&id.name).filter(|m| m.id == id) {
            if !member.state.is_live() {
                return;
            }
            (member.state, member.since) = (State::Down, now);
            let why = self.why.unwrap_or(Why::Silent);
            self.outputs.push_back(Output::Event(Event::Down { id, why }));
            self.disconnect(id);
            self.sync_soon(now);
            self.forget_oldest();
        }
    }

    fn disconnect(&mut self, peer: NodeId) {
        self.outputs.push_back(Output::Disconnect { peer, view: self.view() });
    }

    /// Keeps what is remembered of lives that are over within bounds.
    fn forget_oldest(&mut self) {
        let over = |m: &&Member| !m.state.is_live();
        while self.members.values().filter(over).count() > REMEMBERED {
            let oldest = self.members.values().filter(over).min_by_key(|m| m.since);
            let Some(name) = oldest.map(|m| m.id.name) else { return };
            self.members.remove(&name);
        }
        while self.quarantine.len() > 4 * REMEMBERED {
            let oldest = self.quarantine.iter().min_by_key(|id| id.creation).copied();
            let Some(oldest) = oldest else { return };
            self.quarantine.remove(&oldest);
        }
    }

    /// Looks which members have come under suspicion, or have refuted it.
    fn scan(&mut self, now: Time) {
        let states: Vec<_> = self
            .foca
            .iter_members()
            .map(|member| (member.id().id, member.state() == foca::State::Suspect))
            .collect();
        for (id, suspect) in states {
            let Some(member) = self.members.get_mut(&id.name).filter(|m| m.id == id) else {
                continue;
            };
            let (state, event) = match (member.state, suspect) {
                (State::Up, true) => (State::Suspect, Event::Suspect(id)),
                (State::Suspect, false) => (State::Up, Event::Alive(id)),
                (State::Up | State::Suspect | State::Down | State::Left, _) => continue,
            };
            (member.state, member.since) = (state, now);
            self.outputs.push_back(Output::Event(event));
        }
        if self.sync_due.is_some_and(|due| due <= now) {
            self.sync_due = None;
            self.sync();
        }
        self.schedule(now + SCAN_EVERY, Job::Scan);
    }

    // ----- anti-entropy -----

    fn sync_soon(&mut self, now: Time) {
        self.sync_due.get_or_insert(now + SYNC_AFTER_CHANGE);
    }

    fn sync(&mut self) {
        let others = self.members.values().filter(|m| m.state.is_live() && m.id != self.me.id);
        let others: Vec<_> = others.map(|m| m.id).collect();
        if others.is_empty() {
            return;
        }
        let chosen = others[self.chance.random_range(0..others.len())];
        self.say(chosen, &Said::Digest(self.digest()));
    }

    fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        for member in self.members.values().filter(|m| m.state.is_live()) {
            bytes.extend_from_slice(member.id.to_string().as_bytes());
            bytes.push(0);
        }
        xxh3_64(&bytes)
    }

    // ----- hints -----

    /// Makes some members send a packet; if the port of one is closed, its host will say so.
    fn provoke(&mut self, now: Time) {
        let others = self.members.values().filter(|m| m.state.is_live() && m.id != self.me.id);
        let mut others: Vec<_> = others.map(|m| (m.id, m.address)).collect();
        for _ in 0..PROVOKED.min(others.len()) {
            let chosen = self.chance.random_range(0..others.len());
            let (to, address) = others.swap_remove(chosen);
            self.outputs.push_back(Output::Probe { to, address });
        }
        self.schedule(now + PROVOKE_EVERY, Job::Provoke);
    }

    fn hint(&mut self, now: Time, address: SocketAddr) {
        let found = self.members.values().find(|m| m.address == address && m.state.is_live());
        let Some(id) = found.map(|member| member.id).filter(|&id| id != self.me.id) else { return };
        match self.confirming.get_mut(&id.name) {
            Some(confirmation) => confirmation.hints += 1,
            None => {
                let number = self.job_number;
                let confirmation = Confirmation { id, number, probes: 1, hints: 0 };
                self.confirming.insert(id.name, confirmation);
                self.outputs.push_back(Output::Probe { to: id, address });
                self.schedule(now + CONFIRM_EVERY, Job::Confirm(id.name, number));
            }
        }
    }

    fn confirm(&mut self, now: Time, name: NodeName, number: u64) {
        let confirmation = self.confirming.get_mut(&name).filter(|c| c.number == number);
        let Some(confirmation) = confirmation else { return };
        let id = confirmation.id;
        let member = self.members.get(&name).filter(|m| m.id == id && m.state.is_live());
        let Some(address) = member.map(|m| m.address) else {
            self.confirming.remove(&name);
            return;
        };
        if confirmation.probes < CONFIRM_PROBES {
            confirmation.probes += 1;
            self.outputs.push_back(Output::Probe { to: id, address });
            self.schedule(now + CONFIRM_EVERY, Job::Confirm(name, number));
            return;
        }
        let closed = confirmation.hints > 0;
        self.confirming.remove(&name);
        if closed {
            self.declare_down(now, Life { id, address }, Why::PortClosed);
        }
    }

    fn declare_down(&mut self, now: Time, life: Life, why: Why) {
        self.why = Some(why);
        self.with_foca(now, |foca, wishes| {
            foca.apply_many(std::iter::once(foca::Member::down(life)), true, wishes)
        });
        self.why = None;
    }

    // ----- leaving, and coming back -----

    fn leaving(&mut self, now: Time, id: NodeId) {
        let Some(member) = self.members.get_mut(&id.name).filter(|m| m.id == id) else { return };
        if !member.state.is_live() {
            return;
        }
        (member.state, member.since) = (State::Left, now);
        let address = member.address;
        self.quarantine.insert(id);
        self.outputs.push_back(Output::Event(Event::Left(id)));
        self.declare_down(now, Life { id, address }, Why::Silent);
        self.sync_soon(now);
        self.forget_oldest();
    }

    fn leave(&mut self) {
        self.left = true;
        let others = self.members.values().filter(|m| m.state.is_live() && m.id != self.me.id);
        for id in others.map(|m| m.id).collect::<Vec<_>>() {
            self.say(id, &Said::Leaving);
        }
        // foca's own farewell would come first, as gossip, and look like any other death.
        self.jobs.clear();
    }

    /// Somebody holds this life for dead: who of the two comes back?
    fn declared_down(&mut self, by: Option<NodeId>, view: u32) {
        let mutual = by.filter(|by| self.quarantine.contains(by));
        let we_come_back = match mutual {
            None => true,
            Some(by) => (self.view(), by.name) < (view, self.me.id.name),
        };
        if we_come_back {
            self.reincarnate(self.me.id.creation.saturating_add(1));
        }
    }

    fn reincarnate(&mut self, at_least: u64) {
        if !self.reincarnating && !self.left {
            self.reincarnating = true;
            self.outputs.push_back(Output::Reincarnate { at_least });
        }
    }
}

fn new_foca(
    config: &Config,
    me: &Me,
    chance: &mut StdRng,
) -> Foca<Life, FocaCodec, StdRng, NoCustomBroadcast> {
    let life = Life { id: me.id, address: me.address };
    let chance = StdRng::seed_from_u64(chance.random());
    Foca::new(life, config.foca(), chance, FocaCodec)
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("me", &self.me)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}
