//! Taking what is due out of the queue where it waits, and storing it where it belongs.
//!
//! A batch is taken as far as the log has its records in memory; what is on disk is asked for, long before its turn. Then
//! the messages and the record of how far this went are appended as one group, so that a crash keeps all of it or none.

use corelane_wire::code::response;
use corelane_wire::properties::{Edit, name as property};
use corelane_wire::record::Record;

use super::pair;
use crate::engine::Engine;
use crate::engine::store::NewMessage;
use crate::engine::turn::{Refusal, Turn};
use crate::log::{AppendError, Appended, Entry, QueueRef, ReadMiss, Slice};

/// Messages of one batch.
const MAX_MESSAGES: usize = 64;
/// Bytes of one batch; one message may have more.
const MAX_BYTES: usize = 64 << 10;
/// How much longer a record may become by its topic and by properties.
const GROWTH_BYTES: usize = 512;
/// What the record of the progress takes in the log, and more.
const PROGRESS_BYTES: usize = 64;
/// Messages of a queue that are read ahead of the one that is delivered next.
const AHEAD: i64 = 2048;

/// What was taken from a queue.
pub(super) struct Batch {
    /// Offsets and records. What is lost has none.
    pub records: Vec<(i64, Slice)>,
    /// The offset behind the last.
    pub next: i64,
    /// Store time of the first message that is not due.
    pub later_ms: Option<i64>,
    /// More waits for the disk.
    pub reading: bool,
    bytes: usize,
}

impl Engine {
    /// Takes records of `queue` from `from` on that were stored at or before `stored_ms`. What retention or damage has taken
    /// is reported and passed over.
    pub(super) fn collect(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueRef,
        from: i64,
        stored_ms: i64,
    ) -> Batch {
        let mut batch = Batch {
            records: Vec::new(),
            next: from,
            later_ms: None,
            reading: false,
            bytes: PROGRESS_BYTES,
        };
        let min = turn.log.min_offset(queue);
        if from < min {
            tracing::error!(
                messages = min - from,
                "messages that waited for their time are lost: retention took them"
            );
            batch.next = min;
        }
        batch.next = turn.log.next_kept(queue, batch.next);
        let mut entries = std::mem::take(&mut self.entries);
        self.read_ahead(turn, queue, batch.next, stored_ms, &mut entries);
        entries.clear();
        match turn
            .log
            .entries(queue, batch.next, MAX_MESSAGES, &mut entries)
        {
            Ok(()) => {}
            Err(ReadMiss::Wanted(read)) => {
                self.delays.reads.insert(read);
                batch.reading = true;
            }
            Err(miss) => {
                tracing::error!(%miss, "the index of messages that wait for their time cannot be read")
            }
        }
        let most = MAX_BYTES.min(turn.log.most_together());
        for entry in &entries {
            if entry.store_ms > stored_ms {
                batch.later_ms = Some(entry.store_ms);
                break;
            }
            let bytes = entry.size as usize + GROWTH_BYTES;
            if !batch.records.is_empty() && batch.bytes + bytes > most {
                break;
            }
            match turn.log.waiting_record(entry) {
                Ok(record) => {
                    batch.records.push((batch.next, record));
                    batch.bytes += bytes;
                    batch.next += 1;
                }
                Err(ReadMiss::Wanted(read)) => {
                    self.delays.reads.insert(read);
                    batch.reading = true;
                    break;
                }
                Err(miss) => {
                    tracing::error!(%miss, position = entry.position, "a message that waited for its time is lost");
                    batch.next += 1;
                }
            }
        }
        self.entries = entries;
        batch
    }

    /// Has what comes after `from` in `queue` read, as far as it is due: delivery must not wait for each read in turn.
    /// `entries` is room for it.
    fn read_ahead(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueRef,
        from: i64,
        stored_ms: i64,
        entries: &mut Vec<Entry>,
    ) {
        if from >= turn.log.max_offset(queue) {
            self.delays.ahead.remove(&queue);
            return;
        }
        let known = self.delays.ahead.get(&queue).copied().unwrap_or(from);
        let mut next = known.max(from);
        while next - from <= AHEAD / 2 {
            next = turn.log.next_kept(queue, next);
            entries.clear();
            let most = (from + AHEAD - next).max(0) as usize;
            if most == 0 || turn.log.entries(queue, next, most, entries).is_err() {
                break;
            }
            let due = entries.partition_point(|entry| entry.store_ms <= stored_ms);
            let asked = turn.log.read_waiting_ahead(&entries[..due]);
            next += asked as i64;
            if asked == 0 || asked < entries.len() {
                break;
            }
        }
        self.delays.ahead.insert(queue, next);
    }

    /// Hands every record of a batch to `each`, which may store one message for it, and journals the progress with them:
    /// `(key, offset)` under `kind`. Gives the offset reached; the log's refusal where it took nothing.
    pub(super) fn deliver_batch(
        &mut self,
        turn: &mut Turn<'_>,
        batch: &Batch,
        kind: u16,
        key: i64,
        mut each: impl FnMut(&mut Self, &mut Turn<'_>, &Record<'_>) -> Result<(), Refusal>,
    ) -> Result<i64, AppendError> {
        turn.log.together(batch.bytes)?;
        let mut reached = batch.next;
        for (offset, record) in &batch.records {
            let stored = match Record::parse(record) {
                Ok((record, _)) => each(self, turn, &record),
                Err(error) => Err(Refusal::new(response::MESSAGE_ILLEGAL, error.to_string())),
            };
            match stored {
                Ok(()) => {}
                Err(refusal) if refusal.code == response::MESSAGE_ILLEGAL => {
                    tracing::error!(offset, remark = %refusal.remark, "a message that waited for its time cannot be delivered");
                }
                Err(refusal) => {
                    tracing::warn!(remark = %refusal.remark, "messages that are due must wait for the log");
                    reached = *offset;
                    break;
                }
            }
        }
        turn.log.append_state(kind, &pair(key, reached))?;
        Ok(reached)
    }

    /// Stores a record that waited in the topic and queue that it names; `None` where that topic is gone.
    pub(super) fn deliver_record(
        &mut self,
        turn: &mut Turn<'_>,
        record: &Record<'_>,
        append: &[(&str, &str)],
    ) -> Result<Option<Appended>, Refusal> {
        let properties = record.properties();
        let [topic, queue_id, tags] =
            properties.find([property::REAL_TOPIC, property::REAL_QID, property::TAGS]);
        let topic = topic.map(|topic| topic.to_str()).unwrap_or_default();
        let queue_id = queue_id
            .and_then(|id| id.to_str().parse::<i32>().ok())
            .filter(|id| *id >= 0);
        let Some(queue_id) = queue_id else {
            return Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                "the record does not say which queue it is for",
            ));
        };
        let Some(known) = self.topics.get_mut(&topic) else {
            tracing::warn!(%topic, "a message is due, but its topic is gone");
            return Ok(None);
        };
        if queue_id >= known.queue_count().max(self.settings.max_topic_queues) {
            return Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                format!("{topic} has no queue {queue_id}"),
            ));
        }
        let queue = known.queue(turn.log, queue_id);
        let message = NewMessage {
            topic: &topic,
            queue_id,
            queue,
            tags: tags.map(|tags| tags.to_str()),
            flag: record.flag(),
            sys_flag: record.sys_flag(),
            born_timestamp: record.born_timestamp(),
            born_host: record.born_host(),
            reconsume_times: record.reconsume_times(),
            prepared_transaction_offset: record.prepared_transaction_offset(),
            body: record.body(),
            properties: Edit {
                ready: "",
                received: properties,
                without: &[],
                append,
            },
        };
        self.store(turn, &message).map(Some)
    }
}
