//! `purlin bench`: what a cluster answers through one client, from here.
//!
//! It starts a process of the kind `echo`, measures for a few seconds and removes it again, also
//! when it is interrupted. One client on one thread is what is measured: nodes among themselves are
//! measured by `scripts/bench`.

use std::time::{Duration, Instant};

use purlin_client::{CallError, Client, SpawnError, SpawnOptions};
use purlin_proto::admin::GetProcess;
use purlin_proto::{Codec, Dest, ExitReason, Name, NodeName, Payload, Pid};
use serde_json::json;
use tokio::task::JoinSet;

use super::Failure;
use super::args::{AskArgs, Format};
use super::ask::{call, call_failed, system};
use super::output::{json, note, table};
use crate::kinds::{Echo, Say};
use crate::prelude::Actor;

/// Bytes of a message.
const SIZE: usize = 64;

/// Callers at once, one after the other.
const CALLERS: [usize; 3] = [1, 64, 1_000];

/// Messages between two looks at how far the receiver is; well below what waits for a process, so
/// that the client does not outrun it.
const WINDOW: u64 = 20_000;

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// The middle, the 99th of a hundred, the 999th of a thousand.
    round_trip: [Duration; 3],
    calls_per_s: [f64; CALLERS.len()],
    one_way_per_s: f64,
    one_way_lost: u64,
}

pub(super) async fn run(
    client: &Client,
    on: Option<NodeName>,
    length: Duration,
    ask: &AskArgs,
) -> Result<(), Failure> {
    let pid = start(client, on, ask).await?;
    let found = tokio::select! {
        found = measure(client, pid, length) => found,
        // Without a handler for it the process would stay.
        _ = tokio::signal::ctrl_c() => Err(Failure::No("interrupted".to_owned())),
    };
    // If it cannot be asked, the connection is gone, and why is known already.
    let removed = client.exit(pid, ExitReason::Kill).await;
    let found = found?;
    removed.map_err(|error| call_failed(&pid.into(), &error))?;
    show(&found, pid.node.name, length, ask)
}

async fn start(client: &Client, on: Option<NodeName>, ask: &AskArgs) -> Result<Pid, Failure> {
    let kind = Name::new(Echo::KIND).expect("a name");
    let none = Payload::encode(Codec::Json, &()).expect("nothing is plain data");
    let options = SpawnOptions { on, timeout: Some(ask.timeout), name: None };
    client.spawn(kind, none, options).await.map_err(|error| {
        let advice = match error {
            SpawnError::UnknownKind { .. } => {
                "; add it to the node's program: `.actor::<purlin::kinds::Echo>()`"
            }
            SpawnError::NoConnection => "; `purlin members` shows which nodes are up",
            _ => "",
        };
        Failure::No(format!("{error}{advice}"))
    })
}

async fn measure(client: &Client, pid: Pid, length: Duration) -> Result<Found, Failure> {
    let failed = |error: CallError| call_failed(&pid.into(), &error);
    let mut found = Found::default();
    // The first calls find everything cold.
    round_trips(client, pid, length / 5).await.map_err(failed)?;
    note(&format!("round trips of {SIZE} B"));
    found.round_trip = quantiles(round_trips(client, pid, length).await.map_err(failed)?);
    for (callers, per_s) in CALLERS.into_iter().zip(&mut found.calls_per_s) {
        note(&format!("calls, {callers} at once"));
        *per_s = calls(client, pid, callers, length).await.map_err(failed)?;
    }
    note("one-way messages");
    (found.one_way_per_s, found.one_way_lost) = one_way(client, pid, length).await?;
    Ok(found)
}

fn message() -> Say {
    Say("7".repeat(SIZE))
}

async fn round_trips(
    client: &Client,
    pid: Pid,
    length: Duration,
) -> Result<Vec<Duration>, CallError> {
    let end = Instant::now() + length;
    let mut times = Vec::new();
    loop {
        let begun = Instant::now();
        client.call(pid, message()).await?;
        times.push(begun.elapsed());
        if Instant::now() >= end {
            return Ok(times);
        }
    }
}

fn quantiles(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort_unstable();
    [500, 990, 999].map(|share| {
        let index = (times.len() * share / 1_000).min(times.len() - 1);
        times[index]
    })
}

/// Calls a second by so many callers at once.
async fn calls(
    client: &Client,
    pid: Pid,
    callers: usize,
    length: Duration,
) -> Result<f64, CallError> {
    let begun = Instant::now();
    let end = begun + length;
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let client = client.clone();
        running.spawn(async move {
            let mut done = 0_u64;
            while Instant::now() < end {
                client.call(pid, message()).await?;
                done += 1;
            }
            Ok(done)
        });
    }
    let mut done = 0;
    while let Some(caller) = running.join_next().await {
        done += caller.expect("callers do not panic and are not aborted")?;
    }
    Ok(rate(done, begun.elapsed()))
}

/// Messages a second that were handled, and how many were not.
async fn one_way(client: &Client, pid: Pid, length: Duration) -> Result<(f64, u64), Failure> {
    let failed = |error: CallError| call_failed(&pid.into(), &error);
    let before = handled(client, pid).await?;
    let begun = Instant::now();
    // Answered calls are handled as well.
    let (mut sent, mut answered) = (0, 0);
    while begun.elapsed() < length {
        for _ in 0..WINDOW {
            client.send(pid, message()).await.map_err(failed)?;
        }
        sent += WINDOW;
        // It comes after what was sent.
        client.call(pid, message()).await.map_err(failed)?;
        answered += 1;
    }
    let took = begun.elapsed();
    let got = (handled(client, pid).await? - before).saturating_sub(answered);
    Ok((rate(got, took), sent.saturating_sub(got)))
}

async fn handled(client: &Client, pid: Pid) -> Result<u64, Failure> {
    let asked = GetProcess { target: Dest::from(pid) };
    let found = call(client, system(Some(pid.node.name)), asked).await?;
    let gone = || call_failed(&pid.into(), &CallError::NoProcess);
    Ok(found.ok_or_else(gone)?.handled)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn show(found: &Found, node: NodeName, length: Duration, ask: &AskArgs) -> Result<(), Failure> {
    let [p50, p99, p999] = found.round_trip.map(|time| time.as_secs_f64() * 1e6);
    if ask.format == Format::Json {
        let calls = CALLERS.map(|callers| callers.to_string());
        let calls: serde_json::Map<_, _> =
            calls.into_iter().zip(found.calls_per_s.map(|per_s| json!(per_s))).collect();
        return json(&json!({
            "node": node,
            "bytes": SIZE,
            "seconds": length.as_secs_f64(),
            "round_trip_us": { "p50": p50, "p99": p99, "p99.9": p999 },
            "calls_per_s": calls,
            "one_way_per_s": found.one_way_per_s,
            "one_way_lost": found.one_way_lost,
        }));
    }
    let mut rows = vec![
        vec![format!("round trip, {SIZE} B"), "p50".to_owned(), format!("{p50:.1} µs")],
        vec![String::new(), "p99".to_owned(), format!("{p99:.1} µs")],
        vec![String::new(), "p99.9".to_owned(), format!("{p999:.1} µs")],
    ];
    for (index, (callers, per_s)) in CALLERS.into_iter().zip(found.calls_per_s).enumerate() {
        let first = if index == 0 { "calls" } else { "" };
        let at_once = if callers == 1 { "caller" } else { "callers" };
        rows.push(vec![first.to_owned(), format!("{callers} {at_once}"), format!("{per_s:.0} /s")]);
    }
    let one_way = format!("{:.0} /s", found.one_way_per_s);
    rows.push(vec![format!("one-way, {SIZE} B"), "handled".to_owned(), one_way]);
    rows.push(vec![String::new(), "lost".to_owned(), found.one_way_lost.to_string()]);
    note(&format!("measured against {node}"));
    table(&["WHAT", "", "FIGURE"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let times = (1..=1_000).rev().map(Duration::from_micros).collect();
        assert_eq!(quantiles(times), [501, 991, 1_000].map(Duration::from_micros));
    }

    #[test]
    fn one_round_trip_is_all_quantiles() {
        let time = Duration::from_micros(7);
        assert_eq!(quantiles(vec![time]), [time; 3]);
    }
}
