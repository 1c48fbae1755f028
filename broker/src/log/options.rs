//! What a log can be told, with the bounds in which its promises hold.

use super::Position;
use super::append::KEPT_BLOCKS;
use super::error::OpenError;
use super::group::HEADER_BYTES;
use super::segment::SEGMENT_ALIGN;

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
    /// Log bytes after which the groups so far get an index, so that a start need not read them.
    pub index_run_bytes: u64,
    /// Memory after which they do, for what the index is built from.
    pub index_memory_bytes: usize,
    /// The indexes of a segment become one if they have more rows than this together.
    pub index_rows: u64,
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
    /// Segments all of whose records are older may go.
    pub retention_ms: i64,
    /// Segments may go, oldest first, while the log is longer.
    pub retention_bytes: u64,
    /// Segments may go, oldest first, while more of the file system is used; at 100 not even when it is full.
    pub delete_above_percent: u8,
    /// Messages are refused with `DiskFull` while more of the file system is used. In any case they are when it is full.
    pub refuse_above_percent: u8,
    /// When groups are written.
    pub flush: FlushMode,
    /// Go on without the damage that begins at this position; it must be what opening or `verify` reports.
    pub skip_damage: Option<Position>,
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
            index_run_bytes: 128 << 20,
            index_memory_bytes: 16 << 20,
            index_rows: 4096,
            max_group_bytes: 256 << 10,
            max_record_bytes: (4 << 20) + (128 << 10),
            max_writes_in_flight: 4,
            max_unflushed_bytes: 64 << 20,
            snapshot_bytes: 256 << 20,
            retention_ms: 72 * 3600 * 1000,
            retention_bytes: u64::MAX,
            delete_above_percent: 85,
            refuse_above_percent: 90,
            flush: FlushMode::Sync,
            skip_damage: None,
        }
    }
}

impl LogOptions {
    /// Says which bound the options leave, if any.
    pub fn check(&self) -> Result<(), OpenError> {
        let block = self.block_bytes as usize;
        let fits = |name, holds: bool| {
            if holds {
                Ok(())
            } else {
                Err(OpenError::Option(name))
            }
        };
        fits(
            "block_bytes must be a power of two from 512 to 65536",
            block.is_power_of_two() && (512..=65536).contains(&block),
        )?;
        let buffer = self.buffer_bytes;
        fits(
            "buffer_bytes must be a multiple of 4096 and of the block",
            buffer > 0 && buffer.is_multiple_of(4096.max(block)),
        )?;
        fits(
            "segment_bytes must be a multiple of 65536",
            self.segment_bytes.is_multiple_of(SEGMENT_ALIGN),
        )?;
        fits(
            "first_segment_bytes must be a multiple of 65536",
            self.first_segment_bytes.is_multiple_of(SEGMENT_ALIGN),
        )?;
        let smallest = self.segment_bytes.min(self.first_segment_bytes);
        fits(
            "max_record_bytes and a few blocks must leave room in a segment",
            self.longest_group() + (KEPT_BLOCKS + 1) * block as u64 <= smallest,
        )?;
        fits(
            "segment_bytes must be at most 4 GiB",
            self.segment_bytes <= 4 << 30,
        )?;
        fits(
            "max_group_bytes must be at least a block and at most 64 MiB",
            (block..=64 << 20).contains(&self.max_group_bytes),
        )?;
        fits(
            "max_record_bytes must be at most 64 MiB",
            self.max_record_bytes <= 64 << 20,
        )?;
        fits(
            "max_writes_in_flight must be 1 to 64",
            (1..=64).contains(&self.max_writes_in_flight),
        )?;
        fits(
            "segments_ahead must be at least 1",
            self.segments_ahead >= 1,
        )?;
        let unflushed = self.max_unflushed_bytes;
        fits(
            "max_unflushed_bytes must hold the longest group and a block",
            unflushed >= self.longest_group() + block as u64,
        )
    }

    /// The longest group that can be.
    pub(super) fn longest_group(&self) -> u64 {
        let record = self.max_record_bytes + HEADER_BYTES;
        (record.max(self.max_group_bytes) as u64).next_multiple_of(u64::from(self.block_bytes))
    }

    /// The most bytes that can be in flight after the last durable group.
    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.longest_group() * self.max_writes_in_flight as u64
    }
}
