//! A whole cluster starts at once, in any order, from seeds that name each other and themselves: it
//! comes together as one, whatever is lost and whoever is late.

use std::time::Duration;

use purlin_cluster::Event;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};

use crate::world::{World, address, named};
use crate::{s, seeds_wanted};

/// Starts a few nodes with a few seeds among them, each within some seconds. A seed names all
/// seeds, the others some.
fn cold_start(seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed);
    world.loss = [0.0, 0.05, 0.2][chance.random_range(0..3)];
    let count = chance.random_range(2..10);
    let seeds = chance.random_range(1..=count.min(4));
    let spread = [0, 300, 3_000, 20_000][chance.random_range(0..4)];
    let mut starts: Vec<_> = (0..count)
        .map(|number| (Duration::from_millis(chance.random_range(0..=spread)), number))
        .collect();
    starts.sort_unstable();
    for (at, number) in &starts {
        world.run(at.saturating_sub(world.now));
        let named_by_it = if *number < seeds { seeds } else { chance.random_range(1..=seeds) };
        let known = IteratorRandom::sample(0..seeds, &mut chance, named_by_it);
        let known = known.into_iter().map(|seed| address(named(seed))).collect();
        world.start_with(*number, 1, known);
    }

    world.run(s(30));

    let how = format!("seed {seed}: {count} nodes, {seeds} seeds, starts {starts:?}");
    assert_eq!(world.agreeing(), count, "one cluster; {how}");
    let over = world.log.iter().find(|(.., event)| matches!(event, Event::Down { .. }));
    assert_eq!(over, None, "nobody is held for dead; {how}");
    assert!((0..count).all(|number| world.creation(number) == 1), "nobody comes back; {how}");
}

#[test]
fn a_cluster_that_starts_at_once_in_any_order_comes_together_as_one() {
    (0..seeds_wanted().unwrap_or(40)).for_each(cold_start);
}

#[test]
#[ignore = "a minute: run with --ignored in release"]
fn a_thousand_orders_of_starting_each_give_one_cluster() {
    (0..1_000).for_each(cold_start);
}
