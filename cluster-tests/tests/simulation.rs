//! Random runs of whole clusters on simulated machines, time and network; see `src/simulation`.

use purlin_cluster_tests::simulation::run;

/// Seeds that the gate runs.
const SEEDS: std::ops::Range<u64> = 0..20;

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in SEEDS {
        let (first, second) = (run(seed), run(seed));
        let differs = first.log.iter().zip(&second.log).find(|(first, second)| first != second);

        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
        first.check();
    }
}

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
