//! A link has two ends or none: each learns of the other's end, once, unless it was taken back; and in
//! the end both nodes tell the same of it.

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::ExitReason;

use super::Invariant;
use crate::simulation::record::{Event, Facts, Who};

/// A pair, the smaller first.
type Pair = (Who, Who);

/// What one node asks for may reach the other so much later: an `unlink` that was done there before
/// that does not take it back.
const ON_THE_WAY: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct LinksSymmetric {
    /// How often a pair was linked, by either.
    linked: BTreeMap<Pair, usize>,
    /// Who has linked it last, and when.
    asked: BTreeMap<Pair, (Who, Duration)>,
    /// How often its end was told, to whom of whom.
    told: BTreeMap<(Who, Who), usize>,
    /// When it was last taken back, if it was not made again.
    unlinked: BTreeMap<Pair, Duration>,
}

fn pair(a: Who, b: Who) -> Pair {
    (a.min(b), a.max(b))
}

impl Invariant for LinksSymmetric {
    fn name(&self) -> &'static str {
        "links are symmetric"
    }

    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::Linked { by, other } => {
                *self.linked.entry(pair(*by, *other)).or_default() += 1;
                self.asked.insert(pair(*by, *other), (*by, facts.now));
                self.unlinked.remove(&pair(*by, *other));
            }
            Event::Unlinked { by, other } => {
                let asked = self.asked.get(&pair(*by, *other));
                let is_on_the_way = asked.is_some_and(|(asker, at)| {
                    asker.node != by.node && facts.now < *at + ON_THE_WAY
                });
                if !is_on_the_way {
                    self.unlinked.insert(pair(*by, *other), facts.now);
                }
            }
            Event::LinkDown { at, of, reason } => {
                let told = self.told.entry((*at, *of)).or_default();
                *told += 1;
                let linked = self.linked.get(&pair(*at, *of)).copied().unwrap_or(0);
                if *told > linked {
                    return Err(format!("told {told} times, linked {linked} times"));
                }
                // A lost connection or a dead node says nothing about which links there were.
                let guess = matches!(reason, ExitReason::NoConnection | ExitReason::NoProcess);
                let ended = facts.ended.get(of);
                let unlinked = self.unlinked.get(&pair(*at, *of));
                if let (false, Some(ended), Some(unlinked)) = (guess, ended, unlinked)
                    && unlinked < ended
                {
                    return Err(format!("unlinked at {unlinked:?}, {of} ended at {ended:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        for (a, detail) in &facts.details {
            for link in &detail.links {
                let Some(b) = facts.pids.get(link) else { continue };
                let Some(there) = facts.details.get(b) else {
                    return Err(format!("{a} is linked to {b}, which has ended"));
                };
                let back = there.links.iter().any(|link| facts.pids.get(link) == Some(a));
                if !back {
                    return Err(format!("{a} is linked to {b}, but {b} not to {a}"));
                }
            }
        }
        Ok(())
    }
}
