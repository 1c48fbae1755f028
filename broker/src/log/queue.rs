//! Consume queues: per (topic, queue id) the list of its records, in offset order and without a gap.
//!
//! Entries of groups that are in no index are in memory, 24 bytes each; older ones are in the index files, of which a
//! queue holds one 24-byte [`Part`] for each that has entries of it. An idle queue is about 150 bytes with its place in
//! the table, plus its topic's name once per topic: 210 in all where 100,000 queues lie 8 to a topic, as was measured.
//!
//! Invariants: parts, then `entries`, cover [min, visible) but for its gaps, without overlap; min <= visible <= next. A gap
//! is a range of offsets that have no record: where a queue was made to begin anew (`KIND_QUEUE_AT`), or where damage took
//! records away. Between parts, and between the last of them and `base`, a gap needs no note; `base` lies in none.

use super::births::Births;
use super::buffer::prefetch;
use super::index::Row;
use super::segment::IndexId;
use super::stored::waits;
use super::{Entry, Position, QueueRef};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

/// Entries of one queue in one index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The file.
    pub index: IndexId,
    /// Offset of the first entry.
    pub first: i64,
    /// Number of the first entry in the index file.
    pub slot: u32,
    /// How many.
    pub count: u32,
}

impl Part {
    fn of(index: IndexId, row: &Row) -> Self {
        Self {
            index,
            first: row.first,
            slot: row.slot,
            count: row.count,
        }
    }

    /// One past the offset of the last entry.
    pub fn end(&self) -> i64 {
        self.first + i64::from(self.count)
    }
}

/// What an append and its becoming visible touch lies together in the first cache line.
#[repr(C, align(64))]
pub(super) struct Queue {
    /// One past the last appended record.
    pub next: i64,
    /// One past the last visible record.
    pub visible: i64,
    /// Offset of the first entry in memory.
    pub base: i64,
    /// Entries of visible records.
    pub entries: VecDeque<Entry>,
    alive: bool,
    /// Listed in `Queues::changed`.
    changed: bool,
    /// Its entries hold checksums.
    pub waits: bool,
    pub queue_id: i32,
    /// Records before it belong to an earlier topic of this name.
    pub born: Position,
    pub topic: Rc<str>,
    pub parts: Vec<Part>,
    gaps: Option<Box<Gaps>>,
}

/// First offset and one past the last one, ascending. Behind `base`; while opening, any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Gaps(Vec<(i64, i64)>);

impl Queue {
    /// Gaps behind `base`: while opening, others are known before any entry is.
    fn gaps(&self) -> &[(i64, i64)] {
        let gaps = self.gaps.as_deref().map_or(&[][..], |gaps| &gaps.0);
        match gaps {
            [(_, to), ..] if *to <= self.base => {
                &gaps[gaps.partition_point(|(_, to)| *to <= self.base)..]
            }
            gaps => gaps,
        }
    }

    /// The number of the entry in memory that an offset from `base` on has, or would have as the next one; `Err` with the
    /// end of the gap that it lies in.
    pub fn place(&self, offset: i64) -> Result<usize, i64> {
        let mut missing = 0;
        for &(from, to) in self.gaps() {
            if offset < from {
                break;
            }
            if offset < to {
                return Err(to);
            }
            missing += to - from;
        }
        Ok((offset - self.base - missing) as usize)
    }

    fn offset_at(&self, number: usize) -> i64 {
        let mut offset = self.base + number as i64;
        for &(from, to) in self.gaps() {
            if from > offset {
                break;
            }
            offset += to - from;
        }
        offset
    }

    /// The offset that follows the last entry in memory, and a gap behind it.
    pub fn memory_end(&self) -> i64 {
        self.offset_at(self.entries.len())
    }

    /// Offsets before `from` that have entries in memory without a gap between them and the one at `from`.
    pub fn run_end(&self, from: i64) -> i64 {
        let gap = self.gaps().iter().find(|(gap, _)| *gap > from);
        gap.map_or(self.visible, |(gap, _)| (*gap).min(self.visible))
    }

    /// What is appended next gets this offset: those before it that are not used yet have no record.
    pub fn skip_to(&mut self, offset: i64) {
        let end = self.memory_end();
        assert!(end <= offset, "offsets do not go back");
        if self.entries.is_empty() {
            self.set_base(offset);
        } else if end < offset {
            let gaps = &mut self.gaps.get_or_insert_default().0;
            // Gaps that were known already may be part of it.
            gaps.retain(|(from, _)| *from < end || *from >= offset);
            let at = gaps.partition_point(|(from, _)| *from < end);
            match at.checked_sub(1).map(|before| &mut gaps[before]) {
                Some((_, to)) if *to == end => *to = offset,
                _ => gaps.insert(at, (end, offset)),
            }
        }
        (self.next, self.visible) = (self.next.max(offset), self.visible.max(offset));
    }

    /// `offset` is the first in memory, or the end of the gap that it begins.
    fn set_base(&mut self, offset: i64) {
        self.base = offset;
        if let Some(gaps) = &mut self.gaps {
            let before = gaps
                .0
                .iter()
                .take_while(|(from, to)| {
                    let before = *from <= self.base;
                    if before {
                        self.base = self.base.max(*to);
                    }
                    before
                })
                .count();
            gaps.0.drain(..before);
            if gaps.0.is_empty() {
                self.gaps = None;
            }
        }
    }

    /// While opening: the first record that is found again has this offset.
    pub fn begins_at(&mut self, offset: i64) {
        self.set_base(offset);
    }

    /// Everything was found again: what lies before `base` is of no use any more.
    pub fn is_opened(&mut self) {
        self.set_base(self.base);
    }

    /// All gaps between min and next.
    fn all_gaps(&self) -> Vec<(i64, i64)> {
        let starts = self.parts.iter().skip(1).map(|part| part.first);
        let ends = self
            .parts
            .iter()
            .map(|part| part.first + i64::from(part.count));
        let between = ends.zip(starts.chain([self.base]));
        let mut all: Vec<_> = between.filter(|(end, start)| end < start).collect();
        all.extend(self.gaps());
        all
    }

    pub fn min(&self) -> i64 {
        self.parts.first().map_or(self.base, |part| part.first)
    }

    /// Whether a record at `position` is of this queue's topic and not of an earlier one.
    pub fn owns(&self, position: Position) -> bool {
        self.alive && position >= self.born
    }

    /// Forgets entries in memory before `position`.
    pub fn drop_entries_before(&mut self, position: Position) {
        let gone = self
            .entries
            .partition_point(|entry| entry.position < position);
        let base = self.offset_at(gone);
        self.entries.drain(..gone);
        self.set_base(base);
        self.shrink();
    }

    /// Takes over a row of an index, which holds the oldest of the entries in memory or, while opening, entries
    /// that are not in memory yet. False when the row is of an earlier life of the topic or does not go on from the parts.
    /// With `may_skip` there may be a gap before it that nobody knows of yet.
    pub fn take_row(&mut self, index: IndexId, row: &Row, may_skip: bool) -> bool {
        if !self.owns(row.position) {
            return false;
        }
        let is_first = self.parts.is_empty() && self.entries.is_empty();
        if !is_first && self.base != row.first && !(may_skip && self.base < row.first) {
            return false;
        }
        self.parts.push(Part::of(index, row));
        let end = row.first + i64::from(row.count);
        let gone = (row.count as usize).min(self.entries.len());
        self.entries.drain(..gone);
        self.set_base(end);
        self.shrink();
        true
    }

    /// Takes over a row of the index that takes the place of several. False when the row is of an earlier life of the
    /// topic, or not what its parts are.
    pub fn take_merged(&mut self, index: IndexId, row: &Row) -> bool {
        if !self.owns(row.position) {
            return false;
        }
        let part = Part::of(index, row);
        let from = self.parts.partition_point(|old| old.first < part.first);
        let to = self.parts.partition_point(|old| old.first < part.end());
        let same = self
            .parts
            .get(from)
            .is_some_and(|old| old.first == part.first)
            && self.parts[..to]
                .last()
                .is_some_and(|old| old.end() == part.end());
        if same {
            self.parts.splice(from..to, [part]);
            if self.parts.capacity() > self.parts.len() + 2 {
                self.parts.shrink_to_fit();
            }
        }
        same
    }

    /// The part that holds an offset below `base`.
    pub fn part_at(&self, offset: i64) -> Option<Part> {
        let after = self.parts.partition_point(|part| part.first <= offset);
        let part = *self.parts.get(after.checked_sub(1)?)?;
        (offset < part.end()).then_some(part)
    }

    /// Takes the entry of the next record.
    #[inline]
    pub fn push(&mut self, entry: Entry) {
        if self.entries.len() == self.entries.capacity() {
            self.grow();
        }
        self.entries.push_back(entry);
    }

    /// Small steps while there is little in it, for the same reason as in `shrink`.
    #[cold]
    fn grow(&mut self) {
        match self.entries.len() {
            0 => self.entries.reserve_exact(4),
            1..64 => self.entries.reserve_exact(8),
            _ => {}
        }
    }

    /// There may be very many queues with little in them: they keep no room that they do not need.
    fn shrink(&mut self) {
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        } else if self.entries.capacity() > 16 && self.entries.capacity() / 4 > self.entries.len() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }
}

/// What the checkpoint keeps of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedQueue {
    pub topic: Rc<str>,
    pub queue_id: i32,
    pub born: Position,
    pub next: i64,
    /// Offsets that have no record, as first and one past the last.
    pub gaps: Vec<(i64, i64)>,
}

/// Room for records that are not visible yet, which is kept; only opening a log needs more.
const MOST_WAITING: usize = 1 << 20;
/// How many records before its turn what a queue's entry is written to is fetched, and the queue as many before that.
const LOOK_AHEAD: usize = 8;

#[derive(Default)]
pub(super) struct Queues {
    topics: BTreeMap<Rc<str>, Vec<(i32, QueueRef)>>,
    list: Vec<Queue>,
    free: Vec<QueueRef>,
    changed: Vec<QueueRef>,
    /// Entries of appended records that are not visible yet, in log order, with the records' ends.
    waiting: VecDeque<(Position, QueueRef, Entry)>,
}

impl Queues {
    #[inline]
    pub fn get(&self, queue: QueueRef) -> &Queue {
        &self.list[queue.0 as usize]
    }

    #[inline]
    pub fn get_mut(&mut self, queue: QueueRef) -> &mut Queue {
        &mut self.list[queue.0 as usize]
    }

    pub fn find(&self, topic: &str, queue_id: i32) -> Option<QueueRef> {
        let queues = self.topics.get(topic)?;
        queues
            .binary_search_by_key(&queue_id, |&(id, _)| id)
            .ok()
            .map(|at| queues[at].1)
    }

    /// Of the queues, those born within a range.
    pub fn births(&self, range: Range<Position>) -> Births {
        let all = self.topics.iter().flat_map(|(topic, queues)| {
            let born = |&(queue_id, queue): &(i32, QueueRef)| (queue_id, self.get(queue).born);
            let queues = queues.iter().map(born);
            queues.map(move |(queue_id, born)| (topic, queue_id, born))
        });
        all.filter(|(_, _, born)| range.contains(born))
            .map(|(topic, queue_id, born)| (topic.clone(), queue_id, born))
            .collect()
    }

    /// The queues of an index's rows. Both are in the order of topics and queue ids, so one look-up finds many.
    pub fn find_all(&self, rows: &[Row]) -> Vec<Option<QueueRef>> {
        let (mut topic, mut queues): (&str, &[(i32, QueueRef)]) = ("", &[]);
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            if *row.topic != *topic {
                topic = &row.topic;
                queues = self.topics.get(topic).map_or(&[], Vec::as_slice);
            }
            let is_before = |&(id, _): &(i32, QueueRef)| id < row.queue_id;
            let near = queues.iter().take(4).position(|queue| !is_before(queue));
            let at = near.unwrap_or_else(|| queues.partition_point(is_before));
            queues = &queues[at..];
            let next = queues.first().filter(|(id, _)| *id == row.queue_id);
            found.push(next.map(|&(_, queue)| queue));
        }
        found
    }

    /// The queue; a new one owns what is appended from `born` on.
    pub fn open(&mut self, topic: &str, queue_id: i32, born: Position) -> QueueRef {
        let (topic, at) = match self.topics.get_key_value(topic) {
            Some((name, queues)) => match queues.binary_search_by_key(&queue_id, |&(id, _)| id) {
                Ok(at) => return queues[at].1,
                Err(at) => (name.clone(), at),
            },
            None => (Rc::from(topic), 0),
        };
        let queue = Queue {
            topic: topic.clone(),
            queue_id,
            alive: true,
            waits: waits(&topic),
            changed: false,
            born,
            visible: 0,
            next: 0,
            base: 0,
            entries: VecDeque::new(),
            parts: Vec::new(),
            gaps: None,
        };
        let queue_ref = match self.free.pop() {
            Some(free) => {
                self.list[free.0 as usize] = queue;
                free
            }
            None => {
                self.list.push(queue);
                QueueRef(self.list.len() as u32 - 1)
            }
        };
        self.topics
            .entry(topic)
            .or_default()
            .insert(at, (queue_id, queue_ref));
        queue_ref
    }

    /// A queue as the checkpoint has it, of which no entry is known yet.
    pub fn load(&mut self, saved: SavedQueue) {
        let queue = self.open(&saved.topic, saved.queue_id, saved.born);
        let queue = self.get_mut(queue);
        (queue.next, queue.base, queue.visible) = (saved.next, saved.next, saved.next);
        queue.gaps = (!saved.gaps.is_empty()).then(|| Box::new(Gaps(saved.gaps)));
    }

    /// Returns the queues that were the topic's.
    pub fn drop_topic(&mut self, topic: &str) -> Vec<QueueRef> {
        let queues = self.topics.remove(topic).unwrap_or_default();
        let queues: Vec<_> = queues.into_iter().map(|(_, queue)| queue).collect();
        for &queue in &queues {
            let dropped = self.get_mut(queue);
            dropped.alive = false;
            dropped.entries = VecDeque::new();
            dropped.parts = Vec::new();
            dropped.gaps = None;
            (dropped.base, dropped.visible, dropped.next) = (0, 0, 0);
            self.free.push(queue);
        }
        let list = &self.list;
        self.waiting
            .retain(|&(_, queue, _)| list[queue.0 as usize].alive);
        self.changed.retain(|&queue| list[queue.0 as usize].alive);
        queues
    }

    /// Takes the entry of an appended record. It goes to its queue when the record is visible, together with others: the
    /// cache misses of many queues then overlap.
    #[inline]
    pub fn push(&mut self, queue: QueueRef, end: Position, entry: Entry, visible: bool) {
        let target = &mut self.list[queue.0 as usize];
        debug_assert!(target.alive, "append to a dropped queue");
        target.next += 1;
        if visible {
            Self::show(target, queue, entry, &mut self.changed);
        } else {
            self.waiting.push_back((end, queue, entry));
        }
    }

    /// Makes visible what ends at or before `durable`.
    pub fn show_until(&mut self, durable: Position) {
        let count = self.waiting.partition_point(|&(end, ..)| end <= durable);
        for number in 0..count {
            if let Some(&(_, queue, _)) = self.waiting.get(number + 2 * LOOK_AHEAD) {
                prefetch(&raw const self.list[queue.0 as usize]);
            }
            if let Some(&(_, queue, _)) = self.waiting.get(number + LOOK_AHEAD)
                && let Some(last) = self.list[queue.0 as usize].entries.back()
            {
                prefetch((&raw const *last).wrapping_add(1));
            }
            let (_, queue, entry) = self.waiting[number];
            let target = &mut self.list[queue.0 as usize];
            Self::show(target, queue, entry, &mut self.changed);
        }
        self.waiting.drain(..count);
        if self.waiting.is_empty() && self.waiting.capacity() > MOST_WAITING {
            self.waiting = VecDeque::new();
        }
    }

    #[inline]
    fn show(target: &mut Queue, queue: QueueRef, entry: Entry, changed: &mut Vec<QueueRef>) {
        target.push(entry);
        target.visible += 1;
        if !target.changed {
            target.changed = true;
            changed.push(queue);
        }
    }

    pub fn take_changed(&mut self, mut f: impl FnMut(QueueRef, i64)) {
        for queue in self.changed.drain(..) {
            let target = &mut self.list[queue.0 as usize];
            target.changed = false;
            f(queue, target.visible);
        }
    }

    /// Forgets parts of indexes before `position`, and entries in memory before it.
    pub fn retire_before(&mut self, position: Position) {
        for queue in &mut self.list {
            let gone = queue
                .parts
                .partition_point(|part| part.index.start() < position);
            queue.parts.drain(..gone);
            if queue.parts.is_empty() {
                queue.drop_entries_before(position);
            }
        }
    }

    /// All queues, in no order.
    pub fn refs(&self) -> Vec<QueueRef> {
        let queues = self.topics.values().flatten();
        queues.map(|&(_, queue)| queue).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Rc<str>, i32, &Queue)> {
        let list = &self.list;
        let all = self
            .topics
            .iter()
            .flat_map(|(topic, queues)| queues.iter().map(move |queue| (topic, queue)));
        all.map(move |(topic, &(queue_id, queue))| (topic, queue_id, &list[queue.0 as usize]))
    }

    pub fn save(&self) -> Vec<SavedQueue> {
        self.iter()
            .map(|(topic, queue_id, queue)| SavedQueue {
                topic: topic.clone(),
                queue_id,
                born: queue.born,
                next: queue.next,
                gaps: queue.all_gaps(),
            })
            .collect()
    }

    pub fn len(&self) -> usize {
        self.list.len() - self.free.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn entry(position: Position, store_ms: i64) -> Entry {
        Entry {
            position,
            store_ms,
            size: 100,
            tags_code: 0,
        }
    }

    #[test]
    fn records_become_visible_in_log_order() {
        let mut queues = Queues::default();
        let a = queues.open("a", 0, 0);
        let b = queues.open("b", 1, 0);
        queues.push(a, 100, entry(0, 1), false);
        queues.push(b, 200, entry(100, 1), false);
        queues.push(a, 300, entry(200, 1), false);
        let mut seen = Vec::new();
        queues.show_until(200);
        queues.take_changed(|queue, max| seen.push((queue, max)));
        assert_eq!(seen, [(a, 1), (b, 1)]);
        queues.show_until(299);
        queues.take_changed(|_, _| panic!("nothing changed"));
        queues.show_until(300);
        assert_eq!(queues.get(a).visible, 2);
        assert_eq!(queues.get(a).next, 2);
    }

    #[test]
    fn a_dropped_topic_starts_again() {
        let mut queues = Queues::default();
        let a = queues.open("a", 0, 0);
        let b = queues.open("b", 0, 0);
        queues.push(a, 100, entry(0, 1), false);
        queues.push(b, 200, entry(100, 1), false);
        queues.drop_topic("a");
        assert_eq!(queues.find("a", 0), None);
        let again = queues.open("a", 0, 200);
        assert!(!queues.get(again).owns(100) && queues.get(again).owns(200));
        queues.show_until(200);
        assert_eq!((queues.get(again).visible, queues.get(b).visible), (0, 1));
        assert_eq!(queues.len(), 2);
    }

    #[test]
    fn a_queue_whose_entries_are_sealed_keeps_no_room_for_them() {
        let mut queues = Queues::default();
        let queue = queues.open("t", 0, 0);
        for number in 0..50 {
            queues.push(queue, number * 100 + 100, entry(number * 100, 1), true);
        }
        let row = |first, count, position| Row {
            topic: "t".into(),
            queue_id: 0,
            slot: 0,
            count,
            first,
            position,
        };
        let target = queues.get_mut(queue);
        assert!(target.take_row(IndexId::whole(0), &row(0, 45, 0), false));
        assert!(
            target.entries.capacity() <= 16,
            "{}",
            target.entries.capacity()
        );
        assert!(target.take_row(IndexId::whole(4_500), &row(45, 5, 4_500), false));
        assert_eq!(
            (target.entries.capacity(), target.min(), target.base),
            (0, 0, 50)
        );
    }

    #[test]
    fn queue_ids_in_any_order() {
        let mut queues = Queues::default();
        let refs: Vec<_> = [5, 1, 3, 9, 0]
            .iter()
            .map(|&id| (id, queues.open("t", id, 0)))
            .collect();
        for (id, queue) in refs {
            assert_eq!(queues.find("t", id), Some(queue));
            assert_eq!(queues.open("t", id, 7), queue);
            assert_eq!(queues.get(queue).queue_id, id);
        }
        assert_eq!(queues.find("t", 2), None);
    }

    #[test]
    fn the_queues_of_rows_are_found_in_their_order() {
        let mut queues = Queues::default();
        let row = |topic: &str, queue_id, position| Row {
            topic: topic.into(),
            queue_id,
            slot: 0,
            count: 1,
            first: 0,
            position,
        };
        let mut rows = Vec::new();
        for topic in ["a", "b", "c"] {
            for id in (0..40).step_by(if topic == "b" { 1 } else { 7 }) {
                // Of some topics there is no queue any more; some have two rows, of two lives.
                if topic != "c" {
                    queues.open(topic, id, 0);
                }
                rows.push(row(topic, id, 0));
                if id % 3 == 0 {
                    rows.push(row(topic, id, 100));
                }
                if id % 7 == 0 {
                    rows.push(row(topic, 100 + id, 0));
                }
            }
        }
        rows.sort_by(|a, b| (&a.topic, a.queue_id).cmp(&(&b.topic, b.queue_id)));
        let found = queues.find_all(&rows);
        for (row, found) in rows.iter().zip(found) {
            assert_eq!(found, queues.find(&row.topic, row.queue_id), "{row:?}");
        }
    }

    #[test]
    fn an_idle_queue_is_small() {
        let table_entry = size_of::<(i32, QueueRef)>() * 2;
        assert!(
            size_of::<Queue>() + table_entry <= 160,
            "{}",
            size_of::<Queue>()
        );
    }
}
