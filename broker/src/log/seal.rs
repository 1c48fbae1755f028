//! Building an index: from records as they are appended (`gather`), or from groups, read back and checked, where an index is
//! missing at opening or is not sound.
//!
//! Memory while it runs: 28 bytes a record, 8 bytes a key, 4 more a record at the end, one window where it is read back;
//! all of it in few large pieces, which the system gets back at the end.

use super::births::Births;
use super::group::{GroupHeader, records};
use super::hole::{Hole, hole_at};
use super::index::{Layout, Meta, Row, TopicHash};
use super::scan::SegmentReader;
use super::segment::{IndexId, Segment};
use super::stored::{Stored, entry_and_keys_of};
use super::{Entry, Io, IoError, Position};
use corelane_wire::properties::MessageKeys;
use corelane_wire::record::Record;
use foldhash::{HashMap, HashMapExt};
use std::rc::Rc;

/// Where an index is built; an interrupted building leaves this name behind.
pub(super) const SEAL_NAME: &str = "index.tmp";
/// Bytes that are read at once: what is done with them is one slice of the core's time.
const WINDOW_BYTES: u64 = 512 << 10;
/// MessageKeys are sorted in so many parts, to keep slices of the core's time short.
const KEY_PARTS: usize = 256;
/// After sorting more than so many, others get their turn.
const KEYS_PER_SLICE: usize = 1000;
/// The same for giving entries their places.
const ENTRIES_PER_SLICE: usize = 16 << 10;
/// The same for sorting rows.
const ROWS_PER_SLICE: usize = 1 << 10;

/// Why an index cannot be built.
#[derive(Debug)]
pub(super) enum SealError {
    Io(IoError),
    /// The segment does not hold a sound group where it must.
    Damaged(Position),
    /// An index that it is made of is not sound.
    Unsound(IndexId),
}

impl From<IoError> for SealError {
    fn from(error: IoError) -> Self {
        SealError::Io(error)
    }
}

/// Groups of a segment that an index is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub id: IndexId,
    pub segment: Position,
    /// The length of the segment.
    pub len: u64,
    /// Where the last group ends.
    pub end: Position,
}

/// Reads groups and writes their index. What lies in `holes` is passed over, `births` are those within the segment. Between
/// slices of the core's time it waits for `pause_ms`.
pub(super) async fn seal<I: Io>(
    io: &I,
    log_id: u64,
    run: Run,
    holes: &[Hole],
    births: Births,
    pause_ms: u64,
) -> Result<Meta, SealError> {
    let Run {
        segment, len, end, ..
    } = run;
    let mut reader = SegmentReader::open(io, segment, len, WINDOW_BYTES, 1).await?;
    let mut building = Building::new(segment, len, run.id.start());
    building.births = births;
    let (mut window, mut crossed) = (0, false);
    while building.segment.end < end {
        let at = building.segment.end;
        if let Some(hole) = hole_at(holes, at) {
            building.segment.end = hole.to.min(end);
            crossed = true;
            continue;
        }
        let follows = (at > segment && !crossed).then_some(at);
        let Some((header, bytes)) = reader.group_after(log_id, at, follows, end - at).await? else {
            return Err(SealError::Damaged(at));
        };
        building
            .take(&header, &bytes, crossed)
            .map_err(SealError::Damaged)?;
        crossed = false;
        if (at - segment) / WINDOW_BYTES != window {
            window = (at - segment) / WINDOW_BYTES;
            io.pause(pause_ms).await;
        }
    }
    building.finish(io, log_id, run.id).await
}

/// What a run of groups tells, from `start` up to `segment.end`.
pub(super) struct Building {
    /// Where its first group begins.
    pub start: Position,
    /// Its chunks are those of the run only.
    pub segment: Segment,
    epoch: u32,
    oldest_ms: i64,
    /// The last row of a (topic, queue id); another life of the topic begins another row.
    places: HashMap<Rc<str>, HashMap<i32, u32>>,
    rows: Vec<Row>,
    /// Of each row.
    topic_hashes: Vec<TopicHash>,
    /// In log order.
    entries: Vec<Entry>,
    /// The row of each entry.
    row_of: Vec<u32>,
    keys: Vec<Vec<(u32, u32)>>,
    keys_taken: usize,
    /// Where rows end although their queues' offsets go on, if it is not known which row a record belongs to.
    births: Births,
}

impl Building {
    /// Of the groups from `start` on, in a segment of `len` bytes.
    pub fn new(segment: Position, len: u64, start: Position) -> Self {
        let mut segment = Segment::new(segment, len);
        segment.end = start;
        Self {
            start,
            segment,
            epoch: 0,
            oldest_ms: i64::MAX,
            places: HashMap::new(),
            rows: Vec::new(),
            topic_hashes: Vec::new(),
            entries: Vec::new(),
            row_of: Vec::new(),
            keys: vec![Vec::new(); KEY_PARTS],
            keys_taken: 0,
            births: Births::default(),
        }
    }

    /// Takes the next group; `crossed`: damage was passed over before it. Fails with the position of a group whose records
    /// make no sense.
    pub fn take(
        &mut self,
        header: &GroupHeader,
        group: &[u8],
        crossed: bool,
    ) -> Result<(), Position> {
        self.note_group(header, crossed);
        for (at, bytes) in records(group) {
            match Stored::parse_at(bytes, header.position + at as u64) {
                Some(Stored::Message(record)) => self.index(&record),
                Some(Stored::State { .. }) => {}
                None => return Err(header.position),
            }
        }
        Ok(())
    }

    /// Notes the group that ends the segment so far; `crossed`: damage was passed over before it.
    pub fn note_group(&mut self, header: &GroupHeader, crossed: bool) {
        self.epoch = self.epoch.max(header.epoch);
        self.segment
            .note_group(header.position, header.records == 0 || crossed);
        self.segment.end = header.end();
        self.segment.newest_ms = header.newest_ms;
    }

    /// Whether it has no group.
    pub fn is_empty(&self) -> bool {
        self.segment.end == self.start
    }

    /// Whether rows have so many records in the mean.
    pub fn has_records_a_row(&self, many: usize) -> bool {
        self.entries.len() >= many * self.rows.len()
    }

    /// Bytes of memory that it needs until it is written, about.
    pub fn memory_bytes(&self) -> usize {
        let entry = size_of::<Entry>() + 2 * size_of::<u32>();
        self.entries.len() * entry + self.keys_taken * size_of::<(u32, u32)>()
    }

    /// Takes the next record of the log where it is not known which row it belongs to.
    pub fn index(&mut self, record: &Record<'_>) {
        let (entry, keys) = entry_and_keys_of(record);
        let (topic, queue_id, first) = (record.topic(), record.queue_id(), record.queue_offset());
        let known = self.places.get(topic).and_then(|queues| {
            let at = *queues.get(&queue_id)?;
            let row = &self.rows[at as usize];
            let goes_on = self.goes_on(at, first) && !self.births.are_between(row, entry.position);
            goes_on.then_some(at)
        });
        let at = known.unwrap_or_else(|| {
            let topic = match self.places.get_key_value(topic) {
                Some((name, _)) => name.clone(),
                None => Rc::from(topic),
            };
            let at = self.begin_row(topic.clone(), queue_id, first, entry.position);
            self.places.entry(topic).or_default().insert(queue_id, at);
            at
        });
        self.push(at, entry, keys);
    }

    /// Whether the next record of a row may have this queue offset.
    #[inline]
    pub fn goes_on(&self, row: u32, offset: i64) -> bool {
        let row = &self.rows[row as usize];
        row.first + i64::from(row.count) == offset
    }

    /// Begins another row, which has no record yet, and returns its number.
    pub fn begin_row(
        &mut self,
        topic: Rc<str>,
        queue_id: i32,
        first: i64,
        position: Position,
    ) -> u32 {
        self.topic_hashes.push(TopicHash::of(&topic));
        self.rows.push(Row {
            topic,
            queue_id,
            slot: 0,
            count: 0,
            first,
            position,
        });
        self.rows.len() as u32 - 1
    }

    /// Takes the next record of the log, which is the next of its row.
    #[inline]
    pub fn push(&mut self, row: u32, entry: Entry, keys: MessageKeys<'_>) {
        self.oldest_ms = self.oldest_ms.min(entry.store_ms);
        self.rows[row as usize].count += 1;
        self.entries.push(entry);
        self.row_of.push(row);
        let offset = (entry.position - self.segment.start) as u32;
        let topic = self.topic_hashes[row as usize];
        for key in keys.each() {
            let hash = topic.with(key);
            self.keys[(hash >> 24) as usize].push((hash, offset));
            self.keys_taken += 1;
        }
    }

    /// Writes the index and gives it its name.
    pub async fn finish<I: Io>(
        mut self,
        io: &I,
        log_id: u64,
        id: IndexId,
    ) -> Result<Meta, SealError> {
        let in_order = in_order(io, &self.rows).await;
        let mut rows = Vec::with_capacity(self.rows.len());
        let mut slot = 0;
        let mut next = vec![0; self.rows.len()];
        for part in in_order.chunks(ROWS_PER_SLICE) {
            for &at in part {
                let mut row = self.rows[at as usize].clone();
                (row.slot, next[at as usize]) = (slot, slot);
                slot += row.count;
                rows.push(row);
            }
            io.pause(0).await;
        }
        self.rows = Vec::new();
        let mut by_slot = vec![0; self.entries.len()];
        for (number, &at) in self.row_of.iter().enumerate() {
            let place = &mut next[at as usize];
            by_slot[*place as usize] = number as u32;
            *place += 1;
            if number % ENTRIES_PER_SLICE == 0 {
                io.pause(0).await;
            }
        }
        self.row_of = Vec::new();
        for part in &mut self.keys {
            part.sort_unstable();
            part.dedup();
            if part.len() > KEYS_PER_SLICE {
                io.pause(0).await;
            }
        }
        let keys = self.keys.iter().map(Vec::len).sum::<usize>() as u32;
        let mut meta = Meta {
            id,
            end: self.segment.end,
            epoch: self.epoch,
            oldest_ms: self.oldest_ms,
            newest_ms: self.segment.newest_ms,
            layout: Layout::new(slot, keys),
            rows,
            chunks: self.segment.chunks,
        };
        let entries = by_slot
            .into_iter()
            .map(|number| self.entries[number as usize].into());
        let keys = self.keys.into_iter().flatten().map(Into::into);
        meta.write(io, log_id, SEAL_NAME, entries, keys).await?;
        give_name(io, id).await?;
        Ok(meta)
    }
}

/// The numbers of rows in the order that they are written in. There may be very many: they are sorted a part at a time, and
/// sorted parts are merged, so that others get their turn.
async fn in_order<I: Io>(io: &I, rows: &[Row]) -> Vec<u32> {
    let order = |&number: &u32| rows[number as usize].order();
    let mut numbers: Vec<u32> = (0..rows.len() as u32).collect();
    for part in numbers.chunks_mut(ROWS_PER_SLICE) {
        part.sort_by(|a, b| order(a).cmp(&order(b)));
        io.pause(0).await;
    }
    let mut sorted = ROWS_PER_SLICE;
    while sorted < numbers.len() {
        let mut merged = Vec::with_capacity(numbers.len());
        for pair in numbers.chunks(2 * sorted) {
            let (mut a, mut b) = pair.split_at(sorted.min(pair.len()));
            while let (Some(first), Some(second)) = (a.first(), b.first()) {
                let from = match order(first) <= order(second) {
                    true => &mut a,
                    false => &mut b,
                };
                merged.extend(from.split_off_first());
                if merged.len() % ROWS_PER_SLICE == 0 {
                    io.pause(0).await;
                }
            }
            merged.extend(a);
            merged.extend(b);
        }
        numbers = merged;
        sorted *= 2;
    }
    numbers
}

/// Gives an index that was built its name.
pub(super) async fn give_name<I: Io>(io: &I, id: IndexId) -> Result<(), IoError> {
    io.rename(SEAL_NAME, &id.file_name()).await?;
    io.sync_dir().await
}
