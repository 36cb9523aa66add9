//! One node and what a peer may tell it, in bytes that only this module can make.

use std::time::Duration;

use foca::{Codec, Header, Message};
use proptest::prelude::*;
use purlin_proto::limits::{CREATION, MEMBERS, STATE_BYTES};
use purlin_proto::{Labels, View, codec};

use super::heal::share_a_cluster;
use super::table::view_of;
use super::wire::{Known, Said};
use super::*;

const NOW: Time = Time::from_secs(100);

fn life(number: u32, creation: u64) -> Life {
    let name = NodeName::new(&format!("n{number}")).unwrap();
    let address = SocketAddr::from(([10, 0, 0, 1], 1 + u16::try_from(number % 60_000).unwrap()));
    Life { id: NodeId::new(name, creation), address }
}

fn known(life: Life, state: State) -> Known {
    Known { life, incarnation: 0, state, labels: None }
}

fn labels(value: &str) -> Labels {
    Labels::from([("zone".to_owned(), value.to_owned())])
}

/// Node n0, connected to n1 … up to the given number.
fn connected_to(others: u32) -> Membership {
    let Life { id, address } = life(0, 1);
    let me = Me { id, address, labels: Labels::new() };
    let mut node = Membership::new(Config::default(), me, 1, NOW);
    for number in 1..=others {
        let Life { id, address } = life(number, 1);
        node.handle(NOW, Input::Connected { peer: id, address });
    }
    outputs(&mut node);
    node
}

fn outputs(node: &mut Membership) -> Vec<Output> {
    std::iter::from_fn(|| node.poll_output()).collect()
}

/// Ticks for so long.
fn run(node: &mut Membership, from: Time, length: Duration) -> Vec<Output> {
    let mut now = from;
    let mut found = Vec::new();
    while now < from + length {
        now += Duration::from_millis(10);
        node.handle(now, Input::Tick);
        found.append(&mut outputs(node));
    }
    found
}

fn events(node: &mut Membership) -> Vec<Event> {
    let event = |output| match output {
        Output::Event(event) => Some(event),
        _ => None,
    };
    outputs(node).into_iter().filter_map(event).collect()
}

fn say(node: &mut Membership, from: Life, said: &Said) {
    let bytes = codec::to_bytes(said).unwrap();
    node.handle(NOW, Input::State { from: from.id, bytes });
}

fn say_full(node: &mut Membership, from: Life, members: Vec<Known>) {
    say(node, from, &Said::Full { members, answer: false });
}

fn gossip(node: &mut Membership, from: Life, updates: &[Update]) {
    let dst = Life { id: node.me.id, address: node.me.address };
    let header = Header { src: from, src_incarnation: 0, dst, message: Message::Gossip };
    let mut bytes = Vec::new();
    FocaCodec.encode_header(&header, &mut bytes).unwrap();
    bytes.extend_from_slice(&u16::try_from(updates.len()).unwrap().to_be_bytes());
    for update in updates {
        FocaCodec.encode_member(update, &mut bytes).unwrap();
    }
    node.handle(NOW, Input::Datagram { from: from.id, bytes: bytes.into() });
}

fn state_of(node: &Membership, life: Life) -> Option<State> {
    node.table.get(life.id).map(|member| member.state)
}

#[test]
fn a_newer_life_that_is_already_down_does_not_come_up() {
    let mut node = connected_to(2);
    gossip(&mut node, life(1, 1), &[Update::down(life(2, 2))]);

    let events = events(&mut node);
    assert_eq!(events, [Event::Down { id: life(2, 1).id, why: Why::Restarted }]);
    assert_eq!(state_of(&node, life(2, 2)), Some(State::Down));
    assert!(node.admit(life(2, 2).id, life(2, 2).address).is_err());
}

#[test]
fn news_of_our_own_death_in_gossip_do_not_count_but_who_says_so_in_full_is_weighed() {
    let mut node = connected_to(3);
    let us = Life { id: node.me.id, address: node.me.address };
    gossip(&mut node, life(1, 1), &[Update::down(us)]);
    assert_eq!(outputs(&mut node), []);

    let others = (1..=3).map(|number| known(life(number, 1), State::Up));
    let full = others.chain([known(us, State::Down)]).collect();
    say_full(&mut node, life(1, 1), full);
    assert_eq!(outputs(&mut node), [Output::Reincarnate { at_least: 2 }]);
}

#[test]
fn a_stale_or_impossible_newer_creation_is_not_followed() {
    let mut node = connected_to(0);
    for newest in [0, 1, CREATION, u64::MAX] {
        node.handle(NOW, Input::Superseded { newest });
        assert_eq!(outputs(&mut node), [], "{newest}");
    }
    node.handle(NOW, Input::Superseded { newest: 7 });
    assert_eq!(outputs(&mut node), [Output::Reincarnate { at_least: 8 }]);
}

#[test]
fn impossible_creations_of_others_are_not_believed() {
    let mut node = connected_to(1);
    gossip(&mut node, life(1, 1), &[Update::alive(life(2, CREATION + 1))]);
    assert_eq!((events(&mut node), state_of(&node, life(2, CREATION + 1))), (vec![], None));
}

#[test]
fn no_peer_makes_us_remember_more_names_than_there_may_be() {
    let mut node = connected_to(1);
    let too_many = (1..10_000).map(|n| known(life(n, 1), State::Up)).collect();
    say_full(&mut node, life(1, 1), too_many);
    assert_eq!(node.members().count(), 2, "the whole state is refused");

    let bound = u32::try_from(MEMBERS).unwrap();
    for first in (1..2 * bound).step_by(1_000) {
        let some = (first..first + 1_000).map(|n| known(life(n, 1), State::Up)).collect();
        say_full(&mut node, life(1, 1), some);
    }
    assert_eq!(node.members().count(), MEMBERS);
    let stranger = life(50_000, 1);
    assert_eq!(
        node.admit(stranger.id, stranger.address),
        Err(purlin_proto::Refusal::Busy),
        "no room"
    );

    let dead: Vec<_> = (20_000..30_000).map(|n| Update::down(life(n, 1))).collect();
    for some in dead.chunks(10) {
        gossip(&mut node, life(1, 1), some);
    }
    assert_eq!(node.members().count(), MEMBERS);
    assert_eq!(node.foca.iter_membership_state().count(), MEMBERS - 1);
}

#[test]
fn the_dead_are_forgotten_when_they_are_too_many_or_too_old() {
    let mut node = connected_to(1);
    let dead = (2..2_000).map(|n| known(life(n, 1), State::Down)).collect();
    say_full(&mut node, life(1, 1), dead);
    assert_eq!(node.members().count(), 2 + config::REMEMBERED);
    let forgotten = |node: &mut Membership| {
        outputs(node).iter().filter(|output| matches!(output, Output::Forgotten(_))).count()
    };
    assert_eq!(forgotten(&mut node), 1_998 - config::REMEMBERED);

    let tomorrow = NOW + config::FORGET_AFTER + Duration::from_secs(1);
    node.forget(tomorrow);
    assert_eq!(node.members().count(), 2);
    assert_eq!(forgotten(&mut node), config::REMEMBERED);
    assert_eq!(node.foca.iter_membership_state().count(), 1);
}

#[test]
fn another_address_does_not_bring_a_dead_life_back() {
    let mut node = connected_to(2);
    gossip(&mut node, life(1, 1), &[Update::down(life(2, 1))]);
    let elsewhere = Life { address: "10.9.9.9:9".parse().unwrap(), ..life(2, 1) };
    gossip(&mut node, life(1, 1), &[Update::alive(elsewhere)]);
    assert_eq!(state_of(&node, life(2, 1)), Some(State::Down));
    assert_eq!(node.foca.num_members(), 1);
}

#[test]
fn what_others_say_of_a_lifes_labels_counts_until_it_speaks_itself() {
    let mut node = connected_to(2);
    let told = |by: &str| Known { labels: Some(labels(by)), ..known(life(2, 1), State::Up) };
    let zone = |node: &Membership| node.table.get(life(2, 1).id).unwrap().labels.clone();

    say_full(&mut node, life(1, 1), vec![told("first")]);
    assert_eq!(zone(&node), labels("first"));
    say_full(&mut node, life(1, 1), vec![told("second")]);
    assert_eq!(zone(&node), labels("first"));
    say_full(&mut node, life(2, 1), vec![told("own")]);
    assert_eq!(zone(&node), labels("own"));
    say_full(&mut node, life(1, 1), vec![told("third")]);
    assert_eq!(zone(&node), labels("own"));
}

#[test]
fn a_farewell_after_the_news_of_its_death_still_makes_it_left() {
    let mut node = connected_to(2);
    gossip(&mut node, life(1, 1), &[Update::down(life(2, 1))]);
    node.handle(NOW, Input::Stopping { peer: life(2, 1).id });
    assert_eq!(state_of(&node, life(2, 1)), Some(State::Left));
}

#[test]
fn leaving_is_told_with_the_state_and_not_gossiped_as_a_death() {
    let mut node = connected_to(3);
    say(&mut node, life(2, 1), &Said::Leaving);
    assert_eq!(events(&mut node), [Event::Left(life(2, 1).id)]);
    let mut gossiped = 0;
    for output in run(&mut node, NOW, Duration::from_secs(2)) {
        let Output::Datagram { bytes, .. } = output else { continue };
        let gossip = Gossip::parse(&bytes).unwrap();
        gossiped += gossip.updates.len();
        assert!(gossip.updates.iter().all(|update| update.state() != foca::State::Down));
    }
    assert!(gossiped > 0);

    let mut third = connected_to(3);
    say_full(&mut third, life(1, 1), vec![known(life(2, 1), State::Left)]);
    assert_eq!(events(&mut third), [Event::Left(life(2, 1).id)]);
}

/// What the node says on streams, in order.
fn said(outputs: &[Output]) -> Vec<(NodeId, Said)> {
    let said = |output: &Output| match output {
        Output::State { to, bytes } => Some((*to, codec::from_bytes(bytes, STATE_BYTES).unwrap())),
        _ => None,
    };
    outputs.iter().filter_map(said).collect()
}

#[test]
fn a_suspect_is_told_so_and_its_answer_ends_the_suspicion() {
    let mut node = connected_to(1);
    let first_probe_failed = run(&mut node, NOW, Duration::from_millis(1_100));
    assert_eq!(said(&first_probe_failed), [(life(1, 1).id, Said::Suspected(0))]);
    assert_eq!(state_of(&node, life(1, 1)), Some(State::Suspect));

    say(&mut node, life(1, 1), &Said::Refuted(1));

    run(&mut node, NOW + Duration::from_millis(1_100), Duration::from_millis(200));
    assert_eq!(state_of(&node, life(1, 1)), Some(State::Up));
}

#[test]
fn a_suspect_that_was_not_connected_is_told_so_when_it_is() {
    let mut node = connected_to(1);
    run(&mut node, NOW, Duration::from_millis(1_100));

    let Life { id, address } = life(1, 1);
    node.handle(NOW, Input::Connected { peer: id, address });

    assert!(said(&outputs(&mut node)).contains(&(id, Said::Suspected(0))));
}

#[test]
fn who_is_suspected_answers_with_its_next_incarnation() {
    let mut node = connected_to(2);
    say(&mut node, life(1, 1), &Said::Suspected(4));
    assert_eq!(said(&outputs(&mut node)), [(life(1, 1).id, Said::Refuted(5))]);

    say(&mut node, life(2, 1), &Said::Suspected(u16::MAX));
    assert_eq!(outputs(&mut node), [Output::Reincarnate { at_least: 2 }]);
}

#[test]
fn the_dead_refute_nothing() {
    let mut node = connected_to(2);
    gossip(&mut node, life(1, 1), &[Update::down(life(2, 1))]);
    say(&mut node, life(2, 1), &Said::Refuted(9));
    assert_eq!(state_of(&node, life(2, 1)), Some(State::Down));
}

#[test]
fn members_that_know_each_other_compare_one_digest_when_they_connect() {
    let mut node = connected_to(2);
    say_full(&mut node, life(1, 1), vec![known(life(2, 1), State::Up)]);
    outputs(&mut node);
    let mut connect = |number| {
        let Life { id, address } = life(number, 1);
        node.handle(NOW, Input::Connected { peer: id, address });
        said(&outputs(&mut node))
    };
    assert!(matches!(connect(2)[..], [(_, Said::Digest(_))]), "the smaller name speaks");
    assert!(matches!(connect(3)[..], [(_, Said::Full { answer: true, .. })]), "a stranger");
}

#[test]
fn digests_that_come_fast_cost_one_answer() {
    let mut node = connected_to(2);
    let from = life(1, 1).id;
    let bytes = codec::to_bytes(&Said::Digest(7)).unwrap();
    let mut ask = |at: Time| {
        node.handle(at, Input::State { from, bytes: bytes.clone() });
        said(&outputs(&mut node)).len()
    };

    assert_eq!((0..1_000).map(|_| ask(NOW)).sum::<usize>(), 1);
    assert_eq!(ask(NOW + Duration::from_millis(50)), 1);
}

#[test]
fn the_greater_side_does_not_yield_to_one_of_the_lesser_that_declared_first() {
    let mut node = connected_to(3);
    let (by, at) = (life(9, 1).id, life(9, 1).address);
    let view = Box::new(view_of([by, life(8, 1).id].into_iter()).unwrap());

    node.handle(NOW, Input::DeclaredDown { creation: 1, by, at, view });

    let outputs = outputs(&mut node);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Reincarnate { .. })));
    assert_eq!(state_of(&node, life(9, 1)), Some(State::Down));
}

#[test]
fn a_node_without_a_state_takes_the_first_even_if_it_disputes_who_is_connected() {
    let mut node = connected_to(3);
    let others = (4..20).map(|number| known(life(number, 1), State::Up));
    let dead = [2, 3].map(|number| known(life(number, 1), State::Down));
    say_full(&mut node, life(1, 1), others.chain(dead).collect());

    assert_eq!(state_of(&node, life(2, 1)), Some(State::Down));
    assert_eq!(state_of(&node, life(4, 1)), Some(State::Up));
}

#[test]
fn a_node_that_has_left_does_nothing_more() {
    let mut node = connected_to(2);
    node.handle(NOW, Input::Leave);
    assert_eq!(outputs(&mut node).len(), 2, "a farewell to each");
    let Life { id, address } = life(3, 1);
    node.handle(NOW, Input::Connected { peer: id, address });
    node.handle(NOW + Time::from_secs(9), Input::Tick);
    assert_eq!((outputs(&mut node), node.next_wake()), (vec![], None));
}

#[test]
fn what_begins_after_a_stall_is_not_put_off_with_what_waited() {
    let mut node = connected_to(0);
    let seeds = vec![life(1, 1).address];
    node.handle(NOW, Input::Join { seeds: seeds.clone() });
    outputs(&mut node);
    let thawed = NOW + Time::from_hours(1);
    node.handle(thawed, Input::Join { seeds });
    assert_eq!(outputs(&mut node).len(), 1);

    let dial = Output::Dial { address: life(1, 1).address };
    assert_eq!(run(&mut node, thawed, Duration::from_millis(1_300)), [dial]);
}

#[test]
fn after_coming_back_a_node_first_meets_the_one_it_yielded_to() {
    let mut node = connected_to(3);
    let winner = life(9, 1);
    let view = view_of((4..20).map(|number| life(number, 1).id)).map(Box::new).unwrap();
    let (by, at) = (winner.id, winner.address);
    node.handle(NOW, Input::DeclaredDown { creation: 1, by, at, view });
    assert_eq!(outputs(&mut node), [Output::Reincarnate { at_least: 2 }]);
    node.reincarnated(NOW, NodeId::new(node.me.id.name, 2));
    let dials = |node: &mut Membership| {
        let dial = |output| match output {
            Output::Dial { address } => Some(address),
            _ => None,
        };
        outputs(node).into_iter().filter_map(dial).collect::<Vec<_>>()
    };
    assert_eq!(dials(&mut node), [winner.address]);
    let former = life(1, 1);
    let refused = node.admit(former.id, former.address);
    assert_eq!(refused, Err(purlin_proto::Refusal::Joining));

    node.handle(NOW, Input::Connected { peer: winner.id, address: winner.address });
    let dead = (1..=3).map(|number| known(life(number, 1), State::Down));
    say_full(&mut node, winner, dead.chain([known(winner, State::Up)]).collect());

    assert_eq!(dials(&mut node), [1, 2, 3].map(|number| life(number, 1).address));
    assert!(matches!(
        node.admit(former.id, former.address),
        Err(purlin_proto::Refusal::DeclaredDown { .. })
    ));
}

#[test]
fn a_state_from_the_other_side_of_a_split_is_not_taken() {
    let mut node = connected_to(5);
    say_full(&mut node, life(1, 1), vec![]);
    let newcomer = life(6, 1);
    node.handle(NOW, Input::Connected { peer: newcomer.id, address: newcomer.address });
    let theirs = (1..=5).map(|number| known(life(number, 1), State::Down));
    let theirs = theirs.chain((10..20).map(|number| known(life(number, 1), State::Up)));
    say_full(&mut node, newcomer, theirs.collect());
    assert_eq!(node.live().count(), 7, "nobody is down, nobody is new");
}

fn view(ids: std::ops::Range<u32>) -> View {
    view_of(ids.map(|number| life(number, 1).id)).unwrap()
}

#[test]
fn views_share_a_cluster_if_half_of_both_is_in_both() {
    for (one, other, expected) in [
        (0..1, 0..2, true),
        (0..1, 1..2, false),
        (0..3, 0..2, true),
        (0..5, 0..2, false),
        (0..200, 0..190, true),
        (0..100, 100..200, false),
        (0..200, 0..40, false),
    ] {
        let shares = share_a_cluster(&view(one.clone()), &view(other.clone()));
        assert_eq!(shares, expected, "{one:?} and {other:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn states_that_were_tampered_with_never_panic_nor_outgrow_the_bounds(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut node = connected_to(3);
        let members = (0..40)
            .map(|n| Known { labels: Some(labels("a")), ..known(life(n, 1), State::Up) })
            .collect();
        let said = codec::to_bytes(&Said::Full { members, answer: true }).unwrap();
        let mut bytes = said.to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        let from = life(1, 1).id;
        node.handle(NOW, Input::State { from, bytes: bytes.into() });
        for second in 0..20 {
            node.handle(NOW + Time::from_secs(second), Input::Tick);
        }
        prop_assert!(node.members().count() <= MEMBERS);
        let too_big = |output: &Output| {
            matches!(output, Output::State { bytes, .. } if bytes.len() > STATE_BYTES)
        };
        prop_assert!(!outputs(&mut node).iter().any(too_big));
    }
}
