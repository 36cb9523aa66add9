//! Groups, topics and global names, with what nodes say of their processes handed over by the test.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use purlin_proto::limits::OWNED_ENTRIES;
use purlin_proto::{EntryKey, EntryValue, Target};
use purlin_runtime::{
    Actor, Config, Context, Dest, EntryError, Group, GroupEvent, Handler, Mailbox, Message, Name,
    NameConflict, NodeId, NodeName, Outcome, Pid, RawKind, Received, Resolver, Runtime, WhenFull,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::wire::{Hand, Pair};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct News(u32);

impl Message for News {
    const NAME: &'static str = "paper.news";
    type Reply = ();
}

/// A node hears what another one has to say.
fn tell(from: &Runtime, to: &Runtime) {
    to.entries_changed(from.id(), from.take_entries());
}

fn counter(runtime: &Runtime, name: &str) -> u64 {
    runtime.counters().snapshot().into_iter().find(|c| c.name == name).unwrap().count
}

async fn read(hand: &mut Hand) -> Vec<u32> {
    let rest = hand.rest().await.into_iter();
    let number = |received| match received {
        Received::Message(message) => message.take::<News>().unwrap().unwrap().0.0,
        other => panic!("{other:?}"),
    };
    rest.map(number).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_one_frame_for_each_node_however_many_want_it() {
    let pair = Pair::new();
    let mut readers = Hand::many(&pair.b, 100);
    readers.extend(Hand::many(&pair.a, 1));
    for hand in &readers {
        let node = if hand.pid.node == pair.a.id() { &pair.a } else { &pair.b };
        node.subscribe("news", hand.pid).unwrap();
    }
    tell(&pair.b, &pair.a);
    let publisher = Hand::start(&pair.a);

    publisher
        .does(|ctx| {
            for number in 0..20 {
                ctx.runtime().publish("news", News(number));
            }
        })
        .await;

    let sent = pair.sent_by(&pair.a);
    assert_eq!(sent.len(), 20);
    for (flow, envelope) in sent {
        let topic = Target::Topic("news".into());
        assert_eq!((flow, envelope.to), (publisher.pid.serial, topic), "by the publisher's flow");
    }
    pair.settle().await;
    for reader in &mut readers {
        assert_eq!(read(reader).await, (0..20).collect::<Vec<_>>());
    }
    // Nobody wants it any more, and the other node does not know yet: it is nobody's loss.
    pair.b.shutdown(std::time::Duration::ZERO).await;
    pair.a.publish("news", News(20));
    assert_eq!(pair.deliver(&pair.a), 1);
    assert_eq!(counter(&pair.b, "dropped.no_process"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_loses_by_its_mailbox_s_policy_and_nobody_else_does() {
    static SLOW: RawKind = RawKind::new("slow").mailbox(Mailbox::bounded(5, WhenFull::DropOldest));
    let pair = Pair::new();
    let mut quick = Hand::start(&pair.b);
    let (tell_last, last) = oneshot::channel();
    let (wake, woken) = oneshot::channel::<()>();
    let slow = pair.b.spawn_raw(&SLOW, |mut ctx| async move {
        let _ = woken.await;
        let mut numbers = Vec::new();
        while numbers.last() != Some(&19) {
            if let Received::Message(message) = ctx.receive().await? {
                numbers.push(message.take::<News>().unwrap().unwrap().0.0);
            }
        }
        let _ = tell_last.send(numbers);
        Ok(())
    });
    for pid in [quick.pid, slow.unwrap()] {
        pair.b.subscribe("news", pid).unwrap();
    }
    tell(&pair.b, &pair.a);

    for number in 0..20 {
        pair.a.publish("news", News(number));
        pair.settle().await;
    }

    assert_eq!(read(&mut quick).await, (0..20).collect::<Vec<_>>());
    wake.send(()).unwrap();
    assert_eq!(last.await.unwrap(), [15, 16, 17, 18, 19]);
    assert_eq!(counter(&pair.b, "dropped.mailbox_full"), 15);
}

#[tokio::test(start_paused = true)]
async fn a_group_on_another_node_costs_one_frame_too() {
    let pair = Pair::new();
    let mut members = Hand::many(&pair.b, 50);
    members.extend(Hand::many(&pair.a, 2));
    for hand in &members {
        let node = if hand.pid.node == pair.a.id() { &pair.a } else { &pair.b };
        node.join("readers", hand.pid).unwrap();
    }
    tell(&pair.b, &pair.a);

    pair.a.send(Dest::group("readers"), News(7));

    assert_eq!(pair.sent_by(&pair.a).len(), 1);
    pair.settle().await;
    for member in &mut members {
        assert_eq!(read(member).await, [7]);
    }
    pair.a.send(Dest::group("nobody"), News(7));
    assert_eq!(counter(&pair.a, "dropped.no_process"), 1);
}

#[tokio::test(start_paused = true)]
async fn who_watches_slowly_is_told_the_sum_of_what_has_happened() {
    static SLOW: RawKind = RawKind::new("slow");
    let runtime = Runtime::local("a".into());
    let (tell_event, mut events) = mpsc::unbounded_channel();
    let (wake, woken) = oneshot::channel::<()>();
    let watcher = runtime.spawn_raw(&SLOW, |mut ctx| {
        let (reference, members) = ctx.monitor_group("workers");
        assert_eq!(members, []);
        async move {
            let _ = woken.await;
            ctx.receive().await.map(|received| tell_event.send((reference, received)))?.unwrap();
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let watcher = watcher.unwrap();
    tokio::task::yield_now().await;
    let stays = Hand::start(&runtime).pid;
    for _ in 0..1_000 {
        let hand = Hand::start(&runtime);
        runtime.join("workers", hand.pid).unwrap();
        runtime.leave("workers", hand.pid);
    }
    runtime.join("workers", stays).unwrap();
    runtime.join("workers", stays).unwrap();

    let mailbox = runtime.process_detail(&watcher.into()).unwrap().mailbox;
    assert_eq!(mailbox, 1);
    wake.send(()).unwrap();
    let (expected, received) = events.recv().await.unwrap();
    let Received::Group(GroupEvent { reference, group, joined, left }) = received else {
        panic!("{received:?}")
    };
    assert_eq!((reference, group), (expected, Group::new("workers")));
    assert_eq!((joined, left), (vec![stays, stays], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_is_taken_back_says_nothing_more() {
    let runtime = Runtime::local("a".into());
    let mut hand = Hand::start(&runtime);
    let other = Hand::start(&runtime).pid;

    let (joins, first) = (runtime.clone(), hand.pid);
    hand.does(move |ctx| {
        let (reference, _) = ctx.monitor_group("workers");
        joins.join("workers", first).unwrap();
        assert!(ctx.demonitor_group(reference), "with a notice in the mailbox");
        assert!(!ctx.demonitor_group(reference));
    })
    .await;
    runtime.join("workers", other).unwrap();

    assert!(hand.rest().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_dead_join_nothing_and_nobody_says_more_than_a_node_may() {
    let pair = Pair::new();
    let hand = Hand::start(&pair.a);
    let pid = hand.pid;
    assert_eq!(pair.b.join("workers", pid), Err(EntryError::NoProcess), "not its node");
    for number in 0..OWNED_ENTRIES - 1 {
        pair.a.join(Group::new(Name::new(&number.to_string()).unwrap()), pid).unwrap();
    }
    pair.a.subscribe("news", pid).unwrap();

    assert_eq!(pair.a.join("one-more", pid), Err(EntryError::Full));
    assert_eq!(pair.a.subscribe("one-more", pid), Err(EntryError::Full));
    assert_eq!(pair.a.register_global_available("one-more", pid), Err(EntryError::Full.into()));
    assert_eq!(pair.a.join("0", pid), Ok(()), "once more is no entry more");
    assert!(pair.a.leave("1", pid));
    assert_eq!(pair.a.join("one-more", pid), Ok(()));

    pair.a.exit(pid, purlin_runtime::ExitReason::Kill);
    pair.a.down(pid).await;
    assert_eq!(pair.a.join("workers", pid), Err(EntryError::NoProcess));
    assert_eq!((pair.a.groups(), pair.a.topics()), (vec![], vec![]));
    let gone = pair.a.take_entries();
    assert!(gone.len() > OWNED_ENTRIES && gone.iter().all(|(_, value)| value.is_none()));
}

#[tokio::test(start_paused = true)]
async fn values_that_make_no_sense_are_passed_over() {
    let pair = Pair::new();
    let key = |text: &str| EntryKey::Member(Group::new(Name::new(text).unwrap()), 5);
    let changes = vec![
        (key("odd"), Some(EntryValue::Wanted)),
        (EntryKey::Global("odd".into()), Some(EntryValue::Joined(1))),
        (key("good"), Some(EntryValue::Joined(2))),
    ];

    pair.a.entries_changed(pair.b.id(), changes);

    assert_eq!(pair.a.groups(), [Group::new("good")]);
    assert_eq!(pair.a.members_of("good"), [pair.b.id().pid(5); 2]);
    assert_eq!(pair.a.global_infos(None), []);
}

/// An actor with a handler for everything that groups and names have to say.
struct Watcher(mpsc::UnboundedSender<String>);

thread_local! {
    static OUT: std::cell::RefCell<Option<mpsc::UnboundedSender<String>>> =
        const { std::cell::RefCell::new(None) };
}

impl Actor for Watcher {
    const KIND: &'static str = "watcher";
    type Args = ();
    type Messages = (News,);

    async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
        let out = OUT.with(|out| out.borrow().clone()).ok_or("no way out")?;
        let (_, members) = ctx.monitor_group("workers");
        ctx.join("workers")?;
        ctx.subscribe("news")?;
        ctx.register_global_available("watcher")?;
        out.send(format!("{} members", members.len()))?;
        Ok(Self(out))
    }
}

impl Handler<GroupEvent> for Watcher {
    async fn handle(&mut self, event: GroupEvent, _: &mut Context<Self>) -> Outcome {
        self.0.send(format!("{} joined, {} left", event.joined.len(), event.left.len()))?;
        Ok(())
    }
}

impl Handler<NameConflict> for Watcher {
    async fn handle(&mut self, conflict: NameConflict, ctx: &mut Context<Self>) -> Outcome {
        self.0.send(format!("{} lost to {}", conflict.name, conflict.winner.node.name))?;
        ctx.leave("workers");
        Ok(())
    }
}

impl Handler<News> for Watcher {
    async fn handle(&mut self, News(number): News, _: &mut Context<Self>) -> Outcome {
        self.0.send(format!("news {number}"))?;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_handles_it_all_as_typed_messages() {
    let pair = Pair::new();
    let (tell_said, mut said) = mpsc::unbounded_channel();
    OUT.with(|out| *out.borrow_mut() = Some(tell_said));
    let hand = Hand::start(&pair.b);
    pair.b.register_global_available("watcher", hand.pid).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    std::thread::sleep(std::time::Duration::from_millis(5));
    pair.a.spawn::<Watcher>(()).await.unwrap();
    pair.b.publish("news", News(1));
    pair.a.publish("news", News(2));
    tell(&pair.a, &pair.b);
    tell(&pair.b, &pair.a);
    // The node of the older one has decided.
    tell(&pair.b, &pair.a);

    let mut lines = Vec::new();
    for _ in 0..5 {
        lines.push(said.recv().await.unwrap());
    }
    lines.sort();
    let expected =
        ["0 joined, 1 left", "0 members", "1 joined, 0 left", "news 2", "watcher lost to b"];
    assert_eq!(lines, expected);
}

type Changes = Vec<(EntryKey, Option<EntryValue>)>;

/// Nodes with clocks of their own, and what they have said that others have not heard.
struct Names {
    nodes: Vec<Runtime>,
    /// From whom, to whom.
    under_way: Vec<(usize, usize, VecDeque<Changes>)>,
    conflicts: Arc<AtomicU64>,
}

impl Names {
    fn new(count: usize, resolver: &Resolver, chance: &mut StdRng) -> Self {
        static HOLDER: RawKind = RawKind::new("holder");
        let conflicts = Arc::new(AtomicU64::new(0));
        let mut nodes = Vec::new();
        for number in 0..count {
            let name = NodeName::new(&format!("n{number}")).unwrap();
            let mut config = Config::new(NodeId::new(name, 1));
            // Some take the name in the same millisecond.
            let now = chance.random_range(0..3);
            config.wall_ms = Arc::new(move || now);
            config.resolver = resolver.clone();
            let runtime = Runtime::new(config);
            let told = Arc::clone(&conflicts);
            let holder = runtime.spawn_raw(&HOLDER, |mut ctx| async move {
                loop {
                    if let Received::NameConflict(_) = ctx.receive().await? {
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            runtime.register_global_available("hits", holder.unwrap()).unwrap();
            nodes.push(runtime);
        }
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        let under_way = pairs.map(|(from, to)| (from, to, VecDeque::new())).collect();
        Self { nodes, under_way, conflicts }
    }

    /// Has a node say what is new, and somebody hear what was said; whether anything was.
    async fn step(&mut self, chance: &mut StdRng) -> bool {
        tokio::task::yield_now().await;
        let from = chance.random_range(0..self.nodes.len());
        let news = self.nodes[from].take_entries();
        if !news.is_empty() {
            let ways = self.under_way.iter_mut().filter(|(speaker, ..)| *speaker == from);
            ways.for_each(|(.., said)| said.push_back(news.clone()));
        }
        let way = chance.random_range(0..self.under_way.len());
        let (from, to, said) = &mut self.under_way[way];
        let heard = said.pop_front();
        let is_some = heard.is_some();
        if let Some(changes) = heard {
            self.nodes[*to].entries_changed(self.nodes[*from].id(), changes);
        }
        is_some || !news.is_empty()
    }

    fn holders(&self) -> Vec<Option<Pid>> {
        self.nodes.iter().map(|node| node.whereis_global(&"hits".into())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn of_any_number_of_holders_one_is_left_and_all_others_told_once_in_whatever_order() {
    let by_name = Resolver::With(Arc::new(|conflict| {
        let names = (conflict.older.pid.node.name, conflict.newer.pid.node.name);
        if names.0 > names.1 { purlin_runtime::Keep::Older } else { purlin_runtime::Keep::Newer }
    }));
    for resolver in [Resolver::KeepOldest, Resolver::KeepNewest, by_name] {
        for seed in 0..100 {
            let mut chance = StdRng::seed_from_u64(seed);
            let mut names = Names::new(4, &resolver, &mut chance);
            let mut quiet = 0;
            while quiet < 300 {
                quiet = if names.step(&mut chance).await { 0 } else { quiet + 1 };
            }

            let holders = names.holders();
            let winner = holders[0].unwrap();
            assert!(holders.iter().all(|holder| *holder == Some(winner)), "{seed}: {holders:?}");
            assert!(names.nodes.iter().all(|node| node.global_infos(None).len() == 1));
            assert_eq!(names.conflicts.load(Ordering::Relaxed), 3, "{resolver:?} {seed}");
            if let Resolver::With(_) = resolver {
                assert_eq!(winner.node.name.as_str(), "n3");
            }
        }
    }
}
