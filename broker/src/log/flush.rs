//! Group commit: what has been appended becomes writes, and finished writes become durable positions.
//!
//! Greedy: a group is issued as soon as the window has room, so what arrives while the device is busy is the next group.
//! Up to `max_writes_in_flight` writes are in flight; they may finish in any order and are acknowledged in log order. One that
//! takes long keeps later ones from being acknowledged, but not from being written: the groups that are issued and not
//! acknowledged may be `in_flight_bytes` together, which recovery counts on.
//! A failed write stops the log for good: what came after it can never be acknowledged.

use super::append::OpenGroup;
use super::group::{self, GroupHeader, HEADER_BYTES, Rest};
use super::{FlushMode, IoError, Log, LogFailure, Position, SegmentId, WriteId, WriteOp};
use std::collections::VecDeque;

/// A group that takes no further record.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    start: Position,
    end: Position,
    follows: Position,
    length: u32,
    records: u32,
    newest_ms: i64,
    rest: Rest,
}

#[derive(Debug)]
struct InFlight {
    start: Position,
    end: Position,
    done: bool,
}

/// Groups between append and durability.
#[derive(Debug, Default)]
pub(super) struct Window {
    closed: VecDeque<Closed>,
    /// Issued and not acknowledged.
    in_flight: VecDeque<InFlight>,
    /// How many of them are not done.
    under_way: usize,
    /// Id of the first write in flight; those after it count on.
    first_id: u64,
    /// Bytes of all these groups.
    pub bytes: u64,
    /// When an open group must be written in async mode.
    deadline_ms: Option<i64>,
}

impl Log {
    /// The next group to write; to be called until `None` at the end of a turn.
    pub fn next_write(&mut self, now_ms: i64) -> Option<WriteOp> {
        self.work.set_now(now_ms);
        if self.stopped || self.window.under_way >= self.options.max_writes_in_flight {
            return None;
        }
        let oldest = self.window.in_flight.front();
        let bound = oldest.map_or(Position::MAX, |oldest| {
            oldest.start + self.options.in_flight_bytes()
        });
        if self.window.closed.is_empty() {
            if !self.open.is_open() || !self.flush_is_due(now_ms) || self.open.end > bound {
                return None;
            }
            self.close_group();
        }
        let group = self
            .window
            .closed
            .pop_front_if(|group| group.end <= bound)?;
        let header = self.header(&group);
        let bytes = self.tail.seal(group.start, group.end, |out| {
            group::seal(&header, out, &group.rest)
        });
        let Some(segment) = self.segments.at(group.start) else {
            unreachable!("a group lies in a segment")
        };
        let (segment, file_offset) = (segment.start, group.start - segment.start);
        let id = WriteId(self.window.first_id + self.window.in_flight.len() as u64);
        self.window.in_flight.push_back(InFlight {
            start: group.start,
            end: group.end,
            done: false,
        });
        self.window.under_way += 1;
        Some(WriteOp {
            id,
            segment: SegmentId(segment),
            file_offset,
            bytes,
        })
    }

    fn header(&self, group: &Closed) -> GroupHeader {
        GroupHeader {
            log_id: self.log_id,
            position: group.start,
            follows: group.follows,
            durable: self.durable,
            newest_ms: group.newest_ms,
            epoch: self.epoch,
            length: group.length,
            padded: (group.end - group.start) as u32,
            records: group.records,
        }
    }

    /// What was appended so far is written without waiting for its time.
    pub fn flush_now(&mut self) {
        if self.open.is_open() {
            self.window.deadline_ms = Some(0);
        }
    }

    /// A group write has ended.
    pub fn write_done(
        &mut self,
        id: WriteId,
        result: Result<(), IoError>,
    ) -> Result<(), LogFailure> {
        let at = id.0.wrapping_sub(self.window.first_id) as usize;
        let Some(write) = self.window.in_flight.get_mut(at) else {
            panic!("no write {id:?} in flight")
        };
        assert!(!write.done, "write {id:?} ends twice");
        if let Err(cause) = result {
            self.stopped = true;
            self.open.limit = self.open.end;
            return Err(LogFailure::Write {
                position: write.start,
                cause,
            });
        }
        write.done = true;
        self.window.under_way -= 1;
        if self.stopped {
            return Ok(());
        }
        while let Some(first) = self.window.in_flight.front()
            && first.done
        {
            assert!(
                first.start >= self.durable && first.end > first.start,
                "groups are acknowledged in log order"
            );
            self.durable = first.end;
            self.window.bytes -= first.end - first.start;
            self.window.in_flight.pop_front();
            self.window.first_id += 1;
        }
        if !self.shows_at_once {
            self.queues.show_until(self.durable);
        }
        self.tail.evict(self.durable);
        Ok(())
    }

    /// Everything before it is on stable storage.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// When `next_write` will have something to give, if that is for the time to pass.
    pub fn flush_deadline_ms(&self) -> Option<i64> {
        if self.open.is_open() && self.window.closed.is_empty() {
            self.window.deadline_ms
        } else {
            None
        }
    }

    /// Bytes that were appended and that no write has been given for.
    pub fn unissued_bytes(&self) -> u64 {
        let first = self.window.closed.front();
        self.open.end - first.map_or(self.open.start, |group| group.start)
    }

    /// Writes in flight, for metrics.
    pub fn writes_in_flight(&self) -> usize {
        self.window.under_way
    }

    fn flush_is_due(&mut self, now_ms: i64) -> bool {
        match self.options.flush {
            FlushMode::Sync => true,
            FlushMode::Async { interval_ms } => {
                // A clock that went back must not make the wait longer than the interval.
                let latest_ms = now_ms.saturating_add(interval_ms as i64);
                let deadline_ms = self
                    .window
                    .deadline_ms
                    .map_or(latest_ms, |at_ms| at_ms.min(latest_ms));
                self.window.deadline_ms = Some(deadline_ms);
                now_ms >= deadline_ms
            }
        }
    }

    /// Closes the open group, if there is one; it will be issued before anything appended later.
    pub(super) fn close_group(&mut self) {
        if !self.open.is_open() {
            return;
        }
        let open = self.open;
        self.tail.pad(self.options.block_bytes as usize);
        let end = open
            .end
            .next_multiple_of(u64::from(self.options.block_bytes));
        let header_bytes = HEADER_BYTES as u64;
        let rest_len = (end - open.start - header_bytes) as usize;
        let Some(rest) = self.tail.bytes(open.start + header_bytes, rest_len) else {
            unreachable!("what was appended is in memory")
        };
        let closed = Closed {
            start: open.start,
            end,
            follows: open.follows,
            length: (open.end - open.start) as u32,
            records: open.records,
            newest_ms: self.newest_ms,
            // Now, for the device must not wait for it between two groups.
            rest: Rest::of(&rest),
        };
        let segment = self.segments.newest_mut();
        assert!(end <= segment.limit(), "a group never spans segments");
        segment.end = end;
        segment.newest_ms = self.newest_ms;
        let header = self.header(&closed);
        self.gather.take_group(&header, false);
        self.window.closed.push_back(closed);
        self.window.bytes += end - open.start;
        self.window.deadline_ms = None;
        self.open = OpenGroup::none_after(end);
        self.set_pace();
    }
}
