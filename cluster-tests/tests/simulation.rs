//! Random runs of whole clusters on simulated machines, time and network; see `src/simulation`.

use std::ops::Range;

use purlin_cluster_tests::simulation::run;

/// Runs each seed twice: both runs are the same in all that happened and in every byte that was sent,
/// and nothing is wrong.
fn twice(seeds: Range<u64>) {
    for seed in seeds {
        let (first, second) = (run(seed), run(seed));
        let differs = first.log.iter().zip(&second.log).find(|(first, second)| first != second);

        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.log.len(), second.log.len(), "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
        first.check();
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

/// Does the run of `PURLIN_SEED` again, and prints all that happened.
#[test]
fn replay() {
    let Some(seed) = std::env::var("PURLIN_SEED").ok().and_then(|seed| seed.parse().ok()) else {
        return;
    };
    let run = run(seed);
    for line in &run.log {
        println!("{line}");
    }
    run.check();
}
