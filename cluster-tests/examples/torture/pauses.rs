//! Two of five nodes are stopped and let go on by chance, under load: what is said arrives once and in
//! order or not at all, whoever watches a process or is linked to it is told of its end once, and in the
//! end all see each other.

use std::time::{Duration, Instant};

use purlin::{CallError, ExitReason, Node, NodeName, Received};
use purlin_cluster_tests::numbered::{Numbered, Receiver, Report};
use purlin_cluster_tests::probe::Probe;
use purlin_cluster_tests::process::Cluster;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::support::{check, honest, run, start};

/// What one sender has seen.
#[derive(Default)]
struct Sent {
    calls: u64,
    lost: u64,
    /// Of each process a monitor and a link.
    watchers: Vec<Probe>,
}

/// Calls a process there until the end, and a new one when that is out of reach: each is told its
/// numbers in order, so its runs rise, and it has each at most once.
async fn load(from: Node, to: NodeName, end: Instant) -> Result<Sent, String> {
    let mut sent = Sent::default();
    while Instant::now() < end {
        let Ok(there) = from.spawn_on::<Receiver>(&to, ()).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let watched = there.pid();
        let mut watcher = Probe::start(&from, |ctx| {
            ctx.trap_exits(true);
            ctx.monitor(watched);
            ctx.link(watched);
        });
        let (mut number, mut answered) = (0, None);
        while Instant::now() < end {
            let second = Duration::from_secs(1);
            let call = from.runtime().call_timeout(&there, Numbered::new(number, 64), second).await;
            sent.calls += 1;
            number += 1;
            match call {
                Ok(()) => answered = Some(number - 1),
                Err(CallError::Timeout | CallError::Overloaded) => sent.lost += 1,
                Err(_) => {
                    sent.lost += 1;
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // If it is still there, and can be asked.
        let report = from.call(&there, Report).await;
        from.exit(watched, ExitReason::Kill);
        let told = [watcher.next().await, watcher.next().await];
        let is_one_of_each = matches!(
            told,
            [Received::Down(_), Received::LinkDown(_)] | [Received::LinkDown(_), Received::Down(_)]
        );
        if !is_one_of_each {
            return Err(format!("{watched} has ended, and of that came {told:?}"));
        }
        sent.watchers.push(watcher);
        let Ok(runs) = report else { continue };
        let rising = runs.windows(2).all(|pair| pair[0].1 < pair[1].0);
        let has_all_answered = answered.is_none_or(|last| runs.last().is_some_and(|r| r.1 >= last));
        if !rising || !has_all_answered {
            return Err(format!("{to} has {runs:?}, and has answered up to {answered:?}"));
        }
    }
    Ok(sent)
}

pub(crate) fn pauses(length: Duration) -> Outcome {
    run(async {
        let cluster = Cluster::default();
        let first = start(&cluster, "n0", &[]);
        let mut nodes = Vec::new();
        for name in ["n1", "n2", "n3"] {
            nodes.push(start(&cluster, name, &["--seed", &first.address]));
        }
        nodes.insert(0, first);
        let honest = honest(&cluster, &nodes[0]).await;
        let all = |honest: &Node| honest.members().len() == 5;
        let begun = Instant::now();
        while !all(&honest) && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let end = Instant::now() + length;
        let mut senders = JoinSet::new();
        for node in &nodes {
            senders.spawn(load(honest.clone(), NodeName::new(&node.name).unwrap(), end));
        }
        let (mut chance, mut stops) = (StdRng::seed_from_u64(1), 0);
        while Instant::now() < end {
            let one = chance.random_range(0..nodes.len());
            let other = (one + chance.random_range(1..nodes.len())) % nodes.len();
            let pause = Duration::from_millis(chance.random_range(50..9_000)).min(length / 3);
            for stopped in [one, other] {
                nodes[stopped].signal("STOP");
                stops += 1;
            }
            tokio::time::sleep(pause / 2).await;
            nodes[one].signal("CONT");
            tokio::time::sleep(pause / 2).await;
            nodes[other].signal("CONT");
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..2_000))).await;
        }
        let mut sent = Sent::default();
        while let Some(of_one) = senders.join_next().await {
            let of_one = of_one.unwrap()?;
            sent.calls += of_one.calls;
            sent.lost += of_one.lost;
            sent.watchers.extend(of_one.watchers);
        }
        let begun = Instant::now();
        while !all(&honest) && begun.elapsed() < Duration::from_mins(1) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let whole = begun.elapsed();
        for node in &nodes {
            cluster.until_up(node, 5, Duration::from_secs(30));
        }
        let figures = format!(
            "{stops} stops; {} calls, {} not answered, {} processes, each end told once to a monitor and a \
             link; whole again in {whole:.1?}",
            sent.calls,
            sent.lost,
            sent.watchers.len()
        );
        let once = sent.watchers.iter_mut().all(Probe::has_nothing);
        check(all(&honest) && once && sent.calls > 100, figures)
    })
}
