//! What a thread measures, second by second, and how it reaches the one who gathers.
//!
//! A [`Recorder`] has one histogram a track, which it hands over at the end of each second; the totals are the sum of
//! what was handed over. Rates count what was answered within the window of the measurement, latencies what was to be sent
//! within it, so that an answer that comes late still counts.

use std::ops::AddAssign;
use std::sync::mpsc::Sender;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies above it count as it.
const MAX_LATENCY_NS: u64 = 120_000_000_000;

/// How long a slice of the series is.
pub const SLICE_NS: u64 = 1_000_000_000;

/// An empty histogram of latencies in nanoseconds, exact to three digits.
pub fn latencies() -> Histogram<u64> {
    // The bounds are constants that the constructor takes.
    Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3).unwrap_or_else(|_| unreachable!())
}

/// What is measured at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Track {
    /// From the intended time of a send to its answer.
    Send,
    /// From a pull to its answer.
    Pull,
    /// From the intended time of a send to the arrival at a consumer, one by one message.
    Receipt,
    /// From a heartbeat to its answer.
    Heartbeat,
}

impl Track {
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were answered well.
    pub requests: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.errors += other.errors;
    }
}

/// The time that counts, in nanoseconds on the run's clock.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// When sending starts.
    pub start_ns: u64,
    /// When measuring starts, after the warm-up.
    pub from_ns: u64,
    /// When both end.
    pub to_ns: u64,
}

impl Window {
    fn has(&self, at_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&at_ns)
    }
}

/// One track of one thread in one slice.
#[derive(Debug)]
pub struct Slice {
    /// The slice's number, from the start of the window.
    pub number: u64,
    /// What was measured.
    pub track: Track,
    /// How often.
    pub counts: Counts,
    /// How long it took.
    pub latencies: Histogram<u64>,
    /// Answers other than success, by code.
    pub codes: Vec<(i32, u64)>,
}

struct Lane {
    counts: Counts,
    latencies: Histogram<u64>,
    codes: Vec<(i32, u64)>,
    used: bool,
}

/// Gathers the measurements of a thread.
pub struct Recorder {
    window: Window,
    number: u64,
    lanes: [Lane; Track::COUNT],
    slices: Sender<Slice>,
}

impl Recorder {
    /// A recorder that sends its slices there.
    pub fn new(window: Window, slices: Sender<Slice>) -> Self {
        Self {
            window,
            number: 0,
            lanes: std::array::from_fn(|_| Lane {
                counts: Counts::default(),
                latencies: latencies(),
                codes: Vec::new(),
                used: false,
            }),
            slices,
        }
    }

    /// Something that was intended at one time has succeeded at another.
    #[inline]
    pub fn done(&mut self, track: Track, intended_ns: u64, now_ns: u64, messages: u64, bytes: u64) {
        let lane = &mut self.lanes[track as usize];
        if self.window.has(now_ns) {
            lane.used = true;
            lane.counts.requests += 1;
            lane.counts.messages += messages;
            lane.counts.bytes += bytes;
        }
        if self.window.has(intended_ns) {
            lane.used = true;
            lane.latencies
                .saturating_record(now_ns.saturating_sub(intended_ns));
        }
    }

    /// Something that was intended at one time has not happened by another: its latency is at least that.
    pub fn waited(&mut self, track: Track, intended_ns: u64, now_ns: u64) {
        if self.window.has(intended_ns) {
            let lane = &mut self.lanes[track as usize];
            lane.used = true;
            lane.latencies
                .saturating_record(now_ns.saturating_sub(intended_ns));
        }
    }

    /// Something was answered with an error.
    pub fn failed(&mut self, track: Track, now_ns: u64, code: i32) {
        if !self.window.has(now_ns) {
            return;
        }
        let lane = &mut self.lanes[track as usize];
        lane.used = true;
        lane.counts.errors += 1;
        match lane.codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => lane.codes.push((code, 1)),
        }
    }

    /// Hands over the slices that are complete at this time.
    pub fn tick(&mut self, now_ns: u64) {
        let within = now_ns.clamp(self.window.from_ns, self.window.to_ns.max(1) - 1);
        let number = (within - self.window.from_ns) / SLICE_NS;
        if number > self.number {
            self.hand_over();
            self.number = number;
        }
    }

    /// Hands over what there is.
    pub fn finish(mut self) {
        self.hand_over();
    }

    fn hand_over(&mut self) {
        const TRACKS: [Track; Track::COUNT] =
            [Track::Send, Track::Pull, Track::Receipt, Track::Heartbeat];
        for (lane, track) in self.lanes.iter_mut().zip(TRACKS) {
            if !std::mem::take(&mut lane.used) {
                continue;
            }
            // Nobody gathers any more when the run was given up.
            let _ = self.slices.send(Slice {
                number: self.number,
                track,
                counts: std::mem::take(&mut lane.counts),
                latencies: lane.latencies.clone(),
                codes: std::mem::take(&mut lane.codes),
            });
            lane.latencies.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn slices_add_up_and_the_window_holds() {
        let (sender, slices) = mpsc::channel();
        let window = Window {
            start_ns: 0,
            from_ns: SLICE_NS,
            to_ns: 3 * SLICE_NS,
        };
        let mut recorder = Recorder::new(window, sender);
        let ms = 1_000_000;
        // Answered before the window, within its first slice, its second, and after it.
        recorder.done(Track::Send, 0, SLICE_NS - 1, 1, 10);
        recorder.done(Track::Send, SLICE_NS, SLICE_NS + ms, 2, 20);
        recorder.failed(Track::Pull, SLICE_NS + ms, 17);
        recorder.failed(Track::Pull, SLICE_NS + ms, 17);
        recorder.tick(2 * SLICE_NS + 1);
        recorder.done(Track::Send, 2 * SLICE_NS, 2 * SLICE_NS + 2 * ms, 4, 40);
        recorder.tick(3 * SLICE_NS + 1);
        recorder.done(Track::Send, 3 * SLICE_NS - 1, 4 * SLICE_NS, 8, 80);
        recorder.finish();
        let slices: Vec<Slice> = slices.iter().collect();
        let summary: Vec<_> = slices
            .iter()
            .map(|s| (s.number, s.track, s.counts.messages, s.latencies.len()))
            .collect();
        assert_eq!(
            summary,
            [
                (0, Track::Send, 2, 1),
                (0, Track::Pull, 0, 0),
                (1, Track::Send, 4, 2)
            ]
        );
        assert_eq!(slices[1].counts.errors, 2);
        assert_eq!(slices[1].codes, [(17, 2)]);
        assert!(slices[0].latencies.max().abs_diff(ms) < ms / 500);
        assert!(slices[2].latencies.max() > SLICE_NS);
    }
}
