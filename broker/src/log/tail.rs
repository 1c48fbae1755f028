//! The newest bytes of the log, in memory: the buffers that groups are written from are those that consumers are sent from.
//!
//! Buffers are in position order and lie close together, except where the log moved on to the next segment. What is not
//! durable is never evicted; what is goes, oldest first, when the buffers exceed the tail cache. Memory: the larger of
//! `tail_cache_bytes` and `max_unflushed_bytes`, plus two buffers, plus what holders of views keep alive.

use super::Position;
use super::buffer::{Slice, TailBuffer};
use super::group::{HEADER_BYTES, Records};
use super::memory::{BUFFER_ALIGN, Pages};
use std::collections::VecDeque;

/// Evicted buffers kept until nobody looks at them any more, to spare the pages.
const LENT_BUFFERS: usize = 4;

struct Placed {
    start: Position,
    buffer: TailBuffer,
    /// Offsets in the buffer at which groups begin.
    groups: Vec<u32>,
}

impl Placed {
    fn end(&self) -> Position {
        self.start + self.buffer.written() as u64
    }
}

pub(super) struct TailBuffers {
    pages: Pages,
    buffers: VecDeque<Placed>,
    lent: VecDeque<TailBuffer>,
    buffer_bytes: usize,
    cache_bytes: usize,
    bytes: usize,
}

impl TailBuffers {
    pub fn new(buffer_bytes: usize, cache_bytes: usize) -> Self {
        Self {
            pages: Pages::default(),
            buffers: VecDeque::new(),
            lent: VecDeque::new(),
            buffer_bytes,
            cache_bytes,
            bytes: 0,
        }
    }

    /// Room left for a group at `position`, in the buffer that is filled; 0 when `position` does not go on from there.
    pub fn room_at(&self, position: Position) -> usize {
        match self.buffers.back() {
            Some(last) if last.end() == position => last.buffer.capacity() - last.buffer.written(),
            _ => 0,
        }
    }

    /// Begins another buffer at `position` with room for at least `len` bytes.
    pub fn start_buffer(&mut self, position: Position, len: usize) {
        let capacity = len.next_multiple_of(BUFFER_ALIGN).max(self.buffer_bytes);
        let spare = self
            .lent
            .iter()
            .position(|buffer| buffer.capacity() == capacity && buffer.is_free());
        let spare = spare
            .and_then(|at| self.lent.remove(at))
            .and_then(TailBuffer::reuse);
        let buffer = spare.unwrap_or_else(|| TailBuffer::new(self.pages.zeroed(capacity)));
        self.bytes += buffer.capacity();
        self.buffers.push_back(Placed {
            start: position,
            buffer,
            groups: Vec::new(),
        });
    }

    pub fn begin_group(&mut self) {
        let last = self.last();
        last.groups.push(last.buffer.written() as u32);
        last.buffer.begin(HEADER_BYTES);
    }

    #[inline]
    pub fn extend(&mut self, len: usize) -> &mut [u8] {
        self.last().buffer.extend(len)
    }

    pub fn pad(&mut self, multiple: usize) {
        self.last().buffer.pad(multiple);
    }

    /// Seals the group at `start..end`.
    pub fn seal(&mut self, start: Position, end: Position, fill: impl FnOnce(&mut [u8])) -> Slice {
        let Some(at) = self.find(start) else {
            panic!("a group that is not durable is in memory")
        };
        let placed = &mut self.buffers[at];
        placed
            .buffer
            .seal(HEADER_BYTES, (end - placed.start) as usize, fill)
    }

    /// The bytes at `position`, if they are in memory.
    pub fn bytes(&self, position: Position, len: usize) -> Option<Slice> {
        let placed = &self.buffers[self.find(position)?];
        let start = (position - placed.start) as usize;
        (start + len <= placed.buffer.written()).then(|| placed.buffer.slice(start..start + len))
    }

    /// Whether `bytes` would give some.
    pub fn holds(&self, position: Position, len: usize) -> bool {
        let placed = self.find(position).map(|at| &self.buffers[at]);
        placed.is_some_and(|placed| {
            (position - placed.start) as usize + len <= placed.buffer.written()
        })
    }

    /// The record that begins exactly at `position`: `None` when that is not in memory, `Some(None)` when none begins there.
    pub fn record_at(&self, position: Position) -> Option<Option<Slice>> {
        let placed = &self.buffers[self.find(position)?];
        let wanted = (position - placed.start) as usize;
        let Some(group) = placed
            .groups
            .partition_point(|&start| start as usize <= wanted)
            .checked_sub(1)
        else {
            return Some(None);
        };
        let start = placed.groups[group] as usize;
        let end = placed
            .groups
            .get(group + 1)
            .map_or(placed.buffer.written(), |&next| next as usize);
        let body = placed.buffer.slice(start + HEADER_BYTES..end);
        let found = Records::of_body(&body).find(|&(at, _)| start + HEADER_BYTES + at == wanted);
        Some(found.map(|(_, record)| placed.buffer.slice(wanted..wanted + record.len())))
    }

    /// The first sealed group at or after `position` in the buffer that holds it, if it ends at or before `limit`.
    pub fn group_from(&self, position: Position, limit: Position) -> Option<(Slice, Position)> {
        let placed = &self.buffers[self.find(position)?];
        let wanted = (position - placed.start) as u32;
        let group = placed.groups.partition_point(|&start| start < wanted);
        let start = *placed.groups.get(group)? as usize;
        let end = placed
            .groups
            .get(group + 1)
            .map_or(placed.buffer.written(), |&next| next as usize);
        let position = placed.start + start as u64;
        (placed.start + end as u64 <= limit).then(|| (placed.buffer.slice(start..end), position))
    }

    /// Gives up the oldest buffers while there are more than the cache may hold, as far as they are durable.
    pub fn evict(&mut self, durable: Position) {
        while self.bytes > self.cache_bytes
            && self.buffers.len() > 1
            && self
                .buffers
                .front()
                .is_some_and(|first| first.end() <= durable)
        {
            let Some(first) = self.buffers.pop_front() else {
                return;
            };
            self.bytes -= first.buffer.capacity();
            if first.buffer.capacity() == self.buffer_bytes {
                self.lent.push_back(first.buffer);
            }
            if self.lent.len() > LENT_BUFFERS {
                self.lent.pop_front();
            }
        }
    }

    /// First position in memory.
    pub fn start(&self) -> Option<Position> {
        self.buffers.front().map(|first| first.start)
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    fn last(&mut self) -> &mut Placed {
        match self.buffers.back_mut() {
            Some(last) => last,
            None => unreachable!("a group is begun in a buffer"),
        }
    }

    fn find(&self, position: Position) -> Option<usize> {
        let at = self
            .buffers
            .partition_point(|placed| placed.start <= position)
            .checked_sub(1)?;
        (position < self.buffers[at].end()).then_some(at)
    }
}
