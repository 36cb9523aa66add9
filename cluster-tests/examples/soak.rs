//! Runs simulated clusters from fresh seeds until one violates an invariant, panics or hangs, or the
//! time is over.
//!
//! `soak [MINUTES] [FIRST-SEED] [RUNS]`: one thread a core. Prints the line that does a failing run again, and
//! ends with 1; `scripts/soak` is the way to start it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use purlin_cluster_tests::simulation::{Run, replay, run};

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(5);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().ok());
    let minutes = arguments.next().flatten().unwrap_or(10);
    let fresh =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() << 20);
    let first = arguments.next().flatten().unwrap_or_else(fresh);
    let end = arguments.next().flatten().map_or(u64::MAX, |runs| first.saturating_add(runs));
    let next = AtomicU64::new(first);
    let (failed, begun) = (AtomicBool::new(false), Instant::now());
    let (runs, simulated) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while begun.elapsed().as_secs() < 60 * minutes && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let run = patiently(seed);
                    runs.fetch_add(1, Ordering::Relaxed);
                    simulated.fetch_add(run.length.as_secs(), Ordering::Relaxed);
                    if !run.violations.is_empty() {
                        failed.store(true, Ordering::Relaxed);
                        tell(&run);
                    }
                }
            });
        }
    });
    let (runs, simulated) = (runs.into_inner(), simulated.into_inner());
    println!("{runs} runs, {simulated} simulated seconds in {:.0?}", begun.elapsed());
    ExitCode::from(u8::from(failed.into_inner()))
}

fn tell(run: &Run) {
    println!("seed {} fails:", run.seed);
    for violation in run.first() {
        println!("  {violation}");
    }
    println!("once more:\n\n  {}\n", replay(run.seed));
}

/// Says so of a run that hangs, and ends the program: nothing else can end the run.
fn patiently(seed: u64) -> Run {
    let (over, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                println!("seed {seed} fails:\n  it hangs\nonce more:\n\n  {}\n", replay(seed));
                std::process::exit(1);
            }
        });
        let run = run(seed);
        drop(over);
        run
    })
}
