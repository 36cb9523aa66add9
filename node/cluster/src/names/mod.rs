//! Global names of the exclusive kind: at most one holder in the cluster, at every instant.
//!
//! The node that holds a name's shard (see [`exclusive`](crate::exclusive): lease, view, barrier) is
//! its *registrar* and gives the name to one process. What is true of a name is said by its holder's
//! node alone; the registrar's table ([`Registrar`]) only keeps it from giving the name twice. So
//! nothing is written to disks, no log is, and no table has to survive: a new registrar asks **every
//! member of its view** what it has, and gives nothing in those shards before all have answered or
//! are out of the view. That asks more than copies at two successors would (who need not outlive the
//! owner either), and saves a name the second round trip.
//!
//! # Rules
//!
//! 1. A registrar gives a name only while it holds the shard and has *gathered* it, under one lock
//!    with its table. Its table of a shard is forgotten before its node reports a view without that
//!    shard as installed, and before it asks for a lease after one that has run out: so it never
//!    outlives the hold that it was gathered under.
//! 2. Each name given has a [`Fence`](purlin_proto::Fence): the view's epoch, the shard, and a number
//!    that rises on that node. Whoever is asked for its names remembers the newest fence that the
//!    asking registrar can have given before; from then on it takes none in these shards that is not
//!    newer. So what an earlier registrar has given, and is still on the way, comes to nothing.
//! 3. A node asks for a name, and takes it, only within one uninterrupted lease: if that runs out
//!    between, what comes is not taken. So a node that takes a name has been in every view since it
//!    asked, and every registrar since then has asked it.
//! 4. A process that holds a name is ended when its node's lease runs out, as every exclusive one
//!    is: at its next poll at the latest, and before the leader takes the node out of the view. It
//!    ends with an error, so that its supervisor starts it again; that takes the name when it can.
//! 5. The names of a member that is out of the view are free. Its lease has run out by then, or it
//!    has given it back.
//! 6. When a holder ends, its node says so to the registrar, until that has confirmed it. If another
//!    process wants a name that is taken, the registrar asks the holder's node first whether it
//!    still has it. So a word that was lost costs nobody the name.
//!
//! # What if
//!
//! - *the registrar crashes*: the members of the next view are asked by the next one. What it had
//!   given goes on; a name that was given and not heard of is asked for again, under the same attempt.
//! - *its successors crash*: they know nothing that others do not.
//! - *the holder crashes*: its node tells the registrar; *its node crashes*: rule 5, within the time
//!   in which members are lost.
//! - *a connection is lost*: questions are asked again, every second, as long as both are in the
//!   view. A member that its registrar cannot reach, and the voters can, holds up names in the
//!   shards that have moved, and no others.
//! - *two ask at once*: the registrar has one lock.
//! - *a node asks in vain*: what it may have been given after it has stopped asking it gives back, as
//!   if its holder had ended.
//! - *the cluster is split*: where there is no majority of voters, nothing is given once leases have
//!   run out, and holders end. On the other side all goes on, and the names of the lost are free.
//! - *two clusters meet*: nodes of the junior one lose their leases, so their holders end (rule 4),
//!   before they are taken in.
//! - *a node comes back under a new creation*: it loses its lease; the same.
//! - *a node is frozen*: rule 1 for a registrar, rule 3 for one that asks, rule 4 for a holder.
//! - *a registrar is behind with asking and is asked meanwhile*: it says `NotYet`, and is asked again
//!   until whoever asks has no patience any more. Nothing waits at the registrar.
//! - *versions differ*: a member that does not know these questions does not answer them, so in
//!   shards that move while it is there nothing is given. One that takes no part in what is
//!   exclusive is in no view.
//!
//! # Absent on purpose
//!
//! Clocks, questions on the way, and the holder's side (`node/runtime/src/entries/exclusive_names.rs`).

mod pages;
mod registrar;
mod shards;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use pages::{NoNames, Pages};
pub use registrar::{Gather, Registrar};
pub use shards::Shards;
