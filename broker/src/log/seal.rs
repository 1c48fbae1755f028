//! Building the index of a segment from the segment: in the background once it is full, and at opening where it is missing.
//!
//! The segment is read back and checked group by group, so that what was acknowledged is seen once more on the medium
//! before its entries leave memory. Memory while it runs: 24 bytes a record, 8 bytes a key, one window.

use super::group::{MIN_BLOCK_BYTES, NoGroup, records};
use super::index::{Layout, Meta, Row, key_hash};
use super::scan::SegmentReader;
use super::segment::{FileId, Segment, SegmentId};
use super::stored::{Message, Stored};
use super::{Entry, Io, IoError, Position};
use std::collections::HashMap;

/// Where an index is built; an interrupted building leaves this name behind.
pub(super) const SEAL_NAME: &str = "index.tmp";
/// Bytes that are read at once: what is done with them is one slice of the core's time.
const WINDOW_BYTES: u64 = 1 << 20;
/// Keys are sorted in so many parts, to keep slices of the core's time short.
const KEY_PARTS: usize = 256;

/// Why a segment cannot be sealed.
#[derive(Debug)]
pub(super) enum SealError {
    Io(IoError),
    /// The segment does not hold a sound group where it must.
    Damaged(Position),
}

impl From<IoError> for SealError {
    fn from(error: IoError) -> Self {
        SealError::Io(error)
    }
}

/// Reads the groups of a full segment: from its start to `end`, or as far as they follow one another when that is `None`.
pub(super) async fn seal<I: Io>(
    io: &I,
    log_id: u64,
    segment: Position,
    len: u64,
    end: Option<Position>,
    longest: u64,
) -> Result<Meta, SealError> {
    let mut reader = SegmentReader::open(io, segment, len, WINDOW_BYTES).await?;
    let mut building = Building::new(segment, len);
    let mut at = segment;
    let mut window = 0;
    while end.is_none_or(|end| at < end) && at < reader.limit() {
        match reader.group(log_id, at, longest).await? {
            Ok((header, bytes)) if header.epoch >= building.epoch => {
                building.epoch = header.epoch;
                building.segment.note_group(header.position, header.records == 0);
                building.segment.end = header.end();
                building.segment.newest_ms = header.newest_ms;
                building.take(&bytes, header.position).map_err(SealError::Damaged)?;
                at = header.end();
            }
            found => {
                // A larger block may have been asked for since; what is not a group is then less than a block of zeros.
                let next = at.next_multiple_of(2 * MIN_BLOCK_BYTES.max(1 << at.trailing_zeros().min(16)));
                let torn = matches!(found, Err(NoGroup::Checksum | NoGroup::Short(_)));
                if end.is_none() && next.is_multiple_of(65536) {
                    break;
                }
                if torn || next.is_multiple_of(1 << 17) || end.is_some_and(|end| next >= end) {
                    return Err(SealError::Damaged(at));
                }
                at = next;
            }
        }
        if (at - segment) / WINDOW_BYTES != window {
            window = (at - segment) / WINDOW_BYTES;
            io.pause(0).await;
        }
    }
    building.finish(io, log_id).await
}

struct Building {
    segment: Segment,
    epoch: u32,
    oldest_ms: i64,
    /// Rows of a (topic, queue id); another life of the topic begins another row.
    places: HashMap<(String, i32), usize>,
    rows: Vec<(Row, Vec<Entry>)>,
    keys: Vec<Vec<(u32, u32)>>,
}

impl Building {
    fn new(start: Position, len: u64) -> Self {
        Self {
            segment: Segment::new(start, len),
            epoch: 0,
            oldest_ms: i64::MAX,
            places: HashMap::new(),
            rows: Vec::new(),
            keys: vec![Vec::new(); KEY_PARTS],
        }
    }

    fn take(&mut self, group: &[u8], position: Position) -> Result<(), Position> {
        for (at, record) in records(group) {
            match Stored::parse(record) {
                Some(Stored::Message(message)) if message.position == position + at as u64 => {
                    self.index(&message, record.len() as u32);
                }
                Some(Stored::State { .. }) => {}
                _ => return Err(position),
            }
        }
        Ok(())
    }

    fn index(&mut self, message: &Message<'_>, size: u32) {
        let Message { position, store_ms, .. } = *message;
        let entry = Entry { position, store_ms, size, tags_code: message.tags_code() };
        self.oldest_ms = self.oldest_ms.min(store_ms);
        let place = (message.topic.to_string(), message.queue_id);
        let known = self.places.get(&place).copied().filter(|&at| {
            let (row, entries) = &self.rows[at];
            row.first + entries.len() as i64 == message.queue_offset
        });
        let at = known.unwrap_or_else(|| {
            let row = Row {
                topic: place.0.clone(),
                queue_id: place.1,
                slot: 0,
                count: 0,
                first: message.queue_offset,
                position,
            };
            self.rows.push((row, Vec::new()));
            self.places.insert(place, self.rows.len() - 1);
            self.rows.len() - 1
        });
        self.rows[at].1.push(entry);
        let offset = (position - self.segment.start) as u32;
        for key in message.keys() {
            let hash = key_hash(message.topic, key);
            self.keys[(hash >> 24) as usize].push((hash, offset));
        }
    }

    async fn finish<I: Io>(mut self, io: &I, log_id: u64) -> Result<Meta, SealError> {
        self.rows.sort_by(|(a, _), (b, _)| (&a.topic, a.queue_id, a.position).cmp(&(&b.topic, b.queue_id, b.position)));
        let mut slot = 0;
        for (row, entries) in &mut self.rows {
            (row.slot, row.count) = (slot, entries.len() as u32);
            slot += row.count;
        }
        for part in &mut self.keys {
            part.sort_unstable();
            part.dedup();
            io.pause(0).await;
        }
        let (rows, entries): (Vec<Row>, Vec<Vec<Entry>>) = self.rows.into_iter().unzip();
        let keys = self.keys.iter().map(Vec::len).sum::<usize>() as u32;
        let mut meta = Meta {
            segment: self.segment.start,
            end: self.segment.end,
            epoch: self.epoch,
            oldest_ms: self.oldest_ms,
            newest_ms: self.segment.newest_ms,
            layout: Layout { entries: slot, keys, ..Layout::default() },
            rows,
            chunks: self.segment.chunks,
        };
        let entries = entries.into_iter().flatten();
        meta.write(io, log_id, SEAL_NAME, entries, self.keys.into_iter().flatten()).await?;
        io.rename(SEAL_NAME, &FileId::Index(SegmentId(meta.segment)).file_name()).await?;
        io.sync_dir().await?;
        Ok(meta)
    }
}
