//! Membership on virtual time: joining, dying, freezing, splitting, leaving.

#![expect(clippy::unwrap_used, reason = "a test")]

mod cold_start;
mod deaf;
mod figures;
mod history;
mod stalls;
mod world;

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use purlin_cluster::{Event, Input, State};
use purlin_proto::NodeId;
use world::{World, named};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(number: usize) -> NodeId {
    NodeId::new(named(number), 1)
}

#[test]
fn nodes_that_know_one_seed_find_all_others_despite_loss() {
    for (count, seed) in [(3, 1), (10, 2), (30, 3)] {
        let mut world = World::new(seed);
        world.loss = 0.05;
        for number in 0..count {
            world.start(number, 1);
        }

        world.run(s(40));

        assert_eq!(world.agreeing(), count, "{count} nodes");
        let ups = world.log.iter().filter(|(.., e)| matches!(e, Event::Up(_))).count();
        assert_eq!(ups, count * (count - 1), "each is announced once to each other");
        for node in world.nodes.values() {
            assert!(node.membership.members().all(|m| !m.labels.is_empty()), "labels are known");
        }
    }
}

#[test]
fn a_killed_node_whose_host_lives_is_down_within_a_second_everywhere_once() {
    let mut world = World::with(5, 7);
    world.run(s(10));
    let killed = world.now;
    world.kill(3);

    world.run(s(20));

    let downs = world.downs(id(3));
    assert_eq!(downs.len(), 4, "{downs:?}");
    assert!(downs.iter().all(|(at, _)| *at < killed + s(1)), "{downs:?}");
}

#[test]
fn a_silent_node_is_down_within_detect_in() {
    let mut world = World::with(5, 8);
    world.hints = false;
    world.run(s(10));
    let killed = world.now;
    world.kill(3);

    world.run(s(20));

    let downs = world.downs(id(3));
    assert_eq!(downs.len(), 4, "{downs:?}");
    assert!(downs.iter().all(|(at, _)| *at <= killed + Duration::from_millis(5500)), "{downs:?}");
}

#[test]
fn forged_hints_never_bring_a_live_node_down() {
    let mut world = World::with(5, 9);
    world.run(s(10));
    for _ in 0..400 {
        for at in [0, 1, 2, 4] {
            world.forge_hint(at, 3);
        }
        world.run(Duration::from_millis(50));
    }

    assert_eq!(world.downs(id(3)), []);
    assert_eq!(world.agreeing(), 5);
}

#[test]
fn a_frozen_node_is_declared_down_and_comes_back_under_a_new_creation_harming_nobody() {
    let mut world = World::with(5, 10);
    world.run(s(10));
    world.freeze(3, s(8));

    world.run(s(30));

    assert_eq!(world.downs(id(3)).len(), 4);
    assert!(world.creation(3) > 1, "it came back");
    assert!([0, 1, 2, 4].iter().all(|&other| world.creation(other) == 1), "nobody else did");
    assert_eq!(world.agreeing(), 5);
    for other in [0, 1, 2, 4] {
        let accused = world.downs(id(other));
        assert!(accused.iter().all(|(_, by)| *by == named(3)), "{other} by {accused:?}");
    }
}

#[test]
fn a_restarted_node_is_down_in_its_old_life_before_it_is_up_in_the_new() {
    let mut world = World::with(3, 11);
    world.run(s(10));
    world.kill(2);
    world.start(2, 5);

    world.run(s(5));

    let of_two = |event: &Event| match event {
        Event::Up(member) if member.id.name == named(2) => Some(("up", member.id.creation)),
        Event::Down { id, .. } if id.name == named(2) => Some(("down", id.creation)),
        _ => None,
    };
    let by_zero = world.log.iter().filter(|(_, by, _)| *by == named(0));
    let seen: Vec<_> = by_zero.filter_map(|(.., event)| of_two(event)).collect();
    assert_eq!(seen, [("up", 1), ("down", 1), ("up", 5)]);
    assert_eq!(world.agreeing(), 3);
}

#[test]
fn after_a_split_heals_the_smaller_side_comes_back_and_all_agree() {
    let mut world = World::with(5, 12);
    world.run(s(10));
    world.cut(&[0, 1, 2], &[3, 4]);
    world.run(s(20));
    assert_eq!(world.nodes[&named(0)].membership.live().count(), 3);
    assert_eq!(world.nodes[&named(4)].membership.live().count(), 2);

    world.heal();
    world.run(s(60));

    assert_eq!(world.agreeing(), 5);
    assert!([0, 1, 2].iter().all(|&larger| world.creation(larger) == 1), "the larger side stays");
    assert!([3, 4].iter().all(|&smaller| world.creation(smaller) > 1));
}

#[test]
fn a_node_that_leaves_has_left_for_all_and_is_not_down() {
    let mut world = World::with(4, 13);
    world.run(s(10));
    let now = world.now;
    world.nodes.get_mut(&named(2)).unwrap().membership.handle(now, Input::Leave);

    world.run(s(2));

    for other in [0, 1, 3] {
        let member = world.nodes[&named(other)].membership.member(named(2)).unwrap();
        assert_eq!(member.state, State::Left);
    }
    assert_eq!(world.downs(id(2)), []);
}

#[test]
fn a_node_that_leaves_has_left_also_for_those_it_could_not_tell() {
    for seed in seeds() {
        let mut world = World::with(5, seed);
        world.run(s(10));
        world.unlink(3, 4);
        let now = world.now;
        world.nodes.get_mut(&named(4)).unwrap().membership.handle(now, Input::Leave);
        world.drain(named(4));
        world.run(Duration::from_millis(20));
        world.kill(4);

        world.run(s(20));

        assert_eq!(world.downs(id(4)), [], "seed {seed}");
        let left = world.log.iter().filter(|(.., event)| *event == Event::Left(id(4)));
        assert_eq!(left.count(), 4, "seed {seed}");
    }
}

#[test]
fn five_percent_loss_for_ten_minutes_brings_nobody_down_and_changes_no_creation() {
    let mut world = World::with(10, 14);
    world.loss = 0.05;

    world.run(s(600));

    let downs = world.log.iter().filter(|(.., e)| matches!(e, Event::Down { .. })).count();
    assert_eq!((downs, world.agreeing()), (0, 10));
    assert!((0..10).all(|number| world.creation(number) == 1));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::with(8, seed);
        world.loss = 0.1;
        world.run(s(20));
        world.kill(5);
        world.freeze(2, s(6));
        world.run(s(30));
        world.log
    };
    assert_eq!(run(42), run(42));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn hostile_bytes_from_a_peer_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let mut world = World::with(2, 15);
        world.run(s(1));
        let (now, bytes) = (world.now, Bytes::from(bytes));
        let membership = &mut world.nodes.get_mut(&named(0)).unwrap().membership;
        membership.handle(now, Input::Datagram { from: id(1), bytes: bytes.clone() });
        membership.handle(now, Input::State { from: id(1), bytes });
    }
}

/// How many seeds are tried: a few in the gate, more with `PURLIN_SEEDS`.
fn seeds() -> std::ops::Range<u64> {
    0..seeds_wanted().unwrap_or(4)
}

fn seeds_wanted() -> Option<u64> {
    std::env::var("PURLIN_SEEDS").ok().and_then(|text| text.parse().ok())
}

/// Cuts the first `left` nodes from the other `right`, heals, and says who has come back.
fn split(left: usize, right: usize, seed: u64, length: Duration) -> (usize, usize) {
    let count = left + right;
    let mut world = World::with(count, seed);
    world.run(s(15));
    assert_eq!(world.agreeing(), count, "before the cut, seed {seed}");
    let (one, other): (Vec<_>, Vec<_>) = ((0..left).collect(), (left..count).collect());
    world.cut(&one, &other);
    world.run(length);
    world.heal();
    world.run(s(60));
    assert_eq!(world.agreeing(), count, "{left}|{right} for {length:?}, seed {seed}");
    let back = |side: &[usize]| side.iter().filter(|&&n| world.creation(n) > 1).count();
    (back(&one), back(&other))
}

#[test]
fn whatever_the_split_only_the_smaller_side_comes_back() {
    for (left, right) in [(8, 4), (4, 8), (15, 5), (1, 9), (9, 1), (2, 8), (3, 2)] {
        for seed in seeds() {
            let length = s([60, 30, 20, 90][usize::try_from(seed).unwrap() % 4]);
            let (one, other) = split(left, right, seed, length);
            let expected = if left > right { (0, right) } else { (left, 0) };
            assert_eq!((one, other), expected, "{left}|{right} for {length:?}, seed {seed}");
        }
    }
}

#[test]
fn of_two_equal_sides_one_comes_back() {
    for seed in seeds() {
        let back = split(5, 5, seed, s(30));
        assert!(back == (0, 5) || back == (5, 0), "{back:?}, seed {seed}");
    }
}

#[test]
fn a_cut_about_as_long_as_detection_still_ends_in_agreement() {
    for seed in seeds() {
        for millis in [2_000, 3_000, 3_500, 4_000, 5_000, 7_000] {
            split(6, 4, seed, Duration::from_millis(millis));
        }
    }
}

/// After a split only one side can dial the other, as from behind a firewall.
fn one_way_split(left: usize, right: usize, seed: u64, left_dials: bool) -> (usize, usize) {
    let count = left + right;
    let mut world = World::with(count, seed);
    world.run(s(15));
    let (one, other): (Vec<_>, Vec<_>) = ((0..left).collect(), (left..count).collect());
    world.cut(&one, &other);
    world.run(s(20));
    let (from, to) = if left_dials { (&other, &one) } else { (&one, &other) };
    world.forbid_dials(from, to);
    world.heal();
    world.run(s(60));
    assert_eq!(world.agreeing(), count, "{left}|{right}, seed {seed}, left dials: {left_dials}");
    let back = |side: &[usize]| side.iter().filter(|&&n| world.creation(n) > 1).count();
    (back(&one), back(&other))
}

#[test]
fn a_split_heals_also_where_only_one_side_can_dial_the_other() {
    for seed in seeds() {
        for (left, right) in [(1, 1), (3, 2), (2, 3), (1, 4), (4, 1)] {
            for left_dials in [true, false] {
                let back = one_way_split(left, right, seed, left_dials);
                let expected = if left >= right { (0, right) } else { (left, 0) };
                assert_eq!(back, expected, "{left}|{right}, seed {seed}");
            }
        }
    }
}

#[test]
fn who_was_frozen_learns_that_it_is_down_also_if_it_can_dial_nobody() {
    for seed in seeds() {
        let mut world = World::with(4, seed);
        world.run(s(10));
        world.forbid_dials(&[3], &[0, 1, 2]);
        world.freeze(3, s(12));

        world.run(s(60));

        assert!(world.creation(3) > 1, "it came back, seed {seed}");
        assert_eq!(world.agreeing(), 4, "seed {seed}");
    }
}

#[test]
fn fifty_nodes_come_together_again_after_a_split() {
    let back = split(40, 10, 3, s(40));
    assert_eq!(back, (0, 10));
}

#[test]
fn a_freeze_shorter_than_detection_harms_nobody() {
    for seed in seeds() {
        let mut world = World::with(6, seed);
        world.run(s(10));
        for round in 0..20 {
            world.freeze(round % 6, Duration::from_millis(50 + 40 * round as u64));
            world.run(s(2));
        }
        let downs = world.log.iter().filter(|(.., e)| matches!(e, Event::Down { .. })).count();
        assert_eq!((downs, world.agreeing()), (0, 6), "seed {seed}");
    }
}
