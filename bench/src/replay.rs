//! The shape of a recorded load: how long it had which rate and which sizes.
//!
//! A file has a line for each stretch: its length, its rate in requests a second (`1000`, or `1000-5000` where it changes evenly),
//! and its sizes (see [`Sizes`]), with blanks between; lines that begin with `#` are comments:
//!
//! ```text
//! 30s   2000        1KiB
//! 10s   2000-20000  128:9,4KiB:1
//! ```
//!
//! The JSON of an earlier run is such a recording too: each of its seconds with its rate and its mean size.

use std::str::FromStr;

use crate::expect::duration_ns;
use crate::measure::Track;
use crate::outcome::Outcome;
use crate::schedule::Segment;
use crate::sizes::Sizes;

/// A stretch of a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// Its length and rate.
    pub segment: Segment,
    /// Its sizes.
    pub sizes: Sizes,
}

/// Reads a recording in either form.
pub fn read(text: &str) -> Result<Vec<Stretch>, String> {
    let stretches = if text.trim_start().starts_with('{') {
        let outcome: Outcome = serde_json::from_str(text).map_err(|error| error.to_string())?;
        of_outcome(&outcome)?
    } else {
        let mut stretches = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let said = |error| format!("line {}: {error}", number + 1);
                stretches.push(line.parse().map_err(said)?);
            }
        }
        stretches
    };
    if stretches
        .iter()
        .all(|stretch: &Stretch| stretch.segment.from_rate + stretch.segment.to_rate <= 0.0)
    {
        return Err("nothing is sent in any stretch".to_owned());
    }
    Ok(stretches)
}

impl FromStr for Stretch {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (Some(length), Some(rate), Some(sizes), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("it needs a length, a rate and sizes: 30s 2000 1KiB".to_owned());
        };
        let (from, to) = rate.split_once('-').unwrap_or((rate, rate));
        let rate = |text: &str| match text.parse::<f64>() {
            Ok(rate) if (0.0..=1e9).contains(&rate) => Ok(rate),
            _ => Err(format!("`{text}` is no rate")),
        };
        let seconds = duration_ns(length)? as f64 / 1e9;
        if seconds <= 0.0 {
            return Err(format!("`{length}` has no length"));
        }
        Ok(Self {
            segment: Segment {
                seconds,
                from_rate: rate(from)?,
                to_rate: rate(to)?,
            },
            sizes: sizes.parse()?,
        })
    }
}

fn of_outcome(outcome: &Outcome) -> Result<Vec<Stretch>, String> {
    let track = outcome
        .track(Track::Send)
        .ok_or("nothing was sent in that run")?;
    let mean = track.counts.bytes / track.counts.messages.max(1);
    let of_point = |point: &crate::outcome::Point| {
        let size = match point.counts.messages {
            0 => mean,
            messages => point.counts.bytes / messages,
        };
        Stretch {
            segment: Segment::steady(point.counts.requests as f64, 1.0),
            sizes: Sizes::fixed(size as usize),
        }
    };
    Ok(track.series.iter().map(of_point).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_stretches() {
        let stretches =
            read("# morning\n30s 2000 1KiB\n\n 10s  2000-20000 128:9,4KiB:1\n").unwrap();
        assert_eq!(stretches.len(), 2);
        assert_eq!(stretches[0].segment, Segment::steady(2000.0, 30.0));
        assert_eq!(stretches[0].sizes, Sizes::fixed(1024));
        assert_eq!(stretches[1].segment.to_rate, 20_000.0);
        assert_eq!(stretches[1].sizes.max(), 4096);
    }

    #[test]
    fn what_is_no_recording_is_said_with_its_line() {
        for (text, wanted) in [
            ("", "nothing is sent"),
            ("10s 0 1KiB", "nothing is sent"),
            ("10s 5 1KiB\n10s x 1KiB", "line 2"),
            ("10s 5", "line 1"),
            ("0s 5 1KiB", "line 1"),
            ("{}", "missing field"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
