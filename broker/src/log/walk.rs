//! Going through a log that nobody has open: what `verify` and `dump` are made of. Nothing is written.
//!
//! Segments can be gone through independently, so that a caller may do several at once, and joined afterwards.

use super::checkpoint::{self, Checkpoint};
use super::group::{GroupHeader, MIN_BLOCK_BYTES, log_id_of, records};
use super::index::{self, PAGE_BYTES};
use super::scan::SegmentReader;
use super::segment::{FileId, SegmentId};
use super::stored::{self, KIND_RETIRED, Stored};
use super::{Io, IoError, Position};
use std::ops::Range;

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
    /// Segments beside which there is an index.
    pub indexes: Vec<SegmentId>,
    /// The state records of the checkpoint: kind and payload.
    pub state: Vec<(u16, Vec<u8>)>,
}

/// What [`LogFiles::walk`] comes across.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
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

/// Bytes that must be sound and are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first bad position.
    pub position: Position,
    /// The file.
    pub file: String,
    /// Offset in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What was found in a whole log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segments that hold groups.
    pub segments: u64,
    /// Sound groups.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// Where the log ends.
    pub tail: Position,
    /// What lies beyond it and was never acknowledged: the next start cuts it.
    pub unacknowledged: Option<Range<Position>>,
    /// What must be sound and is not, in log order; the first is where the log cannot be opened.
    pub damage: Vec<Damage>,
    /// Indexes that are missing or unsound: the next start, or the next look at them, builds them again.
    pub unsound_indexes: Vec<String>,
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
            } else if let Some(FileId::Index(segment)) = FileId::of_index_name(name) {
                found.indexes.push(segment);
            }
        }
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
            }
            Err(what) => found.checkpoint_error = Some(what),
        }
        if found.log_id == 0
            && let Some(&(oldest, len)) = found.segments.first()
        {
            let mut reader = SegmentReader::open(io, oldest.0, len, WINDOW_BYTES).await?;
            found.log_id = log_id_of(&reader.bytes(oldest.0, 4096).await?).unwrap_or(0);
        }
        found
            .segments
            .retain(|(segment, len)| segment.0 + len > found.retired);
        Ok(found)
    }

    /// Goes through a segment, the `at`-th one.
    pub async fn walk<I: Io>(
        &self,
        io: &I,
        at: usize,
        visit: &mut dyn FnMut(Found<'_>),
    ) -> Result<SegmentReport, IoError> {
        let (segment, len) = self.segments[at];
        let mut reader = SegmentReader::open(io, segment.0, len, WINDOW_BYTES).await?;
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
                report.gaps.push(report.end..position);
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
            visit(Found::Group(&header));
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
                visit(Found::Record {
                    position,
                    bytes,
                    stored,
                });
            }
            position = header.end();
            report.end = position;
        }
        Ok(report)
    }

    /// Whether every page of the index of the `at`-th segment is sound.
    pub async fn index_is_sound<I: Io>(&self, io: &I, at: usize) -> Result<bool, IoError> {
        let segment = self.segments[at].0;
        let name = FileId::Index(segment).file_name();
        let Some(meta) = index::Meta::read(io, self.log_id, segment.0, &name).await? else {
            return Ok(false);
        };
        let file = io.open(&name).await?;
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
                if !index::page_is_sound(bytes, self.log_id, segment.0, page) {
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

    /// Joins what was found in all segments, in their order, to what it says of the log.
    pub fn judge(&self, segments: &[SegmentReport]) -> VerifyReport {
        let mut report = VerifyReport {
            tail: self.checkpoint,
            ..VerifyReport::default()
        };
        let durable = segments
            .iter()
            .map(|segment| segment.durable)
            .max()
            .unwrap_or(0)
            .max(self.checkpoint);
        if let Some(what) = &self.checkpoint_error {
            let file = checkpoint::FILE_NAME.to_string();
            report.damage.push(Damage {
                position: self.retired,
                file,
                offset: 0,
                what: what.clone(),
            });
        }
        let retired = segments
            .iter()
            .map(|segment| segment.retired)
            .max()
            .unwrap_or(0)
            .max(self.retired);
        let mut tail: Option<Position> = None;
        let (mut limit, mut epoch) = (None, 0);
        for (at, ((segment, len), found)) in self.segments.iter().zip(segments).enumerate() {
            // A crash may have come while retired files were being removed.
            if segment.0 + len <= retired {
                continue;
            }
            if let Some(limit) = limit
                && limit != segment.0
            {
                report
                    .damage
                    .push(self.damage(limit, "a segment is missing"));
            }
            limit = Some(segment.0 + len);
            let Some(follows) = found.follows else {
                continue;
            };
            // Groups of an earlier epoch were cut; the segment has not been written again since.
            if found.epochs.0 < epoch {
                continue;
            }
            epoch = found.epochs.1;
            // What lies after the chain was cut when the next segment goes on from there.
            let cut = segments.get(at + 1).is_some_and(|next| {
                next.follows == Some(found.chain_end) && next.epochs.0 >= found.epochs.1
            });
            let (mut gaps, end) = if cut {
                (Vec::new(), found.chain_end)
            } else {
                (found.gaps.clone(), found.end)
            };
            match tail {
                Some(tail) if follows != tail => gaps.insert(0, tail..segment.0),
                None if segment.0 < self.checkpoint && follows > segment.0 => {
                    gaps.insert(0, segment.0..follows)
                }
                _ => {}
            }
            for gap in gaps {
                if report.unacknowledged.is_some() {
                    continue;
                }
                if gap.start < durable {
                    report.damage.push(self.damage(
                        gap.start,
                        "there is no sound group where one was acknowledged",
                    ));
                } else {
                    report.unacknowledged = Some(gap.start..end);
                    tail = Some(gap.start);
                }
            }
            if found.unknown > 0 {
                report
                    .damage
                    .push(self.damage(segment.0, "sound groups hold records of no known kind"));
            }
            report.segments += 1;
            report.groups += found.groups;
            report.records += found.records;
            if report.unacknowledged.is_none() {
                tail = Some(end);
            }
        }
        report.tail = tail.unwrap_or(self.checkpoint);
        if report.tail < durable && report.damage.is_empty() {
            report.damage.push(self.damage(
                report.tail,
                "there is no sound group where one was acknowledged",
            ));
        }
        report
    }

    fn damage(&self, position: Position, what: &str) -> Damage {
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|(segment, _)| segment.0 <= position);
        let segment = segment.map_or(SegmentId(position), |&(segment, _)| segment);
        Damage {
            position,
            file: segment.file_name(),
            offset: position - segment.0,
            what: what.to_string(),
        }
    }
}

/// Checks a whole log, one segment after the other.
pub async fn verify<I: Io>(io: &I) -> Result<VerifyReport, IoError> {
    let files = LogFiles::read(io).await?;
    let mut segments = Vec::new();
    for at in 0..files.segments.len() {
        segments.push(files.walk(io, at, &mut |_| {}).await?);
    }
    let mut report = files.judge(&segments);
    for (at, (segment, len)) in files.segments.iter().enumerate() {
        if files.indexes.contains(segment) {
            if !files.index_is_sound(io, at).await? {
                report
                    .unsound_indexes
                    .push(FileId::Index(*segment).file_name());
            }
        } else if segment.0 + len <= files.checkpoint {
            report
                .unsound_indexes
                .push(FileId::Index(*segment).file_name());
        }
    }
    Ok(report)
}
