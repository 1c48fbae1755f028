//! What was read from disk: chunks of segments and blocks of index pages, checked when they arrive, and kept for a while.
//!
//! The cache holds `read_cache_bytes`, never less than the newest piece, and up to [`UNASKED_BYTES`] more of pieces that
//! nobody has looked at since they arrived. A piece that could not be read is given to one asker and then forgotten, so that
//! the next one has it read again.

use super::group::{self, MIN_BLOCK_BYTES};
use super::index::{PAGE_BYTES, page_is_sound};
use super::segment::{FileId, IndexId, SegmentId};
use super::{IoError, Position, ReadFailure, Slice};
use std::collections::{BTreeMap, VecDeque};

/// Offsets and lengths of reads are multiples of it.
pub(super) const READ_ALIGN: u64 = 4096;

/// What arrived and was not looked at yet may go beyond the cache by so much.
const UNASKED_BYTES: usize = 4 << 20;

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

/// What is read and kept as one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The chunk of a segment that begins at a position.
    Chunk { start: Position, segment: Position },
    /// A block of pages of an index, from a page on.
    Pages { page: u32, index: IndexId },
}

impl Place {
    /// A position in the segment that it belongs to.
    fn position(self) -> Position {
        match self {
            Place::Chunk { segment, .. } => segment,
            Place::Pages { index, .. } => index.start(),
        }
    }

    /// The file that it is in, and where it begins there.
    fn in_file(self) -> (FileId, u64) {
        match self {
            Place::Chunk { start, segment } => {
                (FileId::Segment(SegmentId(segment)), start - segment)
            }
            Place::Pages { page, index } => {
                (FileId::Index(index), u64::from(page) * PAGE_BYTES as u64)
            }
        }
    }
}

/// A stretch of a piece that is checked as a whole: a group, a page, or what is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: usize,
    end: usize,
    sound: bool,
}

/// Bytes that were read.
pub(super) struct Piece {
    bytes: Slice,
    /// How much was asked for.
    pub len: usize,
    extents: Vec<Extent>,
    failed: bool,
    /// It was asked for since it was read.
    touched: bool,
    used: u64,
}

impl Piece {
    /// The sound group or page that `offset` lies in, and where it begins; `Err` with where an unsound stretch begins.
    pub fn sound_at(&self, offset: usize) -> Result<(Slice, usize), usize> {
        let after = self
            .extents
            .partition_point(|extent| extent.start <= offset);
        match after.checked_sub(1).and_then(|at| self.extents.get(at)) {
            Some(extent) if extent.sound && offset < extent.end => {
                Ok((self.bytes.slice(extent.start..extent.end), extent.start))
            }
            Some(extent) => Err(extent.start),
            None => Err(0),
        }
    }
}

impl Piece {
    /// The first sound group or page that begins at or after `offset`.
    pub fn sound_from(&self, offset: usize) -> Option<(Slice, usize)> {
        let first = self.extents.partition_point(|extent| extent.start < offset);
        let extent = self.extents[first..].iter().find(|extent| extent.sound)?;
        Some((self.bytes.slice(extent.start..extent.end), extent.start))
    }
}

struct Pending {
    id: ReadId,
    place: Place,
    len: usize,
    /// Bytes that alignment adds in front.
    lead: usize,
}

/// What came of asking for a piece.
pub(super) enum Asked<'a> {
    Here {
        piece: &'a Piece,
        /// For the first time.
        first: bool,
    },
    Wanted(ReadId),
    Failed,
}

pub(super) struct ColdReads {
    pieces: BTreeMap<Place, Piece>,
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
            pieces: BTreeMap::new(),
            pending: Vec::new(),
            wanted: VecDeque::new(),
            cache_bytes,
            bytes: 0,
            uses: 0,
            next_id: 0,
        }
    }

    /// The piece, if `len` bytes of it were read; has it read otherwise.
    pub fn ask(&mut self, place: Place, len: usize) -> Asked<'_> {
        match self.pieces.get(&place) {
            Some(piece) if piece.failed => {
                self.pieces.remove(&place);
                return Asked::Failed;
            }
            Some(piece) if piece.len >= len => self.uses += 1,
            _ => return Asked::Wanted(self.want(place, len)),
        }
        match self.pieces.get_mut(&place) {
            Some(piece) => {
                piece.used = self.uses;
                let first = !std::mem::replace(&mut piece.touched, true);
                Asked::Here { piece, first }
            }
            None => Asked::Failed,
        }
    }

    /// Whether the piece is here and was asked for.
    pub fn was_touched(&self, place: Place) -> bool {
        self.pieces.get(&place).is_some_and(|piece| piece.touched)
    }

    /// Whether the piece is here or on its way.
    pub fn is_asked(&self, place: Place, len: usize) -> bool {
        let asked = |pending: &Pending| pending.place == place && pending.len >= len;
        self.pieces
            .get(&place)
            .is_some_and(|piece| piece.len >= len)
            || self.pending.iter().any(asked)
    }

    /// How many reads are on their way.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Bytes that may be read ahead: with what is on its way, and what nobody has asked for since it arrived, half of the cache.
    pub fn room_ahead(&self) -> usize {
        let pending = self.pending.iter().map(|pending| pending.len);
        let untouched = self.pieces.values().filter(|piece| !piece.touched);
        let ahead: usize = pending.chain(untouched.map(|piece| piece.len)).sum();
        (self.cache_bytes / 2).saturating_sub(ahead)
    }

    /// Has a piece read, unless it is here or on its way.
    pub fn read_ahead(&mut self, place: Place, len: usize) {
        if self.pieces.get(&place).is_none_or(|piece| piece.len < len) {
            self.want(place, len);
        }
    }

    fn want(&mut self, place: Place, len: usize) -> ReadId {
        if let Some(pending) = self
            .pending
            .iter()
            .find(|pending| pending.place == place && pending.len >= len)
        {
            return pending.id;
        }
        let id = ReadId(self.next_id);
        self.next_id += 1;
        let (file, from) = place.in_file();
        let offset = from / READ_ALIGN * READ_ALIGN;
        let lead = (from - offset) as usize;
        let aligned = (lead + len).next_multiple_of(READ_ALIGN as usize);
        self.pending.push(Pending {
            id,
            place,
            len,
            lead,
        });
        let read = ReadOp {
            id,
            file,
            offset,
            len: aligned,
        };
        match place {
            // Few, and who waits for one can do nothing with all the chunks that were read ahead.
            Place::Pages { .. } => self.wanted.push_front(read),
            Place::Chunk { .. } => self.wanted.push_back(read),
        }
        id
    }

    pub fn next_read(&mut self) -> Option<ReadOp> {
        self.wanted.pop_front()
    }

    /// Checks what a read brought and keeps it, unless its segment lies before `oldest`. Says what is wrong with it.
    pub fn arrived(
        &mut self,
        id: ReadId,
        result: Result<Slice, IoError>,
        log_id: u64,
        oldest: Position,
    ) -> Option<ReadFailure> {
        let at = self.pending.iter().position(|pending| pending.id == id)?;
        let Pending {
            place, len, lead, ..
        } = self.pending.swap_remove(at);
        if place.position() < oldest {
            return None;
        }
        self.uses += 1;
        let mut what = None;
        let bytes = match result {
            Ok(bytes) if bytes.len() >= lead + len => Some(bytes.slice(lead..lead + len)),
            Ok(_) => {
                what = Some("the file ends before".to_owned());
                None
            }
            Err(error) => {
                what = Some(error.to_string());
                None
            }
        };
        let failed = bytes.is_none();
        let bytes = bytes.unwrap_or_else(|| Slice::copied(&[], 1));
        let extents = match place {
            Place::Chunk { start, .. } => groups(&bytes, log_id, start),
            Place::Pages { page, index } => pages(&bytes, log_id, index, page),
        };
        let unsound = extents.iter().find(|extent| !extent.sound);
        let unsound = unsound.map(|extent| extent.start);
        let failure = what
            .or_else(|| unsound.map(|_| "the checksum is wrong".to_owned()))
            .map(|what| {
                let (file, from) = place.in_file();
                ReadFailure {
                    file: file.file_name(),
                    offset: from + unsound.unwrap_or_default() as u64,
                    what,
                }
            });
        self.bytes += bytes.len();
        let piece = Piece {
            bytes,
            len,
            extents,
            failed,
            touched: false,
            used: self.uses,
        };
        if let Some(old) = self.pieces.insert(place, piece) {
            self.bytes -= old.bytes.len();
        }
        while self.bytes > self.cache_bytes && self.pieces.len() > 1 {
            // Whoever asked needs several pieces at once: those that nobody has looked at yet go last, or two readers could
            // take each other's pieces away for ever.
            let unasked_may_go = self.bytes > self.cache_bytes + UNASKED_BYTES;
            let oldest = self
                .pieces
                .iter()
                .filter(|(_, piece)| piece.touched || unasked_may_go)
                .min_by_key(|(_, piece)| (!piece.touched, piece.used))
                .map(|(&place, _)| place);
            let Some(gone) = oldest.and_then(|place| self.pieces.remove(&place)) else {
                break;
            };
            self.bytes -= gone.bytes.len();
        }
        failure
    }

    /// Forgets the pages of an index, those on their way too.
    pub fn forget_index(&mut self, index: IndexId) {
        let of_index =
            |place: &Place| matches!(place, Place::Pages { index: other, .. } if *other == index);
        self.pieces.retain(|place, _| !of_index(place));
        self.pending.retain(|pending| !of_index(&pending.place));
        self.bytes = self.pieces.values().map(|piece| piece.bytes.len()).sum();
    }

    /// Forgets everything of segments before `oldest`.
    pub fn retire_before(&mut self, oldest: Position) {
        self.pieces.retain(|place, _| place.position() >= oldest);
        self.bytes = self.pieces.values().map(|piece| piece.bytes.len()).sum();
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

/// The groups in `bytes`, which begin at `position`, and the stretches between them that are none.
fn groups(bytes: &[u8], log_id: u64, position: Position) -> Vec<Extent> {
    let mut found: Vec<Extent> = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let end = match group::check(&bytes[start..], log_id, position + start as u64) {
            Ok(header) => {
                let end = start + header.padded as usize;
                found.push(Extent {
                    start,
                    end,
                    sound: true,
                });
                end
            }
            Err(_) => {
                let end = start + MIN_BLOCK_BYTES as usize;
                match found.last_mut() {
                    Some(last) if !last.sound => last.end = end,
                    _ => found.push(Extent {
                        start,
                        end,
                        sound: false,
                    }),
                }
                end
            }
        };
        start = end;
    }
    found
}

fn pages(bytes: &[u8], log_id: u64, index: IndexId, first: u32) -> Vec<Extent> {
    let sound = |(page, bytes): (usize, &[u8])| Extent {
        start: page * PAGE_BYTES,
        end: (page + 1) * PAGE_BYTES,
        sound: page_is_sound(bytes, log_id, index, first + page as u32),
    };
    bytes.chunks(PAGE_BYTES).enumerate().map(sound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_pages_are_read_before_chunks() {
        let mut cold = ColdReads::new(1 << 20);
        for start in [0, 4096] {
            cold.read_ahead(Place::Chunk { start, segment: 0 }, 4096);
        }
        let index = IndexId::whole(0);
        cold.read_ahead(Place::Pages { page: 0, index }, PAGE_BYTES);
        let files: Vec<_> = std::iter::from_fn(|| cold.next_read())
            .map(|read| (read.file, read.offset))
            .collect();
        let segment = FileId::Segment(SegmentId(0));
        let expected = [(FileId::Index(index), 0), (segment, 0), (segment, 4096)];
        assert_eq!(files, expected);
    }

    #[test]
    fn what_is_on_its_way_leaves_less_room_ahead() {
        let mut cold = ColdReads::new(16384);
        let chunk = |start| Place::Chunk { start, segment: 0 };
        assert_eq!(cold.room_ahead(), 8192);
        cold.read_ahead(chunk(0), 4096);
        assert_eq!(cold.room_ahead(), 4096);
        cold.read_ahead(chunk(4096), 8192);
        assert_eq!(cold.room_ahead(), 0);
    }
}
