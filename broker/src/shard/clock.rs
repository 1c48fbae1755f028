//! The only clock of a shard: the engine and the log are told the time, they never ask.

#![allow(clippy::disallowed_methods, reason = "the clock of a shard")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::engine::Now;

/// A clock that started with its shard.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// The time.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            wall_ms: wall.as_millis() as i64,
            mono_ms: self.start.elapsed().as_millis() as i64,
        }
    }
}
