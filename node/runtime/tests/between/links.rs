//! The end of a process that is linked to many on another node.

use std::time::Duration;

use purlin_proto::{Codec, Envelope, Payload, Reference, Signal, Spawn, Target};
use purlin_runtime::{Actor, Config, Context, ExitReason, LinkDown, NodeId, Outcome, Pid, Runtime};

use crate::leftovers::held;
use crate::wire::{Hand, Pair, count};

fn crash() -> ExitReason {
    ExitReason::other("crash")
}

async fn link(hand: &Hand, to: Pid) {
    hand.does(move |ctx| {
        ctx.trap_exits(true);
        ctx.link(to);
    })
    .await;
}

fn is_link_down(signal: &Signal) -> bool {
    matches!(signal, Signal::LinkDown { .. })
}

#[tokio::test(start_paused = true)]
async fn all_that_are_linked_on_a_node_are_told_by_one_frame() {
    let pair = Pair::new();
    let (ends, mut here) = (Hand::start(&pair.b), Hand::start(&pair.b));
    let mut there = Hand::many(&pair.a, 1_000);
    for hand in &there {
        link(hand, ends.pid).await;
    }
    link(&here, ends.pid).await;
    pair.settle().await;

    ends.end(crash()).await;

    assert_eq!(count(&pair.sent_by(&pair.b), is_link_down), 1);
    pair.settle().await;
    let told = LinkDown { pid: ends.pid, reason: crash() };
    for hand in there.iter_mut().chain([&mut here]) {
        assert_eq!(hand.link_downs().await, std::slice::from_ref(&told));
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_being_taken_back_is_not_told_whatever_crosses() {
    let pair = Pair::new();
    let (ends, mut hands) = (Hand::start(&pair.b), Hand::many(&pair.a, 4));
    for hand in &hands {
        link(hand, ends.pid).await;
    }
    pair.settle().await;

    // The first has its unlink on its way; the second has been unlinked from over there; the third
    // has unlinked and linked again.
    let [target, second] = [ends.pid, hands[1].pid];
    hands[0].does(move |ctx| ctx.unlink(target)).await;
    ends.does(move |ctx| ctx.unlink(second)).await;
    hands[2].does(move |ctx| ctx.unlink(target)).await;
    hands[2].does(move |ctx| ctx.link(target)).await;
    ends.end(crash()).await;
    let sent = pair.sent_by(&pair.b);
    pair.settle().await;

    let downs: Vec<_> = sent.iter().filter(|(_, e)| is_link_down(&e.signal)).collect();
    let [(flow, envelope)] = downs[..] else { panic!("{downs:?}") };
    let Target::Many(to) = &envelope.to else { panic!("{envelope:?}") };
    let linked = [&hands[0], &hands[2], &hands[3]].map(|hand| hand.pid.serial);
    assert_eq!((*flow, to.iter().collect::<Vec<_>>()), (ends.pid.serial, linked.to_vec()));
    let down = |reason| LinkDown { pid: ends.pid, reason };
    assert_eq!(hands[0].link_downs().await, [], "its unlink came first, to it");
    assert_eq!(hands[1].link_downs().await, [], "it was unlinked");
    assert_eq!(hands[2].link_downs().await, [down(ExitReason::NoProcess)], "of the second link");
    assert_eq!(hands[3].link_downs().await, [down(crash())]);
}

#[tokio::test(start_paused = true)]
async fn what_a_process_sent_before_it_ended_comes_before_its_links_end() {
    let pair = Pair::new();
    let (ends, mut hands) = (Hand::start(&pair.b), Hand::many(&pair.a, 2));
    for hand in &hands {
        link(hand, ends.pid).await;
    }
    pair.settle().await;

    let to = hands.iter().map(|hand| hand.pid).collect::<Vec<_>>();
    ends.does(move |ctx| {
        for pid in to {
            ctx.runtime().exit(pid, ExitReason::other("first"));
        }
    })
    .await;
    ends.end(crash()).await;
    pair.settle().await;

    for hand in &mut hands {
        let rest = hand.rest().await;
        let [purlin_runtime::Received::Exit { .. }, purlin_runtime::Received::LinkDown(_)] =
            rest[..]
        else {
            panic!("{rest:?}")
        };
    }
}

struct Idle;

impl Actor for Idle {
    const KIND: &'static str = "idle";
    type Args = ();
    type Messages = ();

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

/// The simulator found it (seeds 171 and 1110): the arguments are decoded and the process is made by
/// a task, which may run after the connection's end has been told to all that were linked across it.
#[tokio::test(start_paused = true)]
async fn a_process_that_is_started_linked_to_a_node_that_is_lost_meanwhile_ends() {
    let (a, b) = (NodeId::new("a".into(), 1), NodeId::new("b".into(), 1));
    let mut config = Config::new(b);
    config.kinds = config.kinds.with::<Idle>();
    let runtime = Runtime::new(config);
    let spawn = Spawn {
        reference: Reference(1),
        kind: "idle".into(),
        args: Payload::encode(Codec::Bincode, &()).unwrap(),
        name: None,
        link: true,
        monitor: None,
        remaining: Duration::from_secs(5),
    };

    for lost in [false, true] {
        let envelope = Envelope { to: Target::Node, from: 7, signal: Signal::Spawn(spawn.clone()) };
        runtime.inbound(a).envelope(envelope).unwrap();
        if lost {
            runtime.connection_lost(a.name);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;

        assert_eq!(runtime.processes_after(0).len(), usize::from(!lost));
        assert_eq!(held(&runtime, "processes.related"), usize::from(!lost));
        runtime.connection_lost(a.name);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(runtime.processes_after(0).len(), 0);
    }
}
