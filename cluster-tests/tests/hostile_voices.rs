//! A member that has been taken over says things of leases, votes and certificates by chance for some
//! seconds, while others go on talking: nobody panics, memory stays bounded, and nothing is lost.
//!
//! `PURLIN_SEED=7 PURLIN_FUZZ_SECONDS=600 cargo nextest run -p purlin-cluster-tests hostile_voices` is
//! a longer run of other frames.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use purlin_cluster_tests::endpoints::Told;
use purlin_cluster_tests::hostile::Evil;
use purlin_cluster_tests::hostile::harm::{call_until, count_panics, resident, setting};
use purlin_cluster_tests::hostile::voices::Voices;
use purlin_cluster_tests::memory::until_sees;
use purlin_cluster_tests::numbered::{Receiver, Report};
use purlin_cluster_tests::sockets::Home;
use purlin_transport::{Closed, Sent};
use rand::RngExt;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_by_chance_of_leases_and_certificates_harms_nobody() {
    let panics = count_panics();
    let (seed, seconds) = (setting("PURLIN_SEED", 1), setting("PURLIN_FUZZ_SECONDS", 6));
    let home = Home::default();
    let mut evil = Evil::new(&home, "evil").await;
    let builder = |name| home.builder(name).exclusive();
    let a = builder("a").start().await.unwrap();
    let b = builder("b").seed(a.listen_address().to_string()).start().await.unwrap();
    until_sees(&a, 2).await;
    until_sees(&b, 2).await;
    let sink = a.spawn::<Receiver>(()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let honest = call_until(&b, sink.pid(), end);
    let memory = resident();

    let mut voices = Voices::new(seed, vec![a.id(), b.id(), evil.id()]);
    let (mut said, mut cut_off, mut most) = (0_u64, 0_u64, memory);
    while Instant::now() < end {
        let links = [evil.connect(&a).await, evil.connect(&b).await];
        let mut ended = false;
        while !ended && Instant::now() < end {
            for _ in 0..voices.chance().random_range(1..100) {
                let link = &links[voices.chance().random_range(0..links.len())];
                said += u64::from(link.send_control(voices.make()) == Sent::Accepted);
            }
            // What is beyond the reader's bound is dropped, and would be no test.
            tokio::time::sleep(Duration::from_millis(1)).await;
            most = most.max(resident());
            for told in evil.log.so_far() {
                match told {
                    Told::Control(frame) => voices.hear(frame),
                    Told::Down(_, why) => {
                        ended = true;
                        cut_off += u64::from(matches!(why, Closed::Remote(_)));
                    }
                    Told::Frame(..) | Told::Datagram(_) | Told::Up(_) => {}
                }
            }
        }
    }

    let (number, slowest) = honest.await.unwrap();
    let report = a.call(&sink, Report).await.unwrap();
    println!(
        "{said} frames, cut off {cut_off} times, {} MiB more; {number} honest calls, the slowest \
         {slowest:?}",
        (most - memory) >> 20
    );
    assert_eq!(panics.load(Ordering::Relaxed), 0, "nobody panics");
    assert_eq!(report, [(0, number - 1)], "nothing is lost, doubled or out of order");
    assert!(a.members().contains(&b.id().name) && b.members().contains(&a.id().name));
    assert!(most - memory < 300 << 20, "{} MiB more", (most - memory) >> 20);
    assert!(said > 200, "{said}: it was no test");
}
