//! What has happened to each node, as this one saw it: for people who ask why one was suspected, or
//! is down.
//!
//! It decides nothing. The last [`EVENTS`] of each name are kept, and counts of all; names are
//! forgotten with the table's. What happens several times in a row is one entry.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use purlin_proto::{NodeId, NodeName};

use super::types::{Time, Why};

/// Events that are kept of each name.
const EVENTS: usize = 48;

/// Something that happened to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// When, or the last time.
    pub at: Time,
    /// How often in a row.
    pub times: u32,
    /// What.
    pub what: Happened,
}

/// What may happen to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// This life of it became a member.
    Up(NodeId),
    /// A connection to it was made.
    Connected,
    /// The connection to it ended.
    Disconnected {
        /// Why.
        why: String,
    },
    /// It did not answer a probe in time; others were asked to probe it.
    Unanswered,
    /// It came under suspicion.
    Suspected {
        /// Who told so; `None` if it did not answer this node's own probe, nor those of others.
        by: Option<NodeId>,
    },
    /// It is suspected no more.
    Alive {
        /// Who brought its answer, itself or another.
        by: Option<NodeId>,
    },
    /// The system says that its port is closed; it is being asked.
    PortClosed,
    /// It answered, whatever the system says of its port.
    Answered,
    /// This life of it is over.
    Down(Why),
    /// It left in good order.
    Left,
    /// This node's own timers were late: it was stalled, and counts that time for nobody.
    Stalled(Duration),
    /// Somebody suspects this node, which answers that it is alive.
    Accused {
        /// Who.
        by: NodeId,
    },
    /// Somebody holds this life of this node for dead.
    DeclaredDown {
        /// Who.
        by: NodeId,
    },
    /// This node has come back under this creation.
    Returned {
        /// The new creation.
        creation: u64,
    },
}

/// How often some of it has happened to a node.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// This node's probes that it did not answer in time.
    pub unanswered: u64,
    /// How often it came under suspicion.
    pub suspected: u64,
    /// How often it answered after that.
    pub refuted: u64,
    /// How often this node was stalled.
    pub stalls: u64,
    /// For how long at most.
    pub longest_stall: Duration,
}

#[derive(Debug, Default)]
struct OfOne {
    events: VecDeque<Noted>,
    tally: Tally,
}

#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<NodeName, OfOne>);

impl History {
    pub(super) fn note(&mut self, at: Time, about: NodeName, what: Happened) {
        let OfOne { events, tally } = self.0.entry(about).or_default();
        match &what {
            Happened::Unanswered => tally.unanswered += 1,
            Happened::Suspected { by } => {
                tally.suspected += 1;
                // Nobody else could be asked to probe it, so that its silence has not been noted.
                let noted = events.back().is_some_and(|last| last.what == Happened::Unanswered);
                tally.unanswered += u64::from(by.is_none() && !noted);
            }
            Happened::Alive { .. } => tally.refuted += 1,
            Happened::Stalled(lag) => {
                tally.stalls += 1;
                tally.longest_stall = tally.longest_stall.max(*lag);
            }
            _ => {}
        }
        match events.back_mut() {
            Some(last) if last.what == what => {
                last.at = at;
                last.times = last.times.saturating_add(1);
            }
            _ => {
                if events.len() == EVENTS {
                    events.pop_front();
                }
                events.push_back(Noted { at, times: 1, what });
            }
        }
    }

    pub(super) fn last(&self, about: NodeName) -> Option<&Happened> {
        self.0.get(&about)?.events.back().map(|noted| &noted.what)
    }

    /// The oldest first.
    pub(super) fn of(&self, about: NodeName) -> impl Iterator<Item = &Noted> {
        self.0.get(&about).into_iter().flat_map(|of_one| &of_one.events)
    }

    pub(super) fn tally(&self, about: NodeName) -> Tally {
        self.0.get(&about).map(|of_one| of_one.tally).unwrap_or_default()
    }

    pub(super) fn forget(&mut self, name: NodeName) {
        self.0.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_and_all_are_counted() {
        let (mut history, name) = (History::default(), NodeName::from("a"));
        let suspected = || Happened::Suspected { by: None };
        for second in 0..1_000 {
            let at = Duration::from_secs(second);
            history.note(at, name, Happened::Unanswered);
            history.note(at, name, Happened::Unanswered);
            history.note(at, name, suspected());
        }

        assert_eq!(history.of(name).count(), EVENTS);
        let last: Vec<_> = history.of(name).skip(EVENTS - 2).cloned().collect();
        let at = Duration::from_secs(999);
        let twice = Noted { at, times: 2, what: Happened::Unanswered };
        assert_eq!(last, [twice, Noted { at, times: 1, what: suspected() }]);
        let tally = history.tally(name);
        assert_eq!((tally.unanswered, tally.suspected), (2_000, 1_000));

        history.forget(name);
        assert_eq!((history.of(name).count(), history.tally(name)), (0, Tally::default()));
    }
}
