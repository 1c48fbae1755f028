//! What a user sees while a run goes on: one line that is rewritten on a terminal, a line a second elsewhere.

use std::io::{self, IsTerminal, Write};

use crate::measure::Track;
use crate::outcome::{Point, grouped, ms};

/// How wide the bar of progress is.
const BAR: u64 = 20;

/// The display, on standard error.
pub struct Live {
    terminal: bool,
    quiet: bool,
    /// How many seconds the run has; 0 where that is not known.
    seconds: u64,
}

impl Live {
    /// A display for a run of about so many seconds.
    pub fn new(seconds: u64, quiet: bool) -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            quiet,
            seconds,
        }
    }

    /// Shows a second of a run.
    pub fn show(&self, tracks: &[(Track, Point)]) {
        let Some((_, first)) = tracks.first().filter(|_| !self.quiet) else {
            return;
        };
        let line = line(first.second + 1, self.seconds, tracks, self.terminal);
        // A display that cannot be written is not worth ending a run for.
        let _ = if self.terminal {
            write!(io::stderr(), "\r\x1b[2K{line}").and_then(|()| io::stderr().flush())
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    /// Makes room for what follows.
    pub fn end(&self) {
        if self.terminal && !self.quiet {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}

fn line(second: u64, seconds: u64, tracks: &[(Track, Point)], bar: bool) -> String {
    let mut line = format!("{second:4} s");
    if bar && seconds > 0 {
        let full = (second * BAR / seconds).min(BAR) as usize;
        let empty = BAR as usize - full;
        line = format!(
            "[{}{}] {second}/{seconds} s",
            "#".repeat(full),
            ".".repeat(empty)
        );
    }
    for (track, point) in tracks {
        let name = format!("{track:?}").to_lowercase();
        let Point {
            counts, latency, ..
        } = point;
        line += &format!("  {name} {} msg/s", grouped(counts.messages));
        if latency.count > 0 {
            line += &format!(
                " p50 {} p99 {} max {}",
                ms(latency.p50_ns),
                ms(latency.p99_ns),
                ms(latency.max_ns)
            );
        }
        if counts.errors > 0 {
            line += &format!(" {} errors", grouped(counts.errors));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Counts;

    #[test]
    fn a_line_says_rate_latency_and_errors() {
        let point = Point {
            second: 4,
            counts: Counts {
                messages: 12_345,
                errors: 6,
                ..Counts::default()
            },
            ..Point::default()
        };
        assert_eq!(
            line(5, 10, &[(Track::Send, point)], true),
            "[##########..........] 5/10 s  send 12,345 msg/s 6 errors"
        );
        assert_eq!(
            line(5, 10, &[(Track::Send, point)], false),
            "   5 s  send 12,345 msg/s 6 errors"
        );
    }
}
