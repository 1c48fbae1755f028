//! Reading messages that wait for their time, in the order in which they are due.
//!
//! Their reader knows long before what it will want, and it may lie anywhere in the log: what lies close together is read in
//! whole chunks, the rest record by record, each checked against the checksum in its entry.

use super::alone::Known;
use super::stored::record_checksum;
use super::{Entry, Log, Position, ReadMiss, Slice};

/// So many records of a reader,
const DENSE_RECORDS: usize = 16;
/// within so many bytes, are worth reading what lies between them.
const DENSE_BYTES: u64 = 128 << 10;
/// Chunks on their way at most, for anybody, while more are read ahead.
const MOST_CHUNKS_AHEAD: usize = 8;

impl Log {
    /// The bytes of the record that an entry of a queue of waiting messages names, checked.
    pub fn waiting_record(&mut self, entry: &Entry) -> Result<Slice, ReadMiss> {
        let &Entry { position, size, .. } = entry;
        let Some(segment) = self.reads_alone(position, size) else {
            return self.record(position, size);
        };
        match self.alone.find(position, size) {
            Known::Here(bytes) if record_checksum(&bytes) == entry.tags_code => Ok(bytes),
            Known::Here(_) | Known::Failed => self.record(position, size),
            Known::Wanted(id) => Err(ReadMiss::Wanted(id)),
            Known::Unknown => Err(ReadMiss::Wanted(self.alone.ask(segment, position, size))),
        }
    }

    /// Has the records of entries read that are not in memory, as far as there is room; says of how many it has seen to it.
    /// The entries are of one queue, in its order.
    pub fn read_waiting_ahead(&mut self, entries: &[Entry]) -> usize {
        for (number, entry) in entries.iter().enumerate() {
            let &Entry { position, size, .. } = entry;
            let Some(segment) = self.reads_alone(position, size) else {
                continue;
            };
            if is_dense(entries, number) {
                if self.cold.in_flight() >= MOST_CHUNKS_AHEAD {
                    return number;
                }
                if let Some((place, start, end)) = self.chunk_at(position) {
                    self.cold.read_ahead(place, (end - start) as usize);
                }
                continue;
            }
            if !self.alone.is_asked(position, size) {
                if self.alone.is_full() {
                    return number;
                }
                self.alone.ask(segment, position, size);
            }
        }
        entries.len()
    }

    /// The segment, of a record that is neither in memory, nor in a chunk that is here or on its way, nor gone.
    fn reads_alone(&self, position: Position, size: u32) -> Option<Position> {
        let (place, start, end) = self.chunk_at(position)?;
        let is_in_tail = self.tail.holds(position, size as usize);
        let is_in_chunk = self.cold.is_asked(place, (end - start) as usize);
        (!is_in_tail && !is_in_chunk).then_some(self.segments.at(position)?.start)
    }
}

/// Whether an entry is one of a run of entries that lie close together.
fn is_dense(entries: &[Entry], number: usize) -> bool {
    let near = |first: usize| {
        let last = entries.get(first + DENSE_RECORDS - 1);
        last.is_some_and(|last| last.position.saturating_sub(entries[first].position) < DENSE_BYTES)
    };
    near(number) || number.checked_sub(DENSE_RECORDS - 1).is_some_and(near)
}
