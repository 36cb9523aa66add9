//! Children of cluster supervisors: what the process `purlin.children` of every node does.
//!
//! It is two things. As the **owner** of shards it looks at each child that falls into one of them
//! and does the next thing to be done ([`owner`]; what that is, is decided in
//! `purlin_cluster::children`). As a **host** it starts, watches and ends the processes of children
//! that owners have placed here ([`host`]), and says so in entries.
//!
//! # Where specs live, and why
//!
//! On every node, as records of which the highest version holds ([`ChildTable`]). They are small, few
//! compared with messages, and written seldom; so each node can tell where a child runs without
//! asking, and whichever node comes to own a shard has its children already. The owner tells them as
//! entries of its own, for those who join later; before it acts upon a new version, and before it
//! answers whoever asked, two successors of the shard have confirmed it ([`copies`]): they are the
//! ones that own it next.
//!
//! # What if
//!
//! - *the owner dies*: the next one on the ring has the record and goes on where it was: the same
//!   generation is asked for again, which does nothing twice.
//! - *a host dies*: its runs vanish in one step, and owners place the children anew.
//! - *both at once*: as both.
//! - *the owner and two successors die at once*: what was written within the last moment, before the
//!   entry got around, is lost: a start or stop that was just confirmed.
//! - *a child is to run elsewhere*, since a node has joined or is about to leave
//!   ([`Node::drain`](crate::Node::drain)): its next host asks the present one to let go of it, which
//!   ends it when it is idle and hands over its state ([`take`], [`release`]); what comes meanwhile is
//!   sent on, and waits in the new process's mailbox (`runtime/entries/ways.rs`). 32 at a time each
//!   owner; a node that leaves waits for that ([`drained`]).
//! - *its next host is lost before it has it, or the ring has it back where it was*: the node that has
//!   let go of it takes it back, with its state, when nobody has had it for 2 s.
//! - *a node joins*: it asks all others for the records of its shards, and decides nothing before they
//!   have answered or 5 s have passed; they answer when they see it too, it has read their entries, and
//!   nothing is under way ([`handover`]). A call to a child that it has not heard of waits until then.
//!   All who know a record hand it over, whoever tells it: that node may be gone and not be missed yet,
//!   or be the newcomer itself.
//! - *a node knows more than the owner tells*, since the one that told it is gone and the owner could
//!   not ask: it tells that itself after 10 s.
//! - *the cluster is split*: each side has its own rings and owners, so an available child runs on
//!   each. Changes made on one side and the other meet when it heals: of two records the one with
//!   more changes holds, then that of the greater node name. Of two processes one is kept.
//! - *an order comes late*, because its owner was frozen or the road was slow, and others have decided
//!   since: the host knows that by their record, and starts no generation that is older. The generation
//!   is the child's fencing token; an order to end one ends no later generation.
//! - *a node comes back after it was declared down*: it is a new life with the old processes, as a
//!   side of a split. It sees nobody at first, so it decides nothing for `detect_in`.
//! - *a child was stopped while a node was cut off*: the stop is remembered for an hour. A node that
//!   comes back later brings the child back.
//! - *all nodes stop*: then nobody knows of any child. Programs start them again at boot, each on
//!   every node if that is simplest: ids make it the same child.
//! - *a node does not know the kind*: the start fails, as if the child had crashed.
//! - *this process crashes*: its children end with it, being linked; nothing restarts it. It must not.
//!
//! # Bounds
//!
//! Records and runs are entries, so there are at most as many as a node may have of those. 64 starts
//! under way, 500 a second, and 32 moves, for each owner. What waits for copies: [`WAITING`].
//!
//! [`ChildTable`]: purlin_runtime::ChildTable

mod copies;
mod drained;
mod handover;
mod host;
mod owner;
mod past;
mod process;
mod release;
mod requests;
mod supervisor;
mod take;

pub(crate) use drained::HostedChildren;
pub(crate) use process::start;
pub use supervisor::{ClusterChild, ClusterSupervisor, ClusterSupervisorRef};

/// So many requests may wait; more are refused.
const WAITING: usize = 65_536;
