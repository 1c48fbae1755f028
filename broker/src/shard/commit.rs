//! Which way a group goes to the disk, and when the next one is closed.
//!
//! * **Here**, on the shard's thread, when nothing else is to be done: the shortest way for a message that is alone.
//! * **By the writer**, a thread of the same core ([`super::writer`]): the shard serves meanwhile, and what it appends is
//!   the next group. This is the way of a busy shard.
//! * **Through the ring**, beside a write that is under way, when so much has gathered that the device should have both, or
//!   when the one under way is slow: several writes at once are how a disk with a long way is kept busy.

#![allow(
    clippy::disallowed_methods,
    reason = "measures how long a write takes, on which only the way of the next one depends"
)]

use std::time::{Duration, Instant};

/// A longer group is never written here.
const LONGEST_HERE_BYTES: u64 = 128 << 10;
/// Turns with more requests leave the shard no time to write here.
const MOST_REQUESTS_HERE: u32 = 1;
/// While a write takes longer than this, another may go beside it.
const SLOW: Duration = Duration::from_millis(1);
/// After a slow write, so many go another way before one is tried here.
const AFTER_SLOW: u32 = 8;
/// When so much has gathered, it goes beside the write that is under way.
const LONG_BYTES: u64 = 1 << 20;
/// A kernel worker that ends a write of the ring is let onto the core when a write is so old, and not more often.
const YIELD_EVERY: Duration = Duration::from_micros(100);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// On the shard's thread.
    Here,
    /// By the writer.
    Writer,
    /// Through the ring.
    Ring,
    /// Not yet: it goes on gathering.
    Later,
}

/// What is known of the disk's speed.
#[derive(Default)]
pub struct Commit {
    /// Writes that still go another way before one is tried here.
    not_here: u32,
    yielded: Option<Instant>,
}

impl Commit {
    /// The way of what has gathered: `bytes`. `began`: since when the writer has a write. `requests`: how many the turn
    /// had. `in_ring`: writes of the ring under way.
    pub fn way(
        &mut self,
        bytes: u64,
        began: Option<Instant>,
        requests: u32,
        in_ring: usize,
    ) -> Way {
        if bytes == 0 {
            return Way::Later;
        }
        match began {
            Some(began) if bytes >= LONG_BYTES || began.elapsed() > SLOW => return Way::Ring,
            Some(_) => return Way::Later,
            None => {}
        }
        if in_ring > 0 || requests > MOST_REQUESTS_HERE || bytes > LONGEST_HERE_BYTES {
            return Way::Writer;
        }
        if self.not_here > 0 {
            self.not_here -= 1;
            return Way::Writer;
        }
        Way::Here
    }

    /// Runs a write on the shard's thread, and notes how long it took.
    pub fn timed<T>(&mut self, write: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = write();
        if began.elapsed() > SLOW {
            self.not_here = AFTER_SLOW;
        }
        result
    }

    /// Lets others onto the core for a moment while writes of the ring are under way: a busy shard would keep the kernel's
    /// worker waiting until its time slice is over.
    pub fn let_writes_end(&mut self, in_ring: usize) {
        if in_ring == 0 {
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
    fn a_lone_small_group_is_written_here_and_others_are_not() {
        let mut commit = Commit::default();
        assert_eq!(commit.way(0, None, 0, 0), Way::Later, "nothing to write");
        assert_eq!(commit.way(4096, None, 1, 0), Way::Here);
        assert_eq!(commit.way(4096, None, 2, 0), Way::Writer, "others wait");
        assert_eq!(
            commit.way(4096, None, 1, 1),
            Way::Writer,
            "a write of the ring"
        );
        let long = LONGEST_HERE_BYTES + 1;
        assert_eq!(commit.way(long, None, 1, 0), Way::Writer);
    }

    #[test]
    fn groups_gather_while_one_is_written_unless_it_is_slow_or_they_are_long() {
        let mut commit = Commit::default();
        let now = Some(Instant::now());
        assert_eq!(commit.way(4096, now, 1, 0), Way::Later);
        assert_eq!(commit.way(LONG_BYTES, now, 1, 0), Way::Ring);
        let long_ago = Instant::now().checked_sub(SLOW * 2);
        assert_eq!(commit.way(4096, long_ago, 1, 0), Way::Ring);
    }

    #[test]
    fn after_a_slow_write_here_the_next_ones_go_another_way() {
        let mut commit = Commit::default();
        commit.timed(|| std::thread::sleep(SLOW * 2));
        for _ in 0..AFTER_SLOW {
            assert_eq!(commit.way(4096, None, 1, 0), Way::Writer);
        }
        assert_eq!(commit.way(4096, None, 1, 0), Way::Here);
    }
}
