//! ACK_MESSAGE 200051, BATCH_ACK_MESSAGE 200151, CHANGE_MESSAGE_INVISIBLETIME 200053.
//!
//! An acknowledgement is answered at once and journalled soon after: what a crash loses of them is delivered again. A handle
//! whose checkpoint is gone, because its time was over or it was acknowledged before, is answered as a good one: the message
//! has come again already, under another handle, or need not.

use corelane_wire::ExtHeader;
use corelane_wire::body::BatchAckMessageRequestBody;
use corelane_wire::code::response;
use corelane_wire::header::pop::{AckMessageRequest, ChangeMessageInvisibletimeRequest};

use super::checkpoint::{Acked, Checkpoint, CheckpointId, Due, QueueKey};
use super::handle::{Handle, retry_topic};
use super::journal::{self, Taken};
use super::order::OrderedAck;
use crate::engine::Engine;
use crate::engine::position::no_topic;
use crate::engine::turn::{Refusal, Request, Turn};

impl Engine {
    /// ACK_MESSAGE 200051.
    pub(in crate::engine) fn ack(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = AckMessageRequest::decode(&req.frame.ext)?;
        let (group, topic) = (header.consumer_group.to_str(), header.topic.to_str());
        let handle = Handle::parse(&header.extra_info.to_str())?;
        self.check_acked(turn, &topic, header.queue_id, header.offset)?;
        let key = QueueKey::new(&group, &topic, header.queue_id);
        if handle.is_orderly() {
            self.ack_in_order(turn, &key, handle.pop_ms, header.offset)?;
        } else {
            self.ack_offset(turn, &key, (handle.start, handle.pop_ms), header.offset);
        }
        turn.answer_ok(req.to);
        Ok(())
    }

    /// BATCH_ACK_MESSAGE 200151.
    pub(in crate::engine) fn batch_ack(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let body = BatchAckMessageRequestBody::from_json(req.frame.body)?;
        if body.acks.is_empty() {
            return Err(Refusal::new(
                response::NO_MESSAGE,
                "the batch acknowledges nothing",
            ));
        }
        for ack in &body.acks {
            if self.topics.get(&ack.topic).is_none() {
                return Err(no_topic(&ack.topic));
            }
        }
        for ack in body.acks {
            let topic = if ack.retry == "0" {
                ack.topic
            } else {
                retry_topic(&ack.consumer_group, &ack.topic)
            };
            let key = QueueKey::new(&ack.consumer_group, &topic, ack.queue_id);
            let offsets = ack
                .bit_set
                .iter()
                .filter_map(|bit| ack.start_offset.checked_add(i64::try_from(bit).ok()?));
            if ack.revive_queue_id == super::ORDER_REVIVE_QID {
                for offset in offsets {
                    // A batch goes on where one message of it is no longer known.
                    let _ = self.ack_in_order(turn, &key, ack.pop_time, offset);
                }
                continue;
            }
            let id = (ack.start_offset, ack.pop_time);
            let Some(checkpoint) = self.pops.table.get(&key, id) else {
                continue;
            };
            let bits = offsets
                .filter_map(|offset| checkpoint.bit(ack.start_offset, offset))
                .fold(0, |all, bit| all | bit);
            self.ack_bits(turn, &key, id, bits);
        }
        turn.answer_ok(req.to);
        Ok(())
    }

    fn check_acked(
        &mut self,
        turn: &mut Turn<'_>,
        topic: &str,
        queue_id: i32,
        offset: i64,
    ) -> Result<(), Refusal> {
        let Some(known) = self.topics.get(topic) else {
            return Err(no_topic(topic));
        };
        if queue_id < 0 || queue_id >= known.config.read_queue_nums {
            return Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                format!(
                    "queueId[{queue_id}] is illegal, topic[{topic}] has {} queues to read",
                    known.config.read_queue_nums
                ),
            ));
        }
        let queue = turn.log.find_queue(topic, queue_id);
        let (min, max) = queue.map_or((0, 0), |queue| {
            (turn.log.min_offset(queue), turn.log.max_offset(queue))
        });
        if offset < min || offset > max {
            return Err(Refusal::new(
                response::NO_MESSAGE,
                format!(
                    "offset is illegal, key:{topic}@{queue_id}, commit:{offset}, store:{min}~{max}"
                ),
            ));
        }
        Ok(())
    }

    fn ack_offset(&mut self, turn: &mut Turn<'_>, key: &QueueKey, id: CheckpointId, offset: i64) {
        if let Some(bit) = self
            .pops
            .table
            .get(key, id)
            .and_then(|checkpoint| checkpoint.bit(id.0, offset))
        {
            self.ack_bits(turn, key, id, bit);
        }
    }

    /// Sets bits of a checkpoint; where it was the last of them the group has come further.
    pub(super) fn ack_bits(
        &mut self,
        turn: &mut Turn<'_>,
        key: &QueueKey,
        id: CheckpointId,
        bits: u32,
    ) {
        let outstanding = |engine: &Self| {
            engine
                .pops
                .table
                .queue(&key.group, &key.topic, key.queue_id)
                .map_or(0, |queue| queue.checkpoints.len())
        };
        let was_full = self.pops.table.count() >= self.settings.max_pop_checkpoints
            || outstanding(self) >= self.settings.max_queue_pop_checkpoints;
        if self.pops.table.acknowledge(key, id, bits) == Acked::Last {
            self.commit_pops(key, false);
            if was_full {
                self.wake_pops_of(turn, &key.topic, key.queue_id);
            }
        }
    }

    fn ack_in_order(
        &mut self,
        turn: &mut Turn<'_>,
        key: &QueueKey,
        pop_ms: i64,
        offset: i64,
    ) -> Result<(), Refusal> {
        let queue = self
            .pops
            .table
            .queue_mut(&key.group, &key.topic, key.queue_id);
        let Some(ordered) = queue.and_then(|queue| queue.ordered.as_mut()) else {
            return Ok(());
        };
        let next = match ordered.acknowledge(pop_ms, offset) {
            OrderedAck::Next(next) => next,
            OrderedAck::Stale => return Ok(()),
            OrderedAck::Unknown => {
                return Err(Refusal::new(
                    response::MESSAGE_ILLEGAL,
                    format!(
                        "offset is illegal, key:{}@{}, commit:{offset} was not popped last",
                        key.topic, key.queue_id
                    ),
                ));
            }
        };
        let free = ordered.blocked_until("", turn.now.wall_ms).is_none();
        self.pops.table.mark_order(key);
        if self
            .offsets
            .get(&key.group, &key.topic, key.queue_id)
            .is_none_or(|committed| committed < next)
        {
            self.offsets
                .commit(&key.group, &key.topic, key.queue_id, next);
        }
        if free {
            self.wake_point(turn, &key.group, &key.topic, key.queue_id, &key.topic);
        }
        Ok(())
    }

    /// CHANGE_MESSAGE_INVISIBLETIME 200053.
    pub(in crate::engine) fn change_invisible(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = ChangeMessageInvisibletimeRequest::decode(&req.frame.ext)?;
        let (group, topic) = (header.consumer_group.to_str(), header.topic.to_str());
        let handle = Handle::parse(&header.extra_info.to_str())?;
        self.check_acked(turn, &topic, header.queue_id, header.offset)?;
        if header.invisible_time < 0 {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                "invisibleTime must not be negative",
            ));
        }
        let key = QueueKey::new(&group, &topic, header.queue_id);
        let (pop_ms, invisible_ms) = match handle.is_orderly() {
            true => {
                let visible_ms = turn.now.wall_ms.saturating_add(header.invisible_time);
                self.change_in_order(&key, handle.pop_ms, header.offset, visible_ms);
                (handle.pop_ms, visible_ms.saturating_sub(handle.pop_ms))
            }
            false => {
                let id = (handle.start, handle.pop_ms);
                (
                    self.change_checkpoint(turn, &key, id, header.offset, header.invisible_time)?,
                    header.invisible_time,
                )
            }
        };
        turn.answer(
            req.to,
            response::SUCCESS,
            None,
            |fields| {
                fields.int_field("popTime", pop_ms);
                fields.int_field("invisibleTime", invisible_ms);
                fields.int_field("reviveQid", handle.revive_qid.into());
            },
            &[],
        );
        Ok(())
    }

    /// Gives a message a checkpoint of its own that begins now, and takes it out of the one that it was in. Gives the pop time
    /// of its new handle.
    fn change_checkpoint(
        &mut self,
        turn: &mut Turn<'_>,
        key: &QueueKey,
        id: CheckpointId,
        offset: i64,
        invisible_ms: i64,
    ) -> Result<i64, Refusal> {
        let mut pop_ms = turn.now.wall_ms;
        let checkpoint = self.pops.table.get(key, id);
        let bit = checkpoint.and_then(|checkpoint| {
            checkpoint
                .bit(id.0, offset)
                .filter(|bit| checkpoint.acked & bit == 0)
        });
        let Some(bit) = bit else { return Ok(pop_ms) };
        let Some(queue) = self.pops.table.queue(&key.group, &key.topic, key.queue_id) else {
            return Ok(pop_ms);
        };
        if self.pops.table.count() >= self.settings.max_pop_checkpoints
            || queue.checkpoints.len() >= self.settings.max_queue_pop_checkpoints
        {
            return Err(Refusal::new(
                response::SYSTEM_BUSY,
                "too many popped messages are not acknowledged yet",
            ));
        }
        while queue.checkpoints.contains_key(&(offset, pop_ms)) {
            pop_ms += 1;
        }
        let taken = Taken {
            retry: false,
            queue_id: key.queue_id,
            start: offset,
            next: offset + 1,
            deltas: vec![0],
        };
        let mut payload = Vec::new();
        journal::push_popped(
            &mut payload,
            &key.group,
            &key.topic,
            pop_ms,
            invisible_ms,
            &[taken],
        );
        // The new one first: between the two the message is in both, never in none.
        turn.log.append_state(journal::POPPED, &payload)?;
        let changed = Checkpoint {
            next: offset + 1,
            invisible_ms,
            deltas: [0].into(),
            acked: 0,
        };
        self.pops.table.insert(key, (offset, pop_ms), changed);
        self.ack_bits(turn, key, id, bit);
        // Otherwise a crash would bring the message at its old time and at its new one.
        self.journal_acks(turn, true);
        Ok(pop_ms)
    }

    fn change_in_order(&mut self, key: &QueueKey, pop_ms: i64, offset: i64, visible_ms: i64) {
        let queue = self
            .pops
            .table
            .queue_mut(&key.group, &key.topic, key.queue_id);
        let Some(ordered) = queue.and_then(|queue| queue.ordered.as_mut()) else {
            return;
        };
        if ordered.change(pop_ms, offset, visible_ms) {
            self.pops.table.mark_order(key);
            self.pops.table.add_due(Due {
                wall_ms: visible_ms,
                queue: key.clone(),
                checkpoint: None,
            });
        }
    }
}
