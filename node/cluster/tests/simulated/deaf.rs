//! Nodes that hear nothing, or half of what is said, while the others hear them well.

use crate::world::World;
use crate::{id, s, seeds};

/// The last of so many hears nobody for so long; returns who has come back under a new creation.
fn deaf(count: usize, seed: u64, loss: f64) -> Vec<usize> {
    let mut world = World::with(count, seed);
    (world.loss, world.hints) = (loss, false);
    world.run(s(20));
    assert_eq!(world.agreeing(), count, "before, seed {seed}");
    let (others, last): (Vec<_>, usize) = ((0..count - 1).collect(), count - 1);
    world.cut_one_way(&others, &[last]);

    world.run(s(20));

    let down = world.downs(id(last));
    assert!(down.len() >= count - 1, "who hears nothing is down for all, seed {seed}: {down:?}");
    world.heal();
    world.run(s(60));
    assert_eq!(world.agreeing(), count, "after, seed {seed}");
    (0..count).filter(|&number| world.creation(number) > 1).collect()
}

#[test]
fn who_hears_nothing_is_down_and_brings_nobody_else_down() {
    for count in [3, 4, 5, 8] {
        for seed in seeds() {
            for loss in [0.0, 0.05] {
                assert_eq!(deaf(count, seed, loss), [count - 1], "{count} nodes, seed {seed}");
            }
        }
    }
}
