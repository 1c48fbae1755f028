//! Opening a log over its holes: which offsets were lost there, and that none of them is given to another message.
//!
//! A record behind a hole tells where its queue goes on. A queue of which there is none goes on where the checkpoint says,
//! if that is of a later position. Otherwise the lost groups are looked at for what they held: not as data, for they fail
//! their checksums, but as a hint. If they can be read to their last byte, continue the queues that they name, and are what
//! queues with a record behind the hole are missing, nothing else was lost. If not, the queue goes on behind as many offsets
//! as the hole can have held. What names the queue may be damaged too: where another queue would have been continued by the
//! last record of one, it goes on behind that as well.

use super::group::lost_records;
use super::hole::Hole;
use super::recovery::{LostOffsets, Recovery};
use super::stored::Stored;
use super::{Io, OpenError, Position, QueueRef};
use corelane_wire::record::RecordLayout;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// The longest hole that is looked at.
const LOOK_BYTES: u64 = 64 << 20;

/// What crossing holes has brought so far.
#[derive(Default)]
pub(super) struct Crossing {
    /// Queues of which there is a record behind the last hole.
    met: HashMap<QueueRef, Met>,
    /// What queues without one have lost at most.
    unknown: Option<Unknown>,
}

struct Met {
    /// Where the queue was first heard of: a deleted topic's may have had the same number.
    born: Position,
    /// What was lost before the record, of what the checkpoint does not know.
    lost: Range<i64>,
}

enum Unknown {
    /// These records and no others: topic, queue and offset.
    These(Vec<LostRecord>),
    /// So many of each queue.
    Most(i64),
}

type LostRecord = (String, i32, i64);

impl Crossing {
    /// Whether a record at `position` may be the first of its queue behind a hole of which no checkpoint knows.
    pub fn is_behind(&self, holes: &[Hole], position: Position) -> bool {
        let mut new = holes.iter().filter(|hole| !hole.settled);
        new.any(|hole| hole.to <= position)
    }

    /// Whether there is a hole of which no checkpoint knows.
    pub fn is_crossed(&self, holes: &[Hole]) -> bool {
        holes.iter().any(|hole| !hole.settled)
    }
}

impl<I: Io> Recovery<'_, I> {
    /// Goes on behind a hole that the scan has come to.
    pub(super) async fn cross(&mut self, hole: Hole) -> Result<(), OpenError> {
        if hole.to > self.checkpoint.position && !hole.settled {
            let unknown = match self.look_into(hole).await? {
                Some(records) => Unknown::These(records),
                None => Unknown::Most(
                    ((hole.to - hole.from) / RecordLayout::MIN_BYTES as u64 + 1) as i64,
                ),
            };
            let before = match self.crossing.unknown.take() {
                Some(Unknown::These(records)) => Some(match self.without_met(records) {
                    Ok(records) => Unknown::These(records),
                    Err(most) => Unknown::Most(most),
                }),
                before => before,
            };
            self.crossing.met.clear();
            self.crossing.unknown = Some(match (before, unknown) {
                (None, unknown) => unknown,
                (Some(Unknown::These(mut before)), Unknown::These(records)) => {
                    before.extend(records);
                    Unknown::These(before)
                }
                (Some(Unknown::Most(before)), Unknown::Most(more)) => Unknown::Most(before + more),
                (Some(Unknown::Most(most)), Unknown::These(records))
                | (Some(Unknown::These(records)), Unknown::Most(most)) => {
                    Unknown::Most(most + records.len() as i64)
                }
            });
        }
        while hole.to >= self.log.segments.newest().limit() && !self.log.segments.ready.is_empty() {
            self.log.roll();
        }
        let segment = self.log.segments.newest_mut();
        if segment.start < hole.to {
            segment.end = hole.to;
        }
        Ok(())
    }

    /// The messages that a hole held, if all of it can be read.
    async fn look_into(&mut self, hole: Hole) -> Result<Option<Vec<LostRecord>>, OpenError> {
        let newest = self.log.segments.newest();
        let (segment, limit) = (newest.start, newest.limit());
        if hole.to > limit || hole.from < segment || hole.to - hole.from > LOOK_BYTES {
            return Ok(None);
        }
        let len = (hole.to - hole.from) as usize;
        let bytes = self.reader(segment).await?.bytes(hole.from, len).await?;
        if bytes.len() < len {
            return Ok(None);
        }
        let mut lost = Vec::new();
        let mut at = 0;
        while at < len {
            let position = hole.from + at as Position;
            let Some((padded, records)) = lost_records(&bytes[at..], self.log.log_id, position)
            else {
                return Ok(None);
            };
            for (offset, record) in records {
                match Stored::parse_at(record, position + offset as Position) {
                    Some(Stored::Message(message)) => lost.push((
                        message.topic().to_string(),
                        message.queue_id(),
                        message.queue_offset(),
                    )),
                    Some(Stored::State { .. }) => {}
                    None => return Ok(None),
                }
            }
            at += padded;
        }
        Ok((at == len).then_some(lost))
    }

    /// A record of a queue behind a hole, at or behind the checkpoint: returns the offsets that were lost before it.
    pub(super) fn meet(
        &mut self,
        topic: &str,
        queue_id: i32,
        offset: i64,
        position: Position,
    ) -> Range<i64> {
        let queue = self.log.queues.open(topic, queue_id, position);
        let is_first = self.crossing.unknown.is_some() && !self.has_met(queue);
        let found = self.log.queues.get_mut(queue);
        // The checkpoint may know of records of which nothing is left.
        let (first, next) = (found.memory_end(), found.next);
        found.skip_to(next);
        if !is_first {
            return first..next;
        }
        if offset < next {
            // That the topic was dropped and made again is among what was lost.
            self.log.drop_topic(topic);
            let again = self.log.queues.open(topic, queue_id, position);
            self.log.queues.get_mut(again).skip_to(offset);
            self.has_lost(again, 0..offset);
            return 0..0;
        }
        found.skip_to(offset);
        self.has_lost(queue, next..offset);
        first..offset
    }

    fn has_lost(&mut self, queue: QueueRef, lost: Range<i64>) {
        let born = self.log.queues.get(queue).born;
        self.crossing.met.insert(queue, Met { born, lost });
    }

    fn has_met(&self, queue: QueueRef) -> bool {
        self.lost_of_met(queue).is_some()
    }

    fn lost_of_met(&self, queue: QueueRef) -> Option<&Range<i64>> {
        let met = self.crossing.met.get(&queue)?;
        (met.born == self.log.queues.get(queue).born).then_some(&met.lost)
    }

    /// Those of lost records whose queues have none behind the holes; `Err` with the number of all if the others are not what
    /// their queues are missing.
    fn without_met(&self, records: Vec<LostRecord>) -> Result<Vec<LostRecord>, i64> {
        let most = records.len() as i64;
        let mut missing: HashMap<QueueRef, Range<i64>> = HashMap::new();
        for queue in self.crossing.met.keys() {
            if let Some(lost) = self.lost_of_met(*queue).filter(|lost| !lost.is_empty()) {
                missing.insert(*queue, lost.clone());
            }
        }
        let mut left = Vec::new();
        for (topic, queue_id, offset) in records {
            let queue = self.log.queues.find(&topic, queue_id);
            match queue.filter(|queue| self.has_met(*queue)) {
                None => left.push((topic, queue_id, offset)),
                Some(queue) => match missing.get_mut(&queue) {
                    Some(lost) if lost.start == offset => lost.start += 1,
                    _ => return Err(most),
                },
            }
        }
        let all_found = missing.values().all(Range::is_empty);
        all_found.then_some(left).ok_or(most)
    }

    /// Lets queues without a record behind the holes go on behind everything that they can have lost.
    pub(super) fn close_unknown_ends(&mut self) {
        let Some(unknown) = self.crossing.unknown.take() else {
            return;
        };
        let most = match unknown {
            Unknown::These(records) => {
                let most = records.len() as i64;
                let left = self.without_met(records);
                match left.and_then(|left| self.close_ends(left).ok_or(most)) {
                    Ok(()) => return,
                    Err(most) => most,
                }
            }
            Unknown::Most(most) => most,
        };
        for queue in self.log.queues.refs() {
            if !self.has_met(queue) {
                let next = self.log.queues.get(queue).next;
                self.end_behind(queue, next..next + most, false);
            }
        }
    }

    /// Ends queues behind the records that they lost; none of them if these do not continue the queues.
    fn close_ends(&mut self, records: Vec<LostRecord>) -> Option<()> {
        let mut ends: HashMap<QueueRef, Range<i64>> = HashMap::new();
        for (topic, queue_id, offset) in records {
            let queue = match self.log.queues.find(&topic, queue_id) {
                Some(queue) => queue,
                None if offset == 0 => {
                    let born = self.log.open.end;
                    self.log.queues.open(&topic, queue_id, born)
                }
                None => return None,
            };
            let next = self.log.queues.get(queue).next;
            let lost = ends.entry(queue).or_insert(next..next);
            if lost.end != offset {
                return None;
            }
            lost.end += 1;
        }
        let last: HashSet<i64> = ends.values().map(|lost| lost.end - 1).collect();
        for queue in self.log.queues.refs() {
            if self.has_met(queue) {
                continue;
            }
            let next = self.log.queues.get(queue).next;
            let lost = ends.remove(&queue).unwrap_or(next..next);
            let mut end = lost.end;
            while last.contains(&end) {
                end += 1;
            }
            self.end_behind(queue, lost.clone(), true);
            self.end_behind(queue, lost.end..end, false);
        }
        Some(())
    }

    fn end_behind(&mut self, queue: QueueRef, lost: Range<i64>, certain: bool) {
        if lost.is_empty() {
            return;
        }
        let found = self.log.queues.get_mut(queue);
        found.skip_to(lost.end);
        let (topic, queue_id) = (found.topic.clone(), found.queue_id);
        self.note_lost(&topic, queue_id, lost, certain);
    }

    /// A state record that lets a queue go on at an offset.
    pub(super) fn queue_at(
        &mut self,
        position: Position,
        (topic, queue_id, offset): (&str, i32, i64),
    ) -> Result<(), OpenError> {
        if self.crossing.is_behind(&self.log.holes, position) {
            let lost = self.meet(topic, queue_id, offset, position);
            if !lost.is_empty() {
                self.note_lost(topic, queue_id, lost, false);
            }
        }
        let queue = self.log.queues.open(topic, queue_id, position);
        let queue = self.log.queues.get_mut(queue);
        if offset < queue.next {
            return Err(self.damaged(position, "the offsets of a queue go back"));
        }
        queue.skip_to(offset);
        Ok(())
    }

    pub(super) fn note_lost(
        &mut self,
        topic: &str,
        queue_id: i32,
        offsets: Range<i64>,
        certain: bool,
    ) {
        self.report.lost.push(LostOffsets {
            topic: topic.to_string(),
            queue_id,
            offsets,
            certain,
        });
    }
}
