//! What was not acknowledged in its time comes again: through the group's retry topic, or, after too many attempts, never;
//! then it goes to the dead letters.
//!
//! The copy is written first and the acknowledgement after it, so that a crash between the two gives a message twice and
//! never takes one away. A call does at most [`MAX_REVIVED`] messages; the engine asks for the next call at once.

use corelane_wire::message_id::OffsetId;
use corelane_wire::properties::{Edit, name as property};
use corelane_wire::record::Record;

use super::checkpoint::{Due, QueueKey};
use super::handle::retry_topic;
use crate::engine::Engine;
use crate::engine::name::DLQ_PREFIX;
use crate::engine::store::NewMessage;
use crate::engine::turn::{Refusal, Turn};
use crate::log::{ReadId, ReadMiss, Slice};
use corelane_wire::code::response;

/// Messages that one call gives back.
const MAX_REVIVED: usize = 256;
/// How long a busy log is left alone, in milliseconds.
const BUSY_WAIT_MS: i64 = 10;
/// How long a log that takes nothing is left alone, in milliseconds.
const STOPPED_WAIT_MS: i64 = 1_000;
/// When a message that could not be given back is tried again, in milliseconds.
const REFUSED_WAIT_MS: i64 = 10_000;
/// The property that names the group for which a message comes again.
const ORIGIN_GROUP: &str = "ORIGIN_GROUP";

/// Why a checkpoint is not revived to its end.
enum Stop {
    /// Goes on when this read is done.
    Read(ReadId),
    /// The log takes no message just now.
    Log { wait_ms: i64 },
    /// It does not take this one.
    Refused(Refusal),
}

impl Engine {
    /// Revives checkpoints whose time is over, and lets orderly pops go on.
    pub(super) fn revive_due(&mut self, turn: &mut Turn<'_>) {
        if turn.now.mono_ms < self.pops.revive_from_mono_ms {
            return;
        }
        self.pops.revive_from_mono_ms = 0;
        let mut revived = 0;
        while revived < MAX_REVIVED && self.pops.revive_from_mono_ms == 0 {
            let Some(due) = self.pops.table.take_due(turn.now.wall_ms) else {
                break;
            };
            revived += 1 + self.do_due(turn, due);
        }
        if revived > 0 {
            self.journal_acks(turn, true);
        }
    }

    /// Goes on with what waited for a read.
    pub(in crate::engine) fn revive_after_read(&mut self, turn: &mut Turn<'_>, read: ReadId) {
        let waiting = self.pops.reviving.remove(&read).unwrap_or_default();
        let any = !waiting.is_empty();
        for due in waiting {
            self.do_due(turn, due);
        }
        if any {
            self.journal_acks(turn, true);
        }
    }

    /// Gives how many messages came again.
    fn do_due(&mut self, turn: &mut Turn<'_>, due: Due) -> usize {
        let key = &due.queue;
        if due.checkpoint.is_none() {
            let queue = self.pops.table.queue(&key.group, &key.topic, key.queue_id);
            let ordered = queue.and_then(|queue| queue.ordered.as_ref());
            if ordered.is_none_or(|ordered| ordered.blocked_until("", turn.now.wall_ms).is_none()) {
                self.wake_point(turn, &key.group, &key.topic, key.queue_id, &key.topic);
            }
            return 0;
        }
        let (count, stop) = self.revive(turn, &due);
        match stop {
            None => {}
            Some(Stop::Read(read)) => self.pops.reviving.entry(read).or_default().push(due),
            Some(Stop::Log { wait_ms }) => {
                self.pops.revive_from_mono_ms = turn.now.mono_ms + wait_ms;
                self.pops.table.add_due(due);
            }
            Some(Stop::Refused(refusal)) => {
                tracing::error!(group = %key.group, topic = %key.topic, "a message cannot come again: {}", refusal.remark);
                self.pops.table.add_due(Due {
                    wall_ms: turn.now.wall_ms + REFUSED_WAIT_MS,
                    ..due
                });
            }
        }
        count
    }

    /// Gives back every message of a checkpoint that is not acknowledged.
    fn revive(&mut self, turn: &mut Turn<'_>, due: &Due) -> (usize, Option<Stop>) {
        let (key, Some(id)) = (&due.queue, due.checkpoint) else {
            return (0, None);
        };
        let Some(checkpoint) = self.pops.table.get(key, id) else {
            return (0, None);
        };
        let mut count = 0;
        for (bit, offset) in checkpoint.open(id.0).collect::<Vec<_>>() {
            match self.popped_record(turn, key, offset) {
                Ok(record) => {
                    if let Err(refusal) = self.give_back(turn, key, &record, id.1) {
                        return (count, Some(stop(refusal)));
                    }
                    count += 1;
                }
                Err(ReadMiss::Wanted(read)) => return (count, Some(Stop::Read(read))),
                Err(ReadMiss::Gone) => {
                    tracing::warn!(group = %key.group, topic = %key.topic, queue_id = key.queue_id, offset,
                        "a popped message was removed before it was acknowledged");
                }
                Err(miss @ ReadMiss::Damaged { .. }) => {
                    tracing::error!(group = %key.group, topic = %key.topic, queue_id = key.queue_id, offset,
                        "a popped message cannot come again: {miss}");
                }
            }
            self.ack_bits(turn, key, id, bit);
        }
        (count, None)
    }

    fn popped_record(
        &mut self,
        turn: &mut Turn<'_>,
        key: &QueueKey,
        offset: i64,
    ) -> Result<Slice, ReadMiss> {
        let queue = turn
            .log
            .find_queue(&key.topic, key.queue_id)
            .ok_or(ReadMiss::Gone)?;
        let mut entries = Vec::with_capacity(1);
        turn.log.entries(queue, offset, 1, &mut entries)?;
        let entry = entries.first().ok_or(ReadMiss::Gone)?;
        turn.log.record(entry.position, entry.size)
    }

    /// Stores a message that a group did not acknowledge where the group, or nobody, will pop it.
    fn give_back(
        &mut self,
        turn: &mut Turn<'_>,
        key: &QueueKey,
        record: &[u8],
        pop_ms: i64,
    ) -> Result<(), Refusal> {
        let Ok((record, _)) = Record::parse(record) else {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                "the record cannot be read",
            ));
        };
        let reconsume_times = record.reconsume_times().saturating_add(1);
        let most = self
            .groups
            .get(&key.group)
            .map_or(i32::MAX, |config| config.retry_max_times);
        let is_dead = reconsume_times > most;
        let target = if is_dead {
            format!("{DLQ_PREFIX}{}", key.group)
        } else {
            retry_topic(&key.group, &key.topic)
        };
        self.ensure_topic(turn, &target, 1)?;
        let Some(queue) = self
            .topics
            .get_mut(&target)
            .map(|topic| topic.queue(turn.log, 0))
        else {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!("the topic {target} cannot be made"),
            ));
        };
        let received = record.properties();
        let [tags, first_pop, origin_topic] = received.find([
            property::TAGS,
            property::FIRST_POP_TIME,
            property::DLQ_ORIGIN_TOPIC,
        ]);
        let popped = pop_ms.to_string();
        let first_pop = first_pop
            .filter(|_| record.reconsume_times() > 0)
            .map_or(popped, |text| text.to_str().into_owned());
        let id = OffsetId {
            store_host: record.store_host(),
            offset: record.physical_offset(),
        }
        .encode();
        let dead_letter = is_dead && origin_topic.is_none();
        let origin = key
            .topic
            .strip_prefix(&format!("%RETRY%{}_", key.group))
            .unwrap_or(&key.topic);
        let append = [
            (property::FIRST_POP_TIME, first_pop.as_str()),
            (ORIGIN_GROUP, &*key.group),
            (
                property::DLQ_ORIGIN_TOPIC,
                if dead_letter { origin } else { "" },
            ),
            (
                property::DLQ_ORIGIN_MESSAGE_ID,
                if dead_letter { id.as_str() } else { "" },
            ),
        ];
        let without = [property::POP_CK, property::FIRST_POP_TIME, ORIGIN_GROUP];
        let mut message = NewMessage {
            topic: &target,
            queue_id: 0,
            queue,
            tags: tags.map(|tags| tags.to_str()),
            flag: record.flag(),
            sys_flag: record.sys_flag(),
            born_timestamp: record.born_timestamp(),
            born_host: record.born_host(),
            reconsume_times,
            prepared_transaction_offset: 0,
            body: record.body(),
            properties: Edit {
                ready: "",
                received,
                without: &without,
                append: &append,
            },
        };
        if self.layout(&message).is_err() {
            // Properties that were just short enough: the message matters more than what we have to say of it.
            message.properties = Edit {
                ready: "",
                received,
                without: &without,
                append: &[],
            };
        }
        self.store(turn, &message)?;
        Ok(())
    }
}

fn stop(refusal: Refusal) -> Stop {
    match refusal.code {
        response::SYSTEM_BUSY => Stop::Log {
            wait_ms: BUSY_WAIT_MS,
        },
        response::SERVICE_NOT_AVAILABLE => Stop::Log {
            wait_ms: STOPPED_WAIT_MS,
        },
        _ => Stop::Refused(refusal),
    }
}
