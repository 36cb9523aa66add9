//! Whether a node that knows of no authority founds one.
//!
//! A node without seeds does so at once: nobody is there to ask. One with seeds does so only in
//! contact with others, or it might be a part of a cluster that it cannot reach just now: then the
//! one of the oldest life among those that it sees does, when none of them knows of an authority,
//! `expect` of them are there, and that has been so for a while.
//!
//! New nodes that are started with seeds during a split, and reach each other but nobody of the
//! cluster, found a second one. `expect` set to more than half of the nodes planned rules that out.

use std::time::Duration;

use purlin_proto::NodeId;

use crate::membership::Time;

/// For so long those who found must have seen the same.
const STABLE: Duration = Duration::from_secs(1);

/// What a node sees that knows of no authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation<'a> {
    /// This node.
    pub us: NodeId,
    /// Whether it was given seeds.
    pub seeds: bool,
    /// It has been a member of an authority in an earlier life, so there is one.
    pub remembers: bool,
    /// How many members must be seen.
    pub expect: usize,
    /// The others that are live and have said that they know of no authority.
    pub without: &'a [NodeId],
    /// Others that are live and have not said so: they know of one, or have not spoken yet.
    pub unclear: usize,
}

/// Waits until it is time to found.
#[derive(Debug, Default)]
pub struct Founding {
    ready: Option<(Time, Vec<NodeId>)>,
}

impl Founding {
    /// Whether to found now.
    pub fn look(&mut self, now: Time, situation: &Situation<'_>) -> bool {
        let Situation { us, seeds, remembers, expect, without, unclear } = *situation;
        let enough = 1 + without.len() >= expect.max(if seeds { 2 } else { 1 });
        let oldest = without.iter().all(|o| (us.creation, us.name) < (o.creation, o.name));
        if remembers || !enough || !oldest || unclear > 0 {
            self.ready = None;
            return false;
        }
        if !seeds && without.is_empty() {
            return true;
        }
        match &self.ready {
            Some((since, seen)) if seen == without => now >= *since + STABLE,
            _ => {
                self.ready = Some((now, without.to_vec()));
                false
            }
        }
    }
}
