//! One process as others see it: mailbox, relations, phase.
//!
//! Everything that reaches a process is applied by the one who sends it, under the process's one
//! small lock; the process itself only takes what lies in its mailbox and looks whether it has been
//! asked to end. So a signal takes effect although its receiver is busy, and signals of one sender
//! keep their order. The lock is a leaf: nothing is called while it is held, and two are never held
//! at once.
//!
//! # An exit signal
//!
//! | receiver | reason | effect |
//! |---|---|---|
//! | any | `Kill` by `exit` | ends at once as `Killed` |
//! | traps exits | any other | a message in its mailbox |
//! | does not trap | `Normal` of another process | none |
//! | an actor that has started | `Shutdown` | ends after the present handler, `Actor::stop` is called |
//! | does not trap | any other | ends at its next `await` |

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll, Waker};

use purlin_proto::{
    CallError, Down, ExitReason, LinkDown, Name, NodeName, Pid, Reference, Signal, SpawnError,
};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use crate::actor::Actor;
use crate::exclusive::lease_over;
use crate::inflow::Stop;
use crate::item::{Item, Notice};
use crate::mailbox::{Batch, Mailbox, Queue, WhenFull};
use crate::messages::Messages;
use crate::registry::Cleanup;
use crate::relations::{Address, ChildMark, Link, Monitoring, Relations};
use crate::remains::Remains;
use crate::reply::{Orphan, WeakDeferred};
use crate::runtime::Runtime;
use crate::spawn::Announce;

/// What all processes of one kind share.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) kind: &'static str,
    pub(crate) messages: &'static [&'static str],
    pub(crate) mailbox: Mailbox,
}

impl Class {
    pub(crate) const fn of<A: Actor>() -> Self {
        let messages = <A::Messages as Messages<A>>::NAMES;
        Self { kind: A::KIND, messages, mailbox: A::MAILBOX }
    }
}

mod arrive;

pub(crate) use arrive::Arrived;

pub(crate) struct Process {
    pub(crate) serial: u64,
    pub(crate) class: &'static Class,
    pub(crate) runtime: Runtime,
    /// The serial of the one that started it: 0 for nobody, [`ELSEWHERE`] for one that is noted in
    /// the relations.
    parent: u64,
    /// In nanoseconds after the runtime's start.
    started: u64,
    /// Messages handled.
    handled: AtomicU64,
    /// The deadline of the call in hand, in nanoseconds after the runtime's start; 0 for none.
    deadline: AtomicU64,
    /// Messages that the process has taken out of the mailbox and not handled yet.
    taken: AtomicU32,
    /// Messages dropped because the mailbox was full.
    dropped: AtomicU32,
    /// Which message of the class is being handled, plus one; 255 for one that it does not list.
    handling: AtomicU8,
    /// How urgently it is to end: [`CALM`], [`SOON`] or [`NOW`].
    urgency: AtomicU8,
    /// Whether it was born with a link to its parent.
    pub(crate) born_linked: bool,
    state: Mutex<State>,
}

const ELSEWHERE: u64 = u64::MAX;

const CALM: u8 = 0;
/// After the present handler.
const SOON: u8 = 1;
/// At the next poll.
const NOW: u8 = 2;
/// Set beside it when the task's waker is known.
const ATTACHED: u8 = 0x80;
/// Set beside it when the process may not run without a lease, although no key of it says so.
const LEASED: u8 = 0x40;
/// Set beside it when the process has sent to a key without waiting for a reply.
const CAST: u8 = 0x20;
const BESIDE: u8 = ATTACHED | LEASED | CAST;

const UNLISTED: u8 = u8::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    /// `start` chose not to run; it is about to end.
    Ignored,
    Alive,
    Dead,
}

struct State {
    mailbox: Queue,
    /// What messages of other nodes take up that the process has taken out of the mailbox.
    taken_bytes: usize,
    /// Wakes the task.
    task: Option<Waker>,
    exit: Option<ExitReason>,
    name: Option<Name>,
    /// Told when `start` has returned.
    starter: Option<Starter>,
    relations: Option<Box<Relations>>,
    phase: Phase,
    traps_exits: bool,
    /// Whether a shutdown waits for the present handler.
    graceful: bool,
    /// Whether the task waits for the mailbox.
    receiving: bool,
}

pub(crate) type Starter = oneshot::Sender<Result<(), SpawnError>>;

/// Why a mailbox does not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejected {
    Dead,
    Full,
}

/// What [`Process::launch`] needs besides who it is.
#[derive(Default)]
pub(crate) struct Birth {
    pub(crate) name: Option<Name>,
    pub(crate) parent: Option<Pid>,
    pub(crate) linked: bool,
    pub(crate) starter: Option<Starter>,
    pub(crate) announce: Option<Announce>,
    pub(crate) traps_exits: bool,
}

impl Process {
    pub(crate) fn new(serial: u64, class: &'static Class, runtime: Runtime, birth: Birth) -> Self {
        let phase = if birth.starter.is_some() { Phase::Starting } else { Phase::Alive };
        let (parent, elsewhere) = match birth.parent {
            None => (0, None),
            Some(pid) if runtime.is_own(&pid) => (pid.serial, None),
            Some(pid) => (ELSEWHERE, Some(pid)),
        };
        let announce = birth.announce;
        let relations = (elsewhere.is_some() || announce.is_some())
            .then(|| Box::new(Relations { parent: elsewhere, announce, ..Relations::default() }));
        Self {
            serial,
            class,
            started: runtime.nanos(Instant::now()),
            runtime,
            parent,
            handled: AtomicU64::new(0),
            handling: AtomicU8::new(0),
            urgency: AtomicU8::new(CALM),
            taken: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            deadline: AtomicU64::new(0),
            born_linked: birth.linked,
            state: Mutex::new(State {
                mailbox: Queue::default(),
                taken_bytes: 0,
                task: None,
                exit: None,
                name: birth.name,
                starter: birth.starter,
                relations,
                phase,
                traps_exits: birth.traps_exits,
                graceful: false,
                receiving: false,
            }),
        }
    }

    /// Who started it, if that was a process.
    pub(crate) fn parent(&self) -> Option<Pid> {
        match self.parent {
            0 => None,
            ELSEWHERE => self.relations(|relations| relations.parent).flatten(),
            serial => Some(self.runtime.id().pid(serial)),
        }
    }

    pub(crate) fn parent_address(&self) -> Option<Address> {
        match self.parent {
            0 => None,
            ELSEWHERE => self.parent().map(Address::Remote),
            serial => Some(Address::Local(serial)),
        }
    }

    /// How long it has lived.
    pub(crate) fn age(&self) -> Duration {
        let now = self.runtime.nanos(Instant::now());
        Duration::from_nanos(now.saturating_sub(self.started))
    }

    pub(crate) fn pid(&self) -> Pid {
        self.runtime.id().pid(self.serial)
    }

    /// A panic cannot leave the state half changed: nothing that may panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the relations, or changes them. `None` when the process is dead.
    pub(crate) fn relations<T>(&self, change: impl FnOnce(&mut Relations) -> T) -> Option<T> {
        let mut state = self.lock();
        (state.phase != Phase::Dead)
            .then(|| change(state.relations.get_or_insert_with(Box::default)))
    }

    // ----- the mailbox -----

    /// Puts a message into the mailbox, or hands it back. At a bound where the oldest goes, that
    /// one is returned.
    pub(crate) fn push(&self, item: Item) -> Result<Option<Item>, (Rejected, Item)> {
        let mut state = self.lock();
        if state.phase == Phase::Dead || state.exit.is_some() {
            return Err((Rejected::Dead, item));
        }
        let mut dropped = None;
        if state.mailbox.len() + self.taken() >= self.limit() {
            if self.class.mailbox.when_full() != WhenFull::DropOldest {
                return Err((Rejected::Full, item));
            }
            dropped = state.mailbox.pop_message(self);
            if dropped.is_none() {
                // All that waits is in the hands of the process already.
                return Err((Rejected::Full, item));
            }
        }
        Self::enqueue(state, item);
        Ok(dropped)
    }

    fn enqueue(mut state: MutexGuard<'_, State>, item: Item) {
        state.mailbox.push(item);
        Self::wake_receiver(state);
    }

    fn wake_receiver(mut state: MutexGuard<'_, State>) {
        let waker = state.take_receiver();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn limit(&self) -> usize {
        self.class.mailbox.limit_or(self.runtime.0.mailbox_limit)
    }

    /// A message for it was dropped because its mailbox is full.
    pub(crate) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self) -> u64 {
        u64::from(self.dropped.load(Ordering::Relaxed))
    }

    fn taken(&self) -> usize {
        usize::try_from(self.taken.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Puts a notice of the system into the mailbox, which never refuses one: there is at most one
    /// for each relation that the process itself has made.
    pub(crate) fn notify(&self, notice: Notice) {
        Self::tell(self.lock(), notice);
    }

    fn tell(state: MutexGuard<'_, State>, notice: Notice) {
        // The dead need no notice.
        if state.phase != Phase::Dead && state.exit.is_none() {
            Self::enqueue(state, Item::notice(notice));
        }
    }

    /// Registers a sender that waits for room, until it lets go of the waker; `false` if there is
    /// room or the process is dead.
    pub(crate) fn wait_for_room(&self, waker: &Arc<Waker>) -> bool {
        let mut state = self.lock();
        let full = state.mailbox.len() + self.taken() >= self.limit();
        if !full || state.phase == Phase::Dead {
            return false;
        }
        let senders = &mut state.relations.get_or_insert_with(Box::default).senders;
        if senders.len() == senders.capacity() {
            senders.retain(|sender| sender.strong_count() > 0);
        }
        senders.push(Arc::downgrade(waker));
        true
    }

    /// Moves everything in the mailbox to `batch`, or says that the process is to end.
    pub(crate) fn poll_take(
        &self,
        cx: &mut TaskContext<'_>,
        batch: &mut Batch,
    ) -> Poll<Result<(), ExitReason>> {
        let mut state = self.lock();
        if let Some(reason) = &state.exit {
            return Poll::Ready(Err(reason.clone()));
        }
        // What was taken before has been handled: there is room for those who wait.
        self.note_taken(0);
        state.taken_bytes = 0;
        let room = state.mailbox.len() <= self.limit() / 2;
        let stopped = match &mut state.relations {
            Some(relations) if room => std::mem::take(&mut relations.stopped),
            Some(_) | None => Vec::new(),
        };
        let senders = match &mut state.relations {
            Some(relations) => std::mem::take(&mut relations.senders),
            None => Vec::new(),
        };
        let empty = state.mailbox.is_empty();
        if empty {
            state.wait(cx.waker());
        } else {
            state.taken_bytes = state.mailbox.bytes();
            batch.take(&mut state.mailbox);
            self.note_taken(batch.len());
        }
        drop(state);
        stopped.iter().for_each(Stop::go_on);
        senders.iter().filter_map(Weak::upgrade).for_each(|sender| sender.wake_by_ref());
        if empty { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Takes out of the mailbox what a monitor has to say.
    pub(crate) fn flush_down(&self, reference: Reference) {
        self.lock().mailbox.flush_down(reference);
    }

    /// Gives memory back that the mailbox does not need now.
    pub(crate) fn shrink(&self) {
        self.lock().mailbox.shrink();
    }

    pub(crate) fn note_taken(&self, left: usize) {
        self.taken.store(u32::try_from(left).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    // ----- what it is doing -----

    pub(crate) fn begin(&self, index: Option<usize>, deadline: Option<Instant>) {
        let number = index.and_then(|i| u8::try_from(i + 1).ok()).unwrap_or(UNLISTED);
        self.handling.store(number, Ordering::Relaxed);
        self.set_deadline(deadline);
    }

    pub(crate) fn end(&self) {
        self.handling.store(0, Ordering::Relaxed);
        self.deadline.store(0, Ordering::Relaxed);
        self.handled.store(self.handled.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn set_deadline(&self, deadline: Option<Instant>) {
        let nanos = deadline.map_or(0, |at| self.runtime.nanos(at).max(1));
        self.deadline.store(nanos, Ordering::Relaxed);
    }

    /// The deadline of the call in hand.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(self.runtime.instant(nanos)),
        }
    }

    pub(crate) fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// The message being handled, if one is: its name, or `?` for one that the kind does not list.
    pub(crate) fn handling(&self) -> Option<&'static str> {
        match self.handling.load(Ordering::Relaxed) {
            0 => None,
            UNLISTED => Some("?"),
            n => Some(self.class.messages.get(usize::from(n) - 1).copied().unwrap_or("?")),
        }
    }

    // ----- its end -----

    /// Remembers the task's waker, so that an exit reaches it wherever it waits.
    pub(crate) fn attach(&self, waker: &Waker) {
        if self.urgency.load(Ordering::Relaxed) & ATTACHED == 0 {
            self.lock().task = Some(waker.clone());
            self.urgency.fetch_or(ATTACHED, Ordering::Relaxed);
        }
    }

    /// The reason to end at once, if there is one.
    pub(crate) fn must_end(&self) -> Option<ExitReason> {
        let urgency = self.urgency.load(Ordering::Acquire);
        if urgency & !ATTACHED < NOW {
            return None;
        }
        if urgency & LEASED != 0 && self.runtime.lease_is_over() {
            self.runtime.counters().exclusive_ended.add();
            return Some(lease_over());
        }
        if urgency & !BESIDE < NOW {
            return None;
        }
        self.lock().exit.clone()
    }

    pub(crate) fn wants_end(&self) -> bool {
        self.urgency.load(Ordering::Acquire) & !BESIDE > CALM
    }

    /// From now on each of its polls looks at the lease first, or not any more.
    pub(crate) fn set_leased(&self, leased: bool) {
        match leased {
            true => self.urgency.fetch_or(LEASED, Ordering::Release),
            false => self.urgency.fetch_and(!LEASED, Ordering::Release),
        };
    }

    /// It sends to a key without waiting for a reply.
    pub(crate) fn note_cast(&self) {
        if !self.has_cast() {
            self.urgency.fetch_or(CAST, Ordering::Relaxed);
        }
    }

    /// Whether it has ever done so.
    pub(crate) fn has_cast(&self) -> bool {
        self.urgency.load(Ordering::Relaxed) & CAST != 0
    }

    /// Whether it has been asked to end, or has ended.
    pub(crate) fn is_ending(&self) -> bool {
        let state = self.lock();
        state.exit.is_some() || state.phase == Phase::Dead
    }

    /// Why it is ending, or has ended.
    pub(crate) fn exit_reason(&self) -> Option<ExitReason> {
        self.lock().exit.clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Whether `start` has returned, or never will.
    pub(crate) fn has_begun(&self) -> bool {
        self.lock().phase != Phase::Starting
    }

    /// `start` has returned: it may be called, and is shut down gracefully.
    pub(crate) fn set_started(&self) {
        let mut state = self.lock();
        state.phase = Phase::Alive;
        state.graceful = true;
        let starter = state.starter.take();
        let announce = state.relations.as_mut().and_then(|r| r.announce.take());
        drop(state);
        if let Some(announce) = announce {
            announce.tell(Ok(self.serial));
        }
        if let Some(starter) = starter {
            // Whoever started it may have stopped waiting; the process runs all the same.
            drop(starter.send(Ok(())));
        }
    }

    /// `start` chose not to run: whoever started it is told when it has ended.
    pub(crate) fn set_ignored(&self) {
        self.lock().phase = Phase::Ignored;
    }

    pub(crate) fn set_traps_exits(&self, traps: bool) {
        self.lock().traps_exits = traps;
    }

    /// Makes it end from within: a reason is set, so that everything else sees that it is ending. A
    /// crash on the way to an orderly end is a crash.
    pub(crate) fn set_exit(&self, reason: &ExitReason) {
        let mut state = self.lock();
        let crash = |before: &ExitReason| before.is_orderly() && !reason.is_orderly();
        if state.exit.as_ref().is_none_or(crash) {
            state.exit = Some(reason.clone());
        }
    }

    /// An exit signal that is not trapped.
    fn end_with(mut state: MutexGuard<'_, State>, urgency: &AtomicU8, reason: ExitReason) {
        let soon = state.graceful && reason.is_orderly();
        // The first reason stays, but what was to be soon can become now.
        if state.exit.is_none() || (!soon && urgency.load(Ordering::Relaxed) & NOW == 0) {
            state.exit = Some(reason);
        }
        urgency.fetch_or(if soon { SOON } else { NOW }, Ordering::Release);
        state.receiving = false;
        let receiver = state.relations.as_mut().and_then(|r| r.receiver.take());
        let wakers = [state.task.clone(), receiver];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Ends it in good order if it is idle, which is decided in this moment: nothing waits for it, it
    /// handles nothing and owes nobody a deferred reply. From then on its mailbox takes nothing.
    pub(crate) fn retire(&self) -> bool {
        let state = self.lock();
        let owes = state.relations.as_ref().is_some_and(|relations| {
            relations.deferred.iter().any(|deferred| deferred.strong_count() > 0)
        });
        let idle = state.phase == Phase::Alive
            && state.exit.is_none()
            && state.receiving
            && state.mailbox.is_empty()
            && self.handling.load(Ordering::Relaxed) == 0;
        if idle && !owes {
            Self::end_with(state, &self.urgency, ExitReason::Shutdown);
        }
        idle && !owes
    }

    /// Ends it from within before it has begun; what waits for it is handed out, for somebody else.
    pub(crate) fn evict(&self) -> Queue {
        let mut state = self.lock();
        state.exit.get_or_insert(ExitReason::Shutdown);
        std::mem::take(&mut state.mailbox)
    }

    /// A reply was dropped while the process ends: its caller waits for the exit reason.
    pub(crate) fn adopt(&self, orphan: Orphan) {
        let mut state = self.lock();
        if state.phase == Phase::Dead {
            drop(state);
            orphan(CallError::NoProcess);
        } else {
            state.relations.get_or_insert_with(Box::default).orphans.push(orphan);
        }
    }

    /// A reply was deferred: its caller is told when the process ends first.
    pub(crate) fn remember_deferred(&self, deferred: WeakDeferred) {
        self.relations(|relations| {
            let list = &mut relations.deferred;
            if list.len() == list.capacity() {
                list.retain(|weak| weak.strong_count() > 0);
            }
            list.push(deferred);
        });
    }

    /// Has this run when the process ends, before anybody can be told; `false`, and nothing is
    /// noted, if it is ending already. Noting one twice is as noting it once.
    pub(crate) fn clean_up_with(&self, cleanup: Weak<dyn Cleanup>) -> bool {
        let mut state = self.lock();
        if state.phase == Phase::Dead || state.exit.is_some() {
            return false;
        }
        let list = &mut state.relations.get_or_insert_with(Box::default).cleanups;
        if !list.iter().any(|known| known.ptr_eq(&cleanup)) {
            list.retain(|known| known.strong_count() > 0);
            list.push(cleanup);
        }
        true
    }

    /// What is to be cleaned up, at its end; nothing can be noted any more. Its name is the first
    /// thing.
    pub(crate) fn take_cleanups(&self) -> (Option<Name>, Vec<Weak<dyn Cleanup>>) {
        let mut state = self.lock();
        state.exit.get_or_insert(ExitReason::Killed);
        let cleanups = state.relations.as_mut().map(|r| std::mem::take(&mut r.cleanups));
        (state.name.clone(), cleanups.unwrap_or_default())
    }

    /// The process has ended; whatever comes from now on finds it dead.
    pub(crate) fn bury(&self) -> Remains {
        let mut state = self.lock();
        let (started, ignored) = (state.phase == Phase::Alive, state.phase == Phase::Ignored);
        state.phase = Phase::Dead;
        let relations = state.relations.take();
        let mailbox = std::mem::take(&mut state.mailbox);
        state.task = None;
        let (name, starter) = (state.name.take(), state.starter.take());
        let reason = state.exit.clone().unwrap_or(ExitReason::Killed);
        Remains { started, ignored, reason, name, relations, starter, mailbox }
    }

    // ----- signals -----

    /// Applies a signal that carries no message; what is to go back to its sender is returned.
    pub(crate) fn apply(&self, from: Address, signal: Signal) -> Option<Signal> {
        match signal {
            Signal::Exit { reason } => {
                self.exit(from, reason);
                None
            }
            Signal::Link => match self.relations(|r| r.linked_by(from)) {
                Some(()) => None,
                None => Some(Signal::LinkDown { reason: ExitReason::NoProcess }),
            },
            Signal::Unlink { reference } => {
                self.relations(|r| r.unlinked_by(from));
                Some(Signal::UnlinkAck { reference })
            }
            Signal::UnlinkAck { reference } => {
                self.relations(|r| r.unlinked(from, reference));
                None
            }
            Signal::LinkDown { reason } => {
                self.link_down(from, reason);
                None
            }
            Signal::Monitor { reference } => {
                match self.relations(|r| r.watchers.insert((from, reference), ())) {
                    Some(_) => None,
                    None => Some(Signal::Down { reference, reason: ExitReason::NoProcess }),
                }
            }
            Signal::Join { reference } => {
                match self.relations(|r| r.watchers.insert((from, reference), ())) {
                    Some(_) => Some(Signal::Joined { reference }),
                    None => Some(Signal::Down { reference, reason: ExitReason::NoProcess }),
                }
            }
            Signal::Demonitor { reference } => {
                self.relations(|r| r.watchers.remove(&(from, reference)));
                None
            }
            Signal::Down { reference, reason } => {
                // Taken away and told under one lock: a monitor that is no more there is told of.
                let mut state = self.lock();
                let relations = state.relations.as_mut();
                if let Some(monitoring) = relations.and_then(|r| r.monitors.remove(&reference)) {
                    let Monitoring { target, .. } = *monitoring;
                    Self::tell(state, Notice::Down(Down { reference, target, reason }));
                }
                None
            }
            Signal::Send { .. }
            | Signal::Call { .. }
            | Signal::Reply { .. }
            | Signal::Joined { .. }
            | Signal::Spawn(_)
            | Signal::Spawned { .. } => {
                unreachable!("messages and what concerns the node are not applied to a process")
            }
        }
    }

    /// Whether this is a monitor of something that is not on the node of `from`, so that it is not for
    /// that to say how it ended. Monitors of other nodes' processes that come by `watched.rs` are
    /// answered to the node, never to a process.
    pub(crate) fn watches_elsewhere(&self, reference: Reference, from: Pid) -> bool {
        let state = self.lock();
        let monitors = state.relations.as_ref().map(|relations| &relations.monitors);
        let monitoring = monitors.and_then(|monitors| monitors.get(&reference));
        monitoring.is_some_and(|monitoring| monitoring.node != Some(from.node.name))
    }

    /// Somebody asks it to end (OTP: `exit/2`).
    fn exit(&self, from: Address, reason: ExitReason) {
        let state = self.lock();
        if state.phase == Phase::Dead {
            return;
        }
        let itself = from == Address::Local(self.serial);
        if reason == ExitReason::Kill {
            Self::end_with(state, &self.urgency, ExitReason::Killed);
        } else if state.traps_exits {
            Self::tell(state, Notice::Exit { from: self.runtime.pid_of(from), reason });
        } else if itself || reason != ExitReason::Normal {
            Self::end_with(state, &self.urgency, reason);
        }
    }

    /// A linked process ended (OTP: an exit signal of a link).
    fn link_down(&self, from: Address, reason: ExitReason) {
        let mut state = self.lock();
        let Some(relations) = state.relations.as_mut() else { return };
        if relations.links.get(&from) != Some(&Link::Active) {
            return;
        }
        relations.links.remove(&from);
        if state.phase == Phase::Dead {
            return;
        }
        if state.traps_exits {
            let pid = self.runtime.pid_of(from);
            Self::tell(state, Notice::LinkDown(LinkDown { pid, reason }));
        } else if reason != ExitReason::Normal {
            Self::end_with(state, &self.urgency, reason);
        }
    }

    /// The connection to a node is lost: links and monitors to it end with `noconnection`.
    pub(crate) fn connection_lost(&self, node: NodeName) {
        let lost = self.relations(|relations| {
            relations.nodes.remove(&node);
            relations.watchers.retain(|(address, _), ()| !address.is_on(node));
            let is_on = |link: &Address| link.is_on(node);
            let links: Vec<_> = relations.links.keys().copied().filter(is_on).collect();
            // A link that is being taken back is gone for good; one made again since is lost.
            for address in &links {
                relations.settle(*address);
            }
            let monitors = relations.monitors.iter().filter(|(_, m)| m.node == Some(node));
            (links, monitors.map(|(reference, _)| *reference).collect::<Vec<_>>())
        });
        let (links, monitors) = lost.unwrap_or_default();
        let from_node = Address::Local(0);
        for reference in monitors {
            let down = Signal::Down { reference, reason: ExitReason::NoConnection };
            self.apply(from_node, down);
        }
        for address in links {
            self.apply(address, Signal::LinkDown { reason: ExitReason::NoConnection });
        }
    }

    // ----- what others may know -----

    pub(crate) fn name(&self) -> Option<Name> {
        self.lock().name.clone()
    }

    /// Gives it a name if it has none.
    pub(crate) fn set_name(&self, name: Option<Name>) -> bool {
        let mut state = self.lock();
        let free = state.phase != Phase::Dead && (name.is_none() || state.name.is_none());
        if free {
            state.name = name;
        }
        free
    }

    pub(crate) fn mailbox_len(&self) -> usize {
        self.lock().mailbox.len() + self.taken()
    }

    pub(crate) fn traps_exits(&self) -> bool {
        self.lock().traps_exits
    }

    pub(crate) fn mark(&self, mark: ChildMark) {
        self.relations(|relations| relations.mark = Some(mark));
    }
}

impl State {
    /// Notes that this waker waits for the mailbox. Mostly it is the task's own.
    fn wait(&mut self, waker: &Waker) {
        self.receiving = true;
        if self.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            if let Some(relations) = &mut self.relations {
                relations.receiver = None;
            }
        } else {
            self.relations.get_or_insert_with(Box::default).receiver = Some(waker.clone());
        }
    }

    /// Who is to be woken because something has come.
    fn take_receiver(&mut self) -> Option<Waker> {
        if !std::mem::take(&mut self.receiving) {
            return None;
        }
        let other = self.relations.as_mut().and_then(|relations| relations.receiver.take());
        other.or_else(|| self.task.clone())
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("pid", &self.pid())
            .field("kind", &self.class.kind)
            .finish_non_exhaustive()
    }
}
