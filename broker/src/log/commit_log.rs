//! The log of one shard: its parts, and the small questions that they answer.

use super::alone::AloneReads;
use super::append::OpenGroup;
use super::cold::ColdReads;
use super::flush::Window;
use super::gather::Gather;
use super::hole::Hole;
use super::job::Backlog;
use super::keys::Keys;
use super::lookup::TimeSearches;
use super::queue::Queues;
use super::retire::Retirement;
use super::segment::{Segment, SegmentId, Segments};
use super::tail::TailBuffers;
use super::{DiskSpace, LogOptions, Position, QueueRef, ReadFailure};

/// The log of one shard. Pure: it hands out writes, reads and jobs; its host runs them and reports what came of them.
pub struct Log {
    pub(super) options: LogOptions,
    /// Tells this log's groups from those of any other.
    pub(super) log_id: u64,
    pub(super) epoch: u32,
    pub(super) queues: Queues,
    pub(super) segments: Segments,
    pub(super) tail: TailBuffers,
    pub(super) open: OpenGroup,
    pub(super) window: Window,
    /// Everything before it is on stable storage.
    pub(super) durable: Position,
    /// Everything before it has been retired.
    pub(super) retired: Position,
    /// The newest store time of any record.
    pub(super) newest_ms: i64,
    pub(super) cold: ColdReads,
    pub(super) alone: AloneReads,
    pub(super) time_searches: TimeSearches,
    pub(super) keys: Keys,
    pub(super) reads_failed: u64,
    /// Failures that the host has not taken yet.
    pub(super) read_failures: Vec<ReadFailure>,
    pub(super) work: Backlog,
    pub(super) gather: Gather,
    pub(super) retirement: Option<Retirement>,
    pub(super) retired_early: u64,
    /// Damage that is passed over.
    pub(super) holes: Vec<Hole>,
    /// Too little of the file system is free for messages.
    pub(super) refuses: bool,
    /// Records are visible when they are appended, not when they are durable.
    pub(super) shows_at_once: bool,
    /// A write or a job failed: nothing is taken or written any more.
    pub(super) stopped: bool,
}

impl Log {
    pub(super) fn new(options: LogOptions, log_id: u64) -> Self {
        Self {
            log_id,
            epoch: 0,
            queues: Queues::default(),
            segments: Segments::default(),
            tail: TailBuffers::new(options.buffer_bytes, options.tail_cache_bytes),
            open: OpenGroup::none_after(0),
            window: Window::default(),
            durable: 0,
            retired: 0,
            newest_ms: 0,
            cold: ColdReads::new(options.read_cache_bytes),
            alone: AloneReads::default(),
            time_searches: TimeSearches::default(),
            keys: Keys::default(),
            reads_failed: 0,
            read_failures: Vec::new(),
            work: Backlog::new(0),
            gather: Gather::new(&options),
            retirement: None,
            retired_early: 0,
            holes: Vec::new(),
            refuses: false,
            shows_at_once: Self::shows_at_once(options.flush),
            stopped: false,
            options,
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.open.limit = self.open.end;
    }

    /// The queue; made when there is none, as part of the topic's present life.
    pub fn queue(&mut self, topic: &str, queue_id: i32) -> QueueRef {
        self.queues.open(topic, queue_id, self.open.end)
    }

    /// The queue, if there is one.
    pub fn find_queue(&self, topic: &str, queue_id: i32) -> Option<QueueRef> {
        self.queues.find(topic, queue_id)
    }

    /// Topic and queue id of a queue.
    pub fn queue_name(&self, queue: QueueRef) -> (&str, i32) {
        let queue = self.queues.get(queue);
        (&queue.topic, queue.queue_id)
    }

    /// Forgets the topic's queues; offsets start at 0 again, and references to its queues must not be used any more. It is
    /// durable through a state record that the engine appends before anything of a new topic of this name, and upon which
    /// it calls this again during replay.
    pub fn drop_topic(&mut self, topic: &str) {
        // The queues' numbers may soon be those of other queues.
        self.gather.forget(&self.queues.drop_topic(topic));
        self.time_searches = TimeSearches::default();
    }

    /// Goes on in the next segment, if one is ready.
    pub(super) fn roll(&mut self) {
        if let Some(next) = self.segments.roll() {
            self.gather.roll(next);
        }
    }

    /// The oldest offset that can be read.
    pub fn min_offset(&self, queue: QueueRef) -> i64 {
        self.queues.get(queue).min()
    }

    /// One past the last visible record.
    pub fn max_offset(&self, queue: QueueRef) -> i64 {
        self.queues.get(queue).visible
    }

    /// One past the last appended record.
    pub fn next_offset(&self, queue: QueueRef) -> i64 {
        self.queues.get(queue).next
    }

    /// Calls `f` for each queue whose `max_offset` advanced since the last call, with the new one.
    pub fn take_visible(&mut self, f: impl FnMut(QueueRef, i64)) {
        self.queues.take_changed(f);
    }

    /// Segments that group writes go to now and next, so that the host can have them open in time: a group that is not
    /// written yet may belong to an older segment than the newest.
    pub fn writable_segments(&self) -> impl Iterator<Item = SegmentId> {
        let durable = self.durable;
        let first = self
            .segments
            .list
            .partition_point(|segment| segment.limit() <= durable);
        // A segment that is full and durable to its end leaves none before the newest.
        let first = first.min(self.segments.list.len() - 1);
        let writable = self.segments.list.range(first..);
        writable.chain(&self.segments.ready).map(Segment::id)
    }

    /// The segment whose range holds a position.
    pub fn segment_of(&self, position: Position) -> Option<SegmentId> {
        self.segments.at(position).map(|segment| segment.id())
    }

    /// The position up to which the checkpoint on disk has the state.
    pub fn checkpoint_position(&self) -> Position {
        self.work.checkpoint
    }

    /// Whether messages are refused, or soon will be, because the file system is full or above its mark.
    pub fn is_short_of_space(&self) -> bool {
        self.refuses || (self.work.disk_full && self.segments.ready.is_empty())
    }

    /// Whether the checkpoint on disk has everything: what is missing at the next start was damaged, not torn.
    pub fn is_checkpointed(&self) -> bool {
        self.work.checkpoint == self.open.end
    }

    /// Takes over other bounds of what is kept: age, size and the two marks of the disk.
    pub fn set_retention(&mut self, options: &LogOptions) {
        self.options.retention_ms = options.retention_ms;
        self.options.retention_bytes = options.retention_bytes;
        self.options.delete_above_percent = options.delete_above_percent;
        self.options.refuse_above_percent = options.refuse_above_percent;
        self.refuses = self.is_above_refusal();
    }

    pub(super) fn is_above_refusal(&self) -> bool {
        self.work.used_percent() > self.options.refuse_above_percent
    }

    /// The oldest position that can be read.
    pub fn min_position(&self) -> Position {
        self.retired.max(self.segments.oldest_start())
    }

    /// Where the next record goes at the earliest.
    pub fn max_position(&self) -> Position {
        self.open.end
    }

    /// The epoch that was opened by recovery.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Space of the file system, as it was when it was last looked at.
    pub fn disk_space(&self) -> Option<DiskSpace> {
        self.work.space
    }

    /// The store time of the oldest message that can be read; looks at every queue while nothing is sealed.
    pub fn oldest_ms(&self) -> Option<i64> {
        let oldest = self.segments.list.front()?;
        if let Some(first) = oldest.indexes.first() {
            return Some(first.oldest_ms);
        }
        let queues = self.queues.iter();
        queues
            .filter_map(|(_, _, queue)| Some(queue.entries.front()?.store_ms))
            .min()
    }

    /// Sizes, for metrics and for `limits`.
    pub fn sizes(&self) -> LogSizes {
        LogSizes {
            log_bytes: self.open.end - self.min_position(),
            segments: self.segments.list.len(),
            segments_sealed: self
                .segments
                .list
                .iter()
                .filter(|segment| segment.is_sealed())
                .count(),
            segments_ready: self.segments.ready.len(),
            queues: self.queues.len(),
            unflushed_bytes: self.unflushed_bytes(),
            tail_memory_bytes: self.tail.memory_bytes(),
            read_memory_bytes: self.cold.memory_bytes() + self.alone.memory_bytes(),
            reads_failed: self.reads_failed,
        }
    }
}

/// Sizes of a log at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSizes {
    /// Bytes from the oldest to the newest position.
    pub log_bytes: u64,
    /// Segments, the one that is written included.
    pub segments: usize,
    /// Segments all of whose records are in indexes.
    pub segments_sealed: usize,
    /// Segments that stand ready.
    pub segments_ready: usize,
    /// Consume queues.
    pub queues: usize,
    /// Bytes that are appended and not yet durable.
    pub unflushed_bytes: u64,
    /// Memory of the tail buffers.
    pub tail_memory_bytes: usize,
    /// Memory of what was read from disk.
    pub read_memory_bytes: usize,
    /// Reads that failed, or brought bytes that fail their checksum.
    pub reads_failed: u64,
}
