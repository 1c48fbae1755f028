//! Appending: positions and queue offsets are fixed at once, in the tail buffer, without I/O.
//!
//! The way of a record that fits into the open group is a compare, the fill and two pushes. What does not fit goes through
//! `make_room`, which closes the group and finds place for another: in the same buffer, a new one, or the next segment.

use super::group::HEADER_BYTES;
use super::stored::{KIND_QUEUE_AT, STATE_HEADER_BYTES, put_state, queue_at, record_checksum};
use corelane_wire::properties::MessageKeys;

use super::{AppendError, Appended, Entry, FlushMode, Log, Position, QueueRef};

/// Blocks at the end of a segment that are kept for the log's own records while no next segment is ready.
pub(super) const KEPT_BLOCKS: u64 = 4;

/// The group that records are appended to.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenGroup {
    pub start: Position,
    /// Where the group before it ended.
    pub follows: Position,
    /// Where the next record goes; where the last group ended while none is open.
    pub end: Position,
    /// A record must end at or before it to go into this group.
    pub limit: Position,
    pub records: u32,
}

impl OpenGroup {
    /// None yet, after a group that ended at `end`.
    pub fn none_after(end: Position) -> Self {
        Self {
            start: end,
            follows: end,
            end,
            limit: end,
            records: 0,
        }
    }

    /// Whether one was begun: without a record, too, where room was asked for and nothing came.
    pub fn is_open(&self) -> bool {
        self.end > self.start
    }
}

impl Log {
    /// Appends a message; `fill(position, queue offset, bytes)` writes all `len` bytes of a stored record. `tags_code`,
    /// `store_ms` and `keys` must be what the record says, because an index may be built from either.
    #[inline]
    pub fn append_message(
        &mut self,
        queue: QueueRef,
        len: usize,
        tags_code: i32,
        store_ms: i64,
        keys: MessageKeys<'_>,
        fill: impl FnOnce(Position, i64, &mut [u8]),
    ) -> Result<Appended, AppendError> {
        if self.refuses {
            return Err(AppendError::DiskFull);
        }
        let position = self.place(len)?;
        let queue_offset = self.queues.get(queue).next;
        let bytes = self.tail.extend(len);
        fill(position, queue_offset, bytes);
        debug_assert_eq!(
            bytes[..4],
            (len as u32).to_be_bytes(),
            "the record states its length"
        );
        debug_assert_eq!(
            bytes[20..28],
            queue_offset.to_be_bytes(),
            "the record states its queue offset"
        );
        debug_assert_eq!(
            bytes[28..36],
            position.to_be_bytes(),
            "the record states its position"
        );
        #[cfg(debug_assertions)]
        super::stored::check_what_is_indexed(bytes, tags_code, store_ms, keys);
        let tags_code = if self.queues.get(queue).waits {
            record_checksum(bytes)
        } else {
            tags_code
        };
        let end = position + len as u64;
        self.newest_ms = self.newest_ms.max(store_ms);
        let entry = Entry {
            position,
            store_ms,
            size: len as u32,
            tags_code,
        };
        self.queues.push(queue, end, entry, self.shows_at_once);
        let of = self.queues.get(queue);
        self.gather
            .take_record(queue, of, queue_offset, entry, keys);
        Ok(Appended {
            position,
            end,
            queue_offset,
        })
    }

    /// Appends a state record; returns its end. Kinds from 0xFF00 on are the log's own.
    pub fn append_state(&mut self, kind: u16, payload: &[u8]) -> Result<Position, AppendError> {
        let len = STATE_HEADER_BYTES + payload.len();
        let position = self.place(len)?;
        put_state(self.tail.extend(len), kind, payload);
        Ok(position + len as u64)
    }

    /// What the queue gets next has `offset`, which is not below the next one that it would get; those between have no
    /// record. `Busy` while anything of the queue waits to be visible. Returns the end of the record that says so.
    pub fn queue_at(
        &mut self,
        topic: &str,
        queue_id: i32,
        offset: i64,
    ) -> Result<Position, AppendError> {
        let queue = self.queue(topic, queue_id);
        let found = self.queues.get(queue);
        assert!(found.next <= offset, "offsets do not go back");
        if found.visible < found.next {
            return Err(AppendError::Busy);
        }
        let end = self.append_state(KIND_QUEUE_AT, &queue_at(topic, queue_id, offset))?;
        self.queues.get_mut(queue).skip_to(offset);
        Ok(end)
    }

    /// A state record of the log itself: it may use the room that is kept free for it.
    pub(super) fn append_own_state(
        &mut self,
        kind: u16,
        payload: &[u8],
    ) -> Result<Position, AppendError> {
        let len = STATE_HEADER_BYTES + payload.len();
        if self.open.end + len as u64 > self.open.limit {
            self.make_room(len, 0)?;
        }
        self.append_state(kind, payload)
    }

    /// Whether `records` records of `bytes` bytes in all fit now: if so, appending them next cannot fail.
    pub fn reserve(&mut self, bytes: usize, records: usize) -> Result<(), AppendError> {
        self.check_running()?;
        let options = &self.options;
        let block = u64::from(options.block_bytes);
        let group = options.max_group_bytes.min(options.buffer_bytes);
        // Two groups in a row hold more than one group's limit, or else the second would not have been begun.
        let groups = records.min(2 * bytes / group + 2) as u64 + 1;
        let need = bytes as u64 + groups * (HEADER_BYTES as u64 + block);
        if self.unflushed_bytes() + need > options.max_unflushed_bytes {
            return Err(if need > options.max_unflushed_bytes {
                AppendError::TooLarge
            } else {
                AppendError::Busy
            });
        }
        if self.refuses {
            return Err(AppendError::DiskFull);
        }
        let kept = KEPT_BLOCKS * block;
        let fits_here = self.open.end + need + kept <= self.segments.newest().limit();
        let fits_next = || {
            self.segments
                .ready
                .front()
                .is_some_and(|next| need <= next.len)
        };
        if fits_here || fits_next() {
            Ok(())
        } else {
            Err(self.no_segment())
        }
    }

    /// The most bytes that [`Log::together`] takes.
    pub fn most_together(&self) -> usize {
        self.options.max_record_bytes
    }

    /// Lets the records that are appended next, `bytes` bytes of them in all with 12 more for each state record, go into one
    /// group: after a crash either all of them are there or none. If none is appended, an empty group is written.
    pub fn together(&mut self, bytes: usize) -> Result<(), AppendError> {
        self.check_running()?;
        if self.refuses {
            return Err(AppendError::DiskFull);
        }
        if self.open.end + bytes as u64 > self.open.limit {
            self.make_room(bytes, KEPT_BLOCKS * u64::from(self.options.block_bytes))?;
        }
        Ok(())
    }

    /// Bytes of groups that are not durable.
    pub(super) fn unflushed_bytes(&self) -> u64 {
        self.window.bytes + (self.open.end - self.open.start)
    }

    fn check_running(&self) -> Result<(), AppendError> {
        if self.stopped {
            Err(AppendError::Stopped)
        } else {
            Ok(())
        }
    }

    fn no_segment(&self) -> AppendError {
        if self.work.disk_full {
            AppendError::DiskFull
        } else {
            AppendError::Busy
        }
    }

    /// Takes `len` bytes at the end of the log and says where.
    #[inline]
    fn place(&mut self, len: usize) -> Result<Position, AppendError> {
        if self.open.end + len as u64 > self.open.limit {
            self.make_room(len, KEPT_BLOCKS * u64::from(self.options.block_bytes))?;
        }
        let position = self.open.end;
        self.open.end += len as u64;
        self.open.records += 1;
        Ok(position)
    }

    #[cold]
    fn make_room(&mut self, len: usize, kept: u64) -> Result<(), AppendError> {
        self.check_running()?;
        if len > self.options.max_record_bytes {
            return Err(AppendError::TooLarge);
        }
        let block = self.options.block_bytes as usize;
        let need = (HEADER_BYTES + len).next_multiple_of(block);
        let budget = self
            .options
            .max_unflushed_bytes
            .saturating_sub(self.unflushed_bytes() + block as u64);
        if need as u64 > budget {
            return Err(AppendError::Busy);
        }
        let padded_end = self.open.end.next_multiple_of(block as u64);
        // While there is no next segment, some room is kept for the record that lets the oldest one go.
        let kept = if self.segments.ready.is_empty() {
            kept
        } else {
            0
        };
        let rolls = padded_end + need as u64 > self.segments.newest().limit() - kept;
        if rolls && self.segments.ready.is_empty() {
            return Err(self.no_segment());
        }
        if rolls
            && self
                .segments
                .ready
                .front()
                .is_some_and(|next| (next.len as usize) < need)
        {
            return Err(AppendError::TooLarge);
        }
        self.close_group();
        let follows = self.open.end;
        if rolls {
            self.roll();
        }
        let segment = self.segments.newest_mut();
        let start = if rolls { segment.start } else { follows };
        segment.note_group(start, self.gather.begins_run());
        let segment_limit = segment.limit() - if rolls { 0 } else { kept };
        if self.tail.room_at(start) < need {
            self.tail.start_buffer(start, need);
            self.tail.evict(self.durable);
        }
        let room = self.tail.room_at(start) as u64 / block as u64 * block as u64;
        let longest = (self.options.max_group_bytes.next_multiple_of(block)).max(need) as u64;
        let limit = start
            + longest
                .min(budget / block as u64 * block as u64)
                .min(room)
                .min(segment_limit - start);
        self.tail.begin_group();
        self.open = OpenGroup {
            start,
            follows,
            end: start + HEADER_BYTES as u64,
            limit,
            records: 0,
        };
        Ok(())
    }

    pub(super) fn shows_at_once(flush: FlushMode) -> bool {
        matches!(flush, FlushMode::Async { .. })
    }
}
