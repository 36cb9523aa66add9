//! Global names of the exclusive kind, on the side of those that hold them.
//!
//! The rules, and what happens when, are at the head of `node/cluster/src/names/mod.rs`; this is rules
//! 2, 3, 4 and 6 of them. A process that wants a name is noted as asking, under an attempt of its own;
//! the name's registrar is asked until it gives the name, says who has it, or patience is over. Then
//! the name is this process's, as an entry that all nodes hear of; so looking one up asks nobody.
//!
//! What may have been given and is not wanted, since the process has ended or has stopped asking, is
//! kept until the registrar knows ([`Runtime::names_to_give`]).
//!
//! # Bounds
//!
//! Names that are asked for, held, or to be given back count among the node's entries.

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use purlin_proto::admin::GlobalNameInfo;
use purlin_proto::admin::names::{
    Claim, FindName, NAMES, NAMES_PAGE, NameRefusal, TakeName, name_key,
};
use purlin_proto::limits::PAGE_ENTRIES;
use purlin_proto::{Dest, EntryKey, Fence, Given, Name, NodeId, Pid};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::globals::GlobalError;
use super::info::behind;
use super::{EntryError, News};
use crate::exclusive::Lease;
use crate::process::Process;
use crate::registry::Cleanup;
use crate::runtime::{Runtime, lock};

/// How long a registrar may take for an answer before it is asked again, or another one.
const TRY: Duration = Duration::from_secs(1);

/// How long a registrar is asked again; the last try comes on top of it.
const PATIENCE: Duration = Duration::from_secs(4);

/// Before a registrar is asked again that cannot say yet, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

pub(crate) struct ExclusiveNames {
    state: Mutex<State>,
    news: Arc<News>,
    /// Some names are not held any more.
    released: Arc<Notify>,
    /// Some are to be given back.
    to_give: Notify,
}

#[derive(Default)]
struct State {
    attempts: u64,
    /// Counts the leases that have run out.
    term: u64,
    asking: BTreeMap<u64, Asking>,
    held: BTreeMap<Name, Has>,
    /// The names of each process of this node that has any.
    of_process: BTreeMap<u64, Named>,
    /// To be told to registrars.
    given_back: BTreeMap<(Name, u64), Claim>,
    /// Of shards whose registrar has asked for names: nothing is taken that it cannot have given
    /// since.
    floors: FxHashMap<u16, (u64, u64)>,
    there: BTreeMap<Name, BTreeMap<NodeId, Given>>,
    /// The names that each other node has.
    of: BTreeMap<NodeId, BTreeSet<Name>>,
}

struct Asking {
    name: Name,
    serial: u64,
}

struct Named {
    process: Arc<Process>,
    names: BTreeSet<Name>,
}

#[derive(Clone, Copy)]
struct Has {
    /// None where there is no registrar.
    claim: Option<Claim>,
    given: Given,
}

/// What has become of a name that was given.
enum Taking {
    Done,
    /// It is of an earlier registrar, or from before the lease ran out: ask again.
    Stale,
    /// This process of this node has it.
    Taken(u64),
    /// The process has ended.
    NoProcess,
}

impl State {
    fn give_back(&mut self, name: Name, claim: Claim) {
        self.given_back.insert((name, claim.attempt), claim);
    }

    /// The newest holder that is heard of.
    fn holder(&self, name: &Name, us: NodeId) -> Option<(NodeId, Given)> {
        let here = self.held.get(name).map(|has| (us, has.given));
        let there = self.there.get(name).into_iter().flatten().map(|(node, given)| (*node, *given));
        here.into_iter().chain(there).max_by_key(|(_, given)| given.fence)
    }
}

impl ExclusiveNames {
    pub(super) fn new(news: Arc<News>, released: Arc<Notify>) -> Self {
        Self { state: Mutex::default(), news, released, to_give: Notify::new() }
    }

    /// How this node holds a name.
    pub(super) fn given(&self, name: &Name) -> Option<Given> {
        lock(&self.state).held.get(name).map(|has| has.given)
    }

    /// One page of the names behind this one and their holders.
    pub(super) fn infos(&self, after: Option<Name>, us: NodeId) -> Vec<GlobalNameInfo> {
        let state = lock(&self.state);
        let range = behind(after);
        let here = state.held.range(range.clone()).map(|(name, _)| name).take(PAGE_ENTRIES);
        let there = state.there.range(range).map(|(name, _)| name).take(PAGE_ENTRIES);
        let names: BTreeSet<&Name> = here.chain(there).collect();
        let info = |name: &Name| {
            let (node, given) = state.holder(name, us)?;
            let (name, pid) = (name.clone(), node.pid(given.serial));
            let (since_ms, fence) = (given.since_ms, Some(given.fence));
            Some(GlobalNameInfo { name, pid, node: node.name, since_ms, fence })
        };
        names.into_iter().take(PAGE_ENTRIES).filter_map(info).collect()
    }

    fn ask(&self, name: &Name, process: &Process) -> Result<u64, GlobalError> {
        self.news.reserve()?;
        let mut state = lock(&self.state);
        state.attempts += 1;
        let attempt = state.attempts;
        state.asking.insert(attempt, Asking { name: name.clone(), serial: process.serial });
        Ok(attempt)
    }

    fn term(&self) -> u64 {
        lock(&self.state).term
    }

    /// The registrar has given a name; taken here if the lease is the one it was asked for under.
    fn take(
        self: &Arc<Self>,
        (attempt, claim): (u64, Option<Claim>),
        process: &Arc<Process>,
        given: Given,
        (term, leased): (u64, impl Fn() -> bool),
    ) -> Taking {
        let mut state = lock(&self.state);
        let Given { fence, .. } = given;
        let floor = state.floors.get(&fence.shard).copied().unwrap_or_default();
        let stale = (fence.epoch, fence.generation) <= floor;
        if state.term != term || stale || !leased() {
            return Taking::Stale;
        }
        let name = state.asking.get(&attempt).map(|asking| &asking.name);
        if let Some(has) = name.and_then(|name| state.held.get(name)) {
            return Taking::Taken(has.given.serial);
        }
        let this: Weak<Self> = Arc::downgrade(self);
        if !process.clean_up_with(this) {
            return Taking::NoProcess;
        }
        // Nobody else takes an attempt out.
        let Some(Asking { name, serial }) = state.asking.remove(&attempt) else {
            return Taking::NoProcess;
        };
        process.set_leased(true);
        let named = || Named { process: Arc::clone(process), names: BTreeSet::new() };
        state.of_process.entry(serial).or_insert_with(named).names.insert(name.clone());
        state.held.insert(name.clone(), Has { claim, given });
        drop(state);
        self.news.note([EntryKey::Exclusive(name)]);
        Taking::Done
    }

    /// Nobody asks any more. What may have been given all the same is given back.
    fn stop_asking(&self, attempt: u64, asked: Option<Claim>) {
        let mut state = lock(&self.state);
        let Some(Asking { name, .. }) = state.asking.remove(&attempt) else { return };
        match asked {
            Some(claim) => {
                state.give_back(name, claim);
                self.to_give.notify_one();
            }
            None => self.news.release(1),
        }
    }

    /// Gives up names that this node holds; `false` if it has none of them.
    fn release(&self, names: impl IntoIterator<Item = Name>) -> bool {
        let mut released = Vec::new();
        let mut state = lock(&self.state);
        for name in names {
            let Some(Has { claim, given }) = state.held.remove(&name) else { continue };
            match claim {
                Some(claim) => state.give_back(name.clone(), claim),
                None => self.news.release(1),
            }
            if let Some(named) = state.of_process.get_mut(&given.serial) {
                named.names.remove(&name);
                if named.names.is_empty() {
                    named.process.set_leased(false);
                    state.of_process.remove(&given.serial);
                }
            }
            released.push(EntryKey::Exclusive(name));
        }
        drop(state);
        let any = !released.is_empty();
        self.news.note(released);
        if any {
            self.released.notify_waiters();
            self.to_give.notify_one();
        }
        any
    }

    fn said(&self, of: NodeId, name: &Name, given: Option<Given>) {
        let mut state = lock(&self.state);
        if let Some(given) = given {
            state.there.entry(name.clone()).or_default().insert(of, given);
            state.of.entry(of).or_default().insert(name.clone());
            return;
        }
        if let Some(there) = state.there.get_mut(name) {
            there.remove(&of);
            if there.is_empty() {
                state.there.remove(name);
            }
        }
        if let Some(names) = state.of.get_mut(&of) {
            names.remove(name);
            if names.is_empty() {
                state.of.remove(&of);
            }
        }
    }
}

impl Cleanup for ExclusiveNames {
    fn ended(&self, serial: u64) {
        let names = lock(&self.state).of_process.get(&serial).map(|named| named.names.clone());
        self.release(names.unwrap_or_default());
    }
}

/// An attempt that goes on; when it is dropped, it is over.
struct Attempt<'a> {
    names: &'a ExclusiveNames,
    number: u64,
    /// What a registrar may have heard of.
    asked: Option<Claim>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.names.stop_asking(self.number, self.asked);
    }
}

impl Runtime {
    /// Gives a process of this node a global name that no other process in the cluster has (OTP:
    /// `global:register_name/2`), and returns its fencing token, greater than that of every earlier
    /// holder.
    ///
    /// The name is given by the node that owns it on the ring, so this takes a round trip; longer
    /// while members change, 5 s at most. It is given up when the process ends or is killed, when
    /// its node is down, and by [`unregister_global`](Self::unregister_global). A process may have
    /// several; giving one twice to the same process returns the same token.
    ///
    /// A process that has such a name may run only while its node has a lease, as exclusive keyed ones
    /// may: when that runs out, since the node has lost contact to the majority of voters, the process
    /// ends with an error.
    ///
    /// # Errors
    ///
    /// [`Taken`](GlobalError::Taken) by whom; [`Undecided`](GlobalError::Undecided) where nobody could
    /// decide in time, as without a majority of voters; [`NoPart`](GlobalError::NoPart) on a node that
    /// takes no part in what is exclusive; [`Entry`](GlobalError::Entry) if the process is dead or
    /// elsewhere, or the node is full. The name is not given then.
    ///
    /// Cancel safe: when dropped before it returns, the name is not given.
    pub async fn register_global(
        &self,
        name: impl Into<Name>,
        pid: Pid,
    ) -> Result<Fence, GlobalError> {
        let own = self.is_own(&pid).then(|| self.process(pid.serial)).flatten();
        let process = own.ok_or(EntryError::NoProcess)?;
        let (name, names) = (name.into(), &self.0.entries.exclusive_names);
        if self.lease() == Lease::Never {
            return Err(GlobalError::NoPart);
        }
        if let Some(given) = names.given(&name).filter(|given| given.serial == process.serial) {
            return Ok(given.fence);
        }
        if let Some(holder) = self.available_holder(&name) {
            return Err(GlobalError::Taken { name, holder });
        }
        let number = names.ask(&name, &process)?;
        let mut attempt = Attempt { names, number, asked: None };
        let deadline = Instant::now() + PATIENCE;
        let mut changed = self.watch_holdings();
        let mut pause = PAUSE.0;
        loop {
            let refused = match self.try_global(&name, &process, &mut attempt).await {
                Ok(fence) => return Ok(fence),
                Err(Some(refused)) => refused,
                Err(None) => return Err(EntryError::NoProcess.into()),
            };
            let detail = match refused {
                Refused::Taken(holder) => return Err(GlobalError::Taken { name, holder }),
                Refused::Full => return Err(EntryError::Full.into()),
                Refused::Later(detail) => detail,
            };
            if Instant::now() + pause >= deadline {
                return Err(GlobalError::Undecided { name, detail });
            }
            // Either way it is asked again.
            drop(tokio::time::timeout(pause, changed.changed()).await);
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Asks the registrar once; `Err(None)` if the process has ended.
    async fn try_global(
        &self,
        name: &Name,
        process: &Arc<Process>,
        attempt: &mut Attempt<'_>,
    ) -> Result<Fence, Option<Refused>> {
        let later = |detail: &str| Some(Refused::Later(detail.to_owned()));
        let names = &self.0.entries.exclusive_names;
        // Before the lease is looked at: if it runs out after that, the term is another one.
        let term = names.term();
        let key = name_key(name);
        let fence = if self.0.remote.get().is_none() {
            // Without other nodes this table is all there is.
            match self.whereis_exclusive(name) {
                Some(holder) => return Err(Some(Refused::Taken(holder))),
                None => Fence { epoch: self.id().creation, shard: 0, generation: attempt.number },
            }
        } else {
            if self.lease() != Lease::Good {
                return Err(later("this node has no lease from the voters"));
            }
            let Some(owner) = self.exclusive_owner(&key) else {
                return Err(later("no ring view is known"));
            };
            // The same one each time, whatever life this node is in by then.
            let pid = process.pid();
            let claim = *attempt.asked.get_or_insert(Claim { pid, attempt: attempt.number });
            let to = Dest::Remote(NAMES.parse().expect("a name"), owner);
            let ask = TakeName { name: name.clone(), claim };
            match self.call_timeout(to, ask, TRY).await {
                Ok(Ok(fence)) => fence,
                Ok(Err(NameRefusal::Taken(holder))) => return Err(Some(Refused::Taken(holder))),
                Ok(Err(NameRefusal::Full)) => return Err(Some(Refused::Full)),
                Ok(Err(NameRefusal::NotOwner)) => {
                    return Err(later("the owner of the name is changing"));
                }
                Ok(Err(NameRefusal::NotYet)) => {
                    return Err(later("its owner has not heard of all names yet"));
                }
                Err(error) => {
                    let detail = format!("{owner}, which decides about it: {error}");
                    return Err(Some(Refused::Later(detail)));
                }
            }
        };
        let given = Given { serial: process.serial, since_ms: self.wall_ms(), fence };
        let leased = || !self.lease_is_over();
        match names.take((attempt.number, attempt.asked), process, given, (term, leased)) {
            Taking::Done => Ok(fence),
            Taking::Taken(serial) => Err(Some(Refused::Taken(self.id().pid(serial)))),
            Taking::Stale => Err(later("the owner of the name has changed")),
            Taking::NoProcess => Err(None),
        }
    }

    /// The process that has an exclusive global name, as far as this node knows.
    pub(super) fn whereis_exclusive(&self, name: &Name) -> Option<Pid> {
        let state = lock(&self.0.entries.exclusive_names.state);
        state.holder(name, self.id()).map(|(node, given)| node.pid(given.serial))
    }

    /// The process that has a global name, of either kind. Where this node knows of none, the node
    /// that decides about the name is asked, a round trip; so a name that another node was given is
    /// found here as soon as its registration has returned there.
    ///
    /// # Errors
    ///
    /// [`Undecided`](GlobalError::Undecided) if that one cannot say, or does not answer within a
    /// second.
    pub async fn find_global(&self, name: impl Into<Name>) -> Result<Option<Pid>, GlobalError> {
        let name = name.into();
        if let Some(pid) = self.whereis_global(&name) {
            return Ok(Some(pid));
        }
        let Some(owner) = self.exclusive_owner(&name_key(&name)) else { return Ok(None) };
        if self.0.remote.get().is_none() {
            return Ok(None);
        }
        let to = Dest::Remote(NAMES.parse().expect("a name"), owner);
        let detail = match self.call_timeout(to, FindName { name: name.clone() }, TRY).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(_)) => format!("{owner} does not know yet who has it"),
            Err(error) => format!("{owner}, which decides about it: {error}"),
        };
        Err(GlobalError::Undecided { name, detail })
    }

    pub(super) fn release_exclusive(&self, name: Name) -> bool {
        self.0.entries.exclusive_names.release([name])
    }

    pub(super) fn exclusive_said(&self, of: NodeId, name: &Name, given: Option<Given>) {
        self.0.entries.exclusive_names.said(of, name, given);
    }

    pub(super) fn exclusive_vanished(&self, of: NodeId) {
        let names = &self.0.entries.exclusive_names;
        let gone = lock(&names.state).of.get(&of).cloned().unwrap_or_default();
        for name in gone {
            names.said(of, &name, None);
        }
    }

    // ----- for the owner of the runtime -----

    pub(super) fn own_exclusive_names(&self) -> Vec<Name> {
        lock(&self.0.entries.exclusive_names.state).held.keys().cloned().collect()
    }

    /// To be called when the lease has run out, before anything that ran under it is ended: no name
    /// that was asked for before is taken any more.
    pub fn lease_lapsed(&self) {
        lock(&self.0.entries.exclusive_names.state).term += 1;
    }

    /// The processes that may not run on without a lease, for the names that they have.
    pub(crate) fn named_exclusively(&self) -> Vec<Arc<Process>> {
        let state = lock(&self.0.entries.exclusive_names.state);
        state.of_process.values().map(|named| Arc::clone(&named.process)).collect()
    }

    /// Tells a registrar the exclusive names behind `after` of these shards, by name, one page of
    /// [`NAMES_PAGE`]. From now on this node takes none there whose fence is not above `(epoch,
    /// generation)`.
    pub fn tell_names(
        &self,
        (epoch, generation): (u64, u64),
        shards: &BTreeSet<u16>,
        after: Option<Name>,
    ) -> Vec<(Name, Claim, Fence)> {
        let mut state = lock(&self.0.entries.exclusive_names.state);
        if after.is_none() {
            for shard in shards {
                let floor = state.floors.entry(*shard).or_default();
                *floor = (*floor).max((epoch, generation));
            }
        }
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let held = state.held.range((after, Bound::Unbounded));
        let wanted = held.filter(|(_, has)| shards.contains(&has.given.fence.shard));
        let told =
            wanted.filter_map(|(name, has)| Some((name.clone(), has.claim?, has.given.fence)));
        told.take(NAMES_PAGE).collect()
    }

    /// Whether a name is held here, or asked for, under this claim.
    pub fn holds_name(&self, name: &Name, claim: Claim) -> bool {
        let state = lock(&self.0.entries.exclusive_names.state);
        let holds = state.held.get(name).is_some_and(|has| has.claim == Some(claim));
        holds || state.asking.contains_key(&claim.attempt)
    }

    /// Returns when there may be more [`names_to_give`](Self::names_to_give) than there were. Cancel
    /// safe; for one that waits.
    pub async fn names_released(&self) {
        self.0.entries.exclusive_names.to_give.notified().await;
    }

    /// Names that are not wanted here any more and may be thought to be; until
    /// [`names_given`](Self::names_given).
    pub fn names_to_give(&self) -> Vec<(Name, Claim)> {
        let state = lock(&self.0.entries.exclusive_names.state);
        let page = state.given_back.iter().take(PAGE_ENTRIES);
        page.map(|((name, _), claim)| (name.clone(), *claim)).collect()
    }

    /// Those that decide about them know.
    pub fn names_given(&self, names: &[(Name, Claim)]) {
        let exclusive = &self.0.entries.exclusive_names;
        let mut state = lock(&exclusive.state);
        let gone = |(name, claim): &&(Name, Claim)| {
            state.given_back.remove(&(name.clone(), claim.attempt)).is_some()
        };
        let count = names.iter().filter(gone).count();
        drop(state);
        exclusive.news.release(count);
    }
}

/// Why a registrar has not given a name.
enum Refused {
    Taken(Pid),
    Full,
    Later(String),
}
