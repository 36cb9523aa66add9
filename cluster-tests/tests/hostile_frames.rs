//! A member that has been taken over says frames by chance for some seconds, while two others go on
//! talking: nobody panics, memory stays bounded, and nothing of theirs is lost.
//!
//! `PURLIN_SEED=7 PURLIN_FUZZ_SECONDS=600 cargo nextest run -p purlin-cluster-tests hostile_frames` is
//! a longer run of other frames. What arrives first is for the sockets to say, so a seed says which
//! frames, and not which run.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use purlin::prelude::*;
use purlin_cluster_tests::endpoints::Told;
use purlin_cluster_tests::hostile::Evil;
use purlin_cluster_tests::hostile::frames::{Frames, Way};
use purlin_cluster_tests::hostile::harm::{call_until, count_panics, resident, setting};
use purlin_cluster_tests::memory::until_sees;
use purlin_cluster_tests::numbered::{Receiver, Report};
use purlin_cluster_tests::sockets::{Home, counter};
use purlin_transport::{Closed, Flow, Priority, Sent};
use rand::RngExt;

/// Takes what it understands, and keeps it.
pub struct Victim(u64);

/// A message that most bytes are not.
#[derive(Debug, Serialize, Deserialize)]
pub struct Note {
    text: String,
    numbers: Vec<u64>,
}

impl Message for Note {
    const NAME: &'static str = "victim.note";
    type Reply = u64;
}

impl Actor for Victim {
    const KIND: &'static str = "victim";
    type Args = ();
    type Messages = (Note,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self(0))
    }
}

impl Handler<Note> for Victim {
    async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Outcome<u64> {
        self.0 += note.text.len() as u64 + note.numbers.len() as u64;
        Ok(self.0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_by_chance_harm_nobody() {
    let panics = count_panics();
    let (seed, seconds) = (setting("PURLIN_SEED", 1), setting("PURLIN_FUZZ_SECONDS", 6));

    let home = Home::default();
    let mut evil = Evil::new(&home, "evil").await;
    let a = home.builder("a").actor::<Victim>().start().await.unwrap();
    let b = home.builder("b").seed(a.listen_address().to_string()).start().await.unwrap();
    until_sees(&a, 2).await;
    until_sees(&b, 2).await;
    let mut victims = Vec::new();
    for _ in 0..10 {
        victims.push(a.spawn::<Victim>(()).await.unwrap().pid());
    }
    let sink = a.spawn::<Receiver>(()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let honest = call_until(&b, sink.pid(), end);
    let memory = resident();

    let kinds = vec!["victim", "no.such"];
    let messages = vec![Note::NAME, "node.status", "node.process", "node.why", "node.groups"];
    let mut frames = Frames::new(seed, victims, kinds, messages);
    let (mut said, mut cut_off, mut most) = (0_u64, 0, memory);
    while Instant::now() < end {
        let link = evil.connect(&a).await;
        while Instant::now() < end {
            for _ in 0..frames.chance().random_range(1..200) {
                let (way, frame) = frames.make();
                let sent = match way {
                    Way::Lane => {
                        let flow = Flow(frames.chance().random_range(0..8));
                        link.send_large(flow, Priority::User, frame)
                    }
                    Way::Control => link.send_control(frame),
                    Way::Datagram => link.send_datagram(frame),
                };
                said += u64::from(sent == Sent::Accepted);
            }
            tokio::task::yield_now().await;
            most = most.max(resident());
            let told = evil.log.so_far();
            let ended = told.iter().any(|told| matches!(told, Told::Down(..)));
            for told in told {
                match told {
                    Told::Frame(_, frame, _) | Told::Control(frame) | Told::Datagram(frame) => {
                        frames.hear(frame);
                    }
                    Told::Down(_, Closed::Remote(_)) => cut_off += 1,
                    Told::Down(..) | Told::Up(_) => {}
                }
            }
            if ended {
                break;
            }
        }
    }

    let (number, slowest) = honest.await.unwrap();
    let report = a.call(&sink, Report).await.unwrap();
    // The node's own process may just have been ended; then it is back soon.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let dropped = counter(&a, "dropped.not_understood").await;
    println!(
        "{said} frames, cut off {cut_off} times, {dropped} not understood, {} MiB more; \
         {number} honest calls, the slowest {slowest:?}",
        (most - memory) >> 20
    );
    assert_eq!(panics.load(Ordering::Relaxed), 0, "nobody panics");
    assert_eq!(report, [(0, number - 1)], "nothing is lost, doubled or out of order");
    assert!(a.members().contains(&b.id().name) && b.members().contains(&a.id().name));
    assert!(most - memory < 600 << 20, "{} MiB more", (most - memory) >> 20);
    assert!(cut_off > 2 && said > 2_000, "{cut_off} {said}: it was no test");
}
