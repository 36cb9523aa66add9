//! What works with a process on another node: everything that works with one on this.
//!
//! On the network in memory and on paused time.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use bytes::Bytes;
use purlin::kinds::{Add, Counter, Echo, Kv, Read, Say};
use purlin::prelude::*;
use purlin::{Dest, LinkDown, NodeBuilder, NodeEvent, Received, SpawnError, Strategy, zero_copy};
use purlin_cluster_tests::memory::{Cluster, until_sees};
use purlin_cluster_tests::probe::{PROBE, Probe};

fn kinds(builder: NodeBuilder) -> NodeBuilder {
    builder.actor::<Echo>().actor::<Counter>().actor::<Kv>()
}

/// Lets what is on its way arrive.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test(start_paused = true)]
async fn ten_nodes_find_each_other_and_agree_on_the_ring() {
    let cluster = Cluster::start(10, kinds).await;
    settle().await;

    let first = cluster.nodes[0].ring();
    for node in &cluster.nodes {
        assert_eq!(node.ring().digest(), first.digest(), "{}", node.id());
        assert_eq!(node.ring().owner(b"user:42"), first.owner(b"user:42"));
    }
    for node in &cluster.nodes {
        for other in &cluster.nodes {
            let echo = node.spawn_on::<Echo>(&other.id().name, ()).await.unwrap();
            assert_eq!(echo.pid().node, other.id());
            assert_eq!(echo.call(Say("hi".into())).await, Ok("hi".into()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_on_another_node_is_called_by_pid_and_by_name() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let hits = b.runtime().spawn_named::<Counter>("hits", Some(1)).await.unwrap();

    a.send(hits.pid(), Add(4));
    assert_eq!(a.call("hits@n1", Add(5)).await, Ok(10));
    assert_eq!(c.call(hits.pid(), Read).await, Ok(10));
    assert_eq!(c.call("nobody@n1", Read).await, Err(CallError::NoProcess));
    assert_eq!(c.call("hits@n9", Read).await, Err(CallError::NoConnection));
    let misunderstood = c.call("hits@n1", Say("hi".into())).await.unwrap_err();
    assert!(matches!(misunderstood, CallError::NotUnderstood { .. }), "{misunderstood:?}");
}

/// What comes together is read where it lies, one after another.
#[tokio::test(start_paused = true)]
async fn what_is_not_understood_harms_nothing_that_comes_with_it() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let hits = b.runtime().spawn_named::<Counter>("hits", None).await.unwrap();

    for _ in 0..3 {
        a.send(hits.pid(), Say("hi".into()));
        a.send(hits.pid(), Add(1));
        a.send(hits.pid(), Say("hi".into()));
    }
    assert_eq!(a.call(hits.pid(), Read).await, Ok(3));
}

/// Keeps what it is sent.
struct Album(Vec<Bytes>);

#[derive(Serialize, Deserialize)]
struct Photo(#[serde(with = "zero_copy")] Bytes);

impl Message for Photo {
    const NAME: &'static str = "album.photo";
    type Reply = ();
}

#[derive(Serialize, Deserialize)]
struct Show(usize);

impl Message for Show {
    const NAME: &'static str = "album.show";
    type Reply = Photo;
}

impl Actor for Album {
    const KIND: &'static str = "album";
    type Args = ();
    type Messages = (Photo, Show);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self(Vec::new()))
    }
}

impl Handler<Photo> for Album {
    async fn handle(&mut self, Photo(bytes): Photo, _: &mut Context<Self>) -> Outcome {
        self.0.push(bytes);
        Ok(())
    }
}

impl Handler<Show> for Album {
    async fn handle(&mut self, Show(at): Show, _: &mut Context<Self>) -> Outcome<Photo> {
        Ok(Photo(self.0[at].clone()))
    }
}

/// The first of them wait for the dial, and the others find a link; replies share as messages do.
#[tokio::test(start_paused = true)]
async fn bytes_that_are_shared_arrive_whole_and_in_order() {
    let cluster = Cluster::start(2, NodeBuilder::actor::<Album>).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let album = b.runtime().spawn_named::<Album>("album", ()).await.unwrap();
    let photo = |size: usize| Bytes::from((0..=250).cycle().take(size).collect::<Vec<u8>>());
    let photos = [8 << 20, 3, 100_000, 16 << 10, (16 << 10) - 1, 1 << 20].map(photo);

    let album = Ref::<Album>::from_pid(a.runtime(), album.pid());
    for photo in &photos {
        album.send_wait(Photo(photo.clone())).await;
    }
    for (at, photo) in photos.iter().enumerate() {
        assert!(album.call(Show(at)).await.unwrap().0 == photo, "photo {at} is another");
    }
}

#[tokio::test(start_paused = true)]
async fn one_message_goes_to_many_on_every_node() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let mut counters = Vec::new();
    for node in [a, b, c, b, c, b] {
        counters.push(node.spawn::<Counter>(None).await.unwrap());
    }
    b.runtime().spawn_named::<Counter>("hits", None).await.unwrap();
    let all = || counters.iter().map(Dest::from).chain(["hits@n1".into()]);

    a.send_all(all(), Add(3));
    settle().await;
    cluster.cut(a, c);
    cluster.cut(b, c);
    until_sees(a, 2).await;
    a.send_all(all(), Add(4));
    settle().await;

    for (counter, total) in counters.iter().zip([7, 7, 3, 7, 3, 7]) {
        let on = cluster.nodes.iter().find(|node| node.id() == counter.pid().node).unwrap();
        assert_eq!(on.call(counter, Read).await, Ok(total), "{counter:?}");
    }
    assert_eq!(b.call("hits@n1", Read).await, Ok(7));
    let dropped = a.runtime().counters().snapshot().into_iter();
    let dropped: u64 = dropped.filter(|c| c.name == "dropped.no_connection").map(|c| c.count).sum();
    assert_eq!(dropped, 2, "each of those that were cut off");
}

#[tokio::test(start_paused = true)]
async fn spawning_elsewhere_tells_apart_why_it_fails() {
    let cluster = Cluster::start(2, NodeBuilder::actor::<Echo>).await;
    let a = &cluster.nodes[0];

    let unknown = a.spawn_on::<Counter>(&"n1".into(), None).await.unwrap_err();
    let nowhere = a.spawn_on::<Echo>(&"n9".into(), ()).await.unwrap_err();
    let args = purlin::Payload::encode(purlin::Codec::Json, "not unit").unwrap();
    let kind = "echo".parse().unwrap();
    let limit = Duration::from_secs(5);
    let bad = a.runtime().spawn_kind("n1".into(), kind, args, None, limit).await.unwrap_err();

    let (kind, known) = ("counter".to_owned(), vec!["echo".to_owned()]);
    assert_eq!(unknown, SpawnError::UnknownKind { kind, known });
    assert_eq!(nowhere, SpawnError::NoConnection);
    assert!(matches!(bad, SpawnError::Args { .. }), "{bad:?}");
}

#[tokio::test(start_paused = true)]
async fn exits_links_and_monitors_work_across_nodes() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let target = Probe::start(b, |_| {});
    let pid = target.pid;
    let mut linked = Probe::start(a, |ctx| {
        ctx.trap_exits(true);
        ctx.link(pid);
    });
    let mut watcher = Probe::start(a, |ctx| {
        ctx.monitor(pid);
    });
    settle().await;

    a.exit(pid, ExitReason::other("crash"));

    let reason = ExitReason::other("crash");
    assert_eq!(linked.link_down().await, LinkDown { pid, reason: reason.clone() });
    assert_eq!(watcher.down().await.reason, reason);
    assert!(watcher.is_quiet().await && linked.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn an_exit_on_one_node_kills_what_is_linked_on_another() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let target = Probe::start(b, |_| {});
    let pid = target.pid;
    let linked = Probe::start(a, |ctx| ctx.link(pid)).pid;
    settle().await;

    b.exit(pid, ExitReason::Kill);
    settle().await;

    assert!(!a.runtime().is_alive(linked));
}

#[tokio::test(start_paused = true)]
async fn unlink_and_demonitor_work_across_nodes() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let pid = Probe::start(b, |_| {}).pid;
    let mut other = Probe::start(a, |ctx| {
        ctx.trap_exits(true);
        ctx.link(pid);
        ctx.unlink(pid);
        let reference = ctx.monitor(pid);
        assert!(ctx.demonitor(reference));
    });
    settle().await;

    b.exit(pid, ExitReason::Kill);

    assert!(other.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn a_link_made_again_before_the_unlink_is_acknowledged_works() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let pid = Probe::start(b, |_| {}).pid;
    let mut other = Probe::start(a, |ctx| {
        ctx.trap_exits(true);
        ctx.link(pid);
        ctx.unlink(pid);
        ctx.link(pid);
    });
    settle().await;

    b.exit(pid, ExitReason::Kill);

    assert_eq!(other.link_down().await.reason, ExitReason::Killed);
}

#[tokio::test(start_paused = true)]
async fn the_dead_and_the_unknown_elsewhere_give_noproc() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let dead = b.id().pid(999_999);
    let mut watcher = Probe::start(a, |ctx| {
        ctx.trap_exits(true);
        ctx.monitor(dead);
        ctx.monitor("nobody@n1");
        ctx.link(dead);
    });

    let mut targets = Vec::new();
    let mut links = 0;
    for _ in 0..3 {
        match watcher.next().await {
            Received::Down(down) => {
                assert_eq!(down.reason, ExitReason::NoProcess);
                targets.push(down.target);
            }
            Received::LinkDown(link_down) => {
                assert_eq!(link_down.reason, ExitReason::NoProcess);
                links += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((targets, links), (vec![Dest::Pid(dead), Dest::from("nobody@n1")], 1));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_when_the_other_node_is_out_of_reach() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let pid = Probe::start(b, |_| {}).pid;
    let mut watcher = Probe::start(a, |ctx| {
        ctx.trap_exits(true);
        ctx.monitor_nodes();
        ctx.monitor(pid);
        ctx.link(pid);
    });
    settle().await;

    cluster.cut(a, b);
    cluster.cut(c, b);

    let mut notices = Vec::new();
    for _ in 0..3 {
        notices.push(match watcher.next().await {
            Received::Down(down) => format!("down {}", down.reason),
            Received::LinkDown(link_down) => format!("link {}", link_down.reason),
            Received::Node(NodeEvent::Down { node, .. }) => format!("node {}", node.name),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(notices, ["down noconnection", "link noconnection", "node n1"]);
    assert!(watcher.is_quiet().await, "each once");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cut_off_comes_back_under_a_new_creation_and_old_pids_stay_dead() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let counter = b.spawn::<Counter>(Some(7)).await.unwrap();
    let (old_pid, old_id) = (counter.pid(), b.id());
    cluster.cut(a, b);
    cluster.cut(c, b);
    until_sees(a, 2).await;
    until_sees(b, 1).await;

    cluster.heal(a, b);
    cluster.heal(c, b);
    cluster.until_all_see(3).await;
    settle().await;

    assert!(b.id().creation > old_id.creation, "the smaller side comes back");
    assert_eq!(a.call(old_pid, Read).await, Err(CallError::NoProcess));
    let new_pid = b.id().pid(old_pid.serial);
    assert_eq!(a.call(new_pid, Read).await, Ok(7), "the process itself goes on");
    assert_eq!(b.call(old_pid, Read).await, Ok(7), "on its own node the old pid names it");
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_is_noticed_and_its_name_can_be_taken_by_its_next_life() {
    let mut cluster = Cluster::start(3, kinds).await;
    let b = cluster.nodes.remove(1);
    let (address, old) = (b.address(), b.spawn::<Counter>(Some(7)).await.unwrap().pid());
    let mut watcher = Probe::start(&cluster.nodes[0], |ctx| {
        ctx.monitor(old);
    });
    settle().await;

    cluster.network.kill(address);
    drop(b);

    assert_eq!(watcher.down().await.reason, ExitReason::NoConnection);
    cluster.until_all_see(2).await;
    let again = cluster.join_at("n1", address, kinds).await;
    cluster.until_all_see(3).await;
    assert_eq!(cluster.nodes[0].call(old, Read).await, Err(CallError::NoProcess));
    assert!(again.id().creation > old.node.creation);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_leaves_at_once() {
    let cluster = Cluster::start(3, kinds).await;
    let [a, b, _] = &cluster.nodes[..] else { unreachable!() };
    let pid = b.spawn::<Echo>(()).await.unwrap().pid();
    let mut watcher = Probe::start(a, |ctx| {
        ctx.monitor_nodes();
        ctx.monitor(pid);
    });
    settle().await;

    b.stop().await;

    assert_eq!(watcher.down().await.reason, ExitReason::Shutdown, "its processes ended first");
    let Received::Node(NodeEvent::Down { node, left }) = watcher.next().await else {
        panic!("no node event")
    };
    assert_eq!((node, left), (b.id(), true));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_once_when_its_node_is_lost() {
    let cluster = Cluster::start(2, kinds).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let silent = Probe::start(b, |_| {});
    let call = a.runtime().call_timeout(silent.pid, Read, Duration::from_mins(10));
    let cut = async {
        settle().await;
        cluster.cut(a, b);
    };

    let begun = tokio::time::Instant::now();
    let (reply, ()) = tokio::join!(call, cut);

    assert_eq!(reply, Err(CallError::NoConnection));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_is_up_before_any_message_of_it_arrives() {
    let mut cluster = Cluster::start(1, kinds).await;
    for round in 0..10 {
        let name = purlin::Name::new(&format!("probe-{round}")).unwrap();
        let a = cluster.nodes[0].clone();
        let mut probe = Probe::start(&a, |ctx| ctx.monitor_nodes());
        a.runtime().register(name.clone(), probe.pid).unwrap();
        let node = cluster.join(&format!("m{round}"), kinds).await;

        let to = Dest::Remote(name, a.id().name);
        while node.members().len() < cluster.nodes.len() {
            tokio::task::yield_now().await;
            node.send(to.clone(), Read);
        }
        node.send(to, Read);

        assert!(matches!(probe.next().await, Received::Node(NodeEvent::Up { .. })));
        assert!(matches!(probe.next().await, Received::Message(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn applications_start_in_order_and_stop_in_reverse_with_the_node() {
    let mut cluster = Cluster::empty();
    let one = |name: &'static str| {
        let child = ChildSpec::raw(name, &PROBE, move |mut ctx| async move {
            loop {
                ctx.receive().await?;
            }
        });
        Supervisor::new(Strategy::OneForOne).child(child.name(name))
    };
    let node = cluster
        .join("n0", |builder| {
            builder.application("first", one("a")).application("second", one("b"))
        })
        .await;
    let serial = |name: &str| node.runtime().whereis(&name.parse().unwrap()).map(|pid| pid.serial);
    assert!(serial("a") < serial("b") && serial("a").is_some());

    let (a, b) = (node.runtime().down("a"), node.runtime().down("b"));
    let order = async {
        tokio::pin!(a, b);
        tokio::select! {
            biased;
            _ = &mut a => "a first",
            _ = &mut b => "b first",
        }
    };
    let (order, ()) = tokio::join!(order, async {
        tokio::task::yield_now().await;
        node.stop().await;
    });
    assert_eq!(order, "b first");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_gives_up_is_told_to_the_owner_of_the_node() {
    let mut cluster = Cluster::empty();
    let child = ChildSpec::raw("fails", &PROBE, |_| async { Err("no".into()) });
    let root = Supervisor::new(Strategy::OneForOne).child(child);
    let node = cluster.join("n0", |builder| builder.application("it", root.clone())).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), node.application_ended()).await;
    let ended = ended.expect("it ends");
    assert_eq!((ended.name.as_str(), ended.reason), ("it", ExitReason::Shutdown));
}

#[tokio::test(start_paused = true)]
async fn an_application_that_cannot_start_keeps_the_node_from_starting() {
    let mut cluster = Cluster::empty();
    let (address, credentials) =
        (cluster.next_address(), cluster.credentials("n0".into(), purlin::proto::Role::Node));
    let twice = Supervisor::new(Strategy::OneForOne);
    let child = || ChildSpec::raw("same", &PROBE, |_| std::future::pending());
    let refused = Node::builder()
        .name("n0")
        .memory(cluster.network.clone(), address, credentials)
        .application("good", twice.clone().child(child()))
        .application("bad", twice.child(child()).child(child()))
        .start()
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("application bad did not start"), "{refused}");
}
