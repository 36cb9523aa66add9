//! The logs of own entries: whatever the network does, all who are live agree in the end, and nothing
//! of the dead comes back.

#![expect(clippy::unwrap_used, reason = "a test")]

mod chaos;
mod world;

use std::time::Duration;

use purlin_proto::limits::{OWNED_ENTRIES, OWNED_REMOVALS};

use world::World;

#[test]
fn an_entry_is_on_every_node_at_once_and_a_removal_too() {
    let mut world = World::with(3);

    world.set(0, "a", Some("1"));
    world.deliver_all();

    assert_eq!(world.seen(1, 0), world.own(0));
    assert_eq!(world.seen(2, 0).len(), 1);
    world.set(0, "a", None);
    world.deliver_all();
    assert!(world.seen(1, 0).is_empty() && world.seen(2, 0).is_empty());
}

#[test]
fn many_changes_at_once_go_in_few_frames_and_one_at_a_time() {
    let mut world = World::with(2);
    let before = world.frames;

    for number in 0..10_000 {
        world.set(0, &format!("key-{number:05}"), Some("v"));
    }

    // The first went on its own; all others waited for its answer.
    assert_eq!(world.under_way(), 1);
    world.deliver_all();
    assert_eq!(world.seen(1, 0).len(), 10_000);
    assert!(world.frames - before < 20, "{} frames", world.frames - before);
}

#[test]
fn everything_of_a_node_that_is_down_goes_in_one_step() {
    let mut world = World::with(3);
    for number in 0..5_000 {
        world.set(2, &format!("key-{number}"), Some("v"));
    }
    world.deliver_all();

    world.crash(2);
    world.notice(0, 2);

    assert!(world.seen(0, 2).is_empty(), "gone here");
    assert_eq!(world.seen(1, 2).len(), 5_000, "not yet there");
    // The one who has not noticed offers what it has.
    world.run(Duration::from_mins(3));
    assert!(world.seen(0, 2).is_empty(), "and does not come back");
}

#[test]
fn a_late_joiner_gets_it_all_also_when_removals_were_forgotten() {
    let mut world = World::with(2);
    for number in 0..3 * OWNED_REMOVALS {
        world.set(0, &format!("key-{number}"), Some("v"));
    }
    for number in 0..2 * OWNED_REMOVALS + 10 {
        world.set(0, &format!("key-{number}"), None);
    }
    world.deliver_all();

    let late = world.start();
    world.introduce(late);
    world.deliver_all();

    assert_eq!(world.seen(late, 0), world.own(0));
    assert_eq!(world.seen(1, 0), world.own(0));
}

#[test]
fn an_owner_knows_when_a_late_joiner_has_read_all() {
    for removed in [0, 2 * OWNED_REMOVALS] {
        let mut world = World::with(2);
        for number in 0..3 * OWNED_REMOVALS {
            world.set(0, &format!("key-{number}"), Some("v"));
        }
        for number in 0..removed {
            world.set(0, &format!("key-{number}"), None);
        }
        world.deliver_all();
        let there = world.own(0).len();

        let late = world.start();
        world.introduce(late);

        assert!(world.has_read(late, 1), "it has said nothing");
        while !world.has_read(late, 0) {
            world.deliver(0, false);
            // There is always more.
            world.set(0, &format!("new-{}", world.frames), Some("v"));
        }
        assert!(world.seen(late, 0).len() >= there);
        assert!(world.under_way() > 0, "before the end of what is said");
    }
}

#[test]
fn one_who_was_cut_off_for_long_gets_a_full_copy_as_one_change() {
    let mut world = World::with(2);
    for number in 0..20_000 {
        world.set(0, &format!("key-{number}"), Some("before"));
    }
    world.deliver_all();
    world.cut(0, 1);
    for number in 0..15_000 {
        world.set(0, &format!("key-{number}"), None);
    }
    world.set(0, "new", Some("v"));
    let changes = world.changes(1);

    world.join(0, 1);
    world.deliver_all();

    assert_eq!(world.seen(1, 0), world.own(0));
    assert_eq!(world.changes(1) - changes, 1, "nobody sees it half done");
}

#[test]
fn two_that_cannot_reach_each_other_learn_through_a_third() {
    let mut world = World::with(3);
    world.cut(0, 1);

    world.set(0, "a", Some("1"));
    world.deliver_all();
    assert!(world.seen(1, 0).is_empty());
    world.run(Duration::from_mins(2));

    assert_eq!(world.seen(1, 0), world.own(0));
}

#[test]
fn a_node_that_comes_back_brings_its_entries_and_takes_the_others() {
    let mut world = World::with(3);
    world.set(0, "a", Some("0"));
    world.set(1, "b", Some("1"));
    world.deliver_all();

    world.reincarnate(0);
    world.deliver_all();

    assert_eq!(world.own(0).len(), 1, "its processes live on");
    assert_eq!(world.seen(1, 0), world.own(0));
    assert_eq!(world.seen(0, 1), world.own(1));
}

#[test]
fn whoever_says_what_no_log_has_breaks_the_protocol() {
    let mut world = World::with(2);
    for bytes in [&b""[..], b"\xff\xff\xff\xff", b"\x01\0\0\0nonsense"] {
        world.say_raw(0, 1, bytes);
    }
    assert_eq!(world.violations(1), 3);

    for number in 0..=OWNED_ENTRIES {
        world.set(0, &number.to_string(), Some(""));
    }
    world.deliver_all();
    assert_eq!(world.violations(1), 4, "more entries than an owner may have");
}

#[test]
fn nobody_is_believed_who_is_no_member() {
    let mut world = World::with(1);
    let stranger = world.start();
    world.set(stranger, "a", Some("1"));
    world.see(stranger, 0);
    world.deliver_all();

    assert!(world.seen(0, stranger).is_empty());
    // It is seen as live only now, and said all before.
    world.see(0, stranger);
    world.deliver_all();
    assert_eq!(world.seen(0, stranger), world.own(stranger));
}

#[test]
fn nobody_is_believed_about_a_node_that_speaks_for_itself() {
    let mut world = World::with(3);
    world.join(0, 1);
    world.set(0, "a", Some("1"));
    world.deliver_all();

    world.lie(2, 1, 0);
    world.deliver_all();

    assert_eq!(world.seen(1, 0), world.own(0));
}

#[test]
fn a_lie_about_a_node_out_of_reach_lasts_until_it_can_be_asked() {
    let mut world = World::with(4);
    // The other has nothing to say.
    world.set(0, "a", Some("1"));
    world.deliver_all();
    for about in [0, 2] {
        world.cut(about, 1);
        world.lie(3, 1, about);
        assert!(world.seen(1, about).contains_key(&b"forged"[..]), "it is believed meanwhile");

        world.join(about, 1);
        world.deliver_all();

        assert_eq!(world.seen(1, about), world.own(about));
        world.set(about, "b", Some("2"));
        world.deliver_all();
        assert_eq!(world.seen(1, about), world.own(about));
    }
}
