//! Many seeds by one command, in as many threads and for as long as one says:
//!
//! ```text
//! CORELANE_SIM_SEEDS=0..1000000 CORELANE_SIM_THREADS=2 CORELANE_SIM_SECS=3600 \
//!     cargo test --release -p corelane-broker --lib many_ -- --ignored --nocapture
//! ```
//!
//! A seed that fails prints the line that runs it alone, and the rest goes on; in the end the test fails.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test that says how far it has come"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often the count so far is printed.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// Runs one seed; `one` is the test that repeats it. The panic of a seed that fails opens with the line to repeat it with.
pub fn run_named(one: &str, seed: u64, run: impl FnOnce(u64) -> u64) -> u64 {
    let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
    result.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        panic!(
            "CORELANE_SIM_SEED={seed} cargo test -p corelane-broker --lib {one}\n{}",
            said.unwrap_or_default()
        )
    })
}

/// Runs `CORELANE_SIM_SEED`, if that is set.
pub fn run_one(run: impl Fn(u64) -> u64) {
    if let Ok(seed) = std::env::var("CORELANE_SIM_SEED") {
        run(seed.parse().unwrap());
    }
}

/// Runs the seeds of `CORELANE_SIM_SEEDS`; `run` gives the number of crashes of a seed.
pub fn run_many(one: &str, run: impl Fn(u64) -> u64 + Sync) {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |number| number.parse().unwrap())
    };
    let seeds = std::env::var("CORELANE_SIM_SEEDS").unwrap_or_else(|_| "0..1000".to_owned());
    let (first, end) = seeds.split_once("..").unwrap();
    let (first, end): (u64, u64) = (first.parse().unwrap(), end.parse().unwrap());
    let (threads, secs) = (
        number("CORELANE_SIM_THREADS", 1),
        number("CORELANE_SIM_SECS", u64::MAX),
    );
    let (next, done, crashes, failed) = (
        AtomicU64::new(first),
        AtomicU64::new(0),
        AtomicU64::new(0),
        AtomicU64::new(0),
    );
    let began = Instant::now();
    let report = || {
        let (done, crashes) = (
            done.load(Ordering::Relaxed),
            crashes.load(Ordering::Relaxed),
        );
        let (secs, failed) = (
            began.elapsed().as_secs_f64(),
            failed.load(Ordering::Relaxed),
        );
        println!(
            "{one}: {done} seeds from {first} on, {crashes} crashes in {secs:.0} s ({:.0} a second), {failed} seeds failed",
            crashes as f64 / secs
        );
    };
    thread::scope(|scope| {
        for thread in 0..threads {
            let (report, run) = (&report, &run);
            let (next, done, crashes, failed) = (&next, &done, &crashes, &failed);
            scope.spawn(move || {
                let mut reported = Instant::now();
                while began.elapsed().as_secs() < secs {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run_named(one, seed, run))) {
                        Ok(count) => crashes.fetch_add(count, Ordering::Relaxed),
                        Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                    };
                    done.fetch_add(1, Ordering::Relaxed);
                    if thread == 0 && reported.elapsed() >= REPORT_EVERY {
                        report();
                        reported = Instant::now();
                    }
                }
            });
        }
    });
    report();
    let failed = failed.load(Ordering::Relaxed);
    assert_eq!(
        failed, 0,
        "seeds failed; each has printed the line that repeats it"
    );
}
