//! The registrar's rules, one by one.

use purlin_proto::admin::names::{Claim, NameRefusal};
use purlin_proto::{Fence, Name, NodeId};

use super::{Registrar, Shards};
use crate::exclusive::RingView;
use crate::ring::SHARDS;

fn node(name: &'static str) -> NodeId {
    NodeId::new(name.into(), 1)
}

fn view(epoch: u64, names: &[&'static str]) -> RingView {
    RingView { epoch, members: names.iter().map(|name| node(name)).collect() }
}

fn claim(of: &'static str, attempt: u64) -> Claim {
    Claim { pid: node(of).pid(attempt * 10), attempt }
}

fn hits() -> Name {
    "hits".into()
}

/// A registrar of all shards, all of which it knows.
fn ready(epoch: u64, names: &[&'static str]) -> Registrar {
    let mut registrar = Registrar::default();
    registrar.look(&(0..SHARDS).collect(), Some(&view(epoch, names)));
    for name in names {
        let gather = registrar.gathers().remove(0);
        registrar.told(gather.number, (*name).into(), Vec::new(), true);
    }
    assert!(registrar.gathers().is_empty());
    registrar
}

#[test]
fn of_two_that_want_a_name_one_has_it_and_the_other_is_told_who() {
    let mut registrar = ready(3, &["a", "b"]);

    let fence = registrar.take(&hits(), claim("a", 1), (3, 7));
    assert_eq!(fence, Ok(Fence { epoch: 3, shard: 7, generation: 1 }));
    assert_eq!(registrar.take(&hits(), claim("a", 1), (3, 7)), fence, "asked again");
    let taken = Err(NameRefusal::Taken(claim("a", 1).pid));
    assert_eq!(registrar.take(&hits(), claim("b", 1), (3, 7)), taken);
    assert_eq!(registrar.take(&hits(), claim("a", 2), (3, 7)), taken, "another attempt");
    assert_eq!(registrar.find(&hits(), 7), Ok(Some(claim("a", 1).pid)));

    assert!(registrar.give(&hits(), claim("b", 1), 7), "of another: nothing happens");
    assert_eq!(registrar.take(&hits(), claim("b", 1), (3, 7)), taken);
    assert!(registrar.give(&hits(), claim("a", 1), 7));
    let fence = registrar.take(&hits(), claim("b", 1), (3, 7));
    assert_eq!(fence, Ok(Fence { epoch: 3, shard: 7, generation: 2 }), "a greater token");
}

#[test]
fn nothing_is_given_before_every_member_has_told_or_is_gone() {
    let mut registrar = Registrar::default();
    let seven: Shards = [7].into_iter().collect();
    registrar.look(&seven, Some(&view(3, &["a", "b", "c"])));
    let number = registrar.gathers()[0].number;
    assert_eq!(registrar.take(&hits(), claim("a", 1), (3, 7)), Err(NameRefusal::NotYet));
    assert_eq!(registrar.find(&hits(), 7), Err(NameRefusal::NotYet));
    assert!(!registrar.give(&hits(), claim("a", 1), 7), "who has it is not known");

    registrar.told(number, "a".into(), Vec::new(), true);
    let fence = Fence { epoch: 2, shard: 7, generation: 40 };
    registrar.told(number, "b".into(), vec![(hits(), claim("b", 5), fence)], false);
    assert_eq!(registrar.find(&hits(), 7), Ok(Some(claim("b", 5).pid)), "one is known already");
    registrar.told(number, "b".into(), Vec::new(), true);
    assert_eq!(registrar.take(&"other".into(), claim("a", 1), (3, 7)), Err(NameRefusal::NotYet));

    registrar.look(&seven, Some(&view(4, &["a", "b"])));
    let taken = Err(NameRefusal::Taken(claim("b", 5).pid));
    assert_eq!(registrar.take(&hits(), claim("a", 1), (4, 7)), taken);
    assert!(registrar.take(&"other".into(), claim("a", 1), (4, 7)).is_ok());
}

#[test]
fn what_is_not_held_for_a_moment_is_forgotten_and_gathered_anew() {
    let mut registrar = ready(3, &["a", "b"]);
    registrar.take(&hits(), claim("a", 1), (3, 7)).unwrap();

    registrar.look(&Shards::default(), Some(&view(3, &["a", "b"])));
    assert!(registrar.is_empty());
    registrar.look(&(0..SHARDS).collect(), Some(&view(3, &["a", "b"])));
    assert_eq!(registrar.take(&hits(), claim("b", 1), (3, 7)), Err(NameRefusal::NotYet));

    let [gather] = &registrar.gathers()[..] else { panic!("one") };
    assert_eq!((gather.epoch, gather.generation), (3, 1), "nothing newer can be on the way");
    let number = gather.number;
    registrar.told(number, "a".into(), Vec::new(), true);
    registrar.told(number, "b".into(), Vec::new(), true);
    let fence = registrar.take(&hits(), claim("b", 1), (3, 7)).unwrap();
    assert!((fence.epoch, fence.generation) > (3, 1));
}

#[test]
fn shards_that_stay_are_not_gathered_anew() {
    let mut registrar = Registrar::default();
    let few: Shards = [7, 8].into_iter().collect();
    registrar.look(&few, Some(&view(1, &["a"])));
    registrar.told(registrar.gathers()[0].number, "a".into(), Vec::new(), true);
    registrar.take(&hits(), claim("a", 1), (1, 7)).unwrap();

    let other: Shards = [7, 9].into_iter().collect();
    registrar.look(&other, Some(&view(2, &["a", "b"])));
    assert_eq!(registrar.gathers()[0].shards, [9].into_iter().collect());
    assert_eq!(registrar.find(&hits(), 7), Ok(Some(claim("a", 1).pid)));
    assert!(registrar.take(&"new".into(), claim("b", 1), (2, 7)).is_ok());
    assert_eq!(registrar.find(&"other".into(), 8), Err(NameRefusal::NotYet), "it is another's");
}

#[test]
fn names_of_a_member_that_is_out_of_the_view_or_in_another_life_are_free() {
    let mut registrar = ready(1, &["a", "b"]);
    registrar.take(&hits(), claim("b", 1), (1, 7)).unwrap();
    let again = RingView { epoch: 2, members: vec![node("a"), NodeId::new("b".into(), 2)] };

    registrar.look(&(0..SHARDS).collect(), Some(&again));
    assert_eq!(registrar.find(&hits(), 7), Ok(None));
    let dead = registrar.take(&hits(), claim("b", 1), (2, 7));
    assert_eq!(dead, Err(NameRefusal::NotYet), "that life is no member");

    registrar.take(&hits(), claim("a", 1), (2, 7)).unwrap();
    registrar.look(&(0..SHARDS).collect(), Some(&view(3, &["b"])));
    assert_eq!(registrar.find(&hits(), 7), Ok(None));
}

#[test]
fn answers_that_come_late_or_speak_for_others_are_passed_over() {
    let mut registrar = Registrar::default();
    registrar.look(&[7].into_iter().collect(), Some(&view(1, &["a", "b"])));
    let number = registrar.gathers()[0].number;
    let fence = Fence { epoch: 1, shard: 7, generation: 1 };
    let elsewhere = Fence { shard: 8, ..fence };

    registrar.told(number + 1, "a".into(), vec![(hits(), claim("a", 1), fence)], true);
    registrar.told(number, "c".into(), vec![(hits(), claim("c", 1), fence)], true);
    registrar.told(number, "a".into(), vec![(hits(), claim("b", 1), fence)], false);
    registrar.told(number, "a".into(), vec![(hits(), claim("a", 1), elsewhere)], false);
    assert!(registrar.is_empty());
    registrar.told(number, "a".into(), Vec::new(), true);
    registrar.told(number, "a".into(), vec![(hits(), claim("a", 1), fence)], true);
    assert!(registrar.is_empty(), "it has said everything already");
}

#[test]
fn a_set_of_shards_is_its_bytes() {
    let set: Shards = [0, 1, 63, 64, 16_383].into_iter().collect();
    assert_eq!(Shards::from_bytes(&set.to_bytes()), Some(set.clone()));
    assert_eq!((set.len(), set.iter().collect()), (5, vec![0, 1, 63, 64, 16_383]));
    assert_eq!(Shards::from_bytes(&[0; 8]), None);
    assert!(!set.has(u16::MAX));
}
