//! Whatever processes have to do with each other when they end: nothing is left of it.
//!
//! Some ten thousand processes at a time, actors and raw ones, link, monitor, name, register, call,
//! defer, set timers and kill at random, also with a node that never answers. The gate runs
//! three rounds of [`GATE`] processes; `PURLIN_LEAK_PROCESSES=1000000 cargo test --release … -- --nocapture` runs as
//! many and prints the figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use purlin_proto::{Envelope, Frame, NodeName, Pieces, Signal};
use purlin_runtime::{
    Actor, Config, Context, Deferred, Dest, Down, ExitReason, Handler, LinkDown, Message, Name,
    NodeEvent, NodeId, Outcome, Peer, Pid, Priority, RawContext, RawKind, Received, Ref, Registry,
    Remote, Runtime, Sent,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::until;

/// How many processes live and die in each of three rounds, if nothing else is asked for.
const GATE: u64 = 30_000;

/// Who spawns, kills and relates, each on a task of its own.
const DRIVERS: u64 = 4;

/// About how many live at once for each driver.
const ALIVE: usize = 300;

/// Fewer than processes, so that they are fought over.
const NAMES: u64 = 200;

static RAW: RawKind = RawKind::new("drifter");

// ----- those who live and die -----

/// Says when it is time for everything that may be remembered of it to be gone.
struct Walker {
    kept: Vec<Deferred<u64>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Life {
    seed: u64,
    known: Vec<Pid>,
}

/// Is answered, kept or dropped.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ask(u64);

impl Message for Ask {
    const NAME: &'static str = "walker.ask";
    type Reply = u64;
}

/// What it is to do next.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Act {
    seed: u64,
    known: Pid,
}

impl Message for Act {
    const NAME: &'static str = "walker.act";
    type Reply = ();
}

fn name_of(number: u64) -> Name {
    Name::new(&format!("name-{}", number % NAMES)).unwrap()
}

fn elsewhere(serial: u64) -> Pid {
    NodeId::new("nowhere".into(), 1).pid(serial)
}

impl Actor for Walker {
    const KIND: &'static str = "walker";
    type Args = Life;
    type Messages = (Ask, Act);

    async fn start(life: Life, ctx: &mut Context<Self>) -> Outcome<Self> {
        let mut random = StdRng::seed_from_u64(life.seed);
        if random.random_ratio(1, 20) {
            return Err("will not live".into());
        }
        if random.random_ratio(1, 2) {
            ctx.trap_exits();
        }
        let mut walker = Self { kept: Vec::new() };
        for known in life.known {
            walker.relate(&mut random, known, ctx).await;
        }
        Ok(walker)
    }
}

impl Walker {
    async fn relate(&mut self, random: &mut StdRng, other: Pid, ctx: &mut Context<Self>) {
        let act = |random: &mut StdRng| Act { seed: random.random(), known: other };
        match random.random_range(0..16) {
            0 | 1 => ctx.link(other),
            2 => {
                ctx.link(other);
                ctx.unlink(other);
            }
            3 | 4 => drop(ctx.monitor(other)),
            5 => drop(ctx.monitor(name_of(random.random()))),
            6 => {
                let reference = ctx.monitor(other);
                ctx.demonitor(reference);
            }
            7 => drop(ctx.register(name_of(random.random()))),
            8 => drop(ctx.send_after(Duration::from_hours(1), act(random))),
            9 => {
                let soon = Duration::from_millis(random.random_range(0..20));
                ctx.send_after(soon, act(random));
            }
            10 => drop(ctx.send_after(Duration::from_hours(1), act(random)).cancel()),
            11 => ctx.monitor_nodes(),
            12 => {
                let seed = random.random();
                drop(ctx.spawn_link::<Self>(Life { seed, known: vec![] }).await);
            }
            13 => {
                let seed = random.random();
                drop(ctx.spawn_monitor::<Self>(Life { seed, known: vec![] }).await);
            }
            14 => {
                let runtime = ctx.runtime().clone();
                let timeout = Duration::from_millis(random.random_range(1..20));
                drop(ctx.task(async move { runtime.call_timeout(other, Ask(1), timeout).await }));
            }
            _ => match random.random_range(0..3) {
                0 => ctx.link(elsewhere(random.random_range(1..100))),
                1 => drop(ctx.monitor(elsewhere(random.random_range(1..100)))),
                _ => drop(ctx.monitor(Dest::Remote(name_of(1), "nowhere".into()))),
            },
        }
    }
}

impl Handler<Ask> for Walker {
    async fn handle(&mut self, Ask(seed): Ask, ctx: &mut Context<Self>) -> Outcome<u64> {
        match seed % 6 {
            0 => Err("asked the wrong thing".into()),
            1 => {
                self.kept.push(ctx.defer::<Ask>());
                ctx.noreply()
            }
            2 => {
                self.kept.pop();
                Ok(seed)
            }
            3 => {
                tokio::time::sleep(Duration::from_millis(seed % 7)).await;
                Ok(seed)
            }
            _ => Ok(seed),
        }
    }
}

impl Handler<Act> for Walker {
    async fn handle(&mut self, act: Act, ctx: &mut Context<Self>) -> Outcome {
        let mut random = StdRng::seed_from_u64(act.seed);
        match random.random_range(0..20) {
            0 => ctx.stop(ExitReason::Normal),
            1 => panic!("out of cheese"),
            _ => self.relate(&mut random, act.known, ctx).await,
        }
        Ok(())
    }
}

impl Handler<Down> for Walker {
    async fn handle(&mut self, _: Down, _: &mut Context<Self>) -> Outcome {
        Ok(())
    }
}

impl Handler<LinkDown> for Walker {
    async fn handle(&mut self, _: LinkDown, _: &mut Context<Self>) -> Outcome {
        Ok(())
    }
}

impl Handler<NodeEvent> for Walker {
    async fn handle(&mut self, _: NodeEvent, _: &mut Context<Self>) -> Outcome {
        Ok(())
    }
}

/// A raw process: keeps what it is asked, and answers some when it is asked again.
async fn drift(mut ctx: RawContext, seed: u64, known: Vec<Pid>) -> Outcome {
    let mut random = StdRng::seed_from_u64(seed);
    ctx.trap_exits(random.random_ratio(1, 2));
    for other in known {
        match random.random_range(0..4) {
            0 => ctx.link(other),
            1 => drop(ctx.monitor(other)),
            2 => ctx.monitor_nodes(),
            _ => ctx.unlink(other),
        }
    }
    let mut kept = Vec::new();
    loop {
        match ctx.receive().await? {
            Received::Message(message) => match message.take::<Ask>() {
                Ok(Ok((Ask(seed), answer))) if seed % 2 == 0 => kept.push(answer),
                Ok(Ok((Ask(seed), answer))) => answer.send(seed),
                _ => kept.clear(),
            },
            Received::Exit { reason, .. } => Err(purlin_runtime::Interrupt::exit(reason))?,
            _ => {}
        }
    }
}

/// A node that takes everything and answers nothing, or cannot be reached.
struct Nowhere(AtomicU64);

impl Remote for Nowhere {
    fn send_large(&self, to: Peer, from: u64, priority: Priority, frame: Pieces) -> Sent {
        self.send(to, from, priority, &mut |out| {
            out.extend_from_slice(&frame.clone().into_bytes());
            true
        })
    }

    fn tell(&self, _: NodeName, _: &Frame) {}

    fn send(
        &self,
        _: Peer,
        _: u64,
        priority: Priority,
        encode: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Sent {
        let mut frame = BytesMut::new();
        assert!(encode(&mut frame));
        let envelope = Envelope::decode(frame.freeze()).unwrap();
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        match (priority, turn % 4) {
            (Priority::User, 0) if !matches!(envelope.signal, Signal::Call { .. }) => Sent::Full,
            (_, 1) => Sent::Unreachable,
            _ => Sent::Accepted,
        }
    }

    fn ready(&self, _: Peer, _: u64) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

// ----- those who see to it -----

struct World {
    runtime: Runtime,
    rooms: Registry<u64, u64>,
    topics: Registry<String, Arc<str>>,
}

async fn drive(world: Arc<World>, seed: u64, count: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut alive: Vec<Pid> = Vec::new();
    let mut calls = JoinSet::new();
    for step in 0..count {
        if step % 250 == 0 {
            // The oldest, among them children that only their parents know.
            for process in world.runtime.processes_after(0) {
                world.runtime.exit(process.pid, ExitReason::Kill);
            }
        }
        if let Some(pid) = spawn(&world, &mut random, &alive).await {
            alive.push(pid);
        }
        for _ in 0..3 {
            meddle(&world, &mut random, &alive, &mut calls);
        }
        while alive.len() > ALIVE {
            let index = random.random_range(0..alive.len());
            let reason = match random.random_range(0..8) {
                0 => ExitReason::Shutdown,
                1 => ExitReason::error("enough"),
                _ => ExitReason::Kill,
            };
            world.runtime.exit(alive.swap_remove(index), reason);
        }
        while calls.try_join_next().is_some() {}
    }
    calls.join_all().await;
}

async fn spawn(world: &World, random: &mut StdRng, alive: &[Pid]) -> Option<Pid> {
    let runtime = &world.runtime;
    let count = random.random_range(0..4);
    let known: Vec<_> = (0..count).filter_map(|_| any(random, alive)).collect();
    let (seed, name) = (random.random(), name_of(random.random()));
    let pid_of = |walker: Ref<Walker>| walker.pid();
    match random.random_range(0..8) {
        0..3 => {
            let body = |ctx| drift(ctx, seed, known);
            runtime.spawn_raw(&RAW, body).ok()
        }
        3..6 => runtime.spawn::<Walker>(Life { seed, known }).await.ok().map(pid_of),
        6 => runtime.spawn_named::<Walker>(name, Life { seed, known }).await.ok().map(pid_of),
        _ => {
            let room = random.random_range(0..1_000);
            let started = world.rooms.start::<Walker>(room, seed, Life { seed, known }).await;
            started.ok().map(pid_of)
        }
    }
}

fn any(random: &mut StdRng, alive: &[Pid]) -> Option<Pid> {
    (!alive.is_empty()).then(|| alive[random.random_range(0..alive.len())])
}

/// One thing that somebody from outside does to a process, which may be about to end.
fn meddle(world: &World, random: &mut StdRng, alive: &[Pid], calls: &mut JoinSet<()>) {
    let runtime = &world.runtime;
    let (Some(pid), Some(known)) = (any(random, alive), any(random, alive)) else { return };
    let seed = random.random();
    match random.random_range(0..12) {
        0..3 => runtime.send(pid, Act { seed, known }),
        3 => drop(runtime.register(name_of(seed), pid)),
        4 => {
            // At the moment of its end, by whoever is quicker.
            let (killer, name) = (runtime.clone(), name_of(seed));
            calls.spawn(async move { killer.exit(pid, ExitReason::Kill) });
            drop(runtime.register(name, pid));
        }
        5 => drop(runtime.unregister(&name_of(seed))),
        6 => drop(world.rooms.register(pid, seed % 1_000, seed)),
        7 => {
            drop(world.topics.register(pid, format!("topic-{}", seed % 10), "value".into()));
            if seed % 100 == 0 {
                world.topics.listen(pid);
            }
        }
        8 => drop(world.topics.unregister(pid, &format!("topic-{}", seed % 10))),
        9 => {
            let caller = runtime.clone();
            let to = if seed % 10 == 0 { elsewhere(seed % 100 + 1) } else { pid };
            let timeout = Duration::from_millis(seed % 30);
            calls.spawn(async move { drop(caller.call_timeout(to, Ask(seed), timeout).await) });
        }
        10 => {
            let sender = runtime.clone();
            calls.spawn(async move { sender.send_wait(pid, Ask(seed)).await });
        }
        _ => runtime.exit(pid, ExitReason::Normal),
    }
}

/// Lets so many live and die; nothing is left when this returns.
async fn round(world: &Arc<World>, seed: u64, count: u64) {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut drivers = JoinSet::new();
    for number in 0..DRIVERS {
        drivers.spawn(drive(Arc::clone(world), seed * DRIVERS + number, count / DRIVERS));
    }
    drivers.join_all().await;
    let runtime = &world.runtime;
    for _ in 0..100 {
        for process in runtime.processes_after(0) {
            runtime.exit(process.pid, ExitReason::Kill);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    runtime.connection_lost("nowhere".into());
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();

    until("no process is left", || runtime.process_count() == 0).await;
    assert_eq!(runtime.tree().len(), 0);
    assert_eq!(runtime.names(), [], "names of the dead");
    assert_eq!((world.rooms.count(), world.topics.count()), (0, 0), "entries of the dead");
    until("no timer and no other task is left", || alive() <= before).await;
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn last_serial(runtime: &Runtime) -> u64 {
    runtime.spawn_raw(&RAW, |_| async { Ok(()) }).unwrap().serial
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_many_spawns_and_exits_nothing_is_left_and_memory_is_back() {
    let asked = std::env::var("PURLIN_LEAK_PROCESSES").ok();
    let count: u64 = asked.map_or(GATE, |asked| asked.parse().unwrap());
    let runtime = Runtime::new(Config::new(NodeId::new("a".into(), 1)));
    runtime.set_remote(Arc::new(Nowhere(AtomicU64::new(0))));
    let (rooms, topics) = (Registry::unique(&runtime), Registry::duplicate(&runtime));
    let world = Arc::new(World { runtime: runtime.clone(), rooms, topics });
    let begun = Instant::now();
    let start = resident();
    round(&world, 1, count).await;
    let (first, lived) = (resident(), last_serial(&runtime));

    round(&world, 2, count).await;
    let second = resident();
    round(&world, 3, count).await;

    let (third, lived_all) = (resident(), last_serial(&runtime));
    let [start, first, second, third] = [start, first, second, third].map(|bytes| bytes / 1024);
    println!(
        "{lived_all} processes in {:?}; resident {start} KiB, then {first}, {second}, {third} KiB",
        begun.elapsed(),
    );
    // What the allocator keeps varies; one small thing left of each process would be more.
    let margin = first / 4 + lived * 16 / 1024;
    assert!(third < first + margin, "{first} KiB after one round, {third} KiB after three");
}

/// A name that is given in the moment of the end is the dead process's no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_given_in_the_moment_of_the_end_is_free_after_it() {
    let runtime = crate::runtime();
    for number in 0..3_000_u32 {
        let name = Name::new(&format!("late-{number}")).unwrap();
        let body = |_| async {
            tokio::task::yield_now().await;
            Ok(())
        };
        let pid = runtime.spawn_raw(&RAW, body).unwrap();
        while runtime.process_detail(&pid.into()).is_some() {
            let given = runtime.register(name.clone(), pid).is_ok();
            if given && runtime.is_alive(pid) {
                runtime.unregister(&name);
            }
        }
    }
    until("no process is left", || runtime.process_count() == 0).await;
    assert_eq!(runtime.names(), []);
}
