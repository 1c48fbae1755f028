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

/// The intended times of one thread, in nanoseconds on the run's clock.
#[derive(Debug, Clone)]
pub struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    start_ns: u64,
    ramp_ns: f64,
    /// Expected number of arrivals up to `next`.
    position: f64,
    next_ns: u64,
    random: Random,
}

impl Schedule {
    /// `rate` requests a second from `start_ns` on; with a ramp the rate grows evenly from 0 over its first `ramp_ns`.
    pub fn new(arrivals: Arrivals, rate: f64, start_ns: u64, ramp_ns: u64, seed: u64) -> Self {
        let mut schedule = Self {
            arrivals,
            rate,
            start_ns,
            ramp_ns: ramp_ns as f64,
            position: 0.0,
            next_ns: start_ns,
            random: Random::new(seed),
        };
        // Threads with the same rate do not send at the same moments.
        schedule.position = schedule.random.unit();
        schedule.next_ns = schedule.time_of(schedule.position);
        schedule
    }

    /// The next intended time.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Takes the next intended time, and goes on to the one after it.
    pub fn take(&mut self) -> u64 {
        let taken = self.next_ns;
        self.position += match self.arrivals {
            Arrivals::Even => 1.0,
            Arrivals::Poisson => -self.random.unit().ln(),
        };
        self.next_ns = self.time_of(self.position).max(taken);
        taken
    }

    /// When so many requests are due: the inverse of the integral of the rate.
    fn time_of(&self, position: f64) -> u64 {
        let seconds_of_ramp = self.ramp_ns / 1e9;
        let in_ramp = self.rate * seconds_of_ramp / 2.0;
        let seconds = if position < in_ramp {
            (2.0 * position * seconds_of_ramp / self.rate).sqrt()
        } else {
            seconds_of_ramp + (position - in_ramp) / self.rate
        };
        self.start_ns + (seconds * 1e9) as u64
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
            let at = schedule.take();
            assert!(at >= last);
            last = at;
            count += 1;
        }
        count
    }

    #[test]
    fn even_arrivals_are_even() {
        let mut schedule = Schedule::new(Arrivals::Even, 1000.0, SECOND, 0, 7);
        let first = schedule.take();
        assert!((SECOND..=SECOND + 1_000_000).contains(&first));
        for number in 1..=10_000 {
            let wanted = first + number * 1_000_000;
            assert!(schedule.take().abs_diff(wanted) < 1000);
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_its_spread() {
        let mut schedule = Schedule::new(Arrivals::Poisson, 10_000.0, 0, 0, 7);
        let counts: Vec<f64> = (1..=1000)
            .map(|slice| count_until(&mut schedule, slice * SECOND / 100) as f64)
            .collect();
        let mean = counts.iter().sum::<f64>() / 1000.0;
        let variance = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / 1000.0;
        assert!((mean - 100.0).abs() < 2.0, "{mean}");
        // Mean and variance of a Poisson process are the same.
        assert!((variance - 100.0).abs() < 20.0, "{variance}");
    }

    #[test]
    fn a_ramp_grows_evenly() {
        let mut schedule = Schedule::new(Arrivals::Even, 1000.0, 0, 4 * SECOND, 7);
        let counts: Vec<usize> = (1..=6)
            .map(|second| count_until(&mut schedule, second * SECOND))
            .collect();
        for (count, wanted) in counts.iter().zip([125, 375, 625, 875, 1000, 1000]) {
            assert!(count.abs_diff(wanted) <= 1, "{counts:?}");
        }
    }
}
