//! Building the index of a segment while it fills, from what is appended: nothing has to be read back then, and nothing of
//! a record is looked at again. That it is durable is asked for when the index is written, which is when all of the
//! segment is.
//!
//! A segment is given up, and read back once it is full, when its index will need more than `index_memory_bytes`, and when
//! the log was opened in its middle.

use super::group::GroupHeader;
use super::queue::Queue;
use super::seal::Building;
use super::segment::Segment;
use super::{Entry, Position, QueueRef};
use corelane_wire::properties::MessageKeys;
use std::collections::VecDeque;

/// The first such part of a segment is taken to tell what the whole will be like.
const FOREKNOWN: u64 = 16;
/// In place of a row's number.
const NO_ROW: u32 = u32::MAX;

pub(super) struct Gather {
    max_bytes: usize,
    /// Of the segment that is written.
    building: Option<Building>,
    /// The row of each queue in it.
    row_of: Vec<u32>,
    /// Of segments that are full, oldest first.
    finished: VecDeque<Building>,
}

impl Gather {
    /// An index that needs more than `max_bytes` is not built from memory.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            building: None,
            row_of: Vec::new(),
            finished: VecDeque::new(),
        }
    }

    /// The log goes on in another segment.
    pub fn roll(&mut self, segment: &Segment) {
        self.finished.extend(self.building.take());
        self.row_of = Vec::new();
        self.building = (self.max_bytes > 0).then(|| Building::new(segment.start, segment.len));
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
        let Some(building) = &mut self.building else {
            return;
        };
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

    /// Takes the group that was closed last.
    pub fn take_group(&mut self, header: &GroupHeader) {
        if let Some(building) = &mut self.building {
            building.note_group(header, false);
            if needs_at_end(building) > self.max_bytes {
                self.building = None;
                self.row_of = Vec::new();
            }
        }
    }

    /// The queues are another topic's from now on.
    pub fn forget(&mut self, queues: Vec<QueueRef>) {
        for queue in queues {
            if let Some(row) = self.row_of.get_mut(queue.0 as usize) {
                *row = NO_ROW;
            }
        }
    }

    /// What was gathered of a full segment.
    pub fn finished(&mut self, segment: Position) -> Option<Building> {
        self.finished
            .retain(|building| building.segment.start >= segment);
        self.finished
            .pop_front_if(|building| building.segment.start == segment)
    }
}

/// The memory that the whole segment's index will need if the rest of it is like what there is so far.
fn needs_at_end(building: &Building) -> usize {
    let segment = &building.segment;
    let so_far = (segment.end - segment.start).max(segment.len / FOREKNOWN);
    (building.memory_bytes() as u128 * u128::from(segment.len) / u128::from(so_far)) as usize
}
