//! The one clock of a run: nanoseconds since 1970 that never go back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the clock of a run started. Copies agree with each other.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_ns: u64,
}

impl Clock {
    /// Reads the wall clock, for the last time.
    pub fn start() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            origin: Instant::now(),
            origin_ns: since.as_nanos() as u64,
        }
    }

    /// Now, in nanoseconds since 1970.
    pub fn now_ns(&self) -> u64 {
        self.origin_ns + self.origin.elapsed().as_nanos() as u64
    }
}
