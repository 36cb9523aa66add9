//! Random runs of whole clusters on simulated machines, time and network; see `src/simulation`.

use std::ops::Range;
use std::panic::catch_unwind;
use std::time::Duration;

use purlin::NodeName;
use purlin_cluster_tests::simulation::schedule::{Fault, Part, Schedule};
use purlin_cluster_tests::simulation::{self, run, run_schedule};
use tracing_subscriber::EnvFilter;

/// Runs each seed twice: both runs are the same in all that happened and in every byte that was sent,
/// and nothing is wrong.
fn twice(seeds: Range<u64>) {
    for seed in seeds {
        let first = run(seed);
        first.check();
        let second = run(seed);
        let differs = first.log.iter().zip(&second.log).find(|(first, second)| first != second);

        let replay = simulation::replay(seed);
        assert_eq!(differs, None, "seed {seed}, once more: {replay}");
        assert_eq!(first.log.len(), second.log.len(), "seed {seed}, once more: {replay}");
        assert_eq!(first.digest, second.digest, "seed {seed}, once more: {replay}");
    }
}

// Four, so that they run at once.

#[test]
fn the_same_seed_gives_the_same_run_and_nothing_is_wrong_0_to_4() {
    twice(0..5);
}

#[test]
fn the_same_seed_gives_the_same_run_and_nothing_is_wrong_5_to_9() {
    twice(5..10);
}

#[test]
fn the_same_seed_gives_the_same_run_and_nothing_is_wrong_10_to_14() {
    twice(10..15);
}

#[test]
fn the_same_seed_gives_the_same_run_and_nothing_is_wrong_15_to_19() {
    twice(15..20);
}

#[test]
fn a_run_that_panics_ends_with_the_line_that_does_it_again() {
    let nobody = NodeName::new("nobody").expect("a name");
    let faults = vec![(Duration::from_secs(1), Fault::Crash(nobody))];
    let schedule = Schedule { nodes: 2, benign: false, part: Part::None, faults };
    let run = run_schedule(4711, schedule);

    let checked = catch_unwind(|| run.check()).expect_err("it fails");

    let said = checked.downcast_ref::<String>().expect("text");
    assert!(said.contains("nothing panics"), "{said}");
    assert!(said.contains("there is no node nobody in this cluster"), "{said}");
    assert!(said.contains(&simulation::replay(4711)), "{said}");
    assert!(
        !run.log.is_empty() && run.length >= Duration::from_secs(1),
        "what went before is told"
    );
}

/// Does the run of `PURLIN_SEED` again, and prints all that happened; with what its nodes log between,
/// if `RUST_LOG` says what of it.
#[test]
fn replay() {
    let Some(seed) = std::env::var("PURLIN_SEED").ok().and_then(|seed| seed.parse().ok()) else {
        return;
    };
    let logged = std::env::var_os("RUST_LOG").is_some();
    if logged {
        let filter = EnvFilter::from_default_env();
        tracing_subscriber::fmt().without_time().with_ansi(false).with_env_filter(filter).init();
    }
    let run = run(seed);
    for line in run.log.iter().filter(|_| !logged) {
        println!("{line}");
    }
    run.check();
}
