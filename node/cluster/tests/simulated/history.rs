//! What a node can say afterwards about why another was suspected, or is down.

use std::time::Duration;

use purlin_cluster::{Happened, Why};

use crate::world::{World, named};
use crate::{id, s};

/// What one node has noted of another since it came up.
fn noted(world: &World, by: usize, about: usize) -> Vec<Happened> {
    let membership = &world.nodes[&named(by)].membership;
    membership.history(named(about)).map(|noted| noted.what.clone()).collect()
}

#[test]
fn a_stall_is_told_by_who_had_it_and_its_suspicion_by_who_had_that() {
    let mut world = World::with(5, 21);
    world.hints = false;
    world.run(s(10));
    world.freeze(3, Duration::from_millis(2_200));
    world.run(s(10));

    let own = world.nodes[&named(3)].membership.tally(named(3));
    assert_eq!(own.stalls, 1);
    assert!((2_000..2_300).contains(&own.longest_stall.as_millis()), "{own:?}");
    let itself = noted(&world, 3, 3);
    let accusers: Vec<_> = [0, 1, 2, 4]
        .into_iter()
        .filter(|&by| noted(&world, by, 3).contains(&Happened::Suspected { by: None }))
        .collect();
    assert!(!accusers.is_empty(), "somebody's probe was not answered");
    for accuser in accusers {
        assert!(itself.contains(&Happened::Accused { by: id(accuser) }), "{itself:?}");
    }
    for other in [0, 1, 2, 4] {
        let seen = noted(&world, other, 3);
        let suspected = seen.iter().filter(|what| matches!(what, Happened::Suspected { .. }));
        let alive = seen.iter().filter(|what| matches!(what, Happened::Alive { .. }));
        assert_eq!(suspected.count(), alive.count(), "every suspicion has its end: {seen:?}");
        assert!(!seen.iter().any(|what| matches!(what, Happened::Down(_))));
    }
}

#[test]
fn a_death_is_told_with_what_led_to_it() {
    let mut world = World::with(5, 22);
    world.run(s(10));
    world.kill(3);
    world.run(s(10));

    for other in [0, 1, 2, 4] {
        let seen = noted(&world, other, 3);
        let down = seen.iter().position(|what| matches!(what, Happened::Down(_))).unwrap();
        match &seen[down] {
            Happened::Down(Why::PortClosed) => {
                assert!(seen[..down].contains(&Happened::PortClosed), "{seen:?}");
            }
            Happened::Down(why) => assert_eq!(*why, Why::Silent, "told by another"),
            _ => unreachable!(),
        }
        assert_eq!(seen.last(), Some(&seen[down]), "nothing after that");
    }
    let told = [0, 1, 2, 4]
        .into_iter()
        .filter(|&by| noted(&world, by, 3).contains(&Happened::Down(Why::PortClosed)));
    assert!(told.count() > 0);
}

#[test]
fn who_comes_back_says_who_held_it_for_dead() {
    let mut world = World::with(5, 23);
    world.run(s(10));
    world.freeze(3, s(8));
    world.run(s(30));

    let itself = noted(&world, 3, 3);
    let at = itself.iter().position(|what| matches!(what, Happened::DeclaredDown { .. })).unwrap();
    let creation = world.creation(3);
    assert!(itself[at..].contains(&Happened::Returned { creation }), "{itself:?}");
}
