//! The segments of a log: which range of positions each file holds, where its chunks begin, which files stand ready.
//!
//! A segment starts where the one before it ends by length, whether that was filled or not. A *chunk* is a run of whole
//! groups of about [`CHUNK_BYTES`]: the unit of cold reads. Chunk starts are kept in memory, 4 bytes each (16 KiB for a
//! segment of 1 GiB).

use super::Position;
use super::group::MIN_BLOCK_BYTES;
use super::index::{Layout, Meta};
use std::collections::VecDeque;

/// A chunk takes further groups until it is this long.
pub(super) const CHUNK_BYTES: u64 = 256 << 10;
/// Lengths of segments are multiples of it, so that positions stay aligned for any block.
pub(super) const SEGMENT_ALIGN: u64 = 65536;

/// A segment, named by the position of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub Position);

impl SegmentId {
    /// The name of the segment's file.
    pub fn file_name(self) -> String {
        format!("{:020}.log", self.0)
    }

    /// The segment that a file of this name holds.
    pub fn of_file_name(name: &str) -> Option<Self> {
        position_in_name(name, ".log").map(Self)
    }
}

/// The position in a name like `00000000000000065536.log`.
pub(super) fn position_in_name(name: &str, suffix: &str) -> Option<Position> {
    let digits = name.strip_suffix(suffix)?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// A file that the log reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileId {
    /// A segment.
    Segment(SegmentId),
    /// An index beside a segment.
    Index(IndexId),
}

impl FileId {
    /// The file's name.
    pub fn file_name(self) -> String {
        match self {
            FileId::Segment(id) => id.file_name(),
            FileId::Index(id) => id.file_name(),
        }
    }
}

/// An index file: of a whole segment, or of a run of its groups. Positions are even, so that the lowest bit tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexId(u64);

impl IndexId {
    /// Of all groups of the segment that starts here.
    pub fn whole(segment: Position) -> Self {
        Self(segment)
    }

    /// Of a run of groups, the first of which begins here.
    pub fn run(start: Position) -> Self {
        Self(start | 1)
    }

    /// Where its first group begins.
    pub fn start(self) -> Position {
        self.0 & !1
    }

    /// Whether it is of a whole segment.
    pub fn is_whole(self) -> bool {
        self.0 & 1 == 0
    }

    /// What its pages are checked against.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    /// The file's name.
    pub fn file_name(self) -> String {
        let kind = if self.is_whole() { "index" } else { "run" };
        format!("{:020}.{kind}", self.start())
    }

    /// The index that a file of this name holds.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let whole = position_in_name(name, ".index").map(Self::whole);
        whole
            .or_else(|| position_in_name(name, ".run").map(Self::run))
            .filter(|id| id.start().is_multiple_of(MIN_BLOCK_BYTES))
    }
}

/// An index file whose rows the queues know, or are taking over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Index {
    pub id: IndexId,
    /// Where its last group ends.
    pub end: Position,
    pub layout: Layout,
    pub rows: u32,
    /// The oldest store time in it.
    pub oldest_ms: i64,
    /// The newest store time up to its end.
    pub newest_ms: i64,
}

impl Index {
    pub fn of(meta: &Meta) -> Self {
        Self {
            id: meta.id,
            end: meta.end,
            layout: meta.layout,
            rows: meta.rows.len() as u32,
            oldest_ms: meta.oldest_ms,
            newest_ms: meta.newest_ms,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub start: Position,
    pub len: u64,
    /// Where its last group ends; moves in the newest segment only.
    pub end: Position,
    /// The newest store time of any record up to its end.
    pub newest_ms: i64,
    /// Its indexes: each goes on where the one before ends.
    pub indexes: Vec<Index>,
    /// What queues are taking over in place of `indexes`.
    pub merged: Option<Index>,
    /// Where chunks begin, in `MIN_BLOCK_BYTES` from `start`, ascending.
    pub chunks: Vec<u32>,
}

impl Segment {
    pub fn new(start: Position, len: u64) -> Self {
        Self {
            start,
            len,
            end: start,
            newest_ms: 0,
            indexes: Vec::new(),
            merged: None,
            chunks: Vec::new(),
        }
    }

    pub fn id(&self) -> SegmentId {
        SegmentId(self.start)
    }

    /// While opening: goes on behind the groups of an index.
    pub fn load_index(&mut self, meta: &Meta) {
        (self.end, self.newest_ms) = (meta.end, meta.newest_ms);
        self.chunks.extend(&meta.chunks);
        self.add_index(Index::of(meta));
    }

    /// Takes another index.
    pub fn add_index(&mut self, index: Index) {
        assert_eq!(
            index.id.start(),
            self.indexed_to(),
            "indexes follow one another"
        );
        assert!(index.end <= self.end, "an index is of what is there");
        self.indexes.push(index);
    }

    /// Where the groups that are in no index begin.
    pub fn indexed_to(&self) -> Position {
        self.indexes.last().map_or(self.start, |last| last.end)
    }

    /// Whether all of its groups are in indexes.
    pub fn is_sealed(&self) -> bool {
        self.indexes.last().is_some_and(|last| last.end == self.end)
    }

    pub fn index(&self, id: IndexId) -> Option<&Index> {
        let mut all = self.indexes.iter().chain(&self.merged);
        all.find(|index| index.id == id)
    }

    /// One past the last position that it could hold.
    pub fn limit(&self) -> Position {
        self.start + self.len
    }

    /// Notes that a group begins at `position`; `fresh` begins a chunk in any case.
    pub fn note_group(&mut self, position: Position, fresh: bool) {
        let far = self.chunks.last().is_none_or(|&last| {
            position - self.start >= u64::from(last) * MIN_BLOCK_BYTES + CHUNK_BYTES
        });
        if far || fresh {
            self.chunks
                .push(((position - self.start) / MIN_BLOCK_BYTES) as u32);
        }
    }

    /// Start and end of the chunk that holds `position`. The newest chunk ends where the segment does so far.
    pub fn chunk_at(&self, position: Position) -> Option<(Position, Position)> {
        if position < self.start || position >= self.end {
            return None;
        }
        let block = (position - self.start) / MIN_BLOCK_BYTES;
        let after = self
            .chunks
            .partition_point(|&chunk| u64::from(chunk) <= block);
        let start =
            self.start + u64::from(*self.chunks.get(after.checked_sub(1)?)?) * MIN_BLOCK_BYTES;
        let end = self.chunks.get(after).map_or(self.end, |&chunk| {
            self.start + u64::from(chunk) * MIN_BLOCK_BYTES
        });
        Some((start, end))
    }
}

/// All segments from the oldest retained one to the one that is written, then those that stand ready.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// The last is written to.
    pub list: VecDeque<Segment>,
    /// Prepared, in order: each starts at the limit of the one before.
    pub ready: VecDeque<Segment>,
}

impl Segments {
    pub fn newest(&self) -> &Segment {
        match self.list.back() {
            Some(newest) => newest,
            None => unreachable!("a log has a segment"),
        }
    }

    pub fn newest_mut(&mut self) -> &mut Segment {
        match self.list.back_mut() {
            Some(newest) => newest,
            None => unreachable!("a log has a segment"),
        }
    }

    /// The segment whose range holds `position`.
    pub fn at(&self, position: Position) -> Option<&Segment> {
        let after = self
            .list
            .partition_point(|segment| segment.start <= position);
        self.list
            .get(after.checked_sub(1)?)
            .filter(|segment| position < segment.limit())
    }

    /// Where to look in an index file.
    pub fn layout(&self, id: IndexId) -> Option<Layout> {
        Some(self.at(id.start())?.index(id)?.layout)
    }

    /// Where the groups that are in no index begin.
    pub fn indexed_to(&self) -> Position {
        let unsealed = self.list.iter().find(|segment| !segment.is_sealed());
        unsealed.unwrap_or_else(|| self.newest()).indexed_to()
    }

    pub fn get_mut(&mut self, start: Position) -> Option<&mut Segment> {
        let at = self
            .list
            .binary_search_by_key(&start, |segment| segment.start)
            .ok()?;
        self.list.get_mut(at)
    }

    /// The segment whose range holds `position`.
    pub fn containing(&mut self, position: Position) -> Option<&mut Segment> {
        let start = self.at(position)?.start;
        self.get_mut(start)
    }

    pub fn oldest_start(&self) -> Position {
        self.list.front().map_or(0, |segment| segment.start)
    }

    /// Where the segment after all others will start, and the length of the last one.
    pub fn next_start(&self) -> (Position, u64) {
        let last = self.ready.back().unwrap_or_else(|| self.newest());
        (last.limit(), last.len)
    }

    /// Moves on to the next prepared segment, if there is one.
    pub fn roll(&mut self) -> Option<&Segment> {
        let next = self.ready.pop_front()?;
        assert_eq!(
            next.start,
            self.newest().limit(),
            "segments follow one another"
        );
        self.list.push_back(next);
        self.list.back()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(SegmentId(65536).file_name(), "00000000000000065536.log");
        assert_eq!(
            SegmentId::of_file_name("00000000000000065536.log"),
            Some(SegmentId(65536))
        );
        for name in [
            "65536.log",
            "00000000000000065536.tmp",
            "0000000000000006553x.log",
            "99999999999999999999.log",
            "",
        ] {
            assert_eq!(SegmentId::of_file_name(name), None);
        }
    }

    #[test]
    fn names_of_indexes() {
        let (whole, run) = (IndexId::whole(65536), IndexId::run(65536));
        assert_eq!(whole.file_name(), "00000000000000065536.index");
        assert_eq!(run.file_name(), "00000000000000065536.run");
        for id in [whole, run] {
            assert_eq!(IndexId::of_file_name(&id.file_name()), Some(id));
            assert_eq!(id.start(), 65536);
        }
        for name in [
            "00000000000000065535.run",
            "00000000000000065536.log",
            "run",
        ] {
            assert_eq!(IndexId::of_file_name(name), None);
        }
    }

    #[test]
    fn chunks_are_runs_of_groups() {
        let mut segment = Segment::new(1 << 20, 1 << 20);
        for block in 0..200 {
            segment.note_group((1 << 20) + block * 4096, false);
        }
        segment.end = (1 << 20) + 200 * 4096;
        let start = segment.start;
        assert_eq!(segment.chunk_at(start), Some((start, start + CHUNK_BYTES)));
        assert_eq!(
            segment.chunk_at(start + CHUNK_BYTES - 1),
            Some((start, start + CHUNK_BYTES))
        );
        assert_eq!(
            segment.chunk_at(start + 3 * CHUNK_BYTES + 5),
            Some((start + 3 * CHUNK_BYTES, segment.end))
        );
        assert_eq!(segment.chunk_at(segment.end), None);
        assert_eq!(segment.chunk_at(start - 1), None);
    }

    #[test]
    fn segments_are_found_by_position() {
        let mut segments = Segments::default();
        segments.list.push_back(Segment::new(0, 65536));
        segments.ready.push_back(Segment::new(65536, 131072));
        assert_eq!(segments.next_start(), (196608, 131072));
        assert!(segments.at(65536).is_none());
        segments.roll().unwrap();
        assert!(segments.roll().is_none());
        assert_eq!(segments.at(65536).unwrap().start, 65536);
        assert_eq!(segments.at(65535).unwrap().start, 0);
        assert!(segments.at(196608).is_none());
    }
}
