//! What trials have in common: a tortured node, honest callers, and looking at a process from outside.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use purlin::Node;
use purlin_client::Client;
use purlin_cluster_tests::numbered::{Numbered, Receiver, Report};
use purlin_cluster_tests::process::{Cluster, Node as Process};
use purlin_transport::Credentials;
use tokio::task::JoinHandle;

pub(crate) fn run<T>(trial: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(trial)
}

/// A node with the kinds of these trials, as a process.
pub(crate) fn start(cluster: &Cluster, name: &str, more: &[&str]) -> Process {
    Cluster::start_with(cluster.example("torture"), name, "127.0.0.1:0", more)
}

/// A node of this process in the same cluster.
pub(crate) async fn honest(cluster: &Cluster, seed: &Process) -> Node {
    Node::builder()
        .name("honest")
        .data_dir(cluster.data_dir())
        .listen("127.0.0.1:0")
        .seed(seed.address.clone())
        .expect(2)
        .actor::<Receiver>()
        .start()
        .await
        .unwrap()
}

pub(crate) fn credentials(home: PathBuf) -> Credentials {
    Credentials::from_dir(home).unwrap()
}

pub(crate) async fn client(cluster: &Cluster, to: &Process) -> Result<Client, String> {
    connect(credentials(cluster.data_dir()), &to.address).await
}

pub(crate) async fn connect(credentials: Credentials, to: &str) -> Result<Client, String> {
    Client::connect([to], credentials).await.map_err(|error| error.to_string())
}

/// How long calls took.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn part(&self, part: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list"
        )]
        let at = (self.0.len() as f64 * part) as usize;
        self.0.get(at.min(self.0.len().saturating_sub(1))).copied().unwrap_or(Duration::MAX)
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (calls, half, most) = (self.0.len(), self.part(0.5), self.part(0.99));
        write!(f, "{calls} honest calls, p50 {half:.1?}, p99 {most:.1?}")
    }
}

/// Calls a process of another node every two milliseconds for so long; then says how long each took,
/// and sees to it that each was handled once and in order.
pub(crate) fn talk(from: &Node, length: Duration) -> JoinHandle<Result<Latencies, String>> {
    let from = from.clone();
    tokio::spawn(async move {
        let other = from.members().into_iter().find(|name| *name != from.id().name);
        let there = other.ok_or("there is nobody to talk to")?;
        let said = |error: &dyn std::fmt::Display| format!("honest: {error}");
        let to = from.spawn_on::<Receiver>(&there, ()).await.map_err(|error| said(&error))?;
        let (end, mut number, mut took) = (Instant::now() + length, 0, Vec::new());
        while Instant::now() < end {
            let begun = Instant::now();
            from.call(&to, Numbered::new(number, 64)).await.map_err(|error| said(&error))?;
            took.push(begun.elapsed());
            number += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let report = from.call(&to, Report).await.map_err(|error| said(&error))?;
        if report != [(0, number - 1)] {
            return Err(format!("{number} calls arrived as {report:?}"));
        }
        took.sort_unstable();
        Ok(Latencies(took))
    })
}

/// What a process takes up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) mib: usize,
    pub(crate) files: usize,
}

pub(crate) fn taken(process: &Process) -> Taken {
    let of = |file: &str| format!("/proc/{}/{file}", process.pid());
    let status = std::fs::read_to_string(of("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    Taken { mib: kib >> 10, files: std::fs::read_dir(of("fd")).unwrap().count() }
}

/// The time on a processor that a process has had.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may have spaces (proc_pid_stat(5)): user and system time are the 14th and
    // 15th field, in hundredths of a second.
    let (_, behind) = stat.rsplit_once(')').unwrap();
    let ticks =
        behind.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

pub(crate) fn check(held: bool, figures: String) -> super::Outcome {
    if held { Ok(figures) } else { Err(figures) }
}
