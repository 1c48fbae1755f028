//! When requests are to leave in an open loop: the intended times, whatever the broker does.
//!
//! The times only go up. A latency that is counted from them includes what a request waited because the ones before it
//! were held up, so a stall of the broker is seen by all requests that it delayed.

use clap::ValueEnum;

use crate::random::Random;

/// How intended times are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Arrivals {
    /// Each after the same time.
    #[default]
    Even,
    /// As independent clients would send.
    Poisson,
}

/// A stretch of a schedule, in which the rate goes evenly from one to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// How long it is; endless where it is infinite.
    pub seconds: f64,
    /// Requests a second at its start.
    pub from_rate: f64,
    /// And at its end.
    pub to_rate: f64,
}

impl Segment {
    /// At one rate from beginning to end.
    pub fn steady(rate: f64, seconds: f64) -> Self {
        Self {
            seconds,
            from_rate: rate,
            to_rate: rate,
        }
    }

    fn requests(&self) -> f64 {
        (self.from_rate + self.to_rate) / 2.0 * self.seconds
    }

    /// How many seconds after its start so many requests are due: the inverse of the integral of the rate.
    fn time_of(&self, requests: f64) -> f64 {
        let growth = (self.to_rate - self.from_rate) / self.seconds;
        if growth == 0.0 || !self.seconds.is_finite() {
            return requests / self.from_rate;
        }
        let root = (self.from_rate.powi(2) + 2.0 * growth * requests)
            .max(0.0)
            .sqrt();
        2.0 * requests / (self.from_rate + root).max(f64::MIN_POSITIVE)
    }
}

/// An intended time, in nanoseconds on the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intended {
    /// When.
    pub at_ns: u64,
    /// The number of the segment that it is in.
    pub segment: usize,
}

/// The intended times of one thread. Behind the last segment there are none.
#[derive(Debug, Clone)]
pub struct Schedule {
    arrivals: Arrivals,
    segments: Vec<Segment>,
    /// Where the current segment starts, in nanoseconds.
    start_ns: f64,
    /// Requests that are due in the current segment up to `next`.
    position: f64,
    next: Intended,
    random: Random,
}

impl Schedule {
    /// The segments one behind the other from `start_ns` on.
    pub fn new(arrivals: Arrivals, segments: Vec<Segment>, start_ns: u64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut schedule = Self {
            arrivals,
            segments,
            start_ns: start_ns as f64,
            // Threads with the same rate do not send at the same moments.
            position: random.unit(),
            next: Intended {
                at_ns: start_ns,
                segment: 0,
            },
            random,
        };
        schedule.find_next();
        schedule
    }

    /// The next intended time; `u64::MAX` behind the last.
    pub fn next_ns(&self) -> u64 {
        self.next.at_ns
    }

    /// Takes the next intended time, and goes on to the one after it.
    pub fn take(&mut self) -> Intended {
        let taken = self.next;
        self.position += match self.arrivals {
            Arrivals::Even => 1.0,
            Arrivals::Poisson => -self.random.unit().ln(),
        };
        self.find_next();
        taken
    }

    fn find_next(&mut self) {
        while let Some(segment) = self.segments.get(self.next.segment) {
            if self.position < segment.requests() {
                let at_ns = (self.start_ns + segment.time_of(self.position) * 1e9) as u64;
                // Rounding never makes time go back.
                self.next.at_ns = at_ns.max(self.next.at_ns);
                return;
            }
            self.position -= segment.requests();
            self.start_ns += segment.seconds * 1e9;
            self.next.segment += 1;
        }
        self.next.at_ns = u64::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn count_until(schedule: &mut Schedule, end_ns: u64) -> usize {
        let mut count = 0;
        let mut last = 0;
        while schedule.next_ns() < end_ns {
            let at = schedule.take().at_ns;
            assert!(at >= last);
            last = at;
            count += 1;
        }
        count
    }

    fn steady(arrivals: Arrivals, rate: f64, start_ns: u64) -> Schedule {
        let segments = vec![Segment::steady(rate, f64::INFINITY)];
        Schedule::new(arrivals, segments, start_ns, 7)
    }

    #[test]
    fn even_arrivals_are_even() {
        let mut schedule = steady(Arrivals::Even, 1000.0, SECOND);
        let first = schedule.take().at_ns;
        assert!((SECOND..=SECOND + 1_000_000).contains(&first));
        for number in 1..=10_000 {
            let wanted = first + number * 1_000_000;
            assert!(schedule.take().at_ns.abs_diff(wanted) < 1000);
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_its_spread() {
        let mut schedule = steady(Arrivals::Poisson, 10_000.0, 0);
        let counts: Vec<f64> = (1..=1000)
            .map(|slice| count_until(&mut schedule, slice * SECOND / 100) as f64)
            .collect();
        let mean = counts.iter().sum::<f64>() / 1000.0;
        let variance = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / 1000.0;
        assert!((mean - 100.0).abs() < 2.0, "{mean}");
        // Mean and variance of a Poisson process are the same.
        assert!((variance - 100.0).abs() < 20.0, "{variance}");
    }

    fn per_second(segments: &[Segment], seconds: u64) -> Vec<usize> {
        let mut schedule = Schedule::new(Arrivals::Even, segments.to_vec(), 0, 7);
        (1..=seconds)
            .map(|second| count_until(&mut schedule, second * SECOND))
            .collect()
    }

    fn assert_near(counts: &[usize], wanted: &[usize]) {
        let near = |(count, wanted): (&usize, &usize)| count.abs_diff(*wanted) <= 1;
        assert!(counts.iter().zip(wanted).all(near), "{counts:?}");
        assert_eq!(counts.len(), wanted.len());
    }

    #[test]
    fn a_ramp_grows_evenly() {
        let ramp = Segment {
            seconds: 4.0,
            from_rate: 0.0,
            to_rate: 1000.0,
        };
        let segments = [ramp, Segment::steady(1000.0, f64::INFINITY)];
        assert_near(&per_second(&segments, 6), &[125, 375, 625, 875, 1000, 1000]);
    }

    #[test]
    fn segments_follow_each_other_and_end() {
        let down = Segment {
            seconds: 2.0,
            from_rate: 400.0,
            to_rate: 0.0,
        };
        let segments = [
            Segment::steady(100.0, 2.0),
            Segment::steady(0.0, 1.0),
            down,
            Segment::steady(50.0, 1.0),
        ];
        assert_near(
            &per_second(&segments, 8),
            &[100, 100, 0, 300, 100, 50, 0, 0],
        );
        let mut schedule = Schedule::new(Arrivals::Even, segments.to_vec(), 0, 7);
        let mut seen = [0; 4];
        while schedule.next_ns() < u64::MAX {
            seen[schedule.take().segment] += 1;
        }
        assert_near(&seen, &[200, 0, 400, 50]);
    }
}
