//! Clients that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use purlin_cluster_tests::process::Cluster;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::Outcome;
use crate::garbage::rate;
use crate::support::{check, connect, cpu_of, credentials, honest, run, start, taken, talk};

/// So many a second, if the machine can do that.
const CLIENTS: u32 = 500;

/// So many of them shake hands at once: a node hears 64 of one address, which all of them share here.
const AT_ONCE: usize = 48;

/// Clients that connect and go, 500 a second: nothing of them is left.
pub(crate) fn churn(length: Duration) -> Outcome {
    run(async {
        let cluster = Cluster::default();
        let node = start(&cluster, "tortured", &[]);
        let friend = honest(&cluster, &node).await;
        let talking = talk(&friend, length);
        let credentials = credentials(cluster.data_dir());
        let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut beat = tokio::time::interval(Duration::from_secs(1) / CLIENTS);
        beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (begun, before) = (Instant::now(), [cpu_of(node.pid()), cpu_of(std::process::id())]);
        let mut early = None;
        while begun.elapsed() < length {
            beat.tick().await;
            let turn = Arc::clone(&room).acquire_owned().await.unwrap();
            // What is needed for so many at once is there by then.
            if begun.elapsed() > length / 4 {
                early = early.or_else(|| Some(taken(&node)));
            }
            while clients.try_join_next().is_some() {}
            let (credentials, address) = (credentials.clone(), node.address.clone());
            let (done, failed) = (Arc::clone(&done), Arc::clone(&failed));
            clients.spawn(async move {
                let client = connect(credentials, &address).await;
                drop(turn);
                match client {
                    // Takes a quarter of a second, in case its farewell is to be repeated (RFC 9000,
                    // section 10.2).
                    Ok(client) => {
                        client.close().await;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                }
            });
        }
        let after = [cpu_of(node.pid()), cpu_of(std::process::id())];
        while clients.join_next().await.is_some() {}
        let latencies = talking.await.unwrap()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (early, late) = (early.ok_or("too slow")?, taken(&node));
        let (done, failed) = (done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        let each = |side: usize| {
            let took = after[side].saturating_sub(before[side]);
            took / u32::try_from(done.max(1)).unwrap_or(u32::MAX)
        };
        let figures = format!(
            "{done} clients, {:.0}/s of {CLIENTS} wanted, {failed} not let in; {:.1?} of CPU each at the \
             node, {:.1?} at their own side; {latencies}; {} MiB and {} files after a quarter, {} and {} \
             at the end",
            rate(done, length),
            each(0),
            each(1),
            early.mib,
            early.files,
            late.mib,
            late.files
        );
        // So many bytes a client would be a leak.
        let leak = usize::try_from(done).unwrap() / 2_000;
        let bounded = late.mib <= early.mib + 8 + leak && late.files <= early.files + 2;
        check(failed == 0 && bounded, figures)
    })
}
