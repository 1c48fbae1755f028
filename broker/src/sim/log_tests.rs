//! Random work, crashes and recoveries. A failing seed is named by the panic's first line; run it alone with
//! `CORELANE_SIM_SEED=<seed> cargo test -p corelane-broker one_seed`.

use super::model::Model;

fn run(seed: u64) {
    let mut model = Model::new(seed);
    for life in 0..6 {
        model
            .work(20 + (seed as usize * 7 + life * 13) % 60)
            .unwrap();
        model.crash_and_recover((seed as usize + life) % 3);
    }
}

fn run_named(seed: u64) {
    if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
        panic!(
            "CORELANE_SIM_SEED={seed}: {:?}",
            panic.downcast_ref::<String>()
        );
    }
}

#[test]
fn random_work_survives_crashes() {
    for seed in 0..200 {
        run_named(seed);
    }
}

/// `CORELANE_SIM_SEEDS=1000..2000 cargo test --release -p corelane-broker many_seeds -- --ignored`
#[test]
#[ignore = "takes as long as it is told to"]
fn many_seeds() {
    let seeds = std::env::var("CORELANE_SIM_SEEDS").unwrap();
    let (from, to) = seeds.split_once("..").unwrap();
    for seed in from.parse().unwrap()..to.parse().unwrap() {
        run_named(seed);
    }
}

#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("CORELANE_SIM_SEED") else {
        return;
    };
    run(seed.parse().unwrap());
}
