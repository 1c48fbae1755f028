//! Opening a log over its holes: which offsets were lost there, and that none of them is given to another message.
//!
//! A record behind a hole tells where its queue goes on. A queue of which there is none goes on where the checkpoint says,
//! if that is of a later position. Otherwise the lost groups are looked at for what they held: not as data, for they fail
//! their checksums, but as a hint. If they can be read to their last byte, and continue the queues that they name, nothing
//! else was lost. If not, the queue goes on behind as many offsets as the hole can have held.

use super::group::lost_records;
use super::hole::Hole;
use super::recovery::{LostOffsets, Recovery};
use super::stored::Stored;
use super::{Io, OpenError, Position, QueueRef};
use corelane_wire::record::RecordLayout;
use std::collections::HashSet;
use std::ops::Range;

/// The longest hole that is looked at.
const LOOK_BYTES: u64 = 64 << 20;

/// What crossing holes has brought so far.
#[derive(Default)]
pub(super) struct Crossing {
    /// Queues of which there is a record behind the last hole.
    met: HashSet<QueueRef>,
    /// What queues without one have lost at most.
    unknown: Option<Unknown>,
}

enum Unknown {
    /// These records and no others: topic, queue and offset.
    These(Vec<(String, i32, i64)>),
    /// So many of each queue.
    Most(i64),
}

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
            if let Some(Unknown::These(records)) = &mut self.crossing.unknown {
                let (queues, met) = (&self.log.queues, &self.crossing.met);
                records.retain(|(topic, queue_id, _)| {
                    let queue = queues.find(topic, *queue_id);
                    queue.is_none_or(|queue| !met.contains(&queue))
                });
            }
            self.crossing.met.clear();
            self.crossing.unknown = Some(match (self.crossing.unknown.take(), unknown) {
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
    async fn look_into(
        &mut self,
        hole: Hole,
    ) -> Result<Option<Vec<(String, i32, i64)>>, OpenError> {
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
        let is_first = self.crossing.unknown.is_some() && self.crossing.met.insert(queue);
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
            self.crossing.met.insert(again);
            return 0..0;
        }
        found.skip_to(offset);
        first..offset
    }

    /// Lets queues without a record behind the holes go on behind everything that they can have lost.
    pub(super) fn close_unknown_ends(&mut self) {
        let Some(unknown) = self.crossing.unknown.take() else {
            return;
        };
        let most = match unknown {
            Unknown::These(records) => match self.close_ends(records) {
                Ok(()) => return,
                Err(most) => most,
            },
            Unknown::Most(most) => most,
        };
        for queue in self.log.queues.refs() {
            if self.crossing.met.contains(&queue) {
                continue;
            }
            let found = self.log.queues.get_mut(queue);
            let next = found.next;
            found.skip_to(next + most);
            let (topic, queue_id) = (found.topic.clone(), found.queue_id);
            self.note_lost(&topic, queue_id, next..next + most, false);
        }
    }

    /// Ends queues behind the records that they lost; `Err` with their number if they do not continue the queues.
    fn close_ends(&mut self, records: Vec<(String, i32, i64)>) -> Result<(), i64> {
        let count = records.len() as i64;
        let mut ends: Vec<(QueueRef, Range<i64>)> = Vec::new();
        for (topic, queue_id, offset) in records {
            let queue = match self.log.queues.find(&topic, queue_id) {
                Some(queue) if self.crossing.met.contains(&queue) => continue,
                Some(queue) => queue,
                None if offset == 0 => {
                    let born = self.log.open.end;
                    self.log.queues.open(&topic, queue_id, born)
                }
                None => return Err(count),
            };
            let next = self.log.queues.get(queue).next;
            match ends.iter_mut().find(|(known, _)| *known == queue) {
                Some((_, lost)) if lost.end == offset => lost.end += 1,
                None if next == offset => ends.push((queue, offset..offset + 1)),
                _ => return Err(count),
            }
        }
        for (queue, lost) in ends {
            let found = self.log.queues.get_mut(queue);
            found.skip_to(lost.end);
            let (topic, queue_id) = (found.topic.clone(), found.queue_id);
            self.note_lost(&topic, queue_id, lost, true);
        }
        Ok(())
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
