//! Going through index files page after page: writing one, reading what a start needs, and reading one to its end.

use super::index::{
    BLOCK_PAGES, ENTRIES_PER_PAGE, EncodedEntry, EncodedKey, Header, KEYS_PER_PAGE, Layout, Meta,
    PAGE_BYTES, PAYLOAD_BYTES, Row, decode_row, page_crc, page_is_sound,
};
use super::segment::IndexId;
use super::{AlignedBuffer, Io, IoError, Slice};
use std::rc::Rc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Pages that are written at once.
const WRITE_PAGES: usize = 64;
/// Pages of *meta* that a start reads at once.
const META_PAGES: u32 = 1024;
/// The longest row: a topic's name is at most as long as two bytes say.
const MOST_ROW_BYTES: usize = 2 + u16::MAX as usize + 28;

/// Writes an index file.
pub(super) struct IndexWriter<'a, I: Io> {
    io: &'a I,
    file: I::File,
    log_id: u64,
    id: IndexId,
    layout: Layout,
    page: u32,
    filled: usize,
    buffer: AlignedBuffer,
    entries: Vec<EncodedEntry>,
    keys: Vec<EncodedKey>,
}

impl<'a, I: Io> IndexWriter<'a, I> {
    /// Begins a file of this name. Entries and then keys, as many as the layout says, are to follow.
    pub async fn begin(
        io: &'a I,
        log_id: u64,
        name: &str,
        meta: &mut Meta,
    ) -> Result<Self, IoError> {
        let encoded = meta.encode_meta();
        let bytes = u64::from(meta.layout.pages()) * PAGE_BYTES as u64;
        let mut writer = Self {
            io,
            file: io.create(name, bytes).await?,
            log_id,
            id: meta.id,
            layout: meta.layout,
            page: 0,
            filled: 0,
            buffer: AlignedBuffer::zeroed(WRITE_PAGES * PAGE_BYTES),
            entries: Vec::with_capacity(ENTRIES_PER_PAGE as usize),
            keys: Vec::with_capacity(KEYS_PER_PAGE as usize),
        };
        writer.push(&meta.encode_header(log_id)).await?;
        for part in encoded.chunks(PAYLOAD_BYTES) {
            writer.push(part).await?;
        }
        Ok(writer)
    }

    /// The next entry in slot order.
    #[inline]
    pub async fn entry(&mut self, entry: EncodedEntry) -> Result<(), IoError> {
        self.entries.push(entry);
        if self.entries.len() == ENTRIES_PER_PAGE as usize {
            self.push_entries().await?;
        }
        Ok(())
    }

    /// The next key in order; all entries were before it.
    #[inline]
    pub async fn key(&mut self, key: EncodedKey) -> Result<(), IoError> {
        self.keys.push(key);
        if self.keys.len() == KEYS_PER_PAGE as usize {
            self.push_keys().await?;
        }
        Ok(())
    }

    async fn push_entries(&mut self) -> Result<(), IoError> {
        let entries = std::mem::take(&mut self.entries);
        self.push(entries.as_bytes()).await?;
        self.entries = emptied(entries);
        Ok(())
    }

    async fn push_keys(&mut self) -> Result<(), IoError> {
        if !self.entries.is_empty() {
            self.push_entries().await?;
        }
        let keys = std::mem::take(&mut self.keys);
        self.push(keys.as_bytes()).await?;
        self.keys = emptied(keys);
        Ok(())
    }

    /// Writes the rest and makes it durable.
    pub async fn finish(mut self) -> Result<(), IoError> {
        if !self.entries.is_empty() {
            self.push_entries().await?;
        }
        if !self.keys.is_empty() {
            self.push_keys().await?;
        }
        self.flush().await?;
        assert_eq!(
            self.page,
            self.layout.pages(),
            "an index has as many entries and keys as it says"
        );
        self.io.sync(&self.file).await
    }

    async fn push(&mut self, payload: &[u8]) -> Result<(), IoError> {
        let page = &mut self.buffer[self.filled * PAGE_BYTES..(self.filled + 1) * PAGE_BYTES];
        page[..payload.len()].copy_from_slice(payload);
        page[payload.len()..].fill(0);
        let crc = page_crc(&page[..PAYLOAD_BYTES], self.log_id, self.id, self.page);
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

fn emptied<T>(mut all: Vec<T>) -> Vec<T> {
    all.clear();
    all
}

/// Reads an index file page after page, and checks each.
struct Pages<I: Io> {
    io: I,
    file: I::File,
    log_id: u64,
    id: IndexId,
    /// The next page, and how many there are from it on.
    page: u32,
    left: u32,
    at_once: u32,
    window: (u32, Slice),
}

impl<I: Io> Pages<I> {
    async fn open(io: &I, log_id: u64, id: IndexId) -> Result<Self, IoError> {
        let file = io.open(&id.file_name()).await?;
        let first = io.read_at(&file, 0, BLOCK_PAGES as usize * PAGE_BYTES);
        let window = (0, first.await?);
        Ok(Self {
            io: io.clone(),
            file,
            log_id,
            id,
            page: 0,
            left: 1,
            at_once: 1,
            window,
        })
    }

    /// Goes on at a page, for so many of them.
    fn seek(&mut self, page: u32, pages: u32, at_once: u32) {
        (self.page, self.left, self.at_once) = (page, pages, at_once);
    }

    /// The payload of the next page; `None` behind the last one, or where it is not sound.
    async fn next(&mut self) -> Result<Option<Slice>, IoError> {
        if self.left == 0 {
            return Ok(None);
        }
        let held = (self.window.1.len() / PAGE_BYTES) as u32;
        if !(self.window.0..self.window.0 + held).contains(&self.page) {
            let len = self.at_once.min(self.left) as usize * PAGE_BYTES;
            let offset = u64::from(self.page) * PAGE_BYTES as u64;
            self.window = (self.page, self.io.read_at(&self.file, offset, len).await?);
        }
        let at = (self.page - self.window.0) as usize * PAGE_BYTES;
        let page = self.window.1.get(at..at + PAGE_BYTES);
        if !page.is_some_and(|page| page_is_sound(page, self.log_id, self.id, self.page)) {
            return Ok(None);
        }
        self.page += 1;
        self.left -= 1;
        Ok(Some(self.window.1.slice(at..at + PAYLOAD_BYTES)))
    }
}

/// Reads an index file from its beginning to its end: rows, chunks, entries, keys.
pub(super) struct IndexReader<I: Io> {
    pages: Pages<I>,
    pub meta: Meta,
    rows_left: u32,
    chunks_left: u32,
    topic: Rc<str>,
    /// Of *meta*, not decoded yet.
    held: Vec<u8>,
    page: Slice,
    place: usize,
    items_left: u32,
}

impl<I: Io> IndexReader<I> {
    /// `None` if it is not a sound one of this id. Reads so many pages at once.
    pub async fn open(
        io: &I,
        log_id: u64,
        id: IndexId,
        at_once: u32,
    ) -> Result<Option<Self>, IoError> {
        let mut pages = Pages::open(io, log_id, id).await?;
        let Some(first) = pages.next().await? else {
            return Ok(None);
        };
        let Some(header) = Header::decode(&first, id) else {
            return Ok(None);
        };
        pages.seek(1, header.meta.layout.entry_pages() - 1, at_once);
        Ok(Some(Self {
            pages,
            rows_left: header.rows,
            chunks_left: header.chunks,
            topic: Rc::from(""),
            held: Vec::new(),
            page: Slice::copied(&[], 1),
            place: 0,
            items_left: 0,
            meta: header.meta,
        }))
    }

    /// The next row; `None` behind the last one, or where the file is not sound: see [`IndexReader::is_behind_rows`].
    pub async fn row(&mut self) -> Result<Option<Row>, IoError> {
        if self.rows_left == 0 || !self.hold(MOST_ROW_BYTES).await? {
            return Ok(None);
        }
        let Some((row, rest)) = decode_row(&self.held[self.place..], &self.topic) else {
            return Ok(None);
        };
        self.topic = row.topic.clone();
        self.place = self.held.len() - rest.len();
        self.rows_left -= 1;
        Ok(Some(row))
    }

    /// Whether all rows were read.
    pub fn is_behind_rows(&self) -> bool {
        self.rows_left == 0
    }

    /// The chunks, once all rows were read; `None` where the file is not sound.
    pub async fn chunks(&mut self) -> Result<Option<Vec<u32>>, IoError> {
        let len = self.chunks_left as usize * size_of::<u32>();
        if !self.hold(len).await? || self.held.len() - self.place < len {
            return Ok(None);
        }
        let chunks = self.held[self.place..self.place + len].chunks_exact(size_of::<u32>());
        let chunks = chunks.filter_map(|chunk| Some(u32::from_le_bytes(*chunk.first_chunk()?)));
        let chunks = chunks.collect();
        (self.held, self.place) = (Vec::new(), 0);
        Ok(Some(chunks))
    }

    /// Holds `len` bytes of *meta*, or the rest of it; false where a page is not sound.
    async fn hold(&mut self, len: usize) -> Result<bool, IoError> {
        while self.held.len() - self.place < len && self.pages.left > 0 {
            let Some(page) = self.pages.next().await? else {
                return Ok(false);
            };
            // Seldom, for all that is held is moved.
            if self.place > MOST_ROW_BYTES {
                self.held.drain(..self.place);
                self.place = 0;
            }
            self.held.extend_from_slice(&page);
        }
        Ok(true)
    }

    /// Goes to the entries, which are read `at_once` pages at a time.
    pub fn seek_entries(&mut self, at_once: u32) {
        let layout = self.meta.layout;
        let first = layout.entry_pages();
        self.pages
            .seek(first, layout.key_pages().0 - first, at_once);
        (self.place, self.items_left) = (usize::MAX, layout.entries);
    }

    /// Goes to the keys.
    pub fn seek_keys(&mut self, at_once: u32) {
        let (first, pages) = self.meta.layout.key_pages();
        self.pages.seek(first, pages, at_once);
        (self.place, self.items_left) = (usize::MAX, self.meta.layout.keys);
    }

    /// Whether all entries or keys were read.
    pub fn is_at_end(&self) -> bool {
        self.items_left == 0
    }

    /// The next entry or key; `None` behind the last one, or where a page is not sound.
    #[inline]
    pub async fn item<T: FromBytes + Immutable>(&mut self) -> Result<Option<T>, IoError> {
        if self.items_left == 0 {
            return Ok(None);
        }
        let in_page = PAYLOAD_BYTES / size_of::<T>();
        if self.place >= in_page {
            let Some(page) = self.pages.next().await? else {
                return Ok(None);
            };
            (self.page, self.place) = (page, 0);
        }
        let at = self.place * size_of::<T>();
        self.place += 1;
        self.items_left -= 1;
        Ok(T::read_from_bytes(&self.page[at..at + size_of::<T>()]).ok())
    }
}

impl Meta {
    /// Writes the file under a temporary name. `entries` are in slot order, `keys` in order.
    pub async fn write<I: Io>(
        &mut self,
        io: &I,
        log_id: u64,
        name: &str,
        entries: impl Iterator<Item = EncodedEntry>,
        keys: impl Iterator<Item = EncodedKey>,
    ) -> Result<(), IoError> {
        let mut writer = IndexWriter::begin(io, log_id, name, self).await?;
        for entry in entries {
            writer.entry(entry).await?;
        }
        for key in keys {
            writer.key(key).await?;
        }
        writer.finish().await
    }

    /// Reads all of an index file but its entries and keys; `None` if it is not a sound one of this id.
    pub async fn read<I: Io>(io: &I, log_id: u64, id: IndexId) -> Result<Option<Self>, IoError> {
        let Some(mut reader) = IndexReader::open(io, log_id, id, META_PAGES).await? else {
            return Ok(None);
        };
        while let Some(row) = reader.row().await? {
            reader.meta.rows.push(row);
        }
        if !reader.is_behind_rows() {
            return Ok(None);
        }
        let chunks = reader.chunks().await?;
        Ok(chunks.map(|chunks| Self {
            chunks,
            ..reader.meta
        }))
    }
}
