//! The highest rate that keeps a bound: doubled until it is missed, then halved in.

use std::io::{self, Write};

use crate::error::BenchError;
use crate::expect::Expectation;
use crate::outcome::{Outcome, grouped, ms};

/// Where the search starts unless it is told.
const FIRST_RATE: f64 = 1000.0;

/// The search ends when the rates that are kept and missed are this close.
const CLOSE: f64 = 1.03;

/// A rate is not reached when more than this part of the requests found no room by the end.
const UNSENT: f64 = 0.02;

/// The outcome at the highest rate that was found. `run` measures at a rate.
pub fn find_max(
    bound: &Expectation,
    first_rate: Option<f64>,
    mut run: impl FnMut(f64) -> Result<Outcome, BenchError>,
) -> Result<Outcome, BenchError> {
    let mut best: Option<(f64, Outcome)> = None;
    let mut missed: Option<f64> = None;
    let mut rate = first_rate.unwrap_or(FIRST_RATE);
    loop {
        let outcome = run(rate)?;
        // What was answered in the window is no measure: of a short one it misses what was answered just behind it.
        let reached = outcome.unsent as f64 <= rate * outcome.seconds * UNSENT;
        let why = match (bound.missed(&outcome), reached) {
            (Some(missed), _) => Some(missed),
            (None, false) => Some("the rate was not reached".to_owned()),
            (None, true) => None,
        };
        say(rate, &outcome, why.as_deref());
        match why {
            None => best = Some((rate, outcome)),
            Some(_) => missed = Some(rate),
        }
        rate = match (&best, missed) {
            (Some((kept, _)), None) => kept * 2.0,
            (Some((kept, _)), Some(missed)) if missed / kept > CLOSE => (kept * missed).sqrt(),
            (None, Some(missed)) if missed > 1.0 => missed / 8.0,
            _ => break,
        };
    }
    best.map(|(_, outcome)| outcome).ok_or_else(|| {
        BenchError::Settings("the bound is missed even at one request a second".to_owned())
    })
}

fn say(rate: f64, outcome: &Outcome, missed: Option<&str>) {
    let p99_ns = outcome.main_track().map_or(0, |track| track.latency.p99_ns);
    let verdict = missed.unwrap_or("kept");
    let rate = grouped(rate as u64);
    // Progress that cannot be shown is not worth ending a search for.
    let _ = writeln!(io::stderr(), "{rate:>12} /s  p99 {}  {verdict}", ms(p99_ns));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Counts, Slice, Track, latencies};
    use crate::outcome::{Gathered, Generator};

    /// A broker whose latency jumps above a rate.
    fn outcome(rate: f64, capacity: f64) -> Outcome {
        let mut histogram = latencies();
        let latency_ns = if rate <= capacity {
            1_000_000
        } else {
            9_000_000
        };
        histogram.record_n(latency_ns, 100).unwrap();
        let mut gathered = Gathered::default();
        gathered.add(Slice {
            number: 0,
            track: Track::Send,
            counts: Counts {
                requests: rate as u64 + 1,
                messages: rate as u64 + 1,
                ..Counts::default()
            },
            latencies: histogram,
            codes: Vec::new(),
        });
        Outcome {
            version: String::new(),
            workload: String::new(),
            arguments: Vec::new(),
            brokers: Vec::new(),
            queues: 1,
            started_ms: 0,
            seconds: 1.0,
            tracks: vec![gathered.finish(Track::Send, 1.0)],
            unanswered: 0,
            unsent: 0,
            unexpected: 0,
            closed: Vec::new(),
            findings: None,
            generator: Generator::default(),
            missed: Vec::new(),
        }
    }

    #[test]
    fn the_search_comes_close_from_either_side() {
        let bound = "p99<2ms".parse().unwrap();
        for (first, capacity) in [(None, 77_000.0), (Some(1e6), 77_000.0), (None, 30.0)] {
            let mut runs = 0;
            let found = find_max(&bound, first, |rate| {
                runs += 1;
                Ok(outcome(rate, capacity))
            })
            .unwrap();
            let rate = found.tracks[0].requests_per_second;
            assert!(
                rate <= capacity + 1.0 && rate > capacity / 1.04 - 1.0,
                "{rate}"
            );
            assert!(runs < 30, "{runs}");
        }
    }

    #[test]
    fn a_rate_that_finds_no_room_is_not_kept() {
        let bound = "p50<1s".parse().unwrap();
        let found = find_max(&bound, None, |rate| {
            let unsent = (rate - 5000.0).max(0.0) as u64;
            Ok(Outcome {
                unsent,
                ..outcome(rate, f64::MAX)
            })
        })
        .unwrap();
        let rate = found.tracks[0].requests_per_second;
        assert!((4800.0..5200.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_bound_that_nothing_keeps_is_an_error() {
        let bound = "p99<2ms".parse().unwrap();
        assert!(find_max(&bound, None, |rate| Ok(outcome(rate, 0.0))).is_err());
    }
}
