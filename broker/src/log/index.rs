//! An index beside a segment: what the records of a run of its groups would tell, sorted for looking up.
//!
//! A file of 4096-byte pages, each with its own checksum, which also covers where the page belongs:
//! page 0 the header; then `meta`, a byte stream of the queues with records in the run and of the chunk starts;
//! then entries, 170 a page, queue after queue in offset order; then keys, 511 a page, by hash and position.
//! It depends on nothing but the bytes of the groups, so that it can be deleted and built again.

use super::segment::IndexId;
use super::{Entry, Position};
use std::rc::Rc;
use zerocopy::byteorder::little_endian::{I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const PAGE_BYTES: usize = 4096;
pub(super) const PAYLOAD_BYTES: usize = PAGE_BYTES - 4;
pub(super) const ENTRIES_PER_PAGE: u32 = (PAYLOAD_BYTES / size_of::<EncodedEntry>()) as u32;
pub(super) const KEYS_PER_PAGE: u32 = (PAYLOAD_BYTES / size_of::<EncodedKey>()) as u32;
/// Pages are read and cached in blocks of so many.
pub(super) const BLOCK_PAGES: u32 = 16;
const MAGIC: U64 = U64::from_bytes(*b"CLINDEX2");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct EncodedEntry {
    position: U64,
    store_ms: I64,
    size: U32,
    tags_code: I32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct EncodedKey {
    pub hash: U32,
    pub offset: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct EncodedHeader {
    magic: U64,
    log_id: U64,
    start: U64,
    end: U64,
    oldest_ms: I64,
    newest_ms: I64,
    epoch: U32,
    rows: U32,
    chunks: U32,
    entries: U32,
    keys: U32,
    meta_bytes: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct EncodedRow {
    queue_id: I32,
    slot: U32,
    count: U32,
    first: I64,
    position: U64,
}

const HEADER_BYTES: usize = size_of::<EncodedHeader>();

/// Entries of one queue in one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub topic: Rc<str>,
    pub queue_id: i32,
    /// Number of its first entry in the file.
    pub slot: u32,
    pub count: u32,
    /// Offset of its first entry.
    pub first: i64,
    /// Where its first record is.
    pub position: Position,
}

impl Row {
    /// What rows are in the order of.
    pub fn order(&self) -> (&Rc<str>, i32, Position) {
        (&self.topic, self.queue_id, self.position)
    }

    /// Whether another row, of later groups, is of the same queue and goes on where this one ends.
    pub fn is_continued_by(&self, next: &Row) -> bool {
        self.topic == next.topic
            && self.queue_id == next.queue_id
            && self.first + i64::from(self.count) == next.first
    }
}

/// Where to look in an index file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub entries: u32,
    pub keys: u32,
    meta_bytes: u32,
}

impl Layout {
    pub fn new(entries: u32, keys: u32) -> Self {
        Self {
            entries,
            keys,
            meta_bytes: 0,
        }
    }

    fn meta_pages(&self) -> u32 {
        self.meta_bytes.div_ceil(PAYLOAD_BYTES as u32)
    }

    /// First page of entries.
    pub fn entry_pages(&self) -> u32 {
        1 + self.meta_pages()
    }

    /// Page and place in it of an entry.
    pub fn entry(&self, slot: u32) -> (u32, usize) {
        let place = (slot % ENTRIES_PER_PAGE) as usize * size_of::<EncodedEntry>();
        (self.entry_pages() + slot / ENTRIES_PER_PAGE, place)
    }

    /// First page of keys, and how many there are.
    pub fn key_pages(&self) -> (u32, u32) {
        (
            self.entry_pages() + self.entries.div_ceil(ENTRIES_PER_PAGE),
            self.keys.div_ceil(KEYS_PER_PAGE),
        )
    }

    pub fn pages(&self) -> u32 {
        let (first, keys) = self.key_pages();
        first + keys
    }
}

/// All of an index but its entries and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub id: IndexId,
    /// Where the last group ends.
    pub end: Position,
    /// The highest epoch of the groups.
    pub epoch: u32,
    /// The oldest store time in it.
    pub oldest_ms: i64,
    /// The newest store time up to its end.
    pub newest_ms: i64,
    pub layout: Layout,
    pub rows: Vec<Row>,
    /// As in [`Segment`](super::segment::Segment); the first group begins one.
    pub chunks: Vec<u32>,
}

/// What a key is looked up by: a hash of topic and key.
pub(super) fn key_hash(topic: &str, key: &str) -> u32 {
    TopicHash::of(topic).with(key)
}

/// The part of [`key_hash`] that all keys of a topic share.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicHash(u32);

impl TopicHash {
    pub fn of(topic: &str) -> Self {
        let mut hash = crc32fast::Hasher::new();
        hash.update(topic.as_bytes());
        hash.update(b"#");
        Self(hash.finalize())
    }

    #[inline]
    pub fn with(self, key: &str) -> u32 {
        let mut hash = crc32fast::Hasher::new_with_initial(self.0);
        hash.update(key.as_bytes());
        hash.finalize()
    }
}

pub(super) fn page_crc(payload: &[u8], log_id: u64, id: IndexId, page: u32) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(payload);
    crc.update(&log_id.to_le_bytes());
    crc.update(&id.number().to_le_bytes());
    crc.update(&page.to_le_bytes());
    crc.finalize()
}

/// Whether a page is what was written as this one.
pub(super) fn page_is_sound(page: &[u8], log_id: u64, id: IndexId, number: u32) -> bool {
    let Some((payload, crc)) = page.split_last_chunk::<4>() else {
        return false;
    };
    payload.len() == PAYLOAD_BYTES
        && page_crc(payload, log_id, id, number) == u32::from_le_bytes(*crc)
}

/// The entries from a place of a page on, up to `count` and to the page's end.
pub(super) fn entries_from(
    page: &[u8],
    place: usize,
    count: usize,
) -> impl Iterator<Item = Entry> + '_ {
    let end = ENTRIES_PER_PAGE as usize * size_of::<EncodedEntry>();
    let encoded = page.get(place..end).unwrap_or_default();
    let entries = encoded
        .chunks_exact(size_of::<EncodedEntry>())
        .take(count)
        .filter_map(|entry| EncodedEntry::read_from_bytes(entry).ok());
    entries.map(|entry| Entry {
        position: entry.position.get(),
        store_ms: entry.store_ms.get(),
        size: entry.size.get(),
        tags_code: entry.tags_code.get(),
    })
}

/// Hash and offset in the segment of the keys of a page, of which it has `count`.
pub(super) fn keys_of(page: &[u8], count: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
    let keys = page
        .chunks_exact(size_of::<EncodedKey>())
        .take(count as usize);
    keys.filter_map(|key| EncodedKey::read_from_bytes(key).ok())
        .map(|key| (key.hash.get(), key.offset.get()))
}

/// The first page of an index file.
pub(super) struct Header {
    /// Everything but rows and chunks.
    pub meta: Meta,
    pub rows: u32,
    pub chunks: u32,
}

impl Header {
    /// `None` for what is none, or of another index.
    pub fn decode(page: &[u8], id: IndexId) -> Option<Self> {
        let (header, _) = EncodedHeader::read_from_prefix(page).ok()?;
        let layout = Layout {
            entries: header.entries.get(),
            keys: header.keys.get(),
            meta_bytes: header.meta_bytes.get(),
        };
        let meta = Meta {
            id,
            end: header.end.get(),
            epoch: header.epoch.get(),
            oldest_ms: header.oldest_ms.get(),
            newest_ms: header.newest_ms.get(),
            layout,
            rows: Vec::new(),
            chunks: Vec::new(),
        };
        (header.magic == MAGIC).then(|| Self {
            meta,
            rows: header.rows.get(),
            chunks: header.chunks.get(),
        })
    }
}

impl Meta {
    /// The payload of the first page, once *meta* was encoded.
    pub fn encode_header(&self, log_id: u64) -> [u8; HEADER_BYTES] {
        let header = EncodedHeader {
            magic: MAGIC,
            log_id: log_id.into(),
            start: self.id.start().into(),
            end: self.end.into(),
            oldest_ms: self.oldest_ms.into(),
            newest_ms: self.newest_ms.into(),
            epoch: self.epoch.into(),
            rows: (self.rows.len() as u32).into(),
            chunks: (self.chunks.len() as u32).into(),
            entries: self.layout.entries.into(),
            keys: self.layout.keys.into(),
            meta_bytes: self.layout.meta_bytes.into(),
        };
        zerocopy::transmute!(header)
    }

    /// Rows and chunks as a byte stream.
    pub fn encode_meta(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut topic: &str = "";
        for row in &self.rows {
            // An empty name stands for the one before.
            let name = if *row.topic == *topic { "" } else { &row.topic };
            topic = &row.topic;
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(name.as_bytes());
            let encoded = EncodedRow {
                queue_id: row.queue_id.into(),
                slot: row.slot.into(),
                count: row.count.into(),
                first: row.first.into(),
                position: row.position.into(),
            };
            out.extend(encoded.as_bytes());
        }
        for chunk in &self.chunks {
            out.extend(chunk.to_le_bytes());
        }
        self.layout.meta_bytes = out.len() as u32;
        out
    }
}

/// The row at the beginning of `meta`, which follows one of `topic`, and what comes behind it; `None` where it is cut short
/// or makes no sense.
pub(super) fn decode_row<'a>(meta: &'a [u8], topic: &Rc<str>) -> Option<(Row, &'a [u8])> {
    let (len, rest) = meta.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    let topic = match name {
        [] => topic.clone(),
        name => Rc::from(str::from_utf8(name).ok()?),
    };
    let (row, rest) = EncodedRow::read_from_prefix(rest).ok()?;
    let row = Row {
        topic,
        queue_id: row.queue_id.get(),
        slot: row.slot.get(),
        count: row.count.get(),
        first: row.first.get(),
        position: row.position.get(),
    };
    Some((row, rest))
}

impl From<Entry> for EncodedEntry {
    fn from(entry: Entry) -> Self {
        Self {
            position: entry.position.into(),
            store_ms: entry.store_ms.into(),
            size: entry.size.into(),
            tags_code: entry.tags_code.into(),
        }
    }
}

impl From<(u32, u32)> for EncodedKey {
    fn from((hash, offset): (u32, u32)) -> Self {
        Self {
            hash: hash.into(),
            offset: offset.into(),
        }
    }
}
