//! Which core a thread runs on, and how much of it the thread had.

use std::fs;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// What the scheduler says of a thread, since it started.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTimes {
    /// On a core, in nanoseconds.
    pub ran_ns: u64,
    /// Ready to run, and kept waiting by others.
    pub kept_waiting_ns: u64,
}

impl CpuTimes {
    /// Of the calling thread; zeros where the kernel does not keep them.
    pub fn of_this_thread() -> Self {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut numbers = text
            .split_whitespace()
            .map(|number| number.parse().unwrap_or(0));
        Self {
            ran_ns: numbers.next().unwrap_or(0),
            kept_waiting_ns: numbers.next().unwrap_or(0),
        }
    }

    /// What was added since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            ran_ns: self.ran_ns.saturating_sub(earlier.ran_ns),
            kept_waiting_ns: self.kept_waiting_ns.saturating_sub(earlier.kept_waiting_ns),
        }
    }
}

/// Keeps the calling thread on one core.
pub fn pin(core: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Lets timed waits of the calling thread end when they should.
pub fn wake_in_time() {
    // Only precision is lost without it.
    let _ = nix::sys::prctl::set_timerslack(1);
}

/// Cores as a list: `1`, `0,2`, `1-3`.
pub fn parse_cores(text: &str) -> Result<Vec<usize>, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .map_err(|_| format!("`{part}` is no core: write 1 or 0,2 or 1-3"))
        };
        let (from, to) = (number(from)?, number(to)?);
        if from > to || to >= CpuSet::count() {
            return Err(format!("`{part}` is no range of cores"));
        }
        cores.extend(from..=to);
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse_cores("1"), Ok(vec![1]));
        assert_eq!(parse_cores("0,2-4"), Ok(vec![0, 2, 3, 4]));
        for wrong in ["", "a", "3-1", "1-", "99999"] {
            assert!(parse_cores(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_busy_thread_has_run() {
        pin(0).unwrap();
        let before = CpuTimes::of_this_thread();
        let mut random = crate::random::Random::new(1);
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 200 {
            std::hint::black_box(random.next());
        }
        let times = CpuTimes::of_this_thread().since(&before);
        // On a busy machine it had to wait for a part of it.
        let total_ms = (times.ran_ns + times.kept_waiting_ns) / 1_000_000;
        assert!((150..260).contains(&total_ms), "{times:?}");
        assert!(times.ran_ns > 0);
    }
}
