//! Reading: what is in memory at once, what is on disk through reads that the host runs.
//!
//! Cold bytes are read in chunks, runs of whole groups, and every group is checked before anything of it is given out.
//! A reader that goes from chunk to chunk has the next ones read ahead. The newest chunks stay in a cache of
//! `read_cache_bytes`, but never fewer than one.

use super::group::{self, MIN_BLOCK_BYTES};
use super::segment::{FileId, SegmentId};
use super::stored::Stored;
use super::{IoError, Log, Position, ReadBuffer, ReadMiss, Slice};
use std::collections::{BTreeMap, VecDeque};

/// Chunks that are read ahead of a sequential reader.
const READ_AHEAD: usize = 4;
/// Offsets and lengths of reads are multiples of it.
const READ_ALIGN: u64 = 4096;

/// Names one read that the host is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// A read for the host to run. Fewer bytes may come back only at the end of the file.
#[derive(Clone, Copy, Debug)]
pub struct ReadOp {
    /// To be given back with the bytes.
    pub id: ReadId,
    /// The file.
    pub file: FileId,
    /// Where to read; a multiple of 4096.
    pub offset: u64,
    /// How many bytes; a multiple of 4096.
    pub len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: Position,
    end: Position,
    sound: bool,
}

struct Chunk {
    bytes: Slice,
    end: Position,
    groups: Vec<Extent>,
    /// A failed read: given to one asker, then forgotten.
    failed: bool,
    touched: bool,
    used: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    id: ReadId,
    start: Position,
    end: Position,
    /// Bytes in front of `start` that alignment adds.
    lead: usize,
}

/// Chunks in memory and on their way.
pub(super) struct ColdReads {
    chunks: BTreeMap<Position, Chunk>,
    pending: Vec<Pending>,
    wanted: VecDeque<ReadOp>,
    cache_bytes: usize,
    bytes: usize,
    uses: u64,
    next_id: u64,
}

impl ColdReads {
    pub fn new(cache_bytes: usize) -> Self {
        Self {
            chunks: BTreeMap::new(),
            pending: Vec::new(),
            wanted: VecDeque::new(),
            cache_bytes,
            bytes: 0,
            uses: 0,
            next_id: 0,
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    fn want(&mut self, segment: Position, start: Position, end: Position) -> ReadId {
        if let Some(pending) = self
            .pending
            .iter()
            .find(|pending| pending.start == start && pending.end >= end)
        {
            return pending.id;
        }
        let id = ReadId(self.next_id);
        self.next_id += 1;
        let offset = (start - segment) / READ_ALIGN * READ_ALIGN;
        let lead = (start - segment - offset) as usize;
        let len = ((end - segment).next_multiple_of(READ_ALIGN) - offset) as usize;
        self.pending.push(Pending {
            id,
            start,
            end,
            lead,
        });
        self.wanted.push_back(ReadOp {
            id,
            file: FileId::Segment(SegmentId(segment)),
            offset,
            len,
        });
        id
    }

    fn keep(&mut self, start: Position, mut chunk: Chunk) {
        self.uses += 1;
        chunk.used = self.uses;
        self.bytes += chunk.bytes.len();
        if let Some(old) = self.chunks.insert(start, chunk) {
            self.bytes -= old.bytes.len();
        }
        while self.bytes > self.cache_bytes && self.chunks.len() > 1 {
            let Some(oldest) = self
                .chunks
                .iter()
                .min_by_key(|(_, chunk)| chunk.used)
                .map(|(&start, _)| start)
            else {
                break;
            };
            if let Some(gone) = self.chunks.remove(&oldest) {
                self.bytes -= gone.bytes.len();
            }
        }
    }

    /// Forgets everything before `position`.
    pub fn retire_before(&mut self, position: Position) {
        let kept = self.chunks.split_off(&position);
        self.bytes -= self
            .chunks
            .values()
            .map(|chunk| chunk.bytes.len())
            .sum::<usize>();
        self.chunks = kept;
    }
}

impl Log {
    /// The bytes of the record of `size` bytes at `position`, as an [`Entry`](super::Entry) names it, checked.
    pub fn record(&mut self, position: Position, size: u32) -> Result<Slice, ReadMiss> {
        if let Some(bytes) = self.tail.bytes(position, size as usize) {
            return if bytes[..4] == size.to_be_bytes() {
                Ok(bytes)
            } else {
                Err(ReadMiss::Gone)
            };
        }
        let (group, start) = self.cold_group(position)?;
        let at = (position - start) as usize;
        let record = group.get(at..at + size as usize).ok_or(ReadMiss::Gone)?;
        if record[..4] != size.to_be_bytes() {
            return Err(ReadMiss::Gone);
        }
        Ok(group.slice(at..at + size as usize))
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
                let at = (position - start) as usize;
                group::records(&group)
                    .find(|&(start, _)| start == at)
                    .map(|(_, record)| group.slice(at..at + record.len()))
            }
        };
        record
            .filter(|bytes| matches!(Stored::parse(bytes), Some(Stored::Message(_))))
            .ok_or(ReadMiss::Gone)
    }

    /// The checked group that holds `position`, read from disk, and where it begins.
    fn cold_group(&mut self, position: Position) -> Result<(Slice, Position), ReadMiss> {
        if position < self.min_position() || position >= self.durable {
            return Err(ReadMiss::Gone);
        }
        let segment = self.segments.at(position).ok_or(ReadMiss::Gone)?;
        let (start, end) = segment.chunk_at(position).ok_or(ReadMiss::Gone)?;
        let (segment_start, end) = (segment.start, end.min(self.durable));
        let read_ahead = match self.cold.chunks.get_mut(&start) {
            Some(chunk) if chunk.failed => {
                self.cold.chunks.remove(&start);
                return Err(ReadMiss::Damaged { position: start });
            }
            Some(chunk) if position < chunk.end => {
                self.cold.uses += 1;
                chunk.used = self.cold.uses;
                !std::mem::replace(&mut chunk.touched, true)
            }
            _ => {
                let id = self.cold.want(segment_start, start, end);
                self.read_ahead_after(start, end);
                return Err(ReadMiss::Wanted(id));
            }
        };
        if read_ahead {
            self.read_ahead_after(start, end);
        }
        let Some(chunk) = self.cold.chunks.get(&start) else {
            return Err(ReadMiss::Gone);
        };
        let at = chunk
            .groups
            .partition_point(|group| group.start <= position);
        match at.checked_sub(1).and_then(|at| chunk.groups.get(at)) {
            Some(group) if position < group.end && group.sound => {
                let bytes = chunk
                    .bytes
                    .slice((group.start - start) as usize..(group.end - start) as usize);
                Ok((bytes, group.start))
            }
            Some(group) if position < group.end => Err(ReadMiss::Damaged {
                position: group.start,
            }),
            _ => Err(ReadMiss::Gone),
        }
    }

    /// Has the next chunks read if the one at `start` was come to from the one before.
    fn read_ahead_after(&mut self, start: Position, end: Position) {
        let before = start
            .checked_sub(1)
            .and_then(|before| self.segments.at(before)?.chunk_at(before));
        if !before.is_some_and(|(before, _)| {
            self.cold
                .chunks
                .get(&before)
                .is_some_and(|chunk| chunk.touched)
        }) {
            return;
        }
        let tail_start = self.tail.start().unwrap_or(self.durable).min(self.durable);
        let mut next = end;
        for _ in 0..READ_AHEAD {
            let Some(segment) = self.segments.at(next) else {
                return;
            };
            let Some((start, end)) = segment.chunk_at(next) else {
                return;
            };
            if end > tail_start {
                return;
            }
            let segment = segment.start;
            if !self.cold.chunks.contains_key(&start) {
                self.cold.want(segment, start, end);
            }
            next = end;
        }
    }

    /// The next read to run.
    pub fn next_read(&mut self) -> Option<ReadOp> {
        self.cold.wanted.pop_front()
    }

    /// A read has ended: who was told `Wanted` may ask again.
    pub fn read_done(&mut self, id: ReadId, result: Result<ReadBuffer, IoError>) {
        let Some(at) = self
            .cold
            .pending
            .iter()
            .position(|pending| pending.id == id)
        else {
            return;
        };
        let Pending {
            start, end, lead, ..
        } = self.cold.pending.swap_remove(at);
        if start < self.min_position() {
            return;
        }
        let len = (end - start) as usize;
        let chunk = match result {
            Ok(bytes) if bytes.len() >= lead + len => {
                let bytes = bytes.slice(lead..lead + len);
                let groups = extents(&bytes, self.log_id, start);
                Chunk {
                    bytes,
                    end,
                    groups,
                    failed: false,
                    touched: false,
                    used: 0,
                }
            }
            _ => Chunk {
                bytes: Slice::copied(&[], 1),
                end,
                groups: Vec::new(),
                failed: true,
                touched: false,
                used: 0,
            },
        };
        self.cold.keep(start, chunk);
    }
}

/// The groups in `bytes`, which begin at `position`, and the stretches between them that are none.
fn extents(bytes: &[u8], log_id: u64, position: Position) -> Vec<Extent> {
    let mut found: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = position + at as u64;
        match group::check(&bytes[at..], log_id, start) {
            Ok(header) => {
                found.push(Extent {
                    start,
                    end: header.end(),
                    sound: true,
                });
                at += header.padded as usize;
            }
            Err(_) => {
                let end = start + MIN_BLOCK_BYTES;
                match found.last_mut() {
                    Some(last) if !last.sound => last.end = end,
                    _ => found.push(Extent {
                        start,
                        end,
                        sound: false,
                    }),
                }
                at += MIN_BLOCK_BYTES as usize;
            }
        }
    }
    found
}
