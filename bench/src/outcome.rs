//! What a run comes to: figures for people and for scripts.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use corelane_wire::code::response;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::check::Findings;
use crate::measure::{Counts, Slice, Track, latencies};

/// A run's results. This is also the form of `--json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The version of the generator.
    pub version: String,
    /// What was run: `send`, `consume` ...
    pub workload: String,
    /// The arguments.
    pub arguments: Vec<String>,
    /// The brokers, as `name host:port`.
    pub brokers: Vec<String>,
    /// How many queues were used.
    pub queues: usize,
    /// When measuring started, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long was measured.
    pub seconds: f64,
    /// What was measured.
    pub tracks: Vec<TrackOutcome>,
    /// Messages that were sent and not answered.
    pub unanswered: u64,
    /// Requests of an open loop that were due and had no room by the end.
    #[serde(default)]
    pub unsent: u64,
    /// Answers that nobody waited for.
    pub unexpected: u64,
    /// Connections that ended, and why.
    pub closed: Vec<String>,
    /// What was found about the messages, where it was looked for.
    pub findings: Option<Findings>,
    /// How busy the generator was.
    pub generator: Generator,
    /// The expectations that were not met.
    pub missed: Vec<String>,
}

/// The figures of one track.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackOutcome {
    /// Which.
    pub track: Track,
    /// Totals.
    pub counts: Counts,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Messages a second.
    pub messages_per_second: f64,
    /// Bytes of bodies a second.
    pub bytes_per_second: f64,
    /// Errors by code.
    pub codes: BTreeMap<i32, u64>,
    /// Latencies.
    pub latency: Latency,
    /// Second by second.
    pub series: Vec<Point>,
    /// The histogram: upper end of a bucket in nanoseconds, and how many are in it.
    pub buckets: Vec<(u64, u64)>,
}

/// Latencies in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub count: u64,
    pub min_ns: u64,
    pub mean_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub p9999_ns: u64,
    pub max_ns: u64,
}

impl Latency {
    /// The percentiles of a histogram.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean() as u64,
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            p9999_ns: histogram.value_at_quantile(0.9999),
            max_ns: histogram.max(),
        }
    }
}

/// A second of a track.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// From the start of measuring.
    pub second: u64,
    /// What was done in it.
    pub counts: Counts,
    /// The latencies of what was answered in it.
    pub latency: Latency,
}

/// How busy the generator was.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generator {
    /// Its threads.
    pub threads: Vec<ThreadShare>,
    /// The 99th percentile of how late requests of an open loop left although there was room.
    pub lateness_p99_ns: u64,
    /// Why the generator limited the run, if it did.
    pub limited: Option<String>,
}

/// Shares of a thread's time, from 0 to 1.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadShare {
    /// Its core, if it is kept on one.
    pub core: Option<usize>,
    /// It worked.
    pub busy: f64,
    /// It could have worked, and others had its core.
    pub kept_waiting: f64,
}

impl Generator {
    /// Says whether threads with these shares limited the run.
    pub fn new(threads: Vec<ThreadShare>, lateness: &Histogram<u64>) -> Self {
        let lateness_p99_ns = if lateness.is_empty() {
            0
        } else {
            lateness.value_at_quantile(0.99)
        };
        let most = |of: fn(&ThreadShare) -> f64| threads.iter().map(of).fold(0.0, f64::max);
        let used = most(|thread| thread.busy + thread.kept_waiting);
        let kept_waiting = most(|thread| thread.kept_waiting);
        let limited = if used > 0.95 && kept_waiting > 0.1 {
            Some("others had its core: give it cores of its own with --cores".to_owned())
        } else if used > 0.95 {
            Some("it had no time left: give it more --threads".to_owned())
        } else if lateness_p99_ns > 1_000_000 && kept_waiting > 0.01 {
            Some("it could not keep its schedule, as others had its core".to_owned())
        } else if lateness_p99_ns > 1_000_000 {
            Some("it could not keep its schedule: give it more --threads".to_owned())
        } else {
            None
        };
        Self {
            threads,
            lateness_p99_ns,
            limited,
        }
    }
}

/// One track while slices of it come in.
#[derive(Debug)]
pub struct Gathered {
    /// Totals.
    pub counts: Counts,
    /// All latencies.
    pub latencies: Histogram<u64>,
    codes: BTreeMap<i32, u64>,
    seconds: BTreeMap<u64, (Counts, Histogram<u64>)>,
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            latencies: latencies(),
            codes: BTreeMap::new(),
            seconds: BTreeMap::new(),
        }
    }
}

impl Gathered {
    /// Adds a slice.
    pub fn add(&mut self, slice: Slice) {
        self.counts += slice.counts;
        // All histograms have the same bounds.
        let _ = self.latencies.add(&slice.latencies);
        for (code, count) in slice.codes {
            *self.codes.entry(code).or_default() += count;
        }
        match self.seconds.get_mut(&slice.number) {
            Some((counts, latencies)) => {
                *counts += slice.counts;
                let _ = latencies.add(&slice.latencies);
            }
            None => {
                self.seconds
                    .insert(slice.number, (slice.counts, slice.latencies));
            }
        }
    }

    /// The figures of one second so far.
    pub fn point(&self, second: u64) -> Point {
        let (counts, latency) = match self.seconds.get(&second) {
            Some((counts, latencies)) => (*counts, Latency::of(latencies)),
            None => Default::default(),
        };
        Point {
            second,
            counts,
            latency,
        }
    }

    /// The end, after so many seconds of measuring.
    pub fn finish(self, track: Track, seconds: f64) -> TrackOutcome {
        let a_second = |count: u64| count as f64 / seconds.max(1e-9);
        let last = self.seconds.keys().next_back().copied().unwrap_or(0);
        let end = last.min(seconds.ceil() as u64);
        let series = (0..=end).map(|second| self.point(second)).collect();
        let buckets = self
            .latencies
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
            .collect();
        TrackOutcome {
            track,
            counts: self.counts,
            requests_per_second: a_second(self.counts.requests),
            messages_per_second: a_second(self.counts.messages),
            bytes_per_second: a_second(self.counts.bytes),
            latency: Latency::of(&self.latencies),
            codes: self.codes,
            series,
            buckets,
        }
    }
}

impl Outcome {
    /// The figures of a track.
    pub fn track(&self, track: Track) -> Option<&TrackOutcome> {
        self.tracks.iter().find(|found| found.track == track)
    }

    /// The track that the workload is about.
    pub fn main_track(&self) -> Option<&TrackOutcome> {
        [Track::Receipt, Track::Send, Track::Pull, Track::Heartbeat]
            .into_iter()
            .find_map(|track| self.track(track))
    }

    /// Whether nothing was lost, every expectation was met, and not everything was refused.
    pub fn is_good(&self) -> bool {
        let refused = |track: &TrackOutcome| track.counts.errors > 0 && track.counts.requests == 0;
        self.missed.is_empty()
            && !self.tracks.iter().any(refused)
            && self.unanswered == 0
            && self.closed.is_empty()
            && self.findings.is_none_or(|findings| findings.is_clean())
    }
}

/// The results as lines for people.
impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for track in &self.tracks {
            write_track(out, track)?;
        }
        if self.tracks.is_empty() {
            writeln!(out, "nothing  was answered while it was measured")?;
        }
        if let Some(findings) = &self.findings {
            let verdict = if findings.is_clean() {
                "clean"
            } else {
                "NOT CLEAN"
            };
            writeln!(
                out,
                "check    {verdict}: {} acknowledged, {} arrived, {} lost, {} duplicates, {} misplaced, \
                 {} out of order, {} damaged, {} without an acknowledgement ({} allowed)",
                grouped(findings.acknowledged),
                grouped(findings.arrived),
                findings.lost,
                findings.duplicates,
                findings.misplaced,
                findings.out_of_order,
                findings.damaged,
                findings.unacknowledged,
                findings.uncertain,
            )?;
        }
        if self.unanswered > 0 {
            writeln!(out, "NO ANSWER to {} messages", grouped(self.unanswered))?;
        }
        if self.unsent > 0 {
            let unsent = grouped(self.unsent);
            writeln!(
                out,
                "NOT SENT {unsent} requests that were due: latencies count them as if they were answered at the end"
            )?;
        }
        if let Some(first) = self.closed.first() {
            writeln!(out, "ENDED    {} connections: {first}", self.closed.len())?;
        }
        let mut shares = String::new();
        for (number, thread) in self.generator.threads.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let core = match thread.core {
                Some(core) => format!(" on core {core}"),
                None => String::new(),
            };
            write!(shares, "{comma}{:.0} %{core}", thread.busy * 100.0)?;
            if thread.kept_waiting > 0.02 {
                let waited = thread.kept_waiting * 100.0;
                write!(shares, " (and {waited:.0} % kept waiting by others)")?;
            }
        }
        writeln!(out, "busy     {shares}")?;
        if let Some(why) = &self.generator.limited {
            writeln!(out, "LIMITED  by the load generator: {why}")?;
        }
        for missed in &self.missed {
            writeln!(out, "MISSED   {missed}")?;
        }
        Ok(())
    }
}

fn write_track(out: &mut fmt::Formatter<'_>, track: &TrackOutcome) -> fmt::Result {
    let name = format!("{:?}", track.track).to_lowercase();
    let TrackOutcome {
        counts, latency, ..
    } = track;
    if track.track == Track::Heartbeat {
        writeln!(
            out,
            "{name} {:.1} requests/s; {} requests, {} errors",
            track.requests_per_second,
            grouped(counts.requests),
            grouped(counts.errors),
        )?;
    } else {
        writeln!(
            out,
            "{name:8} {} msg/s, {} requests/s, {:.1} MB/s; {} messages, {} errors",
            grouped(track.messages_per_second as u64),
            grouped(track.requests_per_second as u64),
            track.bytes_per_second / 1e6,
            grouped(counts.messages),
            grouped(counts.errors),
        )?;
    }
    if latency.count > 0 {
        writeln!(
            out,
            "         p50 {}  p90 {}  p99 {}  p99.9 {}  p99.99 {}  max {}  mean {}",
            ms(latency.p50_ns),
            ms(latency.p90_ns),
            ms(latency.p99_ns),
            ms(latency.p999_ns),
            ms(latency.p9999_ns),
            ms(latency.max_ns),
            ms(latency.mean_ns),
        )?;
    }
    for (code, count) in &track.codes {
        let name = response::name(*code).unwrap_or("unknown");
        writeln!(out, "         {} x {name}({code})", grouped(*count))?;
    }
    Ok(())
}

/// A duration in milliseconds with three digits that count.
pub fn ms(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    match ms {
        ..10.0 => format!("{ms:.3} ms"),
        ..100.0 => format!("{ms:.1} ms"),
        _ => format!("{ms:.0} ms"),
    }
}

/// A number with commas between the thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(number: u64, messages: u64, latency_ns: u64) -> Slice {
        let mut histogram = latencies();
        histogram.record_n(latency_ns, messages).unwrap();
        Slice {
            number,
            track: Track::Send,
            counts: Counts {
                requests: messages,
                messages,
                bytes: messages * 10,
                errors: 1,
            },
            latencies: histogram,
            codes: vec![(2, 1)],
        }
    }

    #[test]
    fn slices_of_threads_are_one_track() {
        let mut gathered = Gathered::default();
        gathered.add(slice(0, 100, 1_000_000));
        gathered.add(slice(0, 100, 3_000_000));
        gathered.add(slice(2, 200, 5_000_000));
        assert_eq!(gathered.point(0).counts.messages, 200);
        let track = gathered.finish(Track::Send, 4.0);
        assert_eq!(track.messages_per_second, 100.0);
        assert_eq!(track.bytes_per_second, 1000.0);
        assert_eq!(track.codes, BTreeMap::from([(2, 3)]));
        let per_second: Vec<u64> = track.series.iter().map(|p| p.counts.messages).collect();
        assert_eq!(per_second, [200, 0, 200]);
        let near = |ns: u64, wanted: u64| ns.abs_diff(wanted) < wanted / 500;
        assert!(near(track.latency.p50_ns, 3_000_000), "{:?}", track.latency);
        assert!(near(track.latency.max_ns, 5_000_000), "{:?}", track.latency);
        assert_eq!(
            track.buckets.iter().map(|bucket| bucket.1).sum::<u64>(),
            400
        );
    }

    #[test]
    fn the_generator_says_when_it_limits() {
        let thread = |busy, kept_waiting| {
            vec![ThreadShare {
                core: None,
                busy,
                kept_waiting,
            }]
        };
        let on_time = latencies();
        assert_eq!(Generator::new(thread(0.6, 0.0), &on_time).limited, None);
        assert!(
            Generator::new(thread(0.99, 0.0), &on_time)
                .limited
                .is_some()
        );
        assert!(
            Generator::new(thread(0.5, 0.48), &on_time)
                .limited
                .is_some()
        );
        let mut late = latencies();
        late.record_n(5_000_000, 10).unwrap();
        assert!(Generator::new(thread(0.2, 0.0), &late).limited.is_some());
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(ms(70_600), "0.071 ms");
        assert_eq!(ms(12_345_678), "12.3 ms");
    }
}
