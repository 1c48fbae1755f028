//! Random work, crashes and recoveries of a log. A failing seed prints the line that runs it alone.

use super::model::{Counts, Model};
use super::seeds::{run_many, run_named, run_one};

fn run(seed: u64) -> Counts {
    let mut model = Model::new(seed);
    for life in 0..6 {
        model.work_or_fail(20 + (seed as usize * 7 + life * 13) % 60);
        model.crash_and_recover((seed as usize + life) % 3);
    }
    model.counts()
}

#[test]
fn random_work_survives_crashes() {
    let [mut failures, mut failed_starts, mut refused_full] = [0; 3];
    for seed in 0..200 {
        run_named("one_seed", seed, |seed| {
            let counts = run(seed);
            failures += counts.failures;
            failed_starts += counts.failed_starts;
            refused_full += counts.refused_full;
            counts.crashes
        });
    }
    // What is meant to happen does.
    assert!(
        failures > 10 && failed_starts > 10 && refused_full > 10,
        "{failures} {failed_starts} {refused_full}"
    );
}

/// See `seeds` for how it is told what to do.
#[test]
#[ignore = "takes as long as it is told to"]
fn many_seeds() {
    run_many("one_seed", |seed| run(seed).crashes);
}

#[test]
fn one_seed() {
    run_one(|seed| run(seed).crashes);
}
