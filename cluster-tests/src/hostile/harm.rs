//! What harm would be: panics, memory without bound, honest calls that are lost or late.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use purlin::{Node, Pid};
use tokio::task::JoinHandle;

use crate::numbered::Numbered;

/// A number from the environment.
pub fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Panics of the whole process, from now on.
pub fn count_panics() -> Arc<AtomicUsize> {
    let panics = Arc::new(AtomicUsize::new(0));
    let (seen, before) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        seen.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    panics
}

/// Resident memory, in bytes.
pub fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Calls a [`Receiver`](crate::numbered::Receiver) until then; how often, and how long the slowest
/// call took.
pub fn call_until(from: &Node, to: Pid, end: Instant) -> JoinHandle<(u64, Duration)> {
    let from = from.clone();
    tokio::spawn(async move {
        let (mut number, mut slowest) = (0, Duration::ZERO);
        while Instant::now() < end {
            let begun = Instant::now();
            from.call(to, Numbered::new(number, 64)).await.unwrap();
            slowest = slowest.max(begun.elapsed());
            number += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (number, slowest)
    })
}
