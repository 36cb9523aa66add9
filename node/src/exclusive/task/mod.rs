//! What drives this node's leases and its seat: one task, on the network's thread.
//!
//! It never waits for another node, nor for processes: what takes time is work of its own that tells
//! the task when it is done. Writing to the disk is the exception, and goes first in what it is for:
//! an authority is joined when it is remembered that it was.

mod hear;
mod lead;
mod memory;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use purlin_cluster::Membership;
use purlin_cluster::exclusive::{AuthorityId, Founding, Holder, Renewal, Times};
use purlin_proto::{NodeId, NodeName, Refusal};
use purlin_runtime::Runtime;
use purlin_transport::Endpoint;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Duration, Instant, MissedTickBehavior};

use super::network::Mouth;
use super::raft::Chance;
use super::seat::Seat;
use super::sound;
use super::wire::{Here, Known, Say};
use super::{Exclusive, Shown, Told};
use crate::builder::WallClock;
use crate::directory::Directory;
use crate::disk::Disk;
use crate::names::Names;

/// How often it looks around.
const BEAT: Duration = Duration::from_millis(100);

/// How long a busy process is left alone whose key has moved while its node's lease is good.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which part of the time between the end of a lease and that of everything under it processes have
/// for stopping by themselves.
const STOPPING: f64 = 0.7;

/// How long a seat is kept that nobody counts among the voters.
const UNWANTED: Duration = Duration::from_secs(10);

/// How often those that are to vote are asked whether they are ready.
const INVITE_EVERY: Duration = Duration::from_secs(1);

/// The label over whose values voters are spread.
const ZONE: &str = "zone";

const MEMORY: &[u8] = b"memory";

/// What this node is told to be.
pub(crate) struct Settings {
    pub(crate) takes_part: bool,
    pub(crate) seeds: bool,
    pub(crate) expect: usize,
    pub(crate) detect_in: Duration,
    pub(crate) clock: WallClock,
    pub(crate) chance: u64,
    pub(crate) disk: Disk,
}

/// What must not be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    authority: Option<AuthorityId>,
    voters: Vec<NodeName>,
    /// The highest epoch that anything here has run under.
    seen: u64,
    /// As which voter it has a seat.
    seat: Option<u64>,
}

/// What has been done meanwhile.
enum Done {
    /// Nothing that anybody waits for.
    Nothing,
    /// A majority has confirmed, or not, that this voter leads; for these.
    Confirmed { voter: u64, term: Option<u64>, batch: Vec<(NodeId, Renewal)> },
    /// A view was written, or not.
    Written { voter: u64 },
    /// The voters were changed, or not.
    Changed { voter: u64 },
    /// What was to end has ended.
    Settled { settling: u64, epoch: u64 },
}

/// Processes are ending.
struct Settling {
    number: u64,
    lapsed: bool,
    work: AbortHandle,
}

/// This node stops.
struct Leaving {
    /// What gives its lease back, if it may have one.
    renewal: Option<Renewal>,
    done: oneshot::Sender<()>,
}

/// The task.
pub(crate) struct Task {
    shared: Arc<Exclusive>,
    told: mpsc::Receiver<Told>,
    mouth: Mouth,
    endpoint: Endpoint,
    directory: Arc<Directory>,
    runtime: Runtime,
    names: Arc<Names>,
    membership: Arc<OnceLock<Mutex<Membership>>>,
    settings: Settings,
    times: Times,
    chance: Chance,
    memory: Memory,
    /// What of it is on the disk.
    kept: Memory,
    /// The disk has refused it.
    unwritten: bool,
    /// When the disk is tried again.
    write_at: Duration,
    remembers: bool,
    founding: Founding,
    /// What others have said of what they know.
    heard: BTreeMap<NodeId, Here>,
    /// To whom what was said of what this node knows.
    spoken: BTreeMap<NodeId, Here>,
    leader: Option<NodeName>,
    answered_at: Duration,
    renew_at: Duration,
    invite_at: Duration,
    /// A senior authority that has been heard of, and its voters.
    courting: Option<(Holder, Vec<NodeName>)>,
    seat: Option<Seat>,
    settling: Option<Settling>,
    settlings: u64,
    /// What this node says to itself.
    own: VecDeque<Say>,
    work: JoinSet<Done>,
    /// This node is about to leave.
    draining: bool,
    left: Option<Leaving>,
}

impl Task {
    pub(crate) fn new(
        shared: Arc<Exclusive>,
        told: mpsc::Receiver<Told>,
        (endpoint, directory, names): (Endpoint, Arc<Directory>, Arc<Names>),
        (runtime, membership): (Runtime, Arc<OnceLock<Mutex<Membership>>>),
        settings: Settings,
    ) -> Self {
        let times = Times::new(settings.detect_in);
        let chance = Chance::new(settings.chance);
        if settings.takes_part {
            // Nothing runs without a lease.
            runtime.extend_lease(shared.start);
        }
        let shown = Shown {
            takes_part: settings.takes_part,
            durable: settings.disk.is_durable(),
            ..Shown::default()
        };
        shared.change(|state| state.shown = shown);
        Self {
            mouth: Mouth::new(endpoint.clone(), Arc::clone(&directory)),
            shared,
            told,
            endpoint,
            directory,
            runtime,
            names,
            membership,
            settings,
            times,
            chance,
            memory: Memory::default(),
            kept: Memory::default(),
            unwritten: false,
            write_at: Duration::ZERO,
            remembers: false,
            founding: Founding::default(),
            heard: BTreeMap::new(),
            spoken: BTreeMap::new(),
            leader: None,
            answered_at: Duration::ZERO,
            renew_at: Duration::ZERO,
            invite_at: Duration::ZERO,
            courting: None,
            seat: None,
            settling: None,
            settlings: 0,
            own: VecDeque::new(),
            work: JoinSet::new(),
            draining: false,
            left: None,
        }
    }

    /// Runs until the node is gone.
    pub(crate) async fn run(self) {
        let chance = self.chance.clone();
        chance.scope(self.drive()).await;
    }

    /// A node says what none says.
    fn violation(&self, peer: NodeId, detail: String) {
        tracing::warn!(%peer, detail, "protocol violation");
        self.endpoint.close_peer(&peer, &Refusal::Protocol { detail });
    }

    async fn drive(mut self) {
        self.remember().await;
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let lapse = self.good_until().map(|until| self.shared.start + until);
            tokio::select! {
                biased;
                told = self.told.recv() => match told {
                    Some(Told::Said { from, bytes }) => match Say::decode(&bytes) {
                        Ok(Some(said)) => match sound::check(&said) {
                            Ok(()) => self.hear(from, said).await,
                            Err(wrong) => tracing::debug!(%from, wrong, "is not heeded about leases"),
                        },
                        Ok(None) => tracing::debug!(%from, "says what is of a later version"),
                        Err(error) => self.violation(from, format!("about leases: {error}")),
                    },
                    Some(Told::Drain) => {
                        self.draining = true;
                        self.renew_at = Duration::ZERO;
                    }
                    Some(Told::Leave(done)) => self.leave(done),
                    None => return,
                },
                Some(done) = self.work.join_next() => {
                    // Work that was given up has nothing to tell.
                    if let Ok(done) = done {
                        self.done(done);
                    }
                }
                () = self.shared.wanted.notified() => self.renew_at = Duration::ZERO,
                _ = beat.tick() => {}
                () = sleep_until(lapse) => {}
            }
            self.look().await;
            while let Some(said) = self.own.pop_front() {
                let us = self.runtime.id();
                self.hear(us, said).await;
                self.look().await;
            }
        }
    }

    fn now(&self) -> Duration {
        self.shared.now()
    }

    fn good_until(&self) -> Option<Duration> {
        self.shared.read().holder.as_ref()?.good_until()
    }

    fn authority(&self) -> Option<AuthorityId> {
        self.memory.authority
    }

    fn spawn(&mut self, work: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        let work = self.chance.scope(work);
        self.work.spawn(work)
    }

    fn say(&mut self, to: NodeName, say: Say) {
        if to == self.runtime.name() {
            self.own.push_back(say);
        } else {
            // Whoever is not reached is asked again.
            self.mouth.say(to, &say);
        }
    }

    /// The live members and the zones that they say they are in.
    fn live(&self) -> (BTreeSet<NodeId>, BTreeMap<NodeName, String>) {
        let Some(membership) = self.membership.get() else { return Default::default() };
        let membership = membership.lock().unwrap_or_else(PoisonError::into_inner);
        let live = || membership.members().filter(|member| member.state.is_live());
        let zones = live().filter_map(|m| Some((m.id.name, m.labels.get(ZONE)?.clone())));
        (live().map(|member| member.id).collect(), zones.collect())
    }

    // ----- what is done -----

    fn done(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Confirmed { voter, term, batch } => self.confirmed(voter, term, batch),
            Done::Written { voter } => {
                if let Some(seat) = self.seat.as_mut().filter(|seat| seat.id == voter) {
                    seat.writing = false;
                    // With the answer to this everybody hears of it.
                    self.renew_at = Duration::ZERO;
                }
            }
            Done::Changed { voter } => {
                if let Some(seat) = self.seat.as_mut().filter(|seat| seat.id == voter) {
                    seat.changing = false;
                }
            }
            Done::Settled { settling, epoch } => {
                if self.settling.as_ref().is_some_and(|present| present.number == settling) {
                    self.settling = None;
                    self.renew_at = Duration::ZERO;
                    self.shared.change(|state| {
                        if let Some(holder) = &mut state.holder {
                            holder.settled(epoch);
                        }
                    });
                }
            }
        }
    }

    // ----- looking around -----

    async fn look(&mut self) {
        let now = self.now();
        self.speak();
        if !self.settings.takes_part {
            return self.gone().await;
        }
        if self.left.is_some() {
            self.tend_leaving(now).await;
            return self.lead(now);
        }
        self.tend_disk(now).await;
        if self.authority().is_none() {
            self.consider_founding(now).await;
        }
        self.watch_lease(now);
        self.settle();
        if now >= self.renew_at {
            self.renew_at = now + self.times.renew_every();
            self.renew(now);
        }
        self.lead(now);
        self.show();
    }

    /// Tells each node that is connected what this one knows, once.
    fn speak(&mut self) {
        let authority = self.memory.authority.map(|id| {
            let voters = self.memory.voters.clone();
            Known { id, voters }
        });
        let here = Here { takes_part: self.settings.takes_part, authority };
        let links = self.endpoint.links();
        let peers: BTreeSet<NodeId> =
            links.iter().filter_map(|link| Some(link.peer().node.as_ref()?.id)).collect();
        self.spoken.retain(|peer, _| peers.contains(peer));
        self.heard.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            let known = self.directory.find(peer.name).is_some_and(|place| place.id == peer);
            if known && self.spoken.get(&peer) != Some(&here) {
                let said = self.mouth.say(peer.name, &Say::Here(here.clone()));
                if said {
                    self.spoken.insert(peer, here.clone());
                }
            }
        }
    }

    /// Notices that the lease has run out, or that this life is another one.
    fn watch_lease(&mut self, now: Duration) {
        let us = self.runtime.id();
        let lapsed = self.shared.change(|state| {
            let holder = state.holder.as_mut()?;
            let lapsed = holder.tick(now);
            Some((lapsed, holder.me() != us, holder.authority()))
        });
        let Some((lapsed, other_life, authority)) = lapsed else { return };
        if other_life {
            self.hold(authority);
        } else if lapsed {
            tracing::warn!("the lease has run out, what is exclusive ends here");
            self.runtime.holdings_changed();
        }
    }

    /// Has processes end whose keys are not held, if there may be some.
    fn settle(&mut self) {
        let found = {
            let state = self.shared.read();
            let settles = state.holder.as_ref().filter(|holder| holder.is_settling());
            settles.map(|holder| (holder.epoch(), holder.is_lapsed()))
        };
        let Some((epoch, lapsed)) = found else { return };
        match &self.settling {
            Some(settling) if settling.lapsed || !lapsed => return,
            // They have less time now.
            Some(settling) => settling.work.abort(),
            None => {}
        }
        if lapsed {
            self.runtime.lease_lapsed();
        }
        // What names this node has given in shards that it does not hold any more it forgets now,
        // before anybody hears that it has installed the view or asks for another lease.
        self.names.look();
        self.settlings += 1;
        let number = self.settlings;
        let patience = if lapsed { Duration::ZERO } else { PATIENCE };
        let stop = self.times.stop_within().mul_f64(STOPPING);
        let runtime = self.runtime.clone();
        let work = self.spawn(async move {
            runtime.settle(patience, stop).await;
            Done::Settled { settling: number, epoch }
        });
        self.settling = Some(Settling { number, lapsed, work });
    }

    fn renew(&mut self, now: Duration) {
        let renewal = self.shared.change(|state| state.holder.as_mut()?.renew(now));
        if let Some(renewal) = renewal {
            let leader = self.leader.filter(|_| self.is_answered());
            let asked: BTreeSet<NodeName> = match leader {
                Some(leader) => [leader].into(),
                None => self.perhaps_voters(),
            };
            for voter in asked {
                if self.draining {
                    self.say(voter, Say::Drains(renewal.authority));
                }
                self.say(voter, Say::Renew(renewal.clone()));
            }
        }
        let Some((holder, voters)) = &mut self.courting else { return };
        let (renewal, voters) = (holder.renew(now), voters.clone());
        for voter in voters {
            if let Some(renewal) = &renewal {
                self.say(voter, Say::Renew(renewal.clone()));
            }
        }
    }

    /// Who may lead, or know who does: nobody knows whose word is the newest. The voters may have
    /// changed since they last answered, and one on this node may be the only one that is left.
    fn perhaps_voters(&self) -> BTreeSet<NodeName> {
        let own = self.memory.voters.iter().copied().chain(self.leader);
        let seat = self.seat.iter().flat_map(|seat| seat.voters().into_keys().chain(seat.leader()));
        let known = self.heard.values().filter_map(|here| here.authority.as_ref());
        let ours = known.filter(|known| Some(known.id) == self.authority());
        own.chain(seat).chain(ours.flat_map(|known| known.voters.iter().copied())).collect()
    }

    fn show(&self) {
        let (voters, leader) = (self.memory.voters.clone(), self.leader);
        let votes = self.seat.is_some();
        self.shared.change(|state| {
            if state.shown.voters != voters {
                state.shown.voters = voters;
            }
            (state.shown.leader, state.shown.votes) = (leader, votes);
        });
    }

    // ----- the end -----

    /// Everything exclusive has ended here: the lease goes back. A voter stays until others vote in
    /// its place, if there are any.
    fn leave(&mut self, done: oneshot::Sender<()>) {
        let holder = self.shared.change(|state| Some(state.holder.as_mut()?.leave()));
        self.left = Some(Leaving { renewal: holder, done });
        self.renew_at = Duration::ZERO;
    }

    async fn tend_leaving(&mut self, now: Duration) {
        let us = self.runtime.name();
        let Some(Leaving { renewal: Some(renewal), .. }) = &self.left else {
            return self.gone().await;
        };
        let renewal = renewal.clone();
        if now >= self.renew_at {
            self.renew_at = now + self.times.renew_every() / 4;
            for voter in self.perhaps_voters() {
                self.say(voter, Say::Renew(renewal.clone()));
            }
        }
        let alone = self.live().0.len() <= 1;
        let Some(seat) = &self.seat else { return self.gone().await };
        let left_out = {
            let state = self.shared.read();
            let known = state.holder.as_ref().and_then(Holder::view);
            known.is_some_and(|view| view.named(us).is_none())
        };
        let out = left_out || seat.store.view().named(us).is_none();
        if out && alone {
            return self.gone().await;
        }
        // Who is not counted among the voters any more may never see that in its own log. A leader
        // sees it there, and leads until all the others that are to know it do.
        let counted = self.memory.voters.contains(&us) && seat.voters().contains_key(&us);
        if out && !counted && seat.leading.is_none() {
            self.stand_up().await;
            self.gone().await;
        }
    }

    async fn gone(&mut self) {
        let Some(Leaving { done, .. }) = self.left.take() else { return };
        self.settings.takes_part = false;
        if let Some(seat) = self.seat.take()
            && let Err(error) = seat.raft.shutdown().await
        {
            tracing::debug!(%error, "the seat was given up already");
        }
        // Whoever waited may have stopped.
        let _ = done.send(());
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
