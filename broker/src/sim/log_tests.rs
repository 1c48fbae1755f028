//! Random work, crashes and recoveries of a log. A failing seed prints the line that runs it alone.

use super::model::Model;
use super::seeds::{run_many, run_named, run_one};

/// Gives the number of crashes.
fn run(seed: u64) -> u64 {
    let mut model = Model::new(seed);
    for life in 0..6 {
        model.work_or_fail(20 + (seed as usize * 7 + life * 13) % 60);
        model.crash_and_recover((seed as usize + life) % 3);
    }
    model.crashes()
}

#[test]
fn random_work_survives_crashes() {
    for seed in 0..200 {
        run_named("one_seed", seed, run);
    }
}

/// See `seeds` for how it is told what to do.
#[test]
#[ignore = "takes as long as it is told to"]
fn many_seeds() {
    run_many("one_seed", run);
}

#[test]
fn one_seed() {
    run_one(run);
}
