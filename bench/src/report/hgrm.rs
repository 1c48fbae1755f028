//! The table of percentiles that HdrHistogram's tools print and its plotter reads; values in milliseconds.

use std::fmt::Write;

use crate::expect::quantile_of;

/// Steps in each half of the distance to 100 %.
const STEPS: u32 = 5;

/// The table of a histogram in buckets (upper end in nanoseconds, count).
pub fn percentiles(buckets: &[(u64, u64)]) -> String {
    let total: u64 = buckets.iter().map(|bucket| bucket.1).sum();
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let row = |out: &mut String, quantile: f64| {
        let value_ns = quantile_of(buckets, quantile);
        let up_to: u64 = buckets
            .iter()
            .take_while(|bucket| bucket.0 <= value_ns)
            .map(|bucket| bucket.1)
            .sum();
        let value = value_ns as f64 / 1e6;
        // Writing to a string does not fail.
        let _ = if quantile < 1.0 {
            let distance = 1.0 / (1.0 - quantile);
            writeln!(
                out,
                "{value:12.6} {quantile:14.12} {up_to:10} {distance:14.2}"
            )
        } else {
            writeln!(out, "{value:12.6} {quantile:14.12} {up_to:10}")
        };
    };
    if total > 0 {
        let mut left = 1.0;
        // Beyond this no two quantiles differ.
        while left * total as f64 > 0.5 {
            for step in 0..STEPS {
                row(
                    &mut out,
                    1.0 - left * (1.0 - f64::from(step) / f64::from(2 * STEPS)),
                );
            }
            left /= 2.0;
        }
        row(&mut out, 1.0);
    }
    let sum = |of: &dyn Fn(f64) -> f64| -> f64 {
        buckets
            .iter()
            .map(|(value, count)| of(*value as f64 / 1e6) * *count as f64)
            .sum()
    };
    let mean = sum(&|value| value) / total.max(1) as f64;
    let deviation = (sum(&|value| (value - mean).powi(2)) / total.max(1) as f64).sqrt();
    let max = buckets.last().map_or(0.0, |bucket| bucket.0 as f64 / 1e6);
    let _ = write!(
        out,
        "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]\n\
         #[Max     = {max:12.6}, Total count    = {total:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        27, 2048
    );
    out
}
