//! What is sent to keys while nodes leave and join, on simulated machines with lossy roads: of each sender
//! it arrives in the order in which it was sent, and all of it.
//!
//! A few seeds in the gate, more with `PURLIN_SEEDS`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::Keyed;
use purlin::prelude::*;
use purlin::testing::{Cluster, Road};
use purlin_cluster_tests::planned::{NODES, until_all_hold};
use tokio::sync::oneshot;

const KEYS: u64 = 12;
const NOTES: u32 = 9_000;
const EVERY: Duration = Duration::from_millis(1);

/// Has what it is told, and by whom.
struct Ledger {
    told: Vec<(u8, u32)>,
}

/// Write this down.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note(u8, u32);
impl Message for Note {
    const NAME: &'static str = "ledger.note";
    type Reply = ();
}

/// What has been written down?
#[derive(Debug, Serialize, Deserialize)]
struct Told;
impl Message for Told {
    const NAME: &'static str = "ledger.told";
    type Reply = Vec<(u8, u32)>;
}

impl Actor for Ledger {
    const KIND: &'static str = "ledger";
    type Args = Key;
    type Messages = (Note, Told);

    async fn start(_: Key, _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { told: Vec::new() })
    }
}

impl KeyedActor for Ledger {
    fn args(key: &Key) -> Key {
        key.clone()
    }
}

impl Stateful for Ledger {
    type State = Vec<(u8, u32)>;

    fn snapshot(&self) -> Self::State {
        self.told.clone()
    }

    async fn restore(told: Self::State, _: Key, _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self { told })
    }
}

impl Handler<Note> for Ledger {
    async fn handle(&mut self, Note(by, number): Note, _: &mut Context<Self>) -> Outcome {
        self.told.push((by, number));
        Ok(())
    }
}

impl Handler<Told> for Ledger {
    async fn handle(&mut self, _: Told, _: &mut Context<Self>) -> Outcome<Vec<(u8, u32)>> {
        Ok(self.told.clone())
    }
}

/// Sends notes, as a process.
struct Teller;

#[derive(Debug, Serialize, Deserialize)]
struct Tell(u8);
impl Message for Tell {
    const NAME: &'static str = "teller.tell";
    type Reply = ();
}

impl Actor for Teller {
    const KIND: &'static str = "teller";
    type Args = ();
    type Messages = (Tell,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<Tell> for Teller {
    async fn handle(&mut self, Tell(by): Tell, ctx: &mut Context<Self>) -> Outcome {
        let runtime = ctx.runtime().clone();
        tell(by, |to, note| runtime.send(to, note)).await;
        Ok(())
    }
}

async fn tell(by: u8, send: impl Fn(Dest, Note)) {
    for number in 0..NOTES {
        for key in 0..KEYS {
            send(Dest::key("ledger", key), Note(by, number));
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn schedule(seed: u64, keyed: Keyed) {
    let bad = Road { loss: 0.01, jitter: Duration::from_millis(3), ..Road::default() };
    let cluster = Cluster::builder(seed)
        .nodes(NODES.len())
        .roads(bad)
        .with(move |node| node.stateful::<Ledger>(keyed).actor::<Teller>().exclusive())
        .start();
    cluster.run(async |cluster| {
        until_all_hold(cluster).await;
        let mut tellers = Vec::new();
        for (by, name) in NODES.into_iter().enumerate().take(NODES.len() - 1) {
            let (done, told) = oneshot::channel();
            let begin = move |node: Node| async move {
                let by = u8::try_from(by).unwrap();
                tokio::spawn(async move {
                    if by % 2 == 0 {
                        let teller = node.spawn::<Teller>(()).await.unwrap();
                        let limit = Duration::from_mins(2);
                        teller.call_timeout(Tell(by), limit).await.unwrap();
                    } else {
                        tell(by, |to, note| node.send(to, note)).await;
                    }
                    done.send(()).unwrap();
                });
            };
            cluster.node(name).run(begin).await.unwrap();
            tellers.push((name, told));
        }
        // The others send from first to last; this one goes and comes back, twice.
        let leaves = NODES[NODES.len() - 1];
        for _ in 0..2 {
            cluster.advance(Duration::from_millis(300)).await;
            let drained = cluster.node(leaves).run(async |node: Node| node.drain().await).await;
            assert_eq!(drained.unwrap().left, 0, "seed {seed}");
            cluster.stop(leaves).await;
            cluster.advance(Duration::from_millis(300)).await;
            cluster.restart(leaves).await;
            cluster.until_whole(Duration::from_mins(1)).await;
        }
        for (name, told) in tellers {
            cluster.node(name).run(|_| told).await.unwrap().unwrap();
        }
        cluster.advance(Duration::from_secs(3)).await;

        let mut late = 0;
        for key in 0..KEYS {
            let told = cluster.node(NODES[0]).call(Dest::key("ledger", key), Told).await.unwrap();
            for by in 0..u8::try_from(NODES.len() - 1).unwrap() {
                let told = told.iter().filter(|(author, _)| *author == by);
                let told: Vec<_> = told.map(|(_, number)| *number).collect();
                late += told.windows(2).filter(|pair| pair[0] > pair[1]).count();
                let mut sorted = told;
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..NOTES), "seed {seed}: each once, {key} by {by}");
            }
        }
        assert_eq!(late, 0, "seed {seed}");
    });
}

fn for_all_seeds(keyed: Keyed) {
    let last = std::env::var("PURLIN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    (1..=last).for_each(|seed| schedule(seed, keyed));
}

#[test]
fn what_is_sent_to_a_key_that_moves_keeps_its_order() {
    for_all_seeds(Keyed::available());
}

#[test]
fn so_does_what_is_sent_to_one_of_which_there_is_one_at_most() {
    for_all_seeds(Keyed::new());
}
