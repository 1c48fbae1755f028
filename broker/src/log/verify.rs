//! Judging a log by its files: what is damaged, what was never acknowledged, what is missing.

use super::checkpoint;
use super::hole::{Hole, hole_at, outside};
use super::segment::SegmentId;
use super::walk::{LogFiles, SegmentReport};
use super::{Io, IoError, Position};
use std::ops::Range;

const NO_GROUP: &str = "there is no sound group where one was acknowledged";

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
    /// Where sound groups go on; only for what the log can be told to go on without.
    pub to: Option<Position>,
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
    /// Damage that the log was told to go on without.
    pub holes: Vec<Hole>,
    /// Indexes that are missing or unsound: the next start, or the next look at them, builds them again.
    pub unsound_indexes: Vec<String>,
}

impl LogFiles {
    /// Joins what was found in all segments, in their order, to what it says of the log.
    pub fn judge(&self, segments: &[SegmentReport]) -> VerifyReport {
        let mut report = VerifyReport {
            tail: self.checkpoint,
            holes: self.holes.clone(),
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
                to: None,
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
                    .push(self.damage(limit, "a segment is missing", None));
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
            let (gaps, end) = if cut {
                (Vec::new(), found.chain_end)
            } else {
                (found.gaps.clone(), found.end)
            };
            let before = match tail.map(|tail| self.behind_holes(tail)) {
                Some(tail) if follows != tail => self.unexplained(tail, segment.0),
                None if segment.0 < self.checkpoint && follows > segment.0 => {
                    self.unexplained(segment.0, follows)
                }
                _ => Vec::new(),
            };
            let gaps = joined(before.into_iter().chain(gaps));
            for gap in gaps {
                if report.unacknowledged.is_some() {
                    continue;
                }
                if gap.start < durable {
                    report.damage.push(self.damage(
                        gap.start,
                        NO_GROUP,
                        Some(gap.end.max(gap.start + 1)),
                    ));
                } else {
                    report.unacknowledged = Some(gap.start..end);
                    tail = Some(gap.start);
                }
            }
            if found.unknown > 0 {
                report.damage.push(self.damage(
                    segment.0,
                    "sound groups hold records of no known kind",
                    None,
                ));
            }
            report.segments += 1;
            report.groups += found.groups;
            report.records += found.records;
            if report.unacknowledged.is_none() {
                tail = Some(end);
            }
        }
        report.tail = tail.unwrap_or(self.checkpoint);
        report.tail = self.behind_holes(report.tail);
        if report.tail < durable && report.damage.is_empty() {
            report
                .damage
                .push(self.damage(report.tail, NO_GROUP, Some(durable)));
        }
        report
    }

    fn damage(&self, position: Position, what: &str, to: Option<Position>) -> Damage {
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
            to,
        }
    }

    fn behind_holes(&self, mut position: Position) -> Position {
        while let Some(hole) = hole_at(&self.holes, position) {
            position = hole.to;
        }
        position
    }

    /// What of the bytes between two groups, of which the second does not say that it follows the first, lies in no hole.
    fn unexplained(&self, from: Position, to: Position) -> Vec<Range<Position>> {
        if from < to {
            return outside(&self.holes, from..to);
        }
        let mut holes = self.holes.iter();
        match holes.any(|hole| (hole.from..=hole.to).contains(&to)) {
            true => Vec::new(),
            false => std::iter::once(to..to).collect(),
        }
    }
}

/// Ranges in order, those that touch as one.
fn joined(ranges: impl Iterator<Item = Range<Position>>) -> Vec<Range<Position>> {
    let mut all: Vec<Range<Position>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => all.push(range),
        }
    }
    all
}

/// Checks a whole log, one segment after the other.
pub async fn verify<I: Io>(io: &I) -> Result<VerifyReport, IoError> {
    let files = LogFiles::read(io).await?;
    let segments = files.walk_all(io).await?;
    let mut report = files.judge(&segments);
    for index in &files.indexes {
        if !files.index_is_sound(io, *index).await? {
            report.unsound_indexes.push(index.file_name());
        }
    }
    for at in 0..files.segments.len() {
        let missing = files.missing_index(io, at).await?;
        report
            .unsound_indexes
            .extend(missing.map(|index| index.file_name()));
    }
    Ok(report)
}
