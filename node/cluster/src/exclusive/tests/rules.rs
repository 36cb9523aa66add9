//! The rules one by one, and who votes and founds.

use std::collections::BTreeSet;
use std::time::Duration;

use purlin_proto::{NodeId, NodeName};

use super::super::{
    AuthorityId, Candidate, Founding, Grant, Holder, Keeper, RingView, Shard, Situation, Times,
    choose_voters,
};
use crate::ring::Ring;

const SECOND: Duration = Duration::from_secs(1);

fn life(name: &'static str, creation: u64) -> NodeId {
    NodeId::new(name.into(), creation)
}

fn authority() -> AuthorityId {
    AuthorityId { founded: 5, founder: "a".into() }
}

fn times() -> Times {
    Times::new(5 * SECOND)
}

fn view(epoch: u64, members: &[NodeId]) -> RingView {
    RingView { epoch, members: members.to_vec() }
}

fn grant(number: u64, cleared: u64, view: &RingView) -> Grant {
    let (authority, epoch) = (authority(), view.epoch);
    Grant { authority, number, leased: true, epoch, cleared, view: Some(view.clone()) }
}

/// A shard that a node owns in both views, and one that it owns in the second alone.
fn shards(me: &'static str, one: &RingView, two: &RingView) -> (u16, u16) {
    let ring = |view: &RingView| Ring::new(view.members.iter().map(|id| id.name));
    let (one, two) = (ring(one), ring(two));
    let me = Some(NodeName::from(me));
    let both = (0..16_384).find(|&s| one.owner_of(s) == me && two.owner_of(s) == me).unwrap();
    let new = (0..16_384).find(|&s| one.owner_of(s) != me && two.owner_of(s) == me).unwrap();
    (both, new)
}

#[test]
fn a_lease_counts_from_when_it_was_asked_for() {
    let a = life("a", 1);
    let mut holder = Holder::new(a, authority(), times(), 0);
    let asked = holder.renew(10 * SECOND).unwrap();

    holder.granted(12 * SECOND, &grant(asked.number, 5, &view(5, &[a])));

    assert_eq!(holder.good_until(), Some(10 * SECOND + times().good()));
    assert!(!holder.tick(12 * SECOND) && holder.tick(13 * SECOND), "2.7 s");
    assert_eq!(holder.shard(13 * SECOND, 0), Shard::NotYet);
    assert_eq!(holder.renew(13 * SECOND), None, "not before all has ended");
}

#[test]
fn what_is_owned_in_both_views_goes_on_and_what_is_new_waits_for_the_barrier() {
    let (a, b, c) = (life("a", 1), life("b", 1), life("c", 1));
    let (one, two) = (view(5, &[a, b, c]), view(6, &[a, b]));
    let (both, new) = shards("a", &one, &two);
    let mut holder = Holder::new(a, authority(), times(), 0);
    let first = holder.renew(SECOND).unwrap();
    holder.granted(SECOND, &grant(first.number, 5, &one));
    assert_eq!(
        (holder.shard(3 * SECOND, both), holder.shard(3 * SECOND, new)),
        (Shard::Held { epoch: 5 }, Shard::Elsewhere)
    );

    let second = holder.renew(2 * SECOND).unwrap();
    holder.granted(2 * SECOND, &grant(second.number, 5, &two));
    assert_eq!(
        (holder.shard(3 * SECOND, both), holder.shard(3 * SECOND, new)),
        (Shard::Held { epoch: 6 }, Shard::NotYet)
    );

    let third = holder.renew(3 * SECOND).unwrap();
    holder.granted(3 * SECOND, &grant(third.number, 6, &two));
    assert_eq!(holder.shard(3 * SECOND, new), Shard::Held { epoch: 6 });
}

#[test]
fn an_answer_to_what_was_asked_before_the_lease_ran_out_does_not_bring_it_back() {
    let a = life("a", 1);
    let mut holder = Holder::new(a, authority(), times(), 0);
    let [first, second] = [1, 2].map(|at| holder.renew(at * SECOND).unwrap());
    holder.granted(SECOND, &grant(first.number, 5, &view(5, &[a])));
    holder.settled(5);

    holder.granted(4 * SECOND, &grant(second.number, 5, &view(5, &[a])));

    assert_eq!((holder.good_until(), holder.shard(4 * SECOND, 0)), (None, Shard::NotYet));
}

#[test]
fn a_member_leaves_the_view_when_it_is_down_and_its_lease_is_over() {
    let (a, b) = (life("a", 1), life("b", 1));
    let present = view(5, &[a, b]);
    let mut keeper = Keeper::new(authority(), times(), Duration::ZERO);
    let mut holder = Holder::new(b, authority(), times(), 0);
    let asked = holder.renew(SECOND).unwrap();
    keeper.answer(10 * SECOND, b, &asked, &present);
    let live = BTreeSet::from([a]);

    assert_eq!(keeper.next(13 * SECOND, &present, &live), None, "its lease is good");
    assert_eq!(keeper.next(15 * SECOND, &present, &[a, b].into()), None, "it is up");
    assert_eq!(keeper.next(15 * SECOND, &present, &live), Some(view(6, &[a])));

    let refused = keeper.answer(15 * SECOND, b, &asked, &present);
    assert!(!refused.leased, "it is being taken out");
}

#[test]
fn a_new_leader_waits_for_leases_that_it_does_not_know_of() {
    let (a, b) = (life("a", 1), life("b", 1));
    let present = view(5, &[a, b]);
    let mut keeper = Keeper::new(authority(), times(), 10 * SECOND);

    assert_eq!(keeper.cleared(13 * SECOND, &present), 0);
    assert_eq!(keeper.next(13 * SECOND, &present, &[a].into()), None);
    assert_eq!(keeper.cleared(15 * SECOND, &present), 5);
    assert!(keeper.next(15 * SECOND, &present, &[a].into()).is_some());
}

#[test]
fn one_that_gives_its_lease_back_is_not_waited_for() {
    let (a, b) = (life("a", 1), life("b", 1));
    let present = view(5, &[a, b]);
    let mut keeper = Keeper::new(authority(), times(), Duration::ZERO);
    let mut holder = Holder::new(b, authority(), times(), 0);
    let asked = holder.renew(10 * SECOND).unwrap();
    keeper.answer(10 * SECOND, b, &asked, &present);

    keeper.answer(11 * SECOND, b, &holder.leave(), &present);

    let next = keeper.next(11 * SECOND, &present, &[a, b].into());
    assert_eq!(next, Some(view(6, &[a])));
}

/// A node asks for its lease; if an earlier one has run out, it has ended everything before.
fn ask(keeper: &mut Keeper, now: Duration, holder: &mut Holder, view: &RingView) -> Grant {
    if holder.tick(now) {
        holder.settled(holder.epoch());
    }
    let asked = holder.renew(now).unwrap();
    let grant = keeper.answer(now, holder.me(), &asked, view);
    holder.granted(now, &grant);
    grant
}

#[test]
fn one_that_drains_is_out_of_the_next_view_and_keeps_its_lease_until_the_barrier() {
    let (a, b) = (life("a", 1), life("b", 1));
    let (one, two) = (view(5, &[a, b]), view(6, &[a]));
    let mut keeper = Keeper::new(authority(), times(), Duration::ZERO).founding();
    let [mut stays, mut leaves] = [a, b].map(|id| Holder::new(id, authority(), times(), 0));
    for holder in [&mut stays, &mut leaves] {
        ask(&mut keeper, SECOND, holder, &one);
        holder.settled(5);
    }
    for holder in [&mut stays, &mut leaves] {
        ask(&mut keeper, SECOND, holder, &one);
    }
    let (_, moves) = shards("a", &one, &two);
    assert_eq!(leaves.shard(SECOND, moves), Shard::Held { epoch: 5 });

    keeper.drains(SECOND, b);
    assert_eq!(keeper.next(SECOND, &one, &[a, b].into()), Some(two.clone()));
    for holder in [&mut stays, &mut leaves] {
        let grant = ask(&mut keeper, 2 * SECOND, holder, &two);
        assert!(grant.leased && grant.cleared == 5, "{grant:?}");
    }
    assert_eq!(stays.shard(2 * SECOND, moves), Shard::NotYet);
    assert_eq!(leaves.shard(2 * SECOND, moves), Shard::Elsewhere);
    assert!(leaves.good_until().is_some() && !leaves.is_out(), "what it has lost still ends");

    stays.settled(6);
    ask(&mut keeper, 2 * SECOND, &mut stays, &two);
    assert_eq!(stays.shard(2 * SECOND, moves), Shard::NotYet, "it is waited for");
    leaves.settled(6);
    for holder in [&mut leaves, &mut stays] {
        ask(&mut keeper, 2 * SECOND, holder, &two);
    }
    assert_eq!(stays.shard(2 * SECOND, moves), Shard::Held { epoch: 6 });
    assert!(leaves.is_out());
}

#[test]
fn one_that_drains_and_crashes_is_waited_for_until_its_lease_is_over() {
    let (a, b) = (life("a", 1), life("b", 1));
    let (one, two) = (view(5, &[a, b]), view(6, &[a]));
    let mut keeper = Keeper::new(authority(), times(), Duration::ZERO).founding();
    let [mut stays, mut leaves] = [a, b].map(|id| Holder::new(id, authority(), times(), 0));
    ask(&mut keeper, SECOND, &mut leaves, &one);
    keeper.drains(SECOND, b);
    ask(&mut keeper, SECOND, &mut stays, &two);
    stays.settled(6);

    let (soon, long_ago) = (times().hold(), SECOND + times().hold());
    assert_eq!(ask(&mut keeper, soon, &mut stays, &two).cleared, 0);
    assert_eq!(ask(&mut keeper, long_ago, &mut stays, &two).cleared, 6);
}

#[test]
fn when_all_drain_the_view_stays() {
    let (a, b) = (life("a", 1), life("b", 1));
    let present = view(5, &[a, b]);
    let mut keeper = Keeper::new(authority(), times(), Duration::ZERO).founding();
    for id in [a, b] {
        keeper.drains(SECOND, id);
    }

    assert_eq!(keeper.next(SECOND, &present, &[a, b].into()), None);
    let silent = SECOND + 2 * times().lease;
    keeper.drains(silent, b);
    assert_eq!(keeper.next(silent, &present, &[a, b].into()), Some(view(6, &[a])));
}

#[test]
fn a_new_leader_passes_no_barrier_while_one_that_drains_may_have_a_lease() {
    let (a, b) = (life("a", 1), life("b", 1));
    let two = view(6, &[a]);
    let mut keeper = Keeper::new(authority(), times(), 10 * SECOND);
    let mut stays = Holder::new(a, authority(), times(), 0);
    ask(&mut keeper, 10 * SECOND, &mut stays, &two);
    stays.settled(6);

    let (soon, over) = (9 * SECOND + times().hold(), 10 * SECOND + times().hold());
    assert_eq!(ask(&mut keeper, soon, &mut stays, &two).cleared, 0);
    keeper.drains(soon, b);
    let mut leaves = Holder::new(b, authority(), times(), 0);
    assert!(ask(&mut keeper, soon, &mut leaves, &two).leased, "it goes on");
    assert_eq!(ask(&mut keeper, over, &mut stays, &two).cleared, 0, "and is waited for");
    leaves.settled(6);
    ask(&mut keeper, over, &mut leaves, &two);
    assert_eq!(ask(&mut keeper, over, &mut stays, &two).cleared, 6);
}

#[test]
fn epochs_rise_above_what_a_newcomer_has_run_under() {
    let (a, b) = (life("a", 1), life("b", 1));
    let present = view(5, &[a]);
    let mut keeper = Keeper::new(authority(), times(), Duration::ZERO).founding();
    let mut holder = Holder::new(b, authority(), times(), 70);
    let asked = holder.renew(SECOND).unwrap();

    let answer = keeper.answer(SECOND, b, &asked, &present);
    assert!(!answer.leased);

    assert_eq!(keeper.next(SECOND, &present, &[a, b].into()), Some(view(71, &[a, b])));
}

fn candidates(list: &[(&'static str, u64, &str)]) -> Vec<Candidate> {
    let candidate = |&(name, creation, zone): &(&'static str, u64, &str)| Candidate {
        name: name.into(),
        creation,
        zone: (!zone.is_empty()).then(|| zone.to_owned()),
    };
    list.iter().map(candidate).collect()
}

fn names(list: &[&'static str]) -> BTreeSet<NodeName> {
    list.iter().map(|&name| name.into()).collect()
}

#[test]
fn the_most_senior_vote_spread_over_zones() {
    let few = candidates(&[("a", 1, ""), ("b", 2, "")]);
    assert_eq!(choose_voters(&few, &names(&[])), names(&["a"]));

    let four = candidates(&[("a", 1, "x"), ("b", 2, "x"), ("c", 3, "y"), ("d", 4, "z")]);
    assert_eq!(choose_voters(&four, &names(&["a"])), names(&["a", "c", "d"]));
}

#[test]
fn voters_stay_as_long_as_they_are_members() {
    let members = candidates(&[("a", 9, ""), ("b", 2, ""), ("c", 3, ""), ("d", 4, "")]);
    assert_eq!(choose_voters(&members, &names(&["a", "c", "gone"])), names(&["a", "b", "c"]));
    let two = candidates(&[("a", 9, ""), ("c", 3, "")]);
    assert_eq!(choose_voters(&two, &names(&["a", "c", "gone"])), names(&["c"]));
}

#[test]
fn one_with_seeds_founds_in_company_alone() {
    let (a, b) = (life("a", 1), life("b", 2));
    let mut founding = Founding::default();
    let alone = Situation {
        us: a,
        seeds: false,
        remembers: false,
        expect: 1,
        without: &[],
        company: 0,
        unclear: 0,
    };
    assert!(founding.look(SECOND, &alone));
    assert!(!founding.look(SECOND, &Situation { seeds: true, ..alone }));
    assert!(!founding.look(SECOND, &Situation { remembers: true, ..alone }));
    let others = [b];
    let pair = Situation { seeds: true, without: &others, ..alone };
    assert!(!founding.look(SECOND, &pair) && founding.look(3 * SECOND, &pair));
    assert!(!founding.look(3 * SECOND, &Situation { unclear: 1, ..pair }));
    assert!(!founding.look(9 * SECOND, &Situation { expect: 3, ..pair }));
    let beside = Situation { seeds: true, company: 1, ..alone };
    assert!(!founding.look(10 * SECOND, &beside) && founding.look(12 * SECOND, &beside));
    let junior = [a];
    let mut founding = Founding::default();
    let second = Situation { us: b, without: &junior, ..pair };
    assert!(!founding.look(SECOND, &second) && !founding.look(9 * SECOND, &second));
}
