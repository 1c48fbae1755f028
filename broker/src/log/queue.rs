//! Consume queues: per (topic, queue id) the list of its records, in offset order and without a gap.
//!
//! Entries of segments without a sealed index are in memory, 24 bytes each; older ones are in the index files, of which a
//! queue holds one 24-byte [`Part`] for each that has entries of it. An idle queue is about 150 bytes with its place in
//! the table, plus its topic's name once per topic.
//!
//! Invariants: parts, then `entries`, cover [min, visible) without gap or overlap; min <= visible <= next.

use super::index::Row;
use super::{Entry, Position, QueueRef};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Entries of one queue in one index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The segment beside which the index is.
    pub segment: Position,
    /// Offset of the first entry.
    pub first: i64,
    /// Number of the first entry in the index file.
    pub slot: u32,
    /// How many.
    pub count: u32,
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
    pub queue_id: i32,
    /// Records before it belong to an earlier topic of this name.
    pub born: Position,
    pub topic: Rc<str>,
    pub parts: Vec<Part>,
}

impl Queue {
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
        self.entries.drain(..gone);
        self.base += gone as i64;
        self.shrink();
    }

    /// Takes over a row of a segment's index, which holds the oldest of the entries in memory or, while opening, entries
    /// that are not in memory yet. False when the row is of an earlier life of the topic or does not go on from the parts.
    pub fn take_row(&mut self, segment: Position, row: &Row) -> bool {
        if !self.owns(row.position) {
            return false;
        }
        let expected = match self.parts.last() {
            Some(last) => last.first + i64::from(last.count) == row.first,
            None => self.entries.is_empty() || self.base == row.first,
        };
        if !expected {
            return false;
        }
        self.parts.push(Part {
            segment,
            first: row.first,
            slot: row.slot,
            count: row.count,
        });
        let end = row.first + i64::from(row.count);
        let gone = (row.count as usize).min(self.entries.len());
        self.entries.drain(..gone);
        self.base = end;
        self.shrink();
        true
    }

    /// The part that holds an offset below `base`.
    pub fn part_at(&self, offset: i64) -> Option<Part> {
        let after = self.parts.partition_point(|part| part.first <= offset);
        let part = *self.parts.get(after.checked_sub(1)?)?;
        (offset < part.first + i64::from(part.count)).then_some(part)
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
}

/// Room for records that are not visible yet, which is kept; only opening a log needs more.
const MOST_WAITING: usize = 1 << 20;

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
            changed: false,
            born,
            visible: 0,
            next: 0,
            base: 0,
            entries: VecDeque::new(),
            parts: Vec::new(),
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

    pub fn drop_topic(&mut self, topic: &str) {
        let Some(queues) = self.topics.remove(topic) else {
            return;
        };
        for &(_, queue) in &queues {
            let dropped = self.get_mut(queue);
            dropped.alive = false;
            dropped.entries = VecDeque::new();
            dropped.parts = Vec::new();
            (dropped.base, dropped.visible, dropped.next) = (0, 0, 0);
            self.free.push(queue);
        }
        let list = &self.list;
        self.waiting
            .retain(|&(_, queue, _)| list[queue.0 as usize].alive);
        self.changed.retain(|&queue| list[queue.0 as usize].alive);
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
        while let Some(&(end, queue, entry)) = self.waiting.front()
            && end <= durable
        {
            self.waiting.pop_front();
            Self::show(
                &mut self.list[queue.0 as usize],
                queue,
                entry,
                &mut self.changed,
            );
        }
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

    /// Forgets parts of segments before `position`, and entries in memory before it.
    pub fn retire_before(&mut self, position: Position) {
        for queue in &mut self.list {
            let gone = queue.parts.partition_point(|part| part.segment < position);
            queue.parts.drain(..gone);
            if queue.parts.is_empty() {
                queue.drop_entries_before(position);
            }
        }
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
        assert!(target.take_row(0, &row(0, 45, 0)));
        assert!(
            target.entries.capacity() <= 16,
            "{}",
            target.entries.capacity()
        );
        assert!(target.take_row(4_500, &row(45, 5, 4_500)));
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
    fn an_idle_queue_is_small() {
        let table_entry = size_of::<(i32, QueueRef)>() * 2;
        assert!(
            size_of::<Queue>() + table_entry <= 160,
            "{}",
            size_of::<Queue>()
        );
    }
}
