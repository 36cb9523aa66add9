//! Global names of the available kind (OTP: `global`, without its locks).
//!
//! A node gives a name to one of its processes if nobody that it knows of has it; it never asks
//! others. So names can be given in every part of a split, and at the same moment on two nodes: then
//! two processes have one, until the nodes see each other. What must never have two holders needs a
//! name of the exclusive kind, which the cluster's authority gives; this is not it.
//!
//! # A conflict
//!
//! Of two holders the *older* is the one whose node's clock said the earlier time when it took the
//! name; then the one of the smaller node name. The node of the oldest holder decides, against the
//! next oldest first, and nobody else does, so that the answer is the same everywhere even if the
//! program's own [`Resolver`] is not. If its own loses, it gives the name up. If the other one does,
//! it says so in its own entry ([`Held::over`]), and the other's node gives it up when it reads that.
//! Either way the loser's node tells it, with a [`NameConflict`], and until then everyone takes the
//! oldest holder for the holder. If the deciding node goes down before it was heard, whoever is left
//! keeps the name, or decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use purlin_proto::limits::PAGE_ENTRIES;
use purlin_proto::{EntryKey, Held, Name, NameConflict, NodeId, Pid};
use rustc_hash::FxHashMap;

use super::info::behind;
use super::{EntryError, News};
use crate::item::Notice;
use crate::mutant::is_planted;
use crate::panics;
use crate::process::Process;
use crate::registry::Cleanup;
use crate::relations::Address;
use crate::runtime::{Runtime, lock};

/// Which of two holders of a global name is kept, when there turn out to be two.
///
/// The node of the older holder asks it; all nodes should have the same.
///
/// ```
/// use std::sync::Arc;
/// use purlin_runtime::{Keep, Resolver};
///
/// let by_name = Resolver::With(Arc::new(|conflict| {
///     if conflict.older.pid.node.name < conflict.newer.pid.node.name { Keep::Older } else { Keep::Newer }
/// }));
/// ```
#[derive(Clone, Default)]
pub enum Resolver {
    /// Who has had it for longer.
    #[default]
    KeepOldest,
    /// Who took it last.
    KeepNewest,
    /// Whom this says. It must prefer consistently, so that of three there is a best. If it panics,
    /// the older is kept.
    With(Arc<dyn Fn(&Conflict) -> Keep + Send + Sync>),
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeepOldest => "KeepOldest",
            Self::KeepNewest => "KeepNewest",
            Self::With(_) => "With",
        })
    }
}

/// Two holders of one global name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The name.
    pub name: Name,
    /// Who has had it for longer.
    pub older: Holder,
    /// Who took it later.
    pub newer: Holder,
}

/// A holder of a global name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: Pid,
    /// When it took the name, in milliseconds since 1970 by its node's clock.
    pub since_ms: u64,
}

impl Holder {
    /// The older first. A node has one holder of a name at most.
    fn age(&self) -> (u64, NodeId) {
        (self.since_ms, self.pid.node)
    }
}

/// What a [`Resolver`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// [`Conflict::older`].
    Older,
    /// [`Conflict::newer`].
    Newer,
}

/// Why a global name was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GlobalError {
    /// Another process has it, as far as this node knows.
    #[error("the global name {name} is taken by {holder}")]
    Taken {
        /// The name.
        name: Name,
        /// Who has it.
        holder: Pid,
    },
    /// Of the exclusive kind: nobody could decide about it in time, so it was not given.
    #[error("nobody could decide about the global name {name}: {detail}")]
    Undecided {
        /// The name.
        name: Name,
        /// What was the matter last.
        detail: String,
    },
    /// Of the exclusive kind: this node has no lease and asks for none.
    #[error(
        "the node takes no part in what is exclusive; the builder's `exclusive` lets it, and \
         `register_global_available` gives names that can have two holders after a split"
    )]
    NoPart,
    /// The process cannot be given one.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// Holders that another one has won against remember so many; more are decided anew.
const OVER: usize = 16;

pub(crate) struct Globals {
    state: Mutex<State>,
    news: Arc<News>,
    resolver: Resolver,
}

#[derive(Default)]
struct State {
    names: BTreeMap<Name, Claims>,
    /// The names of each process of this node that has any.
    own: FxHashMap<u64, BTreeSet<Name>>,
    /// The names that each other node has given.
    of: BTreeMap<NodeId, BTreeSet<Name>>,
}

/// Who says to hold a name.
#[derive(Default)]
struct Claims {
    here: Option<Held>,
    there: BTreeMap<NodeId, Held>,
    /// Whether the program's own resolver is at work.
    deciding: bool,
}

fn holder(node: NodeId, held: &Held) -> Holder {
    Holder { pid: node.pid(held.serial), since_ms: held.since_ms }
}

/// Whether a holder has won against another one, in whichever life of that node.
fn has_won(over: &Held, loser: &Holder) -> bool {
    let is = |(node, since): &(NodeId, u64)| {
        node.name == loser.pid.node.name && *since == loser.since_ms
    };
    over.over.iter().any(is)
}

impl Claims {
    fn is_empty(&self) -> bool {
        self.here.is_none() && self.there.is_empty()
    }

    /// All holders that none of the others has won against, the oldest first.
    fn holders(&self, us: NodeId) -> Vec<Holder> {
        let all: Vec<_> = self
            .here
            .iter()
            .map(|held| (us, held))
            .chain(self.there.iter().map(|(node, held)| (*node, held)))
            .collect();
        let mut holders: Vec<_> = all.iter().map(|(node, held)| holder(*node, held)).collect();
        holders.retain(|holder| !all.iter().any(|(_, held)| has_won(held, holder)));
        holders.sort_by_key(Holder::age);
        holders
    }
}

impl State {
    fn remove_own(&mut self, name: &Name, serial: u64) {
        let Some(names) = self.own.get_mut(&serial) else { return };
        names.remove(name);
        if names.is_empty() {
            self.own.remove(&serial);
        }
    }

    fn tidy(&mut self, name: &Name) {
        if self.names.get(name).is_some_and(Claims::is_empty) {
            self.names.remove(name);
        }
    }
}

/// What is to be done about a name, under no lock.
enum Todo {
    Nothing,
    /// Our holder has lost.
    Tell {
        serial: u64,
        winner: Pid,
    },
    /// The program is to decide.
    Ask(Arc<dyn Fn(&Conflict) -> Keep + Send + Sync>, Conflict),
}

impl Globals {
    pub(super) fn new(news: Arc<News>, resolver: Resolver) -> Self {
        Self { state: Mutex::default(), news, resolver }
    }

    /// How this node holds a name.
    pub(super) fn held(&self, name: &Name) -> Option<Held> {
        lock(&self.state).names.get(name)?.here.clone()
    }

    /// One page of the names behind this one and their holders.
    pub(super) fn holders(&self, after: Option<Name>, us: NodeId) -> Vec<(Name, Holder)> {
        let state = lock(&self.state);
        let first = |claims: &Claims| claims.holders(us).first().copied();
        let names = state.names.range(behind(after)).take(PAGE_ENTRIES);
        names.filter_map(|(name, claims)| Some((name.clone(), first(claims)?))).collect()
    }

    pub(super) fn own_names(&self) -> BTreeSet<Name> {
        lock(&self.state).own.values().flatten().cloned().collect()
    }

    fn register(
        self: &Arc<Self>,
        name: &Name,
        us: NodeId,
        process: &Process,
        since_ms: u64,
    ) -> Result<(), GlobalError> {
        let mut state = lock(&self.state);
        if let Some(claims) = state.names.get(name) {
            // One that has lost it a moment ago still has to be told.
            let lost = || claims.here.as_ref().map(|held| holder(us, held));
            if let Some(taken) = claims.holders(us).first().copied().or_else(lost) {
                return Err(GlobalError::Taken { name: name.clone(), holder: taken.pid });
            }
        }
        self.news.reserve()?;
        let this: Weak<Self> = Arc::downgrade(self);
        if !process.clean_up_with(this) {
            self.news.release(1);
            return Err(EntryError::NoProcess.into());
        }
        let held = Held { serial: process.serial, since_ms, over: Vec::new() };
        state.names.entry(name.clone()).or_default().here = Some(held);
        state.own.entry(process.serial).or_default().insert(name.clone());
        drop(state);
        self.news.note([EntryKey::Global(name.clone())]);
        Ok(())
    }

    /// Gives up a name of this node.
    fn release(&self, name: &Name) -> bool {
        let mut state = lock(&self.state);
        let held = state.names.get_mut(name).and_then(|claims| claims.here.take());
        let Some(held) = held else { return false };
        state.remove_own(name, held.serial);
        state.tidy(name);
        drop(state);
        self.news.release(1);
        self.news.note([EntryKey::Global(name.clone())]);
        true
    }

    fn said(&self, of: NodeId, name: &Name, held: Option<Held>) {
        let mut state = lock(&self.state);
        let claims = state.names.entry(name.clone()).or_default();
        match held {
            Some(held) => {
                claims.there.insert(of, held);
                state.of.entry(of).or_default().insert(name.clone());
            }
            None => {
                claims.there.remove(&of);
                if let Some(names) = state.of.get_mut(&of) {
                    names.remove(name);
                    if names.is_empty() {
                        state.of.remove(&of);
                    }
                }
            }
        }
        state.tidy(name);
    }

    /// Decides about a name of which this node has a holder, as far as that is for it to do.
    fn settle(&self, name: &Name, us: NodeId, said: Option<(&Conflict, Keep)>) -> Todo {
        let mut state = lock(&self.state);
        let Some(claims) = state.names.get_mut(name) else { return Todo::Nothing };
        if said.is_some() {
            claims.deciding = false;
        }
        let Some(here) = &claims.here else { return Todo::Nothing };
        let own = holder(us, here);
        let winner = claims.there.iter().find(|(_, held)| has_won(held, &own));
        let mut winner = winner.map(|(node, held)| holder(*node, held));
        let mut noted = false;
        while winner.is_none() {
            let holders = claims.holders(us);
            let [older, newer, ..] = holders[..] else { break };
            if older.pid.node != us || claims.deciding {
                break;
            }
            let conflict = Conflict { name: name.clone(), older, newer };
            let keep = match (&self.resolver, said) {
                (Resolver::KeepOldest, _) => Keep::Older,
                (Resolver::KeepNewest, _) => Keep::Newer,
                (_, Some((asked, keep))) if *asked == conflict => keep,
                (Resolver::With(ask), _) => {
                    claims.deciding = true;
                    let ask = Arc::clone(ask);
                    drop(state);
                    if noted {
                        self.news.note([EntryKey::Global(name.clone())]);
                    }
                    return Todo::Ask(ask, conflict);
                }
            };
            match (keep, &mut claims.here) {
                (Keep::Newer, _) => winner = Some(newer),
                (Keep::Older, Some(here)) => {
                    if here.over.len() == OVER {
                        here.over.remove(0);
                    }
                    here.over.push((newer.pid.node, newer.since_ms));
                    noted = true;
                }
                (Keep::Older, None) => break,
            }
        }
        let lost = winner.and_then(|winner| Some((winner, claims.here.take()?)));
        if let Some((_, held)) = &lost {
            state.remove_own(name, held.serial);
            state.tidy(name);
        }
        drop(state);
        self.news.release(usize::from(lost.is_some()));
        if noted || lost.is_some() {
            self.news.note([EntryKey::Global(name.clone())]);
        }
        match lost {
            Some((winner, held)) => Todo::Tell { serial: held.serial, winner: winner.pid },
            None => Todo::Nothing,
        }
    }
}

impl Cleanup for Globals {
    fn ended(&self, serial: u64) {
        let names = lock(&self.state).own.get(&serial).cloned().unwrap_or_default();
        for name in names {
            self.release(&name);
        }
    }
}

impl Runtime {
    /// Gives a process of this node a global name of the available kind, at once. For one that has
    /// never two holders see [`register_global`](Self::register_global).
    ///
    /// Only this node's own view is asked: the name is refused if this node knows of a holder. Two
    /// nodes that do not see each other, or do so at the same moment, can both give it; when they
    /// find out, one of the holders is kept (see [`Resolver`]), and the other loses the name and is
    /// told with a [`NameConflict`]. The name is given up when the process ends, or its node is down.
    /// A process may have several.
    pub fn register_global_available(
        &self,
        name: impl Into<Name>,
        pid: Pid,
    ) -> Result<(), GlobalError> {
        let own = self.is_own(&pid).then(|| self.process(pid.serial)).flatten();
        let process = own.ok_or(EntryError::NoProcess)?;
        let name = name.into();
        if let Some(holder) = self.whereis_exclusive(&name) {
            return Err(GlobalError::Taken { name, holder });
        }
        let since_ms = self.wall_ms();
        self.0.entries.globals.register(&name, self.id(), &process, since_ms)?;
        // Somebody may have been heard of meanwhile.
        self.settle_global(&name);
        Ok(())
    }

    /// Takes a global name back from a process of this node (OTP: `global:unregister_name/1`);
    /// `false` if none has it. One of the exclusive kind is free for others soon after this returns.
    pub fn unregister_global(&self, name: impl Into<Name>) -> bool {
        let name = name.into();
        self.0.entries.globals.release(&name) || self.release_exclusive(name)
    }

    /// The process that has a global name of either kind, as far as this node knows (OTP:
    /// `global:whereis_name/1`). Nobody is asked; see [`find_global`](Self::find_global).
    pub fn whereis_global(&self, name: &Name) -> Option<Pid> {
        self.whereis_exclusive(name).or_else(|| self.available_holder(name))
    }

    /// The process that has a global name of the available kind.
    pub(super) fn available_holder(&self, name: &Name) -> Option<Pid> {
        let state = lock(&self.0.entries.globals.state);
        let claims = state.names.get(name)?;
        if let (Some(here), true) = (&claims.here, claims.there.is_empty()) {
            return Some(self.id().pid(here.serial));
        }
        if let (None, 1, Some((node, held))) =
            (&claims.here, claims.there.len(), claims.there.first_key_value())
        {
            return Some(node.pid(held.serial));
        }
        claims.holders(self.id()).first().map(|holder| holder.pid)
    }

    pub(crate) fn global_holder(&self, name: &Name) -> Option<Address> {
        self.whereis_global(name).map(|pid| self.address_of(&pid))
    }

    pub(super) fn global_held(&self, of: NodeId, name: &Name, held: Option<Held>) {
        self.0.entries.globals.said(of, name, held);
        self.settle_global(name);
    }

    pub(super) fn globals_vanished(&self, of: NodeId) {
        let names = lock(&self.0.entries.globals.state).of.get(&of).cloned().unwrap_or_default();
        for name in names {
            self.global_held(of, &name, None);
        }
    }

    fn settle_global(&self, name: &Name) {
        self.settled(name, self.0.entries.globals.settle(name, self.id(), None));
    }

    fn settled(&self, name: &Name, todo: Todo) {
        match todo {
            Todo::Nothing => {}
            Todo::Tell { serial, winner } => {
                let loser = self.id().pid(serial);
                tracing::warn!(%name, %loser, %winner, "global name lost");
                let told = self.process(serial).filter(|_| !is_planted("silent-conflict"));
                if let Some(process) = told {
                    let name = name.clone();
                    process.notify(Notice::NameConflict(NameConflict { name, winner }));
                }
            }
            Todo::Ask(ask, conflict) => {
                // It is the program's, and this may be the network's thread.
                let (runtime, name) = (self.clone(), name.clone());
                self.0.executor.spawn(async move {
                    let mut keep = Keep::Older;
                    panics::contained("a resolver was asked", || keep = ask(&conflict));
                    let globals = &runtime.0.entries.globals;
                    let todo = globals.settle(&name, runtime.id(), Some((&conflict, keep)));
                    runtime.settled(&name, todo);
                });
            }
        }
    }
}
