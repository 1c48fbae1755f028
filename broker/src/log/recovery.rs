//! Opening: from the files of a directory to a log that takes records.
//!
//! The checkpoint gives the state as of a position; from there on (from the end of the last index before it, if that is
//! earlier) groups are read and checked in order until one is missing, at T. Then:
//! - If the checkpoint or a sound group further on says that more than T was durable, acknowledged bytes are damaged:
//!   opening fails and says where. As a group is only issued while at most `in_flight_bytes` before it are not durable, it
//!   is enough to look that far, doubled.
//! - Otherwise what lies beyond T was never acknowledged. It is cut: the group written at T opens a new epoch, above all
//!   that were seen, and is durable before anything else is issued. Epochs never fall along the log, so that what was cut
//!   can never follow the new groups.

use super::append::OpenGroup;
use super::checkpoint::{self, Checkpoint};
use super::crossing::Crossing;
use super::group::{self, GroupHeader, HEADER_BYTES, MIN_BLOCK_BYTES, records};
use super::hole::{hole_at, skip_damage, where_damage_begins};
use super::job::{Backlog, PREPARE_NAME, Pace, next_len, prepare};
use super::scan::SegmentReader;
use super::seal::SEAL_NAME;
use super::segment::{IndexId, Segment, SegmentId};
use super::stored::{
    KIND_QUEUE_AT, KIND_RETIRED, OWN_KINDS, Stored, entry_and_keys_of, parse_queue_at, states,
};
use super::{AlignedBuffer, Io, Log, LogOptions, OpenError, Position, QueueRef, Replay, Slice};
use corelane_wire::record::Record;
use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

/// Bytes that the scan reads at once, and how many reads are on their way: nobody else uses the disk yet.
const WINDOW_BYTES: u64 = 1 << 20;
const WINDOWS_AHEAD: usize = 4;

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The directory was empty.
    pub created: bool,
    /// The checkpoint's position: state before it came from the snapshot.
    pub checkpoint: Position,
    /// Where the scan began.
    pub scanned_from: Position,
    /// Where the log ended.
    pub tail: Position,
    /// Where the last group with records ended: after it there are only groups that opened epochs.
    pub records_end: Position,
    /// How far beyond the tail there were groups that were never acknowledged, and are cut.
    pub cut_bytes: u64,
    /// Indexes that were loaded.
    pub indexes: u64,
    /// Indexes that were missing or unsound, and were built again.
    pub rebuilt: u64,
    /// Groups scanned.
    pub groups: u64,
    /// Message records indexed.
    pub messages: u64,
    /// State records replayed, those of the snapshot included.
    pub states: u64,
    /// The epoch that was opened.
    pub epoch: u32,
    /// Damage that was passed over for the first time.
    pub skipped: Vec<Range<Position>>,
    /// Offsets that have no record any more, as far as that was seen for the first time.
    pub lost: Vec<LostOffsets>,
}

/// Offsets of a queue that damage took the records of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostOffsets {
    /// The topic.
    pub topic: String,
    /// The queue.
    pub queue_id: i32,
    /// First offset and one past the last.
    pub offsets: Range<i64>,
    /// They held records; otherwise they may have, and are not used again for that reason.
    pub certain: bool,
}

/// Opens the log in a directory, makes one when the directory is empty. State records go to `replay`, oldest first.
pub async fn open<I: Io>(
    io: &I,
    options: LogOptions,
    replay: &mut dyn Replay,
) -> Result<(Log, OpenReport), OpenError> {
    options.check()?;
    let mut files = io.list().await?;
    for name in [PREPARE_NAME, SEAL_NAME, checkpoint::TEMPORARY_NAME] {
        if files.iter().any(|(file, _)| file == name) {
            io.remove(name).await?;
        }
    }
    files.sort();
    let mut segments: Vec<Segment> = files
        .iter()
        .filter_map(|(name, len)| SegmentId::of_file_name(name).map(|id| Segment::new(id.0, *len)))
        .collect();
    let checkpoint_len = files
        .iter()
        .find(|(name, _)| name == checkpoint::FILE_NAME)
        .map(|(_, len)| *len);
    let mut report = OpenReport::default();
    let checkpoint = match checkpoint_len {
        Some(len) => {
            let found = Checkpoint::read(io, len)
                .await?
                .map_err(OpenError::Checkpoint)?;
            let mut found = renew_in_flight(io, found, &options).await?;
            if let Some(position) = options.skip_damage {
                let hole = skip_damage(io, &mut found, position).await?;
                report.skipped.push(hole.from..hole.to);
                let gone = |name: &String| {
                    let ranges = segments
                        .iter()
                        .map(|segment| segment.start..segment.limit());
                    let id = IndexId::of_file_name(name);
                    id.is_some_and(|id| hole.touches(id, ranges))
                };
                files.retain(|(name, _)| !gone(name));
            }
            found
        }
        None if segments.is_empty() => {
            report.created = true;
            first_checkpoint(io, &options).await?
        }
        None => return Err(OpenError::Checkpoint("it is missing".into())),
    };
    if segments.is_empty() && checkpoint.position == 0 {
        segments.push(prepare_now(io, &options, 0, 0).await?);
    }
    let mut log = Log::new(options, checkpoint.log_id);
    log.work = Backlog::new(checkpoint.position);
    log.newest_ms = checkpoint.newest_ms;
    log.retired = checkpoint.retired;
    log.holes = checkpoint.holes.clone();
    let retired = segments
        .iter()
        .filter(|segment| segment.limit() <= checkpoint.retired);
    log.work
        .spare
        .extend(retired.map(|segment| (segment.id(), segment.len)));
    segments.retain(|segment| segment.limit() > checkpoint.retired);
    let indexes = files
        .iter()
        .filter_map(|(name, _)| IndexId::of_file_name(name))
        .collect();
    log.segments.ready.extend(segments);
    let mut recovery = Recovery {
        io,
        log,
        checkpoint,
        replay,
        report,
        indexes,
        crossing: Crossing::default(),
        gap: None,
        files: Vec::new(),
        epoch: 0,
    };
    if let Err(error) = recovery.run().await {
        return Err(where_damage_begins(io, error).await?);
    }
    let Recovery { log, report, .. } = recovery;
    Ok((log, report))
}

async fn first_checkpoint<I: Io>(io: &I, options: &LogOptions) -> Result<Checkpoint, OpenError> {
    let checkpoint = Checkpoint {
        log_id: io.random(),
        epoch: 0,
        position: 0,
        retired: 0,
        in_flight_bytes: options.in_flight_bytes(),
        newest_ms: 0,
        queues: Vec::new(),
        state: Vec::new(),
        holes: Vec::new(),
    };
    checkpoint.write(io).await?;
    Ok(checkpoint)
}

/// The checkpoint must tell the next recovery how far this run may write ahead.
async fn renew_in_flight<I: Io>(
    io: &I,
    mut checkpoint: Checkpoint,
    options: &LogOptions,
) -> Result<Checkpoint, OpenError> {
    if checkpoint.in_flight_bytes < options.in_flight_bytes() {
        checkpoint.in_flight_bytes = options.in_flight_bytes();
        checkpoint.write(io).await?;
    }
    Ok(checkpoint)
}

/// A short segment, written from end to end at once.
async fn prepare_now<I: Io>(
    io: &I,
    options: &LogOptions,
    start: Position,
    last_len: u64,
) -> Result<Segment, OpenError> {
    let len = next_len(options, last_len.min(options.first_segment_bytes / 2));
    prepare(io, SegmentId(start), len, &Cell::new(Pace::Now)).await?;
    Ok(Segment::new(start, len))
}

pub(super) struct Recovery<'a, I: Io> {
    pub(super) io: &'a I,
    pub(super) log: Log,
    pub(super) checkpoint: Checkpoint,
    replay: &'a mut dyn Replay,
    pub(super) report: OpenReport,
    pub(super) crossing: Crossing,
    /// What is missing before the oldest segment that is used.
    gap: Option<(Position, Position)>,
    /// Index files that are there.
    pub(super) indexes: BTreeSet<IndexId>,
    /// Open segments: the one that is scanned and, at its end, the next.
    files: Vec<SegmentReader<I>>,
    /// The highest epoch seen.
    pub(super) epoch: u32,
}

impl<I: Io> Recovery<'_, I> {
    async fn run(&mut self) -> Result<(), OpenError> {
        self.check_segments()?;
        self.load_queues();
        let follows = self.load_indexes().await?;
        self.replay_snapshot()?;
        let tail = self.scan(follows).await?;
        self.look_beyond(tail).await?;
        self.check_queues()?;
        self.close_unknown_ends();
        self.remove_old_indexes().await?;
        self.retire()?;
        self.open_epoch(tail).await
    }

    fn missing<T>(&self, from: Position, to: Position) -> Result<T, OpenError> {
        Err(OpenError::Missing {
            file: SegmentId(from).file_name(),
            from,
            to,
        })
    }

    /// Segments must follow one another, up to what the checkpoint has seen; but those before it may have been retired.
    fn check_segments(&mut self) -> Result<(), OpenError> {
        let mut from = self.checkpoint.retired;
        let mut kept = VecDeque::new();
        for segment in std::mem::take(&mut self.log.segments.ready) {
            if segment.start > from {
                if segment.start > self.checkpoint.position {
                    return self.missing(from, segment.start);
                }
                self.gap = Some((from, segment.start));
                let before = kept
                    .drain(..)
                    .map(|segment: Segment| (segment.id(), segment.len));
                self.log.work.spare.extend(before);
            }
            from = segment.limit();
            kept.push_back(segment);
        }
        if from < self.checkpoint.position || kept.is_empty() {
            return self.missing(from, self.checkpoint.position);
        }
        self.log.segments.ready = kept;
        Ok(())
    }

    /// Forgets what the log says is retired. What is missing must be among it.
    fn retire(&mut self) -> Result<(), OpenError> {
        if let Some((from, to)) = self.gap
            && to > self.log.retired
        {
            return self.missing(from, to);
        }
        self.log.retire_before(self.log.retired);
        let indexes = self.log.segments.list.iter();
        for index in indexes.flat_map(|segment| &segment.indexes) {
            self.indexes.remove(&index.id);
        }
        let unwanted = std::mem::take(&mut self.indexes).into_iter();
        let unwanted = unwanted.map(IndexId::file_name);
        self.log.work.unwanted.extend(unwanted);
        Ok(())
    }

    fn load_queues(&mut self) {
        for saved in std::mem::take(&mut self.checkpoint.queues) {
            self.log.queues.load(saved);
        }
    }

    fn replay_snapshot(&mut self) -> Result<(), OpenError> {
        let position = self.checkpoint.position;
        self.log.open = OpenGroup::none_after(position);
        let state = std::mem::take(&mut self.checkpoint.state);
        for record in states(&state) {
            let Some((kind, payload)) = record else {
                return Err(OpenError::Checkpoint(
                    "its state records make no sense".into(),
                ));
            };
            self.replay_state(position, kind, payload)?;
        }
        Ok(())
    }

    fn replay_state(
        &mut self,
        position: Position,
        kind: u16,
        payload: &[u8],
    ) -> Result<(), OpenError> {
        self.report.states += 1;
        if kind >= OWN_KINDS {
            if let (KIND_RETIRED, Some(retired)) = (kind, payload.first_chunk()) {
                self.log.retired = self.log.retired.max(u64::from_le_bytes(*retired));
            }
            if let (KIND_QUEUE_AT, Some(at)) = (kind, parse_queue_at(payload)) {
                return self.queue_at(position, at);
            }
            return Ok(());
        }
        self.log.open = OpenGroup::none_after(position);
        let replayed = self.replay.state(&mut self.log, kind, payload);
        replayed.map_err(|what| OpenError::State {
            kind,
            position,
            what: what.0,
        })
    }

    /// Goes through all groups and returns where the last sound one ends.
    async fn scan(&mut self, mut follows: Option<Position>) -> Result<Position, OpenError> {
        let newest = self.log.segments.newest();
        let from = newest.indexed_to();
        self.log.gather.begin(newest, from);
        self.report.checkpoint = self.checkpoint.position;
        self.report.scanned_from = from;
        self.report.records_end = self.checkpoint.position;
        let (mut tail, mut crossed) = (from, false);
        // Behind a hole at the end of a segment any `follows` is right.
        follows = follows.filter(|end| hole_at(&self.log.holes, *end).is_none());
        loop {
            if let Some(hole) = hole_at(&self.log.holes, tail) {
                self.cross(hole).await?;
                (tail, follows, crossed) = (hole.to, None, true);
                continue;
            }
            let Some((header, group)) = self.next_group(tail, follows).await? else {
                break;
            };
            while header.position >= self.log.segments.newest().limit() {
                self.log.roll();
            }
            self.take_group(&header, &group)?;
            self.epoch = header.epoch;
            self.log.newest_ms = self.log.newest_ms.max(header.newest_ms);
            let newest_ms = self.log.newest_ms;
            let fresh = header.records == 0 || crossed || self.log.gather.begins_run();
            let segment = self.log.segments.newest_mut();
            segment.note_group(header.position, fresh);
            self.log.gather.take_group(&header, crossed);
            crossed = false;
            (segment.end, segment.newest_ms) = (header.end(), newest_ms);
            self.report.groups += 1;
            tail = header.end();
            if header.records > 0 {
                self.report.records_end = tail;
            }
            follows = Some(tail);
        }
        self.report.tail = tail;
        Ok(tail)
    }

    /// The group after one that ended at `tail`: in the same segment, or where the next one begins.
    async fn next_group(
        &mut self,
        tail: Position,
        follows: Option<Position>,
    ) -> Result<Option<(GroupHeader, Slice)>, OpenError> {
        let here = self.log.segments.newest().start;
        let next = self.log.segments.ready.front().map(|next| next.start);
        let (log_id, longest) = (self.log.log_id, self.checkpoint.in_flight_bytes);
        for segment in [Some(here), next].into_iter().flatten() {
            let at = tail.max(segment);
            let found = self
                .reader(segment)
                .await?
                .group_after(log_id, at, follows, longest)
                .await?;
            if let Some((header, bytes)) = found {
                let known = if header.position >= self.checkpoint.position {
                    self.checkpoint.epoch
                } else {
                    0
                };
                // What follows a later group than the last one leaves some out: they are damaged.
                if header.epoch >= self.epoch.max(known) && header.follows <= tail {
                    return Ok(Some((header, bytes)));
                }
            }
        }
        Ok(None)
    }

    pub(super) async fn reader(
        &mut self,
        start: Position,
    ) -> Result<&mut SegmentReader<I>, OpenError> {
        if let Some(at) = self.files.iter().position(|file| file.start == start) {
            return Ok(&mut self.files[at]);
        }
        let newest = self.log.segments.newest().start;
        self.files.retain(|file| file.start >= newest);
        let all = self
            .log
            .segments
            .list
            .iter()
            .chain(&self.log.segments.ready);
        let Some(len) = all
            .into_iter()
            .find(|segment| segment.start == start)
            .map(|segment| segment.len)
        else {
            unreachable!("only listed segments are read")
        };
        self.files
            .push(SegmentReader::open(self.io, start, len, WINDOW_BYTES, WINDOWS_AHEAD).await?);
        let last = self.files.len() - 1;
        Ok(&mut self.files[last])
    }

    pub(super) fn damaged(&self, position: Position, what: &str) -> OpenError {
        let mut all = self
            .log
            .segments
            .list
            .iter()
            .chain(&self.log.segments.ready)
            .rev();
        let segment = all
            .find(|segment| segment.start <= position)
            .map_or(0, |segment| segment.start);
        OpenError::Damaged {
            position,
            file: SegmentId(segment).file_name(),
            offset: position - segment,
            what: what.to_string(),
        }
    }

    /// Indexes and replays what a group carries.
    fn take_group(&mut self, header: &GroupHeader, bytes: &[u8]) -> Result<(), OpenError> {
        let mut count = 0;
        for (at, record) in records(bytes) {
            count += 1;
            let position = header.position + at as u64;
            match Stored::parse_at(record, position) {
                Some(Stored::Message(message)) => self.index(&message)?,
                Some(Stored::State { kind, payload }) if position >= self.checkpoint.position => {
                    self.replay_state(position, kind, payload)?;
                }
                Some(Stored::State { .. }) => {}
                _ => {
                    return Err(
                        self.damaged(position, "a sound group holds a record of no known kind")
                    );
                }
            }
        }
        if count != header.records {
            return Err(self.damaged(
                header.position,
                "a sound group holds another number of records than it says",
            ));
        }
        Ok(())
    }

    fn index(&mut self, message: &Record<'_>) -> Result<(), OpenError> {
        let (topic, queue_id, offset) =
            (message.topic(), message.queue_id(), message.queue_offset());
        let (entry, keys) = entry_and_keys_of(message);
        let position = entry.position;
        let behind = self.crossing.is_behind(&self.log.holes, position);
        let mut lost = 0..0;
        let dense = if position < self.checkpoint.position {
            // The checkpoint knows which queues there are and where they end; their entries only have to be found again.
            let found = self.log.queues.find(topic, queue_id);
            let owns = |found: &QueueRef| self.log.queues.get(*found).owns(position);
            let Some(found) = found.filter(owns) else {
                self.log.gather.take_unowned(message);
                return Ok(());
            };
            let queue = self.log.queues.get_mut(found);
            if queue.entries.is_empty() && queue.parts.is_empty() {
                queue.begins_at(offset);
            } else if behind && queue.memory_end() < offset {
                lost = queue.memory_end()..offset;
                queue.skip_to(offset);
            }
            let expected = queue.memory_end();
            queue.push(entry);
            let gather = &mut self.log.gather;
            gather.take_record(found, queue, offset, entry, keys);
            offset == expected
        } else {
            if behind {
                lost = self.meet(topic, queue_id, offset, position);
            }
            let found = self.log.queues.open(topic, queue_id, position);
            let queue = self.log.queues.get_mut(found);
            queue.push(entry);
            queue.next += 1;
            queue.visible = queue.next;
            let gather = &mut self.log.gather;
            gather.take_record(found, queue, offset, entry, keys);
            offset == queue.next - 1
        };
        if !lost.is_empty() {
            self.note_lost(topic, queue_id, lost, true);
        }
        self.report.messages += 1;
        if dense {
            Ok(())
        } else {
            Err(self.damaged(position, "the offsets of a queue are not dense"))
        }
    }

    /// Whether anything says that more than up to `tail` was acknowledged.
    async fn look_beyond(&mut self, tail: Position) -> Result<(), OpenError> {
        if self.checkpoint.position > tail {
            return Err(self.damaged(tail, "the checkpoint is of a later position"));
        }
        let far = 2 * self.checkpoint.in_flight_bytes;
        let newest = self.log.segments.newest();
        let mut stretches = vec![(newest.start, tail, newest.limit().min(tail + far))];
        let mut looked = 0;
        for next in &self.log.segments.ready {
            if looked >= far {
                break;
            }
            stretches.push((next.start, next.start, next.limit().min(next.start + far)));
            looked += next.len;
        }
        let mut highest = self.epoch;
        let (log_id, longest) = (self.log.log_id, self.checkpoint.in_flight_bytes);
        for (segment, from, to) in stretches {
            let mut at = from;
            while at < to {
                let found = self
                    .reader(segment)
                    .await?
                    .group(log_id, at, longest)
                    .await?;
                let Ok((header, _)) = found else {
                    at += MIN_BLOCK_BYTES;
                    continue;
                };
                if header.epoch >= self.epoch && header.durable > tail {
                    return Err(self.damaged(tail, "a group further on says that this was durable"));
                }
                if header.epoch >= self.epoch {
                    self.report.cut_bytes = header.end() - tail;
                }
                highest = highest.max(header.epoch);
                at = header.end();
            }
        }
        self.epoch = highest.max(self.checkpoint.epoch);
        Ok(())
    }

    fn check_queues(&mut self) -> Result<(), OpenError> {
        for queue in self.log.queues.refs() {
            let behind = self.crossing.is_crossed(&self.log.holes);
            let queue = self.log.queues.get_mut(queue);
            queue.is_opened();
            let (end, next) = (queue.memory_end(), queue.next);
            if end < next && behind {
                // The checkpoint knows of records of which damage has left none.
                queue.skip_to(next);
                let (topic, queue_id) = (queue.topic.clone(), queue.queue_id);
                self.note_lost(&topic, queue_id, end..next, true);
            } else if end != next {
                let what = format!(
                    "queue {} of topic {} ends before offset {next}",
                    queue.queue_id, queue.topic
                );
                return Err(self.damaged(self.checkpoint.position, &what));
            }
        }
        Ok(())
    }

    /// Writes the group that opens a new epoch, and makes it durable.
    async fn open_epoch(&mut self, tail: Position) -> Result<(), OpenError> {
        let block = u64::from(self.log.options.block_bytes);
        let mut start = tail;
        let newest = self.log.segments.newest();
        // A larger block may have been asked for since. Groups of a segment lie close together, so the next one is begun.
        if !tail.is_multiple_of(block) || start + block > newest.limit() {
            let (limit, len) = (newest.limit(), newest.len);
            if self.log.segments.ready.is_empty() {
                let segment = prepare_now(self.io, &self.log.options, limit, len).await?;
                self.log.segments.ready.push_back(segment);
            }
            self.log.roll();
            start = limit;
        }
        let header = GroupHeader {
            log_id: self.log.log_id,
            position: start,
            follows: tail,
            durable: tail,
            newest_ms: self.log.newest_ms,
            epoch: self.epoch + 1,
            length: HEADER_BYTES as u32,
            padded: block as u32,
            records: 0,
        };
        let mut bytes = AlignedBuffer::zeroed(block as usize);
        let (out, rest) = bytes.split_at_mut(HEADER_BYTES);
        group::seal(&header, out, &group::Rest::of(rest));
        let segment = self.log.segments.newest_mut();
        let file = self.io.open(&segment.id().file_name()).await?;
        self.io
            .write_at(&file, start - segment.start, &bytes.freeze())
            .await?;
        self.io.sync(&file).await?;
        segment.note_group(start, true);
        (segment.end, segment.newest_ms) = (header.end(), header.newest_ms);
        self.log.gather.take_group(&header, false);
        self.log.epoch = header.epoch;
        self.log.durable = header.end();
        self.log.open = OpenGroup::none_after(header.end());
        self.report.epoch = header.epoch;
        Ok(())
    }
}
