//! Exclusive global names: this node's share of deciding who has which.
//!
//! `purlin_cluster::names` has the rules and what happens when; `purlin_runtime` has the names that
//! processes of this node hold. Here is the registrar's table behind a lock ([`Names`]), and the
//! process `purlin.names` ([`process`]) that is asked for names, asks other members which they have,
//! and gives back what is not wanted.
//!
//! The table is looked at in three places, and that order is what its rule 1 rests on: the task of
//! the leases calls [`Names::look`] before it reports a view or asks for a lease again; `purlin.names`
//! calls it when something may be held anew; and each name is given while the table is locked and
//! the lease is looked at within.

mod process;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use purlin_cluster::names::{Gather, Registrar};
use purlin_proto::admin::names::{Claim, NameRefusal, name_key};
use purlin_proto::{Fence, Name, NodeName, Pid};
use purlin_runtime::Holding;
use purlin_runtime::mutant::is_planted;

use crate::exclusive::Exclusive;

pub(crate) use process::start;

/// The registrar of this node.
pub(crate) struct Names {
    exclusive: Arc<Exclusive>,
    registrar: Mutex<Registrar>,
}

impl Names {
    pub(crate) fn new(exclusive: Arc<Exclusive>) -> Self {
        Self { exclusive, registrar: Mutex::default() }
    }

    fn registrar(&self) -> MutexGuard<'_, Registrar> {
        self.registrar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is not held any more, and notes what is to be gathered.
    pub(crate) fn look(&self) {
        let mut registrar = self.registrar();
        let (held, view) = self.exclusive.held();
        registrar.look(&held, view.as_ref());
        if is_planted("ungathered") {
            for gather in registrar.gathers() {
                for by in gather.awaited {
                    registrar.told(gather.number, by, Vec::new(), true);
                }
            }
        }
    }

    fn gathers(&self) -> Vec<Gather> {
        self.registrar().gathers()
    }

    fn told(&self, number: u64, by: NodeName, names: Vec<(Name, Claim, Fence)>) {
        self.registrar().told(number, by, names, true);
    }

    /// Where a name is held, if this node decides about it.
    fn held(&self, name: &Name) -> Result<(u64, u16), NameRefusal> {
        match self.exclusive.holding(&name_key(name)) {
            Holding::Yes { epoch, shard } => Ok((epoch, shard)),
            Holding::NotYet => Err(NameRefusal::NotYet),
            Holding::No => Err(NameRefusal::NotOwner),
        }
    }

    fn take(&self, name: &Name, claim: Claim) -> Result<Fence, NameRefusal> {
        let mut registrar = self.registrar();
        let held = self.held(name)?;
        registrar.take(name, claim, held)
    }

    pub(crate) fn find(&self, name: &Name) -> Result<Option<Pid>, NameRefusal> {
        let registrar = self.registrar();
        let (_, shard) = self.held(name)?;
        registrar.find(name, shard)
    }

    fn claim(&self, name: &Name) -> Option<Claim> {
        self.registrar().claim(name)
    }

    /// These are free, if they were taken under these claims; whether this node decides about all
    /// of them.
    fn give(&self, names: &[(Name, Claim)]) -> bool {
        let mut registrar = self.registrar();
        let mut all = true;
        for (name, claim) in names {
            all &= match self.held(name) {
                Ok((_, shard)) => registrar.give(name, *claim, shard),
                Err(_) => false,
            };
        }
        all
    }
}
