//! What a user sees while a run goes on: on a terminal a few lines that are drawn again each second, a line a second elsewhere.

use std::io::{self, IsTerminal, Write};

use crate::measure::Track;
use crate::outcome::{Point, grouped, ms};

/// How wide the bar of progress is.
const BAR: u64 = 20;

/// How many of the last seconds have their rate drawn.
const DRAWN: usize = 40;

/// The display, on standard error.
pub struct Live {
    terminal: bool,
    quiet: bool,
    /// How many seconds the run has; 0 where that is not known.
    seconds: u64,
    /// The rates of the first track so far.
    rates: Vec<u64>,
    /// Lines that stand on the terminal.
    lines: usize,
}

impl Live {
    /// A display for a run of about so many seconds.
    pub fn new(seconds: u64, quiet: bool) -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            quiet,
            seconds,
            rates: Vec::new(),
            lines: 0,
        }
    }

    /// Shows a second of a run.
    pub fn show(&mut self, tracks: &[(Track, Point)]) {
        let Some((_, first)) = tracks.first().filter(|_| !self.quiet) else {
            return;
        };
        let second = first.second + 1;
        if !self.terminal {
            let parts: Vec<String> = tracks.iter().map(part).collect();
            // A display that cannot be written is not worth ending a run for.
            let _ = writeln!(io::stderr(), "{second:4} s  {}", parts.join("  "));
            return;
        }
        self.rates.push(first.counts.requests);
        let mut text = self.back();
        text += &format!(
            "{}  {}\n",
            progress(second, self.seconds),
            drawn(&self.rates)
        );
        for track in tracks {
            // A line that the terminal breaks could not be drawn over.
            let line: String = part(track).chars().take(79).collect();
            text += &format!("{line}\n");
        }
        self.lines = 1 + tracks.len();
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// Makes room for what follows.
    pub fn end(&mut self) {
        let _ = io::stderr().write_all(self.back().as_bytes());
        self.lines = 0;
    }

    /// To the beginning of what stands there, which is cleared.
    fn back(&self) -> String {
        match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}F\x1b[J"),
        }
    }
}

fn progress(second: u64, seconds: u64) -> String {
    if seconds == 0 {
        return format!("{second} s");
    }
    let full = (second * BAR / seconds).min(BAR) as usize;
    let empty = BAR as usize - full;
    let (full, empty) = ("#".repeat(full), ".".repeat(empty));
    format!("[{full}{empty}] {second}/{seconds} s")
}

/// The last rates, as heights up to the highest of them.
fn drawn(rates: &[u64]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last = &rates[rates.len().saturating_sub(DRAWN)..];
    let highest = last.iter().copied().max().unwrap_or(0).max(1);
    let height = |rate: &u64| HEIGHTS[((rate * 7).div_ceil(highest)) as usize];
    last.iter().map(height).collect()
}

/// What a second of a track was.
fn part((track, point): &(Track, Point)) -> String {
    let Point {
        counts, latency, ..
    } = point;
    let name = format!("{track:?}").to_lowercase();
    let mut part = match track {
        Track::Heartbeat => format!("{name} {:>10} /s", grouped(counts.requests)),
        _ => format!("{name:8} {:>11} msg/s", grouped(counts.messages)),
    };
    if latency.count > 0 {
        part += &format!(
            "  p50 {} p99 {} max {}",
            ms(latency.p50_ns),
            ms(latency.p99_ns),
            ms(latency.max_ns)
        );
    }
    if counts.errors > 0 {
        part += &format!("  {} errors", grouped(counts.errors));
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Counts;
    use crate::outcome::Latency;

    #[test]
    fn a_second_says_rate_latency_and_errors() {
        let mut point = Point {
            second: 4,
            counts: Counts {
                messages: 12_345,
                errors: 6,
                ..Counts::default()
            },
            ..Point::default()
        };
        let text = part(&(Track::Send, point));
        assert_eq!(text, "send          12,345 msg/s  6 errors");
        point.counts.messages = 12_345_678;
        point.latency = Latency {
            count: 1,
            p50_ns: 12_345_678,
            p99_ns: 1_234_567_890,
            max_ns: 1_234_567_890,
            ..Latency::default()
        };
        // Fits into 80 columns.
        assert!(part(&(Track::Receipt, point)).len() < 80);
    }

    #[test]
    fn progress_and_rates_are_drawn() {
        assert_eq!(progress(5, 10), "[##########..........] 5/10 s");
        assert_eq!(progress(5, 0), "5 s");
        assert_eq!(progress(600, 3600), "[###.................] 600/3600 s");
        assert_eq!(drawn(&[0, 50, 100]), "▁▅█");
        assert_eq!(drawn(&[7; 100]).chars().count(), DRAWN);
    }

    #[test]
    fn what_stands_there_is_drawn_over() {
        let mut live = Live::new(10, false);
        assert_eq!(live.back(), "");
        live.lines = 3;
        assert_eq!(live.back(), "\x1b[3F\x1b[J");
    }
}
