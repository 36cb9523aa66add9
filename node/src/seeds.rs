//! The seeds: what their names resolve to, and what became of dialing them.
//!
//! A seed is HOST:PORT; the name may have several addresses, which may change (DNS, as of a
//! Kubernetes headless service). All are tried. A resolver that fails takes nothing away: what a
//! name resolved to before stays until it resolves to something else.
//!
//! A node that nobody answers goes on for ever, and says so every [`COMPLAIN_EVERY`]; `purlin
//! status` tells the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use purlin_proto::admin::SeedInfo;
use tokio::task::JoinSet;

/// How often names are resolved anew,
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// and while this node is alone.
const RESOLVE_ALONE_EVERY: Duration = Duration::from_secs(3);

/// A resolver that takes longer counts as one that fails.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a node that is alone says that no seed answers.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// What is being looked up: the addresses of HOST:PORT, or why there are none.
pub type Lookup = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the addresses of a seed; see [`NodeBuilder::seed_resolver`](crate::NodeBuilder::seed_resolver).
pub type SeedResolver = Arc<dyn Fn(String) -> Lookup + Send + Sync>;

/// What one round of lookups found, by seed.
pub(crate) type Resolved = Vec<(String, Result<Vec<SocketAddr>, String>)>;

/// What became of a dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answers,
    /// The node has dialed itself: a list of seeds may be the same for all.
    Itself,
    Failed(String),
}

pub(crate) struct Seeds {
    given: Vec<Seed>,
    resolve_at: Duration,
    complain_at: Duration,
}

struct Seed {
    name: String,
    /// What became of the last dial to each address; `None` before the first has ended.
    addresses: BTreeMap<SocketAddr, Option<Outcome>>,
    unresolved: Option<String>,
}

/// The system's.
pub(crate) fn system_resolver() -> SeedResolver {
    Arc::new(|seed| {
        Box::pin(async move { tokio::net::lookup_host(seed).await.map(Iterator::collect) })
    })
}

async fn lookup(resolver: SeedResolver, seed: String) -> (String, Result<Vec<SocketAddr>, String>) {
    let found = match tokio::time::timeout(RESOLVE_TIMEOUT, resolver(seed.clone())).await {
        Ok(Ok(found)) if found.is_empty() => Err("it has no address".to_owned()),
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the resolver does not answer".to_owned()),
    };
    (seed, found)
}

impl Seeds {
    pub(crate) fn new(names: Vec<String>) -> Self {
        let seed = |name| Seed { name, addresses: BTreeMap::new(), unresolved: None };
        let given = names.into_iter().map(seed).collect();
        Self { given, resolve_at: Duration::ZERO, complain_at: COMPLAIN_EVERY }
    }

    /// Looks all names up, if it is time to.
    pub(crate) fn resolve(
        &mut self,
        now: Duration,
        alone: bool,
        resolver: &SeedResolver,
    ) -> Option<impl Future<Output = Resolved> + Send + use<>> {
        // Sooner once this node is alone.
        let latest = if alone { now + RESOLVE_ALONE_EVERY } else { now + RESOLVE_EVERY };
        self.resolve_at = self.resolve_at.min(latest);
        if self.given.is_empty() || now < self.resolve_at {
            return None;
        }
        self.resolve_at = latest;
        let names = self.given.iter().map(|seed| seed.name.clone());
        let lookups: Vec<_> = names.map(|name| lookup(Arc::clone(resolver), name)).collect();
        Some(async move { lookups.into_iter().collect::<JoinSet<_>>().join_all().await })
    }

    /// Takes what was found; returns all addresses there are now.
    pub(crate) fn resolved(&mut self, resolved: Resolved) -> Vec<SocketAddr> {
        for (name, found) in resolved {
            for seed in self.given.iter_mut().filter(|seed| seed.name == name) {
                match &found {
                    Ok(addresses) => {
                        let known = std::mem::take(&mut seed.addresses);
                        let outcome = |at: &SocketAddr| known.get(at).cloned().flatten();
                        seed.addresses = addresses.iter().map(|at| (*at, outcome(at))).collect();
                        seed.unresolved = None;
                    }
                    Err(error) => seed.unresolved = Some(error.clone()),
                }
            }
        }
        let all: BTreeSet<_> = self.given.iter().flat_map(|seed| seed.addresses.keys()).collect();
        all.into_iter().copied().collect()
    }

    /// A dial has ended. Returns whether its outcome is another than that of the one before.
    pub(crate) fn dialed(&mut self, at: SocketAddr, outcome: &Outcome) -> bool {
        let mut news = false;
        for seed in &mut self.given {
            if let Some(known) = seed.addresses.get_mut(&at) {
                news |= known.as_ref() != Some(outcome);
                *known = Some(outcome.clone());
            }
        }
        news
    }

    /// What is to be said, if this node has been alone for a while and nobody answers.
    pub(crate) fn complaint(&mut self, now: Duration, alone: bool) -> Option<String> {
        let mut others =
            self.given.iter().filter(|seed| !seed.is_only(&Outcome::Itself)).peekable();
        if !alone || others.peek().is_none() {
            self.complain_at = now + COMPLAIN_EVERY;
            return None;
        }
        if now < self.complain_at {
            return None;
        }
        let each = others.map(|seed| {
            let detail = seed.trouble().unwrap_or_else(|| "no answer yet".to_owned());
            format!("{}: {detail}", seed.name)
        });
        let text = each.collect::<Vec<_>>().join("; ");
        self.complain_at = now + COMPLAIN_EVERY;
        Some(text)
    }

    /// For an operator; `live` is where members are.
    pub(crate) fn info(&self, live: &BTreeSet<SocketAddr>) -> Vec<SeedInfo> {
        let info = |seed: &Seed| {
            let addresses: Vec<_> = seed.addresses.keys().copied().collect();
            let fine =
                |outcome: &Option<_>| matches!(outcome, Some(Outcome::Answers | Outcome::Itself));
            let answered = seed.addresses.values().any(fine);
            let answers = answered || addresses.iter().any(|at| live.contains(at));
            let error = if answers { None } else { seed.trouble() };
            SeedInfo { seed: seed.name.clone(), addresses, answers, error }
        };
        self.given.iter().map(info).collect()
    }
}

impl Seed {
    fn is_only(&self, outcome: &Outcome) -> bool {
        !self.addresses.is_empty()
            && self.addresses.values().all(|found| found.as_ref() == Some(outcome))
    }

    fn trouble(&self) -> Option<String> {
        if let Some(error) = &self.unresolved {
            return Some(format!("it does not resolve: {error}"));
        }
        let failed = self.addresses.iter().filter_map(|(at, outcome)| match outcome {
            Some(Outcome::Failed(error)) => Some(format!("{at}: {error}")),
            Some(Outcome::Answers | Outcome::Itself) | None => None,
        });
        let failed: Vec<_> = failed.collect();
        (!failed.is_empty()).then(|| failed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_name_that_does_not_resolve_any_more_keeps_its_addresses() {
        let mut seeds = Seeds::new(vec!["db:1".to_owned()]);
        let found = vec![at("10.0.0.1:1"), at("10.0.0.2:1")];
        assert_eq!(seeds.resolved(vec![("db:1".to_owned(), Ok(found.clone()))]), found);

        let failed = vec![("db:1".to_owned(), Err("no such host".to_owned()))];
        assert_eq!(seeds.resolved(failed), found);

        let moved = vec![at("10.0.0.3:1")];
        assert_eq!(seeds.resolved(vec![("db:1".to_owned(), Ok(moved.clone()))]), moved);
    }

    #[test]
    fn who_is_alone_complains_now_and_then_and_who_is_not_does_not() {
        let mut seeds = Seeds::new(vec!["db:1".to_owned()]);
        seeds.resolved(vec![("db:1".to_owned(), Ok(vec![at("10.0.0.1:1")]))]);
        let failed = Outcome::Failed("no answer".to_owned());
        assert!(seeds.dialed(at("10.0.0.1:1"), &failed));
        assert!(!seeds.dialed(at("10.0.0.1:1"), &failed), "no news");

        let said: Vec<_> = (0..60).filter_map(|s| seeds.complaint(s * S, true)).collect();
        assert_eq!(said, ["db:1: 10.0.0.1:1: no answer"; 5]);
        assert!((60..120).all(|s| seeds.complaint(s * S, false).is_none()));
        assert_eq!(seeds.complaint(121 * S, true), None, "alone again, but not for long");

        seeds.dialed(at("10.0.0.1:1"), &Outcome::Itself);
        assert_eq!(seeds.complaint(200 * S, true), None, "its only seed is itself");
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_resolved_sooner_while_a_node_is_alone() {
        let mut seeds = Seeds::new(vec!["localhost:7400".to_owned()]);
        let resolver: SeedResolver = Arc::new(|_| Box::pin(std::future::pending()));

        let rounds = |seeds: &mut Seeds, from: u32, alone| {
            let due =
                (from..from + 60).filter(|s| seeds.resolve(*s * S, alone, &resolver).is_some());
            due.count()
        };
        assert_eq!(rounds(&mut seeds, 0, true), 20);
        assert!(rounds(&mut seeds, 60, false) <= 3);
        let round = seeds.resolve(200 * S, true, &resolver).expect("due").await;
        assert_eq!(round[0].1, Err("the resolver does not answer".to_owned()));
    }
}
