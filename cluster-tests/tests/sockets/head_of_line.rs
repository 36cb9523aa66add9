//! Nobody waits for another's traffic: round trips while something else is slow.
//!
//! Each test compares with what being held up would cost: the large message takes seconds, the one
//! that does not read never goes on, a lost packet comes a round trip later.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use purlin::NodeBuilder;
use purlin::kinds::{Echo, Say};
use purlin::prelude::*;
use purlin::proto::Refusal;
use purlin_cluster_tests::endpoints::{Told, endpoint};
use purlin_cluster_tests::memory::Cluster;
use purlin_cluster_tests::numbered::Numbered;
use purlin_cluster_tests::relay::{Relay, Settings, Way};
use purlin_cluster_tests::sockets::{Pair, until};
use purlin_transport::{Config, Flow, Priority, Sent};

const SOON: Duration = Duration::from_secs(10);

/// As much as a frame takes, less what is around it.
const LOAD: usize = (64 << 20) - 4_096;

/// Takes large messages and says how many bytes have come.
#[derive(Default)]
struct Sink {
    bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Load(#[serde(with = "serde_bytes")] Vec<u8>);

impl Message for Load {
    const NAME: &'static str = "sink.load";
    type Reply = ();
}

#[derive(Debug, Serialize, Deserialize)]
struct Total;

impl Message for Total {
    const NAME: &'static str = "sink.bytes";
    type Reply = u64;
}

impl Actor for Sink {
    const KIND: &'static str = "sink";
    type Args = ();
    type Messages = (Load, Total);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self::default())
    }
}

impl Handler<Load> for Sink {
    async fn handle(&mut self, Load(bytes): Load, _: &mut Context<Self>) -> Outcome {
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Handler<Total> for Sink {
    async fn handle(&mut self, _: Total, _: &mut Context<Self>) -> Outcome<u64> {
        Ok(self.bytes)
    }
}

/// Begins with its first message and never ends with it.
struct Deaf;

impl Actor for Deaf {
    const KIND: &'static str = "deaf";
    type Args = ();
    type Messages = (Numbered,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<Numbered> for Deaf {
    async fn handle(&mut self, _: Numbered, _: &mut Context<Self>) -> Outcome {
        std::future::pending().await
    }
}

/// A busy machine is not to look dead meanwhile.
fn kinds(builder: NodeBuilder) -> NodeBuilder {
    builder.detect_in(Duration::from_secs(20)).actor::<Sink>().actor::<Deaf>().actor::<Echo>()
}

/// Who says something.
#[derive(Clone, Copy)]
enum By {
    Processes,
    /// Tasks of tokio.
    None,
}

impl By {
    /// Does something by a process of a node, or none.
    async fn run<T: Send + 'static>(
        self,
        node: &Node,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self {
            Self::Processes => node.runtime().task(work).join().await.unwrap(),
            Self::None => tokio::spawn(work).await.unwrap(),
        }
    }
}

/// Calls of 64 bytes by a process of its own, one after another, while a condition holds; how long
/// each took, sorted.
async fn round_trips(
    from: &Node,
    echo: &Ref<Echo>,
    go_on: impl Fn(usize) -> bool + Send + 'static,
) -> Vec<Duration> {
    round_trips_by(By::Processes, from, echo, go_on).await
}

async fn round_trips_by(
    by: By,
    from: &Node,
    echo: &Ref<Echo>,
    go_on: impl Fn(usize) -> bool + Send + 'static,
) -> Vec<Duration> {
    let echo = echo.clone();
    let calls = async move {
        let (mut took, text) = (Vec::new(), "x".repeat(64));
        while go_on(took.len()) {
            let begun = Instant::now();
            assert_eq!(echo.call(Say(text.clone())).await.as_deref(), Ok(&*text));
            took.push(begun.elapsed());
        }
        took.sort();
        took
    };
    by.run(from, calls).await
}

fn share(sorted: &[Duration], of_hundred: usize) -> Duration {
    sorted[(sorted.len() - 1) * of_hundred / 100]
}

/// Nineteen of twenty are as quick as ever, and none takes what being held up would cost.
fn assert_quick(idle: &[Duration], busy: &[Duration], held: Duration) {
    // The last is for a machine with much else to do.
    let bound = (10 * share(idle, 50)).max(Duration::from_millis(100)).max(held / 20);
    let (most, worst) = (share(busy, 95), share(busy, 100));
    println!(
        "idle {:?}, busy p50 {:?} p95 {most:?} max {worst:?}",
        share(idle, 50),
        share(busy, 50)
    );
    assert!(most < bound, "{most:?} of {} round trips, {bound:?} allowed", busy.len());
    assert!(worst < held / 4, "{worst:?}, being held up costs {held:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_64_mib_does_not_delay_64_bytes_of_others() {
    large_beside_small(By::Processes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_if_it_is_no_process_that_says_both() {
    large_beside_small(By::None).await;
}

async fn large_beside_small(by: By) {
    let pair = Pair::start(Settings::default(), kinds).await;
    let (sink, echo) = (
        pair.b.spawn_on::<Sink>(&"a".into(), ()).await.unwrap(),
        pair.b.spawn_on::<Echo>(&"a".into(), ()).await.unwrap(),
    );
    pair.to_a.set(|road| {
        road.bandwidth = Some(16 << 20);
        road.delay = Duration::from_millis(1);
    });
    let idle = round_trips_by(by, &pair.b, &echo, |count| count < 100).await;

    let begun = Instant::now();
    let load = sink.clone();
    by.run(&pair.b, async move { load.send_wait(Load(vec![7; LOAD])).await }).await;
    let (watched, arrived) = (sink.clone(), Arc::new(OnceLock::new()));
    let tell = Arc::clone(&arrived);
    let watch = pair.b.runtime().task(async move {
        while watched.call(Total).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tell.set(begun.elapsed()).unwrap();
    });
    let under_way = Arc::clone(&arrived);
    let busy = round_trips_by(by, &pair.b, &echo, move |_| under_way.get().is_none()).await;

    watch.join().await.unwrap();
    let took = *arrived.get().unwrap();
    println!("64 MiB took {took:?}, {} round trips meanwhile", busy.len());
    assert!(took > Duration::from_secs(3), "{took:?}: the road is too good to tell");
    assert!(busy.len() > 100, "only {} while it was under way", busy.len());
    assert_eq!(sink.call(Total).await, Ok(LOAD as u64));
    assert_quick(&idle, &busy, took);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_arrives_while_small_ones_fill_the_road() {
    // Short lanes, so that a call does not wait for seconds of what is ahead of it.
    let short = |builder| kinds(builder).lane_bytes(256 << 10);
    let pair = Pair::start(Settings::default(), short).await;
    let sinks = [(); 2].map(async |()| pair.b.spawn_on::<Sink>(&"a".into(), ()).await.unwrap());
    let [small, large] = sinks;
    let (small, large) = (small.await, large.await);
    pair.to_a.set(|road| {
        road.bandwidth = Some(4 << 20);
        road.delay = Duration::from_millis(20);
    });
    // Of every lane.
    for _ in 0..64 {
        let small = small.clone();
        pair.b.runtime().task(async move {
            loop {
                small.send_wait(Load(vec![7; 1_024])).await;
            }
        });
    }
    let full = async || small.call(Total).await.unwrap() > 8 << 20;
    while !full().await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let (begun, before) = (Instant::now(), small.call(Total).await.unwrap());
    let sent = large.clone();
    pair.b.runtime().task(async move { sent.send_wait(Load(vec![7; 1 << 20])).await });
    while large.call(Total).await.unwrap() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it starves");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let others = small.call(Total).await.unwrap() - before;
    println!("1 MiB took {:?}, {others} bytes of others meanwhile", begun.elapsed());
    assert!(others > 1 << 20, "the road was not full: {others}");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_does_not_read_does_not_delay_others() {
    let pair = Pair::start(Settings::default(), kinds).await;
    let echo = pair.b.spawn_on::<Echo>(&"a".into(), ()).await.unwrap();
    let idle = round_trips(&pair.b, &echo, |count| count < 200).await;
    let deaf = pair.b.spawn_on::<Deaf>(&"a".into(), ()).await.unwrap();

    // Eight senders, so all lanes are used; more than a mailbox holds.
    let flood: Vec<_> = (0..8)
        .map(|_| {
            let deaf = deaf.clone();
            pair.b.runtime().task(async move {
                for number in 0..15_000 {
                    let sent = deaf.send_wait(Numbered::new(number, 64));
                    if tokio::time::timeout(Duration::from_secs(1), sent).await.is_err() {
                        return;
                    }
                }
            })
        })
        .collect();
    for sender in flood {
        sender.join().await.unwrap();
    }
    let trickle = {
        let deaf = deaf.clone();
        pair.b.runtime().task(async move {
            for number in 0.. {
                deaf.send(Numbered::new(number, if number % 50 == 0 { 100_000 } else { 64 }));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    // What is left of the flood in the lanes passes by.
    round_trips(&pair.b, &echo, |count| count < 50).await;
    let begun = Instant::now();
    let go_on = move |_| begun.elapsed() < Duration::from_secs(2);
    let busy = round_trips(&pair.b, &echo, go_on).await;

    println!("{} round trips beside one that does not read", busy.len());
    // It would cost for ever: a call gives up after 5 s.
    assert_quick(&idle, &busy, Duration::from_secs(5));
    drop(trickle);
    pair.a.exit(deaf.pid(), ExitReason::Kill);
    pair.stop().await;
}

// ----- one lane, at the transport -----

/// Waits until nothing has passed for a while: no acknowledgements, no probes for a larger MTU.
async fn until_quiet(relay: &Relay) {
    let passed = || (relay.counts(Way::There), relay.counts(Way::Back));
    let (mut before, mut since) = (passed(), Instant::now());
    while since.elapsed() < Duration::from_millis(200) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if passed() != before {
            (before, since) = (passed(), Instant::now());
        }
    }
}

/// The relay cannot see which lane a packet is of, so a packet is lost while nothing else is under
/// way: the one with a frame of lane 0. Frames that are sent after it on the other lanes come
/// first; the one on lane 0 comes after it, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_packet_delays_only_its_lane() {
    let cluster = Cluster::empty();
    let silent = |config: &mut Config| {
        config.keep_alive = Duration::from_mins(1);
        config.idle_timeout = Duration::from_mins(1);
    };
    let ((a, _), (b, mut log)) = (endpoint(&cluster, "a", silent), endpoint(&cluster, "b", silent));
    let road = Settings { delay: Duration::from_millis(40), ..Settings::default() };
    let relay = Relay::start(b.local_address(), road);
    let link = a.dial(relay.address(), None).await.unwrap();
    let send = |flow| {
        assert_eq!(link.send_bytes(Flow(flow), Priority::User, &[1; 64]), Sent::Accepted);
    };
    assert_eq!(log.next().await, Told::Up("a".into()));
    // All lanes are open, and the road's delay is known.
    for _ in 0..3 {
        for flow in 0..4 {
            send(flow);
        }
        for _ in 0..4 {
            log.frame().await;
        }
    }

    // Void is a round in which another packet was lost, or this thread was kept from sending for so
    // long that the lost one had been sent again. With one stream for all, every round would be.
    let (mut shown, mut void) = (0, 0);
    while shown < 5 {
        until_quiet(&relay).await;
        let dropped = relay.counts(Way::There).dropped;
        relay.drop_next(Way::There, 1);
        send(0);
        until("a lost packet", SOON, || relay.counts(Way::There).dropped > dropped).await;
        for flow in [4, 1, 2, 3] {
            send(flow);
        }
        let mut flows = Vec::new();
        for _ in 0..5 {
            flows.push(log.frame().await.0.0);
        }

        let place = |flow| flows.iter().position(|came| *came == flow);
        assert!(place(0) < place(4), "one lane, in order: {flows:?}");
        flows[..3].sort_unstable();
        match flows[..] {
            [1, 2, 3, 0, 4] => shown += 1,
            _ => void += 1,
        }
        assert!(void < 20, "the other lanes wait: {flows:?}");
    }
    a.close(&Refusal::Stopping).await;
    b.close(&Refusal::Stopping).await;
}
