//! Records read by themselves, for a reader whose records lie far apart: only the blocks that hold them, many reads at once.
//!
//! What is read this way is no whole group, so that the group's checksum cannot tell. Records of queues of messages that
//! wait have a checksum of their own in their entry ([`record_checksum`](super::stored::record_checksum)). A record that
//! fails it, or could not be read, is read again with its whole chunk: what that says holds.
//!
//! Bounds: no read is made ahead while [`MOST_AHEAD_BYTES`] wait to be looked at; what has arrived is kept until
//! [`KEPT_BYTES`] of newer ones have.

use super::cold::{READ_ALIGN, ReadId, ReadOp};
use super::segment::{FileId, SegmentId};
use super::{IoError, Position, Slice};
use std::collections::{BTreeMap, VecDeque};

/// Bytes that may be on their way, or here and not yet looked at, before nothing more is read ahead.
const MOST_AHEAD_BYTES: u64 = 8 << 20;
/// Bytes that are kept.
const KEPT_BYTES: u64 = 12 << 20;
/// Records so close to each other are read together,
const GAP_BYTES: u64 = 4096;
/// as far as the read gets no longer than this.
const MOST_MERGED_BYTES: u64 = 32 << 10;
/// Numbers of these reads begin here; those of whole chunks stay below.
const FIRST_ID: u64 = 1 << 63;

/// What is known of a record.
pub(super) enum Known {
    Here(Slice),
    /// It could not be read.
    Failed,
    Wanted(ReadId),
    /// Nobody asked for it, or that is long ago.
    Unknown,
}

enum State {
    Wanted,
    Here(Slice),
    Failed,
}

struct Blocks {
    id: ReadId,
    len: u64,
    state: State,
    looked_at: bool,
}

/// Reads of single records, by the position of their first block.
#[derive(Default)]
pub(super) struct AloneReads {
    blocks: BTreeMap<Position, Blocks>,
    /// Where reads on their way begin.
    starts: BTreeMap<ReadId, Position>,
    wanted: VecDeque<ReadOp>,
    arrived: VecDeque<(Position, ReadId)>,
    ahead_bytes: u64,
    kept_bytes: u64,
    next_id: u64,
}

impl AloneReads {
    /// Whether a read is one of these.
    pub fn owns(id: ReadId) -> bool {
        id.0 >= FIRST_ID
    }

    /// Whether no more is to be read ahead now.
    pub fn is_full(&self) -> bool {
        self.ahead_bytes >= MOST_AHEAD_BYTES
    }

    /// Whether the record of `size` bytes at `position` was asked for and is not forgotten.
    pub fn is_asked(&self, position: Position, size: u32) -> bool {
        let before = self.blocks.range(..=position).next_back();
        before.is_some_and(|(start, blocks)| position + u64::from(size) <= start + blocks.len)
    }

    /// What is known of the record of `size` bytes at `position`.
    pub fn find(&mut self, position: Position, size: u32) -> Known {
        let end = position + u64::from(size);
        let Some((start, blocks)) = self.blocks.range_mut(..=position).next_back() else {
            return Known::Unknown;
        };
        if start + blocks.len < end {
            return Known::Unknown;
        }
        if matches!(blocks.state, State::Wanted) {
            return Known::Wanted(blocks.id);
        }
        if !std::mem::replace(&mut blocks.looked_at, true) {
            self.ahead_bytes -= blocks.len;
        }
        match &blocks.state {
            State::Here(bytes) => {
                let at = (position - start) as usize;
                Known::Here(bytes.slice(at..at + size as usize))
            }
            State::Failed | State::Wanted => Known::Failed,
        }
    }

    /// Has the blocks read that hold the record of `size` bytes at `position` of `segment`.
    pub fn ask(&mut self, segment: Position, position: Position, size: u32) -> ReadId {
        let start = position / READ_ALIGN * READ_ALIGN;
        let end = (position + u64::from(size)).next_multiple_of(READ_ALIGN);
        if let Some(id) = self.extend_last(segment, start, end) {
            return id;
        }
        let id = ReadId(FIRST_ID | self.next_id);
        self.next_id += 1;
        let blocks = Blocks {
            id,
            len: end - start,
            state: State::Wanted,
            looked_at: false,
        };
        self.ahead_bytes += blocks.len;
        if let Some(old) = self.blocks.insert(start, blocks) {
            self.starts.remove(&old.id);
            self.forget(&old);
        }
        self.starts.insert(id, start);
        self.wanted.push_back(ReadOp {
            id,
            file: FileId::Segment(SegmentId(segment)),
            offset: start - segment,
            len: (end - start) as usize,
        });
        id
    }

    /// Lets the read that was asked for last, and not run yet, go on to `end`, where that is worth it.
    fn extend_last(&mut self, segment: Position, start: Position, end: Position) -> Option<ReadId> {
        let last = self.wanted.back_mut()?;
        let from = segment + last.offset;
        let to = from + last.len as u64;
        let is_near = last.file == FileId::Segment(SegmentId(segment))
            && (from..=to + GAP_BYTES).contains(&start)
            && end > to
            && end - from <= MOST_MERGED_BYTES;
        let blocks = self.blocks.get_mut(&from).filter(|_| is_near)?;
        last.len = (end - from) as usize;
        blocks.len = end - from;
        self.ahead_bytes += end - to;
        Some(last.id)
    }

    /// The next read to run.
    pub fn next_read(&mut self) -> Option<ReadOp> {
        self.wanted.pop_front()
    }

    /// Keeps what a read brought, unless nobody waits for it any more.
    pub fn arrived(&mut self, id: ReadId, result: Result<Slice, IoError>) {
        let Some(start) = self.starts.remove(&id) else {
            return;
        };
        let Some(blocks) = self.blocks.get_mut(&start) else {
            return;
        };
        blocks.state = match result {
            Ok(bytes) if bytes.len() as u64 >= blocks.len => State::Here(bytes),
            Ok(_) | Err(_) => State::Failed,
        };
        self.kept_bytes += blocks.len;
        self.arrived.push_back((start, id));
        while self.kept_bytes > KEPT_BYTES
            && self.arrived.len() > 1
            && let Some((start, id)) = self.arrived.pop_front()
        {
            let same = self.blocks.get(&start).is_some_and(|known| known.id == id);
            if same && let Some(old) = self.blocks.remove(&start) {
                self.forget(&old);
            }
        }
    }

    fn forget(&mut self, old: &Blocks) {
        if !old.looked_at {
            self.ahead_bytes -= old.len;
        }
        if !matches!(old.state, State::Wanted) {
            self.kept_bytes -= old.len;
        }
    }

    /// Forgets everything before `oldest`.
    pub fn retire_before(&mut self, oldest: Position) {
        while let Some((&start, _)) = self.blocks.range(..oldest).next()
            && let Some(old) = self.blocks.remove(&start)
        {
            self.starts.remove(&old.id);
            self.forget(&old);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.kept_bytes as usize
    }
}
