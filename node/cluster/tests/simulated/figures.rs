//! How fast, how quiet, how sure: the figures that membership is held to, at 5 % loss and without
//! hints of closed ports. Small in the gate, in full with `--ignored` in release.

use std::time::{Duration, Instant};

use purlin_cluster::{Event, Time};
use purlin_proto::NodeId;

use crate::s;
use crate::world::{World, named};

const LOSS: f64 = 0.05;

/// The time of day in milliseconds, as in life: it is on the wire.
const CREATION: u64 = 1_790_000_000_000;

fn id(number: usize) -> NodeId {
    NodeId::new(named(number), CREATION)
}

/// A cluster of so many at 5 % loss, in which all know all.
fn settled(count: usize, seed: u64) -> World {
    let mut world = World::new(seed);
    (world.loss, world.hints) = (LOSS, false);
    for number in 0..count {
        world.start(number, CREATION);
    }
    agreed_within(&mut world, s(60));
    world.run(s(60));
    world
}

/// Runs until all agree, and says how long that took.
fn agreed_within(world: &mut World, limit: Duration) -> Duration {
    let start = world.now;
    let live = world.nodes.values().filter(|node| node.alive).count();
    while world.agreeing() < live {
        let waited = world.now.saturating_sub(start);
        assert!(waited < limit, "{} of {live} agree after {waited:?}", world.agreeing());
        world.run(Duration::from_millis(500));
    }
    world.now.saturating_sub(start)
}

/// Kills so many at once, and says for each survivor and victim after how long it was down, sorted.
fn detection(count: usize, killed: usize, seed: u64) -> Vec<Duration> {
    let mut world = settled(count, seed);
    let at = world.now;
    let victims = count - killed..count;
    for victim in victims.clone() {
        world.kill(victim);
    }
    world.run(s(60));
    let downs = victims.flat_map(|victim| world.downs(id(victim)));
    let mut delays: Vec<_> = downs.map(|(time, _)| time.saturating_sub(at)).collect();
    delays.sort_unstable();
    assert_eq!(delays.len(), (count - killed) * killed, "seed {seed}");
    delays
}

fn assert_detected_in_time(count: usize, killed: usize, seed: u64) {
    let delays = detection(count, killed, seed);
    let quantile = |per_mille: usize| delays[(delays.len() - 1) * per_mille / 1_000];
    let (p50, p99, p999) = (quantile(500), quantile(990), quantile(999));
    let (first, last) = (delays[0], delays[delays.len() - 1]);
    println!(
        "{killed} of {count}, seed {seed}: first {first:.1?}, p50 {p50:.2?}, p99 {p99:.2?}, p99.9 \
         {p999:.2?}, last {last:.1?}"
    );
    assert!(p50 <= Duration::from_millis(3_500), "p50 {p50:?}");
    assert!(p99 <= Duration::from_millis(5_500), "p99 {p99:?}");
    assert!(p999 <= s(7), "p99.9 {p999:?}");
    // One period of anti-entropy.
    assert!(last <= s(30), "last {last:?}");
}

/// Nobody dies for so long, and nobody is thought to.
fn assert_quiet(count: usize, seed: u64, length: Time) {
    let mut world = settled(count, seed);
    world.log.clear();
    let before = world.traffic;
    world.run(length);
    let is_down = |event: &Event| matches!(event, Event::Down { .. });
    let downs = world.log.iter().filter(|(.., event)| is_down(event)).count();
    let suspicions = world.log.iter().filter(|(.., e)| matches!(e, Event::Suspect(_))).count();
    let nodes = u32::try_from(count).unwrap();
    let node_seconds = length.as_secs_f64() * f64::from(nodes);
    let per_second =
        |now: u64, before: u64| f64::from(u32::try_from(now - before).unwrap()) / node_seconds;
    let bytes = per_second(world.traffic.datagram_bytes, before.datagram_bytes);
    println!(
        "{count} nodes for {length:?}: {downs} downs, {suspicions} suspicions seen; per node and \
         second {:.1} datagrams of {bytes:.0} B, {:.1} pings, {:.0} B of states",
        per_second(world.traffic.datagrams, before.datagrams),
        per_second(world.traffic.pings, before.pings),
        per_second(world.traffic.state_bytes, before.state_bytes),
    );
    assert_eq!(downs, 0);
    assert!((0..count).all(|number| world.creation(number) == CREATION));
    assert!(bytes <= 650.0, "{bytes} B/s");
}

/// All start at once with three seeds.
fn assert_joined(count: usize, seed: u64, limit: Duration) {
    let started = Instant::now();
    let mut world = World::new(seed);
    (world.loss, world.hints, world.seeds) = (LOSS, false, 3);
    for number in 0..count {
        world.start(number, CREATION);
    }
    let took = agreed_within(&mut world, limit);
    let per_node = world.traffic.state_bytes / count as u64;
    println!(
        "{count} joined within {took:?}, {per_node} B of states each ({:?} real)",
        started.elapsed()
    );
    world.run(s(60));
    let per_node = world.traffic.state_bytes / count as u64;
    println!("a minute later {per_node} B of states each ({:?} real)", started.elapsed());
    // Links to members that are known already cost a digest, not all that is known.
    assert!(per_node <= 2_000 * count as u64, "{per_node} B of states each");
    assert_eq!(world.agreeing(), count);
    assert!((0..count).all(|number| world.creation(number) == CREATION));
}

/// Cuts the first from the others, heals, and measures until all agree again.
fn assert_healed(smaller: usize, count: usize, seed: u64, length: Duration) {
    let mut world = settled(count, seed);
    let (one, other): (Vec<_>, Vec<_>) = ((0..smaller).collect(), (smaller..count).collect());
    world.cut(&one, &other);
    world.run(length);
    world.heal();
    let took = agreed_within(&mut world, s(60));
    let back = |side: &[usize]| side.iter().filter(|&&n| world.creation(n) > CREATION).count();
    let (back, of_larger) = (back(&one), back(&other));
    println!(
        "{smaller}|{} for {length:?}, seed {seed}: agreed after {took:?}; came back: {back} and \
         {of_larger}",
        count - smaller
    );
    assert_eq!((back, of_larger), (smaller, 0));
    assert_eq!(world.nodes[&named(0)].membership.live().count(), count);
}

#[test]
fn most_deaths_are_seen_in_three_and_a_half_seconds_and_all_in_an_anti_entropy_period() {
    assert_detected_in_time(30, 3, 1);
}

#[test]
#[ignore = "minutes: run with --ignored in release"]
fn twenty_of_two_hundred_that_die_at_once_are_seen_in_time() {
    for seed in 1..=5 {
        assert_detected_in_time(200, 20, seed);
    }
}

#[test]
fn loss_brings_nobody_down_and_costs_little() {
    assert_quiet(20, 2, s(120));
}

#[test]
#[ignore = "minutes: run with --ignored in release"]
fn no_live_node_is_declared_down_in_two_hundred_node_hours() {
    assert_quiet(200, 2, s(3_600));
}

#[test]
fn many_join_at_once_from_three_seeds() {
    assert_joined(40, 3, s(40));
}

#[test]
#[ignore = "minutes: run with --ignored in release"]
fn a_thousand_join_at_once_from_three_seeds_within_forty_seconds() {
    assert_joined(1_000, 3, s(40));
}

/// The suspicions of a young cluster must be refuted while its gossip is full of newcomers.
#[test]
#[ignore = "minutes: run with --ignored in release"]
fn two_hundred_join_at_once_and_nobody_loses_its_life() {
    assert_joined(200, 3, s(40));
}

#[test]
#[ignore = "minutes: run with --ignored in release"]
fn two_hundred_agree_within_a_minute_after_a_split() {
    for (smaller, seed) in [(1, 1), (5, 2), (40, 3), (95, 4)] {
        for length in [s(20), s(90)] {
            assert_healed(smaller, 200, seed, length);
        }
    }
}
