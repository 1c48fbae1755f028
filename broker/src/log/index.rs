//! The index beside a sealed segment: what the segment's records would tell, sorted for looking up.
//!
//! A file of 4096-byte pages, each with its own checksum, which also covers where the page belongs:
//! page 0 the header; then `meta`, a byte stream of the queues with records in the segment and of the chunk starts;
//! then entries, 170 a page, queue after queue in offset order; then keys, 511 a page, by hash and position.
//! It depends on nothing but the bytes of the segment, so that it can be deleted and built again.

use super::{AlignedBuffer, Entry, Io, IoError, Position, Slice};
use std::rc::Rc;
use zerocopy::byteorder::little_endian::{I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const PAGE_BYTES: usize = 4096;
const PAYLOAD_BYTES: usize = PAGE_BYTES - 4;
pub(super) const ENTRIES_PER_PAGE: u32 = (PAYLOAD_BYTES / size_of::<EncodedEntry>()) as u32;
pub(super) const KEYS_PER_PAGE: u32 = (PAYLOAD_BYTES / size_of::<EncodedKey>()) as u32;
/// Pages are read and cached in blocks of so many.
pub(super) const BLOCK_PAGES: u32 = 16;
/// Pages of *meta* that a start reads at once.
const META_PAGES: u32 = 1024;
const MAGIC: U64 = U64::from_bytes(*b"CLINDEX2");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct EncodedEntry {
    position: U64,
    store_ms: I64,
    size: U32,
    tags_code: I32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct EncodedKey {
    hash: U32,
    offset: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct EncodedHeader {
    magic: U64,
    log_id: U64,
    segment: U64,
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

/// Entries of one queue in one segment.
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

    /// Page and place in it of an entry.
    pub fn entry(&self, slot: u32) -> (u32, usize) {
        let place = (slot % ENTRIES_PER_PAGE) as usize * size_of::<EncodedEntry>();
        (1 + self.meta_pages() + slot / ENTRIES_PER_PAGE, place)
    }

    /// First page of keys, and how many there are.
    pub fn key_pages(&self) -> (u32, u32) {
        (
            1 + self.meta_pages() + self.entries.div_ceil(ENTRIES_PER_PAGE),
            self.keys.div_ceil(KEYS_PER_PAGE),
        )
    }

    pub fn pages(&self) -> u32 {
        let (first, keys) = self.key_pages();
        first + keys
    }
}

/// All of an index but its entries and keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub segment: Position,
    /// Where the segment's last group ends.
    pub end: Position,
    /// The highest epoch of its groups.
    pub epoch: u32,
    /// The oldest store time in it.
    pub oldest_ms: i64,
    /// The newest store time up to its end.
    pub newest_ms: i64,
    pub layout: Layout,
    pub rows: Vec<Row>,
    /// As in [`Segment`](super::segment::Segment).
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

fn page_crc(payload: &[u8], log_id: u64, segment: Position, page: u32) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(payload);
    crc.update(&log_id.to_le_bytes());
    crc.update(&segment.to_le_bytes());
    crc.update(&page.to_le_bytes());
    crc.finalize()
}

/// Whether a page is what was written as this one.
pub(super) fn page_is_sound(page: &[u8], log_id: u64, segment: Position, number: u32) -> bool {
    let Some((payload, crc)) = page.split_last_chunk::<4>() else {
        return false;
    };
    payload.len() == PAYLOAD_BYTES
        && page_crc(payload, log_id, segment, number) == u32::from_le_bytes(*crc)
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

/// Writes an index file page after page.
struct PageWriter<'a, I: Io> {
    io: &'a I,
    file: I::File,
    log_id: u64,
    segment: Position,
    page: u32,
    filled: usize,
    buffer: AlignedBuffer,
}

/// Pages that are written at once.
const WRITE_PAGES: usize = 64;

impl<I: Io> PageWriter<'_, I> {
    async fn push(&mut self, payload: &[u8]) -> Result<(), IoError> {
        let page = &mut self.buffer[self.filled * PAGE_BYTES..(self.filled + 1) * PAGE_BYTES];
        page[..payload.len()].copy_from_slice(payload);
        page[payload.len()..].fill(0);
        let crc = page_crc(&page[..PAYLOAD_BYTES], self.log_id, self.segment, self.page);
        page[PAYLOAD_BYTES..].copy_from_slice(&crc.to_le_bytes());
        self.page += 1;
        self.filled += 1;
        if self.filled == WRITE_PAGES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    async fn flush(&mut self) -> Result<(), IoError> {
        let full = std::mem::replace(
            &mut self.buffer,
            AlignedBuffer::zeroed(WRITE_PAGES * PAGE_BYTES),
        )
        .freeze();
        let first = self.page as usize - self.filled;
        let bytes = full.slice(0..self.filled * PAGE_BYTES);
        self.filled = 0;
        if bytes.is_empty() {
            return Ok(());
        }
        self.io
            .write_at(&self.file, (first * PAGE_BYTES) as u64, &bytes)
            .await
    }
}

impl Meta {
    /// Writes the file under a temporary name. `entries` are in slot order, `keys` in order.
    pub async fn write<I: Io>(
        &mut self,
        io: &I,
        log_id: u64,
        name: &str,
        entries: impl Iterator<Item = Entry>,
        keys: impl Iterator<Item = (u32, u32)>,
    ) -> Result<(), IoError> {
        let meta = self.encode_meta();
        self.layout.meta_bytes = meta.len() as u32;
        let file = io
            .create(name, u64::from(self.layout.pages()) * PAGE_BYTES as u64)
            .await?;
        let buffer = AlignedBuffer::zeroed(WRITE_PAGES * PAGE_BYTES);
        let mut pages = PageWriter {
            io,
            file: file.clone(),
            log_id,
            segment: self.segment,
            page: 0,
            filled: 0,
            buffer,
        };
        let header = EncodedHeader {
            magic: MAGIC,
            log_id: log_id.into(),
            segment: self.segment.into(),
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
        pages.push(header.as_bytes()).await?;
        for part in meta.chunks(PAYLOAD_BYTES) {
            pages.push(part).await?;
        }
        let encode_entry = |entry: Entry| EncodedEntry {
            position: entry.position.into(),
            store_ms: entry.store_ms.into(),
            size: entry.size.into(),
            tags_code: entry.tags_code.into(),
        };
        push_all(&mut pages, entries.map(encode_entry), ENTRIES_PER_PAGE).await?;
        let encode_key = |(hash, offset): (u32, u32)| EncodedKey {
            hash: hash.into(),
            offset: offset.into(),
        };
        push_all(&mut pages, keys.map(encode_key), KEYS_PER_PAGE).await?;
        pages.flush().await?;
        assert_eq!(
            pages.page,
            self.layout.pages(),
            "an index has as many entries and keys as it says"
        );
        io.sync(&file).await
    }

    fn encode_meta(&self) -> Vec<u8> {
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
        out
    }

    /// Reads header and meta of an index file; `None` if it is not a sound one of this segment.
    pub async fn read<I: Io>(
        io: &I,
        log_id: u64,
        segment: Position,
        name: &str,
    ) -> Result<Option<Self>, IoError> {
        let file = io.open(name).await?;
        let first = io
            .read_at(&file, 0, BLOCK_PAGES as usize * PAGE_BYTES)
            .await?;
        let Some(page) = first
            .get(..PAGE_BYTES)
            .filter(|page| page_is_sound(page, log_id, segment, 0))
        else {
            return Ok(None);
        };
        let Ok((header, _)) = EncodedHeader::read_from_prefix(page) else {
            return Ok(None);
        };
        if header.magic != MAGIC {
            return Ok(None);
        }
        let layout = Layout {
            entries: header.entries.get(),
            keys: header.keys.get(),
            meta_bytes: header.meta_bytes.get(),
        };
        let mut meta = Vec::with_capacity(layout.meta_bytes as usize);
        let mut window: (u32, Slice) = (0, first);
        for page in 1..=layout.meta_pages() {
            if (page - window.0) as usize * PAGE_BYTES >= window.1.len() {
                let pages = META_PAGES.min(layout.meta_pages() + 1 - page);
                let offset = u64::from(page) * PAGE_BYTES as u64;
                let bytes = io.read_at(&file, offset, pages as usize * PAGE_BYTES);
                window = (page, bytes.await?);
            }
            let at = (page - window.0) as usize * PAGE_BYTES;
            let bytes = window
                .1
                .get(at..at + PAGE_BYTES)
                .filter(|bytes| page_is_sound(bytes, log_id, segment, page));
            let Some(bytes) = bytes else { return Ok(None) };
            meta.extend_from_slice(&bytes[..PAYLOAD_BYTES]);
        }
        let mut found = Self {
            segment,
            end: header.end.get(),
            epoch: header.epoch.get(),
            oldest_ms: header.oldest_ms.get(),
            newest_ms: header.newest_ms.get(),
            layout,
            rows: Vec::new(),
            chunks: Vec::new(),
        };
        let decoded = found.decode_meta(&meta, header.rows.get(), header.chunks.get());
        Ok(decoded.map(|()| found))
    }

    fn decode_meta(&mut self, mut meta: &[u8], rows: u32, chunks: u32) -> Option<()> {
        let mut topic: Rc<str> = Rc::from("");
        for _ in 0..rows {
            let (len, rest) = meta.split_first_chunk()?;
            let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            if !name.is_empty() {
                topic = Rc::from(str::from_utf8(name).ok()?);
            }
            let (row, rest) = EncodedRow::read_from_prefix(rest).ok()?;
            meta = rest;
            self.rows.push(Row {
                topic: topic.clone(),
                queue_id: row.queue_id.get(),
                slot: row.slot.get(),
                count: row.count.get(),
                first: row.first.get(),
                position: row.position.get(),
            });
        }
        for _ in 0..chunks {
            let (chunk, rest) = meta.split_first_chunk()?;
            meta = rest;
            self.chunks.push(u32::from_le_bytes(*chunk));
        }
        Some(())
    }
}

async fn push_all<I: Io, T: IntoBytes + Immutable>(
    pages: &mut PageWriter<'_, I>,
    mut items: impl Iterator<Item = T>,
    per_page: u32,
) -> Result<(), IoError> {
    loop {
        let page: Vec<T> = items.by_ref().take(per_page as usize).collect();
        if page.is_empty() {
            return Ok(());
        }
        pages.push(page.as_bytes()).await?;
    }
}
