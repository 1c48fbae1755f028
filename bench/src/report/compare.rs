//! Two results side by side.

use std::fmt::Write;

use super::page::utc;
use crate::outcome::{Outcome, TrackOutcome, grouped, ms};

/// What was run, and a line for each figure: before, after, and how much it changed.
pub fn diff(before: &Outcome, after: &Outcome) -> String {
    let mut out = String::new();
    for (name, outcome) in [("A", before), ("B", after)] {
        let (when, arguments) = (utc(outcome.started_ms), outcome.arguments.join(" "));
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name}  {when}, {:.1} s: {arguments}", outcome.seconds);
        if let Some(why) = &outcome.generator.limited {
            let _ = writeln!(out, "   LIMITED by the load generator: {why}");
        }
    }
    let _ = writeln!(out, "\n{:20} {:>14} {:>14} {:>10}", "", "A", "B", "B to A");
    for track in &after.tracks {
        let name = format!("{:?}", track.track).to_lowercase();
        // Writing to a string does not fail.
        let _ = match before.track(track.track) {
            Some(earlier) => {
                write_track(&mut out, &name, earlier, track);
                Ok(())
            }
            None => writeln!(out, "{name}: only in the second"),
        };
    }
    for track in &before.tracks {
        if after.track(track.track).is_none() {
            let name = format!("{:?}", track.track).to_lowercase();
            let _ = writeln!(out, "{name}: only in the first");
        }
    }
    out
}

fn write_track(out: &mut String, name: &str, before: &TrackOutcome, after: &TrackOutcome) {
    let mut row = |figure: &str, show: &dyn Fn(f64) -> String, was: f64, is: f64| {
        let change = if was > 0.0 {
            format!("{:+.1} %", (is / was - 1.0) * 100.0)
        } else {
            "-".to_owned()
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{name:9} {figure:10} {:>14} {:>14} {change:>10}",
            show(was),
            show(is)
        );
    };
    let number = |value: f64| grouped(value as u64);
    let time = |value: f64| ms(value as u64);
    let rates = (before.messages_per_second, after.messages_per_second);
    row("messages/s", &number, rates.0, rates.1);
    let bytes = (before.bytes_per_second / 1e6, after.bytes_per_second / 1e6);
    row("MB/s", &|value| format!("{value:.1}"), bytes.0, bytes.1);
    let errors = (before.counts.errors as f64, after.counts.errors as f64);
    row("errors", &number, errors.0, errors.1);
    let (was, is) = (&before.latency, &after.latency);
    for (figure, was, is) in [
        ("p50", was.p50_ns, is.p50_ns),
        ("p90", was.p90_ns, is.p90_ns),
        ("p99", was.p99_ns, is.p99_ns),
        ("p99.9", was.p999_ns, is.p999_ns),
        ("p99.99", was.p9999_ns, is.p9999_ns),
        ("max", was.max_ns, is.max_ns),
        ("mean", was.mean_ns, is.mean_ns),
    ] {
        row(figure, &time, was as f64, is as f64);
    }
}
