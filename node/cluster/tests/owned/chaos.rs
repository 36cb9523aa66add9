//! Any loss, repetition, disorder, cut, crash and return, from proptest.

use std::time::Duration;

use proptest::prelude::*;
use purlin_cluster::owned::Bounds;

use super::world::{Entries, World};

const NODES: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Step {
    Set { node: usize, key: u8, value: Option<u8> },
    Deliver(usize),
    Repeat(usize),
    Lose(usize),
    Cut(usize, usize),
    Join(usize, usize),
    Crash(usize),
    Notice(usize, usize),
    Restart(usize),
    Reincarnate(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    let two = (0..NODES, 1..NODES).prop_map(|(one, more)| (one, (one + more) % NODES));
    prop_oneof![
        8 => (node.clone(), 0..6_u8, proptest::option::of(0..3_u8))
            .prop_map(|(node, key, value)| Step::Set { node, key, value }),
        16 => any::<prop::sample::Index>().prop_map(|index| Step::Deliver(index.index(1 << 16))),
        2 => any::<prop::sample::Index>().prop_map(|index| Step::Repeat(index.index(1 << 16))),
        2 => any::<prop::sample::Index>().prop_map(|index| Step::Lose(index.index(1 << 16))),
        1 => two.clone().prop_map(|(a, b)| Step::Cut(a, b)),
        2 => two.clone().prop_map(|(a, b)| Step::Join(a, b)),
        1 => node.clone().prop_map(Step::Crash),
        2 => two.prop_map(|(a, b)| Step::Notice(a, b)),
        1 => node.clone().prop_map(Step::Restart),
        1 => node.prop_map(Step::Reincarnate),
        1 => (0..40_u64).prop_map(Step::Wait),
    ]
}

fn take(world: &mut World, step: Step) {
    let under_way = world.under_way();
    match step {
        Step::Set { node, key, value } => {
            let value = value.map(|value| value.to_string());
            world.set(node, &key.to_string(), value.as_deref());
        }
        Step::Deliver(index) if under_way > 0 => world.deliver(index % under_way, false),
        Step::Repeat(index) if under_way > 0 => world.deliver(index % under_way, true),
        Step::Lose(index) if under_way > 0 => drop(world.wires.remove(index % under_way)),
        Step::Cut(a, b) => world.cut(a, b),
        Step::Join(a, b) => world.join(a, b),
        Step::Crash(node) => world.crash(node),
        // Membership is right in the end; here it may also be wrong for a while, but only about the
        // dead: a life that is declared down stays down.
        Step::Notice(at, node) if !world.is_alive(node) => world.notice(at, node),
        Step::Restart(node) if !world.is_alive(node) => world.restart(node),
        Step::Reincarnate(node) if world.is_alive(node) => world.reincarnate(node),
        // Without the deliveries that `run` would do.
        Step::Wait(seconds) => world.tick(Duration::from_secs(seconds)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_who_are_live_agree_in_the_end(steps in proptest::collection::vec(step(), 1..250)) {
        // So little that pages, forgotten removals and full copies are everyday things.
        let mut world = World::bounded(NODES, Bounds { page_bytes: 70, removals: 1 });
        for step in steps {
            take(&mut world, step);
        }

        for node in 0..world.count() {
            for other in 0..node {
                world.join(node, other);
            }
            if !world.is_alive(node) {
                (0..world.count()).for_each(|at| world.notice(at, node));
            }
        }
        world.run(Duration::from_mins(10));

        let nodes = 0..world.count();
        for at in nodes.clone().filter(|at| world.is_alive(*at)) {
            prop_assert_eq!(world.violations(at), 0);
            for other in nodes.clone().filter(|other| *other != at) {
                let expected =
                    if world.is_alive(other) { world.own(other) } else { Entries::new() };
                prop_assert_eq!(world.seen(at, other), expected, "{} at {}", other, at);
            }
        }
    }
}
