//! How fast the log is by itself, without sockets and engine: on a shard's own disk and executor, against the same reads and
//! writes without a log around them. Rounds of both take turns in one run; trust the ratios.
//!
//! `cargo run --release -p corelane-broker --example log_speed WHAT DIR [ROUNDS [SECONDS A ROUND]]`
//!
//! WHAT is one of `groups`, `groups-of-four` (large messages), `producers`, `queues`, `queues-on-disk`, `idle`, `scan`, `start`, `cold`, `padding`. It runs on core 0 and needs up
//! to 9 GB in DIR, a directory that it makes and removes.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod history;
mod host;
mod padding;
mod raw;
mod reading;
mod writing;

use corelane_broker::ring::executor;
use glommio::Placement;
use std::path::PathBuf;
use std::time::Duration;

/// What a measurement is told.
#[derive(Clone)]
pub struct Setting {
    pub directory: PathBuf,
    pub rounds: usize,
    pub round: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(what), Some(directory)) = (arguments.first(), arguments.get(1)) else {
        eprintln!("log_speed WHAT DIR [ROUNDS [SECONDS A ROUND]]");
        return;
    };
    let number = |at: usize, default: f64| {
        arguments
            .get(at)
            .map_or(default, |text| text.parse().unwrap())
    };
    let mut setting = Setting {
        directory: PathBuf::from(directory),
        rounds: number(2, 5.0) as usize,
        round: Duration::from_secs_f64(number(3, 1.0)),
    };
    if let Err(error) = std::fs::create_dir(&setting.directory) {
        eprintln!("cannot make {}: {error}", setting.directory.display());
        return;
    }
    setting.directory = setting.directory.canonicalize().unwrap();
    let (what, given) = (what.clone(), setting.clone());
    let executor = executor(Placement::Fixed(0)).make().unwrap();
    executor.run(async move {
        match what.as_str() {
            "groups" => writing::groups(&given, writing::BODY_BYTES).await,
            "groups-of-four" => writing::groups(&given, 63 << 10).await,
            "producers" => writing::producers(&given).await,
            "queues" => writing::queues(&given).await,
            "queues-on-disk" => writing::queues_on_disk(&given).await,
            "idle" => writing::idle(&given).await,
            "scan" => reading::scan(&given).await,
            "cold" => reading::cold(&given).await,
            "start" => history::start(&given).await,
            "padding" => padding::measure(&given),
            _ => panic!("there is no such measurement"),
        }
    });
    std::fs::remove_dir_all(&setting.directory).unwrap();
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One line for each round and one for the medians: the first column is divided by the second.
pub fn report(what: &str, unit: &str, rounds: &[(f64, f64)]) {
    let ratios: Vec<f64> = rounds.iter().map(|(log, raw)| log / raw).collect();
    for ((log, raw), ratio) in rounds.iter().zip(&ratios) {
        println!("  {what}: {log:10.3} {unit}, raw {raw:10.3}, ratio {ratio:.2}");
    }
    let (log, raw) = rounds.iter().copied().unzip();
    println!(
        "{what}, medians: {:.3} {unit}, raw {:.3}, ratio {:.2}",
        median(log),
        median(raw),
        median(ratios)
    );
}
