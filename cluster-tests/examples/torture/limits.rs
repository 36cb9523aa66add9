//! What the system does not give: files, memory, the right time.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use purlin::Node;
use purlin::kinds::{Kv, Put};
use purlin_cluster_tests::process::Cluster;

use crate::Outcome;
use crate::support::{check, client, honest, run, start, talk};

/// The program under a limit of the shell's.
fn limited(cluster: &Cluster, limit: &str) -> Command {
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap());
    command.env("PURLIN_HOME", cluster.data_dir()).env_remove("PURLIN_AT");
    command
}

/// So few open files that a node cannot start, which it says; and so few that it just can, while a
/// hundred clients come.
pub(crate) fn open_files(_: Duration) -> Outcome {
    run(async {
        let cluster = Cluster::default();
        let start = ["start", "--name", "a", "--listen", "127.0.0.1:0"];
        let output = limited(&cluster, "-n 6").args(start).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        if code.is_none_or(|code| code == 0 || code == 101) || said.contains("panicked") {
            return Err(format!("with 6 files: {}: {said}", output.status));
        }
        let last = said.lines().last().unwrap_or_default().to_owned();

        let cluster = Cluster::default();
        let node = Cluster::start_with(limited(&cluster, "-n 32"), "a", "127.0.0.1:0", &[]);
        let friend = honest(&cluster, &node).await;
        let talking = talk(&friend, Duration::from_secs(3));
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(client(&cluster, &node).await?);
        }
        let mut served = 0;
        for client in &clients {
            served += usize::from(client.status().await.is_ok());
        }
        let latencies = talking.await.unwrap()?;
        let figures = format!(
            "with 6: exit code {}, {last:?}; with 32: {served} clients served; {latencies}",
            code.unwrap_or_default()
        );
        check(served == 100, figures)
    })
}

/// A node that runs out of memory: it ends, the others see just that, and go on.
pub(crate) fn out_of_memory(_: Duration) -> Outcome {
    run(async {
        let cluster = Cluster::default();
        let good = start(&cluster, "good", &[]);
        let friend = honest(&cluster, &good).await;
        let seed = ["--seed", good.address.as_str()];
        // In KiB, of addresses: a node that has just started takes half of that.
        let limited = limited(&cluster, "-v 1500000");
        let mut greedy = Cluster::start_with(limited, "greedy", "127.0.0.1:0", &seed);
        cluster.until_up(&good, 3, Duration::from_secs(20));
        let talking = talk(&friend, Duration::from_secs(15));
        let kv = friend.spawn_on::<Kv>(&"greedy".into(), ()).await;
        let kv = kv.map_err(|error| error.to_string())?;
        let begun = Instant::now();
        let mut put = 0;
        while greedy.is_running() && begun.elapsed() < Duration::from_mins(1) {
            let value = "x".repeat(4 << 20);
            // The last ones fail.
            drop(friend.call(&kv, Put { key: put.to_string(), value }).await);
            put += 1;
        }
        if greedy.is_running() {
            return Err(format!("{put} values of 4 MiB, and it still runs"));
        }
        let ended = Instant::now();
        while friend.members().len() != 2 && ended.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (down, members) = (ended.elapsed(), friend.members());
        let latencies = talking.await.unwrap()?;
        let figures = format!(
            "it ended after {put} values of 4 MiB, seen as down {down:.1?} later; {latencies}"
        );
        check(members.len() == 2 && members.contains(&"good".into()), figures)
    })
}

/// The time of day jumps an hour ahead and back, for one node and then for the other.
pub(crate) fn clock_jumps(_: Duration) -> Outcome {
    run(async {
        let home = purlin_cluster_tests::sockets::Home::default();
        let jumps = [Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0))];
        let clock = |jump: &Arc<AtomicI64>| {
            let jump = Arc::clone(jump);
            Arc::new(move || {
                let by = jump.load(Ordering::Relaxed);
                let hours = Duration::from_secs(by.unsigned_abs());
                let now = SystemTime::now();
                if by < 0 { now - hours } else { now + hours }
            })
        };
        let a = home.builder("a").wall_clock(clock(&jumps[0])).start().await.unwrap();
        let seed = a.listen_address().to_string();
        let start = |jump: &Arc<AtomicI64>| {
            home.builder("b").seed(seed.clone()).expect(2).wall_clock(clock(jump)).start()
        };
        let b = start(&jumps[1]).await.unwrap();
        let (talking, first) = (talk(&a, Duration::from_secs(8)), b.id());
        for by in [3_600, -3_600, 0] {
            for jump in &jumps {
                jump.store(by, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        let seen = a.members().len();
        let latencies = talking.await.unwrap()?;
        // Restarted while its clock is an hour behind: the new life is the newer one all the same.
        b.stop().await;
        // With its last handle it gives up its place in the data directory.
        drop(b);
        jumps[1].store(-3_600, Ordering::Relaxed);
        let b: Node = start(&jumps[1]).await.map_err(|error| error.to_string())?;
        let newer = b.id().creation > first.creation;
        let begun = Instant::now();
        while a.members().len() != 2 && begun.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let figures = format!("±1 h at both, {latencies}; restarted an hour behind, a newer life");
        check(seen == 2 && newer && a.members().len() == 2, figures)
    })
}
