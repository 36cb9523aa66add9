//! At most one, at every instant: ring views with numbers, leases of nodes, and the barrier between
//! two views.
//!
//! An **authority** is a group of voters (1, 3 or 5 of the nodes, [`choose_voters`]) with a log (Raft,
//! not here). The log holds [`RingView`]s, each with its number, the *epoch*, and who votes; it is
//! written when members change and at no other time. The voters' leader gives nodes leases, which
//! are in no log. A node owns the shards that the ring of a view gives it ([`Holder`]); the leader
//! sees to it that two views are not acted under at once ([`Keeper`]).
//!
//! # Rules
//!
//! 1. A lease counts from when the node **sent** its [`Renewal`], by the node's clock, and is good
//!    for nine tenths of its length. The leader counts it from when it answers, in full, plus the time
//!    that processes may take to stop. So clocks may differ in rate by a tenth.
//! 2. A leader answers a renewal only after a majority of voters has confirmed, later than the
//!    renewal came, that it leads. A new leader takes every member for one with a lease until a whole
//!    lease has passed since its election, unless it has heard better from it. So leases need no log.
//! 3. A grant carries the newest view, and the node installs it with the lease: it never acts under
//!    an older view than its newest grant.
//! 4. *Barrier*: under epoch e a shard is started by its new owner only when every node that may hold
//!    a lease has reported that it has installed e or later. A node reports that when all processes of
//!    shards that it has lost have **ended**. What a node owns in both views goes on meanwhile.
//! 5. A member is taken out of the view when membership says that this life is over *and* its lease
//!    has run out at the leader. From the moment this is proposed it is given none.
//! 6. A node whose lease has run out ends what is exclusive within the stopping time, and asks for no
//!    new lease before that is done. Then it holds a shard again only behind a barrier that is not
//!    older than its newest view.
//! 7. *Planned moves*: a node that is about to leave says so with each renewal. It is left out of the
//!    next view and keeps its lease: it owns nothing any more, ends what it has lost, and the barrier
//!    waits for it as for all others. Since it may have a lease and be in no view, a new leader takes
//!    no barrier for passed, and writes no view, before all leases of earlier terms have run out.
//!
//! Two of them were mutants in the prototype, and are here (`tests`): without 3 or without 4 there
//! are two owners every now and then.
//!
//! # What if
//!
//! - *a node is alone*: it founds an authority of its own ([`Founding`]) and is its one voter.
//! - *many start at once*: those with seeds wait until they are in contact, nobody whom they see knows
//!   of an authority, and `expect` members are there; then the one of the oldest life founds.
//! - *two clusters meet*: of two authorities the one that was founded first stays ([`AuthorityId`]'s
//!   order). A node of the other leaves its own when the leader of the senior one answers it: it ends
//!   what is exclusive, forgets, and asks to be taken in. Its highest epoch goes along, and the next view's
//!   is above it, so that [`Fence`](purlin_proto::Fence)s rise.
//! - *a voter is lost*: when it is out of the view another node takes its place, the most senior one
//!   where labels are spread best.
//! - *a voter leaves* in good order: it stays until it is out of the view and another one votes in its
//!   place, for a few seconds at most, and gives its seat up. While it drains it votes on, and leads on
//!   if it did: nobody waits for another leader while keys move. When a leader has left, one of the
//!   others stands for election as soon as they may vote again, long before leases run out. Of three
//!   nodes the two that stay have one voter then.
//! - *a node that drains crashes* in the middle: its lease runs out, as after any crash. Its next life
//!   says nothing of leaving and is taken in.
//! - *the leader is lost while a node drains*: the next one has to wait for leases that it does not
//!   know of; keys that were about to move wait with it.
//! - *two drain at once*: both are out of the next view. *All do*: the view stays as it is, and each
//!   gives its lease back when it leaves.
//! - *a new owner is slow*: what it is to own waits; what others own goes on.
//! - *a process of a key that moves waits for an answer of another one that moves*: neither goes on
//!   until the first is ended, after 5 s. The barrier is one for all keys.
//! - *a voter comes back* with its disk: it votes on. Without it: it is another voter, and has to be
//!   chosen anew; it could not know what it has promised.
//! - *the majority is lost*: no leader confirms, leases run out, everything exclusive stops within
//!   lease and stopping time, and nothing starts before a majority is back. Voters without a data
//!   directory that are restarted are lost for good; a cluster that has lost the majority of its
//!   voters so has to be started anew as a whole.
//! - *a node is frozen*: by its own clock its lease has run out when it thaws.
//! - *a node restarts*: its new life waits until the lease of the old one has run out at the leader,
//!   unless the old one gave it back.
//! - *versions differ*: what is said here travels in one frame whose first byte is a kind; unknown
//!   kinds are for later versions and are passed over.
//!
//! # Absent on purpose
//!
//! Clock, log, network, and what runs under a lease. Time is handed in; each node's is its own.

mod choice;
mod founding;
mod holder;
mod keeper;
mod types;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use choice::{Candidate, choose_voters, how_many};
pub use founding::{Founding, Situation};
pub use holder::{Holder, Shard};
pub use keeper::Keeper;
pub use types::{AuthorityId, Grant, Renewal, RingView, Times};
