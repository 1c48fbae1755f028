//! Bounds that a run is held to: `p99<2ms`, `rate>100000`, `errors<1`.

use std::str::FromStr;

use crate::outcome::{Outcome, TrackOutcome, grouped, ms};

/// One bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    text: String,
    figure: Figure,
    below: bool,
    bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    /// A quantile, in nanoseconds.
    Quantile(f64),
    Mean,
    Max,
    /// Messages a second.
    Rate,
    Errors,
}

impl Expectation {
    /// What was measured instead, where the bound was missed.
    pub fn missed(&self, outcome: &Outcome) -> Option<String> {
        let Some(track) = outcome.main_track() else {
            return Some(format!("{}: nothing was measured", self.text));
        };
        let value = self.figure.of(track);
        let held = if self.below {
            value < self.bound
        } else {
            value > self.bound
        };
        // Latencies of nothing hold any bound.
        let empty = track.latency.count == 0 && self.figure.is_latency();
        if held && !empty {
            return None;
        }
        let measured = match self.figure.is_latency() {
            true => ms(value as u64),
            false => grouped(value as u64),
        };
        Some(format!("{}: it was {measured}", self.text))
    }
}

impl Figure {
    fn is_latency(self) -> bool {
        matches!(self, Self::Quantile(_) | Self::Mean | Self::Max)
    }

    fn of(self, track: &TrackOutcome) -> f64 {
        match self {
            Self::Quantile(quantile) => quantile_of(&track.buckets, quantile) as f64,
            Self::Mean => track.latency.mean_ns as f64,
            Self::Max => track.latency.max_ns as f64,
            Self::Rate => track.messages_per_second,
            Self::Errors => track.counts.errors as f64,
        }
    }
}

/// The value at a quantile (0 to 1) of a histogram in the form of [`TrackOutcome::buckets`].
pub fn quantile_of(buckets: &[(u64, u64)], quantile: f64) -> u64 {
    let total: u64 = buckets.iter().map(|bucket| bucket.1).sum();
    let wanted = ((total as f64 * quantile).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0;
    for (value, count) in buckets {
        seen += count;
        if seen >= wanted {
            return *value;
        }
    }
    0
}

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some(at) = text.find(['<', '>']) else {
            return Err(format!(
                "`{text}` has neither < nor >: write p99<2ms, rate>100000 or errors<1"
            ));
        };
        let (name, bound) = (text[..at].trim(), text[at + 1..].trim());
        let figure = match name {
            "mean" => Figure::Mean,
            "max" => Figure::Max,
            "rate" => Figure::Rate,
            "errors" => Figure::Errors,
            _ => name
                .strip_prefix('p')
                .and_then(|percent| percent.parse::<f64>().ok())
                .filter(|percent| (0.0..=100.0).contains(percent))
                .map(|percent| Figure::Quantile(percent / 100.0))
                .ok_or_else(|| {
                    format!("`{name}` is no figure: p50, p99.9, mean, max, rate and errors are")
                })?,
        };
        let bound = match figure.is_latency() {
            true => duration_ns(bound)? as f64,
            false => bound
                .replace(['_', ','], "")
                .parse()
                .map_err(|_| format!("`{bound}` is not a number"))?,
        };
        Ok(Self {
            text: text.to_owned(),
            figure,
            below: text[at..].starts_with('<'),
            bound,
        })
    }
}

/// A duration in nanoseconds: `10`, `10s`, `1.5ms`, `80us`, `2m`, `1h`; a bare number is in seconds.
pub fn duration_ns(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let unit_ns = match &text[digits.len()..] {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "" | "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        unit => return Err(format!("`{unit}` is no unit: ns, us, ms, s, m and h are")),
    };
    let number: f64 = digits
        .trim()
        .parse()
        .map_err(|_| format!("`{text}` is not a duration"))?;
    match number * unit_ns {
        ns if (0.0..1e18).contains(&ns) => Ok(ns as u64),
        _ => Err(format!("`{text}` is not a duration")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(duration_ns("10"), Ok(10_000_000_000));
        assert_eq!(duration_ns("1.5ms"), Ok(1_500_000));
        assert_eq!(duration_ns("80us"), Ok(80_000));
        assert_eq!(duration_ns("2m"), Ok(120_000_000_000));
        for wrong in ["", "ms", "-1s", "1y", "inf"] {
            assert!(duration_ns(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bounds_are_read() {
        let p99: Expectation = "p99.9 < 2ms".parse().unwrap();
        assert_eq!((p99.below, p99.bound), (true, 2e6));
        assert_eq!(p99.figure, Figure::Quantile(0.9990000000000001));
        let rate: Expectation = "rate>1_000".parse().unwrap();
        assert_eq!((rate.below, rate.bound), (false, 1000.0));
        for wrong in ["p99", "p101<1ms", "q<1", "p99<1x", "rate>fast"] {
            assert!(wrong.parse::<Expectation>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_buckets() {
        let buckets = [(10, 98), (20, 1), (30, 1)];
        assert_eq!(quantile_of(&buckets, 0.5), 10);
        assert_eq!(quantile_of(&buckets, 0.99), 20);
        assert_eq!(quantile_of(&buckets, 1.0), 30);
        assert_eq!(quantile_of(&buckets, 0.0), 10);
        assert_eq!(quantile_of(&[], 0.5), 0);
    }
}
