//! Nodes that stall again and again, and what the healthy think of each other meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use purlin_cluster::{Event, Why};
use purlin_proto::NodeName;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::s;
use crate::world::{World, named};

/// What came of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Harm {
    /// Healthy nodes declared down, by anybody.
    healthy: usize,
    /// Stalling nodes declared down.
    stalling: usize,
    /// How often somebody came to suspect a healthy node, and a stalling one.
    suspected: (usize, usize),
}

/// The last `stalling` of `count` nodes freeze at random for 1 to 4 s, with as long between.
fn stalls(count: usize, stalling: usize, seed: u64, loss: f64, length: Duration) -> Harm {
    let mut world = World::with(count, seed);
    world.loss = loss;
    world.hints = false;
    world.run(s(60));
    assert_eq!(world.agreeing(), count);
    world.log.clear();
    let mut chance = StdRng::seed_from_u64(seed);
    let sick = count - stalling..count;
    let names: BTreeSet<NodeName> = sick.clone().map(named).collect();
    let mut next: Vec<_> = sick.clone().map(|_| world.now).collect();
    let end = world.now + length;
    while world.now < end {
        for (number, next) in sick.clone().zip(&mut next) {
            if *next <= world.now {
                let stall = Duration::from_millis(chance.random_range(1_000..4_000));
                let pause = Duration::from_millis(chance.random_range(1_000..4_000));
                world.freeze(number, stall);
                *next = world.now + stall + pause;
            }
        }
        world.run(Duration::from_millis(50));
    }
    world.run(s(60));
    assert_eq!(world.agreeing(), count, "all agree afterwards");
    let mut harm = Harm::default();
    for (.., event) in &world.log {
        match event {
            // Who comes back sees everyone anew, and accuses nobody.
            Event::Down { why: Why::Rejoining, .. } => {}
            Event::Down { id, .. } if names.contains(&id.name) => harm.stalling += 1,
            Event::Down { .. } => harm.healthy += 1,
            Event::Suspect(id) if names.contains(&id.name) => harm.suspected.1 += 1,
            Event::Suspect(_) => harm.suspected.0 += 1,
            _ => {}
        }
    }
    println!("{stalling} of {count} stall, loss {loss}, seed {seed}: {harm:?}");
    harm
}

#[test]
fn nodes_that_stall_accuse_no_healthy_node() {
    let harm = stalls(15, 2, 1, 0.0, s(60));
    assert_eq!((harm.healthy, harm.suspected.0), (0, 0));
}

#[test]
#[ignore = "minutes: run with --ignored in release"]
fn five_of_fifty_that_stall_for_ten_minutes_bring_no_healthy_node_down() {
    for (seed, loss) in [(1, 0.0), (2, 0.0), (3, 0.01), (4, 0.05), (5, 0.05)] {
        assert_eq!(stalls(50, 5, seed, loss, s(600)).healthy, 0, "seed {seed}");
    }
}
