//! Going through the files of a log that nobody has open: what `verify` and `dump` are made of. Nothing is written, and
//! nothing is believed but checksums.
//!
//! Segments can be gone through independently, so that a caller may do several at once, and judged together afterwards
//! (see `verify`).

use super::checkpoint::{self, Checkpoint};
use super::group::{GroupHeader, MIN_BLOCK_BYTES, log_id_of, records};
use super::hole::{Hole, outside};
use super::index::{self, Meta, PAGE_BYTES};
use super::scan::SegmentReader;
use super::segment::{IndexId, SegmentId};
use super::stored::{self, KIND_RETIRED, Stored};
use super::{Io, IoError, Position};
use std::ops::{ControlFlow, Range};

/// Bytes that are read at once.
const WINDOW_BYTES: u64 = 4 << 20;

/// The files of a log, and what its checkpoint says.
#[derive(Clone, Debug, Default)]
pub struct LogFiles {
    /// Tells this log's groups from those of any other; 0 when neither checkpoint nor any segment tells it.
    pub log_id: u64,
    /// Why there is no checkpoint to go by.
    pub checkpoint_error: Option<String>,
    /// Everything before it is in the checkpoint.
    pub checkpoint: Position,
    /// Everything before it has been retired.
    pub retired: Position,
    /// Segments with their lengths, oldest first.
    pub segments: Vec<(SegmentId, u64)>,
    /// Indexes of them, oldest first.
    pub indexes: Vec<IndexId>,
    /// Damage that the log was told to go on without.
    pub holes: Vec<Hole>,
    /// The queues of the checkpoint: topic, queue id, and the offset that comes next.
    pub queues: Vec<(String, i32, i64)>,
    /// The state records of the checkpoint: kind and payload.
    pub state: Vec<(u16, Vec<u8>)>,
}

/// What an index says of one queue.
#[derive(Clone, Debug)]
pub struct IndexRow {
    /// The topic.
    pub topic: String,
    /// The queue.
    pub queue_id: i32,
    /// Its offsets in the segment, one past the last.
    pub offsets: Range<i64>,
    /// Where the first of its records begins.
    pub position: Position,
}

/// What [`LogFiles::walk`] comes across.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// Bytes without a sound group, which one comes after.
    Gap(Range<Position>),
    /// A sound group; its records follow.
    Group(&'a GroupHeader),
    /// A record of it.
    Record {
        /// Where it begins.
        position: Position,
        /// All of it.
        bytes: &'a [u8],
        /// What it is; `None` for what is no known record.
        stored: Option<Stored<'a>>,
    },
}

/// What was found in one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentReport {
    /// Sound groups.
    pub groups: u64,
    /// Records in them, and how many of those are of no known kind.
    pub records: u64,
    /// Records of no known kind.
    pub unknown: u64,
    /// Where the group before the first one ended.
    pub follows: Option<Position>,
    /// Epochs of the first and the last group before the first gap.
    pub epochs: (u32, u32),
    /// Where the last group before the first gap ends.
    pub chain_end: Position,
    /// Where the last group ends.
    pub end: Position,
    /// Stretches without a sound group that sound groups come after.
    pub gaps: Vec<Range<Position>>,
    /// The most that any group says was durable.
    pub durable: Position,
    /// Everything before it was retired, its records say.
    pub retired: Position,
}

impl LogFiles {
    /// Looks what is there.
    pub async fn read<I: Io>(io: &I) -> Result<Self, IoError> {
        let mut files = io.list().await?;
        files.sort();
        let mut found = Self::default();
        for (name, len) in &files {
            if let Some(segment) = SegmentId::of_file_name(name) {
                found.segments.push((segment, *len));
            } else if let Some(index) = IndexId::of_file_name(name) {
                found.indexes.push(index);
            }
        }
        found.indexes.sort();
        let checkpoint = match files.iter().find(|(name, _)| name == checkpoint::FILE_NAME) {
            Some((_, len)) => Checkpoint::read(io, *len).await?,
            None => Err("it is missing".into()),
        };
        match checkpoint {
            Ok(checkpoint) => {
                (found.log_id, found.checkpoint, found.retired) =
                    (checkpoint.log_id, checkpoint.position, checkpoint.retired);
                let states = stored::states(&checkpoint.state).flatten();
                found.state = states
                    .map(|(kind, payload)| (kind, payload.to_vec()))
                    .collect();
                let queues = checkpoint.queues.into_iter();
                found.queues = queues
                    .map(|queue| (queue.topic.to_string(), queue.queue_id, queue.next))
                    .collect();
                found.holes = checkpoint.holes;
            }
            Err(what) => found.checkpoint_error = Some(what),
        }
        if found.log_id == 0
            && let Some(&(oldest, len)) = found.segments.first()
        {
            let mut reader = SegmentReader::open(io, oldest.0, len, WINDOW_BYTES, 1).await?;
            found.log_id = log_id_of(&reader.bytes(oldest.0, 4096).await?).unwrap_or(0);
        }
        found
            .segments
            .retain(|(segment, len)| segment.0 + len > found.retired);
        let oldest = found.segments.first().map_or(0, |(segment, _)| segment.0);
        found.indexes.retain(|index| index.start() >= oldest);
        Ok(found)
    }

    /// Where the groups of the `at`-th segment end, as far as the first group of the next segment tells it: what lies
    /// behind that was cut.
    pub async fn cut_at<I: Io>(&self, io: &I, at: usize) -> Result<Option<Position>, IoError> {
        let Some(&(next, len)) = self.segments.get(at + 1) else {
            return Ok(None);
        };
        let mut reader = SegmentReader::open(io, next.0, len, WINDOW_BYTES, 1).await?;
        let group = reader.group(self.log_id, next.0, len).await?;
        let follows = group.ok().map(|(header, _)| header.follows);
        Ok(follows.filter(|follows| (self.segments[at].0.0..=next.0).contains(follows)))
    }

    /// Goes through all segments to their ends.
    pub async fn walk_all<I: Io>(&self, io: &I) -> Result<Vec<SegmentReport>, IoError> {
        let mut reports = Vec::new();
        for at in 0..self.segments.len() {
            let mut on = |_: Found<'_>| ControlFlow::Continue(());
            reports.push(self.walk(io, at, &mut on).await?);
        }
        Ok(reports)
    }

    /// Goes through a segment, the `at`-th one, until `visit` ends it; then the report is of what came before.
    pub async fn walk<I: Io>(
        &self,
        io: &I,
        at: usize,
        visit: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Result<SegmentReport, IoError> {
        let (segment, len) = self.segments[at];
        let mut reader = SegmentReader::open(io, segment.0, len, WINDOW_BYTES, 1).await?;
        let mut report = SegmentReport {
            chain_end: segment.0,
            end: segment.0,
            ..SegmentReport::default()
        };
        let mut epoch = 0;
        let mut position = segment.0;
        while position < reader.limit() {
            let longest = reader.limit() - position;
            let found = reader.group(self.log_id, position, longest).await?;
            let Some((header, bytes)) = found.ok().filter(|(header, _)| header.epoch >= epoch)
            else {
                position += MIN_BLOCK_BYTES;
                continue;
            };
            if position != report.end {
                let gap = report.end..position;
                let gaps = outside(&self.holes, gap.clone());
                report.gaps.extend(gaps);
                if visit(Found::Gap(gap)).is_break() {
                    return Ok(report);
                }
            }
            if report.groups == 0 {
                report.follows = Some(header.follows);
                report.epochs.0 = header.epoch;
            }
            epoch = header.epoch;
            if report.gaps.is_empty() {
                report.epochs.1 = epoch;
                report.chain_end = header.end();
            }
            report.groups += 1;
            report.durable = report.durable.max(header.durable);
            if visit(Found::Group(&header)).is_break() {
                return Ok(report);
            }
            for (at, bytes) in records(&bytes) {
                let position = header.position + at as Position;
                let stored = Stored::parse_at(bytes, position);
                report.records += 1;
                report.unknown += u64::from(stored.is_none());
                if let Some(Stored::State {
                    kind: KIND_RETIRED,
                    payload,
                }) = stored
                    && let Some(retired) = payload.first_chunk()
                {
                    report.retired = report.retired.max(Position::from_le_bytes(*retired));
                }
                let record = Found::Record {
                    position,
                    bytes,
                    stored,
                };
                if visit(record).is_break() {
                    return Ok(report);
                }
            }
            position = header.end();
            report.end = position;
        }
        Ok(report)
    }

    /// The index that is not there and that the next start builds for the `at`-th segment, if it must.
    pub async fn missing_index<I: Io>(
        &self,
        io: &I,
        at: usize,
    ) -> Result<Option<IndexId>, IoError> {
        let (segment, len) = self.segments[at];
        let limit = segment.0 + len;
        let end = match self.cut_at(io, at).await? {
            Some(end) if limit <= self.checkpoint => end,
            _ if limit == self.checkpoint => limit,
            _ => return Ok(None),
        };
        let mut next = IndexId::whole(segment.0);
        if !self.indexes.contains(&next) {
            next = IndexId::run(segment.0);
        }
        while self.indexes.contains(&next) {
            // One that is not sound is there.
            match Meta::read(io, self.log_id, next).await? {
                Some(meta) if meta.end < end => next = IndexId::run(meta.end),
                _ => return Ok(None),
            }
        }
        let is_first = next.start() == segment.0;
        Ok(Some(if is_first {
            IndexId::whole(segment.0)
        } else {
            next
        }))
    }

    /// What an index says of queues; `None` where it is not sound.
    pub async fn index_rows<I: Io>(
        &self,
        io: &I,
        id: IndexId,
    ) -> Result<Option<Vec<IndexRow>>, IoError> {
        let meta = Meta::read(io, self.log_id, id).await?;
        let rows = meta.map(|meta| {
            let rows = meta.rows.into_iter().map(|row| IndexRow {
                topic: row.topic.to_string(),
                queue_id: row.queue_id,
                offsets: row.first..row.first + i64::from(row.count),
                position: row.position,
            });
            rows.collect()
        });
        Ok(rows)
    }

    /// Whether every page of an index is sound.
    pub async fn index_is_sound<I: Io>(&self, io: &I, id: IndexId) -> Result<bool, IoError> {
        let Some(meta) = Meta::read(io, self.log_id, id).await? else {
            return Ok(false);
        };
        let file = io.open(&id.file_name()).await?;
        let mut page = 0;
        while page < meta.layout.pages() {
            let bytes = io
                .read_at(
                    &file,
                    u64::from(page) * PAGE_BYTES as u64,
                    WINDOW_BYTES as usize,
                )
                .await?;
            for bytes in bytes.chunks(PAGE_BYTES) {
                if !index::page_is_sound(bytes, self.log_id, id, page) {
                    return Ok(false);
                }
                page += 1;
            }
            if bytes.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
