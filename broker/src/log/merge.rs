//! Merging the indexes of a segment into one: where very many queues have records in each, each index costs every one of
//! them a part in memory, and a start a row to read.
//!
//! All of them are read from their beginning to their end at once. Memory while it runs: 56 bytes a row of the result, 8
//! bytes for each row that it is made of, and a window for each index.

use super::births::Births;
use super::index::{EncodedEntry, EncodedKey, Layout, Meta, Row};
use super::pages::{IndexReader, IndexWriter};
use super::seal::{SEAL_NAME, SealError, give_name};
use super::segment::{Index, IndexId};
use super::{Io, Position};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Pages that are read at once of each index.
const READ_PAGES: u32 = 32;
/// After so many rows, or entries and keys of a few pages, others get their turn.
const ROWS_PER_SLICE: usize = 1000;
const ITEMS_PER_SLICE: usize = 8000;

/// Writes the index of the whole segment from `indexes`, which cover it without a gap; `births` are those within the segment.
pub(super) async fn merge<I: Io>(
    io: &I,
    log_id: u64,
    segment: Position,
    indexes: &[Index],
    births: &Births,
) -> Result<Meta, SealError> {
    let mut readers = Vec::with_capacity(indexes.len());
    for index in indexes {
        let reader = IndexReader::open(io, log_id, index.id, READ_PAGES).await?;
        readers.push(reader.ok_or(SealError::Unsound(index.id))?);
    }
    let mut merging = Merging {
        io,
        readers,
        shares: Vec::new(),
    };
    let mut meta = merging.meta(segment, births).await?;
    let mut writer = IndexWriter::begin(io, log_id, SEAL_NAME, &mut meta).await?;
    merging.entries(&mut writer).await?;
    merging.keys(&mut writer).await?;
    writer.finish().await?;
    give_name(io, meta.id).await?;
    Ok(meta)
}

struct Merging<'a, I: Io> {
    io: &'a I,
    readers: Vec<IndexReader<I>>,
    /// Which index the next entries come from, and how many.
    shares: Vec<(u32, u32)>,
}

impl<I: Io> Merging<'_, I> {
    fn unsound(&self, at: usize) -> SealError {
        SealError::Unsound(self.readers[at].meta.id)
    }

    /// Everything of the result but entries and keys.
    async fn meta(&mut self, segment: Position, births: &Births) -> Result<Meta, SealError> {
        let mut rows: Vec<Row> = Vec::new();
        let mut heads = Vec::with_capacity(self.readers.len());
        for at in 0..self.readers.len() {
            heads.push(self.row(at).await?);
        }
        let (mut slot, mut taken) = (0, 0);
        loop {
            let first = heads.iter().enumerate();
            let first = first.filter_map(|(at, head)| Some((head.as_ref()?.order(), at)));
            let Some((_, at)) = first.min() else { break };
            let next = self.row(at).await?;
            let Some(mut row) = std::mem::replace(&mut heads[at], next) else {
                break;
            };
            self.shares.push((at as u32, row.count));
            slot += row.count;
            match rows.last_mut() {
                Some(last)
                    if last.is_continued_by(&row) && !births.are_between(last, row.position) =>
                {
                    last.count += row.count;
                }
                last => {
                    if let Some(last) = last.filter(|last| last.topic == row.topic) {
                        row.topic = last.topic.clone();
                    }
                    row.slot = slot - row.count;
                    rows.push(row);
                }
            }
            taken += 1;
            if taken % ROWS_PER_SLICE == 0 {
                self.io.pause(0).await;
            }
        }
        let mut chunks = Vec::new();
        for at in 0..self.readers.len() {
            match self.readers[at].chunks().await? {
                Some(more) => chunks.extend(more),
                None => return Err(self.unsound(at)),
            }
        }
        let metas = || self.readers.iter().map(|reader| &reader.meta);
        let last = metas().next_back();
        Ok(Meta {
            id: IndexId::whole(segment),
            end: last.map_or(segment, |meta| meta.end),
            epoch: metas().map(|meta| meta.epoch).max().unwrap_or(0),
            oldest_ms: metas().map(|meta| meta.oldest_ms).min().unwrap_or(0),
            newest_ms: last.map_or(0, |meta| meta.newest_ms),
            layout: Layout::new(slot, metas().map(|meta| meta.layout.keys).sum()),
            rows,
            chunks,
        })
    }

    async fn row(&mut self, at: usize) -> Result<Option<Row>, SealError> {
        let row = self.readers[at].row().await?;
        match row.is_some() || self.readers[at].is_behind_rows() {
            true => Ok(row),
            false => Err(self.unsound(at)),
        }
    }

    async fn entries(&mut self, writer: &mut IndexWriter<'_, I>) -> Result<(), SealError> {
        for reader in &mut self.readers {
            reader.seek_entries(READ_PAGES);
        }
        let mut taken = 0;
        for (at, count) in std::mem::take(&mut self.shares) {
            for _ in 0..count {
                let entry: Option<EncodedEntry> = self.readers[at as usize].item().await?;
                let entry = entry.ok_or_else(|| self.unsound(at as usize))?;
                writer.entry(entry).await?;
                taken += 1;
                if taken % ITEMS_PER_SLICE == 0 {
                    self.io.pause(0).await;
                }
            }
        }
        Ok(())
    }

    async fn keys(&mut self, writer: &mut IndexWriter<'_, I>) -> Result<(), SealError> {
        let mut heads = BinaryHeap::with_capacity(self.readers.len());
        for at in 0..self.readers.len() {
            self.readers[at].seek_keys(READ_PAGES);
            heads.extend(self.key(at).await?.map(Reverse));
        }
        let mut taken = 0;
        while let Some(Reverse((hash, offset, at))) = heads.pop() {
            writer.key((hash, offset).into()).await?;
            heads.extend(self.key(at).await?.map(Reverse));
            taken += 1;
            if taken % ITEMS_PER_SLICE == 0 {
                self.io.pause(0).await;
            }
        }
        Ok(())
    }

    /// The next key of an index, and which one it is.
    async fn key(&mut self, at: usize) -> Result<Option<(u32, u32, usize)>, SealError> {
        let key: Option<EncodedKey> = self.readers[at].item().await?;
        match key {
            Some(key) => Ok(Some((key.hash.get(), key.offset.get(), at))),
            None if self.readers[at].is_at_end() => Ok(None),
            None => Err(self.unsound(at)),
        }
    }
}
