//! What a request that looks up many things has found so far.
//!
//! A request that misses something in memory is handled again, from its beginning, when that was read. Where it needs more
//! than the log keeps in memory, each read takes the place of one before, and it would never end. So what was found stays
//! with the request while it waits.

use std::collections::BTreeMap;

use super::Engine;
use super::turn::Turn;
use crate::log::{Boundary, QueueRef, ReadMiss};

/// By queue, and by the offset or the time that was asked for.
#[derive(Default)]
pub struct Found {
    times: BTreeMap<(QueueRef, i64), Option<i64>>,
    offsets: BTreeMap<(QueueRef, i64), i64>,
}

impl Engine {
    /// A topic is gone: its queues' numbers may soon be those of other queues.
    pub(super) fn forget_found(&mut self) {
        for waiting in self.waiting_reads.values_mut().flatten() {
            waiting.found = Found::default();
        }
    }

    /// When the message at an offset was stored (the first message for `None`); nothing where there is no such message.
    pub(super) fn store_time(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueRef,
        offset: Option<i64>,
    ) -> Result<Option<i64>, ReadMiss> {
        let offset = offset.unwrap_or_else(|| turn.log.min_offset(queue));
        if offset >= turn.log.max_offset(queue) || offset != turn.log.next_kept(queue, offset) {
            return Ok(None);
        }
        if let Some(time) = self.found.times.get(&(queue, offset)) {
            return Ok(*time);
        }
        self.entries.clear();
        turn.log.entries(queue, offset, 1, &mut self.entries)?;
        let time = self.entries.first().map(|entry| entry.store_ms);
        self.found.times.insert((queue, offset), time);
        Ok(time)
    }

    /// The offset of the first message that was stored at a time or later; the end of the queue where all are older.
    pub(super) fn first_stored_from(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueRef,
        time_ms: i64,
    ) -> Result<i64, ReadMiss> {
        if let Some(offset) = self.found.offsets.get(&(queue, time_ms)) {
            return Ok(*offset);
        }
        let offset = turn.log.offset_by_time(queue, time_ms, Boundary::Lower)?;
        self.found.offsets.insert((queue, time_ms), offset);
        Ok(offset)
    }
}
