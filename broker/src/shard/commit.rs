//! Which way a group goes to the disk: at once on the shard's own thread, or through the ring beside everything else.
//!
//! A durable write that has to flush the device's cache ends in a worker of the kernel. Through the ring that worker has
//! to get the core first, which the shard itself keeps busy; on the shard's own thread the write ends where it began. So a
//! small group is written at once when nothing else waits for the shard and writes were quick lately; what arrives
//! meanwhile is the next group. A long group, or a slow disk, goes through the ring, and the shard goes on serving.
//!
//! Where the device needs no flush the kernel ends a write of the ring in the ring, and both ways cost nearly the same.

#![allow(
    clippy::disallowed_methods,
    reason = "measures how long a write took, and nothing depends on it but the way of the next"
)]

use std::time::{Duration, Instant};

/// A longer group goes through the ring: its transfer is time in which others can be served.
const LONGEST_BYTES: usize = 128 << 10;
/// While writes take longer than this, they go through the ring.
const QUICK: Duration = Duration::from_millis(2);
/// After a slow write, so many go through the ring before another is tried.
const AFTER_SLOW: u32 = 8;
/// A worker that ends a write of the ring is let onto the core when a write is so old, and not more often.
const YIELD_EVERY: Duration = Duration::from_micros(100);

/// What is known of the disk's speed.
pub struct Commit {
    /// Writes that still go through the ring before another is tried on the thread.
    ring_only: u32,
    yielded: Option<Instant>,
}

impl Commit {
    /// Nothing is known: the first write is tried on the thread.
    pub fn new() -> Self {
        Self {
            ring_only: 0,
            yielded: None,
        }
    }

    /// Whether a group of `bytes` is to be written on the thread, where nothing else waits for the shard.
    pub fn at_once(&mut self, bytes: usize) -> bool {
        if self.ring_only > 0 {
            self.ring_only -= 1;
            return false;
        }
        bytes <= LONGEST_BYTES
    }

    /// Runs a write on the thread, and notes how long it took.
    pub fn timed<T>(&mut self, write: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = write();
        if began.elapsed() > QUICK {
            self.ring_only = AFTER_SLOW;
        }
        result
    }

    /// Lets others onto the core for a moment while writes of the ring are in flight: a busy shard would keep the kernel's
    /// worker waiting until its time slice is over.
    pub fn let_writes_end(&mut self, in_flight: bool) {
        if !in_flight {
            self.yielded = None;
            return;
        }
        let now = Instant::now();
        match self.yielded {
            Some(last) if now.duration_since(last) < YIELD_EVERY => {}
            Some(_) => {
                std::thread::yield_now();
                self.yielded = Some(now);
            }
            None => self.yielded = Some(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_write_sends_the_next_ones_through_the_ring() {
        let mut commit = Commit::new();
        assert!(commit.at_once(4096));
        assert!(!commit.at_once(LONGEST_BYTES + 1));
        commit.timed(|| std::thread::sleep(QUICK * 2));
        for _ in 0..AFTER_SLOW {
            assert!(!commit.at_once(4096));
        }
        assert!(commit.at_once(4096));
    }
}
