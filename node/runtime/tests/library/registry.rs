//! Registries.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use purlin_runtime::{
    Actor, CallError, Context, ExitReason, Handler, Message, Outcome, Pid, Received, Registry,
    RegistryError, RegistryEvent, SpawnError, StartError, UpdateError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{PROBE, at_down_of, end_of, idle, idle_pid, runtime, until, within};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Say(String);
impl Message for Say {
    const NAME: &'static str = "room.say";
    type Reply = String;
}

/// A process that says what is said.
struct Room;

impl Actor for Room {
    const KIND: &'static str = "room";
    type Args = bool;
    type Messages = (Say,);

    async fn start(well: bool, _: &mut Context<Self>) -> Outcome<Self> {
        // Others get a chance to start the same room.
        tokio::task::yield_now().await;
        if well { Ok(Self) } else { Err("will not start".into()) }
    }
}

impl Handler<Say> for Room {
    async fn handle(&mut self, Say(text): Say, _: &mut Context<Self>) -> Outcome<String> {
        Ok(text)
    }
}

#[tokio::test]
async fn a_key_of_a_unique_registry_has_one_holder() {
    let runtime = runtime();
    let (first, second) = (idle_pid(&runtime), idle_pid(&runtime));
    let rooms = Registry::unique(&runtime);
    rooms.register(first, "hall", 1).unwrap();

    let taken = Err(RegistryError::AlreadyRegistered { holder: first });
    assert_eq!(rooms.register(second, "hall", 2), taken);
    assert_eq!(rooms.register(first, "hall", 3), taken, "not by itself either");

    assert_eq!(rooms.lookup(&"hall"), [(first, 1)]);
    assert!(!rooms.unregister(second, &"hall"), "not its own");
    assert!(rooms.unregister(first, &"hall") && !rooms.unregister(first, &"hall"));
    assert_eq!((rooms.whereis(&"hall"), rooms.count()), (None, 0));
    rooms.register(second, "hall", 4).unwrap();
    assert_eq!((rooms.values(second, &"hall"), rooms.keys(second)), (vec![4], vec!["hall"]));
}

#[tokio::test]
async fn a_duplicate_registry_keeps_many_entries_of_a_key_also_of_one_process() {
    let runtime = runtime();
    let (first, second) = (idle_pid(&runtime), idle_pid(&runtime));
    let topics = Registry::duplicate(&runtime);
    for (pid, topic, value) in [
        (second, "news", 1),
        (first, "news", 2),
        (second, "news", 3),
        (second, "news", 4),
        (second, "sport", 5),
    ] {
        topics.register(pid, topic, value).unwrap();
    }

    assert_eq!(topics.lookup(&"news"), [(first, 2), (second, 1), (second, 3), (second, 4)]);
    assert_eq!(topics.values(second, &"news"), [1, 3, 4]);
    let mut keys = topics.keys(second);
    keys.sort_unstable();
    assert_eq!(keys, ["news", "news", "news", "sport"]);
    assert_eq!((topics.whereis(&"news"), topics.count()), (Some(first), 5));

    assert!(topics.unregister(second, &"news"), "all three");
    assert_eq!((topics.lookup(&"news"), topics.count()), (vec![(first, 2)], 2));
    assert!(topics.unregister(first, &"news"));
    assert_eq!((topics.lookup(&"news"), topics.count()), (vec![], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entry_is_gone_when_the_down_arrives() {
    let runtime = runtime();
    let (rooms, topics) = (Registry::unique(&runtime), Registry::duplicate(&runtime));
    for round in 0..500 {
        let pid = idle_pid(&runtime);
        rooms.register(pid, 7, ()).unwrap();
        topics.register(pid, 7, ()).unwrap();
        topics.register(pid, 7, ()).unwrap();
        let (seen, heard) = (rooms.clone(), topics.clone());
        // Now and then the monitor is made while the process is ending.
        if round % 2 == 0 {
            runtime.exit(pid, ExitReason::Kill);
        }
        let look = move || (seen.whereis(&7), heard.lookup(&7).len(), heard.keys(pid).len());
        let down = at_down_of(&runtime, pid, look);

        runtime.exit(pid, ExitReason::Kill);

        assert_eq!(down.await.1, (None, 0, 0), "in round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_entries_are_gone_for_a_monitor_that_is_made_while_they_go() {
    /// Has its process monitored in the midst of the cleaning up, and leaves time for the `Down`.
    #[derive(Clone)]
    struct Meddler(Arc<dyn Fn() + Send + Sync>);
    impl Drop for Meddler {
        fn drop(&mut self) {
            let meddle = Arc::clone(&self.0);
            // From another thread, so that the watcher does not wait for this one.
            std::thread::spawn(move || meddle()).join().unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let runtime = runtime();
    let (meddlers, rooms) = (Registry::unique(&runtime), Registry::unique(&runtime));
    let pid = idle_pid(&runtime);
    let (tell, mut told) = mpsc::unbounded_channel();
    let (node, seen) = (runtime.clone(), rooms.clone());
    let meddle = move || {
        let (seen, tell) = (seen.clone(), tell.clone());
        drop(at_down_of(&node, pid, move || tell.send(seen.whereis(&1))));
    };
    meddlers.register(pid, 1, Meddler(Arc::new(meddle))).unwrap();
    rooms.register(pid, 1, ()).unwrap();

    runtime.exit(pid, ExitReason::Kill);

    assert_eq!(within("a down", told.recv()).await, Some(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_registered_while_it_ends_leaves_no_entry() {
    let runtime = runtime();
    let rooms = Registry::duplicate(&runtime);
    for _ in 0..300 {
        let pid = idle_pid(&runtime);
        let (others, began) = (rooms.clone(), Instant::now());
        let registrar = tokio::task::spawn_blocking(move || {
            while others.register(pid, 1, ()).is_ok() {
                assert!(began.elapsed() < Duration::from_secs(5), "still registered");
            }
        });
        let seen = rooms.clone();
        let down = at_down_of(&runtime, pid, move || seen.lookup(&1).len());
        tokio::task::yield_now().await;

        runtime.exit(pid, ExitReason::Kill);

        assert_eq!(down.await.1, 0);
        within("the registrar to be refused", registrar).await.unwrap();
        assert_eq!(rooms.count(), 0);
    }
}

#[tokio::test]
async fn nobody_is_registered_who_is_dead_or_ending_or_elsewhere() {
    let runtime = runtime();
    let other = purlin_runtime::Runtime::local("b".into());
    let rooms = Registry::unique(&runtime);
    let dead = idle(&runtime);
    let dead_pid = dead.pid().unwrap();
    dead.kill().await;
    let ending = idle_pid(&runtime);
    runtime.exit(ending, ExitReason::Kill);
    let elsewhere = idle_pid(&other);

    for pid in [dead_pid, ending, elsewhere, runtime.id().pid(99_999)] {
        assert_eq!(rooms.register(pid, 1, ()), Err(RegistryError::NoProcess), "{pid}");
        assert!(!rooms.unregister(pid, &1) && rooms.keys(pid).is_empty());
        assert!(!rooms.listen(pid));
    }
    assert_eq!(rooms.count(), 0);
}

#[tokio::test]
async fn a_value_is_updated_by_its_owner_only() {
    let runtime = runtime();
    let (owner, other) = (idle_pid(&runtime), idle_pid(&runtime));
    let rooms = Registry::unique(&runtime);
    rooms.register(owner, "hall", 1).unwrap();

    assert_eq!(rooms.update_value(owner, &"hall", |n| n + 1), Ok((2, 1)));
    let refused = rooms.update_value(other, &"hall", |_| 9);
    assert_eq!(refused, Err(UpdateError::NotOwner { holder: owner }));
    let missing = rooms.update_value(owner, &"attic", |_| 9);
    assert_eq!(missing, Err(UpdateError::NotRegistered));
    assert_eq!(rooms.lookup(&"hall"), [(owner, 2)]);
    let many = Registry::duplicate(&runtime);
    many.register(owner, "hall", 1).unwrap();
    assert_eq!(many.update_value(owner, &"hall", |n| n + 1), Err(UpdateError::NotUnique));
}

#[tokio::test]
async fn an_update_is_made_again_when_another_came_between() {
    let runtime = runtime();
    let owner = idle_pid(&runtime);
    let rooms = Registry::unique(&runtime);
    rooms.register(owner, (), 0).unwrap();
    let mut calls = 0;

    let updated = rooms.update_value(owner, &(), |n| {
        calls += 1;
        if calls == 1 {
            rooms.update_value(owner, &(), |n| n + 10).unwrap();
        }
        n + 1
    });

    assert_eq!((updated, calls), (Ok((11, 10)), 2));
    assert_eq!(rooms.lookup(&()), [(owner, 11)]);
}

/// A value that looks into its registry whenever it is cloned or dropped.
struct Curious {
    registry: Registry<u32, Self>,
    pid: Pid,
    drops: Arc<AtomicUsize>,
}

impl Clone for Curious {
    fn clone(&self) -> Self {
        let Self { registry, pid, drops } = self;
        assert!(registry.whereis(&1).is_some());
        assert!(!registry.keys(*pid).is_empty());
        Self { registry: registry.clone(), pid: *pid, drops: Arc::clone(drops) }
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        self.registry.count();
        self.registry.keys(self.pid);
        self.registry.unregister(self.pid, &99);
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_hands_in_may_use_the_registry() {
    let runtime = runtime();
    let task = idle(&runtime);
    let pid = task.pid().unwrap();
    let registry = Registry::unique(&runtime);
    let drops = Arc::new(AtomicUsize::new(0));
    let value = Curious { registry: registry.clone(), pid, drops: Arc::clone(&drops) };
    let (done, is_done) = oneshot::channel();

    // A thread of its own, so that a deadlock is a failure.
    std::thread::spawn(move || {
        registry.register(pid, 1, value).unwrap();
        let another = registry.lookup(&1)[0].1.clone();
        registry.register(pid, 1, another.clone()).unwrap_err();
        registry.register(pid, 2, another).unwrap();
        registry.dispatch(&1, |entries| assert_eq!(registry.lookup(&1).len(), entries.len()));
        drop(registry.update_value(pid, &1, Clone::clone));
        assert!(registry.unregister(pid, &2));
        let _ = done.send(());
    });
    within("all of it", is_done).await.unwrap();
    let before = drops.load(Ordering::Relaxed);

    within("the end", task.kill()).await;

    assert_eq!(drops.load(Ordering::Relaxed), before + 1);
}

#[tokio::test]
async fn dispatching_and_sending_reach_every_entry() {
    let runtime = runtime();
    let topics = Registry::duplicate(&runtime);
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut pids: Vec<Pid> = Vec::new();
    for _ in 0..3 {
        let tell = tell.clone();
        let listener = runtime.spawn_raw(&PROBE, |mut ctx| async move {
            while let Received::Message(message) = ctx.receive().await? {
                let (Say(text), _) = message.take::<Say>().unwrap().unwrap();
                let _ = tell.send((ctx.pid(), text));
            }
            Ok(())
        });
        pids.push(listener.unwrap());
    }
    for (pid, value) in pids.iter().zip(1..) {
        topics.register(*pid, "news", value).unwrap();
    }

    assert_eq!(topics.send(&"news", Say("hear".into())), 3);
    assert_eq!(topics.send(&"sport", Say("hear".into())), 0);
    let mut sum = 0;
    let seen = topics.dispatch(&"news", |entries| sum = entries.iter().map(|(_, v)| v).sum());
    assert_eq!((seen, sum), (3, 6));
    assert_eq!(topics.dispatch(&"sport", |_| panic!("there is nobody")), 0);

    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(within("a message", told.recv()).await.unwrap().0);
    }
    heard.sort();
    assert_eq!(heard, pids);
}

#[tokio::test]
async fn a_listener_is_told_of_every_entry_that_comes_and_goes() {
    let runtime = runtime();
    let topics = Registry::<u32, ()>::duplicate(&runtime);
    let (tell, mut told) = mpsc::unbounded_channel();
    let listener = runtime.spawn_raw(&PROBE, |mut ctx| async move {
        while let Received::Message(message) = ctx.receive().await? {
            let (event, _) = message.take::<RegistryEvent<u32>>().unwrap().unwrap();
            let _ = tell.send(event);
        }
        Ok(())
    });
    let listener = listener.unwrap();
    assert!(topics.listen(listener) && topics.listen(listener), "twice is once");
    let pid = idle_pid(&runtime);

    topics.register(pid, 1, ()).unwrap();
    topics.register(pid, 2, ()).unwrap();
    topics.unregister(pid, &1);
    let down = end_of(&runtime, pid);
    runtime.exit(pid, ExitReason::Kill);
    down.await;

    for expected in [
        RegistryEvent::Registered { key: 1, pid },
        RegistryEvent::Registered { key: 2, pid },
        RegistryEvent::Unregistered { key: 1, pid },
        RegistryEvent::Unregistered { key: 2, pid },
    ] {
        assert_eq!(within("an event", told.recv()).await, Some(expected));
    }
    let down = end_of(&runtime, listener);
    runtime.exit(listener, ExitReason::Kill);
    down.await;
    let lost = runtime.counters().snapshot();
    topics.register(idle_pid(&runtime), 3, ()).unwrap();
    assert_eq!(runtime.counters().snapshot(), lost, "the dead are not told");
}

#[tokio::test]
async fn an_actor_is_started_and_called_by_its_key() {
    let runtime = runtime();
    let rooms = Registry::unique(&runtime);
    let hall = rooms.start::<Room>("hall", (), true).await.unwrap();

    assert_eq!(rooms.call(&"hall", Say("who".into())).await, Ok("who".into()));
    assert_eq!(rooms.call(&"attic", Say("who".into())).await, Err(CallError::NoProcess));
    let again = rooms.start::<Room>("hall", (), true).await.unwrap_err();
    assert_eq!(again, StartError::AlreadyStarted { holder: hall.pid() });
    let failed = rooms.start::<Room>("attic", (), false).await.unwrap_err();
    assert!(matches!(failed, StartError::Spawn(SpawnError::Start(_))), "{failed:?}");
    assert_eq!((rooms.whereis(&"attic"), rooms.count()), (None, 1));
}

/// A key that takes its time, so that those who look it up at once find the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slow(u32);

impl Hash for Slow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::thread::sleep(Duration::from_millis(1));
        self.0.hash(state);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_start_a_key_at_once_one_wins() {
    let runtime = runtime();
    let rooms = Registry::unique(&runtime);
    for round in 0..20 {
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let rooms = rooms.clone();
                tokio::spawn(async move { rooms.start::<Room>(Slow(round), (), true).await })
            })
            .collect();
        let (mut started, mut holders) = (Vec::new(), Vec::new());
        for start in starts {
            match within("a start", start).await.unwrap() {
                Ok(room) => started.push(room.pid()),
                Err(StartError::AlreadyStarted { holder }) => holders.push(holder),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(started.len(), 1);
        assert!(holders.iter().all(|holder| *holder == started[0]));
    }
    until("the losers are gone", || runtime.process_count() == 20).await;
    assert_eq!(rooms.count(), 20);
}

#[tokio::test]
async fn an_entry_that_panics_when_dropped_keeps_nobody_from_the_down() {
    #[derive(Clone)]
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("out of cheese");
        }
    }
    let runtime = runtime();
    let (bombs, rooms) = (Registry::unique(&runtime), Registry::unique(&runtime));
    let pid = idle_pid(&runtime);
    bombs.register(pid, 1, Bomb).unwrap();
    rooms.register(pid, 1, ()).unwrap();
    let down = end_of(&runtime, pid);

    runtime.exit(pid, ExitReason::Kill);

    assert_eq!(down.await, ExitReason::Killed);
    assert_eq!((bombs.count(), rooms.count()), (0, 0));
}

#[tokio::test]
async fn a_registry_ends_with_its_last_clone() {
    let runtime = runtime();
    let value = Arc::new(OnceLock::<()>::new());
    let pid = idle_pid(&runtime);
    let rooms = Registry::unique(&runtime);
    let same = rooms.clone();
    rooms.register(pid, 1, Arc::clone(&value)).unwrap();

    drop(rooms);
    assert_eq!(same.whereis(&1), Some(pid));
    drop(same);

    assert_eq!(Arc::strong_count(&value), 1);
    let down = end_of(&runtime, pid);
    runtime.exit(pid, ExitReason::Kill);
    assert_eq!(down.await, ExitReason::Killed);
}

#[tokio::test]
async fn entries_outlast_a_new_creation_of_the_node() {
    let runtime = runtime();
    let old = idle_pid(&runtime);
    let rooms = Registry::unique(&runtime);
    rooms.register(old, 1, ()).unwrap();

    runtime.reincarnate(2);

    let new = rooms.whereis(&1).unwrap();
    assert_eq!((new.serial, new.node.creation), (old.serial, 2));
    assert!(rooms.unregister(old, &1), "an old pid still names the process here");
}
