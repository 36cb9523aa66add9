//! Nodes that hear nobody: because nothing gets in, or because the others are gone or cut off.

use std::time::Duration;

use crate::world::{World, named};
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

#[test]
fn who_is_cut_off_sees_within_detect_in_that_it_is_alone() {
    for seed in seeds() {
        let count = 20;
        let mut world = World::with(count, seed);
        (world.loss, world.hints) = (0.05, false);
        world.run(s(30));
        assert_eq!(world.agreeing(), count, "before, seed {seed}");
        world.cut(&[7], &(0..count).filter(|&other| other != 7).collect::<Vec<_>>());

        // Packets are looked for ten times a second.
        world.run(s(5) + Duration::from_millis(300));

        let seen: Vec<_> = world.nodes[&named(7)].membership.live().collect();
        assert_eq!(seen, [named(7)], "seed {seed}");
        world.heal();
        world.run(s(30));
        assert_eq!(world.agreeing(), count, "after, seed {seed}");
        let back: Vec<_> = (0..count).filter(|&number| world.creation(number) > 1).collect();
        assert_eq!(back, [7], "seed {seed}");
    }
}

#[test]
fn the_only_survivor_sees_all_deaths_within_detect_in() {
    for count in [3, 4, 10] {
        for seed in seeds() {
            let mut world = World::with(count, seed);
            world.hints = false;
            world.run(s(20));
            let at = world.now;
            (1..count).for_each(|number| world.kill(number));

            world.run(s(10));

            for number in 1..count {
                let down = world.downs(id(number));
                let [(when, _)] = down[..] else { panic!("{down:?}") };
                let after = when.saturating_sub(at);
                assert!(after <= s(5) + Duration::from_millis(300), "{after:?}, seed {seed}");
            }
        }
    }
}
