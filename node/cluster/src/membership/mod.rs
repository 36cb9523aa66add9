//! Who is a member, who is down.
//!
//! SWIM by foca, inside; what foca 2.0 lacks, around it:
//!
//! - **Joining** ([`join`]) goes over streams: whoever connects sends all it knows and gets all the
//!   other knows, those that are down included, before the first datagram counts. Seeds are dialed
//!   again until somebody answers, and from time to time after.
//! - **Down is for ever** ([`table`]): a life that was declared down is refused; what it still sends
//!   is answered with the end of its link, which tells it. News about itself in gossip do not.
//! - **Who comes back** ([`heal`]) when two lives cannot both go on.
//! - **Anti-entropy** ([`sync`]): digests are compared, two seconds after a change and every half
//!   minute.
//! - **Suspicion** ([`refute`]) is told to its subject face to face, and ends with its answer.
//! - **Stalls**: a node whose own jobs are late puts off all that waited by as much, so it accuses
//!   nobody for what it slept through.
//! - **Health** ([`health`]): a node that hears little doubts itself before it accuses others.
//! - **Hints** ([`hints`]): a closed port starts an immediate confirmation.
//! - **Restarts** are seen at the hello of the new life: the old one is down before the new is up.
//! - **History** ([`history`]): what has happened to each member, for people who ask why.
//! - **Bounds**: what others say never makes this node remember more than
//!   [`MEMBERS`](purlin_proto::limits::MEMBERS) names, or believe in a creation that cannot be.

mod config;
mod heal;
mod health;
mod hints;
mod history;
mod jobs;
mod join;
mod refute;
mod sync;
mod table;
mod types;
mod wire;

#[cfg(test)]
mod mutants;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use foca::{Foca, NoCustomBroadcast, Notification, Timer};
use purlin_proto::limits::CREATION;
use purlin_proto::{NodeId, NodeName};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use config::Config;
use config::{PROVOKE_EVERY, SCAN_EVERY, SEEDS, SYNC_EVERY};
use heal::Meeting;
use health::Health;
use hints::Confirming;
use history::History;
pub use history::{Happened, Noted, Tally};
use jobs::{Job, Jobs};
use table::Table;
pub use types::{Event, Input, Me, Member, Output, State, Time, Why};
use wire::{FocaCodec, Gossip, Life, Update};

type OurFoca = Foca<Life, FocaCodec, StdRng, NoCustomBroadcast>;

/// The membership of one node.
pub struct Membership {
    config: Config,
    me: Me,
    foca: OurFoca,
    chance: StdRng,
    table: Table,
    seeds: Vec<SocketAddr>,
    /// Where others were in an earlier life of this node.
    contacts: BTreeSet<SocketAddr>,
    meeting: Option<Meeting>,
    confirming: Confirming,
    health: Health,
    /// Who is suspect, as the last scan found it.
    suspects: BTreeSet<NodeId>,
    history: History,
    /// Whose news are being taken.
    teller: Option<NodeId>,
    jobs: Jobs,
    outputs: VecDeque<Output>,
    /// Why the next life to go down does, if it is not silence.
    why: Option<Why>,
    sync_due: Option<Time>,
    /// Whether this life has taken the full state of another node.
    synced: bool,
    reincarnating: bool,
    left: bool,
    #[cfg(test)]
    rule: heal::Rule,
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
            Notification::Active | Notification::Idle | Notification::Rejoin(_) => {}
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
        let mut jobs = Jobs::default();
        jobs.schedule(now + SCAN_EVERY, Job::Scan);
        jobs.schedule(now + SYNC_EVERY, Job::Sync);
        jobs.schedule(now + PROVOKE_EVERY, Job::Provoke);
        Self {
            config,
            foca,
            chance,
            table: Table::new(me.member(now)),
            seeds: Vec::new(),
            contacts: BTreeSet::new(),
            meeting: None,
            confirming: Confirming::new(),
            health: Health::new(now),
            suspects: BTreeSet::new(),
            history: History::default(),
            teller: None,
            jobs,
            outputs: VecDeque::new(),
            why: None,
            sync_due: None,
            synced: false,
            reincarnating: false,
            left: false,
            #[cfg(test)]
            rule: heal::Rule::default(),
            me,
        }
    }

    /// This node.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// Every member that is known, this node included, by name; also those that are down or left.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.iter()
    }

    /// What is known of a node.
    pub fn member(&self, name: NodeName) -> Option<&Member> {
        self.table.named(name)
    }

    /// What has happened to a node lately, as this one saw it, the oldest first; of this node itself,
    /// its stalls and what it was accused of.
    pub fn history(&self, name: NodeName) -> impl Iterator<Item = &Noted> {
        self.history.of(name)
    }

    /// How often some of that has happened since this node knows of it.
    pub fn tally(&self, name: NodeName) -> Tally {
        self.history.tally(name)
    }

    /// Whether this life has taken the full state of another node: before that it may know one
    /// member of many.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The names of those that are up or suspect, this node included.
    pub fn live(&self) -> impl Iterator<Item = NodeName> {
        self.table.live().map(|member| member.id.name)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due; `None` after [`Input::Leave`].
    pub fn next_wake(&self) -> Option<Time> {
        self.jobs.next_due()
    }

    /// Something happened. Packets that have come go before a tick that is due: they may be the
    /// answers it waits for.
    pub fn handle(&mut self, now: Time, input: Input) {
        if self.left {
            return;
        }
        self.allow_for_stall(now);
        match input {
            Input::Tick => self.tick(now),
            Input::Join { mut seeds } => {
                seeds.truncate(SEEDS);
                self.seeds = seeds;
                self.join(now);
            }
            Input::Connected { peer, address } => self.connected(now, Life { id: peer, address }),
            Input::Disconnected { peer, why } => {
                if self.table.get(peer).is_some() {
                    self.history.note(now, peer.name, Happened::Disconnected { why });
                }
            }
            Input::Datagram { from, bytes } => {
                self.teller = Some(from);
                self.datagram(now, from, &bytes);
                self.teller = None;
            }
            Input::State { from, bytes } => {
                self.teller = Some(from);
                self.state(now, from, &bytes);
                self.teller = None;
            }
            Input::Heard { peer } => self.heard(now, peer),
            Input::UnreachableHint { address } => self.hint(now, address),
            Input::Stopping { peer } => self.leaving(now, peer),
            Input::DeclaredDown { creation, by, at, view } => {
                if creation == self.me.id.creation && !self.reincarnating {
                    self.declared_down(now, by, Some(at), &view);
                }
            }
            Input::Superseded { newest } => self.superseded(newest),
            Input::Leave => self.leave(),
        }
    }

    // ----- time -----

    /// If jobs are late this node was stalled: nothing that waited meanwhile may count that time.
    /// Before anything else, so that what begins now is not put off as well.
    fn allow_for_stall(&mut self, now: Time) {
        let lag = self.jobs.next_due().map(|due| now.saturating_sub(due));
        if let Some(lag) = lag.filter(|&lag| lag > self.config.lag_limit()) {
            self.jobs.put_off(lag);
            self.health.slept(lag);
            self.confirming.clear();
            self.history.note(now, self.me.id.name, Happened::Stalled(lag));
        }
    }

    fn tick(&mut self, now: Time) {
        while let Some(job) = self.jobs.pop_due(now) {
            self.run(now, job);
        }
    }

    fn run(&mut self, now: Time, job: Job) {
        match job {
            Job::Foca(timer) => self.reminded(now, timer),
            Job::Verdict(timer) => self.remind(now, timer),
            Job::Join => self.join(now),
            Job::Scan => self.scan(now),
            Job::Provoke => self.provoke(now),
            Job::Sync => {
                self.sync(1);
                self.forget(now);
                let jitter = self.chance.random_range(0.9..1.1);
                self.jobs.schedule(now + SYNC_EVERY.mul_f64(jitter), Job::Sync);
            }
            Job::Confirm(name, number) => self.confirm(now, name, number),
        }
    }

    /// Looks which members have come under suspicion, or have refuted it.
    fn scan(&mut self, now: Time) {
        self.see_if_alone(now);
        let suspects = self.foca.iter_members().filter(|m| m.state() == foca::State::Suspect);
        let suspects: BTreeSet<_> = suspects.map(|member| member.id().id).collect();
        let before = std::mem::replace(&mut self.suspects, suspects);
        for &id in before.symmetric_difference(&self.suspects) {
            let Some(entry) = self.table.get_mut(id) else { continue };
            let (state, event) = match (entry.member.state, self.suspects.contains(&id)) {
                (State::Up, true) => (State::Suspect, Event::Suspect(id)),
                (State::Suspect, false) => (State::Up, Event::Alive(id)),
                (State::Up | State::Suspect | State::Down | State::Left, _) => continue,
            };
            (entry.member.state, entry.member.since) = (state, now);
            let by = entry.rumour.take();
            let own = self.history.last(id.name) == Some(&Happened::Suspected { by: None });
            match state {
                State::Suspect if own => {}
                State::Suspect => self.history.note(now, id.name, Happened::Suspected { by }),
                _ => self.history.note(now, id.name, Happened::Alive { by }),
            }
            self.outputs.push_back(Output::Event(event));
        }
        if self.sync_due.is_some_and(|due| due <= now) {
            self.sync_due = None;
            self.sync(1);
        }
        self.jobs.schedule(now + SCAN_EVERY, Job::Scan);
    }

    // ----- foca -----

    fn datagram(&mut self, now: Time, from: NodeId, bytes: &[u8]) {
        if self.table.is_over(from) {
            self.disconnect(from);
            return;
        }
        let gossip = match Gossip::parse(bytes) {
            Ok(gossip) => gossip,
            Err(error) => return self.violation(from, format!("gossip: {error}")),
        };
        self.heard(now, from);
        let Some(address) = self.table.get(from).map(|known| known.address) else {
            tracing::debug!(%from, "gossip of a node that is no member");
            return;
        };
        let (src, dst) = (Life { id: from, address }, *self.foca.identity());
        let Ok(header) = gossip.for_foca(src, dst) else { return };
        self.apply(now, gossip.updates.into_iter());
        if self.table.is_live(from) {
            self.with_foca(now, |foca, wishes| foca.handle_data(&header, wishes));
        }
    }

    /// Hands foca what others say, as far as it may be news.
    fn apply(&mut self, now: Time, updates: impl Iterator<Item = Update>) {
        let mut news = Vec::new();
        let mut unknown_dead = Vec::new();
        let mut room = None;
        for update in updates {
            let Life { id, mut address } = *update.id();
            let down = update.state() == foca::State::Down;
            if id == self.me.id {
                // Who holds this life for dead says so with the end of its link, and its view.
                if down {
                    continue;
                }
                address = self.me.address;
            } else if id.name == self.me.id.name || id.creation > CREATION || self.table.is_over(id)
            {
                continue;
            }
            match self.table.named(id.name) {
                // One life has one address, or foca would take it for two.
                Some(known) if known.id == id => address = known.address,
                Some(_) => {}
                None => {
                    let room = room.get_or_insert_with(|| self.table.room());
                    if *room == 0 {
                        continue;
                    }
                    *room -= 1;
                    if down {
                        unknown_dead.push(Life { id, address });
                    }
                }
            }
            self.rumour(id, update.state());
            let life = Life { id, address };
            news.push(Update::new(life, update.incarnation(), update.state()));
        }
        let known = self.table.len();
        for life in unknown_dead {
            self.table.put(now, life, State::Down);
        }
        self.with_foca(now, |foca, wishes| foca.apply_many(news.into_iter(), true, wishes));
        if self.table.len() > known {
            self.forget(now);
        }
    }

    /// Remembers who told of a suspicion, or of its end, until [`scan`](Self::scan) sees it.
    fn rumour(&mut self, about: NodeId, state: foca::State) {
        let Some(entry) = self.table.get_mut(about) else { return };
        match (entry.member.state, state) {
            (State::Up, foca::State::Suspect) | (State::Suspect, foca::State::Alive) => {
                entry.rumour = self.teller;
            }
            _ => {}
        }
    }

    /// Lets foca do something, and does what it wants; returns how many it has come to suspect.
    fn with_foca(
        &mut self,
        now: Time,
        run: impl FnOnce(&mut OurFoca, &mut Wishes) -> Result<(), foca::Error>,
    ) -> usize {
        let mut wishes = Wishes::default();
        if let Err(error) = run(&mut self.foca, &mut wishes) {
            tracing::debug!(%error, "membership input not taken");
        }
        let suspects: Vec<_> =
            wishes.timers.iter().filter_map(|(timer, _)| refute::suspected(timer)).collect();
        for (timer, after) in wishes.timers {
            let after = self.health.delay(&timer, after);
            self.jobs.schedule(now + after, Job::Foca(timer));
        }
        for change in wishes.changes {
            match change {
                Change::Up(life) => self.up(now, life),
                Change::Down(life) => {
                    self.over(now, life.id, self.why.unwrap_or(Why::Silent));
                }
                Change::Rename(old, new) => {
                    if self.foca.iter_members().any(|member| *member.id() == new) {
                        self.up(now, new);
                    } else {
                        self.over(now, old.id, Why::Restarted);
                        self.table.put(now, new, State::Down);
                    }
                }
                // Its suspicions have used up all incarnations.
                Change::Defunct => self.reincarnate(self.me.id.creation + 1),
            }
        }
        for (to, bytes) in wishes.datagrams {
            let Life { id, address } = to;
            self.outputs.push_back(Output::Datagram { to: id, address, bytes });
        }
        let suspected = suspects.len();
        for suspect in suspects {
            // It may be suspected for longer.
            if self.table.get(suspect).is_some_and(|member| member.state == State::Up) {
                self.history.note(now, suspect.name, Happened::Suspected { by: None });
            }
            self.accuse(suspect);
        }
        suspected
    }

    fn up(&mut self, now: Time, life: Life) {
        if self.table.is_over(life.id) || self.table.is_live(life.id) {
            return;
        }
        if let Some(older) = self.table.named(life.id.name).map(|known| known.id) {
            self.over(now, older, Why::Restarted);
        }
        let member = self.table.put(now, life, State::Up);
        self.history.note(now, life.id.name, Happened::Up(life.id));
        self.outputs.push_back(Output::Event(Event::Up(member)));
        self.sync_soon(now);
    }

    /// Keeps what is remembered of lives that are over within bounds, here and in foca.
    fn forget(&mut self, now: Time) {
        for life in self.table.forget(now) {
            self.history.forget(life.id.name);
            self.outputs.push_back(Output::Forgotten(life.id.name));
            self.with_foca(now, |foca, wishes| foca.handle_timer(Timer::RemoveDown(life), wishes));
        }
    }
}

fn new_foca(config: &Config, me: &Me, chance: &mut StdRng) -> OurFoca {
    let life = Life { id: me.id, address: me.address };
    let chance = StdRng::seed_from_u64(chance.random());
    Foca::new(life, config.foca(), chance, FocaCodec)
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("me", &self.me)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}
