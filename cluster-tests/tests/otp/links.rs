//! LK: links.

use std::time::Duration;

use purlin::{ExitReason, LinkDown, NodeName, Pid};
use purlin_cluster_tests::memory::until_sees;

use crate::actors::{Notices, Parent, RaiseDoomed};
use crate::hand::{Got, Hand, end_of, other, take_now};
use crate::place::{Place, places, run_on, settle, until};

/// A target there and a hand here, linked to it and trapping exits.
async fn linked(place: &Place) -> (Hand, Hand) {
    let target = Hand::start(&place.there);
    let pid = target.pid;
    let linked = Hand::begin(&place.here, |ctx| {
        ctx.trap_exits(true);
        ctx.link(pid);
    });
    settle().await;
    (linked, target)
}

fn link_down(pid: Pid, reason: ExitReason) -> Got {
    Got::LinkDown(LinkDown { pid, reason })
}

async fn lk_1_an_exit_goes_to_what_is_linked(place: Place) {
    let target = Hand::start(&place.there);
    let pid = target.pid;
    let linked = Hand::begin(&place.here, |ctx| ctx.link(pid));
    let end = end_of(&place.there, linked.pid);
    settle().await;

    target.end(other("crash"));

    assert_eq!(end.await, other("crash"));
}

async fn lk_2_who_traps_exits_gets_a_message_instead(place: Place) {
    let (mut linked, target) = linked(&place).await;

    target.end(other("crash"));

    assert_eq!(linked.next().await, link_down(target.pid, other("crash")));
    assert!(linked.is_quiet().await && linked.is_alive());
}

async fn lk_3_a_normal_exit_is_told_to_trappers_and_harms_nobody(place: Place) {
    let (mut trapper, target) = linked(&place).await;
    let pid = target.pid;
    let mut plain = Hand::begin(&place.here, |ctx| ctx.link(pid));
    settle().await;

    target.end(ExitReason::Normal);

    assert_eq!(trapper.next().await, link_down(pid, ExitReason::Normal));
    assert!(plain.is_quiet().await && plain.is_alive());
}

async fn lk_4_either_side_takes_a_link_back_for_both(place: Place) {
    for unlinker in 0..2 {
        let (one, two) = linked(&place).await;
        two.does(|ctx| ctx.trap_exits(true)).await;
        let mut hands = [one, two];
        let other_pid = hands[1 - unlinker].pid;

        hands[unlinker].does(move |ctx| ctx.unlink(other_pid)).await;
        settle().await;

        hands[0].end(other("one"));
        assert!(hands[1].is_quiet().await && hands[1].is_alive());
    }
}

async fn lk_4_a_link_works_in_both_directions(place: Place) {
    let (linked, target) = linked(&place).await;
    let end = end_of(&place.here, target.pid);
    settle().await;

    linked.end(other("the one that linked"));

    assert_eq!(end.await, other("the one that linked"));
}

async fn lk_6_linking_to_oneself_is_nothing(place: Place) {
    let mut hand = Hand::trapping(&place.here);
    hand.does(|ctx| ctx.link(ctx.pid())).await;
    let end = end_of(&place.there, hand.pid);
    settle().await;

    assert!(hand.is_quiet().await && hand.is_alive());
    hand.end(other("crash"));
    assert_eq!(end.await, other("crash"));
}

async fn lk_7_linking_to_the_dead_ends_the_caller_or_is_told(place: Place) {
    let target = Hand::start(&place.there);
    place.there.exit(target.pid, ExitReason::Kill);
    until("its end", || !target.is_alive()).await;
    settle().await;
    let (pid, plain, mut trapper) =
        (target.pid, Hand::start(&place.here), Hand::trapping(&place.here));
    let end = end_of(&place.here, plain.pid);
    settle().await;

    plain.order(move |ctx| ctx.link(pid));
    trapper.does(move |ctx| ctx.link(pid)).await;

    assert_eq!(end.await, ExitReason::NoProcess);
    assert_eq!(trapper.next().await, link_down(pid, ExitReason::NoProcess));
    assert!(trapper.is_quiet().await && trapper.is_alive(), "no link remains");
}

async fn lk_10_when_the_connection_is_lost_both_ends_get_noconnection(place: Place) {
    let (mut one, mut two) = linked(&place).await;
    two.does(|ctx| ctx.trap_exits(true)).await;
    let (plain_one, plain_two) = (Hand::start(&place.here), Hand::start(&place.there));
    let pid = plain_two.pid;
    plain_one.does(move |ctx| ctx.link(pid)).await;
    settle().await;

    place.cut();

    assert_eq!(one.next().await, link_down(two.pid, ExitReason::NoConnection));
    assert_eq!(two.next().await, link_down(one.pid, ExitReason::NoConnection));
    until("the ends of those who do not trap", || !plain_one.is_alive() && !plain_two.is_alive())
        .await;
    place.heal();
    place.cluster.until_all_see(2).await;
    assert!(one.is_quiet().await && two.is_quiet().await, "once");
}

async fn lk_10_a_link_taken_back_while_cut_off_tells_only_who_does_not_know(place: Place) {
    let (mut one, mut two) = linked(&place).await;
    two.does(|ctx| ctx.trap_exits(true)).await;
    let pids = [one.pid, two.pid];

    place.cut();
    one.does(move |ctx| ctx.unlink(pids[1])).await;

    assert_eq!(two.next().await, link_down(pids[0], ExitReason::NoConnection));
    until_sees(&place.here, 1).await;
    assert!(one.is_quiet().await);
}

async fn lk_10_a_link_made_while_cut_off_ends_with_the_connection(place: Place) {
    let (mut one, two) = (Hand::trapping(&place.here), Hand::trapping(&place.there));
    let pid = two.pid;

    place.cut();
    one.does(move |ctx| ctx.link(pid)).await;

    assert_eq!(one.next().await, link_down(pid, ExitReason::NoConnection));
    assert!(one.is_quiet().await);
}

async fn lk_10_a_link_made_in_a_short_outage_works(place: Place) {
    let (mut one, two) = (Hand::trapping(&place.here), Hand::trapping(&place.there));
    let pid = two.pid;

    place.cut();
    one.does(move |ctx| ctx.link(pid)).await;
    settle().await;
    place.heal();
    two.end(other("crash"));

    let got = one.next().await;
    let reasons = [other("crash"), ExitReason::NoProcess];
    assert!(reasons.map(|reason| link_down(pid, reason)).contains(&got), "{got:?}");
}

async fn lk_11_after_unlink_no_exit_of_that_link_arrives(place: Place) {
    let targets: Vec<_> = (0..2000).map(|_| Hand::start(&place.there)).collect();
    let pids: Vec<_> = targets.iter().map(|target| target.pid).collect();
    let end_of_last = end_of(&place.here, *pids.last().unwrap());

    let late = run_on(&place.here, move |mut ctx| async move {
        ctx.trap_exits(true);
        for &pid in &pids {
            ctx.link(pid);
        }
        settle().await;
        let mut late = Vec::new();
        for &pid in &pids {
            ctx.runtime().exit(pid, other("crash"));
            tokio::task::yield_now().await;
            ctx.unlink(pid);
            // At most one was there before.
            take_now(&mut ctx).await;
            late.extend(take_now(&mut ctx).await);
        }
        settle().await;
        late.extend(take_now(&mut ctx).await);
        late
    })
    .await;

    assert_eq!(late, []);
    assert_eq!(end_of_last.await, other("crash"));
}

async fn lk_12_taking_back_no_link_is_nothing(place: Place) {
    let stranger = Hand::start(&place.there);
    let dead = Hand::start(&place.there);
    place.there.exit(dead.pid, ExitReason::Kill);
    settle().await;
    let mut hand = Hand::start(&place.here);

    let pids = [stranger.pid, dead.pid];
    hand.does(move |ctx| pids.into_iter().for_each(|pid| ctx.unlink(pid))).await;

    assert!(hand.is_quiet().await && hand.is_alive() && stranger.is_alive());
}

async fn lk_14_a_link_made_again_at_once_works_once(place: Place) {
    let (mut linked, target) = linked(&place).await;
    let pid = target.pid;

    linked
        .does(move |ctx| {
            for _ in 0..3 {
                ctx.unlink(pid);
                ctx.link(pid);
            }
        })
        .await;
    settle().await;
    target.end(other("crash"));

    assert_eq!(linked.next().await, link_down(pid, other("crash")));
    assert!(linked.is_quiet().await);
}

async fn lk_14_an_exit_of_the_old_link_does_not_pass_for_one_of_the_new(place: Place) {
    let (mut linked, target) = linked(&place).await;
    let pid = target.pid;
    place.be_far();

    // The target's exit and the two requests pass each other.
    place.there.exit(pid, other("crash"));
    linked
        .does(move |ctx| {
            ctx.unlink(pid);
            ctx.link(pid);
        })
        .await;

    let got = linked.next().await;
    let reasons = [other("crash"), ExitReason::NoProcess];
    assert!(reasons.map(|reason| link_down(pid, reason)).contains(&got), "{got:?}");
    assert!(linked.is_quiet().await, "once");
}

/// What one side does, several times in a row, while the other does its own.
#[derive(Clone, Copy, Debug)]
enum Move {
    Link,
    Unlink,
}

/// Both sides make their moves at the same moment; whether each is linked is then seen from what it
/// is told when the connection is lost.
async fn linked_after(place: Place, games: Vec<([Vec<Move>; 2], [Hand; 2])>) -> Vec<String> {
    settle().await;
    place.be_far();
    for ([ones, twos], [one, two]) in &games {
        let pids = [one.pid, two.pid];
        for (moves, hand, other) in [(ones, one, pids[1]), (twos, two, pids[0])] {
            let moves = moves.clone();
            hand.order(move |ctx| {
                for step in moves {
                    match step {
                        Move::Link => ctx.link(other),
                        Move::Unlink => ctx.unlink(other),
                    }
                }
            });
        }
    }
    settle().await;
    place.cut();
    until_sees(&place.here, 1).await;
    until_sees(&place.there, 1).await;
    settle().await;
    let told = |hand: &mut Hand| !hand.rest().is_empty();
    let halves = games.into_iter().filter_map(|(moves, mut hands)| {
        let [one, two] = hands.each_mut().map(told);
        (one != two).then(|| format!("{moves:?}: linked {one} and {two}"))
    });
    halves.collect()
}

fn trapping_pair(place: &Place) -> [Hand; 2] {
    [Hand::trapping(&place.here), Hand::trapping(&place.there)]
}

async fn lk_14_both_ends_agree_after_one_unlinks_while_the_other_links(place: Place) {
    let hands = trapping_pair(&place);
    let pid = hands[1].pid;
    hands[0].does(move |ctx| ctx.link(pid)).await;
    let games = vec![([vec![Move::Link], vec![Move::Unlink]], hands)];

    let halves = linked_after(place, games).await;

    assert_eq!(halves, [""; 0]);
}

async fn lk_14_both_ends_agree_after_one_unlinks_while_the_other_links_again(place: Place) {
    let hands = trapping_pair(&place);
    let pid = hands[1].pid;
    hands[0].does(move |ctx| ctx.link(pid)).await;
    let games = vec![([vec![Move::Unlink, Move::Link], vec![Move::Unlink]], hands)];

    let halves = linked_after(place, games).await;

    assert_eq!(halves, [""; 0]);
}

async fn lk_14_both_ends_agree_whatever_they_do_at_once(place: Place) {
    let moves = |number: u32| -> Vec<_> {
        let step = |bit: u32| if (number >> bit) & 1 == 0 { Move::Link } else { Move::Unlink };
        (0..3).map(step).collect()
    };
    let mut games = Vec::new();
    for linked in [false, true] {
        for number in 0..64 {
            let hands = trapping_pair(&place);
            let pid = hands[1].pid;
            if linked {
                hands[0].does(move |ctx| ctx.link(pid)).await;
            }
            games.push(([moves(number & 7), moves(number >> 3)], hands));
        }
    }

    let halves = linked_after(place, games).await;

    assert!(halves.is_empty(), "{} of 128, as {}", halves.len(), halves[0]);
}

async fn lk_15_a_child_that_crashes_at_once_is_told_to_its_parent(place: Place) {
    const CHILDREN: usize = 500;
    let parent = place.here.spawn::<Parent>(true).await.unwrap();
    let node: NodeName = place.there.id().name;

    let mut children = Vec::new();
    for _ in 0..CHILDREN {
        children.push(parent.call(RaiseDoomed(node)).await.unwrap().unwrap());
    }
    let mut notices = Vec::new();
    for _ in 0..500 {
        notices = parent.call(Notices()).await.unwrap();
        if notices.len() == CHILDREN {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    notices.sort_by_key(|(child, _)| *child);
    let expected: Vec<_> = children.into_iter().map(|pid| (Some(pid), other("crash"))).collect();
    assert!(notices == expected, "{} of {CHILDREN} told", notices.len());
}

async fn lk_16_a_chain_of_links_goes_down_as_a_whole(place: Place) {
    let chain = line(&place, 50).await;
    let end = end_of(&place.here, chain[0].pid);
    settle().await;

    chain[49].end(other("deep"));

    assert_eq!(end.await, other("deep"));
    until("the last", || chain.iter().all(|hand| !hand.is_alive())).await;
}

/// Hands, each linked to the one before it, by turns here and there.
async fn line(place: &Place, length: usize) -> Vec<Hand> {
    let mut line: Vec<Hand> = Vec::new();
    for number in 0..length {
        let hand = Hand::start(if number % 2 == 0 { &place.here } else { &place.there });
        if let Some(before) = line.last() {
            let before = before.pid;
            hand.does(move |ctx| ctx.link(before)).await;
        }
        line.push(hand);
    }
    settle().await;
    line
}

async fn lk_18_who_links_a_parent_that_let_go_and_died_learns_no_secret(place: Place) {
    for _ in 0..100 {
        let (parent, mut child) = linked(&place).await;
        child.does(|ctx| ctx.trap_exits(true)).await;
        let pids = [parent.pid, child.pid];
        place.be_far();

        parent.order(move |ctx| ctx.unlink(pids[1]));
        parent.end(other("secret"));
        child.order(move |ctx| ctx.link(pids[0]));
        settle().await;

        // When the requests pass each other, the child's link is older than the parent's unlink.
        let told = child.rest();
        let noproc = link_down(pids[0], ExitReason::NoProcess);
        assert!(told.is_empty() || told == [noproc.clone()], "{told:?}");
        child.does(move |ctx| ctx.link(pids[0])).await;
        assert_eq!(child.next().await, noproc);
    }
}

async fn lk_18_a_link_that_was_taken_off_tells_no_reason(place: Place) {
    let (parent, child) = linked(&place).await;
    let mut child = child;
    child.does(|ctx| ctx.trap_exits(true)).await;
    let pid = child.pid;

    parent.order(move |ctx| ctx.unlink(pid));
    parent.end(other("secret"));

    assert!(child.is_quiet().await);
}

async fn lk_19_a_kill_travels_as_killed_and_an_exit_with_kill_as_kill(place: Place) {
    for length in [1, 2, 9, 10] {
        for by_itself in [false, true] {
            let line = line(&place, length).await;
            let end = end_of(&place.here, line[0].pid);
            settle().await;

            let last = &line[length - 1];
            match by_itself {
                true => last.end(ExitReason::Kill),
                false => place.here.exit(last.pid, ExitReason::Kill),
            }

            let reason = if by_itself { ExitReason::Kill } else { ExitReason::Killed };
            assert_eq!(end.await, reason, "in a line of {length}");
        }
    }
}

places! {
    both {
        lk_1_an_exit_goes_to_what_is_linked
        lk_2_who_traps_exits_gets_a_message_instead
        lk_3_a_normal_exit_is_told_to_trappers_and_harms_nobody
        lk_4_either_side_takes_a_link_back_for_both
        lk_4_a_link_works_in_both_directions
        lk_6_linking_to_oneself_is_nothing
        lk_7_linking_to_the_dead_ends_the_caller_or_is_told
        lk_11_after_unlink_no_exit_of_that_link_arrives
        lk_12_taking_back_no_link_is_nothing
        lk_14_a_link_made_again_at_once_works_once
        lk_16_a_chain_of_links_goes_down_as_a_whole
        lk_18_who_links_a_parent_that_let_go_and_died_learns_no_secret
        lk_18_a_link_that_was_taken_off_tells_no_reason
        lk_19_a_kill_travels_as_killed_and_an_exit_with_kill_as_kill
    }
    local {}
    remote {
        lk_10_a_link_taken_back_while_cut_off_tells_only_who_does_not_know
        lk_10_a_link_made_while_cut_off_ends_with_the_connection
        lk_10_a_link_made_in_a_short_outage_works
        lk_10_when_the_connection_is_lost_both_ends_get_noconnection
        lk_14_an_exit_of_the_old_link_does_not_pass_for_one_of_the_new
        lk_14_both_ends_agree_after_one_unlinks_while_the_other_links
        lk_14_both_ends_agree_after_one_unlinks_while_the_other_links_again
        lk_14_both_ends_agree_whatever_they_do_at_once
    }
    local_on_threads {
        lk_15_a_child_that_crashes_at_once_is_told_to_its_parent
    }
    remote_on_threads {
        lk_15_a_child_that_crashes_at_once_is_told_to_its_parent
    }
}
