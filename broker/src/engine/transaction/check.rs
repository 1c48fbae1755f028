//! Asking producers about half messages that have not ended (CHECK_TRANSACTION_STATE 39), giving up on them, and taking
//! given-up ones up again (RESUME_CHECK_HALF_MESSAGE 323).
//!
//! A half message is looked at when it is older than `transaction_timeout_ms`, or than its own immunity time, and then every
//! `transaction_check_interval_ms`. Whether or not a producer of its group was there to be asked, that was a check; after
//! `transaction_check_max` of them it goes to the dead topic.

use corelane_wire::ExtHeader;
use corelane_wire::code::{request, response};
use corelane_wire::header::group::ResumeCheckHalfMessageRequest;
use corelane_wire::message_id::OffsetId;
use corelane_wire::properties::{Edit, name as property};
use corelane_wire::record::{Record, RecordLayout};

use super::end::immunity_ms;
use super::half::copied;
use super::{CHECKED, DEAD_TOPIC, HALF_TOPIC, push_checks};
use crate::engine::Engine;
use crate::engine::turn::{Refusal, Request, Turn};
use crate::log::{Entry, Position, ReadId, ReadMiss, Slice};

/// Half messages that one call looks at, at most.
const MAX_CHECKS: usize = 256;
/// Bytes of them that one call sends, at most; one message may be larger.
const MAX_CHECK_BYTES: usize = 1 << 20;
/// How long checks rest when one call could not do all that was due, in milliseconds.
const REST_MS: i64 = 10;
/// When a half message that could not be looked at now is looked at again, in milliseconds.
const AGAIN_MS: i64 = 1_000;

/// What came of looking at a half message.
enum Look {
    /// Its producer was asked; so many bytes were sent.
    Asked(usize),
    /// It ended.
    Ended,
    /// It is looked at again at this moment.
    At(i64),
    /// It waits for a read.
    Reading(ReadId),
}

impl Engine {
    /// Looks at the half messages that are due.
    pub(in crate::engine) fn check_transactions(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono_ms;
        if now < self.transactions.rest_until_mono_ms {
            return;
        }
        let (mut looked, mut bytes) = (0, 0);
        let mut checked = Vec::new();
        while let Some((due, offset)) = self.transactions.due.first().copied() {
            if due > now {
                break;
            }
            if looked == MAX_CHECKS || bytes >= MAX_CHECK_BYTES {
                self.transactions.rest_until_mono_ms = now + REST_MS;
                break;
            }
            looked += 1;
            match self.look_at(turn, offset) {
                Ok(Look::Asked(sent)) => {
                    bytes += sent;
                    let checks = self
                        .transactions
                        .pending
                        .get(&offset)
                        .map_or(0, |pending| pending.checks);
                    push_checks(&mut checked, offset, checks);
                    self.transactions
                        .schedule(offset, now + self.settings.transaction_check_interval_ms);
                }
                Ok(Look::Ended) => {}
                Ok(Look::At(again)) => self.transactions.schedule(offset, again),
                Ok(Look::Reading(read)) => {
                    self.transactions.schedule(offset, i64::MAX);
                    self.transactions
                        .reading
                        .entry(read)
                        .or_default()
                        .push(offset);
                }
                Err(refusal) => {
                    tracing::debug!(offset, why = %refusal.remark, "a half message is looked at later");
                    self.transactions.schedule(offset, now + AGAIN_MS);
                }
            }
        }
        // A number that is not journalled, for the log has no room, is one more check after a crash.
        if !checked.is_empty() && turn.log.append_state(CHECKED, &checked).is_err() {
            tracing::debug!("the log has no room for the number of checks");
        }
    }

    /// A read is done: what waited for it is looked at now.
    pub(in crate::engine) fn transactions_read(&mut self, turn: &mut Turn<'_>, read: ReadId) {
        for offset in self.transactions.reading.remove(&read).unwrap_or_default() {
            self.transactions.schedule(offset, turn.now.mono_ms);
        }
    }

    fn look_at(&mut self, turn: &mut Turn<'_>, offset: i64) -> Result<Look, Refusal> {
        let now = turn.now.mono_ms;
        let queue = self.half_queue(turn);
        if offset >= turn.log.max_offset(queue) {
            return Ok(Look::At(now + AGAIN_MS));
        }
        let slice = match self.half_record(turn, offset) {
            Ok(slice) => slice,
            Err(ReadMiss::Wanted(read)) => return Ok(Look::Reading(read)),
            Err(ReadMiss::Gone) => {
                tracing::warn!(
                    offset,
                    "a half message is older than what is kept, and is forgotten"
                );
                self.journal_end(turn, offset)?;
                return Ok(Look::Ended);
            }
            Err(miss @ ReadMiss::Damaged { .. }) => {
                tracing::error!(offset, "a half message cannot be read: {miss}");
                return Ok(Look::At(now + self.settings.transaction_check_interval_ms));
            }
        };
        let Ok((record, _)) = Record::parse(&slice) else {
            self.journal_end(turn, offset)?;
            return Ok(Look::Ended);
        };
        let checks = self
            .transactions
            .pending
            .get(&offset)
            .map_or(0, |pending| pending.checks);
        let immunity = record
            .properties()
            .get(property::CHECK_IMMUNITY_TIME_IN_SECONDS);
        let wait_ms = immunity
            .and_then(|secs| immunity_ms(&secs.to_str()))
            .map_or(0, |immunity_ms| {
                record.store_timestamp() + immunity_ms - turn.now.wall_ms
            });
        if checks == 0 && wait_ms > 0 {
            return Ok(Look::At(now + wait_ms));
        }
        if checks >= self.settings.transaction_check_max {
            self.give_up(turn, &record, offset, checks)?;
            return Ok(Look::Ended);
        }
        let sent = self.ask_producer(turn, &record, offset, checks + 1);
        if let Some(pending) = self.transactions.pending.get_mut(&offset) {
            pending.checks += 1;
        }
        Ok(Look::Asked(sent))
    }

    fn half_record(&mut self, turn: &mut Turn<'_>, offset: i64) -> Result<Slice, ReadMiss> {
        let queue = self.half_queue(turn);
        let mut entries: Vec<Entry> = Vec::new();
        turn.log.entries(queue, offset, 1, &mut entries)?;
        let entry = entries.first().ok_or(ReadMiss::Gone)?;
        turn.log.record(entry.position, entry.size)
    }

    /// Sends CHECK_TRANSACTION_STATE to one of the group's producers. Gives the bytes of the message that was sent.
    fn ask_producer(
        &mut self,
        turn: &mut Turn<'_>,
        record: &Record<'_>,
        offset: i64,
        checks: u32,
    ) -> usize {
        let [group, unique_key, topic, queue_id] = record.properties().find([
            property::PGROUP,
            property::UNIQ_KEY,
            property::REAL_TOPIC,
            property::REAL_QID,
        ]);
        let group = group.map(|group| group.to_str()).unwrap_or_default();
        let round = self.transactions.round;
        self.transactions.round = round.wrapping_add(1);
        let producers = self.clients.producers(&group);
        let Some(producer) =
            producers.and_then(|producers| producers.values().nth(round % producers.len()))
        else {
            tracing::info!(%group, offset, checks, "no producer of the group is there to be asked about a half message");
            return 0;
        };
        let connection = producer.connection;
        let topic = topic.map(|topic| topic.to_str()).unwrap_or_default();
        let queue_id = queue_id
            .and_then(|id| id.to_str().parse().ok())
            .unwrap_or(0);
        let body = checked_body(record, &topic, queue_id, checks);
        let id = OffsetId {
            store_host: self.store_host,
            offset: record.physical_offset(),
        }
        .encode();
        let unique_key = unique_key.map(|key| key.to_str()).unwrap_or_default();
        let opaque = self.next_opaque();
        let broker_name = &self.settings.broker_name;
        turn.notify(
            connection,
            opaque,
            request::CHECK_TRANSACTION_STATE,
            |fields| {
                fields.field("topic", HALF_TOPIC);
                fields.int_field("tranStateTableOffset", offset);
                fields.int_field("commitLogOffset", record.physical_offset());
                fields.field("msgId", &unique_key);
                fields.field("transactionId", &unique_key);
                fields.field("offsetMsgId", id.as_str());
                fields.field("bname", broker_name);
            },
            &body,
        );
        body.len()
    }

    /// Puts a half message where an operator finds it.
    fn give_up(
        &mut self,
        turn: &mut Turn<'_>,
        record: &Record<'_>,
        offset: i64,
        checks: u32,
    ) -> Result<(), Refusal> {
        let times = checks.to_string();
        let append = [(property::TRANSACTION_CHECK_TIMES, times.as_str())];
        let queue = self.system_queue(turn, DEAD_TOPIC);
        let properties = Edit {
            ready: "",
            received: record.properties(),
            without: &[],
            append: &append,
        };
        let message = copied(record, DEAD_TOPIC, 0, queue, properties);
        self.store_and_end(turn, &message, offset)?;
        tracing::warn!(
            offset,
            checks,
            "a half message was given up, and lies in {DEAD_TOPIC}"
        );
        Ok(())
    }

    /// RESUME_CHECK_HALF_MESSAGE 323: a given-up message, named by its offset id, is a half message again.
    pub(in crate::engine) fn resume_half_message(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = ResumeCheckHalfMessageRequest::decode(&req.frame.ext)?;
        let wrong = |what: String| Refusal::new(response::SYSTEM_ERROR, what);
        let id = header.msg_id.map(|id| id.to_str()).unwrap_or_default();
        let position = OffsetId::parse(&id).and_then(|id| Position::try_from(id.offset).ok());
        let Some(position) = position else {
            return Err(wrong(format!("{id:?} is not an offset message id")));
        };
        let slice = match turn.log.record_at(position) {
            Ok(slice) => slice,
            Err(ReadMiss::Wanted(read)) => {
                self.retry_after_read(turn, read, req);
                return Ok(());
            }
            Err(miss) => {
                return Err(wrong(format!(
                    "no message is found under the id {id}: {miss}"
                )));
            }
        };
        match Record::parse(&slice) {
            Ok((record, _)) if record.topic() == DEAD_TOPIC => {
                let stored = self.store_half_again(turn, &record)?;
                self.answer_when_durable(turn, req.to, stored.end, 0);
                Ok(())
            }
            _ => Err(wrong(format!(
                "the message {id} does not lie in {DEAD_TOPIC}"
            ))),
        }
    }
}

/// The half message as its producer gets it: a record of the topic and the queue that it is for.
fn checked_body(record: &Record<'_>, topic: &str, queue_id: i32, checks: u32) -> Vec<u8> {
    let times = checks.to_string();
    let append = [
        (property::WAIT, "false"),
        (property::TRANSACTION_CHECK_TIMES, times.as_str()),
    ];
    let properties = Edit {
        ready: "",
        received: record.properties(),
        without: &[],
        append: &append,
    };
    let properties = properties.measure();
    let mut head = record.head();
    head.queue_id = queue_id;
    let layout = RecordLayout::new(
        &head.born_host,
        &head.store_host,
        record.body().len(),
        topic.len(),
        properties.len(),
    );
    // Only a message whose properties are as long as may be does not fit with these two more.
    let Ok(layout) = layout else {
        return record.bytes().to_vec();
    };
    let mut bytes = vec![0; layout.total_len()];
    layout.write_body(&mut bytes, record.body());
    layout.write_topic(&mut bytes, topic);
    properties.write_to(layout.properties_mut(&mut bytes));
    layout.write_head(&mut bytes, &head);
    bytes
}
