//! The CommitLog of a shard and what is derived from it.
//!
//! Promises. A record whose `end` is at or below `durable()` is on stable storage: it is there after any crash, with the same
//! bytes at the same position and offset. In sync mode only such records are visible. Offsets of a queue are dense, but for
//! the gaps that somebody asked for. What
//! fails its checksum is an error, never data. After a failed write the log takes and writes nothing any more.
//!
//! Shape. A [`Log`] is synchronous and does no I/O: appending fills tail buffers; [`Log::next_write`], [`Log::next_read`] and
//! [`Log::next_job`] say what is to be done; the host does it, over an [`Io`] or otherwise, and reports with
//! [`Log::write_done`], [`Log::read_done`] and [`Log::job_done`]. [`open`] recovers a log, or makes one in an empty directory.
//! That nobody else has the directory open is for the host to see to. Group writes must be durable when they are reported.
//!
//! The way of a record: `append` (position and offset, into `tail`'s buffer) -> `flush` (group, checksum, window, durable)
//! -> `queue` (visible) -> `read`, `lookup`, `keys`; in the background `gather`, `job`, `seal`, `merge`, `retire`; at start `recovery`, `load`.
//!
//! Memory: tail buffers, the larger of `tail_cache_bytes` and `max_unflushed_bytes`, and two buffers; `read_cache_bytes`, half of it
//! more for reads that are under way, and 4 MiB; 24 bytes for each record of groups that are in no index yet; 28 more for each and 8
//! for each of its keys, up to `index_memory_bytes` and once more while the index before is written; 4 more for each record while
//! an index is written; 24 bytes for each queue and index that has records of it; about 210 bytes for a queue; 4 bytes for each
//! 256 KiB of log; 16 bytes for each key of groups that are in no index once somebody has searched by key.
//!
//! Offsets of a queue have gaps where [`Log::queue_at`] made it go on elsewhere, and where damage was passed over (`hole`).
//!
//! The files are described in `docs/format.md`.

mod alone;
mod append;
mod births;
mod buffer;
mod checkpoint;
mod cold;
mod commit_log;
mod crossing;
mod error;
mod flush;
mod gather;
mod group;
mod hole;
mod index;
mod io;
mod job;
mod keys;
mod load;
mod lookup;
mod memory;
mod merge;
mod offline;
mod options;
mod pages;
mod queue;
mod read;
mod recovery;
mod retire;
mod scan;
mod seal;
mod segment;
mod std_io;
mod stored;
mod tail;
mod verify;
mod waiting;
mod walk;

pub use buffer::{AlignedBuffer, ReadBuffers, Slice};
pub use cold::{ReadId, ReadOp};
pub use commit_log::{Log, LogSizes};
pub use error::{AppendError, IoError, LogFailure, OpenError, ReadFailure, ReadMiss, ReplayError};
pub use group::{GroupHeader, NoGroup};
pub use hole::Hole;
pub use io::{DiskSpace, Io, ReadBuffer};
pub use job::{Job, JobDone};
pub use offline::{OfflineError, OfflineLog};
pub use options::{FlushMode, LogOptions};

pub use read::LastGroup;
pub use recovery::{LostOffsets, OpenReport, open};
pub use segment::{FileId, IndexId, SegmentId};
pub use std_io::{StdIo, at_once};
#[cfg(test)]
pub(crate) use stored::sample;
pub use stored::{StateWriter, Stored, describe_own};
pub use verify::{Damage, VerifyReport, verify};
pub use walk::{Found, IndexRow, LogFiles, SegmentReport};

/// Absolute byte address in a shard's log. Never moves.
pub type Position = u64;

/// A consume queue of one log; valid until its topic is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct QueueRef(u32);

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it begins: its physical offset.
    pub position: Position,
    /// It is durable when `durable()` has reached this.
    pub end: Position,
    /// Its offset in the queue.
    pub queue_offset: i64,
}

/// What a consume queue knows of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the record begins.
    pub position: Position,
    /// Its store time.
    pub store_ms: i64,
    /// Its length.
    pub size: u32,
    /// Hash of its tag; 0 when it has none. Of a message that waits for its time: the checksum of its record.
    pub tags_code: i32,
}

/// Which of several records `offset_by_time` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first record stored at or after the time.
    Lower,
    /// The last record stored at or before the time.
    Upper,
}

/// Names one group write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// A group to be written by the host with O_DSYNC semantics.
#[derive(Clone)]
pub struct WriteOp {
    /// To be given back with the result.
    pub id: WriteId,
    /// The segment.
    pub segment: SegmentId,
    /// Offset in the segment's file; a multiple of the block.
    pub file_offset: u64,
    /// The group; a multiple of the block, aligned for O_DIRECT.
    pub bytes: Slice,
}

/// Receives the state records of an opened log, oldest first: those of the snapshot, then the log's.
pub trait Replay {
    /// One record. `log` answers about queues; a dropped topic is dropped in it again here.
    fn state(&mut self, log: &mut Log, kind: u16, payload: &[u8]) -> Result<(), ReplayError>;
}
