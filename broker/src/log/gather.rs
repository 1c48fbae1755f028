//! Building the index of a segment while it fills, from groups in the tail buffers: nothing has to be read back then. A group
//! is taken soon after it was issued, while the processor's cache still has it. That it is durable is asked for when the
//! index is written, which is when all of the segment is.
//!
//! A segment is given up, and read back once it is full, when its index will need more than `index_memory_bytes`, when a
//! group has left the tail buffers too early, and when the log was opened in its middle.

use super::group::sealed_header;
use super::seal::Building;
use super::{Log, Position};
use std::collections::VecDeque;

/// So much is waited for, to do it at once, but no more than this part of what stays in memory.
const STEP_BYTES: u64 = 64 << 10;
const STEP_PART: u64 = 8;
/// What is taken in one turn, at most: some hundred microseconds.
const MOST_BYTES: u64 = 1 << 20;

/// The first such part of a segment is taken to tell what the whole will be like.
const FOREKNOWN: u64 = 16;

#[derive(Default)]
pub(super) struct Gather {
    building: Option<Building>,
    /// Of segments that are full, oldest first.
    finished: VecDeque<Building>,
    /// Segments that start at or before it are not begun any more.
    after: Option<Position>,
}

impl Gather {
    /// Whether the segment's index is being built from memory.
    pub fn is_at(&self, segment: Position) -> bool {
        let building = self.building.as_ref();
        building.is_some_and(|building| building.segment.start == segment)
    }

    /// What was gathered of a full segment.
    pub fn take(&mut self, segment: Position) -> Option<Building> {
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

impl Log {
    /// Takes groups that have been issued.
    pub(super) fn gather(&mut self) {
        let issued = self.issued();
        let step = STEP_BYTES.min(self.options.tail_cache_bytes as u64 / STEP_PART);
        let mut taken = 0;
        while taken < MOST_BYTES {
            let Some(mut building) = self.gather.building.take().or_else(|| self.begin()) else {
                return;
            };
            let at = building.segment.end;
            let Some(segment) = self.segments.get_mut(building.segment.start) else {
                continue;
            };
            let (is_full, end) = (segment.limit() <= self.open.start, segment.end);
            if is_full && at == end {
                self.gather.finished.push_back(building);
                continue;
            }
            let waits_for = if is_full { end } else { at + step };
            if taken == 0 && issued < waits_for {
                self.gather.building = Some(building);
                return;
            }
            let Some((group, position)) = self.tail.group_from(at, issued) else {
                // Either it is not issued yet, or it is gone from memory.
                if at >= issued.min(end) {
                    self.gather.building = Some(building);
                    return;
                }
                continue;
            };
            assert_eq!(position, at, "groups of a segment lie close together");
            let header = sealed_header(&group, self.log_id, position);
            let understood = building.take(&header, &group, false);
            taken += u64::from(header.padded);
            if understood.is_ok() && needs_at_end(&building) <= self.options.index_memory_bytes {
                self.gather.building = Some(building);
            }
        }
    }

    /// The first segment that was not begun yet.
    fn begin(&mut self) -> Option<Building> {
        let newest = self.segments.newest().start;
        let after = *self.gather.after.get_or_insert(newest);
        if newest == after || self.options.index_memory_bytes == 0 {
            return None;
        }
        let next = self
            .segments
            .list
            .iter()
            .find(|segment| segment.start > after)?;
        self.gather.after = Some(next.start);
        Some(Building::new(next.start, next.len))
    }
}
