//! The rule of [`super::heal`] beside two simpler ones that fail: what holds of the right one is seen
//! to break with each of them. So the tests of splits would notice if the rule became one of those.
//!
//! The rules can be switched here alone, on nodes of the small world that all simulated tests use.

use std::time::Duration;

use super::heal::Rule;
use world::World;

#[expect(dead_code, clippy::unwrap_used, reason = "a part of it, and a test")]
#[path = "../../tests/simulated/world.rs"]
mod world;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A cluster whose nodes all go by this rule, and agree.
fn cluster(rule: Rule, count: usize, seed: u64) -> World {
    let mut world = World::with(count, seed);
    for node in world.nodes.values_mut() {
        node.membership.rule = rule;
    }
    world.run(s(15));
    assert_eq!(world.agreeing(), count, "nothing has happened yet");
    world
}

/// A split about as long as detection is the ugly case: some are held for dead, some not yet. No more
/// than a tenth of the larger side may come back then.
fn short_splits(rule: Rule) -> Vec<String> {
    const LARGER: usize = 10;
    const COUNT: usize = 15;
    let mut back = 0;
    let mut found = Vec::new();
    for seed in 0..3 {
        let mut world = cluster(rule, COUNT, seed);
        let (one, other): (Vec<_>, Vec<_>) = ((0..LARGER).collect(), (LARGER..COUNT).collect());
        world.cut(&one, &other);
        world.run(Duration::from_millis(3_500));
        world.heal();
        world.run(s(30));
        if world.agreeing() != COUNT {
            found.push(format!("{} of {COUNT} agree, seed {seed}", world.agreeing()));
        }
        back += one.iter().filter(|&&number| world.creation(number) > 1).count();
    }
    if back > 3 * LARGER / 10 {
        found.push(format!("{back} of three times {LARGER} came back"));
    }
    found
}

/// One node was frozen for too long: it alone comes back.
fn freezes(rule: Rule) -> Vec<String> {
    const COUNT: usize = 5;
    let mut found = Vec::new();
    for (seed, frozen) in [(0, 0), (0, 4), (1, 0), (1, 4), (2, 0), (2, 4)] {
        let mut world = cluster(rule, COUNT, seed);
        world.freeze(frozen, s(8));
        world.run(s(40));
        let back: Vec<_> = (0..COUNT).filter(|&number| world.creation(number) > 1).collect();
        if world.agreeing() != COUNT || back != [frozen] {
            let agree = world.agreeing();
            found.push(format!("{frozen} was frozen, came back {back:?}, {agree} agree"));
        }
    }
    found
}

#[test]
fn with_the_right_rule_nothing_breaks() {
    assert_eq!([short_splits(Rule::Right), freezes(Rule::Right)].concat(), [""; 0]);
}

#[test]
fn by_size_alone_is_seen_to_fail() {
    assert_ne!(freezes(Rule::SizeAlone), [""; 0]);
}

#[test]
fn without_the_guard_is_seen_to_fail() {
    assert_ne!(short_splits(Rule::Unguarded), [""; 0]);
}
