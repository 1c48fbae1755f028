//! Building indexes while segments fill, from what is appended: nothing has to be read back then, and nothing of a record is
//! looked at again. That it is durable is asked for when an index is written.
//!
//! A run of groups ends, and its index may be written, when it is `index_run_bytes` long, or longer where its queues have
//! few records in it, when its index needs `index_memory_bytes`, and at the end of the segment. A run begins a chunk.

use super::group::GroupHeader;
use super::queue::Queue;
use super::seal::{Building, Run};
use super::segment::{IndexId, Segment};
use super::{Entry, LogOptions, Position, QueueRef};
use corelane_wire::properties::MessageKeys;
use corelane_wire::record::Record;
use std::collections::VecDeque;

/// A run that is long enough goes on while its queues have fewer records than this in it: a row costs more than a record,
const RECORDS_A_ROW: usize = 4;
/// until it is so many times as long.
const MOST_RUNS_AT_ONCE: u64 = 4;
/// In place of a row's number.
const NO_ROW: u32 = u32::MAX;

pub(super) struct Gather {
    run_bytes: u64,
    memory_bytes: usize,
    /// Of the run that is appended to.
    building: Building,
    /// The row of each queue in it.
    row_of: Vec<u32>,
    /// Of runs that have ended, oldest first.
    finished: VecDeque<(IndexId, Building)>,
}

impl Gather {
    pub fn new(options: &LogOptions) -> Self {
        Self {
            run_bytes: options.index_run_bytes,
            memory_bytes: options.index_memory_bytes,
            building: Building::new(0, 0, 0),
            row_of: Vec::new(),
            finished: VecDeque::new(),
        }
    }

    /// While opening: the first run begins at `start`.
    pub fn begin(&mut self, segment: &Segment, start: Position) {
        self.building = Building::new(segment.start, segment.len, start);
    }

    /// The log goes on in another segment.
    pub fn roll(&mut self, segment: &Segment) {
        self.end_run(
            Building::new(segment.start, segment.len, segment.start),
            true,
        );
    }

    /// Takes the record that was appended last.
    #[inline]
    pub fn take_record(
        &mut self,
        queue: QueueRef,
        of: &Queue,
        offset: i64,
        entry: Entry,
        keys: MessageKeys<'_>,
    ) {
        let building = &mut self.building;
        let known = self.row_of.get(queue.0 as usize).copied();
        let row = match known.filter(|&row| row != NO_ROW && building.goes_on(row, offset)) {
            Some(row) => row,
            None => {
                let row = building.begin_row(of.topic.clone(), of.queue_id, offset, entry.position);
                let at = queue.0 as usize;
                if at >= self.row_of.len() {
                    self.row_of.resize(at + 1, NO_ROW);
                }
                self.row_of[at] = row;
                row
            }
        };
        building.push(row, entry, keys);
    }

    /// While opening: takes a record of a queue that there is no more.
    pub fn take_unowned(&mut self, record: &Record<'_>) {
        self.building.index(record);
    }

    /// Takes the group that was closed last; `crossed`: damage was passed over before it.
    pub fn take_group(&mut self, header: &GroupHeader, crossed: bool) {
        self.building.note_group(header, crossed);
        let (start, end) = (self.building.start, header.end());
        let len = end - start;
        let is_dense = self.building.has_records_a_row(RECORDS_A_ROW);
        let is_long =
            len >= self.run_bytes && (is_dense || len / MOST_RUNS_AT_ONCE >= self.run_bytes);
        if is_long || self.building.memory_bytes() >= self.memory_bytes {
            let segment = &self.building.segment;
            let next = Building::new(segment.start, segment.len, end);
            self.end_run(next, false);
        }
    }

    fn end_run(&mut self, next: Building, ends_segment: bool) {
        let ended = std::mem::replace(&mut self.building, next);
        if ends_segment && ended.start == ended.segment.start {
            self.finished
                .push_back((IndexId::whole(ended.start), ended));
        } else if !ended.is_empty() {
            self.finished.push_back((IndexId::run(ended.start), ended));
        }
        self.row_of.clear();
    }

    /// Whether the next group is the first of its run.
    pub fn begins_run(&self) -> bool {
        self.building.is_empty()
    }

    /// The queues are another topic's from now on.
    pub fn forget(&mut self, queues: &[QueueRef]) {
        for queue in queues {
            if let Some(row) = self.row_of.get_mut(queue.0 as usize) {
                *row = NO_ROW;
            }
        }
    }

    /// What was gathered of the oldest run that has ended, if it ends at or before `durable`; what lies before `oldest` is
    /// forgotten.
    pub fn finished(&mut self, oldest: Position, durable: Position) -> Option<(Run, Building)> {
        while self
            .finished
            .pop_front_if(|(id, _)| id.start() < oldest)
            .is_some()
        {}
        let (id, building) = self
            .finished
            .pop_front_if(|(_, building)| building.segment.end <= durable)?;
        let segment = &building.segment;
        let run = Run {
            id,
            segment: segment.start,
            len: segment.len,
            end: segment.end,
        };
        Some((run, building))
    }
}
