//! Holes: damage that somebody has told the log to go on without.
//!
//! A hole is a range of positions that held acknowledged groups and holds none that is sound. The checkpoint names it, so
//! that neither opening nor sealing nor `verify` stops there again. It is made by opening the log with
//! [`LogOptions::skip_damage`](super::LogOptions), which must name the position that opening reports, and nothing else.
//!
//! A hole is *settled* once a checkpoint knows the gaps that it left in queues. Until then a queue's first record behind it
//! may have any later offset than the one before it.

use super::checkpoint::Checkpoint;
use super::segment::IndexId;
use super::walk::LogFiles;
use super::{Io, OpenError, Position};
use std::ops::Range;

/// Damage that is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first position.
    pub from: Position,
    /// Where sound groups go on.
    pub to: Position,
    /// The checkpoint's queues are as they are behind it.
    pub settled: bool,
}

impl Hole {
    /// Whether an index may tell of what lay in it: which its groups are is not asked, only where its segment ends.
    pub(super) fn touches(
        &self,
        index: IndexId,
        segments: impl IntoIterator<Item = Range<Position>>,
    ) -> bool {
        let start = index.start();
        let mut segments = segments.into_iter();
        let segment = segments.find(|segment| segment.contains(&start));
        start < self.to && segment.is_some_and(|segment| segment.end > self.from)
    }
}

/// The hole that `position` lies in.
pub(super) fn hole_at(holes: &[Hole], position: Position) -> Option<Hole> {
    let mut holes = holes.iter();
    holes
        .find(|hole| (hole.from..hole.to).contains(&position))
        .copied()
}

/// What of a range lies in no hole.
pub(super) fn outside(holes: &[Hole], range: Range<Position>) -> Vec<Range<Position>> {
    let mut left = vec![range];
    for hole in holes {
        let parts = left.into_iter().flat_map(|part| {
            let before = part.start..part.end.min(hole.from);
            let behind = part.start.max(hole.to)..part.end;
            [before, behind]
        });
        left = parts.filter(|part| !part.is_empty()).collect();
    }
    left
}

/// The holes that a checkpoint keeps which knows all queues.
pub(super) fn kept(holes: &[Hole], retired: Position) -> Vec<Hole> {
    let kept = holes.iter().filter(|hole| hole.to > retired);
    kept.map(|hole| Hole {
        settled: true,
        ..*hole
    })
    .collect()
}

/// Makes the damage at `position` a hole, in the checkpoint on disk too. Nothing but damage that `verify` reports there can
/// be made one.
pub(super) async fn skip_damage<I: Io>(
    io: &I,
    checkpoint: &mut Checkpoint,
    position: Position,
) -> Result<Hole, OpenError> {
    let files = LogFiles::read(io).await?;
    let segments = files.walk_all(io).await?;
    let report = files.judge(&segments);
    let damage = report
        .damage
        .iter()
        .find(|damage| damage.position == position);
    let Some(to) = damage.and_then(|damage| damage.to) else {
        return Err(OpenError::NotDamaged {
            position,
            first: report.damage.first().map(|damage| damage.position),
        });
    };
    let hole = Hole {
        from: position,
        to,
        settled: false,
    };
    // Indexes tell of records that are gone now.
    for index in &files.indexes {
        let segments = files.segments.iter();
        if hole.touches(*index, segments.map(|(id, len)| id.0..id.0 + len)) {
            io.remove(&index.file_name()).await?;
        }
    }
    checkpoint.holes.push(hole);
    checkpoint.holes.sort_by_key(|hole| hole.from);
    checkpoint.write(io).await?;
    Ok(hole)
}

/// Damage that was met where a segment starts may begin in the segment before, of which nothing had to be read. It is passed
/// over by where it begins.
pub(super) async fn where_damage_begins<I: Io>(
    io: &I,
    error: OpenError,
) -> Result<OpenError, OpenError> {
    let OpenError::Damaged {
        position,
        offset: 0,
        ref what,
        ..
    } = error
    else {
        return Ok(error);
    };
    let mut files = LogFiles::read(io).await?;
    files
        .segments
        .retain(|(segment, len)| (segment.0..=segment.0 + len).contains(&position));
    let segments = files.walk_all(io).await?;
    let mut damage = files.judge(&segments).damage.into_iter();
    let holding =
        damage.find(|found| found.position <= position && found.to.is_some_and(|to| position < to));
    Ok(match holding {
        Some(found) => OpenError::Damaged {
            position: found.position,
            file: found.file,
            offset: found.offset,
            what: what.clone(),
        },
        None => error,
    })
}
