//! Pops in the journal: which records say what is outstanding, and how they are read back.
//!
//! A pop is one record, whatever number of queues it took from. Acknowledgements are gathered for [`ACK_FLUSH_MS`] and
//! written as one record a queue. A crash may lose the last of those: their messages come again. It cannot lose a pop
//! that a later one went beyond, because records come back in the order in which they were written.
//!
//! All integers are little-endian; strings have a length of 16 bits.

use std::collections::BTreeMap;

use corelane_wire::body::SetMessageRequestModeRequestBody;

use super::checkpoint::{Acked, Checkpoint, CheckpointId, Due, MAX_MESSAGES, QueueKey};
use super::handle::retry_topic;
use super::order::{OrderedMessage, OrderedPop};
use crate::engine::Engine;
use crate::engine::turn::{Refusal, Turn};
use crate::log::StateWriter;

/// `group | topic | popTime | invisibleTime | count | (is retry, queue, start, length, count, (delta)...)...`
pub const POPPED: u16 = 30;
/// `group | topic | queue | count | (start, popTime, bits)...`
const ACKED: u16 = 31;
/// `group | topic | queue | next`: where the next pop begins; in snapshots only.
const NEXT: u16 = 32;
/// `group | topic | queue | popTime | invisibleTime | attempt | count | (offset, count, acked, visible)...`
pub const ORDERED: u16 = 33;
/// JSON of a message request mode.
pub const REQUEST_MODE: u16 = 34;

/// `group | topic | queue`: what was outstanding there is forgotten.
const RESET: u16 = 35;

/// How long an acknowledgement may wait to be journalled, in milliseconds.
const ACK_FLUSH_MS: i64 = 200;

/// What a pop took of one queue, before it has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Whether the queue is one of the retry topic.
    pub retry: bool,
    /// The queue.
    pub queue_id: i32,
    /// Where the scan began.
    pub start: i64,
    /// Where it ended.
    pub next: i64,
    /// The messages: their distance from the start. Empty: nothing passed the filter.
    pub deltas: Vec<u16>,
}

impl Engine {
    /// Reads a record of this room back. `None`: the kind is none of ours.
    pub(in crate::engine) fn apply_pop(
        &mut self,
        kind: u16,
        payload: &[u8],
    ) -> Option<Result<(), String>> {
        let cut = || "a pop's record is cut short".to_owned();
        Some(match kind {
            POPPED => self.apply_popped(payload).ok_or_else(cut),
            ACKED => self.apply_acked(payload).ok_or_else(cut),
            NEXT => self.apply_next(payload).ok_or_else(cut),
            ORDERED => self.apply_ordered(payload).ok_or_else(cut),
            RESET => self.apply_reset(payload).ok_or_else(cut),
            REQUEST_MODE => SetMessageRequestModeRequestBody::from_json(payload)
                .map(|mode| self.pops.modes.put(mode))
                .map_err(|error| error.to_string()),
            _ => return None,
        })
    }

    fn apply_popped(&mut self, mut bytes: &[u8]) -> Option<()> {
        let bytes = &mut bytes;
        let (group, topic) = (text(bytes)?.to_owned(), text(bytes)?.to_owned());
        let (pop_ms, invisible_ms) = (i64_of(bytes)?, i64_of(bytes)?);
        for _ in 0..u16_of(bytes)? {
            let retry = u16_of(bytes)? != 0;
            let (queue_id, start) = (i32_of(bytes)?, i64_of(bytes)?);
            let next = start.checked_add(i32_of(bytes)?.into())?;
            let count = u16_of(bytes)?;
            let deltas: Box<[u16]> = (0..count).map(|_| u16_of(bytes)).collect::<Option<_>>()?;
            if deltas.is_empty() || deltas.len() > MAX_MESSAGES {
                return None;
            }
            let retry_name = retry.then(|| retry_topic(&group, &topic));
            let key = QueueKey::new(&group, retry_name.as_deref().unwrap_or(&topic), queue_id);
            self.pops.table.insert(
                &key,
                (start, pop_ms),
                Checkpoint {
                    next,
                    invisible_ms,
                    deltas,
                    acked: 0,
                },
            );
        }
        bytes.is_empty().then_some(())
    }

    fn apply_acked(&mut self, mut bytes: &[u8]) -> Option<()> {
        let bytes = &mut bytes;
        let key = queue_key(bytes)?;
        for _ in 0..i32_of(bytes)? {
            let (start, pop_ms, bits) = (i64_of(bytes)?, i64_of(bytes)?, i32_of(bytes)? as u32);
            if self.pops.table.apply_acks(&key, (start, pop_ms), bits) == Acked::Last {
                self.commit_pops(&key, true);
            }
        }
        bytes.is_empty().then_some(())
    }

    fn apply_next(&mut self, mut bytes: &[u8]) -> Option<()> {
        let bytes = &mut bytes;
        let key = queue_key(bytes)?;
        let next = i64_of(bytes)?;
        let queue = self.pops.table.open_queue(&key);
        queue.next = queue.next.max(next);
        bytes.is_empty().then_some(())
    }

    fn apply_ordered(&mut self, mut bytes: &[u8]) -> Option<()> {
        let bytes = &mut bytes;
        let key = queue_key(bytes)?;
        let (pop_ms, invisible_ms) = (i64_of(bytes)?, i64_of(bytes)?);
        let attempt_id = text(bytes)?.to_owned();
        let count = u16_of(bytes)?;
        let message = |bytes: &mut &[u8]| {
            Some(OrderedMessage {
                offset: i64_of(bytes)?,
                count: i32_of(bytes)?,
                acked: u16_of(bytes)? != 0,
                visible_wall_ms: i64_of(bytes)?,
            })
        };
        let messages = (0..count)
            .map(|_| message(bytes))
            .collect::<Option<Vec<_>>>()?;
        let ordered = OrderedPop {
            pop_ms,
            invisible_ms,
            attempt_id,
            messages,
        };
        let committed = self
            .offsets
            .get(&key.group, &key.topic, key.queue_id)
            .unwrap_or(0);
        if !ordered.messages.is_empty() && committed < ordered.next() {
            self.offsets
                .load(&key.group, &key.topic, key.queue_id, ordered.next());
        }
        if let Some(wall_ms) = ordered.blocked_until("", i64::MIN) {
            self.pops.table.add_due(Due {
                wall_ms,
                queue: key.clone(),
                checkpoint: None,
            });
        }
        self.pops.table.open_queue(&key).ordered = (!ordered.is_done()).then_some(ordered);
        self.pops.table.close_queue(&key);
        bytes.is_empty().then_some(())
    }

    fn apply_reset(&mut self, mut bytes: &[u8]) -> Option<()> {
        let key = queue_key(&mut bytes)?;
        self.pops.table.remove_queue(&key);
        bytes.is_empty().then_some(())
    }

    /// Whether anything of a queue is outstanding, or acknowledged and not journalled: that would undo a reset in the next
    /// start.
    pub(in crate::engine) fn has_pops(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        let key = QueueKey::new(group, topic, queue_id);
        let table = &self.pops.table;
        table.is_dirty_in(&key) || table.queue(group, topic, queue_id).is_some()
    }

    /// Forgets what is outstanding of a queue, because somebody sets the group's offset there by hand. To be called before
    /// the offset is set; the group pops from there on.
    pub(in crate::engine) fn reset_pops(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
        queue_id: i32,
    ) -> Result<(), Refusal> {
        let key = QueueKey::new(group, topic, queue_id);
        if self.has_pops(group, topic, queue_id) {
            let mut payload = Vec::new();
            push_key(&mut payload, &key);
            turn.log.append_state(RESET, &payload)?;
            self.pops.table.remove_queue(&key);
        }
        Ok(())
    }

    /// What is outstanding, for a snapshot.
    pub(in crate::engine) fn snapshot_pops(&self, writer: &mut StateWriter) {
        let mut payload = Vec::new();
        for (key, queue) in self.pops.table.iter() {
            if !queue.checkpoints.is_empty() {
                payload.clear();
                push_key(&mut payload, &key);
                payload.extend_from_slice(&queue.next.to_le_bytes());
                writer.push(NEXT, &payload);
            }
            for ((start, pop_ms), checkpoint) in &queue.checkpoints {
                let taken = Taken {
                    retry: false,
                    queue_id: key.queue_id,
                    start: *start,
                    next: checkpoint.next,
                    deltas: checkpoint.deltas.to_vec(),
                };
                payload.clear();
                push_popped(
                    &mut payload,
                    &key.group,
                    &key.topic,
                    *pop_ms,
                    checkpoint.invisible_ms,
                    &[taken],
                );
                writer.push(POPPED, &payload);
            }
            let acked = queue
                .checkpoints
                .iter()
                .filter(|(_, checkpoint)| checkpoint.acked != 0);
            let acked: BTreeMap<_, _> = acked
                .map(|(id, checkpoint)| (*id, checkpoint.acked))
                .collect();
            if !acked.is_empty() {
                payload.clear();
                push_acked(&mut payload, &key, &acked);
                writer.push(ACKED, &payload);
            }
            if let Some(ordered) = &queue.ordered {
                payload.clear();
                push_ordered(&mut payload, &key, ordered);
                writer.push(ORDERED, &payload);
            }
        }
        for mode in self.pops.modes.iter() {
            writer.push(REQUEST_MODE, &mode.to_json());
        }
    }

    /// Journals the acknowledgements that wait, when they have waited long enough or `now` says so.
    pub(in crate::engine) fn journal_acks(&mut self, turn: &mut Turn<'_>, now: bool) {
        if !self.pops.table.is_dirty() {
            self.pops.next_flush_mono_ms = i64::MAX;
            return;
        }
        if self.pops.next_flush_mono_ms == i64::MAX && !now {
            self.pops.next_flush_mono_ms = turn.now.mono_ms + ACK_FLUSH_MS;
        }
        if !now && turn.now.mono_ms < self.pops.next_flush_mono_ms {
            return;
        }
        let mut payload = Vec::new();
        while let Some((key, acks)) = self.pops.table.take_dirty() {
            payload.clear();
            push_acked(&mut payload, &key, &acks);
            if turn.log.append_state(ACKED, &payload).is_err() {
                self.pops.table.put_back_dirty(key, acks);
                break;
            }
        }
        while let Some(key) = self.pops.table.take_dirty_order() {
            let queue = self.pops.table.queue(&key.group, &key.topic, key.queue_id);
            let none = OrderedPop::default();
            payload.clear();
            push_ordered(
                &mut payload,
                &key,
                queue
                    .and_then(|queue| queue.ordered.as_ref())
                    .unwrap_or(&none),
            );
            if turn.log.append_state(ORDERED, &payload).is_err() {
                self.pops.table.mark_order(&key);
                break;
            }
            let done = self
                .pops
                .table
                .queue_mut(&key.group, &key.topic, key.queue_id);
            if let Some(queue) =
                done.filter(|queue| queue.ordered.as_ref().is_some_and(OrderedPop::is_done))
            {
                queue.ordered = None;
                self.pops.table.close_queue(&key);
            }
        }
        let dirty = self.pops.table.is_dirty();
        self.pops.next_flush_mono_ms = if dirty {
            turn.now.mono_ms + ACK_FLUSH_MS
        } else {
            i64::MAX
        };
    }
}

/// Writes a pop.
pub fn push_popped(
    out: &mut Vec<u8>,
    group: &str,
    topic: &str,
    pop_ms: i64,
    invisible_ms: i64,
    taken: &[Taken],
) {
    push_text(out, group);
    push_text(out, topic);
    out.extend_from_slice(&pop_ms.to_le_bytes());
    out.extend_from_slice(&invisible_ms.to_le_bytes());
    out.extend_from_slice(&(taken.len() as u16).to_le_bytes());
    for queue in taken {
        out.extend_from_slice(&u16::from(queue.retry).to_le_bytes());
        out.extend_from_slice(&queue.queue_id.to_le_bytes());
        out.extend_from_slice(&queue.start.to_le_bytes());
        out.extend_from_slice(&((queue.next - queue.start) as i32).to_le_bytes());
        out.extend_from_slice(&(queue.deltas.len() as u16).to_le_bytes());
        for delta in &queue.deltas {
            out.extend_from_slice(&delta.to_le_bytes());
        }
    }
}

fn push_acked(out: &mut Vec<u8>, key: &QueueKey, acks: &BTreeMap<CheckpointId, u32>) {
    push_key(out, key);
    out.extend_from_slice(&(acks.len() as i32).to_le_bytes());
    for ((start, pop_ms), bits) in acks {
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(&pop_ms.to_le_bytes());
        out.extend_from_slice(&bits.to_le_bytes());
    }
}

/// Writes an orderly pop.
pub fn push_ordered(out: &mut Vec<u8>, key: &QueueKey, ordered: &OrderedPop) {
    push_key(out, key);
    out.extend_from_slice(&ordered.pop_ms.to_le_bytes());
    out.extend_from_slice(&ordered.invisible_ms.to_le_bytes());
    push_text(out, &ordered.attempt_id);
    out.extend_from_slice(&(ordered.messages.len() as u16).to_le_bytes());
    for message in &ordered.messages {
        out.extend_from_slice(&message.offset.to_le_bytes());
        out.extend_from_slice(&message.count.to_le_bytes());
        out.extend_from_slice(&u16::from(message.acked).to_le_bytes());
        out.extend_from_slice(&message.visible_wall_ms.to_le_bytes());
    }
}

fn push_key(out: &mut Vec<u8>, key: &QueueKey) {
    push_text(out, &key.group);
    push_text(out, &key.topic);
    out.extend_from_slice(&key.queue_id.to_le_bytes());
}

/// Names of groups, topics and attempts are checked to be short before they come here.
fn push_text(out: &mut Vec<u8>, text: &str) {
    assert!(
        text.len() <= usize::from(u16::MAX),
        "a name is longer than a record can say"
    );
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn queue_key(bytes: &mut &[u8]) -> Option<QueueKey> {
    let (group, topic) = (text(bytes)?, text(bytes)?);
    Some(QueueKey::new(group, topic, i32_of(bytes)?))
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::from(u16_of(bytes)?);
    let (head, tail) = bytes.split_at_checked(len)?;
    *bytes = tail;
    std::str::from_utf8(head).ok()
}

fn part<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

fn u16_of(bytes: &mut &[u8]) -> Option<u16> {
    part(bytes).map(u16::from_le_bytes)
}

fn i32_of(bytes: &mut &[u8]) -> Option<i32> {
    part(bytes).map(i32::from_le_bytes)
}

fn i64_of(bytes: &mut &[u8]) -> Option<i64> {
    part(bytes).map(i64::from_le_bytes)
}
