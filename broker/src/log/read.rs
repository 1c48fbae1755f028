//! Records: from the tail buffers when they are in memory, otherwise through reads that the host runs.
//!
//! Cold bytes are read in chunks, and every group is checked as a whole before anything of it is given out. A reader that
//! goes from chunk to chunk has the next ones read ahead: the more the further it has come, so that the device has several
//! long reads at a time, as far as all that was read ahead and not asked for yet takes half of the cache at most.

use super::alone::AloneReads;
use super::cold::{Asked, Place};
use super::group::records;
use super::stored::Stored;
use super::{IoError, Log, Position, ReadBuffer, ReadFailure, ReadId, ReadMiss, ReadOp, Slice};

/// Chunks that are asked for together: they go to the device as one read.
const TOGETHER: usize = 4;
/// Chunks in a row that a reader has gone through from which on it gets the longest read-ahead, of so many times [`TOGETHER`].
const FAR: usize = 5;

/// The group from disk that a reader has just read a record of: where its next one most likely is.
#[derive(Default)]
pub struct LastGroup(Option<(Slice, Position)>);

impl LastGroup {
    fn record(&self, position: Position, size: u32) -> Option<Slice> {
        let (group, start) = self.0.as_ref()?;
        let at = usize::try_from(position.checked_sub(*start)?).ok()?;
        let record = group.get(at..at + size as usize)?;
        (record[..4] == size.to_be_bytes()).then(|| group.slice(at..at + size as usize))
    }
}

impl Log {
    /// The bytes of the record of `size` bytes at `position`, as an [`Entry`](super::Entry) names it, checked.
    pub fn record(&mut self, position: Position, size: u32) -> Result<Slice, ReadMiss> {
        self.record_after(&mut LastGroup::default(), position, size)
    }

    /// The same for a reader of many. `last` is its own, and not for longer than a turn: it keeps its group in memory.
    pub fn record_after(
        &mut self,
        last: &mut LastGroup,
        position: Position,
        size: u32,
    ) -> Result<Slice, ReadMiss> {
        if let Some(record) = last.record(position, size) {
            return Ok(record);
        }
        if let Some(bytes) = self.tail.bytes(position, size as usize) {
            return if bytes[..4] == size.to_be_bytes() {
                Ok(bytes)
            } else {
                Err(ReadMiss::Gone)
            };
        }
        last.0 = Some(self.cold_group(position)?);
        last.record(position, size).ok_or(ReadMiss::Gone)
    }

    /// The bytes of the message record that begins at `position`, if one does and is visible.
    pub fn record_at(&mut self, position: Position) -> Result<Slice, ReadMiss> {
        let visible = if self.shows_at_once {
            self.open.end
        } else {
            self.durable
        };
        if position >= visible {
            return Err(ReadMiss::Gone);
        }
        let record = match self.tail.record_at(position) {
            Some(record) => record,
            None => {
                let (group, start) = self.cold_group(position)?;
                let wanted = (position - start) as usize;
                let mut all = records(&group);
                all.find(|&(at, _)| at == wanted)
                    .map(|(at, record)| group.slice(at..at + record.len()))
            }
        };
        record
            .filter(|bytes| matches!(Stored::parse(bytes), Some(Stored::Message(_))))
            .ok_or(ReadMiss::Gone)
    }

    /// The checked group that holds `position`, read from disk, and where it begins.
    pub(super) fn cold_group(&mut self, position: Position) -> Result<(Slice, Position), ReadMiss> {
        let (place, start, end) = self.chunk_at(position).ok_or(ReadMiss::Gone)?;
        match self.cold.ask(place, (end - start) as usize) {
            Asked::Here { piece, first } => {
                let found = piece.sound_at((position - start) as usize);
                if first {
                    self.read_ahead_after(start, end);
                }
                match found {
                    Ok((group, at)) => Ok((group, start + at as u64)),
                    Err(at) => Err(ReadMiss::Damaged {
                        position: start + at as u64,
                    }),
                }
            }
            Asked::Wanted(id) => {
                self.read_ahead_after(start, end);
                Err(ReadMiss::Wanted(id))
            }
            Asked::Failed => Err(ReadMiss::Damaged { position: start }),
        }
    }

    /// The first sound group at or after `position` in the chunk that holds it, or where that chunk ends.
    pub(super) fn cold_group_from(
        &mut self,
        position: Position,
    ) -> Result<Result<(Slice, Position), Position>, ReadMiss> {
        let (place, start, end) = self.chunk_at(position).ok_or(ReadMiss::Gone)?;
        match self.cold.ask(place, (end - start) as usize) {
            Asked::Here { piece, .. } => {
                let found = piece.sound_from((position - start) as usize);
                Ok(found
                    .map(|(group, at)| (group, start + at as u64))
                    .ok_or(end))
            }
            Asked::Wanted(id) => Err(ReadMiss::Wanted(id)),
            Asked::Failed => Err(ReadMiss::Damaged { position: start }),
        }
    }

    /// The durable chunk that holds `position`: its place, start and end.
    pub(super) fn chunk_at(&self, position: Position) -> Option<(Place, Position, Position)> {
        if position < self.min_position() || position >= self.durable {
            return None;
        }
        let segment = self.segments.at(position)?;
        let (start, end) = segment.chunk_at(position)?;
        Some((
            Place::Chunk {
                start,
                segment: segment.start,
            },
            start,
            end.min(self.durable),
        ))
    }

    /// Has the next chunks read if the one at `start` was come to from the one before.
    fn read_ahead_after(&mut self, start: Position, end: Position) {
        let most = self.chunks_gone_through(start) * TOGETHER;
        if most == 0 {
            return;
        }
        let tail_start = self.tail.start().unwrap_or(self.durable);
        let mut room = self.cold.room_ahead();
        let (mut next, mut missing, mut is_near) = (end, Vec::new(), false);
        for number in 0..most {
            let chunk = self.chunk_at(next).filter(|(_, _, end)| *end <= tail_start);
            let Some((place, start, end)) = chunk else {
                break;
            };
            let len = (end - start) as usize;
            if !self.cold.is_asked(place, len) {
                // The nearest ones at least, whatever others have on their way.
                if number >= TOGETHER && room < len {
                    break;
                }
                room = room.saturating_sub(len);
                missing.push((place, len));
                is_near |= number < TOGETHER;
            }
            next = end;
        }
        if is_near || missing.len() >= TOGETHER {
            for (place, len) in missing {
                self.cold.read_ahead(place, len);
            }
        }
    }

    /// How many chunks in a row before `start` were asked for, up to [`FAR`].
    fn chunks_gone_through(&self, mut start: Position) -> usize {
        for count in 0..FAR {
            let before = start.checked_sub(1).and_then(|at| self.chunk_at(at));
            match before {
                Some((place, before, _)) if self.cold.was_touched(place) => start = before,
                _ => return count,
            }
        }
        FAR
    }

    /// The next read to run.
    pub fn next_read(&mut self) -> Option<ReadOp> {
        self.cold.next_read().or_else(|| self.alone.next_read())
    }

    /// A read has ended: who was told `Wanted` may ask again.
    pub fn read_done(&mut self, id: ReadId, result: Result<ReadBuffer, IoError>) {
        if AloneReads::owns(id) {
            self.alone.arrived(id, result);
            return;
        }
        let oldest = self.segments.oldest_start();
        if let Some(failure) = self.cold.arrived(id, result, self.log_id, oldest) {
            self.reads_failed += 1;
            self.read_failures.push(failure);
        }
    }

    /// The failures of reads since the last call.
    pub fn take_read_failures(&mut self) -> Vec<ReadFailure> {
        std::mem::take(&mut self.read_failures)
    }
}
