//! The CommitLog of a shard and what is derived from it.

mod buffer;
mod error;
mod io;
mod options;
mod read;
mod segment;

pub use buffer::{AlignedBuffer, Slice};
pub use error::{AppendError, IoError, LogFailure, OpenError, ReadMiss, ReplayError};
pub use io::{DiskSpace, Io, ReadBuffer};
pub use options::{FlushMode, LogOptions};
pub use read::{ReadId, ReadOp};
pub use segment::{FileId, SegmentId};

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

/// Background work: `job.run(&io).await`, then `job_done` with what came of it.
pub struct Job(());
/// What came of a job.
pub struct JobDone(());

impl Job {
    /// Runs the work.
    pub async fn run<I: Io>(self, _io: &I) -> JobDone {
        JobDone(())
    }
}

/// Receives the state records of an opened log, oldest first: those of the snapshot, then the log's.
pub trait Replay {
    /// One record. `log` answers about queues; a dropped topic is dropped in it again here.
    fn state(&mut self, log: &mut Log, kind: u16, payload: &[u8]) -> Result<(), ReplayError>;
}

/// Collects state records for a snapshot.
#[derive(Default)]
pub struct StateWriter {
    bytes: Vec<u8>,
}

impl StateWriter {
    /// Adds one record.
    pub fn push(&mut self, kind: u16, payload: &[u8]) {
        let _ = (kind, payload);
    }
    /// All of them, for [`Log::snapshot`].
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// What opening found and did.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// The checkpoint's position: state before it came from the snapshot.
    pub checkpoint: Position,
    /// Where the scan began.
    pub scanned_from: Position,
    /// Where the log ended.
    pub tail: Position,
    /// Bytes of a torn tail that were found after `tail` and cut.
    pub cut_bytes: u64,
    /// Groups scanned.
    pub groups: u64,
    /// Message records indexed.
    pub messages: u64,
    /// State records replayed, those of the snapshot included.
    pub states: u64,
    /// The epoch that was opened.
    pub epoch: u32,
}

/// The log of one shard.
pub struct Log {
    _private: (),
}

/// Opens the log in a directory, makes one when it is empty.
pub async fn open<I: Io>(
    _io: &I,
    _options: LogOptions,
    _replay: &mut dyn Replay,
) -> Result<(Log, OpenReport), OpenError> {
    unimplemented!()
}

#[allow(
    unused_variables,
    reason = "the shape of the interface, before what fills it"
)]
impl Log {
    /// The queue; opened, and made when there is none.
    pub fn queue(&mut self, topic: &str, queue_id: i32) -> QueueRef {
        unimplemented!()
    }
    /// The queue, if there is one.
    pub fn find_queue(&self, topic: &str, queue_id: i32) -> Option<QueueRef> {
        unimplemented!()
    }
    /// Forgets the topic's queues; offsets start at 0 again. Durable through the engine's own state record.
    pub fn drop_topic(&mut self, topic: &str) {
        unimplemented!()
    }
    /// The oldest offset that can be read.
    pub fn min_offset(&self, queue: QueueRef) -> i64 {
        unimplemented!()
    }
    /// One past the last visible record.
    pub fn max_offset(&self, queue: QueueRef) -> i64 {
        unimplemented!()
    }
    /// One past the last appended record.
    pub fn next_offset(&self, queue: QueueRef) -> i64 {
        unimplemented!()
    }
    /// Appends a message; `fill` writes exactly `len` bytes of a stored record for (position, queue offset).
    pub fn append_message(
        &mut self,
        queue: QueueRef,
        len: usize,
        tags_code: i32,
        store_ms: i64,
        fill: impl FnOnce(Position, i64, &mut [u8]),
    ) -> Result<Appended, AppendError> {
        unimplemented!()
    }
    /// Appends a state record; returns its end.
    pub fn append_state(&mut self, kind: u16, payload: &[u8]) -> Result<Position, AppendError> {
        unimplemented!()
    }
    /// Whether `records` records of `bytes` bytes in all fit now: if so, appending them cannot fail.
    pub fn reserve(&mut self, bytes: usize, records: usize) -> Result<(), AppendError> {
        unimplemented!()
    }
    /// The next group to write; to be called until `None` at the end of a turn.
    pub fn next_write(&mut self, now_ms: i64) -> Option<WriteOp> {
        unimplemented!()
    }
    /// A group write has ended.
    pub fn write_done(
        &mut self,
        id: WriteId,
        result: Result<(), IoError>,
    ) -> Result<(), LogFailure> {
        unimplemented!()
    }
    /// Everything before it is on stable storage.
    pub fn durable(&self) -> Position {
        unimplemented!()
    }
    /// When `next_write` will have something to give, if it is for the time to pass.
    pub fn flush_deadline_ms(&self) -> Option<i64> {
        unimplemented!()
    }
    /// Calls `f` for each queue whose `max_offset` advanced since the last call, with the new one.
    pub fn take_visible(&mut self, f: impl FnMut(QueueRef, i64)) {
        unimplemented!()
    }
    /// Appends up to `max` visible entries from offset `from` on to `out`; none when `from` is `max_offset`.
    pub fn entries(
        &mut self,
        queue: QueueRef,
        from: i64,
        max: usize,
        out: &mut Vec<Entry>,
    ) -> Result<(), ReadMiss> {
        unimplemented!()
    }
    /// The bytes of the record at `position`, checked.
    pub fn record(&mut self, position: Position, size: u32) -> Result<Slice, ReadMiss> {
        unimplemented!()
    }
    /// The bytes of the message record that begins at `position`, if one does.
    pub fn record_at(&mut self, position: Position) -> Result<Slice, ReadMiss> {
        unimplemented!()
    }
    /// The offset that belongs to a store time.
    pub fn offset_by_time(
        &mut self,
        queue: QueueRef,
        time_ms: i64,
        boundary: Boundary,
    ) -> Result<i64, ReadMiss> {
        unimplemented!()
    }
    /// Positions of up to `max` messages of the topic that carry `key` among their keys or as unique key, newest first.
    pub fn find_by_key(
        &mut self,
        topic: &str,
        key: &str,
        from_ms: i64,
        to_ms: i64,
        max: usize,
    ) -> Result<Vec<Position>, ReadMiss> {
        unimplemented!()
    }
    /// The next read to run.
    pub fn next_read(&mut self) -> Option<ReadOp> {
        unimplemented!()
    }
    /// A read has ended.
    pub fn read_done(&mut self, id: ReadId, result: Result<ReadBuffer, IoError>) {
        unimplemented!()
    }
    /// The next piece of background work; to be run beside everything else.
    pub fn next_job(&mut self) -> Option<Job> {
        unimplemented!()
    }
    /// A job has ended.
    pub fn job_done(&mut self, done: JobDone) -> Result<(), LogFailure> {
        unimplemented!()
    }
    /// Whether enough was appended since the last snapshot.
    pub fn snapshot_due(&self) -> bool {
        unimplemented!()
    }
    /// Takes the engine's state as of now, all records appended so far included; becomes a job.
    pub fn snapshot(&mut self, state: Vec<u8>) {
        unimplemented!()
    }
    /// Segments that group writes may go to soon, so that the host can have them open in time.
    pub fn writable_segments(&self) -> Vec<SegmentId> {
        unimplemented!()
    }
    /// The oldest position that can be read.
    pub fn min_position(&self) -> Position {
        unimplemented!()
    }
    /// Where the next record goes at the earliest.
    pub fn max_position(&self) -> Position {
        unimplemented!()
    }
}
