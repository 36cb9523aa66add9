//! Which links have fallen silent.
//!
//! Membership is about nodes: while others reach both of two nodes, both are members, also if the
//! two cannot talk. So each link is watched here by itself. Of a peer that is silent for a while a
//! sign of life is asked for; if none comes for as long as a node may be silent (`detect_in`), the
//! link is over: links and monitors across it fire with `noconnection`, and what comes later comes
//! over a new one.
//!
//! - Any packet is a sign of life, and so is the acknowledgement of what was asked.
//! - If packets get through one way only, the side that hears nothing ends the link, and the close
//!   tells the other.
//! - Only time that this node was awake counts: after a stall it ends no link for what it slept
//!   through.

use std::collections::BTreeMap;
use std::time::Duration;

use purlin_proto::{NodeId, NodeName};

/// How often links are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Shares of the limit: after how long a sign of life is asked for, and how often from then on.
const ASK_AFTER: f64 = 0.4;
const ASK_EVERY: f64 = 0.1;

pub(crate) struct Silence {
    limit: Duration,
    looked: Option<Duration>,
    links: BTreeMap<NodeName, Quiet>,
}

/// A link, as it was at the last look.
struct Quiet {
    association: u64,
    packets: u64,
    silent: Duration,
    ask_at: Duration,
}

/// A link, as it is now.
pub(crate) struct Seen {
    pub(crate) id: NodeId,
    pub(crate) association: u64,
    /// How many packets have come over it.
    pub(crate) packets: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Packets have come since the last look.
    Heard,
    /// Nothing has come for a while: a sign of life is to be asked for.
    Ask,
    /// Nothing has come for too long.
    Lost,
}

impl Silence {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, looked: None, links: BTreeMap::new() }
    }

    /// Looks at all links there are, and says what is to be done about some.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        links: impl Iterator<Item = Seen>,
    ) -> Vec<(NodeId, Sign)> {
        let passed = now.saturating_sub(self.looked.unwrap_or(now)).min(2 * LOOK_EVERY);
        self.looked = Some(now);
        let ask_after = self.limit.mul_f64(ASK_AFTER);
        let mut signs = Vec::new();
        let mut before = std::mem::take(&mut self.links);
        for Seen { id, association, packets } in links {
            let known = before.remove(&id.name).filter(|known| known.association == association);
            let mut link = known.unwrap_or(Quiet {
                association,
                packets,
                silent: Duration::ZERO,
                ask_at: ask_after,
            });
            if link.packets == packets {
                link.silent += passed;
            } else {
                (link.packets, link.silent, link.ask_at) = (packets, Duration::ZERO, ask_after);
                signs.push((id, Sign::Heard));
            }
            if link.silent >= self.limit {
                signs.push((id, Sign::Lost));
            } else if link.silent >= link.ask_at {
                link.ask_at = link.silent + self.limit.mul_f64(ASK_EVERY);
                signs.push((id, Sign::Ask));
            }
            self.links.insert(id.name, link);
        }
        signs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> NodeId {
        NodeId::new("b".into(), 1)
    }

    /// Looks every so often for so long; says what there was to do, and when.
    fn run(
        silence: &mut Silence,
        from: Duration,
        every: Duration,
        length: Duration,
        packets: impl Fn(Duration) -> u64,
    ) -> Vec<(Duration, Sign)> {
        let mut found = Vec::new();
        let mut now = from;
        while now <= from + length {
            let link = Seen { id: id(), association: 1, packets: packets(now) };
            found.extend(silence.look(now, [link].into_iter()).into_iter().map(|(_, s)| (now, s)));
            now += every;
        }
        found
    }

    const LIMIT: Duration = Duration::from_secs(5);
    const S: Duration = Duration::from_secs(1);

    #[test]
    fn of_a_silent_link_a_sign_of_life_is_asked_for_until_it_is_lost() {
        let mut silence = Silence::new(LIMIT);
        let found = run(&mut silence, Duration::ZERO, LOOK_EVERY, LIMIT, |_| 7);

        let (last, asked) = found.split_last().expect("something");
        assert_eq!(*last, (LIMIT, Sign::Lost));
        assert_eq!(asked.len(), 6, "{asked:?}");
        assert!(asked.iter().all(|(at, sign)| *sign == Sign::Ask && *at >= 2 * S), "{asked:?}");
    }

    #[test]
    fn a_link_that_answers_when_it_is_asked_is_never_lost() {
        let mut silence = Silence::new(LIMIT);
        let found = run(&mut silence, Duration::ZERO, LOOK_EVERY, 20 * S, |now| now.as_secs() / 4);

        assert!(found.iter().all(|(_, sign)| *sign != Sign::Lost), "{found:?}");
        assert!(found.iter().any(|(_, sign)| *sign == Sign::Heard));
    }

    #[test]
    fn what_a_node_has_slept_through_does_not_count() {
        let mut silence = Silence::new(LIMIT);
        run(&mut silence, Duration::ZERO, LOOK_EVERY, S, |_| 7);

        let found = run(&mut silence, 60 * S, LOOK_EVERY, 3 * S, |_| 7);

        assert!(found.iter().all(|(_, sign)| *sign == Sign::Ask), "{found:?}");
    }

    #[test]
    fn a_new_connection_begins_anew() {
        let mut silence = Silence::new(LIMIT);
        run(&mut silence, Duration::ZERO, LOOK_EVERY, 4 * S, |_| 7);

        let link = Seen { id: id(), association: 3, packets: 7 };
        assert_eq!(silence.look(LIMIT, [link].into_iter()), []);
        assert!(!run(&mut silence, LIMIT, LOOK_EVERY, S, |_| 7).contains(&(LIMIT, Sign::Lost)));
    }
}
