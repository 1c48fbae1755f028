//! The CommitLog of a shard and what is derived from it.

mod append;
mod buffer;
mod checkpoint;
mod cold;
mod dump;
mod error;
mod flush;
mod group;
mod index;
mod io;
mod job;
mod keys;
mod log;
mod lookup;
mod options;
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
mod walk;

pub use buffer::{AlignedBuffer, Slice};
pub use cold::{ReadId, ReadOp};
pub use dump::{DumpEnd, Dumped, dump};
pub use error::{AppendError, IoError, LogFailure, OpenError, ReadMiss, ReplayError};
pub use group::{GroupHeader, NoGroup};
pub use io::{DiskSpace, Io, ReadBuffer};
pub use job::{Job, JobDone};
pub use log::{Log, LogSizes};
pub use options::{FlushMode, LogOptions};

pub use recovery::{OpenReport, open};
pub use segment::{FileId, SegmentId};
pub use std_io::StdIo;
#[cfg(test)]
pub(crate) use stored::sample;
pub use stored::{StateWriter, Stored};
pub use walk::{Damage, Found, LogFiles, SegmentReport, VerifyReport, verify};

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
    /// Hash of its tag; 0 when it has none.
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
