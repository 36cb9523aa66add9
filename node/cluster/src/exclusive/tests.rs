//! Whole clusters on virtual time, from a seed: kills, splits, freezes, healing, clocks that drift.
//!
//! The log is ideal here: whoever reaches a majority of the voters leads, and what it writes then is
//! written. Everything else is as it is: messages are late, lost and overtake each other, a leader
//! may be frozen between asking the majority and answering, processes take their time to end.

mod rules;
mod world;

use std::time::Duration;

use world::{Mutant, World};

/// One run: a minute of faults, then health.
fn run(seed: u64, mutant: Mutant) -> World {
    let mut world = World::new(seed, mutant);
    world.run_faults(Duration::from_mins(1));
    world.heal();
    world.run(Duration::from_secs(30));
    world
}

/// How many schedules; as many as `PURLIN_SCHEDULES` says, for a longer run.
fn schedules() -> u64 {
    std::env::var("PURLIN_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

#[test]
fn no_key_has_two_owners_at_an_instant() {
    let mut acts = 0;
    for seed in 0..schedules() {
        let world = run(seed, Mutant::None);
        assert_eq!(world.duplicates, Vec::<String>::new(), "seed {seed}");
        assert_eq!(world.fallen, Vec::<String>::new(), "seed {seed}: a token has fallen");
        assert_eq!(world.idle_keys(), 0, "seed {seed}: all keys run again after it has healed");
        acts += world.acts;
    }
    assert!(acts > 0);
}

#[test]
fn without_the_barrier_two_owners_are_found() {
    let found = (0..50).any(|seed| !run(seed, Mutant::NoBarrier).duplicates.is_empty());
    assert!(found, "the test does not see a bug that is there");
}

#[test]
fn with_leases_that_carry_no_view_two_owners_are_found() {
    let found = (0..50).any(|seed| !run(seed, Mutant::NoEpoch).duplicates.is_empty());
    assert!(found, "the test does not see a bug that is there");
}
