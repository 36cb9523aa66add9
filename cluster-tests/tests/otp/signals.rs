//! SG: signals, their order and delivery.

use std::time::Duration;

use purlin::proto::NodeId;
use purlin::{CallError, Dest, ExitReason, LinkDown, Name, NodeEvent, Pid, RawKind, Received};
use purlin_cluster_tests::memory::until_sees;
use tokio::time::{Instant, timeout};

use crate::hand::{Bulk, Got, Hand, Number, end_of, other, take_now, watching};
use crate::place::{Place, count, kinds, places, run_on, settle, until};

static SERVER: RawKind = RawKind::new("server");

async fn sg_1_messages_of_one_sender_arrive_in_order(place: Place) {
    let mut receiver = Hand::start(&place.there);
    let to = receiver.pid;

    run_on(&place.here, move |ctx| async move {
        for number in 0..10_000 {
            ctx.runtime().send_wait(to, Number(number)).await;
        }
    })
    .await;

    for number in 0..10_000 {
        assert_eq!(receiver.next().await, Got::Number(number));
    }
}

async fn sg_2_an_exit_is_ordered_with_the_messages_around_it(place: Place) {
    let mut targets: Vec<_> = (0..1000).map(|_| Hand::start(&place.there)).collect();
    let pids: Vec<_> = targets.iter().map(|target| target.pid).collect();

    let reasons = run_on(&place.here, move |mut ctx| async move {
        for &pid in &pids {
            ctx.monitor(pid);
            for number in 0..3 {
                ctx.runtime().send_wait(pid, Number(number)).await;
            }
            ctx.runtime().exit(pid, other("good"));
            for number in 3..6 {
                ctx.runtime().send_wait(pid, Number(number)).await;
            }
        }
        let mut reasons = Vec::new();
        for _ in &pids {
            match ctx.receive().await.unwrap() {
                Received::Down(down) => reasons.push(down.reason),
                received => panic!("{received:?}"),
            }
        }
        reasons
    })
    .await;

    assert!(reasons.iter().all(|reason| *reason == other("good")), "{reasons:?}");
    for target in &mut targets {
        let got = target.rest();
        assert!(got.iter().all(|got| matches!(got, Got::Number(0..3))), "{got:?}");
    }
}

async fn sg_4_order_holds_by_pid_and_by_name_and_the_downs_come_last(place: Place) {
    let mut receiver = Hand::named(&place.there, "receiver");
    let sender = Hand::named(&place.here, "sender");
    let (pid, name) = (receiver.pid, Name::new("receiver").unwrap());
    let (from, from_name) = (sender.pid, Name::new("sender").unwrap());
    let (here, there) = (place.here.id().name, place.there.id().name);
    receiver
        .does(move |ctx| {
            ctx.monitor(from);
            ctx.monitor(Dest::Remote(from_name, here));
        })
        .await;
    settle().await;

    sender
        .does(move |ctx| {
            for number in 0..1000 {
                let by_name = Dest::Remote(name.clone(), there);
                let to = if number % 2 == 0 { Dest::Pid(pid) } else { by_name };
                ctx.runtime().send(to, Number(number));
            }
        })
        .await;
    sender.end(other("done"));

    for number in 0..1000 {
        assert_eq!(receiver.next().await, Got::Number(number));
    }
    assert_eq!(receiver.down().await.reason, other("done"));
    assert_eq!(receiver.down().await.reason, other("done"));
}

async fn sg_5_all_that_was_sent_before_dying_arrives_before_the_notices(place: Place) {
    let sender = Hand::start(&place.there);
    let from = sender.pid;
    let mut receiver = Hand::begin(&place.here, |ctx| {
        ctx.trap_exits(true);
        ctx.link(from);
        ctx.monitor(from);
    });
    let to = receiver.pid;
    settle().await;

    sender.order(move |ctx| {
        for number in 0..2000 {
            ctx.runtime().send(to, Number(number));
        }
    });
    sender.end(ExitReason::Normal);

    for number in 0..2000 {
        assert_eq!(receiver.next().await, Got::Number(number));
    }
    let mut links = 0;
    for _ in 0..2 {
        match receiver.next().await {
            Got::Down(down) => assert_eq!(down.reason, ExitReason::Normal),
            Got::LinkDown(LinkDown { reason, .. }) => {
                assert_eq!(reason, ExitReason::Normal);
                links += 1;
            }
            got => panic!("{got:?}"),
        }
    }
    assert_eq!(links, 1);
}

async fn sg_5_what_a_server_sent_before_its_reply_has_come_when_the_call_returns(place: Place) {
    let there = place.there.clone();
    let client = run_on(&place.here, move |mut ctx| async move {
        let me = ctx.pid();
        let server = async move |mut ctx: purlin::RawContext| {
            while let Received::Message(message) = ctx.receive().await? {
                let Ok(Ok((Number(number), answer))) = message.take::<Number>() else { break };
                ctx.runtime().send(me, Number(number));
                answer.send(number);
            }
            Ok(())
        };
        let server = there.runtime().spawn_raw(&SERVER, server).unwrap();
        for number in 0..500 {
            assert_eq!(ctx.runtime().call(server, Number(number)).await, Ok(number));
            assert_eq!(take_now(&mut ctx).await, Some(Got::Number(number)));
        }
    });

    client.await;
}

async fn sg_6_a_message_to_the_dead_is_dropped_and_counted(place: Place) {
    let dead = Hand::start(&place.there);
    place.there.exit(dead.pid, ExitReason::Kill);
    until("its end", || !dead.is_alive()).await;
    settle().await;
    let before = count(&place.there, "dropped.no_process");
    let mut sender = Hand::start(&place.here);

    let pid = dead.pid;
    sender.does(move |ctx| ctx.runtime().send(pid, Number(1))).await;

    let after = || count(&place.there, "dropped.no_process");
    until("the count", || after() == before + 1).await;
    assert!(sender.is_quiet().await && sender.is_alive());
}

async fn sg_8_a_message_to_an_unreachable_node_is_dropped_and_counted(place: Place) {
    let mut sender = Hand::start(&place.here);
    let before = count(&place.here, "dropped.no_connection");

    sender
        .does(|ctx| {
            ctx.runtime().send("somebody@nowhere", Number(1));
            ctx.runtime().send(NodeId::new("nowhere".into(), 7).pid(3), Number(2));
        })
        .await;

    assert_eq!(count(&place.here, "dropped.no_connection"), before + 2);
    assert!(sender.is_quiet().await && sender.is_alive());
}

async fn sg_9_nothing_is_lost_while_the_connection_lasts(place: Place) {
    let mut receiver = Hand::start(&place.there);
    let to = receiver.pid;
    let sender = run_on(&place.here, move |ctx| async move {
        for number in 0..300 {
            ctx.runtime().send(to, Number(number));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });

    let outage = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        place.cut();
        tokio::time::sleep(Duration::from_secs(1)).await;
        place.heal();
    };
    tokio::join!(sender, outage);

    for number in 0..300 {
        assert_eq!(receiver.next().await, Got::Number(number));
    }
}

async fn sg_9_messages_are_lost_only_where_the_node_was_down(place: Place) {
    let mut receiver = Hand::named(&place.there, "receiver");
    receiver.does(|ctx| ctx.monitor_nodes()).await;
    let there = place.there.id().name;
    let sender = run_on(&place.here, move |ctx| async move {
        for number in 0..3000 {
            let to = Dest::Remote(Name::new("receiver").unwrap(), there);
            ctx.runtime().send(to, Number(number));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });

    let outage = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        place.cut();
        until_sees(&place.here, 1).await;
        until_sees(&place.there, 1).await;
        place.heal();
        place.cluster.until_all_see(2).await;
    };
    tokio::join!(sender, outage);
    settle().await;

    let mut next = 0;
    let (mut downs, mut gaps) = (0, 0);
    for got in receiver.rest() {
        match got {
            Got::Number(number) if number == next => next += 1,
            Got::Number(number) => {
                assert!(number > next, "{number} after {next}: doubled or out of order");
                assert_eq!(downs, 1, "a gap before {number}, and the node was not down");
                gaps += 1;
                next = number + 1;
            }
            Got::Node(NodeEvent::Down { .. }) => downs += 1,
            Got::Node(NodeEvent::Up { .. }) => {}
            got => panic!("{got:?}"),
        }
    }
    assert_eq!((downs, gaps, next), (1, 1, 3000));
}

async fn sg_10_pids_of_a_former_life_are_dead(mut place: Place) {
    let old = Hand::start(&place.there).pid;
    let (address, name) = (place.there.address(), place.there.id().name);
    settle().await;
    place.cluster.network.kill(address);
    until_sees(&place.here, 1).await;
    place.cluster.nodes.truncate(1);
    let there = place.cluster.join_at(name.as_str(), address, kinds).await;
    place.cluster.until_all_see(2).await;
    let mut same_serial = Hand::start(&there);
    while same_serial.pid.serial < old.serial {
        same_serial = Hand::start(&there);
    }
    assert_eq!((same_serial.pid.serial, same_serial.pid.node.name), (old.serial, old.node.name));

    let mut actor = Hand::trapping(&place.here);
    actor
        .does(move |ctx| {
            ctx.runtime().send(old, Number(1));
            ctx.runtime().exit(old, other("old"));
            ctx.monitor(old);
            ctx.link(old);
        })
        .await;

    assert_eq!(actor.down().await.reason, ExitReason::NoProcess);
    let reason = ExitReason::NoProcess;
    assert_eq!(actor.link_down().await, LinkDown { pid: old, reason });
    assert!(same_serial.is_quiet().await && same_serial.is_alive());
}

const LARGE: usize = 8 << 20;

async fn sg_12_a_large_message_does_not_delay_a_small_one_of_another(place: Place) {
    let mut receiver = Hand::start(&place.there);
    let to = receiver.pid;
    let quick = Hand::start(&place.here);
    let (tell, told) = tokio::sync::oneshot::channel();
    let slow = run_on(&place.here, move |ctx| async move {
        ctx.runtime().send(to, Bulk(vec![7; LARGE]));
        tell.send(()).unwrap();
        ctx.runtime().send_wait(to, Number(2)).await;
    });
    let overtake = async {
        told.await.unwrap();
        quick.does(move |ctx| ctx.runtime().send(to, Number(1))).await;
        receiver.next().await
    };

    let ((), first) = tokio::join!(slow, overtake);

    assert_eq!(first, Got::Number(1), "another's message overtakes");
    assert_eq!(receiver.next().await, Got::Bulk(LARGE));
    assert_eq!(receiver.next().await, Got::Number(2), "its own does not");
}

async fn sg_13_a_large_message_of_a_killed_sender_arrives_whole_or_not_at_all(place: Place) {
    let sender = Hand::start(&place.here);
    let from = sender.pid;
    let mut receiver = Hand::begin(&place.there, watching(from));
    let to = receiver.pid;
    settle().await;

    sender.does(move |ctx| ctx.runtime().send(to, Bulk(vec![7; LARGE]))).await;
    place.here.exit(from, ExitReason::Kill);

    assert_eq!(receiver.next().await, Got::Bulk(LARGE), "it was sent before the death");
    assert_eq!(receiver.down().await.reason, ExitReason::Killed);
}

async fn sg_14_signals_are_not_lost_on_a_congested_connection(place: Place) {
    let busy = Hand::start(&place.there);
    let [target, unlinked, unwatched] = [(); 3].map(|()| Hand::start(&place.there).pid);
    let mut sender = Hand::trapping(&place.here);
    let reference = sender
        .does(move |ctx| {
            ctx.link(unlinked);
            ctx.monitor(unwatched)
        })
        .await;
    settle().await;

    place.cut();
    let to = busy.pid;
    let full = || count(&place.here, "dropped.link_full");
    while full() == 0 {
        sender.does(move |ctx| ctx.runtime().send(to, Bulk(vec![7; 1 << 20]))).await;
    }
    sender
        .does(move |ctx| {
            ctx.unlink(unlinked);
            ctx.demonitor(reference);
            ctx.monitor(target);
            ctx.runtime().exit(target, other("through"));
            ctx.runtime().exit(unlinked, ExitReason::Kill);
            ctx.runtime().exit(unwatched, ExitReason::Kill);
        })
        .await;
    place.heal();

    assert_eq!(sender.down().await.reason, other("through"));
    assert!(sender.is_quiet().await);
    assert!([unlinked, unwatched].iter().all(|pid| !place.there.runtime().is_alive(*pid)));
}

async fn sg_14_notices_find_room_in_a_full_mailbox(place: Place) {
    const LIMIT: u64 = 100_000;
    let target = Hand::start(&place.there).pid;
    let full = || count(&place.there, "dropped.mailbox_full");
    let before = full();
    let (tell, told) = tokio::sync::oneshot::channel();
    let (wake, woken) = tokio::sync::oneshot::channel();
    let sleeper = run_on(&place.there, move |mut ctx| async move {
        ctx.monitor(target);
        tell.send(ctx.pid()).unwrap();
        woken.await.unwrap();
        let mut messages = 0;
        loop {
            match ctx.receive().await.unwrap() {
                Received::Message(_) => messages += 1,
                Received::Down(down) => return (messages, down.reason),
                received => panic!("{received:?}"),
            }
        }
    });
    let flood = async {
        let to = told.await.unwrap();
        while full() == before {
            place.there.send(to, Number(0));
        }
        let sender = Hand::start(&place.here);
        sender.does(move |ctx| ctx.runtime().send(to, Number(1))).await;
        sender.does(move |ctx| ctx.runtime().exit(target, other("heard"))).await;
        settle().await;
        wake.send(()).unwrap();
    };

    let (heard, ()) = tokio::join!(sleeper, flood);

    assert_eq!(heard, (LIMIT, other("heard")));
    assert_eq!(full(), before + 2, "what did not fit is counted");
}

async fn sg_16_a_kill_needs_no_receive(place: Place) {
    let (tell, told) = tokio::sync::oneshot::channel::<Pid>();
    let there = place.there.clone();
    let waits = tokio::spawn(async move {
        run_on(&there, |ctx| async move {
            tell.send(ctx.pid()).unwrap();
            std::future::pending::<()>().await;
        })
        .await;
    });
    let pid = told.await.unwrap();
    let end = end_of(&place.here, pid);
    settle().await;

    place.here.exit(pid, ExitReason::Kill);

    assert_eq!(end.await, ExitReason::Killed);
    assert!(waits.await.is_err(), "it has not come to its end by itself");
}

async fn sg_17_who_was_killed_is_not_alive(place: Place) {
    for _ in 0..1000 {
        let target = Hand::start(&place.there);
        place.here.exit(target.pid, ExitReason::Kill);
        assert!(!target.is_alive());
    }
}

async fn sg_17_who_was_killed_answers_no_call_of_the_killer(place: Place) {
    let targets: Vec<_> = (0..1000).map(|_| Hand::start(&place.there)).collect();
    let pids: Vec<_> = targets.iter().map(|target| target.pid).collect();

    let replies = run_on(&place.here, move |ctx| async move {
        let mut replies = Vec::new();
        for pid in pids {
            ctx.runtime().exit(pid, ExitReason::Kill);
            replies.push(ctx.runtime().call(pid, Number(1)).await);
        }
        replies
    })
    .await;

    let gone = |reply: &Result<u64, CallError>| {
        matches!(reply, Err(CallError::NoProcess | CallError::Exited(ExitReason::Killed)))
    };
    assert!(replies.iter().all(gone), "{replies:?}");
}

async fn sg_18_the_name_is_free_when_the_notices_arrive(place: Place) {
    let name = Name::new("worker").unwrap();
    let mut watcher = Hand::trapping(&place.here);
    for round in 0..1000 {
        let target = Hand::named(&place.there, "worker");
        let pid = target.pid;
        watcher
            .does(move |ctx| {
                match round % 2 {
                    0 => ctx.link(pid),
                    _ => drop(ctx.monitor(pid)),
                }
                ctx.runtime().exit(pid, ExitReason::Kill);
            })
            .await;

        let got = watcher.next().await;

        assert!(matches!(got, Got::LinkDown(_) | Got::Down(_)), "{got:?}");
        assert_eq!(place.there.runtime().whereis(&name), None);
    }
}

async fn sg_20_receiving_can_poll_and_can_wait_so_long(place: Place) {
    let (empty, full, waited) = run_on(&place.here, |mut ctx| async move {
        let empty = timeout(Duration::ZERO, ctx.receive()).await.is_err();
        ctx.runtime().send(ctx.pid(), Number(1));
        let full = timeout(Duration::ZERO, ctx.receive()).await.is_ok();
        let begun = Instant::now();
        assert!(timeout(Duration::from_millis(70), ctx.receive()).await.is_err());
        (empty, full, begun.elapsed())
    })
    .await;

    assert!(empty && full);
    assert!(waited >= Duration::from_millis(70), "{waited:?}");
}

async fn sg_22_messages_to_oneself_arrive_in_order(place: Place) {
    let numbers = run_on(&place.here, |mut ctx| async move {
        let me = [Dest::Pid(ctx.pid()), Dest::Remote("me".into(), ctx.runtime().name())];
        ctx.runtime().register("me".into(), ctx.pid()).unwrap();
        for number in 0..1000 {
            ctx.runtime().send(me[usize::from(number % 2 == 0)].clone(), Number(number));
        }
        let mut numbers = Vec::new();
        for _ in 0..1000 {
            numbers.push(Got::from(ctx.receive().await.unwrap()));
        }
        numbers
    })
    .await;

    assert!(numbers.into_iter().eq((0..1000).map(Got::Number)));
}

places! {
    both {
        sg_1_messages_of_one_sender_arrive_in_order
        sg_2_an_exit_is_ordered_with_the_messages_around_it
        sg_4_order_holds_by_pid_and_by_name_and_the_downs_come_last
        sg_5_all_that_was_sent_before_dying_arrives_before_the_notices
        sg_5_what_a_server_sent_before_its_reply_has_come_when_the_call_returns
        sg_6_a_message_to_the_dead_is_dropped_and_counted
        sg_8_a_message_to_an_unreachable_node_is_dropped_and_counted
        sg_13_a_large_message_of_a_killed_sender_arrives_whole_or_not_at_all
        sg_14_notices_find_room_in_a_full_mailbox
        sg_16_a_kill_needs_no_receive
        sg_17_who_was_killed_answers_no_call_of_the_killer
        sg_18_the_name_is_free_when_the_notices_arrive
    }
    local {
        sg_17_who_was_killed_is_not_alive
        sg_20_receiving_can_poll_and_can_wait_so_long
        sg_22_messages_to_oneself_arrive_in_order
    }
    remote {
        sg_9_nothing_is_lost_while_the_connection_lasts
        sg_9_messages_are_lost_only_where_the_node_was_down
        sg_10_pids_of_a_former_life_are_dead
        sg_12_a_large_message_does_not_delay_a_small_one_of_another
        sg_14_signals_are_not_lost_on_a_congested_connection
    }
    local_on_threads {
        sg_1_messages_of_one_sender_arrive_in_order
        sg_2_an_exit_is_ordered_with_the_messages_around_it
        sg_5_all_that_was_sent_before_dying_arrives_before_the_notices
        sg_5_what_a_server_sent_before_its_reply_has_come_when_the_call_returns
        sg_17_who_was_killed_answers_no_call_of_the_killer
        sg_18_the_name_is_free_when_the_notices_arrive
        sg_17_who_was_killed_is_not_alive
    }
    remote_on_threads {
        sg_1_messages_of_one_sender_arrive_in_order
        sg_2_an_exit_is_ordered_with_the_messages_around_it
        sg_5_all_that_was_sent_before_dying_arrives_before_the_notices
        sg_5_what_a_server_sent_before_its_reply_has_come_when_the_call_returns
        sg_17_who_was_killed_answers_no_call_of_the_killer
        sg_18_the_name_is_free_when_the_notices_arrive
    }
}
