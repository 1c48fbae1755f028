//! Results as files: JSON, HdrHistogram's percentiles, and a page with charts; and two of them compared.

mod axis;
mod chart;
mod compare;
mod hgrm;
mod page;

use std::fs;
use std::path::Path;

use crate::error::BenchError;
use crate::outcome::Outcome;

/// Writes the results as JSON.
pub fn write_json(path: &Path, outcome: &Outcome) -> Result<(), BenchError> {
    let mut text = serde_json::to_string_pretty(outcome)
        .map_err(|error| BenchError::Settings(error.to_string()))?;
    text.push('\n');
    write(path, &text)
}

/// Writes the latencies of the main track as text that HdrHistogram's plotter reads.
pub fn write_hgrm(path: &Path, outcome: &Outcome) -> Result<(), BenchError> {
    let buckets = outcome.main_track().map(|track| &track.buckets[..]);
    write(path, &hgrm::percentiles(buckets.unwrap_or_default()))
}

/// Writes a page or a picture with charts, by the ending of the file's name.
pub fn write_chart(path: &Path, outcome: &Outcome) -> Result<(), BenchError> {
    let is_svg = path.extension().is_some_and(|ending| ending == "svg");
    let text = if is_svg {
        chart::svg(outcome)
    } else {
        page::html(outcome)
    };
    write(path, &text)
}

/// Compares two results that [`write_json`] wrote.
pub fn diff(before: &Path, after: &Path) -> Result<String, BenchError> {
    Ok(compare::diff(&read(before)?, &read(after)?))
}

fn read(path: &Path) -> Result<Outcome, BenchError> {
    let what = format!("cannot read {}", path.display());
    let text = fs::read_to_string(path).map_err(BenchError::io(&what))?;
    serde_json::from_str(&text).map_err(|error| BenchError::Settings(format!("{what}: {error}")))
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    fs::write(path, text).map_err(BenchError::io(format!("cannot write {}", path.display())))
}

#[cfg(test)]
mod tests;
